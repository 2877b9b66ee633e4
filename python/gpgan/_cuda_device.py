"""CUDA as this package uses it: the module, and what torch knows of devices, streams and their memory.

All of it is in one class, so that tests can run everything above it where there is no device.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan import _cuda_library

Tensor = Any  # torch.Tensor: torch is not imported before somebody needs it


class TorchCuda:
    """Devices go by torch's names, "cuda:0" and so on."""

    def __init__(self) -> None:
        self._count = 0

    def module(self) -> ModuleType:
        """``gpgan._cuda``."""
        return _cuda_library.load()

    def why_not(self) -> str:
        """Why there is no device to compute on; "" if there is one."""
        if self._count == 0:
            available, reason = _cuda_library.status()
            if not available:
                return reason
            import torch

            if not torch.cuda.is_available():
                return f"torch {torch.__version__} sees no CUDA device; install one that is built for CUDA"
            self._count = self.module().device_count()
        return ""

    def count(self) -> int:
        """How many devices there are, once :meth:`why_not` has said "" for the first time."""
        return self._count

    def current(self) -> str:
        import torch

        return f"cuda:{torch.cuda.current_device()}"

    def place_of(self, tensor: Tensor) -> str:
        """Where a tensor's memory is: "cpu", "cuda:0" or another name of torch's."""
        return str(tensor.device)

    def stream(self, place: str) -> int:
        """The cudaStream_t on which torch's next work on that device goes."""
        import torch

        return int(torch.cuda.current_stream(place).cuda_stream)

    def release_memory(self) -> None:
        """Give back to the devices what torch keeps for its next tensors."""
        import torch

        torch.cuda.empty_cache()

    def upload(self, array: npt.NDArray[Any], place: str) -> Tensor:
        """A copy on a device, after which the array may change."""
        import torch

        return torch.from_numpy(np.asarray(_Writable(np.ascontiguousarray(array)))).to(place)

    def download(self, tensor: Tensor, out: npt.NDArray[Any]) -> None:
        """Copy a tensor into an array of its shape; its dtype is converted as NumPy does."""
        import torch

        try:
            there = torch.from_numpy(out)
        except (TypeError, ValueError):  # another byte order, or strides below 0
            out[...] = tensor.cpu().numpy()
        else:
            there.copy_(tensor)

    def wrap(self, owner: Any, address: int, shape: tuple[int, ...], place: str, stream: int) -> Tensor:
        """A tensor over float32 memory of a device, without a copy; `owner` lives as long as the tensor."""
        import torch

        return torch.as_tensor(_Memory(owner, address, shape, stream), device=place)


class _Writable:
    """An array that torch does not warn of; nobody here writes to it."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


class _Memory:
    """https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html"""

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...], stream: int) -> None:
        self._owner = owner
        self.__cuda_array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": "<f4",
            "strides": None,
            "stream": stream or 1,  # 0 is not allowed, 1 is the default stream
        }


#: What everybody asks.
cuda: TorchCuda = TorchCuda()


def place_of(value: Any) -> str:
    """Where an argument's memory is; "cpu" for all that is no tensor."""
    torch = sys.modules.get("torch")
    return cuda.place_of(value) if torch is not None and isinstance(value, torch.Tensor) else "cpu"


def check_option(device: Any) -> str:
    """The `device` of a blend as "auto", "cpu", "cuda" or "cuda:1"; whether it is there is not asked.

    Raises
    ------
    TypeError, ValueError
        If it is none of them.
    """
    torch = sys.modules.get("torch")
    name = str(device) if torch is not None and isinstance(device, torch.device) else device
    if not isinstance(name, str):
        raise TypeError(f"device: expected str, got {type(device).__name__} ({device!r})")
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d{0,3}))?", name):
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:' and a number, got {device!r}")
    return name


def resolve(option: str) -> str:
    """The place to compute for arguments in the host's memory.

    Raises
    ------
    ValueError
        If there is no such device, with the reason.
    """
    if option in ("auto", "cpu"):
        return "cpu"
    if reason := cuda.why_not():
        raise ValueError(f"device: expected 'auto' or 'cpu', as CUDA cannot be used ({reason}), got {option!r}")
    if option == "cuda":
        return cuda.current()
    if int(option.removeprefix("cuda:")) >= cuda.count():
        raise ValueError(f"device: expected a number below {cuda.count()}, that of CUDA devices, got {option!r}")
    return option


def place_for(option: str, target: Any) -> str:
    """The place to compute for this target.

    Raises
    ------
    ValueError
        If there is no such device, or the target lies on another one.
    """
    place = place_of(target)
    if place == "cpu":
        return resolve(option)
    if not place.startswith("cuda"):
        raise ValueError(f"target: expected a tensor in CPU or CUDA memory, got one on {place}")
    if option not in ("auto", "cuda", place):
        raise ValueError(f"target: expected a tensor on {option}, as `device` says, got one on {place}")
    if reason := cuda.why_not():
        raise ValueError(
            f"target: expected a tensor in CPU memory, as CUDA cannot be used ({reason}), got one on {place}"
        )
    return place
