"""Make a pasted photo look like one photograph: Gaussian-Poisson GAN image blending.

``gpgan.blend(source, target, mask)`` is the whole method; :class:`Blender` plans it once for many images of one size;
``gpgan.ops`` has its single operations, ``gpgan.reference`` the same in float64 NumPy, ``gpgan.nn`` the networks and
their training. :func:`seamless_clone` is OpenCV's call, ``gpgan.baselines`` has the methods to compare with,
``gpgan.metrics`` what to measure by, ``gpgan.evaluation`` the comparison itself and ``gpgan.study`` the one by people's
eyes.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from gpgan import _core, ops
from gpgan._arrays import max_pixels, set_max_pixels
from gpgan._generator import Generator, generators, load_generator
from gpgan._seamless_clone import CloneFlag, seamless_clone
from gpgan.blender import Blender, blend, clear_cache

__version__: str = _core.version()
__all__ = [
    "Blender",
    "CloneFlag",
    "Generator",
    "__version__",
    "baselines",
    "blend",
    "clear_cache",
    "cmake_prefix",
    "evaluation",
    "generators",
    "load_generator",
    "max_pixels",
    "metrics",
    "nn",
    "ops",
    "reference",
    "seamless_clone",
    "set_max_pixels",
    "study",
]

# Loaded when they are first asked for: SciPy, torch and Flask are slow to import.
_LAZY = ("baselines", "evaluation", "metrics", "nn", "reference", "study")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"gpgan.{name}")
    raise AttributeError(f"module 'gpgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def cmake_prefix() -> str:
    """Where ``find_package(gpgan)`` finds the C++ library that this package holds.

    Pass it to CMake: ``-Dgpgan_ROOT=$(python -c "import gpgan; print(gpgan.cmake_prefix())")``.

    Returns
    -------
    str
        A folder with ``include/``, ``lib/`` and ``lib/cmake/gpgan/``.

    Raises
    ------
    FileNotFoundError
        If this installation carries no C++ library.
    """
    # An editable installation keeps the built files apart from the sources; the extension lies with the former.
    roots = [*map(Path, __path__), Path(_core.__file__ or "").parent]
    for root in roots:
        if (root / "lib" / "cmake" / "gpgan" / "gpgan-config.cmake").is_file():
            return str(root)
    raise FileNotFoundError(f"no C++ library of gpgan in {', '.join(map(str, roots))}")
