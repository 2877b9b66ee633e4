"""The native core against the float64 reference: single operations, then the whole method under every option."""

import itertools

import numpy as np
import pytest
import tolerances
from conftest import draw_image, draw_mask, native_blend
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import _core, ops, reference

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (63, 64), (127, 129)]
EQUATIONS = ["gaussian-poisson", "screened"]


# ---------------------------------------------------------------------------------------- single operations


@pytest.mark.parametrize("shape", [*SHAPES, (211, 307)])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_single_operations_match_reference(shape, channels, rng):
    source, target = draw_image(rng, *shape, channels), draw_image(rng, *shape, channels)
    mask = draw_mask(rng, *shape)
    finer = (2 * shape[0] - 1, 2 * shape[1])
    calls = [
        (ops.composite, (source, target, mask), {}),
        (ops.guidance_divergence, (source, target, mask), {}),
        (ops.downsample, (source,), {}),
        (ops.upsample, (source, finer), {}),
        (ops.inset, (mask, 2), {}),
        *((ops.gaussian_blur, (source, sigma), {}) for sigma in (0.3, 0.5, 0.8, 1.0, 3.0)),
    ]
    if channels is not None:
        calls.append((ops.extend, (source, mask), {}))
    for operation, arguments, options in calls:
        native = operation(*arguments, **options, impl="native")
        slow = operation(*arguments, **options, impl="reference")
        assert native.dtype == np.float32
        assert native.shape == slow.shape
        assert_allclose(native, slow, atol=tolerances.FLOAT32, rtol=0, err_msg=operation.__name__)


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize(
    ("sigma", "color_weight"), [(0.5, 0.1), (0.5, 1.0), (0.5, 10.0), (0.3, 1.0), (0.8, 1.0), (1.0, 1.0), (3.0, 1.0)]
)
@pytest.mark.parametrize("shape", [*SHAPES, (211, 307)])
def test_solve_native_matches_reference(shape, sigma, color_weight, equation, rng):
    source, target = draw_image(rng, *shape), draw_image(rng, *shape)
    u = reference.guidance_divergence(source, target, draw_mask(rng, *shape))
    c = reference.gaussian_blur(target, sigma)
    # The operation takes float32: what its own rounding of u and c does to the result is no error of the solver.
    u, c = (x.astype(np.float32).astype(np.float64) for x in (u, c))
    options = {"sigma": sigma, "color_weight": color_weight, "equation": equation}
    native = ops.solve(u, c, **options)
    slow = ops.solve(u, c, **options, impl="reference")
    # A weak colour and a wide Gaussian leave high frequencies to u alone, where an image overshoots [0, 1].
    assert_allclose(native, slow, atol=tolerances.NATIVE * max(1, np.abs(slow).max()), rtol=0)


@pytest.mark.parametrize("shape", [(2100, 21), (21, 2100), (1500, 37)])
def test_solve_is_the_same_for_any_number_of_threads(shape, rng):
    # Columns are solved sixteen at a time: what one batch leaves in memory must not reach the next, which has less than
    # sixteen. Only where threads begin at other batches would it show.
    u, c = rng.standard_normal((2, *shape))
    one = _core.solve(u, c, 1.0, 0.5, False, threads=1)
    for threads in (2, 3):
        assert_array_equal(_core.solve(u, c, 1.0, 0.5, False, threads=threads), one)


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
@pytest.mark.parametrize("membrane", [True, False])
def test_every_mode_is_the_same_for_any_number_of_threads(mode, membrane, rng):
    source, target = draw_image(rng, 211, 307), draw_image(rng, 211, 307)
    mask = draw_mask(rng, 211, 307)
    one = native_blend(source, target, mask, mode=mode, membrane=membrane, threads=1)
    for threads in (2, 3, 5):
        again = native_blend(source, target, mask, mode=mode, membrane=membrane, threads=threads)
        assert_array_equal(again, one)


def test_solve_screened_refuses_what_is_singular():
    # The spectrum of a Gaussian cut at three sigma dips below zero, and a large lambda outweighs l > 0 there.
    x = np.zeros((64, 64))
    with pytest.raises(ValueError, match=r"^color_weight: expected a smaller value.*singular"):
        ops.solve(x, x, sigma=3.0, color_weight=1e4, equation="screened")
    with pytest.raises(ValueError, match=r"^color_weight: expected a smaller value.*singular"):
        native_blend(
            x[..., None], x[..., None], x + 1, sigma=3.0, color_weight=1e4, equation="screened", membrane=False
        )


