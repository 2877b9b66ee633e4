"""What array frameworks look like is known here and nowhere else: NumPy, PIL and torch in, the target's own kind out.

Inside, an image is a :class:`Picture`: a batch of pixels (N, H, W, C) that shares memory with the caller's wherever
the core can read its dtype.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

#: What the core reads and writes in place; everything else goes through a float32 copy.
CORE_DTYPES = (np.uint8, np.uint16, np.float32, np.float64)
IMAGE_DTYPES = "uint8, uint16, float16, float32 or float64"

#: PIL modes with the meaning that the core gives to channels, and how a palette is unfolded.
PIL_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "F")

_max_pixels = int(os.environ.get("GPGAN_MAX_PIXELS", 1 << 27))


def max_pixels() -> int:
    """The largest image that is accepted, in pixels (height * width); 2**27 unless GPGAN_MAX_PIXELS says otherwise."""
    return _max_pixels


def set_max_pixels(pixels: int) -> None:
    """Set the largest image that is accepted, so that a hostile or mistaken file cannot claim all memory.

    Parameters
    ----------
    pixels : int
        Height times width, 1 or more.

    Raises
    ------
    ValueError
        If `pixels` is below 1.
    """
    global _max_pixels
    if pixels < 1:
        raise ValueError(f"pixels: expected 1 or more, got {pixels}")
    _max_pixels = int(pixels)


@dataclass(frozen=True)
class Picture:
    """A batch of images as the core reads it.

    Attributes
    ----------
    pixels : ndarray, shape (N, H, W, C)
    restore : callable
        From pixels of this shape and dtype to the caller's kind of image.
    kind : str
        ``"numpy"``, ``"PIL"`` or ``"torch"``.
    """

    pixels: Pixels
    restore: Callable[[Pixels], Any]
    kind: str

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def colors(self) -> int:
        """Channels that are no alpha: 1 or 3."""
        return 3 if self.pixels.shape[3] >= 3 else 1

    @property
    def has_alpha(self) -> bool:
        return bool(self.pixels.shape[3] > self.colors)


def core_readable(pixels: Pixels) -> Pixels:
    """The pixels in a dtype and byte order that the core reads: themselves, or a float32 copy."""
    dtype = pixels.dtype
    if dtype.isnative and (dtype == np.bool_ or any(dtype == d for d in CORE_DTYPES)):
        return pixels
    return pixels.astype(dtype.newbyteorder("=") if dtype.kind == "u" or dtype.itemsize == 8 else np.float32)


def image(value: Any, argument: str) -> Picture:
    """A source or a target.

    Raises
    ------
    TypeError
        If it is no array, PIL image or tensor, or of a dtype that images do not have.
    ValueError
        If it has a shape or a PIL mode that images do not have, is empty, or is over :func:`max_pixels`.
    """
    picture = _unpack(value, argument)
    dtype = picture.pixels.dtype
    if dtype.newbyteorder("=") not in (*map(np.dtype, CORE_DTYPES), np.dtype(np.float16)):
        raise TypeError(f"{argument}: expected {IMAGE_DTYPES}, got {dtype}")
    return picture


def mask(value: Any, argument: str = "mask") -> Pixels:
    """A mask as (N, H, W): uint8 or uint16 or floats in [0, 1] for the core to read.

    Of RGBA and LA the alpha counts; RGB must be grey.

    Raises
    ------
    TypeError, ValueError
        As :func:`image`, and for values that no mask can have.
    """
    picture = _unpack(value, argument)
    pixels = picture.pixels
    if picture.has_alpha:
        if _is_opaque(pixels) and np.ptp(pixels[..., 0]) > 0:
            raise ValueError(
                f"{argument}: expected an alpha channel that tells where the source shows, got an opaque one beside "
                "colours that differ; convert the mask to grey if those are meant"
            )
        pixels = pixels[..., -1]
    elif picture.colors == 3:
        if not ((pixels[..., 0] == pixels[..., 1]) & (pixels[..., 0] == pixels[..., 2])).all():
            raise ValueError(f"{argument}: expected one channel, or three that are equal, got three that differ")
        pixels = pixels[..., 0]
    else:
        pixels = pixels[..., 0]
    if pixels.dtype.kind in "bf" or pixels.dtype in (np.uint8, np.uint16):
        if pixels.dtype.itemsize > 8:
            raise TypeError(f"{argument}: expected bool, an integer or {IMAGE_DTYPES}, got {pixels.dtype}")
        return core_readable(pixels)
    if pixels.dtype.kind not in "iu":
        raise TypeError(f"{argument}: expected bool, integers or floats, got {pixels.dtype}")
    low, high = int(pixels.min()), int(pixels.max())
    full = np.iinfo(pixels.dtype).max
    if low < 0:
        raise ValueError(f"{argument}: expected integers from 0 to {full}, got {low}")
    if high <= 1:
        return pixels.astype(np.uint8)
    if high <= 0xFFFF < full:
        # 255 of 2**31: surely a mask of 0..255 whose dtype grew on the way, and not one that is empty to the eye.
        raise ValueError(
            f"{argument}: expected 0 and 1, or 0 to {full} as its dtype is {pixels.dtype}, got at most {high}; "
            f"convert it to {'uint8' if high <= 0xFF else 'uint16'} if that is its scale"
        )
    return (pixels / full).astype(np.float32)


def _is_opaque(pixels: Pixels) -> bool:
    full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    return bool((pixels[..., -1] == full).all())


def output(target: Picture, out: Any) -> Picture:
    """Where the result goes: `out` if it fits the target, else something new of the target's kind.

    Raises
    ------
    TypeError, ValueError
        If `out` is not of the target's type, shape or dtype, or cannot be written to.
    """
    if out is None:
        fresh = np.empty(target.pixels.shape, target.pixels.dtype)
        return Picture(fresh, target.restore, target.kind)
    if target.kind == "PIL":
        raise TypeError("out: expected None as the target is a PIL image, which cannot be written in place")
    given = _unpack(out, "out")
    if given.kind != target.kind:
        raise TypeError(f"out: expected the target's type ({target.kind}), got {given.kind}")
    if given.pixels.shape != target.pixels.shape or given.pixels.dtype != target.pixels.dtype:
        raise ValueError(
            f"out: expected the target's shape and dtype, {target.pixels.shape[1:]} {target.pixels.dtype}, "
            f"got {given.pixels.shape[1:]} {given.pixels.dtype}"
        )
    if not given.pixels.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")
    return Picture(given.pixels, lambda _: out, given.kind)


def _unpack(value: Any, argument: str) -> Picture:
    torch, pil = sys.modules.get("torch"), sys.modules.get("PIL.Image")
    if isinstance(value, np.ndarray):
        picture = _from_numpy(value, argument)
    elif torch is not None and isinstance(value, torch.Tensor):
        picture = _from_torch(value, argument)
    elif pil is not None and isinstance(value, pil.Image):
        picture = _from_pil(value, argument)
    else:
        raise TypeError(
            f"{argument}: expected a NumPy array, a PIL image or a torch tensor, got {type(value).__name__}"
        )
    height, width = picture.shape
    if picture.pixels.size == 0:
        raise ValueError(f"{argument}: expected at least 1 x 1 pixels, got {height} x {width}")
    if height * width > _max_pixels:
        raise ValueError(
            f"{argument}: expected at most {_max_pixels} pixels (gpgan.set_max_pixels), got {height} x {width}"
        )
    return picture


def _from_numpy(array: npt.NDArray[Any], argument: str) -> Picture:
    if array.ndim == 2:
        return Picture(array[None, :, :, None], lambda pixels: pixels[0, :, :, 0], "numpy")
    if array.ndim == 3 and 1 <= array.shape[2] <= 4:
        return Picture(array[None], lambda pixels: pixels[0], "numpy")
    raise ValueError(f"{argument}: expected an array (H, W), (H, W, 3) or (H, W, 4), got shape {array.shape}")


def _from_torch(tensor: Any, argument: str) -> Picture:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise ValueError(
            f"{argument}: expected a tensor in CPU memory, as this build of gpgan has no CUDA backend, "
            f"got one on {tensor.device}"
        )
    if tensor.ndim not in (2, 3, 4) or (tensor.ndim > 2 and not 1 <= tensor.shape[-3] <= 4):
        raise ValueError(
            f"{argument}: expected a tensor (H, W), (C, H, W) or (N, C, H, W) with 1, 3 or 4 channels, "
            f"got shape {tuple(tensor.shape)}"
        )
    try:
        array = tensor.detach().numpy()
    except TypeError:
        raise TypeError(f"{argument}: expected {IMAGE_DTYPES}, got {tensor.dtype}") from None
    shape = array.shape
    pixels = array.reshape((1,) * (4 - array.ndim) + shape).transpose(0, 2, 3, 1)

    def restore(pixels: Pixels) -> Any:
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).reshape(shape))
        return torch.from_numpy(planes)

    return Picture(pixels, restore, "torch")


def _from_pil(picture: Any, argument: str) -> Picture:
    pil = sys.modules["PIL.Image"]
    mode, info = picture.mode, dict(picture.info)
    if argument != "target":
        if mode in ("P", "PA"):
            picture = picture.convert("RGBA" if mode == "PA" or "transparency" in info else "RGB")
        elif mode == "1" and argument == "mask":
            picture = picture.convert("L")
    if picture.mode not in PIL_MODES:
        raise ValueError(
            f"{argument}: expected a PIL image of mode {', '.join(PIL_MODES)}, got {mode}; "
            "convert it with Image.convert"
        )
    array = np.asarray(picture)

    def restore(pixels: Pixels) -> Any:
        result = pil.fromarray(pixels[0, :, :, 0] if array.ndim == 2 else pixels[0])
        result.info.update(info)
        return result

    return Picture(array[None, :, :, None] if array.ndim == 2 else array[None], restore, "PIL")
