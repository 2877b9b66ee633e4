"""The methods to compare with, against independent slow formulas, and the front end that they share."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
import tolerances
import torch
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import gpgan
from gpgan import _frames, _poisson, baselines, reference

METHODS = {name: getattr(baselines, name) for name in baselines.__all__}
H, W = 37, 52
#: Solvers in float64; Poisson's is the core's, in float32.
EXACT = dict.fromkeys(METHODS, 1e-9) | {"poisson": 1e-6}


@pytest.fixture
def images(rng):
    """Source, target and a soft mask."""
    return draw_image(rng, H, W), draw_image(rng, H, W), draw_mask(rng, H, W)


def as_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    return np.round(x * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else x.astype(dtype)


def as_float(x: np.ndarray) -> np.ndarray:
    return x / np.iinfo(x.dtype).max if x.dtype.kind == "u" else x.astype(np.float64)


def disc(height: int, width: int, radius: float) -> np.ndarray:
    """A hard mask in the middle."""
    y, x = np.mgrid[0:height, 0:width]
    return (np.hypot(y - height / 2, x - width / 2) < radius).astype(np.float64)


def edges(shape: tuple[int, int]):
    """All pairs of 4-neighbours, the upper or left one first."""
    for y, x in np.ndindex(shape):
        if y + 1 < shape[0]:
            yield (y, x), (y + 1, x)
        if x + 1 < shape[1]:
            yield (y, x), (y, x + 1)


# ------------------------------------------------------------------------------------------- what all have in common


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (2, 3), (31, 64)])
def test_baseline_of_an_image_into_itself_changes_nothing(name, shape, rng):
    x = draw_image(rng, *shape)
    for mask in (draw_mask(rng, *shape), draw_mask(rng, *shape, soft=False), np.ones(shape)):
        assert_allclose(METHODS[name](x, x, mask), x, rtol=0, atol=EXACT[name])
        grey = as_dtype(x[..., 0], "u1")
        assert_array_equal(METHODS[name](grey, grey, mask), grey)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("channels", [None, 2, 3, 4])
def test_baseline_without_masked_pixels_is_the_target_bit_for_bit(name, dtype, channels, rng):
    target = as_dtype(draw_image(rng, 9, 14, channels), dtype)
    result = METHODS[name](np.zeros_like(target), target, np.zeros((9, 14)))
    assert result.tobytes() == target.tobytes()
    assert result.dtype == target.dtype
    assert not np.shares_memory(result, target)


@pytest.mark.parametrize("name", set(METHODS) - {"modified_poisson"})
def test_baseline_with_a_full_mask_is_the_source(name, rng):
    # There is no seam, and nothing of the target to meet.
    source, target = draw_image(rng, H, W), draw_image(rng, H, W)
    assert_allclose(METHODS[name](source, target, np.ones((H, W))), source, rtol=0, atol=EXACT[name])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", ">f8"])
def test_baseline_of_any_dtype_is_the_float64_one_rounded(name, dtype, images):
    source, target, mask = (as_dtype(x, dtype) for x in images)
    result = METHODS[name](source, target, mask)
    expected = METHODS[name](as_float(source), as_float(target), as_float(mask))
    assert result.dtype == target.dtype
    if target.dtype.kind == "u":
        expected = np.clip(expected, 0, 1)
    # Floats are not clipped, and so may have the steps of numbers up to 2.
    step = {"u1": 1 / 255, "u2": 1 / 65535, "f2": 2**-10, "f4": 2**-23, ">f8": 2**-52}[dtype]
    assert_allclose(as_float(result), expected, rtol=0, atol=step / 2 + EXACT[name])


@pytest.mark.parametrize("name", METHODS)
def test_baseline_computes_channel_by_channel_and_grey_alone(name, images):
    source, target, mask = images
    result = METHODS[name](source, target, mask)
    for c in range(3):
        alone = METHODS[name](source[..., c], target[..., c], mask)
        assert alone.shape == (H, W)
        # The native solver stops all channels at once, where the worst is good enough.
        tolerance = tolerances.MEMBRANE_MAX / 10 if name == "poisson" else EXACT[name]
        assert_allclose(alone, result[..., c], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_baseline_writes_to_no_input(name, images):
    arrays = [np.ascontiguousarray(x) for x in images]
    for x in arrays:
        x.setflags(write=False)
    before = [x.copy() for x in arrays]
    METHODS[name](*arrays)
    for x, y in zip(arrays, before, strict=True):
        assert_array_equal(x, y)


@pytest.mark.parametrize("name", METHODS)
def test_baseline_is_the_same_every_time(name, images):
    assert METHODS[name](*images).tobytes() == METHODS[name](*images).tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_baseline_ignores_colours_under_alpha_0(name, images, rng):
    source, target, mask = images
    alpha = np.roll(mask, 5, axis=1)
    rgba, other = np.dstack([source, alpha]), np.dstack([source, alpha])
    other[alpha == 0, :3] = rng.uniform(size=(int((alpha == 0).sum()), 3))
    assert_array_equal(METHODS[name](rgba, target), METHODS[name](other, target))
    assert_array_equal(METHODS[name](rgba, target, mask), METHODS[name](other, target, mask))


@pytest.mark.parametrize("name", METHODS)
def test_baseline_may_fill_the_target_itself(name, images):
    source, target, mask = (as_dtype(x, "u1") for x in images)
    expected = METHODS[name](source, target, mask)
    itself = target.copy()
    assert METHODS[name](source, itself, mask, out=itself) is itself
    assert_array_equal(itself, expected)


# -------------------------------------------------------------------------------------------------- the front end


def darker(source: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A method that shows all that it was given."""
    assert source.shape == target.shape
    assert source.shape[:2] == mask.shape
    assert {x.dtype for x in (source, target, mask)} == {np.dtype(np.float64)}
    return 0.5 * source + 0.25 * target + 0.125 * mask[..., None]


