"""What the public `blend` and `Blender` promise, whatever the pixels: identities, placement, seams, threads."""

import threading

import cv2
import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import tolerances
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import gpgan
from gpgan import _core, reference

MODES = ["default", "paper", "released"]
H, W = 45, 70


def to_uint8(x: np.ndarray) -> np.ndarray:
    return np.round(x * 255).astype(np.uint8)


@pytest.fixture
def images(rng):
    """Source, target and mask, uint8."""
    return to_uint8(draw_image(rng, H, W)), to_uint8(draw_image(rng, H, W)), to_uint8(draw_mask(rng, H, W))


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    """Real photos that lie in the wheels of the libraries the tests need anyway, float64, about 300 x 400."""
    china, flower = sklearn.datasets.load_sample_images().images
    everything = {
        "china": china,
        "flower": flower,
        "astronaut": skimage.data.astronaut(),
        "coffee": skimage.data.coffee(),
        "chelsea": skimage.data.chelsea(),
        "rocket": skimage.data.rocket(),
    }
    small = {}
    for name, photo in everything.items():
        scale = 300 / min(photo.shape[:2])
        size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
        small[name] = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)) / 255
    return small


PHOTOS = ["china", "flower", "astronaut", "coffee", "chelsea", "rocket"]


def other_condition(photo: np.ndarray) -> np.ndarray:
    """The same scene at another exposure and white balance, with light falling off and haze towards the top."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][..., None]
    light = 0.65 + 0.25 * x + 0.1 * y
    haze = 0.25 * (1 - y)
    return np.clip(photo**1.15 * light * [1.1, 0.95, 0.8] * (1 - haze) + haze * [0.7, 0.75, 0.8], 0, 1)


def ellipse(shape, *, scale=0.25) -> np.ndarray:
    """An object's mask well off the border, with a bay in it; bool."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height - 0.48, x / width - 0.53
    return (np.hypot(y / scale, x / (1.1 * scale)) < 1) & ~(np.hypot(y + 0.05, x - 0.2) < 0.12)


# -------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blend_without_masked_pixels_is_the_target_bit_for_bit(channels, dtype, mode, rng):
    target = rng.uniform(size=(19, 23, channels))
    if np.dtype(dtype).kind == "u":
        target *= np.iinfo(dtype).max
    target = target.astype(dtype)
    result = gpgan.blend(np.zeros_like(target), target, np.zeros((19, 23)), generator=None, mode=mode)
    assert result.tobytes() == target.tobytes()
    assert not np.shares_memory(result, target)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (64, 64), (67, 130)])
@pytest.mark.parametrize("colour", ["none", "area average"])
def test_blend_of_an_image_into_itself_changes_nothing(colour, shape, rng):
    # In the default mode only; the two others send the picture through the low resolution.
    x = draw_image(rng, *shape).astype(np.float32)
    mask = draw_mask(rng, *shape)
    lowres = None if colour == "none" else reference.area_average(x, (64, 64))
    result = gpgan.blend(x, x, mask, generator=None, lowres=lowres)
    assert_allclose(result, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("mode", MODES)
def test_blend_darkens_no_frame(mode, name, photos):
    photo = photos[name]
    height, width = photo.shape[:2]
    mask = ellipse((height, width))
    lowres = reference.area_average(photo, (64, 64))
    error = gpgan.blend(photo, photo, mask, lowres=lowres, mode=mode) - photo
    frame = np.ones((height, width), dtype=bool)
    frame[3:-3, 3:-3] = False
    # Under one level of 255 in the mean: a frame that darkens does so all along. (The two other modes blur, the frame
    # as much as the inside: the next test.)
    assert np.abs(error[frame].mean(axis=0)).max() < 1 / 255
    if mode == "default":
        assert np.abs(error).max() < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_blend_treats_the_border_as_its_mirror_image(mode, photos):
    # All borders are half-sample symmetric, the membrane's and the inset's too. So an image among its mirror images
    # gives the same, and no error can be larger at the border than inside: there the border is inside.
    target = photos["china"][:256, :256]
    source = other_condition(target)[::-1]
    mask = np.zeros((256, 256))
    mask[40:200, :150] = mask[230:, 100:180] = 1
    lowres = reference.area_average(0.9 * target, (64, 64))

    def mirror(x):
        x = np.concatenate([x[::-1], x])
        return np.concatenate([x[:, ::-1], x], axis=1)

    alone = gpgan.blend(source, target, mask, lowres=lowres, mode=mode)
    among = gpgan.blend(mirror(source), mirror(target), mirror(mask), lowres=mirror(lowres), mode=mode)[256:, 256:]
    tolerance = tolerances.MEMBRANE_MAX / 4 if mode == "default" else tolerances.NATIVE
    assert_allclose(among, alone, atol=tolerance, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 90), (64, 64), (151, 200)])
