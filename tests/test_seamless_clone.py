"""seamless_clone beside cv2.seamlessClone: the same place, the same picture, and none of the faults shown here."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_sample_image

from gpgan import CloneFlag, _poisson, seamless_clone

FLAGS = tuple(CloneFlag)
NARROW = (CloneFlag.NORMAL_CLONE, CloneFlag.MIXED_CLONE, CloneFlag.MONOCHROME_TRANSFER)


def opencv(src, dst, mask, p, flags):
    """cv2.seamlessClone, which may write to the mask that it is given."""
    return cv2.seamlessClone(src, dst, None if mask is None else mask.copy(), p, int(flags))


def smooth(height: int, width: int, phase: float = 0) -> np.ndarray:
    """uint8 (H, W, 3) in which nothing is sharp."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([128 + 40 * np.sin(x / 37 + phase + c) + 40 * np.cos(y / 43 + c) for c in range(3)], axis=2).astype(
        np.uint8
    )


def grained(height: int, width: int) -> np.ndarray:
    """The same under strong grain, which is alike to no shift of itself."""
    grain = np.random.default_rng(5).integers(-50, 51, (height, width, 1))
    return (smooth(height, width, 1) + grain).clip(0, 255).astype(np.uint8)


def box_mask(shape, top, bottom, left, right) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def scenes() -> dict[str, tuple]:
    """Source, target, mask, point of cases that OpenCV takes."""
    found = {}
    for height in (40, 41):
        for width in (50, 51):
            mask = box_mask((71, 84), 9, 9 + height, 17, 17 + width)
            found[f"{height} x {width}"] = (grained(71, 84), smooth(160, 170), mask, (80, 77))
    shape = (66, 77)
    found["whole source"] = (grained(*shape), smooth(160, 170), np.full(shape, 255, np.uint8), (80, 77))
    found["no mask"] = (grained(*shape), smooth(160, 170), None, (80, 77))
    for name, box in {
        "left": (10, 50, 0, 40),
        "right": (10, 51, 30, 77),
        "top": (0, 40, 9, 60),
        "bottom": (22, 66, 9, 61),
    }.items():
        found[f"mask to the {name} border"] = (grained(*shape), smooth(160, 170), box_mask(shape, *box), (80, 77))
    round_mask = cv2.ellipse(np.zeros(shape, np.uint8), (40, 30), (31, 22), 20, 0, 360, 255, -1)
    found["ellipse"] = (grained(*shape), smooth(160, 170), round_mask, (80, 77))
    found["ellipse of three channels"] = (grained(*shape), smooth(160, 170), cv2.merge([round_mask] * 3), (80, 77))
    blue = cv2.merge([round_mask, 0 * round_mask, 0 * round_mask])
    found["blue ellipse"] = (grained(*shape), smooth(160, 170), blue, (80, 77))
    four = cv2.merge([round_mask] * 3 + [np.full_like(round_mask, 255)])
    found["ellipse of four channels"] = (grained(*shape), smooth(160, 170), four, (80, 77))
    noisy = round_mask.copy()
    noisy[5, 70] = noisy[61, 11] = 2
    found["specks that widen the bounding box"] = (grained(*shape), smooth(160, 170), noisy, (80, 77))
    coloured = cv2.merge([round_mask] * 3)
    coloured[4, 40, 0] = coloured[40, 4, 2] = 3  # the grey of such a blue is 0, that of the red is 1
    found["coloured specks"] = (grained(*shape), smooth(160, 170), coloured, (80, 77))
    found["into the corner of dst"] = (grained(*shape), smooth(120, 130), round_mask, (33, 25))
    return found


SCENES = scenes()


def extent(region: np.ndarray) -> tuple[int, ...]:
    """First and last row, first and last column."""
    rows, columns = (np.nonzero(region.any(axis=axis))[0] for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flag: flag.name)
@pytest.mark.parametrize("name", SCENES)
def test_clone_puts_the_region_where_opencv_does(name, flags):
    src, dst, mask, p = SCENES[name]
    if name == "into the corner of dst" and flags.is_wide:
        p = (39, 33)
    ours, theirs = seamless_clone(src, dst, mask, p, flags), opencv(src, dst, mask, p, flags)
    # Grain is what the target has none of.
    detail = [cv2.Laplacian(x.mean(axis=2), cv2.CV_64F) for x in (ours, theirs)]
    shifts = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    alike = [np.sum(detail[0] * np.roll(detail[1], shift, (0, 1))) for shift in shifts]
    assert shifts[int(np.argmax(alike))] == (0, 0)
    if name != "blue ellipse":  # to which OpenCV gives a weight of 29 / 255
        # OpenCV gives edges to the pixel above or left of them, and clears the rim of src.
        assert np.abs(np.subtract(*(extent(np.abs(x) > 50) for x in detail))).max() <= 2