@pytest.mark.parametrize("old", [(1, 1), (2, 5), (8, 8), (33, 20)])
@pytest.mark.parametrize("new", [(1, 1), (3, 4), (8, 8), (16, 17), (64, 64)])
@pytest.mark.parametrize("operation", ["resize", "resample_bicubic", "area_average"])
def test_resampling_native_matches_reference(operation, old, new, rng):
    image = draw_image(rng, *old)
    native = getattr(_core, operation)(image, new)
    assert_allclose(native, getattr(reference, operation)(image, new), atol=tolerances.FLOAT32, rtol=0)


@pytest.mark.parametrize("old", [(1, 1), (2, 5), (63, 100), (200, 31)])
@pytest.mark.parametrize("new", [(1, 1), (3, 4), (64, 64), (128, 128)])
def test_resample_nearest_native_matches_reference(old, new, rng):
    mask = draw_mask(rng, *old)
    assert_array_equal(_core.resample_nearest(mask, new), reference.resample_nearest(mask, new))


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 60])
def test_inset_native_matches_reference_on_ragged_masks(pixels, rng):
    for density in (0.3, 0.6, 0.9):
        mask = (rng.random((60, 45)) < density) * rng.uniform(0.1, 1, (60, 45))
        mask = mask.astype(np.float32).astype(np.float64)
        assert_array_equal(ops.inset(mask, pixels), ops.inset(mask, pixels, impl="reference"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (40, 31), (64, 64), (129, 65)])
