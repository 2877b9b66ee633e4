"""What :mod:`gpgan._arrays` does, for a blend on a CUDA device: tensors in its memory, which nobody reads back.

Values that only the device sees are checked there: what can be no mask becomes NaN, and the core reports what is no
number in [0, 1] later.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from gpgan import _arrays, _cuda_device
from gpgan._arrays import Picture
from gpgan._cuda_device import Tensor, place_of

#: An image of the device's memory as the module's Blender takes it.
Described = tuple[int, str, tuple[int, ...], tuple[int, ...]]

_IMAGE_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
_MASK_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint32", "uint64", *_IMAGE_DTYPES)


@dataclass(frozen=True)
class DevicePicture(Picture):
    """Its pixels are a tensor (N, H, W, C) on the device.

    Attributes
    ----------
    host : Picture or None
        What it is a copy of, where the caller's memory is the host's.
    """

    host: Picture | None = None


@dataclass(frozen=True)
class CudaArrays:
    """The functions of :mod:`gpgan._arrays` for one blend.

    Attributes
    ----------
    place : str
        The device.
    home : str
        Where all arguments have to be: "cpu", from where they are copied, or the device itself.
    """

    place: str
    home: str

    def image(self, value: Any, argument: str) -> DevicePicture:
        self._check_home(value, argument)
        if self.home == "cpu":
            host = _arrays.image(value, argument)
            pixels = _cuda_device.cuda.upload(_arrays.core_readable(host.pixels), self.place)
            return DevicePicture(pixels, host.restore, host.kind, host=host)
        picture = self._unpack(value, argument)
        if dtype_name(picture.pixels) not in _IMAGE_DTYPES:
            raise TypeError(f"{argument}: expected {_arrays.IMAGE_DTYPES}, got {value.dtype}")
        return picture

    def mask(self, value: Any, argument: str = "mask", *, batched: bool = False) -> Tensor:
        """As (N, H, W)."""
        self._check_home(value, argument)
        if self.home == "cpu":
            return _cuda_device.cuda.upload(_arrays.mask(value, argument, batched=batched), self.place)
        if batched:
            _arrays.check_mask_batch(value, argument)
        picture = self._unpack(value, argument)
        pixels = picture.pixels
        if dtype_name(pixels) not in _MASK_DTYPES:
            raise TypeError(f"{argument}: expected bool, integers or {_arrays.IMAGE_DTYPES}, got {value.dtype}")
        if picture.has_alpha:
            alpha, colors = pixels[..., -1], _comparable(pixels[..., :-1])
            steady = (_comparable(alpha) == _comparable(alpha[:1, :1, :1])).all() & (_weights(alpha)[:1, :1, :1] > 0)
            return _nan_where(steady & (colors != colors[:1, :1, :1]).any(), _weights(alpha))
        if picture.colors == 3:
            colors = _comparable(pixels)
            return _nan_where((colors != colors[..., :1]).any(), _weights(pixels[..., 0]))
        pixels = pixels[..., 0]
        return self.core_readable(pixels) if dtype_name(pixels) in ("bool", "uint8") else _weights(pixels)

    def output(self, target: DevicePicture, out: Any) -> DevicePicture:
        torch = sys.modules["torch"]
        if target.host is not None:
            if out is not None:
                self._check_home(out, "out")
            host = _arrays.output(target.host, out)
            fresh = torch.empty_like(target.pixels)

            def restore(pixels: Tensor) -> Any:
                _cuda_device.cuda.download(pixels, host.pixels)
                return host.restore(host.pixels)

            return DevicePicture(fresh, restore, host.kind, host=host)
        if out is None:
            out = torch.empty_like(target.tensor, requires_grad=False)
        self._check_home(out, "out")
        _arrays.check_writable_tensor(out)
        given = self._unpack(out, "out")
        _arrays.check_like_target(given.pixels, target.pixels)
        pixels: Tensor = given.pixels
        if any(n > 1 and stride == 0 for n, stride in zip(pixels.shape, pixels.stride(), strict=True)):
            raise ValueError("out: expected memory of its own for every pixel, got an expanded tensor (a stride of 0)")
        return DevicePicture(pixels, lambda _: out, given.kind, out)

    @staticmethod
    def core_readable(pixels: Tensor) -> Tensor:
        """The pixels in a dtype that the core reads: themselves, or a float32 copy."""
        name = dtype_name(pixels)
        if name == "bool":
            return pixels.view(sys.modules["torch"].uint8)
        return pixels.float() if name == "float16" else pixels

    @staticmethod
    def apart(pixels: Tensor, out: Tensor) -> Tensor:
        """The pixels, or a copy of them where writing `out` could change what is still to be read."""
        (begin, end), (out_begin, out_end) = _span(pixels), _span(out)
        return pixels.clone() if begin < out_end and out_begin < end else pixels

    @staticmethod
    def are_same(pixels: Tensor, out: Tensor) -> bool:
        return bool(pixels.data_ptr() == out.data_ptr() and pixels.stride() == out.stride())

    def _check_home(self, value: Any, argument: str) -> None:
        place = place_of(value)
        if place != self.home:
            raise ValueError(
                f"{argument}: expected a tensor on {self.home} like the target, got "
                + (f"one on {place}" if place != "cpu" else "an image in CPU memory")
            )

    def _unpack(self, tensor: Tensor, argument: str) -> DevicePicture:
        _arrays.check_tensor(tensor, argument)
        pixels = tensor.detach().resolve_neg()
        pixels = pixels[(None,) * (4 - pixels.ndim)].permute(0, 2, 3, 1)
        _arrays.check_pixels(pixels.shape, argument)
        return DevicePicture(pixels, lambda _: tensor, "torch", tensor)


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def describe(pixels: Tensor, count: int) -> Described:
    """Images (N, H, W, C) of a dtype that the core reads; one image is repeated `count` times."""
    pixels = pixels.expand(count, -1, -1, -1)
    size = pixels.element_size()
    return pixels.data_ptr(), dtype_name(pixels), tuple(pixels.shape), tuple(size * n for n in pixels.stride())


def _weights(pixels: Tensor) -> Tensor:
    """A mask of any dtype as float32 in [0, 1], by the rules of :func:`gpgan._arrays.mask`."""
    torch = sys.modules["torch"]
    name = dtype_name(pixels)
    if name.startswith("float"):
        return CudaArrays.core_readable(pixels)
    if name == "bool":
        return pixels.float()
    full = torch.iinfo(pixels.dtype).max
    values = pixels.double()
    high = values.amax()
    # 255 of 65535: surely a mask of 0..255 whose dtype grew on the way, and not one that is empty to the eye.
    small = (high > 1) & (((high <= 0xFF) & (full > 0xFF)) | ((high <= 0xFFFF) & (full > 0xFFFF)))
    # A negative one stays below 0, however large its scale.
    wrong = small | (values.amin() < 0)
    return _nan_where(wrong, (values / torch.where(high > 1, float(full), 1.0)).float())


def _nan_where(wrong: Tensor, weights: Tensor) -> Tensor:
    return weights.masked_fill(wrong, float("nan"))


def _comparable(pixels: Tensor) -> Tensor:
    """In a dtype that torch compares on every device."""
    return pixels.double() if dtype_name(pixels).startswith(("uint", "int", "bool")) else pixels


def _span(pixels: Tensor) -> tuple[int, int]:
    """The addresses from the first byte to behind the last."""
    last = sum((n - 1) * stride for n, stride in zip(pixels.shape, pixels.stride(), strict=True))
    begin = int(pixels.data_ptr())
    return begin, begin + (int(last) + 1) * int(pixels.element_size())
