"""Files of generators: writing them, checking them, loading them back.

A TorchScript file holds the scripted module and, as the extra file ``gpgan.json``, a JSON object with ``image_size``
(S), ``architecture``, ``version`` (of the contract, 1) and ``training_data``; further keys are free. An ONNX file has
the same keys among its metadata properties.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpgan import _files
from gpgan._warnings import LOCK, undeprecated
from gpgan.nn.model import BlendingGAN, ColorCorrector

__all__ = [
    "CONTRACT_VERSION",
    "INPUTS",
    "METADATA_FILE",
    "OPSET",
    "OUTPUT",
    "export",
    "export_onnx",
    "export_run",
    "load",
]

CONTRACT_VERSION = 1
METADATA_FILE = "gpgan.json"
#: Names in an ONNX file.
INPUTS = ("composite", "mask", "harmonized", "source")
OUTPUT = "colour"
#: The ONNX operator set that every supported torch can write.
OPSET = 17
_OPSETS = range(13, 21)
_REQUIRED: dict[str, type] = {"image_size": int, "architecture": str, "version": int, "training_data": str}
_LARGEST = 1024
_LARGEST_METADATA = 2**20


def export(
    generator: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: int,
    architecture: str,
    training_data: str,
    extras: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
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
        Largest difference allowed between the module and the file read back. Scripted, `ColorCorrector` computes the
        same by other operators, and its regression enlarges their rounding, to some 1e-6.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the module breaks the contract, or the file does not reproduce it.
    """
    metadata = _metadata(image_size, architecture, training_data, extras)
    _check_image_size(generator, image_size, "the generator")
    with _evaluated(generator):
        buffer = io.BytesIO()
        with undeprecated():
            scripted = torch.jit.script(generator)
            torch.jit.save(scripted, buffer, _extra_files={METADATA_FILE: json.dumps(metadata, indent=1)})
            content = _without_paths(buffer)
            reloaded = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
        inputs = _probe(image_size)
        with torch.inference_mode():
            expected = generator(*inputs)
            _check_output(expected, inputs, "the generator")
            for name, module in (("scripted module", scripted), ("file", reloaded)):
                _check_same(module(*inputs), expected, tolerance, name)
    return _write(Path(path), content)