def smooth_pair(height: int, width: int) -> tuple[np.ndarray, ...]:
    """Source, target, mask, point: smooth at the seam, where OpenCV treats edges differently, with detail inside."""
    src, dst = smooth(71, 84, 1), smooth(160, 170)
    src[20:40, 30:50] = grained(71, 84)[20:40, 30:50]
    return src, dst, box_mask((71, 84), 9, 9 + height, 17, 17 + width), (80, 77)


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flag: flag.name)
@pytest.mark.parametrize("size", [(40, 50), (41, 51)])
def test_clone_is_opencvs_to_a_few_levels_where_the_seam_is_smooth(size, flags):
    scene = smooth_pair(*size)
    off = np.abs(seamless_clone(*scene, flags).astype(int) - opencv(*scene, flags))
    assert off.mean() < 0.1
    if flags.mode != "mixed":  # whose rule is another
        assert off.max() <= 4


def test_clone_is_as_good_as_opencvs_on_photos():
    # The truth is the target's own content, of which the source shows the same scene in another light.
    gains = []
    for name in ("china.jpg", "flower.jpg"):
        dst = np.ascontiguousarray(load_sample_image(name)[..., ::-1])
        height, width = dst.shape[:2]
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        light = 0.5 + 0.4 * np.stack([np.sin(3 * x + 2 * y), np.cos(4 * y - x), x * y], axis=2)
        src = (dst * light).astype(np.uint8)
        mask = box_mask((height, width), 100, 330, 150, 500)
        error = [
            np.mean(
                (f(src, dst, mask, (325, 215), CloneFlag.NORMAL_CLONE)[mask > 0] - dst[mask > 0].astype(float)) ** 2
            )
            for f in (opencv, seamless_clone)
        ]
        gains.append(10 * np.log10(error[0] / error[1]))
    assert np.abs(gains).max() < 0.5


@pytest.mark.parametrize("flag", NARROW)
@pytest.mark.parametrize("offset", [(-20, -31), (5, 9), (60, 55), (-3, 40)])
def test_clone_keeps_the_sources_detail_at_its_place(offset, flag):
    # Poisson's equation itself: inside, the Laplacian is the source's.
    rng = np.random.default_rng(3)
    src, dst = rng.uniform(0.4, 0.6, (50, 60, 3)), np.full((90, 101, 3), 0.5)
    mask = cv2.ellipse(np.zeros((50, 60), np.uint8), (30, 25), (24, 20), 10, 0, 360, 255, -1)
    top, bottom, left, right = extent(mask > 0)
    p = (offset[1] + left + (right + 1 - left) // 2, offset[0] + top + (bottom + 1 - top) // 2)
    result = seamless_clone(src, dst, mask, p, flag)
    frame, region = np.zeros((250, 261, 3)), np.zeros((250, 261), np.uint8)
    at = np.s_[80 + offset[0] : 130 + offset[0], 80 + offset[1] : 140 + offset[1]]
    frame[at], region[at] = src, mask
    inside = (cv2.erode(region, np.ones((7, 7), np.uint8)) > 0)[80:170, 80:181]
    if flag == CloneFlag.MONOCHROME_TRANSFER:
        frame[:] = (frame @ [0.114, 0.587, 0.299])[..., None]
    off = (cv2.Laplacian(result, cv2.CV_64F) - cv2.Laplacian(frame, cv2.CV_64F)[80:170, 80:181])[inside]
    inner = inside.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = False  # where the filter sees beyond the border
    off = off[inner[inside]]
    assert inner.sum() > 100
    assert np.abs(off).max() < 2 / 255
    assert_array_equal(result[region[80:170, 80:181] == 0], 0.5)


# ------------------------------------------------------------------------------- what OpenCV does, and what we do


def test_clone_leaves_the_mask_as_it_was():
    src, dst, mask, p = smooth_pair(40, 50)
    given = mask.copy()
    first = cv2.seamlessClone(src, dst, given, p, cv2.NORMAL_CLONE)
    assert (given != mask).sum() > 1000
    assert (cv2.seamlessClone(src, dst, given, p, cv2.NORMAL_CLONE) != first).any()  # so it is of no use again

    given = mask.copy()
    seamless_clone(src, dst, given, p, cv2.NORMAL_CLONE)
    assert_array_equal(given, mask)


def test_clone_changes_nothing_outside_the_mask():
    src, dst, mask, p = smooth_pair(40, 50)
    top, left = p[1] - 20 - 9, p[0] - 25 - 17
    round_mask = cv2.ellipse(np.zeros_like(mask), (42, 29), (24, 19), 0, 0, 360, 255, -1)
    outside = np.ones(dst.shape[:2], bool)
    outside[top + 1 : top + 72, left : left + 84] = round_mask == 0
    dst = np.random.default_rng(1).integers(0, 256, dst.shape, dtype=np.uint8)
    theirs, ours = (f(src, dst, round_mask, p, cv2.NORMAL_CLONE) for f in (opencv, seamless_clone))
    assert np.abs(theirs.astype(int) - dst)[outside].max() > 8
    assert_array_equal(ours[outside], dst[outside])
    assert (ours != dst).any(axis=2).sum() > 1000


def test_clone_rounds_where_opencv_truncates():
    # An image into itself.
    _, dst, mask, _ = smooth_pair(40, 50)
    src = dst[:71, :84].copy()
    p = (17 + 25, 9 + 20)
    theirs = opencv(src, dst, mask, p, cv2.NORMAL_CLONE)
    assert (theirs.astype(int) - dst).sum() < -1000
    assert_array_equal(seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE), dst)


