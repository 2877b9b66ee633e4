"""Several processes that train one network: ``torchrun --nproc-per-node 2 -m gpgan train ...``.

Every process takes its share of each batch, and gradients are averaged, so that all hold the same weights; what one
process would do with whole batches. The first one alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Processes", "join"]

# The others wait while the first one computes the pool.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """This process among the others.

    Parameters
    ----------
    rank, count : int
        Which one of how many.
    device : torch.device
        What this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The samples of a batch that are this process's own."""
        if batch_size % self.count:
            raise ValueError(f"batch_size must be a multiple of the {self.count} processes, but is {batch_size}")
        own = batch_size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def parallel(self, module: nn.Module) -> nn.Module:
        """A view of `module` whose backward pass averages the gradients over the processes.

        Batch norm sees each process's share; on GPUs, where it can, it is made to see the whole batch.
        """
        if self.count == 1:
            return module
        if self.device.type != "cuda":
            return DistributedDataParallel(module)
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(module, device_ids=[self.device.index])

    def mean(self, value: Tensor) -> float:
        """The mean of one number over the processes; all must ask."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value.item() / self.count

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            options: dict[str, Any] = {"device_ids": [self.device.index]} if self.device.type == "cuda" else {}
            dist.barrier(**options)


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, over gloo on CPUs and NCCL on GPUs; without torchrun this one alone."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be cpu where torch finds no GPU, but is {device!r}")
    count = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if count == 1:
        yield Processes(0, 1, torch.device(device))
        return
    own = torch.device(device)
    if own.type == "cuda":
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        processes = Processes(dist.get_rank(), dist.get_world_size(), own)
        yield processes
        processes.wait()  # the first one may still be writing
    finally:
        dist.destroy_process_group()
