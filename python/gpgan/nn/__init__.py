"""Networks, training pairs, training and export of generators: the only part of gpgan that imports torch.

Import what you need: ``gpgan.nn.model``, ``gpgan.nn.data``, ``gpgan.nn.config``, ``gpgan.nn.train``,
``gpgan.nn.export``. ``data`` and ``train`` need the extra ``gpgan[train]``, the others torch alone, ``config`` nothing.
"""

import importlib
from types import ModuleType

__all__ = ["config", "data", "export", "model", "train"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"gpgan.nn.{name}")
    raise AttributeError(f"module 'gpgan.nn' has no attribute {name!r}")