def test_blend_of_one_colour_is_that_colour(shape, mode):
    x = np.full((*shape, 3), (0.2, 0.5, 0.9), dtype=np.float32)
    mask = np.zeros(shape)
    mask[: shape[0] // 2 + 1] = 1
    result = gpgan.blend(x, x, mask, lowres=x[:1, :1].repeat(8, axis=0).repeat(8, axis=1), mode=mode)
    assert_allclose(result, x, atol=2e-6, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_blend_ignores_colours_under_alpha_0(mode, rng):
    source, target = to_uint8(draw_image(rng, H, W, 4)), to_uint8(draw_image(rng, H, W))
    source[..., 3] = to_uint8(draw_mask(rng, H, W))
    mask = to_uint8(draw_mask(rng, H, W))
    hidden = source[..., 3] == 0
    assert 0.1 < hidden.mean() < 0.9
    for m in (None, mask):
        expected = gpgan.blend(source, target, m, generator=None, mode=mode)
        with_generator = gpgan.blend(source, target, m, generator=lambda *x: x[3], mode=mode)
        for fuzz in (0, 255, rng.integers(0, 256, (int(hidden.sum()), 3))):
            other = source.copy()
            other[hidden, :3] = fuzz
            assert_array_equal(gpgan.blend(other, target, m, generator=None, mode=mode), expected)
            assert_array_equal(gpgan.blend(other, target, m, generator=lambda *x: x[3], mode=mode), with_generator)


def test_blend_takes_alpha_for_the_mask_when_none_is_given(images):
    source, target, mask = images
    rgba = np.dstack([source, mask])
    opaque = np.dstack([source, np.full((H, W), 255, np.uint8)])
    alone = gpgan.blend(rgba, target, generator=None)
    assert_array_equal(alone, gpgan.blend(rgba, target, np.ones((H, W)), generator=None))
    assert np.abs(alone.astype(int) - target).max() > 10
    # A mask and an alpha that is 1 everywhere is the mask alone, with the inset that alpha brings.
    assert_array_equal(
        gpgan.blend(opaque, target, mask, generator=None), gpgan.blend(source, target, mask, inset=0, generator=None)
    )


def test_blend_default_options_are_the_modes(images):
    source, target, mask = images
    said = {
        "default": ("gaussian-poisson", "correction", "aspect", True, 2),
        "paper": ("gaussian-poisson", "image", "aspect", False, 0),
        "released": ("screened", "image", "square", False, 0),
    }
    names = ("equation", "carry", "pyramid", "membrane", "inset")
    results = {}
    for mode, values in said.items():
        options = dict(zip(names, values, strict=True))
        results[mode] = gpgan.blend(source, target, mask, generator=None, mode=mode)
        for other in MODES:  # what is given overrides any mode
            again = gpgan.blend(source, target, mask, generator=None, mode=other, color_weight=1, sigma=0.5, **options)
            assert_array_equal(again, results[mode])
    assert not np.array_equal(results["default"], results["paper"])
    assert not np.array_equal(results["released"], results["paper"])


# --------------------------------------------------------------------------------------------------- placement

OFFSETS = [(3, 5), (-7, 4), (6, -9), (30, 55), (-3, -4), (0, 0), (44, 69), (-19, -24)]


def placed_by_hand(source, mask, offset, shape) -> np.ndarray:
    """The source in a full frame, its mask as alpha elsewhere 0: (frame of colours and alpha, mask)."""
    frame, weights = np.zeros((*shape, 4), source.dtype), np.zeros(shape, mask.dtype)
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            j, i = y + offset[0], x + offset[1]
            if 0 <= j < shape[0] and 0 <= i < shape[1]:
                frame[j, i, :3] = source[y, x]
                frame[j, i, 3] = 255
                weights[j, i] = mask[y, x]
    return frame, weights


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("mode", MODES)
def test_offset_equals_placing_by_hand(mode, offset, images, rng):
    target = images[1]
    source, mask = to_uint8(draw_image(rng, 20, 25)), np.full((20, 25), 255, np.uint8)
    frame, weights = placed_by_hand(source, mask, offset, (H, W))
    assert weights.any()
    result = gpgan.blend(source, target, mask, offset=offset, generator=None, mode=mode, inset=1)
    expected = gpgan.blend(frame, target, weights, generator=None, mode=mode, inset=1)
    assert_array_equal(result, expected)
    assert not np.array_equal(result, target)


@pytest.mark.parametrize("offset", [(45, 0), (0, 70), (-20, 0), (0, -25), (1000, -1000), (-(2**39), 2**39)])
@pytest.mark.parametrize("with_alpha", [True, False])
def test_offset_beyond_the_target_leaves_it_as_it_is(offset, with_alpha, images, rng):
    target = images[1]
    source = to_uint8(draw_image(rng, 20, 25, 4 if with_alpha else 3))
    result = gpgan.blend(source, target, np.ones((20, 25)), offset=offset, generator=None)
    assert_array_equal(result, target)


def test_offset_crops_a_source_that_is_larger(images, rng):
    target = images[1]
    source, mask = to_uint8(draw_image(rng, H + 30, W + 20)), to_uint8(draw_mask(rng, H + 30, W + 20))
    for top, left in ((0, 0), (-30, -20), (-11, -7)):
        cut = np.s_[-top : H - top, -left : W - left]
        result = gpgan.blend(source, target, mask, offset=(top, left), generator=None)
        assert_array_equal(result, gpgan.blend(source[cut], target, mask[cut], generator=None))


# --------------------------------------------------------------------------------------------- out, Blender


@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("channels", [None, 3, 4])
def test_out_is_filled_and_returned(channels, dtype, rng):
    shape = (H, W) if channels is None else (H, W, channels)
    source, target = (rng.uniform(size=shape) for _ in range(2))
    if np.dtype(dtype).kind == "u":
        source, target = (x * np.iinfo(dtype).max for x in (source, target))
    source, target = source.astype(dtype), target.astype(dtype)
    for mask in (draw_mask(rng, H, W), np.zeros((H, W))):
        expected = gpgan.blend(source, target, mask, generator=None)
        out = np.zeros_like(target)
        assert gpgan.blend(source, target, mask, generator=None, out=out) is out
        assert_array_equal(out, expected)
        wide = np.zeros((H, 2 * W, *shape[2:]), dtype)
        view = wide[:, 1::2]
        assert gpgan.blend(source, target, mask, generator=None, out=view) is view
        assert_array_equal(view, expected)
        assert not wide[:, ::2].any()
        itself = target.copy()
        assert gpgan.blend(source, itself, mask, generator=None, out=itself) is itself
        assert_array_equal(itself, expected)
        backwards = target[::-1].copy()
        gpgan.blend(source, backwards[::-1], mask, generator=None, out=backwards[::-1])
        assert_array_equal(backwards[::-1], expected)


def test_blender_gives_what_blend_gives_time_after_time(rng):
    options = {"generator": None, "mode": "default", "inset": 1}
    blender = gpgan.Blender((H, W), **options)
    for kind in (3, 1, 4, 3):
        source, target = draw_image(rng, H, W, kind), draw_image(rng, H, W, kind)
        mask = draw_mask(rng, H, W)
        expected = gpgan.blend(source, target, mask, **options)
        assert_array_equal(blender(source, target, mask), expected)
        assert_array_equal(blender(source, target, 0 * mask), target)
        assert_array_equal(blender(source, target, mask), expected)
        lowres = draw_image(rng, 16, 16, 1 if kind == 1 else 3)
        with_lowres = gpgan.blend(source, target, mask, lowres=lowres, **options)
        assert not np.array_equal(with_lowres, expected)
        assert_array_equal(blender(source, target, mask, lowres=lowres), with_lowres)
        assert_array_equal(
            blender(source, target, mask, offset=(3, -5)), gpgan.blend(source, target, mask, offset=(3, -5), **options)
        )


def test_blender_recovers_from_an_error(rng):
    source, target, mask = draw_image(rng, H, W), draw_image(rng, H, W), draw_mask(rng, H, W)

    class Failing:
        broken = False

        def __call__(self, composite, *_):
            if self.broken:
                raise RuntimeError("out of colour")
            return composite

    generator = Failing()
    blender = gpgan.Blender((H, W, 3), generator=generator)
    expected = blender(source, target, mask)
    generator.broken = True
    with pytest.raises(RuntimeError, match=r"out of colour"):
        blender(source, target, mask)
    generator.broken = False
    with pytest.raises(ValueError, match=r"^source: expected finite"):
        blender(source * np.nan, target, mask)
    assert_array_equal(blender(source, target, mask), expected)


def test_blender_may_be_called_from_many_threads(rng):
    blender = gpgan.Blender((H, W), generator=lambda composite, *_: composite**2)
    tasks = []
    for i in range(8):
        kind = 1 if i % 4 == 3 else 3  # some make the Blender plan anew
        source, target, mask = draw_image(rng, H, W, kind), draw_image(rng, H, W, kind), draw_mask(rng, H, W)
        tasks.append((source, target, mask, blender(source, target, mask)))
    start, failures = threading.Barrier(8), []

    def work(source, target, mask, expected):
        start.wait()
        for _ in range(5):
            if not np.array_equal(blender(source, target, mask), expected):
                failures.append("another result than alone")

    workers = [threading.Thread(target=work, args=task) for task in tasks]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.parametrize("mode", MODES)
def test_threads_change_no_bit(mode, rng):
    source, target, mask = draw_image(rng, 200, 261), draw_image(rng, 200, 261), draw_mask(rng, 200, 261)
    one, *others = (
        gpgan.blend(source, target, mask, generator=None, mode=mode, threads=threads) for threads in (1, 2, 3, 7, None)
    )
    for other in others:
        assert_array_equal(other, one)


def test_threads_come_from_the_environment(monkeypatch, images):
    monkeypatch.setenv("GPGAN_NUM_THREADS", "3")
    assert _core.resolve_threads() == 3
    assert _core.resolve_threads(5) == 5  # what the caller says counts more
    for empty in ("", None):
        monkeypatch.delenv("GPGAN_NUM_THREADS") if empty is None else monkeypatch.setenv("GPGAN_NUM_THREADS", empty)
        assert _core.resolve_threads() >= 1
    for bad in ("0", "-1", "two", "4097", "1.5", " ", "2x", "99999999999999999999"):
        monkeypatch.setenv("GPGAN_NUM_THREADS", bad)
        with pytest.raises(
            ValueError, match=f"^GPGAN_NUM_THREADS: expected a whole number from 1 to 4096, got '{bad}'$"
        ):
            gpgan.blend(*images, generator=None)
        gpgan.blend(*images, generator=None, threads=1)


# ------------------------------------------------------------------------------------------------------ OpenCV


def opencv_clone(source: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """cv2.seamlessClone in place, which it centres by the mask's bounding box."""
    y, x, height, width = (
        *(np.nonzero(mask.any(axis=a))[0][0] for a in (1, 0)),
        *(int(np.ptp(np.nonzero(mask.any(axis=a))[0])) + 1 for a in (1, 0)),
    )
    centre = (int(x) + width // 2, int(y) + height // 2)
    return cv2.seamlessClone(source, target, mask.astype(np.uint8) * 255, centre, cv2.NORMAL_CLONE)


def test_blend_without_generator_is_opencvs_clone(photos):
    # Both are Poisson cloning then. Truth: the scene as the target shows it. OpenCV solves the mask's whole bounding
    # box, where the target gives way too, so that a single pair may be up to 0.7 dB apart, in either direction.
    apart = []
    for target in photos.values():
        source, target = to_uint8(other_condition(target)), to_uint8(target)
        mask = ellipse(target.shape[:2])
        core = cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert core.mean() > 0.05
        ours = gpgan.blend(source, target, mask, inset=3, generator=None)
        theirs = opencv_clone(source, target, mask)
        copied, cloned, blended = (
            -10 * np.log10(np.mean(((x.astype(float) - target)[core] / 255) ** 2)) for x in (source, theirs, ours)
        )
        apart.append(blended - cloned)
        assert blended > copied  # it is worth doing
    assert abs(np.mean(apart)) < 0.3
    assert np.abs(apart).max() < 1


def test_blend_joins_at_the_seam(photos):
    # The first pixels inside the mask meet the target to within the contrast of the scene itself, where copying jumps.
    target = photos["china"]
    source = other_condition(target) * 0.8
    mask = ellipse(target.shape[:2])
    inset = reference.inset(mask.astype(float), 2) > 0
    rim = inset & (cv2.erode(inset.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    result = gpgan.blend(source, target, mask, generator=None)
    assert np.abs(result - target)[rim].mean() < 0.2 * np.abs(source - target)[rim].mean()
    assert np.abs(result - target)[~inset].max() < 30 / 255
    assert np.abs(result - target)[~inset].mean() < 0.1 / 255


def test_blend_result_is_the_references_with_the_default_options(rng):
    source, target, mask = draw_image(rng, 90, 131), draw_image(rng, 90, 131), draw_mask(rng, 90, 131)
    off = np.abs(gpgan.blend(source, target, mask, generator=None) - reference.blend(source, target, mask))
    assert off.max() <= tolerances.MEMBRANE_MAX
    assert off.mean() <= tolerances.MEMBRANE_MEAN
