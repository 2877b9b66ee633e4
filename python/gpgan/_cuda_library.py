"""The CUDA backend ``gpgan._cuda``, which is loaded when it is first needed, and why it is not there if it is not.

The module is linked with cuFFT, which it looks for where pip puts it beside gpgan. That fails where gpgan is installed
apart from it, in an editable installation for one: then the library is loaded ahead of it, from wherever Python finds
NVIDIA's packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_MODULE = "gpgan._cuda"
# Of CUDA 13 and of CUDA 12: the folders of NVIDIA's packages that have it, and what pip calls them.
_FOLDERS = ("cu13/lib", "cufft/lib")
_PACKAGES = {"libcufft.so.12": "nvidia-cufft", "libcufft.so.11": "nvidia-cufft-cu12"}


def load() -> ModuleType:
    """The module ``gpgan._cuda``.

    Raises
    ------
    ImportError
        If there is none, or it cannot be loaded: its message is the reason. That there is a device it does not say.
    """
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name != _MODULE:
            raise
        raise ImportError("this build of gpgan has no CUDA backend") from None
    except ImportError as error:
        missing = re.match(r"(libcufft\.so\.\d+): cannot open shared object file", str(error))
        if missing is None:
            raise ImportError(f"the CUDA backend cannot be loaded: {error}") from error
    _preload(missing[1])
    try:
        return importlib.import_module(_MODULE)
    except ImportError as error:
        raise ImportError(f"the CUDA backend cannot be loaded: {error}") from error


def status() -> tuple[bool, str]:
    """Whether there is a CUDA device to compute on, and its name or the reason why not.

    Returns
    -------
    bool
        Whether the module can be loaded and finds a device.
    str
        Such as "NVIDIA H100 (cuFFT 12.0.0)", or "no CUDA device: " and what CUDA's runtime says.
    """
    try:
        module = load()
    except ImportError as error:
        return False, str(error)
    try:
        names = [module.device_name(index) for index in range(module.device_count())]
    except RuntimeError as error:
        return False, f"no CUDA device: {error}"
    if not names:
        return False, "no CUDA device: the runtime finds none"
    return True, f"{', '.join(names)} (cuFFT {module.cufft_version()})"


def _preload(library: str) -> None:
    """Load a library of this name, so that whatever needs one gets it."""
    import ctypes  # rarely needed, and takes its time

    reason = f"cuFFT ({library}) was not found: pip install {_PACKAGES.get(library, 'nvidia-cufft')}"
    for path in _copies(library):
        try:
            ctypes.CDLL(os.fspath(path), mode=ctypes.RTLD_GLOBAL)
            return
        except OSError as error:
            reason = f"cuFFT cannot be loaded: {error}"
    raise ImportError(reason)


def _copies(library: str) -> Iterator[Path]:
    """A library of this name in NVIDIA's packages and in the CUDA toolkit, the best first."""
    # A namespace: each package brings a part of the folder, not always to the same place.
    spec = importlib.util.find_spec("nvidia")
    folders = [
        Path(place) / folder for place in (spec and spec.submodule_search_locations) or () for folder in _FOLDERS
    ]
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders += [Path(toolkit) / "lib64" for toolkit in toolkits if toolkit]
    for folder in folders:
        if (folder / library).is_file():
            yield folder / library
