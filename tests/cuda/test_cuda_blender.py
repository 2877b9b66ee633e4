"""gpgan._cuda.Blender against gpgan.reference, and what it promises of memory, streams and errors."""

import itertools

import numpy as np
import pytest
import tolerances
import torch
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import _core, reference
from gpgan._cuda_arrays import describe

EQUATIONS = ["gaussian-poisson", "screened"]
OPTIONS = [
    dict(zip(("equation", "carry", "pyramid", "membrane", "inset"), values, strict=True))
    for values in itertools.product(EQUATIONS, ["image", "correction"], ["aspect", "square"], [True, False], [0, 2])
]


def make_core(device, shape, *, batch=1, image_size=64, mode="default", stream=None, **options):
    said = _core.options(mode) | options
    stream = device.stream("cuda:0") if stream is None else stream
    return device.module().Blender(*shape, batch=batch, image_size=image_size, device=0, stream=stream, **said)


def cuda_blend(device, source, target, mask, *, lowres=None, image_size=64, offset=(0, 0), **options):
    """As native_blend of conftest.py; for arrays (N, H, W, C) too."""
    batched = target.ndim == 4
    images = [x if x is None or batched else x[None] for x in (source, target, mask, lowres)]
    count, height, width, channels = images[1].shape
    if images[2] is not None:
        images[2] = images[2][..., None]
    tensors = [None if x is None else device.tensor(np.ascontiguousarray(x, np.float32)) for x in images]
    source_, target_, mask_, lowres_ = (None if x is None else describe(x, count) for x in tensors)
    out = device.tensor(np.full(images[1].shape, np.nan, np.float32))
    stream = device.stream("cuda:0")
    size = image_size if lowres is None else images[3].shape[1]
    core = make_core(device, (height, width, channels), batch=count, image_size=size, **options)
    core.prepare(source_, target_, mask_, offset, stream)
    core.finish(lowres_, describe(out, count), stream)
    core.synchronize()
    result = device.array(out)
    return result if batched else result[0]


def check_blend(device, rng, shape, channels, *, size, with_lowres=True, **options) -> None:
    source, target = draw_image(rng, *shape, channels), draw_image(rng, *shape, channels)
    mask = draw_mask(rng, *shape)
    lowres = draw_image(rng, size, size, channels) if with_lowres else None
    common = {"lowres": lowres, "image_size": size, **options}
    tolerances.assert_matches(
        cuda_blend(device, source, target, mask, **common),
        reference.blend(source, target, mask, **common),
        membrane=options.get("membrane", options.get("mode", "default") == "default"),
    )


# ------------------------------------------------------------------------------------------------- the method


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_blend_matches_reference_for_every_option(options, device, rng):
    # Small S on the small sizes, so that there are several levels; all channel counts turn by turn.
    shapes = [(1, 1), (1, 7), (7, 1), (5, 3), (31, 33), (64, 65)]
    cases = zip(shapes, [1, 3, 4, 2, 3, 1], [1, 2, 64, 1, 8, 16], itertools.cycle([True, False]), strict=False)
    for shape, channels, size, with_lowres in cases:
        check_blend(device, rng, shape, channels, size=size, with_lowres=with_lowres, **options)


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
def test_blend_matches_reference_on_larger_photos(mode, device, rng):
    check_blend(device, rng, (127, 128), 3, size=32, with_lowres=mode != "paper", mode=mode)


@pytest.mark.parametrize("carry", ["image", "correction"])
@pytest.mark.parametrize(
    ("equation", "sigma", "color_weight"),
    [
        ("gaussian-poisson", 0.5, 0.01),
        ("gaussian-poisson", 0.5, 100.0),
        ("gaussian-poisson", 0.3, 1.0),
        ("gaussian-poisson", 2.0, 1.0),
        ("screened", 0.5, 0.01),
        ("screened", 0.5, 100.0),
        ("screened", 2.0, 1.0),
    ],
)
def test_blend_matches_reference_for_every_weight(equation, sigma, color_weight, carry, device, rng):
    for shape in ((7, 1), (31, 33)):
        check_blend(
            device, rng, shape, 3, size=8, membrane=False,
            equation=equation, sigma=sigma, color_weight=color_weight, carry=carry,
        )  # fmt: skip