@pytest.mark.parametrize("flag", NARROW)
def test_clone_takes_16_bit_and_float_images(flag):
    src, dst, mask, p = smooth_pair(40, 50)
    expected = seamless_clone(src, dst, mask, p, flag).astype(float)
    for dtype, scale in ((np.uint16, 257), (np.float16, 1 / 255), (np.float32, 1 / 255), (np.float64, 1 / 255)):
        s, d = ((image * float(scale)).astype(dtype) for image in (src, dst))
        result = seamless_clone(s, d, mask, p, flag)
        assert result.dtype == dtype
        # float16 has other gradients, of which MIXED takes the larger.
        assert np.abs(result.astype(float) / scale - expected).max() < (3 if dtype == np.float16 else 0.8)
        if dtype in (np.uint16, np.float32):  # it saturates each value to 0..255, whatever its dtype
            wrong = opencv(s, d, mask, p, flag)
            assert not np.abs(wrong.astype(float) / scale - expected).max() < 30
        else:
            with pytest.raises(cv2.error):
                opencv(s, d, mask, p, flag)


def test_clone_clips_to_the_dtypes_range():
    rng = np.random.default_rng(2)
    src, dst = rng.uniform(size=(60, 60, 3)), np.full((60, 60, 3), 0.9)
    mask = box_mask((60, 60), 5, 55, 5, 55)
    result = seamless_clone(src, dst, mask, (30, 30), 1)
    assert result.max() == 1
    eight, sixteen = (
        seamless_clone(*(np.rint(image * full).astype(dtype) for image in (src, dst)), mask, (30, 30), 1)
        for dtype, full in ((np.uint8, 255), (np.uint16, 65535))
    )
    # Half a level on both ends of four edges and of the result.
    assert np.abs(eight / 255 - result).max() < 2.5 / 255
    assert np.abs(sixteen / 65535 - result).max() < 0.5 / 255


