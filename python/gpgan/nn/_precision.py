"""Convolutions and linear layers in bfloat16, where the processor is faster in it; all else in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["layers_in", "resolve"]

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """The dtype that ``TrainConfig.precision`` means on `device`."""
    if precision == "auto":
        precision = "bfloat16" if _computes_in_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


def layers_in(dtype: torch.dtype, network: nn.Module) -> None:
    """Let the layers of `network` that multiply matrices do so in `dtype`, from float32 and back to it.

    Weights, their gradients and their names stay as they are. Autocast around the whole network would also take the
    colour corrector's regression, whose normal equations need all the digits of float32.
    """
    if dtype == torch.float32:
        return
    for layer in network.modules():
        if isinstance(layer, _LAYERS):
            layer.forward = partial(_cast, layer.forward, dtype)  # type: ignore[method-assign]


def _cast(forward: Callable[[Tensor], Tensor], dtype: torch.dtype, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, dtype):
        return forward(x).float()
