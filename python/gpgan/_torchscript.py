"""TorchScript, the format of generator files, which C++ programs load; torch deprecates it from 2.13 on."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()


@contextmanager
def undeprecated() -> Iterator[None]:
    """Calls of `torch.jit` without that warning, of which a caller who blends knows nothing.

    Where warnings are errors it would stop the call. The warnings' filters are the process's: one thread at a time.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield
