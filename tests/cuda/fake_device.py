"""A CUDA device that is none: the emulated module, and tensors of the host's memory that claim to lie elsewhere."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np
import torch

from gpgan._cuda_device import TorchCuda

#: What would make the host wait for the device.
READS = {
    getattr(torch.Tensor, name)
    for name in (
        "__array__", "__bool__", "__float__", "__index__", "__int__", "__contains__", "cpu", "is_nonzero", "item",
        "nonzero", "numpy", "tolist",
    )
}  # fmt: skip


class Foreign(torch.Tensor):
    """Refuses to be read back, and to be mixed with tensors of the host or of another device."""

    place: ClassVar[str]

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        assert func not in READS, f"{func.__name__} reads back from the device"
        with torch._C.DisableTorchFunctionSubclass():
            flat = torch.utils._pytree.tree_leaves((args, kwargs))
            kinds = {type(x) for x in flat if isinstance(x, torch.Tensor) and x.ndim > 0} - {torch.nn.Parameter}
        assert len(kinds) <= 1, f"{func.__name__} mixes devices: {kinds}"
        return super().__torch_function__(func, types, args, kwargs or {})


class On0(Foreign):
    place = "cuda:0"


class On1(Foreign):
    place = "cuda:1"


KINDS = {kind.place: kind for kind in (On0, On1)}


class FakeCuda(TorchCuda):
    """All of :class:`TorchCuda` that a device would be needed for."""

    def __init__(self, module: Any, emulation: Any) -> None:
        super().__init__()
        self._module, self._emulation = module, emulation
        self.streams = dict.fromkeys(KINDS, 0)  # torch's current ones
        self.releases = 0

    def module(self):
        return self._module

    def why_not(self):
        return ""

    def count(self):
        return self._module.device_count()

    def current(self):
        return f"cuda:{self._emulation.current_device()}"

    def place_of(self, tensor):
        return getattr(type(tensor), "place", "cpu")

    def stream(self, place):
        return self.streams[place]

    def release_memory(self):
        self.releases += 1

    def upload(self, array, place):
        return torch.from_numpy(np.array(array, order="C")).as_subclass(KINDS[place])

    def download(self, tensor, out):
        out[...] = self.array(tensor)

    def wrap(self, owner, address, shape, place, stream):
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(address)
        return torch.from_numpy(np.frombuffer(memory, np.float32).reshape(shape)).as_subclass(KINDS[place])

    # --- for tests

    def tensor(self, values: Any, place: str = "cuda:0") -> Any:
        """A copy on a device, with the strides of the array or tensor."""
        plain = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
        there = torch.empty_strided(plain.shape, plain.stride(), dtype=plain.dtype).copy_(plain)
        return there.as_subclass(KINDS[place])

    def array(self, tensor: Any) -> np.ndarray:
        with torch._C.DisableTorchFunctionSubclass():
            return tensor.detach().as_subclass(torch.Tensor).numpy().copy()


class RealCuda(TorchCuda):
    """The same for a device that is one."""

    def tensor(self, values: Any, place: str = "cuda:0") -> Any:
        plain = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
        there = torch.empty_strided(plain.shape, plain.stride(), dtype=plain.dtype, device=place)
        return there.copy_(plain)

    def array(self, tensor: Any) -> np.ndarray:
        return tensor.detach().cpu().numpy().copy()
