"""TorchScript files of generators: writing them, checking them, loading them back.

A file holds the scripted module and, as the extra file ``gpgan.json``, a JSON object with ``image_size`` (S),
``architecture``, ``version`` (of the contract, 1) and ``training_data``; further keys are free.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CONTRACT_VERSION", "METADATA_FILE", "export", "load"]

CONTRACT_VERSION = 1
METADATA_FILE = "gpgan.json"
_REQUIRED: dict[str, type] = {"image_size": int, "architecture": str, "version": int, "training_data": str}
_LARGEST = 1024


def export(
    generator: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: int,
    architecture: str,
    training_data: str,
    extras: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> Path:
    """Script `generator`, check that the file gives what the module gives, and write it atomically.

    The module is scripted as it is, neither frozen nor optimised for inference: such a file cannot always be
    loaded back.

    Parameters
    ----------
    generator : nn.Module
        Follows the contract of `gpgan.nn.model`; exported in evaluation mode, from the CPU.
    path : path
    image_size : int
        S.
    architecture, training_data : str
        For the file's metadata.
    extras : mapping, optional
        Further metadata, JSON-serialisable.
    tolerance : float
        Largest difference allowed between the module and the file read back.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the module breaks the contract, or the file does not reproduce it.
    """
    metadata = {
        "image_size": image_size, "architecture": architecture, "version": CONTRACT_VERSION,
        "training_data": training_data,
    } | dict(extras or {})  # fmt: skip
    _check_metadata(metadata, "the metadata")
    was_training = generator.training
    generator.eval()
    try:
        scripted = torch.jit.script(generator)
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer, _extra_files={METADATA_FILE: json.dumps(metadata, indent=1)})
        reloaded = torch.jit.load(io.BytesIO(buffer.getvalue()))  # type: ignore[no-untyped-call]
        inputs = _probe(image_size)
        with torch.inference_mode():
            expected = generator(*inputs)
            _check_output(expected, image_size, "the generator")
            for name, module in (("scripted module", scripted), ("file", reloaded)):
                difference = (module(*inputs) - expected).abs().max().item()
                if not difference <= tolerance:
                    raise ValueError(f"the {name} differs by {difference:.3g} from the generator, over {tolerance:g}")
    finally:
        generator.train(was_training)

    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
    return part.replace(path)


def load(
    path: str | os.PathLike[str], *, device: torch.device | str = "cpu", max_bytes: int = 512 * 2**20
) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """Load a generator and make sure that it is one: valid metadata, and one run on S x S images as promised.

    Parameters
    ----------
    path : path
        A file written by `export`.
    device : torch.device or str
    max_bytes : int
        Refuse larger files.

    Returns
    -------
    module : torch.jit.ScriptModule
        In evaluation mode.
    metadata : dict
        ``image_size``, ``architecture``, ``version``, ``training_data`` and whatever else the file says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is too large, no TorchScript, without valid metadata, or breaks the contract.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no generator file at {name!r}")
    size = Path(path).stat().st_size
    if size > max_bytes:
        raise ValueError(f"{name!r} has {size} bytes, over max_bytes = {max_bytes}")
    if not _is_torchscript(name):
        raise ValueError(f"{name!r} is no TorchScript file: expected one written by gpgan.nn.export.export")
    files: dict[str, Any] = {METADATA_FILE: ""}
    try:
        module = torch.jit.load(name, map_location=device, _extra_files=files)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name!r} is a damaged TorchScript file: {str(error).splitlines()[0]}") from error
    if not files[METADATA_FILE]:
        raise ValueError(f"{name!r} has no {METADATA_FILE}: expected a generator written by gpgan.nn.export.export")
    try:
        metadata = json.loads(files[METADATA_FILE])
    except ValueError as error:
        raise ValueError(f"{METADATA_FILE} of {name!r} is no JSON: {error}") from error
    _check_metadata(metadata, f"{METADATA_FILE} of {name!r}")

    module.eval()
    try:
        with torch.inference_mode():
            output = module(*(x.to(device) for x in _probe(metadata["image_size"])))
    except RuntimeError as error:
        raise ValueError(
            f"{name!r} does not run on four {metadata['image_size']} x {metadata['image_size']} images as its"
            f" metadata promise: {str(error).strip().splitlines()[-1]}"
        ) from error
    _check_output(output, metadata["image_size"], repr(name))
    return module, metadata


def _is_torchscript(name: str) -> bool:
    """A zip archive with ``<root>/constants.pkl`` and code: state dicts and pickled modules have no code."""
    try:
        with zipfile.ZipFile(name) as archive:
            inside = {member.partition("/")[2] for member in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return False
    return "constants.pkl" in inside and any(member.startswith("code/") for member in inside)


def _check_metadata(metadata: Any, what: str) -> None:
    if not isinstance(metadata, dict):
        raise ValueError(f"{what}: expected a JSON object, got {type(metadata).__name__}")
    for key, kind in _REQUIRED.items():
        value = metadata.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{what}: expected {key} of type {kind.__name__}, got {value!r}")
    if metadata["version"] != CONTRACT_VERSION:
        raise ValueError(f"{what}: expected version {CONTRACT_VERSION}, got {metadata['version']}")
    if not 1 <= metadata["image_size"] <= _LARGEST:
        raise ValueError(f"{what}: expected image_size in 1..{_LARGEST}, got {metadata['image_size']}")


def _probe(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four contract inputs (one sample) that look like something: noise under a centred square."""
    random = torch.Generator().manual_seed(0)
    source, target, harmonized = (torch.rand(1, 3, size, size, generator=random) for _ in range(3))
    mask = torch.zeros(1, 1, size, size)
    mask[:, :, size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    return target + mask * (source - target), mask, target + mask * (harmonized - target), source


def _check_output(output: Any, size: int, what: str) -> None:
    expected = (1, 3, size, size)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{what}: expected an output of shape {expected}, got {came}")
    if not bool(torch.isfinite(output).all()):
        raise ValueError(f"{what}: expected finite colours, got NaN or infinity")
    low, high = float(output.min()), float(output.max())
    if low < 0 or high > 1:
        raise ValueError(f"{what}: expected colours in [0, 1], got [{low:.4g}, {high:.4g}]")
