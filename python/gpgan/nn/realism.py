"""How real a picture looks, as a number: networks that tell photographs from composites.

Two networks, one scorer. :class:`RealismCNN` is the network of Zhu, Krähenbühl, Shechtman and Efros, "Learning a
Discriminative Model for the Perception of Realism in Composite Images", ICCV 2015, for weights that the user brings
(``gpgan convert-realism`` reads the published ones). :class:`SmallRealism` is a small one whose weights come with this
package; ``weights/realism.md`` says what it was trained on and how far it can be trusted.

A weights file is in the safetensors format: a JSON header, then the numbers. Nothing in it is executed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as nnf

from gpgan import _arrays, _files, _generator
from gpgan._cuda_device import place_of

__all__ = ["RealismCNN", "RealismScorer", "SmallRealism", "build", "read_weights", "write_weights"]

SHIPPED = Path(__file__).parents[1] / "weights" / "realism.safetensors"

#: What a weights file is read for at most; the published network takes 537,077,728.
MAX_BYTES = 1 << 30

_LARGEST_HEADER = 1 << 20
_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


class RealismCNN(nn.Module):
    """VGG-16 with its fully connected layers as convolutions, fc6 of 7 x 7, and two outputs for every place.

    Layers have the names of the published Caffe model. What it was trained with, such as dropout, is left out.

    Parameters
    ----------
    width : float
        Share of the published number of channels, in (0, 1]; below 1 for tests alone.

    Raises
    ------
    ValueError
        If `width` is not in (0, 1].
    """

    architecture = "realism-cnn"
    image_size = 256
    #: Subtracted from the channels blue, green, red in 0..255.
    mean = (103.939, 116.779, 123.68)

    _STAGES = (("1", 64, 2), ("2", 128, 2), ("3", 256, 3), ("4", 512, 3), ("5", 512, 3))

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not 0 < width <= 1:
            raise ValueError(f"width: expected a number in (0, 1], got {width!r}")
        self.width = width

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        into = 3
        for stage, channels, count in self._STAGES:
            for k in range(1, count + 1):
                self.add_module(f"conv{stage}_{k}", nn.Conv2d(into, scaled(channels), 3, padding=1))
                into = scaled(channels)
        self.fc6 = nn.Conv2d(into, scaled(4096), 7)
        self.fc7 = nn.Conv2d(scaled(4096), scaled(4096), 1)
        self.fc8 = nn.Conv2d(scaled(4096), 2, 1)

    def prepare(self, color: Tensor) -> Tensor:
        """From red, green, blue (N, 3, 256, 256) in [0, 1] to what the first layer takes."""
        prepared: Tensor = color.flip(1) * 255 - color.new_tensor(self.mean).view(1, 3, 1, 1)
        return prepared

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) from :meth:`prepare`, H and W of 224 or more, to maps (N, 2, h, w): composite, real."""
        for stage, _, count in self._STAGES:
            for k in range(1, count + 1):
                x = nnf.relu(self.get_submodule(f"conv{stage}_{k}")(x))
            x = nnf.max_pool2d(x, 2)
        output: Tensor = self.fc8(nnf.relu(self.fc7(nnf.relu(self.fc6(x)))))
        return output

    def score(self, x: Tensor) -> Tensor:
        """(N,): the mean of the second output over the map, before the softmax."""
        score: Tensor = self(x)[:, 1].mean((1, 2))
        return score


class _Block(nn.Module):
    """MobileNet's inverted residual: wider, along each channel alone, narrower again."""

    def __init__(self, into: int, kernel: int, stride: int, expansion: int, out: int) -> None:
        super().__init__()
        middle = into * expansion
        self.expand = nn.Conv2d(into, middle, 1) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Conv2d(middle, middle, kernel, stride, groups=middle)
        self.project = nn.Conv2d(middle, out, 1)
        self.pad = kernel - stride
        self.is_residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if isinstance(self.expand, nn.Identity) else nnf.relu6(self.expand(x))
        y = nnf.relu6(self.depthwise(_padded(y, self.pad)))
        out: Tensor = self.project(y)
        return x + out if self.is_residual else out