@pytest.mark.parametrize("with_alpha", [True, False])
@pytest.mark.parametrize("offset", [(0, 0), (-7, 5), (20, -3), (9, 11), (100, 0)])
def test_blend_takes_a_source_of_any_size_at_any_place(offset, with_alpha, device, rng):
    size = (24, 37)
    source, target = draw_image(rng, *size), draw_image(rng, 31, 33)
    mask, alpha = draw_mask(rng, *size), draw_mask(rng, *size) if with_alpha else np.ones(size)
    frame, placed, known = np.zeros_like(target), np.zeros((31, 33)), np.zeros((31, 33))
    for y, x in np.ndindex(size):
        there = y + offset[0], x + offset[1]
        if 0 <= there[0] < 31 and 0 <= there[1] < 33:
            frame[there], placed[there], known[there] = source[y, x], mask[y, x], alpha[y, x]
    common = {"image_size": 16, "membrane": False, "inset": 1}
    expected = reference.blend(frame, target, placed, alpha=known, **common) if (placed * known).any() else target
    given = np.concatenate([source, alpha[..., None]], axis=2) if with_alpha else source
    tolerances.assert_matches(cuda_blend(device, given, target, mask, offset=offset, **common), expected)
    if with_alpha:  # which is the mask where there is none
        with_ones = cuda_blend(device, given, target, np.ones(size), offset=offset, **common)
        assert_array_equal(cuda_blend(device, given, target, None, offset=offset, **common), with_ones)


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
def test_a_batch_is_its_images(mode, device, rng):
    sources, targets, lowres = (np.stack([draw_image(rng, *s) for _ in "abc"]) for s in ((31, 33), (31, 33), (8, 8)))
    masks = np.stack([draw_mask(rng, 31, 33), np.zeros((31, 33)), draw_mask(rng, 31, 33, soft=False)])
    together = cuda_blend(device, sources, targets, masks, lowres=lowres, mode=mode)
    for i in range(3):
        alone = cuda_blend(device, sources[i], targets[i], masks[i], lowres=lowres[i], mode=mode)
        # Not bit for bit: an FFT may take planes two by two, or otherwise where there are more of them.
        assert_allclose(together[i], alone, atol=tolerances.FLOAT32, rtol=0)
    assert_array_equal(together[1], targets[1].astype(np.float32))
    once = cuda_blend(device, sources[:1], targets, masks[:1], lowres=lowres[:1], mode=mode)
    sources, masks, lowres = (x[[0, 0, 0]] for x in (sources, masks, lowres))
    again = cuda_blend(device, sources, targets, masks, lowres=lowres, mode=mode)
    assert_array_equal(once, again)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_views_may_run_backwards(dtype, device, rng):
    def as_dtype(x):
        return np.round(x * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else x.astype(dtype)

    images = [
        as_dtype(x) for x in (draw_image(rng, 31, 33), draw_image(rng, 31, 33), draw_mask(rng, 31, 33)[..., None])
    ]
    stream = device.stream("cuda:0")
    results = []
    for flipped in (False, True):
        tensors = [device.tensor(np.ascontiguousarray(x[::-1, ::-1] if flipped else x)[None]) for x in images]
        out = device.tensor(np.zeros_like(images[1])[None])
        given = [describe(x, 1) for x in (*tensors, out)]
        if flipped:  # from the last pixel on
            given = [
                (
                    at + 30 * strides[1] + 32 * strides[2],
                    name,
                    shape,
                    (strides[0], -strides[1], -strides[2], strides[3]),
                )
                for at, name, shape, strides in given
            ]
        core = make_core(device, (31, 33, 3), image_size=8)
        core.prepare(*given[:3], (0, 0), stream)
        core.finish(None, given[3], stream)
        core.synchronize()
        results.append(device.array(out)[0])
    assert_array_equal(results[1][::-1, ::-1], results[0])
    assert len(np.unique(results[0])) > 50


def test_generator_inputs_match_reference(device, rng):
    source, target = draw_image(rng, 50, 39), draw_image(rng, 50, 39)
    mask, alpha = draw_mask(rng, 50, 39), draw_mask(rng, 50, 39)
    rgba = np.concatenate([source, alpha[..., None]], axis=2)
    given = [device.tensor(x[None].astype(np.float32)) for x in (rgba, target, mask[..., None])]
    stream = device.stream("cuda:0")
    for with_membrane in (True, False):
        core = make_core(device, (50, 39, 3), image_size=24, membrane=with_membrane, inset=1)
        described = [describe(x, 1) for x in given]
        views = [device.wrap(core, *x, "cuda:0", stream) for x in core.prepare(*described, (0, 0), stream)]
        slow = reference.generator_inputs(
            source, target, mask, image_size=24, membrane=with_membrane, inset=1, alpha=alpha
        )
        for name, view, expected in zip(slow._fields, views, slow, strict=True):
            got = device.array(view)[0].transpose(1, 2, 0)
            exact = name != "harmonized" or not with_membrane
            atol = tolerances.NATIVE if exact else tolerances.MEMBRANE_MAX
            assert_allclose(got, expected.reshape(24, 24, -1), rtol=0, atol=atol, err_msg=name)


# ---------------------------------------------------------------------------------------- memory, streams, errors


@pytest.fixture
def images(rng):
    return draw_image(rng, 31, 33), draw_image(rng, 31, 33), draw_mask(rng, 31, 33)


def described_images(fake, images):
    source, target, mask = (x.astype(np.float32)[None] for x in images)
    tensors = [torch.from_numpy(x) for x in (source, target, mask[..., None], np.empty_like(target))]
    return tensors, [describe(x, 1) for x in tensors]


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
def test_a_blend_allocates_nothing_and_waits_for_nothing(mode, fake, emulated, images):
    tensors, (source, target, mask, out) = described_images(fake, images)
    lowres = torch.full((1, 8, 8, 3), 0.5)
    core = make_core(fake, (31, 33, 3), image_size=8, mode=mode)
    before = emulated.emulation.allocated_bytes()
    for low in (None, describe(lowres, 1)):
        emulated.emulation.reset_counts()
        core.prepare(source, target, mask, (3, -4), 0)
        core.finish(low, out, 0)
        counts = emulated.emulation.counts()
        assert sum(counts["launches"].values()) > 10
        assert counts["allocations"] == 0
        assert counts["synchronisations"] == 0
        assert not {"cufftCreate", "cufftMakePlanMany64", "cudaHostAlloc"} & set(counts["calls"])
    assert emulated.emulation.allocated_bytes() == before
    assert np.isfinite(tensors[3].numpy()).all()
    del core
    assert emulated.emulation.allocated_bytes() == 0


def test_all_work_is_put_on_the_stream(fake, emulated, images):
    _, (source, target, mask, out) = described_images(fake, images)
    first, second = emulated.emulation.make_stream(), emulated.emulation.make_stream()
    core = make_core(fake, (31, 33, 3), image_size=8, stream=first)
    emulated.emulation.reset_counts()
    core.prepare(source, target, mask, (0, 0), first)
    core.finish(None, out, first)
    assert emulated.emulation.counts()["streams"] == {first}
    emulated.emulation.reset_counts()
    core.prepare(source, target, mask, (0, 0), second)
    core.finish(None, out, second)
    counts = emulated.emulation.counts()
    assert second in counts["streams"]
    assert counts["calls"]["cudaStreamWaitEvent"] == 1  # for what the first still does
    assert 0 not in counts["streams"]


def test_values_that_are_none_are_told_at_the_next_call(device, images):
    source, target, mask = (x.astype(np.float32)[None] for x in images)
    stream = device.stream("cuda:0")
    good = [device.tensor(x) for x in (source, target, mask[..., None])]
    lowres = device.tensor(np.full((1, 8, 8, 3), 0.5, np.float32))
    out = device.tensor(np.zeros_like(target))
    core = make_core(device, (31, 33, 3), image_size=8)

    def blend(images, lowres):
        core.prepare(*(describe(x, 1) for x in images), (0, 0), stream)
        core.finish(describe(lowres, 1), describe(out, 1), stream)

    blend(good, lowres)
    core.synchronize()
    expected = device.array(out)
    for value in (np.nan, np.inf, -0.5, 1.5):
        for i, name in enumerate(("source", "target", "mask", "lowres")):
            bad = [np.array(x) for x in (source, target, mask[..., None], np.full((1, 8, 8, 3), 0.5, np.float32))]
            bad[i][0, 5, 6] = value
            wrong = [device.tensor(x) for x in bad]
            with pytest.raises(ValueError, match=f"^{name}: expected finite floats in \\[0, 1\\]"):
                blend(wrong[:3], wrong[3])
                core.synchronize()
            assert np.isfinite(device.array(out)).all()
    blend(good, lowres)  # told once
    core.synchronize()
    assert_array_equal(device.array(out), expected)


def test_the_next_prepare_tells_too(fake, images):
    tensors, (source, target, mask, out) = described_images(fake, images)
    core = make_core(fake, (31, 33, 3), image_size=8)
    tensors[0][0, 2, 2] = np.nan
    core.prepare(source, target, mask, (0, 0), 0)
    tensors[0][0, 2, 2] = 0.5
    with pytest.raises(ValueError, match=r"^source: expected finite floats in \[0, 1\]"):
        core.prepare(source, target, mask, (0, 0), 0)
    core.prepare(source, target, mask, (0, 0), 0)
    core.finish(None, out, 0)
    core.synchronize()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("cudaMalloc", 2), ("cudaHostAlloc", 2), ("cudaEventCreateWithFlags", 2), ("cufftCreate", 5),
        ("cufftMakePlanMany64", 2),
    ],
)  # fmt: skip
def test_a_failed_constructor_throws_and_leaves_nothing(call, error, fake, emulated):
    emulated.emulation.fail_next(call, error)
    with pytest.raises(RuntimeError, match=call):
        make_core(fake, (31, 33, 3), image_size=8)
    assert emulated.emulation.allocated_bytes() == 0
    assert emulated.emulation.current_device() == 0
    make_core(fake, (31, 33, 3), image_size=8)


