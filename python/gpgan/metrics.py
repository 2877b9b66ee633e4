"""What results are measured by: fidelity to a truth, detail kept, and how visible the seam is.

Every function takes the kinds of images that :func:`gpgan.blend` takes, one at a time: NumPy arrays (H, W), (H, W, 3)
or (H, W, 4) of uint8, uint16 or floats in [0, 1], PIL images, torch CPU tensors (C, H, W). They need not be of one kind
or dtype: each is read on the scale of its own dtype, so that 255 of uint8 and 1.0 are the same white. Alpha channels of
results, truths and targets are left out. A result in floats may leave [0, 1] by up to 4, as solvers that do
not clip do.

Where a mask is asked for, a pixel is *inside* if the mask is above a half there. The field's measures are defined on
drawn masks of 0 and 1, and its programs turn soft ones into such by the same threshold.

:func:`measure` computes all that can be computed for one result. ``RealismScorer``, a learned score that needs no
truth, is :class:`gpgan.nn.realism.RealismScorer`; asking for it loads torch.

References
----------
Tsai, Shen, Lin, Sunkavalli, Lu, Yang: Deep Image Harmonization, CVPR 2017 (MSE and PSNR on levels of 0 to 255).
Cong, Zhang, Niu, Liu, Ling, Li, Zhang: DoveNet, CVPR 2020 (fMSE, and iHarmony4).
Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE Transactions on Image Processing 13(4), 2004 (SSIM).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpgan import _arrays, _frames

if TYPE_CHECKING:
    from gpgan.nn.realism import RealismScorer

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Region = npt.NDArray[np.bool_]

__all__ = [
    "KEYS",
    "PSNR_CAP",
    "RealismScorer",
    "fmse",
    "fpsnr",
    "gradient_kept",
    "measure",
    "mse",
    "psnr",
    "regions",
    "seam_visibility",
    "ssim",
]

#: What :func:`measure` returns, in this order.
KEYS = (
    "psnr",
    "psnr_inside",
    "psnr_core",
    "psnr_outside",
    "psnr_band",
    "mse",
    "fmse",
    "ssim",
    "gradient_kept",
    "seam_visibility",
)

#: In dB: what an infinite PSNR counts as in a mean over a set. The smallest error of a photo in 8 bit is near it.
PSNR_CAP = 99.0

#: How far the rim reaches into the mask that its core leaves out, in pixels.
_RIM = 4
#: Of the Gaussian on the mask whose slope is the band around the seam, in pixels; cut off at four times that.
_BAND_SIGMA = 3
_BAND_RADIUS = 4 * _BAND_SIGMA
#: Side of the window that :func:`ssim` moves over the image, in pixels: scikit-image's default.
_SSIM_WINDOW = 7
#: How far outside [0, 1] a result may lie: solvers that do not clip overshoot, but not by as much as another scale.
_OVERSHOOT = 4.0
#: Values that are turned to floats at a time: no more memory than the caller's images took.
_BLOCK = 1 << 20


def __getattr__(name: str) -> Any:
    if name == "RealismScorer":
        from gpgan.nn.realism import RealismScorer

        return RealismScorer
    raise AttributeError(f"module 'gpgan.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def mse(result: Any, truth: Any, *, where: Any = None) -> float:
    """Mean squared error in squared 8-bit levels, whatever the dtypes: the field's convention (Tsai et al. 2017).

    Parameters
    ----------
    result, truth : image, of the same size and number of colours
    where : mask of the same size, optional
        Only pixels where it is above a half count; all by default.

    Returns
    -------
    float
        0 for equal images, 65025 for white and black; NaN where no pixel counts.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the images that the module takes, or they do not fit together.
    """
    return 255.0**2 * _unit_mse(result, truth, where, "where")


def psnr(result: Any, truth: Any, *, where: Any = None) -> float:
    """Peak signal-to-noise ratio, ``-10 log10(mean((result - truth)**2))`` on images in [0, 1].

    Parameters and errors are those of :func:`mse`.

    Returns
    -------
    float
        In dB; infinity for equal images, NaN where no pixel counts. For a mean over a set take ``min(x, PSNR_CAP)``
        of each, or one untouched image makes the mean infinite.
    """
    return _decibel(_unit_mse(result, truth, where, "where"))


def fmse(result: Any, truth: Any, mask: Any) -> float:
    """Mean squared error of the foreground, in squared 8-bit levels (Cong et al. 2020): :func:`mse` inside the mask.

    Parameters
    ----------
    result, truth : image, of the same size and number of colours
    mask : mask of the same size

    Returns
    -------
    float
        NaN where nothing is inside the mask.

    Raises
    ------
    TypeError, ValueError
        As :func:`mse`.
    """
    return 255.0**2 * _unit_mse(result, truth, mask, "mask", optional=False)


def fpsnr(result: Any, truth: Any, mask: Any) -> float:
    """Peak signal-to-noise ratio of the foreground, in dB: :func:`psnr` inside the mask.

    Parameters and errors are those of :func:`fmse`.

    Returns
    -------
    float
        Infinity where both are equal, NaN where nothing is inside the mask.
    """
    return _decibel(_unit_mse(result, truth, mask, "mask", optional=False))


def regions(mask: Any) -> dict[str, Region]:
    """The parts of an image that are measured each on their own.

    Parameters
    ----------
    mask : mask

    Returns
    -------
    dict of str to ndarray of bool, shape (H, W)
        ``whole``: everything. ``inside``: the mask above a half. ``outside``: the rest. ``core``: what is left of the
        inside when a square of 9 x 9 pixels erodes it (the image border erodes too), so that nobody scores there by
        copying the target at the rim; empty if the mask is nowhere that wide. ``band``: both sides of the seam, where
        the inside, smoothed by a Gaussian of 3 px, lies between 0.02 and 0.98; empty without a seam.

    Raises
    ------
    TypeError, ValueError
        If `mask` is no mask.
    """
    return _regions(_mask(mask, "mask") > 0.5)


def ssim(result: Any, truth: Any) -> float:
    """Structural similarity (Wang et al. 2004): scikit-image's, with its uniform window of 7 x 7 and sample covariance.

    Needs scikit-image, which ``pip install gpgan[evaluate]`` brings.

    Parameters
    ----------
    result, truth : image, of the same size and number of colours

    Returns
    -------
    float
        From -1 to 1, which is for equal images; the mean over the colours.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    TypeError, ValueError
        As :func:`mse`, and if a side has less than 7 pixels: a smaller window's score would not compare with others.
    """
    x, y = _pair(result, truth)
    if min(x.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f"result: expected at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels, the window of SSIM, "
            f"got {x.shape[0]} x {x.shape[1]}"
        )
    return _ssim(x, y)


def gradient_kept(
    result: Any, source: Any, target: Any, mask: Any = None, *, offset: tuple[int, int] = (0, 0)
) -> float:
    """How much of the detail is still there: the mean absolute gradient over that of the plain copy-and-paste.

    The gradient is the mean of the absolute differences between neighbours in a column plus the same for rows.

    Parameters
    ----------
    result : image, of the target's size and number of colours
    source, target, mask, offset
        What was blended, as :func:`gpgan.blend` takes it.

    Returns
    -------
    float
        1 for the copy-and-paste itself, less for a blurred result; NaN if the copy-and-paste has no gradient at all.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the images that the module takes, or they do not fit together.
    """
    scene = _scene(source, target, mask, offset)
    return _gradient_kept(_result(result, scene.target), scene)


def seam_visibility(
    result: Any, source: Any, target: Any, mask: Any = None, *, offset: tuple[int, int] = (0, 0)
) -> float:
    """How visible the seam is: the steps that the result makes about it and neither image asks for.

    The sum of ``min |(x_j - x_i) - v_ij|`` over all pairs of 4-neighbours i, j across the mask's edge or in the
    ``band`` of :func:`regions`, divided by the number of those across the edge; the mean over the colours. x is the
    result, v the guidance of Eq. 8, ``w (s_j - s_i) + (1 - w) (t_j - t_i)``, at the best weight w in [0, 1] for each
    pair: methods may lay their seam a few pixels beside the mask's edge, where objects have an edge of their own, and
    at the mask's own weights v would find fault with the truth there. For the same reason it is a band and not the
    edge alone, or pasting by a smaller mask would hide a seam. A pair of which the source does not know both ends
    takes the target's difference.

    Parameters
    ----------
    result : image, of the target's size and number of colours
    source, target, mask, offset
        What was blended, as :func:`gpgan.blend` takes it.

    Returns
    -------
    float
        In 8-bit levels for each pixel of the seam's length. 0: nothing shows but what the two images' own gradients
        say, as in either image itself. The copy-and-paste has the jump of colour: with ``d = target - source``, the
        mean of ``min(|d_i|, |d_j|)`` along the seam, 0 where the two differ in sign. Slow ramps count by their height
        too. NaN where there is no seam.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the images that the module takes, or they do not fit together.
    """
    scene = _scene(source, target, mask, offset)
    return _seam_visibility(_result(result, scene.target), scene, _regions(scene.mask > 0.5))


def measure(
    result: Any,
    *,
    source: Any = None,
    target: Any = None,
    mask: Any = None,
    truth: Any = None,
    offset: tuple[int, int] = (0, 0),
) -> dict[str, float]:
    """All that can be measured of one result.

    Parameters
    ----------
    result : image
    source, target : image, optional
        What was blended, as :func:`gpgan.blend` takes it; for the last two of the keys, which need both.
    mask : mask, optional
        Beside a source as :func:`gpgan.blend` takes it, else of the result's size.
    truth : image, of the result's size and number of colours, optional
        What the result ought to be; for all but the last two of the keys.
    offset : (int, int), default (0, 0)
        Where the source lies in the target.

    Returns
    -------
    dict of str to float
        Always the same keys, :data:`KEYS`. NaN: what it takes was not given, or it is not defined here (no seam, an
        empty region, an image smaller than the window of SSIM).

        =================== =======================================================================================
        psnr                :func:`psnr` of the whole image, in dB; infinity for equal images
        psnr_inside         the same inside the mask: :func:`fpsnr`
        psnr_core           ... in the ``core`` of :func:`regions`
        psnr_outside        ... outside the mask
        psnr_band           ... in the ``band`` around the seam
        mse, fmse           :func:`mse`, :func:`fmse`, in squared 8-bit levels
        ssim                :func:`ssim`
        gradient_kept       :func:`gradient_kept`
        seam_visibility     :func:`seam_visibility`, in 8-bit levels
        =================== =======================================================================================

    Raises
    ------
    ImportError
        If a truth is given and scikit-image is not installed.
    TypeError, ValueError
        If an argument is none of the images that the module takes, or they do not fit together.
    """
    scores = dict.fromkeys(KEYS, math.nan)
    if target is None and source is not None:
        raise ValueError("target: expected an image beside a source, got None")
    parts: dict[str, Region] | None = None
    if source is not None and (mask is not None or _image(source, "source").has_alpha):
        scene = _scene(source, target, mask, offset)
        x = _result(result, scene.target)
        parts = _regions(scene.mask > 0.5)
        scores["gradient_kept"] = _gradient_kept(x, scene)
        scores["seam_visibility"] = _seam_visibility(x, scene, parts)
    if truth is None:
        return scores
    x, y = _pair(result, truth)
    error = _squared_error(x, y)
    scores["psnr"] = _decibel(_mean(error))
    scores["mse"] = 255.0**2 * _mean(error)
    if min(x.shape[:2]) >= _SSIM_WINDOW:
        scores["ssim"] = _ssim(x, y)
    if parts is None and mask is not None:
        parts = _regions(_mask(mask, "mask", x.shape[:2]) > 0.5)
    if parts is not None:
        for part in ("inside", "core", "outside", "band"):
            scores[f"psnr_{part}"] = _decibel(_mean(error, parts[part]))
        scores["fmse"] = 255.0**2 * _mean(error, parts["inside"])
    return scores


@dataclass(frozen=True)
class _Scene:
    """What was blended, in the target's frame.

    Attributes
    ----------
    source, target : ndarray, shape (H, W, C)
        Without alpha, in their own dtypes or as floats.
    mask : ndarray of float64, shape (H, W)
        In [0, 1], the source's alpha counted in.
    known : ndarray of bool, shape (H, W)
        Where the source has a colour.
    """

    source: Pixels
    target: Pixels
    mask: Floats
    known: Region


def _scene(source: Any, target: Any, mask: Any, offset: tuple[int, int]) -> _Scene:
    src, tgt = _image(source, "source"), _image(target, "target")
    if src.colors != tgt.colors:
        raise ValueError(f"source: expected {tgt.colors} colour channel(s) like the target, got {src.colors}")
    pixels, scene_target = src.pixels[0], tgt.pixels[0, ..., : tgt.colors]
    for argument, array in (("source", pixels), ("target", scene_target)):
        _frames.check_range(array, argument)
    if mask is None and not src.has_alpha:
        raise ValueError("mask: expected a mask, as the source has no alpha channel, got None")
    m = np.ones(src.shape) if mask is None else _mask(mask, "mask", src.shape, "the source's size")
    known = np.ones(src.shape, bool)
    if src.has_alpha:
        m, known = m * _frames.to_float(pixels[..., -1]), pixels[..., -1] > 0
    colors = pixels[..., : src.colors]
    at, shape = _frames.read_offset(offset), tgt.shape
    if at == (0, 0) and src.shape == shape:
        return _Scene(colors, scene_target, m, known)
    place = _frames.place
    return _Scene(
        place(_frames.to_float(colors), shape, at),
        scene_target,
        place(m, shape, at),
        place(known.astype(float), shape, at) > 0,
    )


def _image(value: Any, argument: str) -> _arrays.Picture:
    picture = _arrays.image(value, argument)
    if len(picture.pixels) != 1:
        raise ValueError(f"{argument}: expected one image, got a batch of {len(picture.pixels)}")
    return picture


def _pair(result: Any, truth: Any) -> tuple[Pixels, Pixels]:
    """Both as (H, W, C) without alpha, in their own dtypes."""
    picture = _image(truth, "truth")
    pixels = picture.pixels[0, ..., : picture.colors]
    _frames.check_range(pixels, "truth")
    return _result(result, pixels, "the truth's"), pixels


def _result(result: Any, like: Pixels, whose: str = "the target's") -> Pixels:
    picture = _image(result, "result")
    if picture.shape != like.shape[:2]:
        raise ValueError(f"result: expected {whose} size, {like.shape[:2]}, got {picture.shape}")
    if picture.colors != like.shape[2]:
        raise ValueError(f"result: expected {whose} {like.shape[2]} colour channel(s), got {picture.colors}")
    pixels = picture.pixels[0, ..., : picture.colors]
    _frames.check_range(pixels, "result", _OVERSHOOT)
    return pixels


def _mask(value: Any, argument: str, shape: tuple[int, ...] | None = None, what: str = "the images' size") -> Floats:
    """(H, W) in [0, 1]."""
    pixels = _arrays.mask(value, argument)
    if len(pixels) != 1:
        raise ValueError(f"{argument}: expected one mask, got a batch of {len(pixels)}")
    m: Pixels = pixels[0]
    if shape is not None and m.shape != shape:
        raise ValueError(f"{argument}: expected {what}, {tuple(shape)}, got {m.shape}")
    _frames.check_range(m, argument)
    return _frames.to_float(m, is_mask=True)


def _blocks(shape: tuple[int, ...], overlap: int = 0) -> Iterator[slice]:
    """Of rows, each followed by so many rows of the next."""
    rows = max(1, _BLOCK // math.prod(shape[1:]))
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows + overlap)


def _unit_mse(result: Any, truth: Any, where: Any, argument: str, *, optional: bool = True) -> float:
    x, y = _pair(result, truth)
    if where is None and optional:
        return _mean(_squared_error(x, y))
    return _mean(_squared_error(x, y), _mask(where, argument, x.shape[:2]) > 0.5)


def _squared_error(x: Pixels, y: Pixels) -> Floats:
    """(H, W), the mean over the colours, on the scale of [0, 1]."""
    error = np.empty(x.shape[:2])
    for rows in _blocks(x.shape):
        difference = _frames.to_float(x[rows]) - _frames.to_float(y[rows])
        error[rows] = np.einsum("hwc,hwc->hw", difference, difference) / x.shape[2]
    return error


def _mean(error: Floats, region: Region | None = None) -> float:
    values = error if region is None else error[region]
    return float(values.mean()) if values.size else math.nan


def _decibel(unit_mse: float) -> float:
    return math.inf if unit_mse == 0 else -10 * math.log10(unit_mse)


def _regions(inside: Region) -> dict[str, Region]:
    import scipy.ndimage

    core, band = np.zeros_like(inside), np.zeros_like(inside)
    if inside.any():
        box = _frames.bounding_box(inside, _BAND_RADIUS + 1)  # beyond that the smoothed mask is 0
        part = inside[box]
        core[box] = scipy.ndimage.minimum_filter(part, 2 * _RIM + 1, mode="constant", cval=0)
        smooth = scipy.ndimage.gaussian_filter(part.astype(np.float64), _BAND_SIGMA, mode="mirror", radius=_BAND_RADIUS)
        band[box] = (smooth > 0.02) & (smooth < 0.98)
    return {"whole": np.ones_like(inside), "inside": inside, "core": core, "outside": ~inside, "band": band}


def _ssim(x: Pixels, y: Pixels) -> float:
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError("ssim needs scikit-image: pip install 'gpgan[evaluate]'") from error
    channels = [
        structural_similarity(  # type: ignore[no-untyped-call, unused-ignore]
            _frames.to_float(x[..., c]), _frames.to_float(y[..., c]), data_range=1.0, win_size=_SSIM_WINDOW
        )
        for c in range(x.shape[2])
    ]
    return float(np.mean(channels))


def _gradient_kept(x: Pixels, scene: _Scene) -> float:
    kept = np.zeros((2, 2))  # of the result and the copy-and-paste, along columns and along rows
    height, width, _ = x.shape
    for rows in _blocks(x.shape, overlap=1):
        m = scene.mask[rows, :, None]
        composite = m * _frames.to_float(scene.source[rows]) + (1 - m) * _frames.to_float(scene.target[rows])
        own = min(rows.stop - 1, height) - rows.start  # without the row that the next block has too
        for sums, image in zip(kept, (_frames.to_float(x[rows]), composite), strict=True):
            sums += np.abs(np.diff(image, axis=0)).sum(), np.abs(np.diff(image[:own], axis=1)).sum()
    # A side of one pixel has no pairs.
    pairs = max(1, (height - 1) * width), max(1, height * (width - 1))
    result, reference = (kept / pairs).sum(axis=1)
    return float(result / reference) if reference > 0 else math.nan


def _seam_visibility(x: Pixels, scene: _Scene, parts: dict[str, Region]) -> float:
    inside, band = parts["inside"], parts["band"]
    total, length = 0.0, 0
    for first, second in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        across = inside[first] != inside[second]
        length += int(np.count_nonzero(across))
        near = across | (band[first] & band[second])  # a mask of a single pixel has no band

        def step(image: Pixels, i: Any = first, j: Any = second, near: Region = near) -> Floats:
            return _frames.to_float(image[j][near]) - _frames.to_float(image[i][near])

        own, of_target = step(x), step(scene.target)
        knows = scene.known[first][near] & scene.known[second][near]
        of_source = np.where(knows[:, None], step(scene.source), of_target)
        low, high = np.minimum(of_source, of_target), np.maximum(of_source, of_target)
        total += float(np.maximum(np.maximum(own - high, low - own), 0).sum())
    return 255 * total / (length * x.shape[2]) if length else math.nan