@pytest.mark.parametrize("flag", NARROW)
def test_clone_takes_grey_images(flag):
    src, dst, mask, p = smooth_pair(40, 50)
    s, d = (image[..., 0].copy() for image in (src, dst))
    expected = seamless_clone(cv2.merge([s] * 3), cv2.merge([d] * 3), mask, p, flag)[..., 0]
    for shape in ((), (1,)):
        one, other = s.reshape(s.shape + shape), d.reshape(d.shape + shape)
        with pytest.raises(cv2.error):
            opencv(one, other, mask, p, flag)
        result = seamless_clone(one, other, mask, p, flag)
        assert result.shape == other.shape
        assert np.abs(result.reshape(d.shape).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_clone_passes_the_targets_alpha_and_heeds_the_sources(dtype):
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    src, dst, mask, p = smooth_pair(40, 50)
    src, dst = ((image / 255 * full).astype(dtype) for image in (src, dst))
    opaque = np.dstack([src, np.full(src.shape[:2], full, dtype)])
    alpha = np.random.default_rng(1).uniform(0, full, dst.shape[:2]).astype(dtype)
    layered = np.dstack([dst, alpha])
    expected = seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE)
    for s in (src, opaque):
        result = seamless_clone(s, layered, mask, p, cv2.NORMAL_CLONE)
        assert_array_equal(result[..., :3], expected)
        assert_array_equal(result[..., 3], alpha)
    assert_array_equal(seamless_clone(opaque, dst, mask, p, cv2.NORMAL_CLONE), expected)

    # A cut-out: colours under alpha 0 are anything.
    round_mask = cv2.ellipse(np.zeros_like(mask), (42, 29), (24, 19), 0, 0, 360, 255, -1)
    cut = opaque.copy()
    cut[round_mask == 0] = 0
    ours = seamless_clone(cut, dst, mask, p, cv2.NORMAL_CLONE)
    by_mask = seamless_clone(opaque, dst, mask & round_mask, p, cv2.NORMAL_CLONE)
    assert_array_equal(ours, by_mask)
    if dtype == np.uint8:
        # Nothing can be said of its colours: it solves with gradients that it has not computed, from whatever its
        # memory held before.
        assert_array_equal(opencv(opaque, layered, mask, p, cv2.NORMAL_CLONE)[..., 3], alpha)


@pytest.mark.parametrize("thickness", range(1, 7))
@pytest.mark.parametrize("upright", [False, True])
def test_clone_keeps_masks_that_erosion_would_take_whole(upright, thickness):
    src, dst = np.full((50, 60, 3), 100, np.uint8), np.full((90, 100, 3), 100, np.uint8)
    mask = box_mask((50, 60), 20, 20 + thickness, 8, 50)
    if upright:
        src, dst, mask = (np.swapaxes(image, 0, 1).copy() for image in (src, dst, mask))
    src[mask > 0] = 180
    at = (40, 50) if upright else (50, 40)
    result = seamless_clone(src, dst, mask, at, cv2.NORMAL_CLONE)
    assert (result > 170).all(axis=2).sum() == (mask > 0).sum()
    if thickness < 3:
        with pytest.raises((cv2.error, RuntimeError, MemoryError, ValueError, SystemError)):
            opencv(src, dst, mask, at, cv2.NORMAL_CLONE)
    else:
        theirs = opencv(src, dst, mask, at, cv2.NORMAL_CLONE)
        assert np.abs(theirs.astype(int) - dst).max() <= 1


def test_clone_erodes_each_part_of_the_mask_by_itself():
    src, dst = grained(80, 90), smooth(80, 90)
    mask = box_mask((80, 90), 10, 40, 10, 40)
    mask[60, 20:70] = 255  # thin
    mask[10, 40:60] = mask[9, 60] = 255  # a thin end of the thick part
    ours = seamless_clone(src, dst, mask, (40, 35), cv2.NORMAL_CLONE)
    changed = (ours != dst).any(axis=2)
    assert extent(changed[:50]) == (13, 36, 13, 36)
    assert extent(changed[50:]) == (10, 10, 20, 69)
    theirs = opencv(src, dst, mask, (40, 35), cv2.NORMAL_CLONE)
    detail = [np.abs(cv2.Laplacian(x.mean(axis=2), cv2.CV_64F))[60, 20:70].mean() for x in (ours, theirs)]
    assert detail[0] > 20 * detail[1]


