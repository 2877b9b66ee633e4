"""The metrics against scikit-image, OpenCV, sums by hand, and the properties that a reader of a table relies on."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gpgan
from gpgan import metrics

RNG = np.random.default_rng(11)
STATE = RNG.bit_generator.state
PARTS = ("psnr_inside", "psnr_core", "psnr_outside", "psnr_band")


@pytest.fixture(autouse=True)
def _same_pictures_in_any_order() -> None:
    RNG.bit_generator.state = STATE


def _photo(height: int = 60, width: int = 80, colors: int = 3) -> Any:
    """Not noise: smooth structure with some grain, from 30 to 220."""
    y, x = np.mgrid[:height, :width]
    waves = [125 + 70 * np.sin(x / (7 + 2 * c) + y / (11 - c)) for c in range(colors)]
    return np.uint8(np.stack(waves, -1) + RNG.uniform(-25, 25, (height, width, colors)))


def _disc(height: int = 60, width: int = 80, radius: float = 18) -> Any:
    y, x = np.mgrid[:height, :width]
    return np.uint8(255 * ((y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2))


def _paste(source: Any, target: Any, mask: Any) -> Any:
    return np.where(mask[..., None] > 0, source, target)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_mse_psnr_ssim_are_scikit_images(dtype: Any) -> None:
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

    x, y = _photo(), _photo()
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    x, y = (np.asarray(image * (full / 255), dtype) for image in (x, y))
    assert metrics.mse(x, y) == pytest.approx(mean_squared_error(x, y) * (255 / full) ** 2, rel=1e-6)
    assert metrics.psnr(x, y) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=full), abs=1e-5)
    theirs = structural_similarity(x.astype(float), y.astype(float), data_range=full, channel_axis=-1)
    assert metrics.ssim(x, y) == pytest.approx(theirs, abs=1e-9)


def test_mse_of_a_tiny_case_by_hand() -> None:
    truth = np.zeros((1, 4), np.uint8)
    result = np.uint8([[3, 4, 0, 255]])
    mask = np.uint8([[1, 1, 0, 0]])
    assert metrics.mse(result, truth) == pytest.approx((9 + 16 + 0 + 65025) / 4)
    assert metrics.fmse(result, truth, mask) == pytest.approx(12.5)
    assert metrics.fpsnr(result, truth, mask) == pytest.approx(10 * math.log10(65025 / 12.5))
    assert metrics.mse(result, truth, where=~mask.astype(bool)) == pytest.approx(65025 / 2)
    assert metrics.psnr(result, truth, where=mask) == metrics.fpsnr(result, truth, mask)
    assert metrics.psnr(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)) == 0


def test_psnr_of_equal_images_is_infinite_and_of_no_pixels_nan() -> None:
    x, nothing = _photo(), np.zeros((60, 80), bool)
    assert metrics.psnr(x, x) == math.inf
    assert metrics.mse(x, x) == 0
    for value in (metrics.fpsnr(x, x, nothing), metrics.fmse(x, x, nothing), metrics.mse(x, x, where=nothing)):
        assert math.isnan(value)


def test_masks_count_above_a_half() -> None:
    truth = np.zeros((1, 4), np.uint8)
    result = np.uint8([[10, 20, 30, 40]])
    for mask in (np.array([[0.0, 0.5, 0.51, 1.0]]), np.uint8([[0, 127, 128, 255]]), np.array([[0, 0, 1, 1]], bool)):
        assert metrics.fmse(result, truth, mask) == pytest.approx((900 + 1600) / 2)


def test_squared_error_of_many_rows_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read in blocks of rows; scores must not see where they begin."""
    source, target, result, mask = _photo(), _photo(), _photo(), _disc()
    whole = metrics.measure(result, source=source, target=target, mask=mask, truth=target)
    for block in (1, 7 * 80 * 3, 59 * 80 * 3):
        monkeypatch.setattr(metrics, "_BLOCK", block)
        parts = metrics.measure(result, source=source, target=target, mask=mask, truth=target)
        assert parts == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (60, 80, (20, 40, 30, 60)),  # free of the border
        (60, 80, (0, 25, 50, 80)),  # in a corner
        (60, 80, (0, 60, 0, 80)),  # everything
        (60, 80, (30, 31, 40, 41)),  # one pixel
        (60, 80, (5, 13, 7, 15)),  # 8 x 8: one too narrow for a core
        (9, 200, (2, 7, 13, 170)),  # thinner than the Gaussian
        (1, 40, (0, 1, 10, 20)),
    ],
)
def test_regions_are_opencvs(height: int, width: int, box: tuple[int, int, int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    mask = np.zeros((height, width), np.uint8)
    mask[box[0] : box[1], box[2] : box[3]] = 255
    found = metrics.regions(mask)
    inside = mask > 0
    core = cv2.erode(mask, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    smooth = cv2.GaussianBlur(inside.astype(np.float64), (0, 0), 3)
    expected = {
        "whole": np.ones_like(inside), "inside": inside, "core": core, "outside": ~inside,
        "band": (smooth > 0.02) & (smooth < 0.98),
    }  # fmt: skip
    assert list(found) == list(expected)
    for name, region in expected.items():
        assert found[name].dtype == np.bool_
        np.testing.assert_array_equal(found[name], region, err_msg=name)


def test_regions_of_a_drawn_shape_are_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    blobs = cv2.GaussianBlur(RNG.random((150, 170)), (0, 0), 6)
    inside = blobs > np.quantile(blobs, 0.7)
    found = metrics.regions(inside)
    smooth = cv2.GaussianBlur(inside.astype(np.float64), (0, 0), 3)
    np.testing.assert_array_equal(found["band"], (smooth > 0.02) & (smooth < 0.98))
    square = np.ones((9, 9), np.uint8)
    core = cv2.erode(inside.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    np.testing.assert_array_equal(found["core"], core > 0)
    assert core.any()


def test_regions_of_an_empty_mask_are_empty() -> None:
    found = metrics.regions(np.zeros((20, 30), np.uint8))
    assert {name: region.sum() for name, region in found.items()} == {
        "whole": 600, "inside": 0, "core": 0, "outside": 600, "band": 0,
    }  # fmt: skip


def test_ssim_of_equal_images_is_1_and_falls_with_noise() -> None:
    x = _photo()
    noisy = np.uint8(np.clip(x + RNG.normal(0, 10, x.shape), 0, 255))
    worse = np.uint8(np.clip(x + RNG.normal(0, 40, x.shape), 0, 255))
    assert metrics.ssim(x, x) == 1
    assert 1 > metrics.ssim(noisy, x) > metrics.ssim(worse, x)


def test_ssim_needs_its_window() -> None:
    x = _photo(6, 40)
    with pytest.raises(ValueError, match=r"result: expected at least 7 x 7 pixels, the window of SSIM, got 6 x 40"):
        metrics.ssim(x, x)
    assert math.isnan(metrics.measure(x, truth=x)["ssim"])


def test_ssim_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(ImportError, match=r"gpgan\[evaluate\]"):
        metrics.ssim(_photo(), _photo())


def test_gradient_kept_is_the_ratio_to_copy_and_paste() -> None:
    source, target, mask = _photo(), _photo(), _disc()
    pasted = _paste(source, target, mask)
    result = np.uint8(125 + (pasted.astype(float) - 125) / 2)

    def gradient(image: Any) -> float:
        x = image.astype(np.float64)
        return float(np.abs(np.diff(x, axis=0)).mean() + np.abs(np.diff(x, axis=1)).mean())

    assert metrics.gradient_kept(pasted, source, target, mask) == pytest.approx(1, abs=1e-12)
    kept = metrics.gradient_kept(result, source, target, mask)
    assert kept == pytest.approx(gradient(result) / gradient(pasted), rel=1e-12)
    assert kept == pytest.approx(0.5, abs=0.03)


def test_gradient_kept_of_a_flat_scene_is_nan_and_of_one_row_finite() -> None:
    flat = np.full((8, 8), 100, np.uint8)
    assert math.isnan(metrics.gradient_kept(flat, flat, flat, np.ones((8, 8), bool)))
    source, target, result = np.uint8([[0, 10, 20]]), np.uint8([[7, 7, 7]]), np.uint8([[0, 5, 10]])
    assert metrics.gradient_kept(result, source, target, np.ones((1, 3), bool)) == pytest.approx(0.5)


@pytest.mark.parametrize("jump", [-20, 0, 3, 25])
def test_seam_visibility_of_copy_and_paste_is_the_jump(jump: int) -> None:
    target, mask = _photo(), _disc()
    source = np.uint8(target.astype(int) + jump)
    assert metrics.seam_visibility(_paste(source, target, mask), source, target, mask) == pytest.approx(abs(jump))


def test_seam_visibility_of_either_image_is_0() -> None:
    source, target, mask = _photo(), _photo(), _disc()
    half = source / 510 + target / 510
    for image in (source, target, half, np.uint8(source - 20)):
        assert metrics.seam_visibility(image, source, target, mask) == pytest.approx(0, abs=1e-9)
    assert metrics.seam_visibility(np.uint8(source // 2), source, source, mask) > 10


def test_seam_visibility_by_hand() -> None:
    """One row, the seam between the second and the third pixel, both in the band with all others."""
    source, target = np.uint8([[10, 20, 30, 40]]), np.uint8([[50, 50, 50, 50]])
    mask = np.array([[1, 1, 0, 0]], bool)
    # Source's steps are 10, target's 0. Steps of the result: 10, 30, 0: only the second is 20 more than either.
    assert metrics.seam_visibility(np.uint8([[10, 20, 50, 50]]), source, target, mask) == pytest.approx(20)
    # 5 lies between the two; -7 is 7 off, 14 is 4 off.
    assert metrics.seam_visibility(np.uint8([[60, 65, 58, 72]]), source, target, mask) == pytest.approx(11)


def test_seam_visibility_finds_a_seam_beside_the_mask() -> None:
    """A copy-and-paste by a smaller mask hides nothing."""
    target, mask = _photo(), _disc()
    source = np.uint8(target + 25)
    smaller = _paste(source, target, _disc(radius=15))
    assert 15 < metrics.seam_visibility(smaller, source, target, mask) <= 25


def test_seam_visibility_without_a_seam_is_nan() -> None:
    image = _photo()
    for mask in (np.zeros((60, 80), bool), np.ones((60, 80), bool)):
        assert math.isnan(metrics.seam_visibility(image, image, image, mask))


def test_seam_visibility_sees_a_single_pixel() -> None:
    target, mask = np.full((30, 30), 100, np.uint8), np.zeros((30, 30), bool)
    mask[12, 17] = True
    source = np.uint8(target + 40)
    assert metrics.seam_visibility(np.where(mask, source, target), source, target, mask) == pytest.approx(40)


def test_seam_visibility_ranks_copy_and_paste_below_blends() -> None:
    x = np.arange(80)
    target = _photo()
    source = np.uint8(np.clip(_photo() * 0.8 + 45 + x[:, None] / 4, 0, 255))
    mask = _disc()
    scores = [
        metrics.seam_visibility(result, source, target, mask)
        for result in (
            gpgan.blend(source, target, mask, generator=None),
            _paste(source, target, mask),
        )
    ]
    assert scores[0] < 0.7 * scores[1]


@pytest.mark.parametrize("offset", [(0, 0), (9, 13), (-7, 40), (32, -9)])
def test_a_smaller_source_lies_at_its_offset(offset: tuple[int, int]) -> None:
    """The same scores as with source and mask in a frame of the target's size, where the rest of it does not show."""
    target, source, result = _photo(), _photo(30, 40), _photo()
    mask = np.zeros((30, 40), np.uint8)
    mask[8:24, 6:33] = 255
    full, full_mask, known = np.zeros_like(target), np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    for y in range(30):
        for x in range(40):
            at = y + offset[0], x + offset[1]
            if 0 <= at[0] < 60 and 0 <= at[1] < 80:
                full[at], full_mask[at], known[at] = source[y, x], mask[y, x], 255
    placed = metrics.measure(result, source=source, target=target, mask=mask, truth=target, offset=offset)
    rgba = np.dstack([full, known])
    assert placed == pytest.approx(
        metrics.measure(result, source=rgba, target=target, mask=full_mask, truth=target), rel=1e-12
    )
    assert not math.isnan(sum(placed.values()))


def test_a_source_off_the_frame_has_no_seam() -> None:
    target, source = _photo(), _photo(10, 10)
    scores = metrics.measure(
        target, source=source, target=target, mask=np.ones((10, 10)), truth=target, offset=(70, -200)
    )
    assert scores["psnr"] == scores["psnr_outside"] == math.inf
    assert scores["gradient_kept"] == 1
    assert all(math.isnan(scores[key]) for key in ("psnr_inside", "psnr_core", "psnr_band", "fmse", "seam_visibility"))


def test_alpha_of_the_source_is_the_mask() -> None:
    source, target, result, mask = _photo(), _photo(), _photo(), _disc()
    scores = metrics.measure(result, source=np.dstack([source, mask]), target=target, truth=target)
    by_mask = metrics.measure(result, source=source, target=target, mask=mask, truth=target)
    del scores["seam_visibility"], by_mask["seam_visibility"]  # outside the source's colours are not known
    assert scores == pytest.approx(by_mask, rel=1e-12)


def test_seam_visibility_beyond_the_sources_frame_goes_by_the_target() -> None:
    """The colours under alpha 0 must not matter, nor the frame's own edge."""
    target, mask = _photo(), _disc()
    source = np.uint8(target + 25)
    result = _paste(source, target, mask)
    for hidden in (0, 90, 255):
        rgba = np.dstack([np.where(mask[..., None] > 0, source, np.uint8(hidden)), mask])
        assert metrics.seam_visibility(result, rgba, target) == pytest.approx(25)


def test_measure_is_the_single_functions() -> None:
    source, target, result, mask = _photo(), _photo(), _photo(), _disc()
    truth = _photo()
    scores = metrics.measure(result, source=source, target=target, mask=mask, truth=truth)
    parts = metrics.regions(mask)
    assert tuple(scores) == metrics.KEYS
    assert all(type(value) is float for value in scores.values())
    assert scores == pytest.approx(
        {
            "psnr": metrics.psnr(result, truth),
            "psnr_inside": metrics.fpsnr(result, truth, mask),
            **{key: metrics.psnr(result, truth, where=parts[key.removeprefix("psnr_")]) for key in PARTS[1:]},
            "mse": metrics.mse(result, truth),
            "fmse": metrics.fmse(result, truth, mask),
            "ssim": metrics.ssim(result, truth),
            "gradient_kept": metrics.gradient_kept(result, source, target, mask),
            "seam_visibility": metrics.seam_visibility(result, source, target, mask),
        },
        rel=1e-12,
    )


def test_measure_leaves_nan_where_something_is_missing() -> None:
    source, target, result, mask = _photo(), _photo(), _photo(), _disc()

    def known(**images: Any) -> set[str]:
        scores = metrics.measure(result, **images)
        assert tuple(scores) == metrics.KEYS
        return {key for key, value in scores.items() if not math.isnan(value)}

    of_scene = {"gradient_kept", "seam_visibility"}
    assert known() == known(mask=mask) == known(target=target) == known(source=source, target=target) == set()
    assert known(truth=target) == {"psnr", "mse", "ssim"}
    assert known(truth=target, mask=mask) == set(metrics.KEYS) - of_scene
    assert known(source=source, target=target, mask=mask) == of_scene
    thin = np.zeros((60, 80), bool)
    thin[20:40, 30:38] = True
    assert known(source=source, target=target, mask=thin, truth=target) == set(metrics.KEYS) - {"psnr_core"}


def _kinds() -> list[Any]:
    def tensor(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(image if image.ndim == 2 else image.transpose(2, 0, 1)))

    return [
        pytest.param(lambda image: np.uint16(image) * 257, id="uint16"),
        pytest.param(lambda image: image / 255, id="float64"),
        pytest.param(lambda image: np.float32(image / 255), id="float32"),
        pytest.param(Image.fromarray, id="PIL"),
        pytest.param(tensor, id="tensor"),
        pytest.param(lambda image: tensor(np.float32(image / 255))[None].requires_grad_(), id="batch of one"),
        pytest.param(lambda image: image[::-1, ::-1].copy()[::-1, ::-1], id="negative strides"),
    ]


@pytest.mark.parametrize("kind", _kinds())
@pytest.mark.parametrize("colors", [1, 3])
def test_measure_agrees_between_kinds(kind: Any, colors: int) -> None:
    images = [_photo(colors=colors).squeeze() for _ in range(4)]
    mask = _disc()

    def measure(result: Any, source: Any, target: Any, truth: Any, mask: Any) -> dict[str, float]:
        return metrics.measure(result, source=source, target=target, truth=truth, mask=mask)

    expected = measure(*images, mask)
    as_mask = mask[None] if mask.ndim == 4 else kind(mask)
    if isinstance(as_mask, torch.Tensor) and as_mask.ndim == 3:
        as_mask = as_mask[0].detach()
    assert measure(*map(kind, images), as_mask) == pytest.approx(expected, rel=2e-5)
    assert measure(kind(images[0]), *images[1:], mask) == pytest.approx(expected, rel=2e-5)  # mixed


def test_alpha_of_result_truth_and_target_is_left_out() -> None:
    source, target, result, truth, mask = _photo(), _photo(), _photo(), _photo(), _disc()

    def rgba(image: Any) -> Any:
        return np.dstack([image, RNG.integers(0, 256, (60, 80), np.uint8)])

    plain = metrics.measure(result, source=source, target=target, mask=mask, truth=truth)
    assert metrics.measure(rgba(result), source=source, target=rgba(target), mask=mask, truth=rgba(truth)) == plain


def test_results_outside_the_unit_range_are_measured_as_they_are() -> None:
    truth = np.zeros((8, 8), np.float32)
    assert metrics.mse(truth - 0.1, truth) == pytest.approx(650.25, rel=1e-5)
    assert metrics.psnr(truth + 2, truth) == pytest.approx(-20 * math.log10(2))


def test_inputs_are_not_written_to() -> None:
    arrays = [_photo(), _photo(), _photo(), _disc()]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    metrics.measure(arrays[0], source=arrays[1], target=arrays[2], mask=arrays[3], truth=arrays[2])
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


X, M = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.mse("x", X), TypeError, r"result: expected a NumPy array, a PIL image or a torch tensor"),
        (lambda: metrics.mse(X, None), TypeError, r"truth: expected a NumPy array"),
        (lambda: metrics.psnr(X.astype(int), X), TypeError, r"result: expected uint8, .* got int64"),
        (lambda: metrics.psnr(X[1:], X), ValueError, r"result: expected the truth's size, \(8, 9\), got \(7, 9\)"),
        (lambda: metrics.ssim(X[..., 0], X), ValueError, r"result: expected the truth's 3 colour channel\(s\), got 1"),
        (lambda: metrics.mse(X, X, where=M[1:]), ValueError, r"where: expected the images' size, \(8, 9\), got"),
        (lambda: metrics.fmse(X, X, M[1:]), ValueError, r"mask: expected the images' size, \(8, 9\), got \(7, 9\)"),
        (lambda: metrics.fpsnr(X, X, None), TypeError, r"mask: expected a NumPy array"),
        (lambda: metrics.regions(M - 0.5), ValueError, r"mask: expected finite floats in \[0, 1\], got -0.5"),
        (lambda: metrics.regions(M * np.nan), ValueError, r"mask: expected finite floats"),
        (lambda: metrics.mse(X * np.nan, X), ValueError, r"result: expected finite floats in \[0, 1\], got nan"),
        (lambda: metrics.mse(X + 255.0, X), ValueError, r"result: expected finite floats in \[0, 1\], got 255"),
        (lambda: metrics.mse(X, X + 255.0), ValueError, r"truth: expected finite floats in \[0, 1\], got 255"),
        (
            lambda: metrics.mse(torch.zeros(2, 3, 8, 9), X),
            ValueError,
            r"result: expected one image, got a batch of 2",
        ),
        (
            lambda: metrics.gradient_kept(X, X, X, torch.zeros(2, 1, 8, 9)),
            ValueError,
            r"mask: expected one mask, got a batch of 2",
        ),
        (lambda: metrics.gradient_kept(X, X, X), ValueError, r"mask: expected a mask, as the source has no alpha"),
        (
            lambda: metrics.gradient_kept(X, X, X[1:], M),
            ValueError,
            r"result: expected the target's size, \(7, 9\), got \(8, 9\)",
        ),
        (lambda: metrics.seam_visibility(X, X[1:], X, M), ValueError, r"mask: expected the source's size, \(7, 9\)"),
        (lambda: metrics.seam_visibility(X, X[..., 0], X, M), ValueError, r"source: expected 3 colour channel"),
        (lambda: metrics.seam_visibility(X, X, X, M, offset=3), TypeError, r"offset: expected two integers"),
        (lambda: metrics.measure(X, source=X, mask=M), ValueError, r"target: expected an image beside a source"),
        (lambda: metrics.measure(X, truth=X[1:]), ValueError, r"result: expected the truth's size"),
    ],
)
def test_errors_name_the_argument(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_module_loads_no_torch_scipy_or_skimage() -> None:
    code = "import sys, gpgan.metrics; print([m for m in ('torch', 'scipy', 'skimage') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_module_names_the_realism_scorer() -> None:
    from gpgan.nn import realism

    assert metrics.RealismScorer is realism.RealismScorer
    assert "RealismScorer" in dir(metrics)
    with pytest.raises(AttributeError, match=r"no attribute 'psrn'"):
        metrics.psrn  # noqa: B018