def test_extend_native_matches_reference_on_sparse_alpha(shape, rng):
    source = draw_image(rng, *shape)
    for density in (0.0, 0.01, 0.5, 1.0):
        alpha = ((rng.random(shape) < density) * rng.uniform(0.1, 1, shape)).astype(np.float32)
        native = ops.extend(source, alpha)
        assert_allclose(native, ops.extend(source, alpha, impl="reference"), atol=tolerances.FLOAT32, rtol=0)


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same values, lying otherwise in memory."""
    return {
        "Fortran order": np.asfortranarray(x),
        "flipped rows": np.ascontiguousarray(x[::-1])[::-1],
        "flipped columns": np.ascontiguousarray(x[:, ::-1])[:, ::-1],
        "every second pixel": np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, ::2],
        "crop": np.pad(x, [(2, 3), (1, 5)] + [(0, 0)] * (x.ndim - 2), constant_values=0.5)[2:-3, 1:-5],
        "float32 Fortran order": np.asfortranarray(x.astype(np.float32)),
        "float32 flipped": np.ascontiguousarray(x.astype(np.float32)[::-1, ::-1])[::-1, ::-1],
    }


@pytest.mark.parametrize("layout", layouts(np.zeros((2, 2))))
def test_operations_take_any_memory_layout(layout, rng):
    source, target = draw_image(rng, 21, 18), draw_image(rng, 21, 18)
    mask = draw_mask(rng, 21, 18)
    s, t, m = (layouts(x)[layout] for x in (source, target, mask))
    assert not (s.flags.c_contiguous and m.flags.c_contiguous)
    assert_array_equal(ops.composite(s, t, m), ops.composite(source, target, mask))
    assert_array_equal(ops.guidance_divergence(s, t, m), ops.guidance_divergence(source, target, mask))
    assert_array_equal(ops.membrane(s, t, m), ops.membrane(source, target, mask))
    assert_array_equal(ops.gaussian_blur(s, 1.0), ops.gaussian_blur(source, 1.0))
    assert_array_equal(ops.solve(s, t), ops.solve(source, target))
    assert_array_equal(ops.downsample(s), ops.downsample(source))
    assert_array_equal(ops.upsample(s, (42, 35)), ops.upsample(source, (42, 35)))
    assert_array_equal(ops.inset(m, 1), ops.inset(mask, 1))
    assert_array_equal(ops.extend(s, m), ops.extend(source, mask))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, m: ops.composite(x[:3], x, m), r"source: expected the target's shape \(4, 5, 3\), got \(3, 5, 3\)"),
        (lambda x, m: ops.membrane(x, x, m[:3]), r"mask: expected .* height and width \(4, 5\), got \(3, 5\)"),
        (lambda x, m: ops.composite(x, x + np.nan, m), "target: expected finite values, got NaN or infinity"),
        (lambda x, m: ops.gaussian_blur(x, 0), "sigma: expected a number above 0 and up to 1000, got 0"),
        (lambda x, m: ops.gaussian_blur(x, np.nan), "sigma: expected .*, got nan"),
        (lambda x, m: ops.solve(x, x, color_weight=-1), "color_weight: expected a number above 0 .*, got -1"),
        (lambda x, m: ops.solve(x, x[..., 0]), r"color: expected the divergence's shape \(4, 5, 3\), got \(4, 5\)"),
        (lambda x, m: ops.solve(x, x, equation="x"), "equation: expected 'gaussian-poisson' or 'screened', got 'x'"),
        (lambda x, m: ops.upsample(x, (9, 9)), r"shape: expected twice .*\(4, 5\), or one less, got \(9, 9\)"),
        (lambda x, m: ops.inset(x, 1), r"mask: expected shape \(H, W\), got \(4, 5, 3\)"),
        (lambda x, m: ops.inset(m, -1), "pixels: expected 0 to 1048576, got -1"),
        (lambda x, m: ops.extend(m, m), "alpha: expected"),
        (lambda x, m: ops.downsample(x[:0]), "image: expected .* not empty, got shape"),
        (lambda x, m: ops.downsample(x, impl="gpu"), "impl: expected 'native' or 'reference', got 'gpu'"),
    ],
)  # fmt: skip
def test_operations_refuse_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(np.zeros((4, 5, 3)), np.zeros((4, 5)))


def test_operations_refuse_integers():
    with pytest.raises(TypeError, match=r"^image: expected floating-point values, got uint8"):
        ops.downsample(np.zeros((4, 4), np.uint8))


# ------------------------------------------------------------------------------------------- the whole method

OPTIONS = [
    dict(zip(("equation", "carry", "pyramid", "membrane", "inset"), values, strict=True))
    for values in itertools.product(EQUATIONS, ["image", "correction"], ["aspect", "square"], [True, False], [0, 2])
]


def check_blend(rng, shape, channels, *, size, with_lowres, soft=True, **options) -> None:
    source, target = draw_image(rng, *shape, channels), draw_image(rng, *shape, channels)
    mask = draw_mask(rng, *shape, soft=soft)
    lowres = draw_image(rng, size, size, channels) if with_lowres else None
    common = {"lowres": lowres, "image_size": size, **options}
    tolerances.assert_matches(
        native_blend(source, target, mask, **common),
        reference.blend(source, target, mask, **common),
        membrane=options.get("membrane", options.get("mode", "default") == "default"),
    )


@pytest.mark.parametrize("with_lowres", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_blend_native_matches_reference_for_every_option(options, with_lowres, rng):
    # Small S on the small sizes, so that there are several levels; all channel counts turn by turn.
    cases = zip(SHAPES, itertools.cycle([1, 3, 4, 2]), [1, 2, 64, 1, 8, 64], strict=False)
    for shape, channels, size in cases:
        check_blend(rng, shape, channels, size=size, with_lowres=with_lowres, **options)


@pytest.mark.parametrize("options", OPTIONS[::3], ids=lambda o: "-".join(map(str, o.values())))
def test_blend_native_matches_reference_on_odd_photos(options, rng):
    check_blend(rng, (211, 307), 3, size=64, with_lowres=True, **options)


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
def test_blend_native_matches_reference_on_larger_photos(mode, rng):
    check_blend(rng, (480, 641), 3, size=64, with_lowres=mode != "paper", mode=mode)


@pytest.mark.parametrize("carry", ["image", "correction"])
@pytest.mark.parametrize(
    ("equation", "sigma", "color_weight"),
    [
        ("gaussian-poisson", 0.5, 0.1),
        ("gaussian-poisson", 0.5, 10.0),
        ("gaussian-poisson", 0.5, 1e-5),
        ("gaussian-poisson", 0.5, 1e3),
        ("gaussian-poisson", 0.3, 1.0),
        ("gaussian-poisson", 0.8, 1.0),
        ("gaussian-poisson", 1.0, 1.0),
        ("gaussian-poisson", 3.0, 1.0),
        ("screened", 0.5, 0.1),
        ("screened", 0.5, 10.0),
        ("screened", 0.5, 1e-4),
        ("screened", 0.5, 1e3),
        ("screened", 0.3, 1.0),
        ("screened", 3.0, 1.0),
    ],
)
def test_blend_native_matches_reference_for_every_weight(equation, sigma, color_weight, carry, rng):
    for shape in ((7, 1), (63, 64), (127, 129)):
        check_blend(
            rng, shape, 3, size=16, with_lowres=True, membrane=False,
            equation=equation, sigma=sigma, color_weight=color_weight, carry=carry,
        )  # fmt: skip


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 24),
    channels=st.integers(1, 3),
    options=st.sampled_from(OPTIONS),
    inset=st.integers(0, 5),
    color_weight=st.floats(0.2, 5),
    sigma=st.sampled_from([0.3, 0.5, 0.8, 1.5]),
    soft=st.booleans(),
    with_lowres=st.booleans(),
    source_size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    offset=st.tuples(st.integers(-20, 60), st.integers(-20, 60)),
    with_alpha=st.booleans(),
)
@hypothesis_settings(max_examples=120)
def test_blend_native_matches_reference_for_drawn_input(
    seed, height, width, size, channels, options, inset, color_weight, sigma, soft, with_lowres, source_size,
    offset, with_alpha,
):  # fmt: skip
    """A source of any size at any place, with or without alpha, against the same placed by hand."""
    rng = np.random.default_rng(seed)
    source, target = draw_image(rng, *source_size, channels), draw_image(rng, height, width, channels)
    mask = draw_mask(rng, *source_size, soft=soft)
    alpha = draw_mask(rng, *source_size) if with_alpha else np.ones(source_size)
    lowres = draw_image(rng, size, size, channels) if with_lowres else None

    frame, placed, known = np.zeros_like(target), np.zeros((height, width)), np.zeros((height, width))
    top, left = offset
    ys, xs = np.mgrid[0 : source_size[0], 0 : source_size[1]]
    ys, xs = ys.ravel(), xs.ravel()
    fits = (ys + top >= 0) & (ys + top < height) & (xs + left >= 0) & (xs + left < width)
    here, there = (ys[fits], xs[fits]), (ys[fits] + top, xs[fits] + left)
    frame[there], placed[there], known[there] = source[here], mask[here], alpha[here]
    if not (placed * known).any():
        expected = target
    else:
        expected = reference.blend(
            frame, target, placed, alpha=known, lowres=lowres, image_size=size,
            **{**options, "inset": inset, "color_weight": color_weight, "sigma": sigma},
        )  # fmt: skip
    given_source = np.concatenate([source, alpha[..., None]], axis=2) if with_alpha else source
    got = native_blend(
        given_source, target, mask, lowres=lowres, image_size=size, offset=offset,
        **{**options, "inset": inset, "color_weight": color_weight, "sigma": sigma},
    )  # fmt: skip
    tolerances.assert_matches(got, expected, membrane=options["membrane"])


@pytest.mark.parametrize("pyramid", ["aspect", "square"])
@pytest.mark.parametrize("carry", ["image", "correction"])
def test_blend_is_the_same_for_any_number_of_threads(carry, pyramid, rng):
    source, target = draw_image(rng, 251, 333), draw_image(rng, 251, 333)
    mask = draw_mask(rng, 251, 333)
    options = {"carry": carry, "pyramid": pyramid}
    one = native_blend(source, target, mask, threads=1, **options)
    for threads in (2, 3):
        assert_array_equal(native_blend(source, target, mask, threads=threads, **options), one)


def test_generator_inputs_native_match_reference(rng):
    source, target = draw_image(rng, 100, 77), draw_image(rng, 100, 77)
    mask, alpha = draw_mask(rng, 100, 77), draw_mask(rng, 100, 77)
    for with_membrane in (True, False):
        said = _core.options("default") | {"membrane": with_membrane, "inset": 1}
        core = _core.Blender(100, 77, 3, image_size=24, threads=0, **said)
        rgba = np.concatenate([source, alpha[..., None]], axis=2).astype(np.float32)
        native = core.prepare(rgba, target.astype(np.float32), mask.astype(np.float32))
        slow = reference.generator_inputs(
            source, target, mask, image_size=24, membrane=with_membrane, inset=1, alpha=alpha
        )
        for name, got, expected in zip(slow._fields, native, slow, strict=True):
            assert got.dtype == np.float32
            assert got.shape == expected.shape
            exact = name != "harmonized" or not with_membrane
            assert_allclose(
                got, expected, rtol=0, atol=tolerances.NATIVE if exact else tolerances.MEMBRANE_MAX, err_msg=name
            )
