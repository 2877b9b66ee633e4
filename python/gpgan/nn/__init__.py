"""Networks, training pairs, training and export of generators: the only part of gpgan that imports torch.

Import what you need: ``gpgan.nn.model``, ``gpgan.nn.data``, ``gpgan.nn.train``, ``gpgan.nn.export``. The
first and the last need torch alone, the other two the extra ``gpgan[train]``.
"""

import importlib
from types import ModuleType

__all__ = ["data", "export", "model", "train"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"gpgan.nn.{name}")
    raise AttributeError(f"module 'gpgan.nn' has no attribute {name!r}")
