"""Networks, training pairs, training and export of generators: the only part of gpgan that imports torch.

Import what you need: ``gpgan.nn.model``, ``gpgan.nn.data``, ``gpgan.nn.config``, ``gpgan.nn.train``,
``gpgan.nn.export``. ``data`` and ``train`` need the extra ``gpgan[train]``, the others torch alone, ``config`` nothing.
The realism score's network is in ``gpgan.nn.realism``, its training in ``gpgan.nn.realism_train``; what converts the
published one is in ``gpgan.nn.caffe``.
"""

import importlib
from types import ModuleType

__all__ = ["caffe", "config", "data", "export", "model", "realism", "realism_train", "train"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"gpgan.nn.{name}")
    raise AttributeError(f"module 'gpgan.nn' has no attribute {name!r}")
