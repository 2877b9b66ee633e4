"""From a Caffe model of the RealismCNN to a weights file of this package.

A ``.caffemodel`` is a protocol buffer, the message NetParameter of Caffe's ``caffe.proto``. Only the fields that hold
names, shapes and numbers are declared here; all others are skipped as they are read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpgan.nn.realism import RealismCNN, build, write_weights

__all__ = ["convert", "read_caffemodel"]

#: What a model is read for at most. The published one takes about 540 MB.
MAX_BYTES = 1 << 30

_MAX_LAYERS = 1000

# Numbers of caffe.proto: message, field, number, type, repeated? Layers and blobs stay bytes until their turn comes, so
# that no more than one blob is unpacked at a time, and only once its size was found to fit.
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "NetParameter": (("layers", 2, "bytes", True), ("layer", 100, "bytes", True)),
    "LayerParameter": (("name", 1, "bytes", False), ("blobs", 7, "bytes", True)),
    "V1LayerParameter": (("name", 4, "bytes", False), ("blobs", 6, "bytes", True)),
    "BlobShape": (("dim", 1, "int64", True),),
    "BlobProto": (
        ("num", 1, "int32", False), ("channels", 2, "int32", False), ("height", 3, "int32", False),
        ("width", 4, "int32", False), ("data", 5, "float", True), ("shape", 7, "BlobShape", False),
        ("double_data", 8, "double", True),
    ),
}  # fmt: skip


def convert(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    width: float = 1.0,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Write the weights of a Caffe RealismCNN as a file for :class:`gpgan.nn.realism.RealismScorer`.

    Layers are found by name: conv1_1 to conv5_3, fc6, fc7, and one whose name begins with fc8. Fully connected layers
    may be stored as matrices or as convolutions.

    Parameters
    ----------
    model : path-like
        A ``.caffemodel``, of Caffe's present format or of the one before it (V1).
    output : path-like
        Written whole or not at all; the numbers are float32.
    width : float
        Share of the published number of channels that the model has.
    max_bytes : int
        Refuse a larger model.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ImportError
        Without protobuf.
    OSError
        If the file cannot be written.
    ValueError
        If the model is damaged, over `max_bytes`, or no RealismCNN of this width.
    """
    if Path(output).is_dir() or not Path(output).absolute().parent.is_dir():
        raise ValueError(f"output: expected a file in an existing folder, got {os.fspath(output)!r}")
    network = build(RealismCNN.architecture, width)
    expected: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, value in network.state_dict().items():
        layer, _, kind = key.rpartition(".")
        expected.setdefault(layer, {})[kind] = tuple(value.shape)
    blobs = read_caffemodel(model, expected, max_bytes=max_bytes)
    metadata = {
        "architecture": network.architecture,
        "width": repr(float(width)),
        "source": f"converted from the Caffe model {Path(model).name}",
    }
    return write_weights(output, blobs, metadata)


def read_caffemodel(
    model: str | os.PathLike[str],
    expected: Mapping[str, Mapping[str, tuple[int, ...]]],
    *,
    max_bytes: int = MAX_BYTES,
) -> dict[str, NDArray[np.float32]]:
    """Read the named layers of a Caffe model.

    Parameters
    ----------
    model : path-like
    expected : mapping
        Of each layer the shapes of its ``weight`` and ``bias``. The layer fc8 may have a longer name in the file.
    max_bytes : int
        Refuse a larger file.

    Returns
    -------
    dict of str to ndarray of float32
        ``"conv1_1.weight"`` and so on, of the expected shapes and in their order.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As :func:`convert`.
    """
    messages = _messages()
    name = os.fspath(model)
    if not Path(name).is_file():
        raise FileNotFoundError(f"model: no file at {name!r}")
    size = Path(name).stat().st_size
    if size > max_bytes:
        raise ValueError(f"model: {name!r} has {size} bytes, over max_bytes = {max_bytes}")
    found: dict[str, NDArray[np.float32]] = {}
    for said, blobs in _layers(messages, Path(name).read_bytes(), name):
        layer = "fc8" if said.startswith("fc8") else said
        if layer not in expected:
            raise ValueError(f"model: {name!r}: expected the layers {', '.join(expected)}, got {said[:80]!r} too")
        if f"{layer}.weight" in found:
            raise ValueError(f"model: {name!r}: expected one layer {layer}, got {said[:80]!r} too")
        if len(blobs) != len(expected[layer]):
            raise ValueError(
                f"model: {name!r}: expected layer {layer} with {' and '.join(expected[layer])}, got {len(blobs)} blobs"
            )
        for (kind, shape), blob in zip(expected[layer].items(), blobs, strict=True):
            found[f"{layer}.{kind}"] = _numbers(messages, blob, shape, f"model: {name!r}: {kind} of layer {layer}")
    keys = [f"{layer}.{kind}" for layer, kinds in expected.items() for kind in kinds]
    missing = [key.rpartition(".")[0] for key in keys if key not in found]
    if missing:
        raise ValueError(f"model: {name!r}: expected a layer {missing[0]}, got none of that name")
    return {key: found[key] for key in keys}


