"""Generators: what gives the low-resolution colour. Torch is imported only when one is loaded."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan._cuda_device import place_of
from gpgan._warnings import undeprecated

Image = npt.NDArray[np.float32]

#: What a callable without an ``image_size`` of its own is given, and what no generator at all means: the paper's size.
DEFAULT_IMAGE_SIZE = 64

_WEIGHTS = Path(__file__).parent / "weights"


class Generator:
    """A TorchScript generator as a function of NumPy arrays.

    Made by :func:`load_generator`. Safe to call from several threads.

    Attributes
    ----------
    image_size : int
        S, the side of the images that it takes and gives.
    metadata : dict
        What its file says of it: image_size, architecture, version, training_data and more.
    """

    def __init__(self, module: Any, image_size: int, metadata: dict[str, Any] | None = None) -> None:
        self.module = module
        self.image_size = image_size
        self.metadata = dict(metadata or {})
        self.is_shipped = False  # and so known to give nothing but numbers in [0, 1]
        self._copies: dict[Any, Any] = {}  # by device

    def __call__(self, composite: Image, mask: Image, harmonized: Image, source: Image) -> Image:
        """The colour for one composite.

        Parameters
        ----------
        composite, harmonized, source : ndarray of float32, shape (S, S, 3), in [0, 1]
        mask : ndarray of float32, shape (S, S), in [0, 1]

        Returns
        -------
        ndarray of float32, shape (S, S, 3), in [0, 1]
        """
        import torch

        def planes(image: Image) -> torch.Tensor:
            image = image[..., None] if image.ndim == 2 else image
            return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))

        with _one_thread():
            color = _evaluate(self.module, *map(planes, (composite, mask, harmonized, source)))
        result: Image = color[0].permute(1, 2, 0).float().numpy()
        return result

    def on_device(self, composite: Any, mask: Any, harmonized: Any, source: Any) -> Any:
        """The same for a batch on any device: tensors (N, 3, S, S) and (N, 1, S, S) in and out, no copies."""
        return _evaluate(self._module_for(composite.device), composite, mask, harmonized, source)

    def _module_for(self, device: Any) -> Any:
        """The module itself where it lives on the device, else a copy that is made once.

        Raises
        ------
        ValueError
            If it is no TorchScript: of somebody's network, which may be in training, there is but one.
        """
        import torch

        if device in self._copies:
            return self._copies[device]
        state = [*self.module.parameters(), *self.module.buffers()]
        if all(tensor.device == device for tensor in state):
            if isinstance(self.module, torch.jit.ScriptModule):  # to walk through its parts takes long
                self._copies[device] = self.module
            return self.module
        if not isinstance(self.module, torch.jit.ScriptModule):
            raise ValueError(f"generator: expected a network on {device} like the images, got one that is not")
        return self._copies.setdefault(device, _copy_to(device, self.module))

    def __repr__(self) -> str:
        architecture = self.metadata.get("architecture", type(self.module).__name__)
        return f"<gpgan.Generator {architecture!r}, image_size={self.image_size}>"


def _evaluate(module: Any, *inputs: Any) -> Any:
    import torch

    was_training = module.training
    # From a file it comes so; to walk through a scripted network's parts takes longer than to copy its inputs.
    if was_training or not isinstance(module, torch.jit.ScriptModule):
        module.eval()
    try:
        with torch.inference_mode():
            return module(*inputs)
    finally:
        if was_training:  # somebody's network, called between two of its training steps
            module.train()


def _copy_to(device: Any, module: Any) -> Any:
    """By way of a file in memory: TorchScript moves constants, which are no parameters, only as it loads."""
    import torch

    file = io.BytesIO()
    with undeprecated():
        torch.jit.save(module, file)
        file.seek(0)
        copy = torch.jit.load(file, map_location=device)  # type: ignore[no-untyped-call]
    return copy.eval()


def generators() -> list[str]:
    """Names of the shipped generators, for :func:`load_generator` and the `generator` of :func:`gpgan.blend`."""
    return sorted(path.stem for path in _WEIGHTS.glob("*.pt"))


def load_generator(path_or_name: str | os.PathLike[str]) -> Generator:
    """Load a generator.

    Parameters
    ----------
    path_or_name : str or path-like
        A name from :func:`generators`, or a TorchScript file as ``gpgan export`` writes it.

    Returns
    -------
    Generator

    Raises
    ------
    FileNotFoundError
        If it is neither a shipped name nor a file.
    ValueError
        If the file is no TorchScript, lacks its metadata or does not do what they say.
    """
    try:
        name = os.fspath(path_or_name)
    except TypeError:
        raise TypeError(f"generator: expected a name or a path, got {type(path_or_name).__name__}") from None
    if name in generators():
        return _load(_WEIGHTS / f"{name}.pt", None)
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"generator: expected one of {', '.join(map(repr, generators()))} or a TorchScript file, got {name!r}"
        )
    status = path.stat()
    return _load(path.resolve(), (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)
def _openmp() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # finds what is loaded: torch's OpenMP runtime


def _one_thread() -> Any:
    """A context in which the calling thread's torch operations use one core.

    Layers of 64 x 64 pixels are too small to share: on a busy machine waiting for the others takes a hundred times
    the work itself. ``torch.set_num_threads`` would change the whole process; this changes the calling thread alone.
    """
    import torch

    torch.get_num_threads()  # a new thread takes torch's own number first, then ours
    return _openmp().limit(limits=1, user_api="openmp")


@lru_cache(maxsize=8)
def _load(path: Path, stamp: tuple[int, int] | None) -> Generator:
    """`stamp` is what tells one state of the file from another."""
    from gpgan.nn import export

    with _one_thread():
        module, metadata = export.load(path)
    generator = Generator(module, int(metadata["image_size"]), metadata)
    generator.is_shipped = stamp is None
    return generator


def resolve(generator: Any) -> Callable[..., Any] | None:
    """The `generator` argument of :func:`gpgan.blend` as a callable on NumPy arrays.

    Raises
    ------
    TypeError
        If it is no name, path, callable or None.
    """
    if generator is None:
        return None
    if isinstance(generator, (str, os.PathLike)):
        return load_generator(generator)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(generator, torch.nn.Module):
        return Generator(generator, getattr(generator, "image_size", DEFAULT_IMAGE_SIZE))
    if callable(generator):
        callable_generator: Callable[..., Any] = generator
        return callable_generator
    raise TypeError(f"generator: expected a name, a path, a callable or None, got {type(generator).__name__}")


def run(generator: Callable[..., Any], inputs: tuple[Image, Image, Image, Image]) -> Image:
    """Call a generator on the core's four images, of one channel or three, and check what it gives.

    Raises
    ------
    ValueError
        If the result has another shape than the composite, or is not finite or not in [0, 1].
    """
    composite, mask, harmonized, source = inputs
    grey = composite.shape[2] == 1
    if grey:
        composite, harmonized, source = (np.repeat(x, 3, axis=2) for x in (composite, harmonized, source))
    given = generator(composite, mask, harmonized, source)
    try:
        color = np.asarray(given.detach() if hasattr(given, "detach") else given, np.float32)
    except (TypeError, ValueError):
        raise TypeError(
            f"generator: expected it to return an array of shape {composite.shape}, got {type(given).__name__}"
        ) from None
    if color.shape != composite.shape:
        raise ValueError(f"generator: expected it to return shape {composite.shape}, got {color.shape}")
    if not (np.isfinite(color).all() and color.min() > -1e-3 and color.max() < 1 + 1e-3):
        raise ValueError(
            f"generator: expected it to return finite values in [0, 1], got {color.min():.4g} to {color.max():.4g}"
        )
    return color.mean(axis=2, keepdims=True) if grey else color


def run_on_device(generator: Callable[..., Any], inputs: tuple[Any, Any, Any, Any]) -> Any:
    """The same on the core's four tensors, (N, C, S, S) float32 and (N, 1, S, S), of any device.

    Nothing is read back: what the values are the core finds out. A :class:`Generator` takes the whole batch, any other
    callable tensors (S, S, 3) and (S, S), image by image.

    Returns
    -------
    Tensor, shape (N, S, S, C), floating point

    Raises
    ------
    TypeError, ValueError
        If the result is no tensor of floats, of another shape than the composite, or on another device.
    """
    import torch

    composite, mask, harmonized, source = inputs
    side = composite.shape[-1]
    grey = composite.shape[1] == 1
    if grey:
        composite, harmonized, source = (x.expand(-1, 3, -1, -1) for x in (composite, harmonized, source))

    def checked(given: Any, shape: tuple[int, ...]) -> Any:
        if not (isinstance(given, torch.Tensor) and given.is_floating_point()):
            got = given.dtype if isinstance(given, torch.Tensor) else type(given).__name__
            raise TypeError(f"generator: expected it to return a tensor of floats on {place_of(composite)}, got {got}")
        if tuple(given.shape) != shape:
            raise ValueError(f"generator: expected it to return shape {shape}, got {tuple(given.shape)}")
        return given.detach().float()

    def checked_of_callable(given: Any) -> Any:
        color = checked(given, (side, side, 3))
        place = place_of(composite)
        if place_of(color) != place:
            raise ValueError(f"generator: expected it to return a tensor on {place}, got one on {place_of(color)}")
        return color

    if isinstance(generator, Generator):
        given = generator.on_device(composite, mask, harmonized, source)
        color = checked(given, tuple(composite.shape)).permute(0, 2, 3, 1)
    else:
        # Copies, as nobody knows how long they are kept, and a caller may write to what is its own.
        images = [x.permute(0, 2, 3, 1).clone() for x in (composite, harmonized, source)]
        color = torch.stack(
            [
                checked_of_callable(generator(c, m, h, s))
                for c, m, h, s in zip(images[0], mask[:, 0].clone(), images[1], images[2], strict=True)
            ]
        )
    return color.mean(dim=3, keepdim=True) if grey else color