def test_a_device_that_cannot_be_used_throws(fake, emulated):
    emulated.emulation.fail_next("cudaSetDevice", 101)
    with pytest.raises(RuntimeError, match="cudaSetDevice"):
        fake.module().Blender(31, 33, 3, batch=1, image_size=8, device=1, stream=0, **_core.options("default"))
    assert emulated.emulation.allocated_bytes() == 0
    assert emulated.emulation.current_device() == 0


@pytest.mark.parametrize(
    ("call", "error"), [("cudaLaunchKernel", 719), ("cufftExecR2C", 6), ("cufftExecC2R", 6), ("cudaMemcpyAsync", 1)]
)
def test_a_failed_call_throws_and_the_next_works(call, error, fake, emulated, images):
    tensors, (source, target, mask, out) = described_images(fake, images)
    core = make_core(fake, (31, 33, 3), image_size=8)
    core.prepare(source, target, mask, (0, 0), 0)
    core.finish(None, out, 0)
    expected = tensors[3].numpy().copy()
    emulated.emulation.fail_next(call, error)
    with pytest.raises(RuntimeError, match="kernel" if call == "cudaLaunchKernel" else call):
        core.prepare(source, target, mask, (0, 0), 0)
        core.finish(None, out, 0)
    core.prepare(source, target, mask, (0, 0), 0)
    core.finish(None, out, 0)
    assert_array_equal(tensors[3].numpy(), expected)