def _layers(messages: Mapping[str, Any], content: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """Name and serialized blobs of each layer that has any."""
    net = _parsed(messages["NetParameter"], content, f"model: {name!r}")
    del content
    count = len(net.layer) + len(net.layers)
    if count == 0:
        raise ValueError(f"model: {name!r} is no Caffe model: expected layers, got none")
    if count > _MAX_LAYERS:
        raise ValueError(f"model: {name!r}: expected at most {_MAX_LAYERS} layers, got {count}")
    for kind, layers in (("LayerParameter", net.layer), ("V1LayerParameter", net.layers)):
        for k, serialized in enumerate(layers):
            layer = _parsed(messages[kind], serialized, f"model: {name!r}: layer {k}")
            if layer.blobs:
                yield layer.name.decode(errors="replace"), layer.blobs


def _numbers(messages: Mapping[str, Any], serialized: bytes, shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    """A blob as an array of this shape.

    Raises
    ------
    ValueError
        If its own shape is another one, its numbers are more or fewer, or not finite.
    """
    count = math.prod(shape)
    # Data and gradient, each as floats and as doubles with a tag of their own, come to 28 bytes a number.
    if len(serialized) > 32 * count + 4096:
        raise ValueError(f"{what}: expected {count} numbers, got {len(serialized)} bytes")
    blob = _parsed(messages["BlobProto"], serialized, what)
    old = (blob.num, blob.channels, blob.height, blob.width)
    said = tuple(blob.shape.dim) if blob.HasField("shape") else old
    # As a convolution, or as the matrix of a fully connected layer; Caffe pads old shapes with ones in front.
    matrix = (shape[0], math.prod(shape[1:]))
    if _without_ones(said) not in (_without_ones(shape), _without_ones(matrix)):
        raise ValueError(f"{what}: expected shape {list(shape)}, got {str(list(said))[:80]}")
    data = blob.double_data if len(blob.double_data) else blob.data
    if len(data) != count:
        raise ValueError(f"{what}: expected {count} numbers, got {len(data)}")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which is refused below
        numbers = np.fromiter(data, np.float64 if len(blob.double_data) else np.float32, count).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity")
    return numbers.reshape(shape)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _parsed(message: Any, serialized: bytes, what: str) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(serialized)
    except (DecodeError, UnicodeDecodeError):
        raise ValueError(f"{what} is damaged, or no Caffe model at all") from None


@lru_cache(maxsize=1)
def _messages() -> dict[str, Any]:
    """The messages of :data:`_SCHEMA` as classes, in a pool of their own: Caffe's own may be loaded beside them."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise ImportError("gpgan.nn.caffe needs protobuf: pip install 'gpgan[evaluate]'") from error
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="gpgan/caffe.proto", package="gpgan.caffe", syntax="proto2")
    for message, fields in _SCHEMA.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            entry = declared.field.add(name=name, number=number, label=label)
            if kind in _SCHEMA:
                entry.type, entry.type_name = field.TYPE_MESSAGE, f".gpgan.caffe.{kind}"
            else:
                entry.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"gpgan.caffe.{name}")) for name in _SCHEMA
    }