def export_onnx(
    generator: nn.Module | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    architecture: str | None = None,
    training_data: str | None = None,
    extras: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    tolerance: float = 1e-4,
) -> Path:
    """Write a generator as ONNX, once onnxruntime has given what the generator gives; needs gpgan's extra ``onnx``.

    Inputs and output, float32, are called ``composite``, ``mask``, ``harmonized``, ``source`` and ``colour``, and have
    the shapes of the contract; the batch axis is dynamic. The file is written atomically.

    Parameters
    ----------
    generator : nn.Module or path
        As for `export`; or a file that `export` wrote of one of the networks in `gpgan.nn.model`, whose metadata are
        taken over.
    path : path
    image_size, architecture, training_data, extras
        As for `export`; for modules only.
    opset : int
        ONNX operator set, 13 to 20. The oldest supported torch writes up to 17.
    tolerance : float
        Largest difference allowed between the generator and the file. 1e-4 is a fortieth of an 8-bit level: the
        regression in `ColorCorrector` turns the rounding of float32 into up to 3e-5 between two runtimes.

    Returns
    -------
    Path

    Raises
    ------
    ImportError
        Without onnx and onnxruntime.
    TypeError
        For a scripted module: its loops have no counterpart in ONNX. Give its file.
    ValueError
        If the module breaks the contract, ONNX cannot express it, or the file does not reproduce it.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxruntime: pip install 'gpgan[onnx]'") from error
    if not isinstance(opset, int) or opset not in _OPSETS:
        raise ValueError(f"opset: expected {_OPSETS[0]} to {_OPSETS[-1]}, got {opset!r}")
    reference: nn.Module
    if isinstance(generator, torch.jit.ScriptModule):
        raise TypeError("generator: expected an nn.Module that is not scripted, or the file of one, got a ScriptModule")
    if isinstance(generator, nn.Module):
        reference = generator
        metadata = _metadata(image_size, architecture, training_data, extras)
    else:
        if any(x is not None for x in (image_size, architecture, training_data, extras)):
            raise ValueError("image_size, architecture, training_data, extras: expected none beside a file")
        reference, metadata = load(generator)
        generator = _restore(reference, metadata, os.fspath(generator))
    size = metadata["image_size"]
    _check_image_size(generator, size, "the generator")

    inputs = _probe(size)
    with _evaluated(generator), torch.inference_mode():
        _check_output(generator(*inputs), inputs, "the generator")
        model = onnx.load_from_string(_traced(generator, inputs, opset))
    # All four inputs, though the exporter drops those that a network ignores.
    shapes = {name: ("batch", *x.shape[1:]) for name, x in zip((*INPUTS, OUTPUT), (*inputs, inputs[0]), strict=True)}
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(values[:-1])
    model.graph.output.extend(values[-1:])
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, text)
    content = model.SerializeToString()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for n in (1, 3):
            inputs = _probe(size, n)
            with _evaluated(reference), torch.inference_mode():
                expected = reference(*inputs)
            feed = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)}
            _check_same(torch.from_numpy(session.run([OUTPUT], feed)[0]), expected, tolerance, "ONNX file")
    except ValueError:
        raise
    except Exception as error:  # what onnx and onnxruntime raise has no other base
        raise ValueError(f"onnxruntime does not run the file: {_line(error, 0)}") from error
    return _write(Path(path), content)


def export_run(
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    which: str = "best",
    image_size: int | None = None,
    training_data: str = "not stated",
    opset: int | None = None,
) -> Path:
    """Write the generator of a training run, as TorchScript or ONNX by the ending of `path`.

    Parameters
    ----------
    run : path
        The folder of a run of `gpgan.nn.train`.
    path : path
        Ends in ``.pt`` or ``.pts`` for TorchScript, ``.onnx`` for ONNX.
    which : str
        ``"best"`` on the held-out scenes, or the ``"last"``.
    image_size : int, optional
        S of the file, if not that of the run. The color corrector works on 32 x 32 pixels whatever S is; the paper's
        network has no other S than its own.
    training_data : str
        For the file's metadata.
    opset : int, optional
        See `export_onnx`.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If `run` holds no such checkpoint.
    ValueError
        If an argument is wrong, or the file does not reproduce the generator.
    """
    from gpgan.nn.train import build_generator, load_run

    suffix = Path(path).suffix.lower()
    if suffix not in (".pt", ".pts", ".onnx"):
        raise ValueError(f"path: expected a name that ends in .pt, .pts or .onnx, got {os.fspath(path)!r}")
    if suffix != ".onnx" and opset is not None:
        raise ValueError(f"opset: expected none for a TorchScript file, got {opset!r}")
    generator, config = load_run(run, which)
    if image_size is not None and image_size != config.image_size:
        if config.architecture != "color-corrector":
            raise ValueError(f"image_size: expected {config.image_size}, the run's own, got {image_size!r}")
        config = replace(config, image_size=image_size)
        weights = generator.state_dict()
        generator = build_generator(config).eval()
        generator.load_state_dict(weights)
    extras = {"width": config.width} | ({"inputs": config.inputs} if config.inputs != "all" else {})
    said: dict[str, Any] = {
        "image_size": config.image_size, "architecture": config.architecture, "training_data": training_data,
        "extras": extras,
    }  # fmt: skip
    if suffix == ".onnx":
        return export_onnx(generator, path, opset=OPSET if opset is None else opset, **said)
    return export(generator, path, **said)


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
        Refuse files that are larger, packed or unpacked.

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
        If the file is or unpacks to more than `max_bytes`, is no TorchScript, is damaged, has no valid metadata, or
        breaks the contract.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no generator file at {name!r}")
    size = Path(path).stat().st_size
    if size > max_bytes:
        raise ValueError(f"{name!r} has {size} bytes, over max_bytes = {max_bytes}")
    _check_archive(name, max_bytes)
    files: dict[str, Any] = {METADATA_FILE: ""}
    try:
        with undeprecated():
            module = torch.jit.load(name, map_location=device, _extra_files=files)  # type: ignore[no-untyped-call]
    except Exception as error:  # of many kinds, as the file is damaged
        raise ValueError(f"{name!r} is a damaged TorchScript file: {_line(error, 0)}") from error
    if not files[METADATA_FILE]:
        raise ValueError(f"{name!r} has no {METADATA_FILE}: expected a generator written by gpgan.nn.export.export")
    try:
        metadata = json.loads(files[METADATA_FILE])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{METADATA_FILE} of {name!r} is no JSON: {error}") from error
    _check_metadata(metadata, f"{METADATA_FILE} of {name!r}")

    _check_image_size(module, metadata["image_size"], repr(name))
    module.eval()
    inputs = _probe(metadata["image_size"])
    try:
        with torch.inference_mode():
            output = module(*(x.to(device) for x in inputs))
    except Exception as error:  # it is a program, and may raise anything
        raise ValueError(
            f"{name!r} does not run on four {metadata['image_size']} x {metadata['image_size']} images as its"
            f" metadata promise: {_line(error, -1)}"
        ) from error
    _check_output(output, inputs, repr(name))
    return module, metadata


def _traced(generator: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> bytes:
    # Torch deprecates this exporter, but no other is in all versions from 2.2 on, and on the corrector's regression its
    # successor takes twenty times as long. Its warnings are about constants that follow from S, which is one here.
    tracing = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer = io.BytesIO()
    with LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)  # it is left out where it does not apply
        try:
            torch.onnx.export(
                generator,
                inputs,
                buffer,  # type: ignore[arg-type]
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                opset_version=opset,
                dynamic_axes={name: {0: "batch"} for name in (*INPUTS, OUTPUT)},
                **tracing,  # type: ignore[arg-type]
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ValueError(f"the generator does not export to ONNX opset {opset}: {_line(error, 0)}") from error
    return buffer.getvalue()


def _restore(scripted: nn.Module, metadata: Mapping[str, Any], name: str) -> nn.Module:
    """The network of this package whose weights a file holds."""
    weights = scripted.state_dict()
    generator: nn.Module
    try:
        if metadata["architecture"] == "color-corrector":
            generator = ColorCorrector(metadata["image_size"], len(weights["stem.0.weight"]))
        elif metadata["architecture"] == "blending-gan":
            width, bottleneck = len(weights["encoder.0.weight"]), weights["decoder.0.weight"].shape[0]
            generator = BlendingGAN(metadata["image_size"], width, bottleneck)
        else:
            expected = "expected the architecture color-corrector or blending-gan"
            raise ValueError(f"{name!r}: {expected}, got {metadata['architecture']!r}")
        generator.load_state_dict(weights)
    except (IndexError, KeyError, RuntimeError, TypeError) as error:
        what = metadata["architecture"]
        raise ValueError(f"{name!r} does not hold the weights of gpgan's {what} as its metadata promise") from error
    return generator.eval()


def _line(error: Exception, which: int) -> str:
    """One line of what torch and onnxruntime say in many."""
    return (str(error).strip().splitlines() or [type(error).__name__])[which]


@contextmanager
def _evaluated(generator: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while."""
    was_training = generator.training
    generator.eval()
    try:
        yield
    finally:
        generator.train(was_training)


