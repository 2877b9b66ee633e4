"""OpenCV's seamlessClone call on this package's solver."""

from __future__ import annotations

import enum
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan import _arrays, _frames, _poisson, ops

__all__ = ["CloneFlag", "seamless_clone"]

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]
Region = npt.NDArray[np.bool_]

#: So many times OpenCV erodes the mask by a 3 x 3 square.
_EROSIONS = 3


class CloneFlag(enum.IntEnum):
    """The flags of :func:`seamless_clone`: OpenCV's cv2.SeamlessCloneFlags, names and values."""

    NORMAL_CLONE = 1
    MIXED_CLONE = 2
    MONOCHROME_TRANSFER = 3
    NORMAL_CLONE_WIDE = 9
    MIXED_CLONE_WIDE = 10
    MONOCHROME_TRANSFER_WIDE = 11

    @property
    def is_wide(self) -> bool:
        """Whether the source's middle goes to the point, and not that of the mask's bounding box."""
        return self >= CloneFlag.NORMAL_CLONE_WIDE

    @property
    def mode(self) -> str:
        """What :func:`gpgan.baselines.poisson` calls it."""
        return {1: "seamless", 2: "mixed", 3: "monochrome"}[self & 7]


def seamless_clone(src: Any, dst: Any, mask: Any, p: Any, flags: int, blend: Any = None) -> Pixels:
    """Clone a region of one photo into another: a drop-in for ``cv2.seamlessClone``.

    The arguments, their order and their meaning are OpenCV's, so that replacing the name is all there is to do. The
    region is put where OpenCV puts it; the solution is Poisson image editing's on the mask itself [1]_, and what
    OpenCV refuses or gets wrong works: 16-bit, float and grey images, masks that are thin or reach the border, regions
    that are partly outside `dst`. New code may find :func:`gpgan.blend` and :func:`gpgan.baselines.poisson` easier.

    Parameters
    ----------
    src, dst : ndarray, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        uint8, uint16, or floats in [0, 1]. Colours in OpenCV's order blue, green, red, which matters to
        MONOCHROME_TRANSFER alone. Sizes and dtypes may differ, both are grey or both in colour. The alpha of `dst`
        passes through; where that of `src` is below one half, its pixels do not belong to the region.
    mask : ndarray, shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or None
        Of the size of `src`, bool, integers or floats; None selects all of `src`. Colours count as their grey, an alpha
        channel does not count. The region is where the mask is at least half of its largest value; pixels above 0
        tell where it goes.
    p : (int, int)
        (x, y) in `dst` of the middle of the bounding box of the mask's pixels above 0, the outermost rows and columns
        of the mask left aside as OpenCV does; for WIDE of the middle of the whole mask. Sizes are halved rounding down.
        Parts that fall outside `dst` are cut off.
    flags : int
        ``cv2.NORMAL_CLONE`` (1), ``cv2.MIXED_CLONE`` (2), ``cv2.MONOCHROME_TRANSFER`` (3), or their WIDE forms 9, 10
        and 11: :class:`CloneFlag` has the same names for those without OpenCV.
    blend : ndarray, optional
        Where the result goes, of the shape and dtype of `dst`; may be `dst` itself.

    Returns
    -------
    ndarray, the shape and dtype of `dst`
        `blend`, or a new array. Rounded to the nearest value and clipped to the range of the dtype, floats to [0, 1].
        Outside the region every bit is that of `dst`. No other argument is written to.

    Raises
    ------
    TypeError
        If an argument is no NumPy array of those dtypes, or `p` or `flags` no integers.
    ValueError
        If an argument has another shape or value than these.

    Notes
    -----
    As in OpenCV the seam lies inside the mask: it is eroded three times by a 3 x 3 square. The border of `dst` does not
    erode, and a part of the mask (8-connected) of which nothing would be left stays whole.

    References
    ----------
    .. [1] P. Perez, M. Gangnet, A. Blake, "Poisson Image Editing", 2003.

    Examples
    --------
    >>> import gpgan                                                      # doctest: +SKIP
    >>> result = gpgan.seamless_clone(src, dst, mask, p, cv2.NORMAL_CLONE)  # doctest: +SKIP
    """
    source, target = _image(src, "src"), _image(dst, "dst")
    colors = _arrays.color_count(target.shape[2])
    if _arrays.color_count(source.shape[2]) != colors:
        raise ValueError(
            f"src: expected {colors} colour channel(s) like dst, got {_arrays.color_count(source.shape[2])}"
        )
    weights = _grey(mask, (source.shape[0], source.shape[1]))
    flag = _flag(flags)
    top, left = _place(weights, _point(p), flag)
    _check_blend(blend, dst)

    window, region = _region(weights, source, (top, left), (target.shape[0], target.shape[1]))
    inside = _erode(region)
    changed = None
    if inside.any():
        box = _frames.bounding_box(inside, 1)  # of which the values count
        inside = inside[box]
        rows, columns = (range(w.start, w.stop)[b] for w, b in zip(window, box, strict=True))
        window = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        background = _as_float(target[window], colors)
        foreground = _placed(source, colors, (rows.start - top, columns.start - left), inside.shape)
        changed = _poisson.clone(foreground, background, inside, flag.mode)[..., ::-1]

    # Nothing is read from here on but dst, so that blend may share memory with any argument.
    result: Pixels = dst.copy() if blend is None else blend
    if blend is not None:
        np.copyto(blend, dst)
    if changed is not None:
        into = result[..., None] if result.ndim == 2 else result
        changed = _frames.from_float(np.clip(changed, 0, 1), result.dtype)
        np.copyto(into[window][..., :colors], changed, where=inside[..., None])
    return result


