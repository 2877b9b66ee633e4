"""Between (source, target, mask) as callers give them and a method: the checks that all methods share, and the front
end of those that are not the core."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan import _arrays, ops
from gpgan._cuda_device import place_of

Array = npt.NDArray[np.float64]
#: From source and target (H, W, C) and a mask (H, W) in [0, 1] to the result (H, W, C).
Method = Callable[[Array, Array, Array], Array]

#: How far outside [0, 1] a float may lie before it is taken for a mistake; the core's kRangeSlack.
RANGE_SLACK = 1e-3


@dataclass(frozen=True)
class Arguments:
    """What a method was given, unpacked and checked against each other; writing `out` changes none of the others.

    Attributes
    ----------
    sources, targets : array or tensor, shape (1 or N, H, W, C), (N, H, W, C)
    masks : array or tensor, shape (1 or N, H, W), or None
        None: the source's alpha is the mask.
    colors : int
        Channels that are no alpha: 1 or 3.
    offset : (int, int)
    out : Picture
    """

    sources: Any
    targets: Any
    masks: Any
    colors: int
    offset: tuple[int, int]
    out: _arrays.Picture


def unpack(arrays: Any, source: Any, target: Any, mask: Any, offset: Any, out: Any) -> Arguments:
    """Unpack a method's arguments with `arrays`, the module :mod:`gpgan._arrays` or its twin for a device.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, but for the values of floats.
    """
    src, tgt = arrays.image(source, "source"), arrays.image(target, "target")
    if src.colors != tgt.colors:
        raise ValueError(f"source: expected {tgt.colors} colour channel(s) like the target, got {src.colors}")
    count = len(tgt.pixels)
    masks = None if mask is None else arrays.mask(mask, batched=getattr(target, "ndim", 0) == 4)
    if masks is None and not src.has_alpha:
        raise ValueError("mask: expected a mask, as the source has no alpha channel, got None")
    if masks is not None and tuple(masks.shape[1:]) != src.shape:
        raise ValueError(f"mask: expected the source's size, {src.shape}, got {tuple(masks.shape[1:])}")
    for argument, batch in (("source", src.pixels), ("mask", masks)):
        if batch is not None and len(batch) not in (1, count):
            raise ValueError(f"{argument}: expected a batch of 1 or {count} like the target's, got {len(batch)}")
    top_left = read_offset(offset)
    result = arrays.output(tgt, out)
    sources, targets = src.pixels, tgt.pixels
    if out is not None:
        sources = arrays.apart(sources, result.pixels)
        masks = None if masks is None else arrays.apart(masks, result.pixels)
        targets = targets if arrays.are_same(targets, result.pixels) else arrays.apart(targets, result.pixels)
    return Arguments(sources, targets, masks, tgt.colors, top_left, result)


def apply(method: Method, source: Any, target: Any, mask: Any, offset: Any, out: Any) -> Any:
    """Give a method that computes in float64 the arguments that :func:`gpgan.blend` takes.

    Parameters
    ----------
    method : callable(source, target, mask) -> result
        Takes float64 arrays of the target's size, source and target (H, W, C) with C = 1 or 3 and mask (H, W), all in
        [0, 1], and returns float64 (H, W, C) of any range. It is called image by image, and not at all where a mask is
        0 everywhere: then the result is the target. What it gets is its own to write to.
    source, target, mask, offset, out
        See :func:`gpgan.blend`. Pixels that the source does not know are extended from those it knows.

    Returns
    -------
    The target's type, shape and dtype: rounded and saturated where that is an integer, and just rounded to the dtype
    where it is a float, which may lie outside [0, 1]. The target's alpha passes through.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, and for tensors on another device than the CPU.
    """
    place = place_of(target)
    if place != "cpu":
        raise ValueError(f"target: expected a tensor in CPU memory, where this method computes, got one on {place}")
    given = unpack(_arrays, source, target, mask, offset, out)
    for i, pixels in enumerate(given.targets):
        one = given.sources[i % len(given.sources)]
        weights = None if given.masks is None else given.masks[i % len(given.masks)]
        _apply_one(method, one, pixels, weights, given, given.out.pixels[i])
    return given.out.restore(given.out.pixels)


def _apply_one(
    method: Method,
    source: _arrays.Pixels,
    target: _arrays.Pixels,
    mask: _arrays.Pixels | None,
    given: Arguments,
    out: _arrays.Pixels,
) -> None:
    colors, shape = given.colors, (target.shape[0], target.shape[1])
    background = _as_float(target[..., :colors], "target")
    foreground = _as_float(source[..., :colors], "source")
    alpha = _as_float(source[..., colors], "source") if source.shape[2] > colors else None
    # What an offset cuts off is checked and counts for the mask's scale all the same: neither must depend on it.
    weights = alpha if mask is None else _as_float(mask, "mask", is_mask=True)
    assert weights is not None  # unpack has seen to it
    if mask is not None and alpha is not None:
        weights = weights * alpha
    weights = place(weights, shape, given.offset)
    if not weights.any():
        np.copyto(out, target)
        return
    foreground = place_source(foreground, alpha, shape, given.offset)
    result = method(foreground, background, weights)
    for c in range(colors):  # a channel at a time, for the memory that a large photo takes
        out[..., c] = from_float(result[..., c], out.dtype)
    if out.shape[2] > colors:
        out[..., -1] = target[..., -1]


def place(image: Array, shape: tuple[int, int], offset: tuple[int, int]) -> Array:
    """An image (h, w) or (h, w, C) in a frame of another size at (top, left): cut where it is outside, 0 elsewhere."""
    if image.shape[:2] == shape and offset == (0, 0):
        return image
    frame = np.zeros((*shape, *image.shape[2:]))
    (top, bottom), (left, right) = (
        (min(max(at, 0), n), max(min(at + size, n), 0)) for at, size, n in zip(offset, image.shape, shape, strict=False)
    )
    if top < bottom and left < right:
        frame[top:bottom, left:right] = image[
            top - offset[0] : bottom - offset[0], left - offset[1] : right - offset[1]
        ]
    return frame


def bounding_box(region: npt.NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice]:
    """The smallest rows and columns that hold a region that is not empty, and a margin as far as there is image."""
    sides = []
    for axis in (1, 0):
        [indices] = np.nonzero(region.any(axis=axis))
        sides.append(slice(max(0, int(indices[0]) - margin), int(indices[-1]) + 1 + margin))
    return sides[0], sides[1]


def place_source(source: Array, alpha: Array | None, shape: tuple[int, int], offset: tuple[int, int]) -> Array:
    """A source (h, w, C) in a frame of another size; what it does not know there is extended from what it knows.

    `alpha`, (h, w), is 0 where it knows nothing; None: it knows all of its own pixels.
    """
    if alpha is None and source.shape[:2] == shape and offset == (0, 0):
        return source
    known = place(np.ones(source.shape[:2]) if alpha is None else alpha, shape, offset)
    source = place(source, shape, offset)
    if known.all() or not known.any():
        return source
    # The core's push-pull is float32; what is known keeps all its digits.
    return np.where(known[..., None] > 0, source, ops.extend(source, known))


def to_float(pixels: _arrays.Pixels, *, is_mask: bool = False) -> Array:
    """Pixels on the scale whose 1 is their dtype's white; a mask's integers may be 0 and 1."""
    if pixels.dtype.kind in "bf" or (is_mask and pixels.max() <= 1):
        return np.asarray(pixels, np.float64)
    scaled: Array = pixels / np.float64(np.iinfo(pixels.dtype).max)
    return scaled


def from_float(values: Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Values whose 1 is a dtype's white, in that dtype: integers rounded and saturated, floats as they are."""
    dtype = np.dtype(dtype)
    if dtype.kind != "u":
        return values.astype(dtype)
    full = np.iinfo(dtype).max
    scaled = values * full
    scaled += 0.5  # halves up, as the core rounds
    return np.clip(scaled, 0, full, out=scaled).astype(dtype)