def test_clone_reaches_the_border_of_the_target():
    # As large as the target and in its place, up to its left and upper border: nothing is to be blended with there.
    src, dst = grained(80, 90), smooth(80, 90)
    mask = box_mask((80, 90), 0, 50, 0, 60)
    p = (1 + 59 // 2, 1 + 49 // 2)
    theirs, ours = (f(src, dst, mask, p, cv2.NORMAL_CLONE) for f in (opencv, seamless_clone))
    # The rim stays the target's there, all but for the truncation and what the solution gives way around the mask.
    assert np.abs(cv2.Laplacian(theirs, cv2.CV_64F))[:3, :3].max() < 30
    assert extent((ours != dst).any(axis=2)) == (0, 46, 0, 56)
    inside = np.s_[1:46, 1:56]
    off = (cv2.Laplacian(ours, cv2.CV_64F) - cv2.Laplacian(src, cv2.CV_64F))[inside]
    assert np.abs(off)[(ours[inside] > 0) & (ours[inside] < 255)].max() < 60
    assert np.median(np.abs(off)) <= 2


def test_clone_of_a_mask_on_the_outermost_pixels_goes_to_its_middle():
    src, dst = np.full((9, 40, 3), 180, np.uint8), np.full((60, 80, 3), 100, np.uint8)
    mask = box_mask((9, 40), 0, 1, 10, 31)
    src[mask == 0] = 100
    assert_array_equal(opencv(src, dst, mask, (40, 30), cv2.NORMAL_CLONE), dst)  # clears them
    ours = seamless_clone(src, dst, mask, (40, 30), cv2.NORMAL_CLONE)
    assert extent((ours != dst).any(axis=2)) == (30, 30, 30, 50)


def test_clone_cuts_off_what_leaves_the_target():
    src, dst, mask, _ = smooth_pair(40, 50)
    for p in ((10, 77), (165, 77), (80, 5), (80, 155), (10, 5)):
        with pytest.raises(cv2.error):
            opencv(src, dst, mask, p, cv2.NORMAL_CLONE)
        result = seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE)
        changed = extent((result != dst).any(axis=2))
        region = (p[1] - 17, p[1] + 16, p[0] - 22, p[0] + 21)
        assert np.abs(np.subtract(changed, np.clip(region, 0, (159, 159, 169, 169)))).max() <= 1
    for p in ((-500, 77), (80, 10**6)):
        assert_array_equal(seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE), dst)


def test_clone_takes_masks_of_every_scale():
    src, dst, mask, p = smooth_pair(40, 50)
    expected = seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE)
    assert np.abs(expected.astype(int) - dst).max() > 30
    # 1 of 255 is next to nothing to OpenCV, which documents that pixels other than 0 count.
    ones = (mask > 0).astype(np.uint8)
    assert np.abs(opencv(src, dst, ones, p, cv2.NORMAL_CLONE).astype(int) - dst).max() <= 2
    assert_array_equal(seamless_clone(src, dst, ones, p, cv2.NORMAL_CLONE), expected)
    for dtype in (bool, np.uint16, np.int32, np.int64, np.float32, np.float64):
        other = (mask / 255).astype(dtype)
        with pytest.raises(cv2.error):
            opencv(src, dst, other, p, cv2.NORMAL_CLONE)
        assert_array_equal(seamless_clone(src, dst, other, p, cv2.NORMAL_CLONE), expected)


@pytest.mark.parametrize("channel", range(3))
def test_clone_takes_masks_of_one_colour(channel):
    src, dst, mask, p = smooth_pair(40, 50)
    expected = seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE)
    for dtype, scale in ((bool, 1), (np.uint8, 1), (np.uint8, 255), (np.uint16, 1), (np.float32, 1)):
        colour = np.zeros((*mask.shape, 3), dtype)
        colour[..., channel] = (mask > 0) * dtype(scale)
        assert_array_equal(seamless_clone(src, dst, colour, p, cv2.NORMAL_CLONE), expected)


def test_clone_takes_a_soft_mask_at_half_of_its_height():
    # As JPEG files and antialiasing leave masks, and OpenCV's weights come to about the same.
    src, dst, mask, p = smooth_pair(40, 50)
    soft = cv2.GaussianBlur(mask, (5, 5), 0)
    soft[mask == 0] = np.minimum(soft, 120)[mask == 0]
    off = np.abs(seamless_clone(src, dst, soft, p, 1).astype(int) - opencv(src, dst, soft, p, 1))
    assert off.mean() < 0.2
    assert off.max() <= 8


def test_mixed_keeps_diagonal_edges():
    # OpenCV compares the difference of the two directions' gradients, which is 0 along a diagonal.
    y, x = np.mgrid[0:71, 0:84]
    src = np.repeat((100 + 5 * np.clip(x + y - 60, 0, 20)).astype(np.uint8)[..., None], 3, axis=2)
    dst, mask = np.full((160, 170, 3), 100, np.uint8), box_mask((71, 84), 9, 49, 17, 67)
    theirs, ours = (f(src, dst, mask, (80, 77), cv2.MIXED_CLONE).astype(int) for f in (opencv, seamless_clone))
    assert np.abs(theirs - 100).max() <= 1
    assert np.ptp(ours) > 50
    assert np.abs(ours - seamless_clone(src, dst, mask, (80, 77), cv2.NORMAL_CLONE)).max() <= 1