def _write(path: Path, content: bytes) -> Path:
    with _files.replacing(path) as file:
        file.write(content)
    return path


def _without_paths(file: io.BytesIO) -> bytes:
    """A TorchScript file without its debug records, which tell the folders of the machine that wrote it."""
    kept = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(kept, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith(".debug_pkl"):
                new.writestr(member, old.read(member))
    return kept.getvalue()


def _check_archive(name: str, max_bytes: int) -> None:
    """A zip archive with ``constants.pkl`` and code, which state dicts and pickled modules have not; and small."""
    try:
        with zipfile.ZipFile(name) as archive:
            members = [(member.filename.partition("/")[2], member.file_size) for member in archive.infolist()]
    except Exception:  # of half a dozen kinds, as the archive is damaged
        members = []
    names = [member for member, _ in members]
    if "constants.pkl" not in names or not any(member.startswith("code/") for member in names):
        raise ValueError(f"{name!r} is no TorchScript file: expected one written by gpgan.nn.export.export")
    # Before anything is unpacked. Torch writes without compression: what unpacks to much more was made to fill memory.
    unpacked = sum(size for _, size in members)
    if unpacked > max_bytes:
        raise ValueError(f"{name!r} unpacks to {unpacked} bytes, over max_bytes = {max_bytes}")
    if any(member == f"extra/{METADATA_FILE}" and size > _LARGEST_METADATA for member, size in members):
        raise ValueError(f"{METADATA_FILE} of {name!r}: expected {_LARGEST_METADATA} bytes at most")


def _metadata(
    image_size: int | None, architecture: str | None, training_data: str | None, extras: Mapping[str, Any] | None
) -> dict[str, Any]:
    metadata = {
        "image_size": image_size, "architecture": architecture, "version": CONTRACT_VERSION,
        "training_data": training_data,
    } | dict(extras or {})  # fmt: skip
    _check_metadata(metadata, "the metadata")
    return metadata


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


def _check_image_size(module: nn.Module, size: int, what: str) -> None:
    """Convolutions alone run at any size; the networks of this package say for which one they are."""
    own = getattr(module, "image_size", size)
    if own != size:
        raise ValueError(f"{what}: made for image_size {own!r}, not the {size} of its metadata")


def _probe(size: int, n: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contract inputs that look like something: one grainy mosaic in two lights, pasted through a centred square."""
    random = torch.Generator().manual_seed(0)
    mosaic = torch.rand(n, 3, 16, 16, generator=random)
    grain, other = (torch.rand(n, 3, size, size, generator=random) for _ in range(2))
    source = (nn.functional.interpolate(mosaic, size=(size, size)) + grain) / 2
    target = source * torch.tensor([0.6, 0.5, 0.4]).view(3, 1, 1) + other / 5
    mask = torch.zeros(n, 1, size, size)
    mask[:, :, size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    harmonized = (source + target) / 2
    return target + mask * (source - target), mask, target + mask * (harmonized - target), source


def _check_output(output: Any, inputs: tuple[Tensor, ...], what: str) -> None:
    expected = tuple(inputs[0].shape)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{what}: expected an output of shape {expected}, got {came}")
    if output.dtype != torch.float32:
        raise ValueError(f"{what}: expected an output of torch.float32, got {output.dtype}")
    if not bool(torch.isfinite(output).all()):
        raise ValueError(f"{what}: expected finite colours, got NaN or infinity")
    low, high = float(output.min()), float(output.max())
    if low < 0 or high > 1:
        raise ValueError(f"{what}: expected colours in [0, 1], got [{low:.4g}, {high:.4g}]")


def _check_same(given: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    if given.shape != expected.shape:
        raise ValueError(f"the {what} gives shape {tuple(given.shape)}, the generator {tuple(expected.shape)}")
    difference = (given - expected).abs().max().item()
    if not difference <= tolerance:
        raise ValueError(f"the {what} differs by {difference:.3g} from the generator, over {tolerance:g}")