def _as_float(pixels: _arrays.Pixels, argument: str, *, is_mask: bool = False) -> Array:
    """Pixels as float64 in [0, 1], checked; a mask's integers may be 0 and 1."""
    check_range(pixels, argument)
    if pixels.dtype.kind == "f":
        clipped: Array = np.clip(pixels, 0, 1, dtype=np.float64)
        return clipped
    return to_float(pixels, is_mask=is_mask)


def check_range(pixels: _arrays.Pixels, argument: str, slack: float = RANGE_SLACK) -> None:
    """Make sure that the values of (H, W) or (H, W, C) are finite and in [0, 1] or nearly, if they are floats.

    Raises
    ------
    ValueError
        If one is not; it says which, as the core does.
    """
    if pixels.dtype.kind != "f":
        return
    bad = ~((pixels >= -slack) & (pixels <= 1 + slack))  # NaN is in no range
    if bad.any():
        at = tuple(np.argwhere(bad)[0])
        raise ValueError(
            f"{argument}: expected finite floats in [0, 1], got {pixels[at]:f} at row {at[0]}, column {at[1]}"
        )


def read_offset(offset: Any) -> tuple[int, int]:
    """(top, left), checked.

    Raises
    ------
    TypeError, ValueError
        If it is no pair of integers, or far beyond any image.
    """
    try:
        top, left = (operator.index(x) for x in offset)
    except (TypeError, ValueError):
        raise TypeError(f"offset: expected two integers (top, left), got {offset!r}") from None
    limit = 1 << 40  # far beyond any image, and far from where sums would overflow
    if not (-limit < top < limit and -limit < left < limit):
        raise ValueError(f"offset: expected values within 2**40 pixels, got {offset!r}")
    return top, left