# ---------------------------------------------------------------------------------------------------- the call


def test_flags_are_opencvs():
    assert {flag.name: int(flag) for flag in CloneFlag} == {flag.name: getattr(cv2, flag.name) for flag in CloneFlag}
    assert {flag.mode for flag in CloneFlag} == set(_poisson.MODES)
    opencv(*smooth_pair(40, 50), 4)  # takes any number
    with pytest.raises(ValueError, match=r"^flags: expected one of 1 \(NORMAL_CLONE\), .* got 4$"):
        seamless_clone(*smooth_pair(40, 50), 4)
    with pytest.raises(TypeError, match=r"^flags: expected an integer, got 1.5$"):
        seamless_clone(*smooth_pair(40, 50), 1.5)


def test_monochrome_weighs_blue_green_and_red_as_opencv():
    src = np.full((60, 70, 3), 100, np.uint8)
    for c in range(3):
        src[20:40, 10 + 20 * c : 20 + 20 * c, c] = 200
    dst, mask = np.full((100, 100, 3), (90, 120, 60), np.uint8), box_mask((60, 70), 3, 57, 3, 67)
    ours, theirs = (f(src, dst, mask, (50, 50), cv2.MONOCHROME_TRANSFER).astype(int) for f in (seamless_clone, opencv))
    assert np.abs(ours - theirs).max() <= 2
    steps = ours[50, [30, 50, 70], 0] - ours[50, [23, 43, 63], 0]
    assert_array_equal(np.argsort(steps), [0, 2, 1])


def test_clone_fills_blend():
    src, dst, mask, p = smooth_pair(40, 50)
    expected = seamless_clone(src, dst, mask, p, 1)
    for blend in (np.zeros_like(dst), np.zeros((160, 340, 3), np.uint8)[:, ::2], np.zeros((3, 170, 160), np.uint8).T):
        assert seamless_clone(src, dst, mask, p, 1, blend) is blend
        assert_array_equal(blend, expected)
    itself = dst.copy()
    assert seamless_clone(src, itself, mask, p, 1, blend=itself) is itself
    assert_array_equal(itself, expected)
    assert_array_equal(seamless_clone(src, dst, 0 * mask, p, 1, blend=itself), dst)
    # Memory that it shares with another argument.
    same_size = dst[::-1].copy()
    full = np.full(dst.shape[:2], 255, np.uint8)
    expected = seamless_clone(same_size, dst, full, (85, 80), 1)
    assert seamless_clone(same_size, dst, full, (85, 80), 1, blend=same_size) is same_size
    assert_array_equal(same_size, expected)


def test_clone_tells_of_a_mask_of_another_size():
    src, dst, mask, p = smooth_pair(40, 50)
    opencv(src, dst, mask[:60, :70], p, 1)  # puts it into the upper left corner of src
    with pytest.raises(ValueError, match=r"^mask: expected the size of src, \(71, 84\), got \(60, 70\)$"):
        seamless_clone(src, dst, mask[:60, :70], p, 1)


def test_clone_tells_of_a_blend_that_does_not_fit():
    src, dst, mask, p = smooth_pair(40, 50)
    small = np.zeros((5, 5, 3), np.uint8)
    assert opencv(src, dst, mask, p, 1).any()
    cv2.seamlessClone(src, dst, mask.copy(), p, 1, blend=small)
    assert not small.any()  # it was left alone in silence
    for blend in (small, np.zeros_like(dst, np.float32)):
        with pytest.raises(
            ValueError, match=r"^blend: expected the shape and dtype of dst, \(160, 170, 3\) uint8, got"
        ):
            seamless_clone(src, dst, mask, p, 1, blend=blend)
    frozen = dst.copy()
    frozen.flags.writeable = False
    expanded = np.lib.stride_tricks.as_strided(dst.copy(), strides=(0, *dst.strides[1:]))
    with pytest.raises(ValueError, match=r"^blend: expected memory of its own for every pixel"):
        seamless_clone(src, dst, mask, p, 1, blend=expanded)
    with pytest.raises(ValueError, match=r"^blend: expected a writable array, got a read-only one$"):
        seamless_clone(src, dst, mask, p, 1, blend=frozen)
    with pytest.raises(TypeError, match=r"^blend: expected a NumPy array or None, got list$"):
        seamless_clone(src, dst, mask, p, 1, blend=dst.tolist())