@pytest.mark.parametrize("offset", [(0, 0), (3, 5), (-7, 4), (6, -9), (30, 44), (-19, -24)])
def test_apply_places_the_source_as_blend_does(offset, rng):
    source, target = draw_image(rng, 20, 25), draw_image(rng, H, W)
    mask = draw_mask(rng, 20, 25)
    mask[[0, -1], [0, -1]] = 1  # something is inside, whatever the offset
    frame, known, weights = np.zeros((H, W, 3)), np.zeros((H, W)), np.zeros((H, W))
    for y, x in np.ndindex(20, 25):
        j, i = y + offset[0], x + offset[1]
        if 0 <= j < H and 0 <= i < W:
            frame[j, i], known[j, i], weights[j, i] = source[y, x], 1, mask[y, x]
    expected = darker(reference.extend(frame, known), target, weights)
    result = _frames.apply(darker, source, target, mask, offset, None)
    assert_allclose(result, expected, rtol=0, atol=1e-6)  # the native extension is of float32
    assert_allclose(result[known > 0], expected[known > 0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("offset", [(H, 0), (0, W), (-20, 0), (0, -25), (10**9, -(10**9))])
def test_apply_beyond_the_target_leaves_it_as_it_is(offset, rng):
    target = draw_image(rng, H, W, 4)
    result = _frames.apply(darker, np.ones((20, 25, 3)), target, np.ones((20, 25)), offset, None)
    assert_array_equal(result, target)


def test_apply_crops_a_source_that_is_larger(images, rng):
    source, mask = draw_image(rng, H + 9, W + 4), draw_mask(rng, H + 9, W + 4)
    cut = np.s_[6 : H + 6, 3 : W + 3]
    result = _frames.apply(darker, source, images[1], mask, (-6, -3), None)
    assert_array_equal(result, darker(source[cut], images[1], mask[cut]))


def test_apply_multiplies_the_mask_by_the_sources_alpha(images, rng):
    source, target, mask = images
    alpha = rng.uniform(0.1, 1, (H, W))
    rgba, opaque = np.dstack([source, alpha]), np.dstack([source, np.ones((H, W))])
    assert_array_equal(_frames.apply(darker, rgba, target, None, (0, 0), None), darker(source, target, alpha))
    assert_array_equal(_frames.apply(darker, rgba, target, mask, (0, 0), None), darker(source, target, mask * alpha))
    assert_array_equal(_frames.apply(darker, opaque, target, mask, (0, 0), None), darker(source, target, mask))


def test_apply_passes_the_targets_alpha_through(images, rng):
    source, target, mask = images
    alpha = rng.uniform(size=(H, W))
    result = _frames.apply(darker, source, np.dstack([target, alpha]), mask, (0, 0), None)
    assert_array_equal(result, np.dstack([darker(source, target, mask), alpha]))


def test_apply_takes_all_kinds_of_images(images):
    source, target, mask = (as_dtype(x, "u1") for x in images)
    expected = _frames.apply(darker, source, target, mask, (0, 0), None)
    picture = _frames.apply(darker, *map(Image.fromarray, (source, target, mask)), (0, 0), None)
    assert isinstance(picture, Image.Image)
    assert_array_equal(np.asarray(picture), expected)
    tensors = [torch.from_numpy(x).permute(2, 0, 1) for x in (source, target)]
    result = _frames.apply(darker, *tensors, torch.from_numpy(mask), (0, 0), None)
    assert result.dtype == torch.uint8
    assert_array_equal(result.permute(1, 2, 0).numpy(), expected)
    # Integers of 0 and 1 are a mask as good as bools are; mixed dtypes meet.
    hard = images[2] > 0.5
    bools = _frames.apply(darker, images[0], target, hard, (0, 0), None)
    assert_array_equal(_frames.apply(darker, images[0], target, hard.astype("i4"), (0, 0), None), bools)
    assert_array_equal(_frames.apply(darker, images[0], target, hard.astype("u1"), (0, 0), None), bools)
    assert_array_equal(_frames.apply(darker, images[0], target, 255 * hard.astype("u1"), (0, 0), None), bools)


def test_apply_blends_a_batch_one_by_one(rng):
    sources, targets = (torch.from_numpy(rng.uniform(size=(3, 3, 8, 9))) for _ in range(2))
    masks = torch.from_numpy(rng.uniform(size=(3, 1, 8, 9)))
    result = _frames.apply(darker, sources, targets, masks, (0, 0), None)
    for i in range(3):
        assert_array_equal(result[i], _frames.apply(darker, sources[i], targets[i], masks[i, 0], (0, 0), None))
    one = _frames.apply(darker, sources[:1], targets, masks[0, 0], (0, 0), None)
    assert_array_equal(one[2], _frames.apply(darker, sources[0], targets[2], masks[0, 0], (0, 0), None))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_apply_rounds_halves_up_and_saturates_integers(dtype):
    full = np.iinfo(dtype).max
    values = np.array([[-1.0, 0, 0.5 / full, 1.49 / full, 1 - 0.5 / full, 1, 1.1, 700]])
    zeros = np.zeros((1, 8), dtype)
    result = _frames.apply(lambda *_: values[..., None], zeros, zeros, np.ones((1, 8)), (0, 0), None)
    assert_array_equal(result, [[0, 0, 1, 1, full, full, full, full]])
    floats = zeros.astype(np.float32)
    unclipped = _frames.apply(lambda *_: values[..., None], floats, floats, np.ones((1, 8)), (0, 0), None)
    assert_array_equal(unclipped, values.astype(np.float32))


def test_apply_fills_out(images):
    source, target, mask = (as_dtype(x, "u1") for x in images)
    expected = _frames.apply(darker, source, target, mask, (0, 0), None)
    wide = np.zeros((H, 2 * W, 3), np.uint8)
    view = wide[:, 1::2]
    assert _frames.apply(darker, source, target, mask, (0, 0), view) is view
    assert_array_equal(view, expected)
    assert not wide[:, ::2].any()
    backwards = target[::-1].copy()
    _frames.apply(darker, source, backwards[::-1], mask, (0, 0), backwards[::-1])
    assert_array_equal(backwards[::-1], expected)
    over = source.copy()  # the source is read before it is written over
    _frames.apply(darker, over[::-1], target, mask, (0, 0), over)
    assert_array_equal(over, _frames.apply(darker, source[::-1], target, mask, (0, 0), None))
    weights = np.dstack([mask] * 3)
    _frames.apply(darker, source, target, weights, (0, 0), weights)
    assert_array_equal(weights, expected)


def with_value(value: float, shape: tuple[int, ...] = (8, 9, 3)) -> np.ndarray:
    x = np.zeros(shape)
    x[5, 7] = value
    return x


BAD = [
    {"source": with_value(np.nan)},
    {"source": with_value(1.5)},
    {"source": with_value(np.nan), "offset": (-6, 0)},
    {"target": with_value(-np.inf).astype("f2")},
    {"target": with_value(255.0)},
    {"mask": with_value(-0.5, (8, 9))},
    {"mask": with_value(-1, (8, 9)).astype("i4")},
    {"mask": with_value(255, (8, 9)).astype("i4")},
    {"mask": None},
    {"mask": np.ones((9, 8))},
    {"mask": 1},
    {"mask": np.ones((8, 9), "c8")},
    {"source": np.zeros((8, 9))},
    {"source": np.zeros((8, 9, 5))},
    {"source": np.zeros((8, 9, 3), "i4")},
    {"source": np.dstack([np.zeros((8, 9, 3)), with_value(2.0, (8, 9))]), "mask": None},
    {"source": np.dstack([np.zeros((8, 9, 3)), with_value(np.nan, (8, 9))])},
    {"source": torch.zeros(2, 3, 8, 9)},
    {"target": "photo.png"},
    {"target": Image.new("P", (9, 8))},
    {"target": np.zeros((8, 0, 3))},
    {"offset": 3},
    {"offset": (1.5, 2)},
    {"offset": (2**60, 0)},
    {"out": np.zeros((8, 8, 3), "f4")},
    {"out": torch.zeros(3, 8, 9)},
]


@pytest.mark.parametrize("bad", BAD, ids=lambda x: "-".join(x))
def test_apply_refuses_what_blend_refuses_in_the_same_words(bad):
    arguments = {"source": np.zeros((8, 9, 3)), "target": np.zeros((8, 9, 3)), "mask": np.ones((8, 9)), **bad}
    with pytest.raises((TypeError, ValueError)) as theirs:
        gpgan.blend(**arguments, generator=None)
    with pytest.raises(theirs.type) as ours:
        baselines.copy_paste(**arguments)
    assert str(ours.value) == str(theirs.value)


def test_apply_refuses_large_images_and_other_devices(small_pixel_limit):
    x = np.zeros((small_pixel_limit, 2, 3))
    with pytest.raises(ValueError, match=r"^source: expected at most 100 pixels"):
        baselines.alpha(x, x, np.ones((small_pixel_limit, 2)))
    meta = torch.zeros(3, 8, 9, device="meta")
    with pytest.raises(ValueError, match=r"^target: expected a tensor in CPU memory, .*, got one on meta"):
        baselines.alpha(meta, meta, meta[0])


BAD_OPTIONS = [
    ("alpha", {"sigma": 0}, ValueError, "sigma: expected a number above 0 and up to 1000, got 0"),
    ("alpha", {"sigma": np.nan}, ValueError, "sigma: expected a number above 0 and up to 1000, got nan"),
    ("alpha", {"sigma": "8"}, TypeError, r"sigma: expected float, got str \('8'\)"),
    ("multiband", {"levels": -1}, ValueError, "levels: expected 0 or more, got -1"),
    ("multiband", {"levels": 2.0}, TypeError, r"levels: expected int, got float \(2.0\)"),
    ("poisson", {"mode": "sea"}, ValueError, "mode: expected one of 'seamless', 'mixed', 'monochrome', got 'sea'"),
    ("poisson", {"mode": None}, TypeError, r"mode: expected str, got NoneType \(None\)"),
    ("modified_poisson", {"eps": 0}, ValueError, "eps: expected a number above 0 and up to 1, got 0"),
    ("modified_poisson", {"eps": True}, TypeError, r"eps: expected float, got bool \(True\)"),
    ("multi_spline", {"spacing": 0}, ValueError, "spacing: expected 1 pixel or more, got 0"),
    ("multi_spline", {"spacing": 1.5}, TypeError, r"spacing: expected int, got float \(1.5\)"),
    ("multi_spline", {"weight": 1e-7}, ValueError, "weight: expected a number from 1e-6 to 1e6, got 1e-07"),
    ("multi_spline", {"weight": -1}, ValueError, "weight: expected a number above 0 and up to 1e\\+06, got -1"),
    ("multi_spline", {"smoothness": ""}, ValueError, "smoothness: expected one of 'laplacian', 'gradient', got ''"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "error", "message"), BAD_OPTIONS)
def test_baseline_refuses_bad_options(name, options, error, message):
    x = np.zeros((4, 5, 3))
    with pytest.raises(error, match=f"^{message}$"):
        METHODS[name](x, x, np.ones((4, 5)), **options)


# ---------------------------------------------------------------------------------------------------- copy and feather


def test_copy_paste_is_the_formula(images):
    source, target, mask = images
    result = baselines.copy_paste(source, target, mask)
    for y, x in np.ndindex(H, W):
        assert_allclose(result[y, x], mask[y, x] * source[y, x] + (1 - mask[y, x]) * target[y, x], rtol=0, atol=1e-15)
    hard = mask > 0.5
    assert_array_equal(baselines.copy_paste(source, target, hard), np.where(hard[..., None], source, target))


@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_alpha_is_a_gaussian_feather(sigma, images):
    source, target, mask = images
    radius = int(4 * sigma + 0.5)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(mask, radius, mode="symmetric")
    soft = np.zeros((H, W))
    for i, j in np.ndindex(H, W):
        soft[i, j] = (kernel * padded[i : i + 2 * radius + 1, j : j + 2 * radius + 1]).sum()
    expected = soft[..., None] * source + (1 - soft[..., None]) * target
    assert_allclose(baselines.alpha(source, target, mask, sigma=sigma), expected, rtol=0, atol=1e-12)


def test_alpha_with_the_smallest_sigma_is_copy_paste(images):
    assert_allclose(baselines.alpha(*images, sigma=0.01), baselines.copy_paste(*images), rtol=0, atol=1e-15)


# ----------------------------------------------------------------------------------------------------------- multiband


def mirrored(i: int, n: int) -> int:
    """An index brought back by mirrors that stand on the first and the last pixel."""
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


def reduce_matrix(n: int) -> np.ndarray:
    """Burt and Adelson's REDUCE along n pixels: w(m) g(2 k + m)."""
    if n == 1:
        return np.ones((1, 1))
    matrix = np.zeros(((n + 1) // 2, n))
    for k, (m, weight) in itertools.product(range(len(matrix)), enumerate((0.05, 0.25, 0.4, 0.25, 0.05), start=-2)):
        matrix[k, mirrored(2 * k + m, n)] += weight
    return matrix


def expand_matrix(n: int) -> np.ndarray:
    """EXPAND to n pixels: 2 w(m) g((i - m) / 2) where that is a pixel."""
    if n == 1:
        return np.ones((1, 1))
    matrix = np.zeros((n, (n + 1) // 2))
    for i, (m, weight) in itertools.product(range(n), enumerate((0.05, 0.25, 0.4, 0.25, 0.05), start=-2)):
        at = mirrored(i - m, n)
        if at % 2 == 0:
            matrix[i, at // 2] += 2 * weight
    return matrix


def slow_multiband(source: np.ndarray, target: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    """One channel; both pyramids whole, mixed, and added up."""
    if levels == 0:
        return mask * source + (1 - mask) * target
    height, width = mask.shape
    down, right = reduce_matrix(height), reduce_matrix(width)
    up, left = expand_matrix(height), expand_matrix(width)
    coarse = [down @ x @ right.T for x in (source, target, mask)]
    bands = [x - up @ y @ left.T for x, y in zip((source, target), coarse, strict=False)]
    below = slow_multiband(*coarse, levels - 1)
    return mask * bands[0] + (1 - mask) * bands[1] + up @ below @ left.T


@pytest.mark.parametrize("shape", [(37, 52), (16, 64), (1, 45), (46, 1), (3, 100), (2, 2)])
@pytest.mark.parametrize("levels", [0, 1, 2, 3, 6])
def test_multiband_is_burt_and_adelsons(levels, shape, rng):
    source, target, mask = draw_image(rng, *shape), draw_image(rng, *shape), draw_mask(rng, *shape)
    result = baselines.multiband(source, target, mask, levels=levels)
    for c in range(3):
        expected = slow_multiband(source[..., c], target[..., c], mask, levels)
        assert_allclose(result[..., c], expected, rtol=0, atol=1e-13)


def test_multiband_levels_default_from_the_size(rng):
    for (height, width), levels in {(37, 52): 1, (64, 10): 2, (15, 15): 0, (1, 65): 2, (130, 257): 4}.items():
        source, target, mask = draw_image(rng, height, width), draw_image(rng, height, width), np.zeros((height, width))
        mask[:, : width // 2] = 1
        result = baselines.multiband(source, target, mask)
        assert_array_equal(result, baselines.multiband(source, target, mask, levels=levels))
        deepest = baselines.multiband(source, target, mask, levels=9)  # 257 to 1
        assert_array_equal(deepest, baselines.multiband(source, target, mask, levels=10**6))
        assert not np.array_equal(result, deepest)


def test_multiband_joins_low_bands_widely_and_high_bands_narrowly():
    # Burt and Adelson's own point: a step of brightness becomes a ramp, and fine texture is mixed near the seam alone.
    step = np.zeros((64, 128))
    mask = np.zeros((64, 128))
    mask[:, :64] = 1
    ramp = baselines.multiband(step + 0.8, step + 0.2, mask, levels=4)[32]
    assert (np.diff(ramp) <= 1e-12).all()
    assert -np.diff(ramp).min() < 0.6 / 16
    checks = np.indices((64, 128)).sum(axis=0) % 2
    fine = baselines.multiband(0.4 + 0.2 * checks, step + 0.5, mask, levels=4)[32]
    contrast = np.abs(np.diff(fine))
    assert_allclose(contrast[:58], 0.2, atol=2e-3)
    assert contrast[70:].max() < 2e-3


# ------------------------------------------------------------------------------------------------------------- Poisson


def test_poisson_seamless_is_the_source_on_the_membrane(images):
    source, target, mask = images
    inside = (mask > 0).astype(float)
    expected = reference.composite(source + reference.membrane(source, target, inside), target, mask)
    assert_allclose(baselines.poisson(source, target, mask), expected, rtol=0, atol=tolerances.MEMBRANE_MAX)


@pytest.mark.parametrize("mode", _poisson.MODES)
def test_poisson_has_the_modes_of_its_solver(mode, images):
    source, target, mask = images
    cloned = _poisson.clone(source.copy(), target.copy(), mask > 0, mode)
    result = baselines.poisson(source, target, mask, mode=mode)
    assert_array_equal(result, reference.composite(cloned, target, mask))
    hard = baselines.poisson(source, target, mask > 0, mode=mode)
    assert_array_equal(hard, np.where((mask > 0)[..., None], cloned, target))
    if mode != "seamless":
        assert np.abs(result - baselines.poisson(source, target, mask)).max() > 0.05


@pytest.mark.parametrize("jump", [0.2, -0.3])
def test_poisson_removes_a_constant_difference(jump, rng):
    target = 0.3 + 0.4 * draw_image(rng, H, W)
    result = baselines.poisson(target + jump, target, disc(H, W, 12))
    assert_allclose(result, target, rtol=0, atol=tolerances.MEMBRANE_MAX / 10)


# ---------------------------------------------------------------------------------------------------- modified Poisson


def least_squares_poisson(source: np.ndarray, target: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """One channel, as an overdetermined system; v as Tanaka defines it, by forward and backward differences."""
    shape = mask.shape
    rows, right = [], []
    for i, j in edges(shape):
        forward = mask[i] * (source[j] - source[i]) + (1 - mask[i]) * (target[j] - target[i])
        backward = mask[j] * (source[j] - source[i]) + (1 - mask[j]) * (target[j] - target[i])
        row = np.zeros(shape)
        row[j], row[i] = 1, -1
        rows.append(row.ravel())
        right.append((forward + backward) / 2)
    composite = mask * source + (1 - mask) * target
    matrix = np.concatenate([np.reshape(rows, (-1, mask.size)), np.sqrt(eps) * np.eye(mask.size)])
    values = np.concatenate([right, np.sqrt(eps) * composite.ravel()])
    return np.linalg.lstsq(matrix, values, rcond=None)[0].reshape(shape)


@pytest.mark.parametrize("shape", [(11, 14), (1, 20), (17, 1), (1, 1)])
@pytest.mark.parametrize("eps", [1e-8, 1e-3, 1.0])
def test_modified_poisson_is_the_least_squares_solution(eps, shape, rng):
    source, target = draw_image(rng, *shape), draw_image(rng, *shape)
    for mask in (draw_mask(rng, *shape), draw_mask(rng, *shape, soft=False)):
        result = baselines.modified_poisson(source, target, mask, eps=eps)
        for c in range(3):
            expected = least_squares_poisson(source[..., c], target[..., c], mask, eps)
            assert_allclose(result[..., c], expected, rtol=0, atol=1e-8)  # of the dense solver, at eps = 1e-8


def test_modified_poisson_default_is_the_papers_epsilon(images):
    assert_array_equal(baselines.modified_poisson(*images), baselines.modified_poisson(*images, eps=1e-8))


def test_modified_poisson_turns_a_constant_difference_into_a_shift_of_the_whole_frame(rng):
    # The gradients are the target's own, and the mean is the composite's. What else the composite asks for counts by
    # eps over the smallest eigenvalue, (pi / W)^2.
    target, mask = 0.3 + 0.4 * draw_image(rng, H, W), draw_mask(rng, H, W)
    result = baselines.modified_poisson(target + 0.2, target, mask)
    assert_allclose(result, target + 0.2 * mask.mean(), rtol=0, atol=0.2 * 1e-8 / (np.pi / W) ** 2)


def test_modified_poisson_keeps_the_composites_mean_and_is_not_clipped(images):
    source, target, mask = images
    result = baselines.modified_poisson(source, target, mask)
    assert_allclose(result.mean(axis=(0, 1)), reference.composite(source, target, mask).mean(axis=(0, 1)), atol=1e-9)
    hard = disc(H, W, 12)
    black = baselines.modified_poisson(0.5 + 0.5 * source, 0.1 * target, hard)
    assert black.min() < -0.001
    saturated = baselines.modified_poisson(*(as_dtype(x, "u1") for x in (0.5 + 0.5 * source, 0.1 * target, hard)))
    assert (saturated[black < -2 / 255] == 0).all()


# -------------------------------------------------------------------------------------------------------- multi-splines


def tent_weights(y: float, x: float, grid: tuple[int, int], spacing: int) -> np.ndarray:
    """Of every knot at a pixel: the product of two tents."""
    rows, columns = (np.maximum(0, 1 - np.abs(np.arange(n) - at / spacing)) for n, at in zip(grid, (y, x), strict=True))
    return np.outer(rows, columns).ravel()


def slow_multi_spline(
    source: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing: int, weight: float, smoothness: str
) -> np.ndarray:
    """Any channels, as one dense least-squares problem for both fields together."""
    height, width = mask.shape
    grid = (int(np.floor(height / spacing + 2)), int(np.floor(width / spacing + 2)))
    knots, channels = grid[0] * grid[1], target.shape[2]
    rows, right = [], []
    for p, q in edges(mask.shape):
        if (mask[p] >= 0.5) != (mask[q] >= 0.5):
            tents = tent_weights(*p, grid, spacing)
            rows.append(np.concatenate([tents, -tents]))
            right.append(((target - source)[p] + (target - source)[q]) / 2)
    for field in (0, 1):
        ring = np.zeros((grid[0] + 2, grid[1] + 2, 2 * knots))  # every knot as a row, with zeros around the grid
        for knot in range(knots):
            ring[knot // grid[1] + 1, knot % grid[1] + 1, field * knots + knot] = 1
        if smoothness == "laplacian":
            around = ring[:-2, 1:-1] + ring[2:, 1:-1] + ring[1:-1, :-2] + ring[1:-1, 2:]
            rough = (4 * ring[1:-1, 1:-1] - around).reshape(-1, 2 * knots)
        else:
            down, across = np.diff(ring[:, 1:-1], axis=0), np.diff(ring[1:-1], axis=1)
            rough = np.concatenate([x.reshape(-1, 2 * knots) for x in (down, across)])
        rows += list(np.sqrt(weight) * rough)
        right += [np.zeros(channels)] * len(rough)
    solution = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    result = np.empty_like(target)
    for y, x in np.ndindex(height, width):
        tents = tent_weights(y, x, grid, spacing)
        inner, outer = source[y, x] + tents @ solution[:knots], target[y, x] + tents @ solution[knots:]
        result[y, x] = mask[y, x] * inner + (1 - mask[y, x]) * outer
    return result


@pytest.mark.parametrize("smoothness", ["laplacian", "gradient"])
@pytest.mark.parametrize(
    ("shape", "spacing", "weight"), [((37, 52), 8, 1.0), ((37, 52), 32, 1.0), ((64, 32), 16, 0.01), ((1, 70), 5, 100.0)]
)
def test_multi_spline_is_the_least_squares_solution(shape, spacing, weight, smoothness, rng):
    source, target, mask = draw_image(rng, *shape), draw_image(rng, *shape), draw_mask(rng, *shape)
    mask[0, 0] = 1 - np.round(mask[0, 0])  # a seam at the border's own corner
    options = {"spacing": spacing, "weight": weight, "smoothness": smoothness}
    expected = slow_multi_spline(source, target, mask, **options)
    assert np.abs(expected - reference.composite(source, target, mask)).max() > 1e-4
    assert_allclose(baselines.multi_spline(source, target, mask, **options), expected, rtol=0, atol=1e-9)


def test_multi_spline_default_options(images):
    expected = slow_multi_spline(*images, spacing=32, weight=1.0, smoothness="laplacian")
    assert_allclose(baselines.multi_spline(*images), expected, rtol=0, atol=1e-9)


def test_multi_spline_of_a_torn_mask_is_solved_part_by_part(monkeypatch, rng):
    source, target, mask = draw_image(rng, H, W), draw_image(rng, H, W), rng.uniform(size=(H, W))
    expected = baselines.multi_spline(source, target, mask, spacing=8)
    monkeypatch.setattr(baselines, "_PAIRS_AT_ONCE", 100)
    assert_allclose(baselines.multi_spline(source, target, mask, spacing=8), expected, rtol=0, atol=1e-13)


def test_multi_spline_without_a_seam_is_copy_paste(images):
    source, target, _ = images
    faint = np.full((H, W), 0.4)
    expected = baselines.copy_paste(source, target, faint)
    assert_array_equal(baselines.multi_spline(source, target, faint), expected)


@pytest.mark.parametrize("smoothness", ["laplacian", "gradient"])
def test_multi_spline_takes_both_sides_of_the_seam_half_way(smoothness, rng):
    target, mask = 0.3 + 0.4 * draw_image(rng, 128, 160), disc(128, 160, 30)
    source = target + 0.2
    moved = baselines.multi_spline(source, target, mask, smoothness=smoothness) - target
    inside = mask > 0
    rim = inside & ~scipy.ndimage.binary_erosion(inside)
    ring = ~inside & scipy.ndimage.binary_dilation(inside)
    # Copying jumps by 0.2 there.
    assert abs(moved[rim].mean() - moved[ring].mean()) < 0.01
    assert_allclose([moved[rim].mean(), moved[ring].mean()], 0.1, atol=0.01)


def test_multi_spline_refuses_more_knots_than_it_can_solve_for():
    x = np.zeros((600, 600))
    mask = np.zeros((600, 600))
    mask[:300] = 1
    with pytest.raises(ValueError, match=r"^spacing: expected at most 2\*\*18 knots, got 1, which makes 602 x 602"):
        baselines.multi_spline(x, x, mask, spacing=1)