def test_the_callers_device_comes_back(fake, emulated, images):
    _, (source, target, mask, out) = described_images(fake, images)
    said = _core.options("default")
    emulated.emulation.set_device(0)
    core = fake.module().Blender(31, 33, 3, batch=1, image_size=8, device=1, stream=0, **said)
    assert emulated.emulation.current_device() == 0
    core.prepare(source, target, mask, (0, 0), 0)
    assert emulated.emulation.current_device() == 0
    core.finish(None, out, 0)
    core.synchronize()
    assert emulated.emulation.current_device() == 0


def test_wrong_arguments_are_refused(device, images):
    source, target, mask = (x.astype(np.float32)[None] for x in images)
    tensors = [device.tensor(x) for x in (source, target, mask[..., None])]
    given = [describe(x, 1) for x in tensors]
    stream = device.stream("cuda:0")
    core = make_core(device, (31, 33, 3), image_size=8)
    with pytest.raises(RuntimeError, match="call prepare first"):
        core.finish(None, given[1], stream)
    with pytest.raises(ValueError, match=r"^source: expected 1 images, got 2"):
        core.prepare(describe(tensors[0], 2), *given[1:], (0, 0), stream)
    with pytest.raises(ValueError, match=r"^mask: expected the source's size"):
        core.prepare(*given[:2], describe(tensors[2][:, 1:], 1), (0, 0), stream)
    with pytest.raises(ValueError, match=r"^target: expected an address"):
        core.prepare(given[0], (0, *given[1][1:]), given[2], (0, 0), stream)
    with pytest.raises(TypeError, match=r"^target: expected bool, uint8, .*, got float16"):
        core.prepare(given[0], (given[1][0], "float16", *given[1][2:]), given[2], (0, 0), stream)
    core.prepare(*given, (0, 0), stream)
    with pytest.raises(ValueError, match=r"^out: expected 31 x 33 pixels"):
        core.finish(None, describe(tensors[1][:, 1:], 1), stream)
    for wrong, message in (
        ({"batch": 0}, "batch: expected 1 to"), ({"inset": -1}, "inset: expected"),
        ({"equation": "x"}, "equation: expected one of"), ({"sigma": 0.0}, "sigma: expected"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{message}"):
            make_core(device, (31, 33, 3), **wrong)
