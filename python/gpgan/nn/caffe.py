"""From a Caffe model of the RealismCNN to a weights file of this package.

A ``.caffemodel`` is a protocol buffer, the message NetParameter of Caffe's ``caffe.proto``. It is read here without any
library: a field is found by its number, what is not needed is skipped, and nothing is copied before its size was
compared with what the network needs. So a file can cost no more memory than its own size and the weights'.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpgan.nn.realism import RealismCNN, build, write_weights

__all__ = ["convert", "read_caffemodel"]

#: What a model is read for at most. The published one takes about 540 MB.
MAX_BYTES = 1 << 30

#: Of one message, the net itself included; numbers are packed, so that a blob has five or so.
_MAX_FIELDS = 1000

#: Four dimensions of ten bytes, the longest that a varint can be, and their tags come to less.
_MAX_SHAPE_BYTES = 64

# Numbers of fields in caffe.proto. Both formats of a layer: its field in NetParameter, then those of name and blobs.
_LAYERS = ((100, 1, 7), (2, 4, 6))
_OLD_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1


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
    OSError
        If the file cannot be written.
    ValueError
        If the model is damaged, over `max_bytes` or what memory there is, or no RealismCNN of this width.
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
    FileNotFoundError, ValueError
        As :func:`convert`.
    """
    name = os.fspath(model)
    if not Path(name).is_file():
        raise FileNotFoundError(f"model: no file at {name!r}")
    size = Path(name).stat().st_size
    if size > max_bytes:
        raise ValueError(f"model: {name!r} has {size} bytes, over max_bytes = {max_bytes}")
    try:
        with Path(name).open("rb") as file:
            found = _found(memoryview(file.read(size)), expected, f"model: {name!r}")
    except MemoryError:
        raise ValueError(f"model: {name!r} has {size} bytes, more than there is memory for") from None
    keys = [f"{layer}.{kind}" for layer, kinds in expected.items() for kind in kinds]
    missing = [key.rpartition(".")[0] for key in keys if key not in found]
    if missing:
        raise ValueError(f"model: {name!r}: expected a layer {missing[0]}, got none of that name")
    return {key: found[key] for key in keys}


def _found(
    content: memoryview, expected: Mapping[str, Mapping[str, tuple[int, ...]]], what: str
) -> dict[str, NDArray[np.float32]]:
    """The arrays of the layers that are there, in the file's order."""
    found: dict[str, NDArray[np.float32]] = {}
    for said, blobs in _layers(content, what):
        layer = "fc8" if said.startswith("fc8") else said
        if layer not in expected:
            raise ValueError(f"{what}: expected the layers {', '.join(expected)}, got {said[:80]!r} too")
        if f"{layer}.weight" in found:
            raise ValueError(f"{what}: expected one layer {layer}, got {said[:80]!r} too")
        if len(blobs) != len(expected[layer]):
            raise ValueError(
                f"{what}: expected layer {layer} with {' and '.join(expected[layer])}, got {len(blobs)} blobs"
            )
        for (kind, shape), blob in zip(expected[layer].items(), blobs, strict=True):
            found[f"{layer}.{kind}"] = _numbers(blob, shape, f"{what}: {kind} of layer {layer}")
    return found


def _layers(content: memoryview, what: str) -> Iterator[tuple[str, list[memoryview]]]:
    """Name and serialized blobs of each layer that has any."""
    net = _Message(content, what)
    if not any(net.parts.get(number) for number, _, _ in _LAYERS):
        raise ValueError(f"{what} is no Caffe model: expected layers, got none")
    for number, name, blobs in _LAYERS:
        for k, serialized in enumerate(net.parts.get(number, [])):
            layer = _Message(serialized, f"{what}: layer {k}")
            if blobs in layer.parts:
                said = bytes(layer.parts.get(name, [memoryview(b"")])[-1][:200])
                yield said.decode(errors="replace"), layer.parts[blobs]


def _numbers(serialized: memoryview, shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    """A blob as an array of this shape.

    Raises
    ------
    ValueError
        If its own shape is another one, its numbers are more or fewer, or not finite.
    """
    count = math.prod(shape)
    blob = _Message(serialized, what)
    said = _shape(blob, what)
    # As a convolution, or as the matrix of a fully connected layer; Caffe pads old shapes with ones in front.
    matrix = (shape[0], math.prod(shape[1:]))
    if _without_ones(said) not in (_without_ones(shape), _without_ones(matrix)):
        raise ValueError(f"{what}: expected shape {list(shape)}, got {str(list(said))[:80]}")
    is_double = _DOUBLE_DATA in blob.parts
    dtype = np.dtype("<f8" if is_double else "<f4")
    parts = blob.parts.get(_DOUBLE_DATA if is_double else _DATA, [])
    length = sum(map(len, parts))
    if length != count * dtype.itemsize or any(len(part) % dtype.itemsize for part in parts):
        raise ValueError(f"{what}: expected {count} numbers of {dtype.name}, got {length} bytes")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which is refused below
        numbers = np.concatenate([np.frombuffer(part, dtype) for part in parts], dtype=np.float32, casting="same_kind")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity")
    return numbers.reshape(shape)


def _shape(blob: _Message, what: str) -> tuple[int, ...]:
    """What a blob says of its shape."""
    if _SHAPE not in blob.parts:
        return tuple(blob.numbers.get(number, [0])[-1] for number in _OLD_SHAPE)
    serialized = blob.parts[_SHAPE][-1]
    if len(serialized) > _MAX_SHAPE_BYTES:
        raise ValueError(f"{what}: expected at most {_MAX_SHAPE_BYTES} bytes for its shape, got {len(serialized)}")
    shape = _Message(serialized, what)
    dims = shape.numbers.get(_DIM, [])  # so without packing
    for packed in shape.parts.get(_DIM, []):
        at = 0
        while at < len(packed):
            dim, at = _varint(packed, at, what)
            dims.append(dim)
    return tuple(dims)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


class _Message:
    """The fields of a protocol buffer by their numbers, none copied and none looked into.

    Attributes
    ----------
    numbers : dict of int to list of int
        Those that are varints.
    parts : dict of int to list of memoryview
        Those with a length: texts, messages, packed numbers.

    Raises
    ------
    ValueError
        If it is none, ends within a field or has more than 1000.
    """

    def __init__(self, content: memoryview, what: str) -> None:
        self.numbers: dict[int, list[int]] = {}
        self.parts: dict[int, list[memoryview]] = {}
        at = count = 0
        while at < len(content):
            count += 1
            if count > _MAX_FIELDS:
                raise ValueError(f"{what}: expected at most {_MAX_FIELDS} fields, got more")
            tag, at = _varint(content, at, what)
            number, kind = tag >> 3, tag & 7
            if number == 0 or kind not in (0, 1, 2, 5):  # 3 and 4 are groups, which Caffe never had
                raise _damaged(what)
            if kind == 0:
                value, at = _varint(content, at, what)
                self.numbers.setdefault(number, []).append(value)
                continue
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, at = _varint(content, at, what)
            if length > len(content) - at:
                raise _damaged(what)
            if kind == 2:
                self.parts.setdefault(number, []).append(content[at : at + length])
            at += length


def _varint(content: memoryview, at: int, what: str) -> tuple[int, int]:
    """The number at a place, seven bits a byte, the lowest first; and the place behind it."""
    value = 0
    for k, byte in enumerate(content[at : at + 10]):
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            return value, at + k + 1
    raise _damaged(what)


def _damaged(what: str) -> ValueError:
    return ValueError(f"{what} is damaged, or no Caffe model at all")