def test_clone_writes_to_no_argument():
    src, dst, mask, p = smooth_pair(40, 50)
    for flag in FLAGS:
        for argument in (src, dst, mask):
            argument.flags.writeable = False
        result = seamless_clone(src, dst, mask, p, flag)
        assert not np.shares_memory(result, dst)
        empty = seamless_clone(src, dst, 0 * mask, p, flag)
        assert_array_equal(empty, dst)
        assert not np.shares_memory(empty, dst)


def test_clone_reads_any_memory():
    src, dst, mask, p = smooth_pair(40, 50)
    expected = seamless_clone(src, dst, mask, p, 1)
    views = [np.asfortranarray(image) for image in (src, dst, mask)]
    assert_array_equal(seamless_clone(*views, np.array(p), 1), expected)
    flipped = [image[::-1, ::-1].copy()[::-1, ::-1] for image in (src, dst, mask)]
    assert_array_equal(seamless_clone(*flipped, list(p), 1), expected)
    native, swapped = ([image.astype(dtype) * 257 for image in (src, dst)] for dtype in ("=u2", ">u2"))
    assert_array_equal(seamless_clone(*swapped, mask, p, 1), seamless_clone(*native, mask, p, 1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"src": "photo.png"}, TypeError, r"^src: expected a NumPy array as OpenCV takes, got str$"),
        ({"dst": None}, TypeError, r"^dst: expected a NumPy array as OpenCV takes, got NoneType$"),
        ({"src": np.zeros((71, 84, 3), np.int32)}, TypeError, r"^src: expected uint8, .* got int32$"),
        ({"src": np.zeros((71, 84, 2), np.uint8)}, ValueError, r"^src: expected 1, 3 or 4 channels, got shape"),
        ({"src": np.zeros((71, 84), np.uint8)}, ValueError, r"^src: expected 3 colour channel\(s\) like dst, got 1$"),
        (
            {"dst": np.full((50, 50, 3), 99.0)},
            ValueError,
            r"^dst: expected finite floats in \[0, 1\], got 99",
        ),
        ({"src": np.full((71, 84, 3), np.nan)}, ValueError, r"^src: expected finite floats in \[0, 1\], got nan"),
        ({"dst": np.zeros((0, 50, 3), np.uint8)}, ValueError, r"^dst: expected at least 1 x 1 pixels, got 0 x 50$"),
        ({"mask": [[1]]}, TypeError, r"^mask: expected a NumPy array or None, got list$"),
        (
            {"mask": np.zeros((71, 84), complex)},
            TypeError,
            r"^mask: expected bool, integers or floats, got complex128$",
        ),
        ({"mask": np.zeros((84, 71), np.uint8)}, ValueError, r"^mask: expected the size of src, \(71, 84\), got"),
        (
            {"mask": np.zeros((71, 84, 2), np.uint8)},
            ValueError,
            r"^mask: expected \(h, w\) or \(h, w, C\) of 1, 3 or 4",
        ),
        ({"mask": np.full((71, 84), -1)}, ValueError, r"^mask: expected finite values of 0 or more, got -1$"),
        ({"mask": np.full((71, 84), np.nan)}, ValueError, r"^mask: expected finite values of 0 or more, got nan$"),
        ({"mask": np.full((71, 84), np.inf)}, ValueError, r"^mask: expected finite values of 0 or more, got inf$"),
        ({"p": (1.5, 2)}, TypeError, r"^p: expected two integers \(x, y\), got \(1.5, 2\)$"),
        ({"p": (1, 2, 3)}, TypeError, r"^p: expected two integers \(x, y\), got \(1, 2, 3\)$"),
        ({"p": 5}, TypeError, r"^p: expected two integers \(x, y\), got 5$"),
    ],
)
def test_clone_says_what_is_wrong(change, error, message):
    src, dst, mask, p = smooth_pair(40, 50)
    with pytest.raises(error, match=message):
        seamless_clone(**({"src": src, "dst": dst, "mask": mask, "p": p, "flags": 1} | change))


def test_clone_takes_no_image_over_the_limit(small_pixel_limit):
    with pytest.raises(ValueError, match=r"^src: expected at most 100 pixels"):
        seamless_clone(*smooth_pair(40, 50), 1)
