"""What array frameworks look like is known here and nowhere else: NumPy, PIL and torch in, the target's own kind out.

Inside, an image is a :class:`Picture`: a batch of pixels (N, H, W, C) that shares memory with the caller's wherever
the core can read its dtype.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan._cuda_device import place_of

Pixels = npt.NDArray[Any]

#: What the core reads and writes in place; everything else goes through a copy.
CORE_DTYPES = (np.uint8, np.uint16, np.float32, np.float64)
IMAGE_DTYPES = "uint8, uint16, float16, float32 or float64"

#: PIL modes whose channels mean what the core takes them for.
PIL_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "F")

_DEFAULT_MAX_PIXELS = 1 << 27
_max_pixels: int | None = None


def max_pixels() -> int:
    """The largest image that is accepted, in pixels (height * width); 2**27 unless GPGAN_MAX_PIXELS says otherwise."""
    if _max_pixels is not None:
        return _max_pixels
    said = os.environ.get("GPGAN_MAX_PIXELS", "")
    if not said:
        return _DEFAULT_MAX_PIXELS
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(f"GPGAN_MAX_PIXELS: expected a whole number from 1 on, got {said!r}")
    return int(said)


def set_max_pixels(pixels: int) -> None:
    """Set the largest image that is accepted, so that a hostile or mistaken file cannot claim all memory.

    Parameters
    ----------
    pixels : int
        Height times width, 1 or more.

    Raises
    ------
    TypeError, ValueError
        If `pixels` is no integer, or below 1.
    """
    global _max_pixels
    try:
        count = operator.index(pixels)
    except TypeError:
        raise TypeError(f"pixels: expected an integer, got {type(pixels).__name__}") from None
    if count < 1:
        raise ValueError(f"pixels: expected 1 or more, got {count}")
    _max_pixels = count


@dataclass(frozen=True)
class Picture:
    """A batch of images as the core reads it.

    Attributes
    ----------
    pixels : ndarray, shape (N, H, W, C)
        On a CUDA device a tensor.
    restore : callable
        From pixels of this shape and dtype to the caller's kind of image.
    kind : str
        ``"numpy"``, ``"PIL"`` or ``"torch"``.
    tensor : torch.Tensor or None
        What it was made of, for its layout.
    """

    pixels: Pixels
    restore: Callable[[Pixels], Any]
    kind: str
    tensor: Any = None

    def empty_like(self) -> Picture:
        """New memory for an image of this kind, shape, dtype and layout."""
        if self.tensor is None:
            return Picture(np.empty(self.pixels.shape, self.pixels.dtype), self.restore, self.kind)
        fresh = sys.modules["torch"].empty_like(self.tensor, requires_grad=False)
        return Picture(_from_torch(fresh, "out").pixels, lambda _: fresh, self.kind)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def colors(self) -> int:
        """Channels that are no alpha: 1 or 3."""
        return color_count(self.pixels.shape[3])

    @property
    def has_alpha(self) -> bool:
        return bool(self.pixels.shape[3] > self.colors)


def color_count(channels: int) -> int:
    """How many of 1 to 4 channels are colours: the second and the fourth are alpha."""
    return 3 if channels >= 3 else 1


def core_readable(pixels: Pixels) -> Pixels:
    """The pixels in a dtype and byte order that the core reads: themselves, or a float32 copy."""
    dtype = pixels.dtype
    if dtype.isnative and (dtype == np.bool_ or any(dtype == d for d in CORE_DTYPES)):
        return pixels if pixels.flags.aligned else pixels.copy()
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
    # The core checks the colours as it reads them; an alpha that passes through it never sees.
    if picture.has_alpha and dtype.kind == "f" and not np.isfinite(picture.pixels[..., -1]).all():
        raise ValueError(f"{argument}: expected finite floats in [0, 1], got NaN or infinity in the alpha channel")
    return picture


def mask(value: Any, argument: str = "mask", *, batched: bool = False) -> Pixels:
    """A mask as (N, H, W): uint8 or uint16 or floats in [0, 1] for the core to read.

    Of RGBA and LA the alpha counts; RGB must be grey. Whether integers are 0 and 1 or 0..max is one question for the
    whole batch. `batched`: the target is a batch (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        As :func:`image`, and for values that no mask can have.
    """
    picture = _unpack(value, argument)
    pixels = picture.pixels
    if batched and picture.kind == "torch":
        check_mask_batch(value, argument)
    if picture.has_alpha:
        alpha, colors = pixels[..., -1], pixels[..., :-1]
        if alpha.min() == alpha.max() > 0 and (colors != colors[0, 0, 0]).any():
            raise ValueError(
                f"{argument}: expected an alpha channel that tells where the source shows, "
                "got the same everywhere beside colours that differ; convert the mask to grey if those are meant"
            )
        pixels = alpha
    elif picture.colors == 3:
        if not ((pixels[..., 0] == pixels[..., 1]) & (pixels[..., 0] == pixels[..., 2])).all():
            raise ValueError(f"{argument}: expected one channel, or three that are equal, got three that differ")
        pixels = pixels[..., 0]
    else:
        pixels = pixels[..., 0]
    if pixels.dtype.kind not in "biuf" or pixels.dtype.itemsize > 8:
        raise TypeError(f"{argument}: expected bool, integers or {IMAGE_DTYPES}, got {pixels.dtype}")
    if pixels.dtype.kind in "bf" or (pixels.dtype == np.uint8 and len(pixels) == 1):
        return core_readable(pixels)
    low, high = int(pixels.min()), int(pixels.max())
    full = np.iinfo(pixels.dtype).max
    if low < 0:
        raise ValueError(f"{argument}: expected integers from 0 to {full}, got {low}")
    if high <= 1:
        return pixels.astype(np.uint8)
    if high <= 0xFF < full or high <= 0xFFFF < full:
        # 255 of 65535: surely a mask of 0..255 whose dtype grew on the way, and not one that is empty to the eye.
        raise ValueError(
            f"{argument}: expected 0 and 1, or 0 to {full} as its dtype is {pixels.dtype}, got at most {high}; "
            f"convert it to {'uint8' if high <= 0xFF else 'uint16'} if that is its scale"
        )
    return core_readable(pixels) if len(pixels) == 1 and full == 0xFFFF else (pixels / full).astype(np.float32)


def output(target: Picture, out: Any) -> Picture:
    """Where the result goes: `out` if it fits the target, else something new of the target's kind.

    Raises
    ------
    TypeError, ValueError
        If `out` is not of the target's type, shape or dtype, or cannot be written to.
    """
    if out is None:
        return target.empty_like()
    if target.kind == "PIL":
        raise TypeError("out: expected None as the target is a PIL image, which cannot be written in place")
    given = _unpack(out, "out")
    if given.kind != target.kind:
        raise TypeError(f"out: expected the target's type ({target.kind}), got {given.kind}")
    check_like_target(given.pixels, target.pixels)
    check_own_memory(given.pixels, "out")
    check_writable_tensor(out)
    return Picture(given.pixels, lambda _: out, given.kind)


def apart(pixels: Pixels, out: Pixels) -> Pixels:
    """The pixels, or a copy of them where writing `out` could change what is still to be read."""
    return pixels.copy() if np.may_share_memory(pixels, out) else pixels


def are_same(pixels: Pixels, out: Pixels) -> bool:
    """Whether both are the same memory, pixel by pixel."""
    return bool(pixels.ctypes.data == out.ctypes.data and pixels.strides == out.strides)


def check_like_target(out: Any, target: Any) -> None:
    """Two batches of pixels, arrays or tensors: same shape, same dtype?"""
    if tuple(out.shape) != tuple(target.shape) or out.dtype != target.dtype:

        def text(pixels: Any) -> str:
            return f"{tuple(pixels.shape[1:])} {str(pixels.dtype).removeprefix('torch.')}"

        raise ValueError(f"out: expected the target's shape and dtype, {text(target)}, got {text(out)}")


def check_own_memory(pixels: Pixels, argument: str) -> None:
    """Can every value be written, and without changing another?"""
    if not pixels.flags.writeable:
        raise ValueError(f"{argument}: expected a writable array, got a read-only one")
    if any(n > 1 and stride == 0 for n, stride in zip(pixels.shape, pixels.strides, strict=True)):
        raise ValueError(
            f"{argument}: expected memory of its own for every pixel, got an expanded array (a stride of 0)"
        )


def check_writable_tensor(out: Any) -> None:
    if getattr(out, "requires_grad", False):
        raise ValueError("out: expected a tensor that does not require grad, got one that does")


def check_mask_batch(tensor: Any, argument: str) -> None:
    """A stack of masks (N, H, W) would be taken for the channels of one."""
    if tensor.ndim == 3 and len(tensor) != 1:
        raise ValueError(
            f"{argument}: expected (H, W), (1, H, W) or (N, 1, H, W) beside a batch, got shape {tuple(tensor.shape)}"
        )


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
    check_pixels(picture.pixels.shape, argument)
    return picture


def check_pixels(shape: tuple[int, ...], argument: str) -> None:
    """Refuse a batch (N, H, W, C) without a pixel, and one of images over :func:`max_pixels`.

    Raises
    ------
    ValueError
        Naming `argument`.
    """
    if min(shape) == 0:
        raise ValueError(f"{argument}: expected at least 1 x 1 pixels, got {shape[1]} x {shape[2]}")
    check_size(shape[1], shape[2], argument)


def check_size(height: int, width: int, argument: str) -> None:
    """Refuse an image over :func:`max_pixels`.

    Raises
    ------
    ValueError
        Naming `argument`.
    """
    limit = max_pixels()
    if height * width > limit:
        raise ValueError(f"{argument}: expected at most {limit} pixels (gpgan.set_max_pixels), got {height} x {width}")


def _from_numpy(array: npt.NDArray[Any], argument: str) -> Picture:
    if array.ndim == 2:
        return Picture(array[None, :, :, None], lambda pixels: pixels[0, :, :, 0], "numpy")
    if array.ndim == 3 and 1 <= array.shape[2] <= 4:
        return Picture(array[None], lambda pixels: pixels[0], "numpy")
    raise ValueError(f"{argument}: expected an array (H, W) or (H, W, C) of 1 to 4 channels, got shape {array.shape}")


def check_tensor(tensor: Any, argument: str) -> None:
    """Dense, and of a shape that images have?"""
    if tensor.layout != sys.modules["torch"].strided:
        raise TypeError(f"{argument}: expected a dense tensor, got layout {tensor.layout}")
    if tensor.ndim not in (2, 3, 4) or (tensor.ndim > 2 and not 1 <= tensor.shape[-3] <= 4):
        raise ValueError(
            f"{argument}: expected a tensor (H, W), (C, H, W) or (N, C, H, W) of 1 to 4 channels, "
            f"got shape {tuple(tensor.shape)}"
        )


def _from_torch(tensor: Any, argument: str) -> Picture:
    place = place_of(tensor)
    if place != "cpu":
        raise ValueError(f"{argument}: expected a tensor in CPU memory like the target, got one on {place}")
    check_tensor(tensor, argument)
    try:
        array = tensor.detach().resolve_neg().numpy()
    except (RuntimeError, TypeError):
        raise TypeError(f"{argument}: expected {IMAGE_DTYPES}, got {tensor.dtype}") from None
    pixels = array[(None,) * (4 - array.ndim)].transpose(0, 2, 3, 1)

    return Picture(pixels, lambda _: tensor, "torch", tensor)


def _from_pil(picture: Any, argument: str) -> Picture:
    pil = sys.modules["PIL.Image"]
    mode, info = picture.mode, dict(picture.info)
    check_size(picture.height, picture.width, argument)  # before anything is decoded
    try:
        picture.load()
    except OSError as error:
        raise ValueError(f"{argument}: expected an image that can be read, got a damaged file: {error}") from error
    if argument != "target":
        if mode in ("P", "PA"):
            picture = picture.convert("RGBA" if mode == "PA" or "transparency" in info else "RGB")
        elif mode in ("L", "RGB") and "transparency" in info:  # one colour that stands for alpha 0
            picture = picture.convert("LA" if mode == "L" else "RGBA")
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