def _padded(x: Tensor, pad: int) -> Tensor:
    """TensorFlow's "same" for even sizes: the odd pixel of padding goes to the right and to the bottom."""
    low, high = pad // 2, pad - pad // 2
    return nnf.pad(x, (low, high, low, high))


class SmallRealism(nn.Module):
    """The first eleven blocks of EfficientNet-Lite0, and a head that looks at three of its scales.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; "Lite" leaves
    out what embedded devices lack. Batch normalisation is folded into the convolutions. Beside the score it gives, for
    training, a map of where it takes the edge of a pasted region to be.

    Parameters
    ----------
    width : int
        Channels of the head, a multiple of 8.

    Attributes
    ----------
    frozen : int
        In training, no gradient is sought for the stem and so many blocks, if it is above 0.
    """

    architecture = "small-realism"
    image_size = 224

    #: (kernel, stride, expansion, channels)
    BLOCKS = (
        (3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80), (3, 1, 6, 80),
        (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
    )  # fmt: skip

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        if not 8 <= width <= 1024 or width % 8:
            raise ValueError(f"width: expected a multiple of 8 up to 1024, got {width!r}")
        self.width = width
        self.frozen = 0
        self.stem = nn.Conv2d(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        into = 32
        for kernel, stride, expansion, channels in self.BLOCKS:
            self.blocks.append(_Block(into, kernel, stride, expansion, channels))
            into = channels
        self.fine = nn.Conv2d(24, width, 1)
        self.middle = nn.Conv2d(40, width, 1)
        self.coarse = nn.Conv2d(112, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.mix_norm = nn.GroupNorm(8, width)
        self.seam = nn.Conv2d(width, 1, 1)
        self.hidden = nn.Linear(2 * width, 64)
        self.verdict = nn.Linear(64, 1)

    def prepare(self, color: Tensor) -> Tensor:
        """From red, green, blue (N, 3, S, S) in [0, 1] to what the first layer takes."""
        return (color * 255 - 127) / 128

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) from :meth:`prepare`, S a multiple of 16, to scores (N,) and seam logits (N, S/16, S/16)."""
        seen = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen == 0):
            x = nnf.relu6(self.stem(_padded(x, 1)))
            for block in self.blocks[: self.frozen]:
                x = block(x)
                seen.append(x)
        for block in self.blocks[self.frozen :]:
            x = block(x)
            seen.append(x)
        # Strides 4, 8 and 16: edges, parts, things.
        y = self.coarse(x) + nnf.max_pool2d(self.middle(seen[4]), 2) + nnf.max_pool2d(self.fine(seen[2]), 4)
        y = nnf.relu(self.mix_norm(self.mix(nnf.relu(self.norm(y)))))
        pooled = nnf.dropout(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1), 0.3, self.training)
        return self.verdict(nnf.relu(self.hidden(pooled)))[:, 0], self.seam(y)[:, 0]

    def score(self, x: Tensor) -> Tensor:
        """(N,): the log-odds of a real photograph against a composite."""
        score: Tensor = self(x)[0]
        return score


Network = RealismCNN | SmallRealism


def build(architecture: str, width: float) -> Network:
    """A network by what a weights file says of it, without memory for its weights (on the meta device).

    Raises
    ------
    ValueError
        If there is no such architecture, or none of that width.
    """
    with torch.device("meta"):
        if architecture == RealismCNN.architecture:
            return RealismCNN(width)
        if architecture == SmallRealism.architecture:
            if width != int(width):
                raise ValueError(f"width: expected a whole number, got {width!r}")
            return SmallRealism(int(width))
    raise ValueError(
        f"architecture: expected {RealismCNN.architecture!r} or {SmallRealism.architecture!r}, got {architecture!r}"
    )


# --- Weights files ------------------------------------------------------------------------------------------


def write_weights(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
    *,
    half: bool = False,
) -> Path:
    """Write a weights file, whole or not at all.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to ndarray
        As they are called in the network's state dict; written as float32.
    metadata : mapping of str to str
        `architecture` and `width`, which :func:`build` takes, and anything else that the file is to say of itself.
    half : bool
        Write float16, in half the bytes. Read, they are float32 again.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If it cannot be written.
    """
    name = "F16" if half else "F32"
    dtype = _DTYPES[name]
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for key, array in arrays.items():
        end = at + array.size * dtype.itemsize
        header[key] = {"dtype": name, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)  # aligns the numbers
    final = Path(os.path.realpath(path))
    with _files.replacing(final) as file:
        file.write(len(said).to_bytes(8, "little") + said)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype).data)
    return Path(path)


def read_weights(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> tuple[Network, dict[str, str]]:
    """Read a weights file into the network that it is for, on the CPU and ready to score.

    Every name, shape and place in the file is checked against the architecture before memory is asked for.

    Parameters
    ----------
    path : path-like
    max_bytes : int
        Refuse larger files.

    Returns
    -------
    network : RealismCNN or SmallRealism
    metadata : dict of str to str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no weights file, damaged, over `max_bytes`, or does not fit the architecture that it names.
    """
    name = os.fspath(path)
    if not Path(name).is_file():
        raise FileNotFoundError(f"weights: expected 'default' or a file, got {name!r}, which is none")
    size = Path(name).stat().st_size
    if size > max_bytes:
        raise ValueError(f"weights: {name!r} has {size} bytes, over max_bytes = {max_bytes}")
    with Path(name).open("rb") as file:
        header, start = _header(file, size, name)
        metadata = _metadata(header.pop("__metadata__", None), name)
        try:
            network = build(metadata["architecture"], float(metadata["width"]))
        except ValueError as error:
            raise ValueError(f"weights: {name!r}: {error}") from None
        expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        places = _places(header, expected, size - start, name)
        state = {}
        for key, (dtype, at) in places.items():
            count = math.prod(expected[key])
            file.seek(start + at)
            numbers = np.fromfile(file, dtype, count).astype(np.float32)
            if len(numbers) != count:  # it shrank meanwhile
                raise ValueError(f"weights: {name!r} ends within {key!r}")
            if not np.isfinite(numbers).all():
                raise ValueError(f"weights: {name!r}: expected finite numbers in {key!r}, got NaN or infinity")
            state[key] = torch.from_numpy(numbers.reshape(expected[key]))
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
    return network.eval(), metadata


def _header(file: BinaryIO, size: int, name: str) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(8), "little")
    try:
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ValueError(
            f"weights: {name!r} is no weights file: expected one written by `gpgan convert-realism` or "
            "gpgan.nn.realism.write_weights"
        ) from None
    return header, 8 + length


def _metadata(said: Any, name: str) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise ValueError(f"weights: {name!r}: expected __metadata__ of texts, got {type(said).__name__}")
    for key in ("architecture", "width"):
        if key not in said:
            raise ValueError(f"weights: {name!r}: expected {key} in its metadata, got {', '.join(sorted(said))[:200]}")
    try:
        if not math.isfinite(float(said["width"])):
            raise ValueError
    except ValueError:
        raise ValueError(f"weights: {name!r}: expected width to be a number, got {said['width'][:40]!r}") from None
    return said


def _places(
    header: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], size: int, name: str
) -> dict[str, tuple[np.dtype[Any], int]]:
    """Of every array its dtype and its offset behind the header."""
    for key in chain(expected.keys() - header.keys(), header.keys() - expected.keys()):
        what = "lacks" if key in expected else "has an unknown"
        raise ValueError(f"weights: {name!r} {what} {key[:80]!r}")
    places = {}
    for key, shape in expected.items():
        said = header[key] if isinstance(header[key], dict) else {}
        dtype, offsets = _DTYPES.get(str(said.get("dtype"))), said.get("data_offsets")
        if said.get("shape") != list(shape):
            raise ValueError(
                f"weights: {name!r}: expected {key!r} of shape {list(shape)}, got {str(said.get('shape'))[:80]}"
            )
        if dtype is None:
            raise ValueError(
                f"weights: {name!r}: expected {key!r} of dtype F16 or F32, got {str(said.get('dtype'))[:40]}"
            )
        length = math.prod(shape) * dtype.itemsize
        if not (
            isinstance(offsets, list)
            and len(offsets) == 2
            and all(type(offset) is int for offset in offsets)
            and 0 <= offsets[0] <= offsets[1] <= size
            and offsets[1] - offsets[0] == length
        ):
            raise ValueError(
                f"weights: {name!r}: expected {length} bytes of {key!r} within {size}, got {str(offsets)[:80]}"
            )
        places[key] = dtype, offsets[0]
    return places


# --- The scorer ---------------------------------------------------------------------------------------------


class RealismScorer:
    """How real a picture looks to a network: higher is more realistic.

    Scores compare pictures under one scorer; they have no unit, and differences between scenes say more about the
    scenes than about their blending. The shipped weights are weak: on the validation scene they do not rank blended
    pictures above copy-and-paste pair by pair. ``weights/realism.md`` has the figures.

    Parameters
    ----------
    weights : str or path-like
        ``"default"`` for the shipped network, or a weights file, such as ``gpgan convert-realism`` writes of the
        published RealismCNN.
    device : str
        Where to compute: ``"auto"``, which is where an image lies, or a torch device to which all images are copied.
    max_bytes : int
        Refuse larger weights files.

    Attributes
    ----------
    network : RealismCNN or SmallRealism
    metadata : dict of str to str
        What the weights file says of itself: architecture, width, source and more.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        If `weights` is no such name or file, damaged or too large, or `device` is none that torch has.

    Examples
    --------
    >>> scorer = RealismScorer()
    >>> pasted, blended = scorer(gpgan.baselines.copy_paste(s, t, m)), scorer(gpgan.blend(s, t, m))
    """

    def __init__(
        self, weights: str | os.PathLike[str] = "default", *, device: str = "auto", max_bytes: int = MAX_BYTES
    ) -> None:
        if not isinstance(weights, (str, os.PathLike)):
            raise TypeError(f"weights: expected 'default' or a path, got {type(weights).__name__}")
        self._device = _device(device)
        path = SHIPPED if os.fspath(weights) == "default" else weights
        self.network, self.metadata = read_weights(path, max_bytes=max_bytes)
        self._copies: dict[torch.device, Network] = {torch.device("cpu"): self.network}

    @property
    def architecture(self) -> str:
        return self.network.architecture

    @property
    def image_size(self) -> int:
        """Images are resized to squares of so many pixels first."""
        return self.network.image_size

    def __call__(self, image: Any) -> float | NDArray[np.float64]:
        """Score an image, or each of a batch.

        Parameters
        ----------
        image : ndarray, PIL.Image.Image or torch.Tensor
            Anything that :func:`gpgan.blend` takes for a target, of any size: (H, W), (H, W, 3) or (H, W, 4) of uint8,
            uint16 or floats in [0, 1]; PIL images; tensors (C, H, W) or (N, C, H, W). Grey counts as equal red, green
            and blue; alpha is ignored. What solvers that do not clip leave outside [0, 1], by at most 1, counts as
            black or white, as a screen shows it.

        Returns
        -------
        float, or ndarray of float64, shape (N,), for a tensor (N, C, H, W)

        Raises
        ------
        TypeError, ValueError
            If it is no image, or has floats that are not finite or far from [0, 1].
        """
        # Layers of the small network are not worth sharing among cores, VGG's are.
        is_small = isinstance(self.network, SmallRealism)
        with _generator._one_thread() if is_small else nullcontext(), torch.inference_mode():
            squares = self._squares(image)
            network = self._network_on(squares.device)
            # One by one: sums in another order, as a batch may bring, would let a score depend on its neighbours.
            scores = [float(network.score(network.prepare(square[None]))) for square in squares]
        if isinstance(image, Tensor) and image.ndim == 4:
            return np.array(scores, np.float64)
        return scores[0]

    def __repr__(self) -> str:
        return f"<gpgan.nn.realism.RealismScorer {self.architecture!r}, image_size={self.image_size}>"

    def _squares(self, image: Any) -> Tensor:
        """(N, 3, S, S) float32 in [0, 1], where it is computed."""
        side = (self.image_size, self.image_size)
        if isinstance(image, Tensor) and place_of(image) != "cpu":
            planes: Any = _device_planes(image)
        else:
            pixels = _arrays.image(image, "image").pixels
            colors = range(_arrays.color_count(pixels.shape[3]))
            planes = ((_plane(one[..., c]) for c in colors) for one in pixels)
        # Channel by channel, so that a large photo is never held as floats in whole.
        small = torch.stack([torch.cat([_resized(plane, side, self._device) for plane in one]) for one in planes])
        return small.expand(-1, 3, -1, -1)

    def _network_on(self, device: torch.device) -> Network:
        if device not in self._copies:
            network = build(self.architecture, self.network.width)
            state = {key: value.to(device) for key, value in self.network.state_dict().items()}
            network.load_state_dict(state, assign=True)
            self._copies[device] = network.requires_grad_(False).eval()
        return self._copies[device]


def _device(said: str) -> torch.device | None:
    if said == "auto":
        return None
    try:
        device = torch.device(said)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected 'auto' or a device that torch has, got {said!r}: {reason}") from None
    return device


def _plane(values: NDArray[Any]) -> Tensor:
    """One channel of an image, (H, W), as float32 in [0, 1]."""
    scale = np.float32(1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max)
    return _clipped(torch.from_numpy(values.astype(np.float32) / scale))


def _device_planes(image: Tensor) -> Iterator[Iterator[Tensor]]:
    """The same of a tensor that is not in the memory of the CPU."""
    _arrays.check_tensor(image, "image")
    image = image.detach()[(None,) * (4 - image.ndim)]
    _arrays.check_pixels((len(image), *image.shape[2:], image.shape[1]), "image")
    names = {torch.uint8: 0xFF, torch.float16: 1, torch.float32: 1, torch.float64: 1}
    scale = 0xFFFF if str(image.dtype) == "torch.uint16" else names.get(image.dtype)
    if scale is None:
        raise TypeError(f"image: expected {_arrays.IMAGE_DTYPES}, got {image.dtype}")

    return ((_clipped(values.float() / scale) for values in one[: _arrays.color_count(len(one))]) for one in image)


def _clipped(plane: Tensor) -> Tensor:
    low, high = (float(value) for value in plane.aminmax())
    if not (low >= -1 and high <= 2):  # so NaN is refused too
        raise ValueError(f"image: expected finite floats in [0, 1], got {low:g} to {high:g}")
    return plane.clamp_(0, 1)


def _resized(plane: Tensor, side: tuple[int, int], device: torch.device | None) -> Tensor:
    """(H, W) to (1, S, S), bilinear; where it shrinks, the tent is as wide as the pixels that it makes.

    MATLAB's ``imresize``, which made the pictures that the network of Zhu et al. saw, widens it so by default.
    """
    plane = nnf.interpolate(plane[None, None], side, mode="bilinear", align_corners=False, antialias=True)[0]
    return plane if device is None else plane.to(device)