def _image(value: Any, argument: str) -> Pixels:
    """(H, W, C), checked; the same memory."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{argument}: expected a NumPy array as OpenCV takes, got {type(value).__name__}")
    pixels: Pixels = _arrays.image(value, argument).pixels[0]
    if pixels.shape[2] == 2:
        raise ValueError(f"{argument}: expected 1, 3 or 4 channels, got shape {value.shape}")
    _frames.check_range(pixels, argument)
    return pixels


def _grey(mask: Any, shape: tuple[int, int]) -> Pixels:
    """The mask as one channel (h, w) of its own scale."""
    if mask is None:
        return np.ones(shape, np.uint8)
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"mask: expected a NumPy array or None, got {type(mask).__name__}")
    if mask.dtype.kind not in "biuf":
        raise TypeError(f"mask: expected bool, integers or floats, got {mask.dtype}")
    if mask.ndim not in (2, 3) or (mask.ndim == 3 and mask.shape[2] not in (1, 3, 4)):
        raise ValueError(f"mask: expected (h, w) or (h, w, C) of 1, 3 or 4 channels, got shape {mask.shape}")
    if mask.shape[:2] != shape:
        raise ValueError(f"mask: expected the size of src, {shape}, got {mask.shape[:2]}")
    if mask.dtype.kind != "b" and not mask.min() >= 0:
        raise ValueError(f"mask: expected finite values of 0 or more, got {mask.min()}")
    if mask.dtype.kind == "f" and not np.isfinite(mask.max()):
        raise ValueError(f"mask: expected finite values of 0 or more, got {mask.max()}")
    if mask.ndim == 2:
        return mask
    if mask.shape[2] == 1:
        return mask[..., 0]
    blue, green, red = (mask[..., c] for c in range(3))
    if np.array_equal(blue, green) and np.array_equal(green, red):
        return blue
    grey: Floats = np.tensordot(mask[..., :3].astype(np.float64), _poisson.LUMA[::-1], axes=1)
    return grey if mask.dtype.kind in "bf" or mask.max() <= 1 else np.rint(grey)


def _point(p: Any) -> tuple[int, int]:
    try:
        x, y = (operator.index(n) for n in p)
    except (TypeError, ValueError):
        raise TypeError(f"p: expected two integers (x, y), got {p!r}") from None
    return x, y


def _flag(flags: Any) -> CloneFlag:
    try:
        return CloneFlag(operator.index(flags))
    except TypeError:
        raise TypeError(f"flags: expected an integer, got {flags!r}") from None
    except ValueError:
        known = ", ".join(f"{flag.value} ({flag.name})" for flag in CloneFlag)
        raise ValueError(f"flags: expected one of {known}, got {flags}") from None


def _check_blend(blend: Any, dst: Pixels) -> None:
    if blend is None:
        return
    if not isinstance(blend, np.ndarray):
        raise TypeError(f"blend: expected a NumPy array or None, got {type(blend).__name__}")
    if blend.shape != dst.shape or blend.dtype != dst.dtype:
        raise ValueError(
            f"blend: expected the shape and dtype of dst, {dst.shape} {dst.dtype}, got {blend.shape} {blend.dtype}"
        )
    _arrays.check_own_memory(blend, "blend")


def _place(mask: Pixels, point: tuple[int, int], flag: CloneFlag) -> tuple[int, int]:
    """Where the top left pixel of src goes in dst: (top, left)."""
    x, y = point
    height, width = mask.shape
    if flag.is_wide:
        return y - height // 2, x - width // 2
    # OpenCV clears the mask's outermost rows and columns before it looks for the bounding box.
    inner, margin = mask[1:-1, 1:-1] > 0, 1
    if not inner.any():
        inner, margin = mask > 0, 0
        if not inner.any():
            return 0, 0  # nothing to place
    rows, columns = _frames.bounding_box(inner)
    return (
        y - (rows.stop - rows.start) // 2 - rows.start - margin,
        x - (columns.stop - columns.start) // 2 - columns.start - margin,
    )


def _region(
    mask: Pixels, source: Pixels, offset: tuple[int, int], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], Region]:
    """The mask's region in the frame of dst: a window of dst and what of it belongs, before any erosion.

    The window ends as far from the region as erosion sees, or at the border of dst.
    """
    most = mask.max()
    if not most > 0:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
    # Integers are compared with one, which spares a copy as floats.
    selected = mask >= (most / 2 if mask.dtype.kind == "f" else (int(most) + 1) // 2)
    if source.shape[2] == 4:
        opaque = 1.0 if source.dtype.kind == "f" else float(np.iinfo(source.dtype).max)
        selected = selected & (source[..., 3] >= opaque / 2)
    visible = tuple(
        slice(max(0, -at), max(0, min(size, n - at))) for at, size, n in zip(offset, mask.shape, shape, strict=True)
    )
    part = selected[visible]
    if not part.any():
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
    box = _frames.bounding_box(part)
    window, into = [], []
    for at, seen, b, n in zip(offset, visible, box, shape, strict=True):
        first, last = at + seen.start + b.start, at + seen.start + min(b.stop, seen.stop - seen.start)
        start, stop = max(0, first - _EROSIONS), min(n, last + _EROSIONS)
        window.append(slice(start, stop))
        into.append(slice(first - start, last - start))
    region = np.zeros([w.stop - w.start for w in window], bool)
    region[into[0], into[1]] = part[box]
    return (window[0], window[1]), region


def _erode(region: Region) -> Region:
    """Erosion by a square; the border does not erode, and components that would vanish stay."""
    import scipy.ndimage

    if not region.any():
        return region
    eroded: Region = scipy.ndimage.minimum_filter(region.view(np.uint8), size=2 * _EROSIONS + 1, mode="nearest") > 0
    labels, count = scipy.ndimage.label(region, structure=np.ones((3, 3)))
    survives = np.zeros(count + 1, bool)
    survives[labels[eroded]] = True
    if survives[1:].all():
        return eroded
    survives[0] = True  # the outside stays eroded
    kept: Region = np.where(survives[labels], eroded, region)
    return kept


def _placed(source: Pixels, colors: int, start: tuple[int, int], shape: tuple[int, int]) -> Floats:
    """A window of the source as floats; what lies beyond its border or is transparent is extended from the rest."""
    rows, columns = (np.arange(at, at + n) for at, n in zip(start, shape, strict=True))
    known = np.outer(*((at >= 0) & (at < n) for at, n in zip((rows, columns), source.shape[:2], strict=True)))
    if known.all():
        part = source[start[0] : start[0] + shape[0], start[1] : start[1] + shape[1]]
    else:
        part = source[np.ix_(rows.clip(0, source.shape[0] - 1), columns.clip(0, source.shape[1] - 1))]
    if part.shape[2] > colors:
        known &= part[..., colors] > 0
    values = _as_float(part, colors)
    if known.all():
        return values
    return np.where(known[..., None], values, ops.extend(values, known.astype(np.float64)))


def _as_float(pixels: Pixels, colors: int) -> Floats:
    """The colours in [0, 1], and the other way round: the solver knows them as red, green, blue."""
    pixels = pixels[..., :colors][..., ::-1]
    # float32 holds every value of the others, and the solver is no finer.
    dtype = np.float64 if pixels.dtype.itemsize == 8 else np.float32
    if pixels.dtype.kind == "f":
        values: Floats = np.clip(pixels, 0, 1, dtype=dtype, order="C")
    else:
        values = np.multiply(pixels, 1 / np.iinfo(pixels.dtype).max, dtype=dtype, order="C")
    return values
