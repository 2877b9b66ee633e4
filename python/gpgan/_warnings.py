"""Warnings that are kept from callers. The filters are the process's, so that one thread at a time may change them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOCK = threading.RLock()


@contextmanager
def undeprecated() -> Iterator[None]:
    """Calls of `torch.jit` without the warning that TorchScript is deprecated, as torch says from 2.13 on.

    It is the format of generator files, which C++ programs load. A caller who blends can do nothing about it, and where
    warnings are errors it would stop the call.
    """
    with LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield
