"""The method for callers: arguments checked, pixels unpacked, the core called, the result packed again."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpgan import _arrays, _core, _cuda_device, _frames, _generator, _options
from gpgan._cuda_arrays import CudaArrays, describe, dtype_name

__all__ = ["Blender", "blend", "clear_cache"]

#: What the core looks up when it is made, besides the processors that it may use.
_CORE_ENVIRONMENT = ("GPGAN_NUM_THREADS", "GPGAN_CPU_TARGET")


@dataclass(frozen=True)
class _Plan:
    """What a core is made for, besides the options: so many images at once, of so many colours, with that S."""

    place: str
    shape: tuple[int, int]
    batch: int
    colors: int
    image_size: int


class Blender:
    """Blend images of one size: plans and workspace are made once.

    Parameters
    ----------
    shape : (H, W) or (H, W, C)
        Of the targets, as NumPy gives it. C counts an alpha channel; without C the images may be grey or in colour.
    generator, mode, color_weight, sigma, equation, carry, pyramid, membrane, inset, device, threads
        See :func:`blend`.

    Raises
    ------
    TypeError, ValueError
        For an option that is not of its type or range.

    Notes
    -----
    Any number of threads may call one Blender; they take turns. For work side by side make one a thread.

    What is planned ahead is one image on `device`, for "auto" on the CPU: name the device where targets will be tensors
    of it. A batch on a CUDA device has a plan of its own, made when one of that many images first comes, and kept until
    one of another number does.

    Examples
    --------
    >>> b = gpgan.Blender(frame.shape)                       # doctest: +SKIP
    >>> for frame in video:                                  # doctest: +SKIP
    ...     show(b(logo, frame, mask))
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        generator: Any = "default",
        mode: str = "default",
        color_weight: float | None = None,
        sigma: float | None = None,
        equation: str | None = None,
        carry: str | None = None,
        pyramid: str | None = None,
        membrane: bool | None = None,
        inset: int | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        expected = "expected (H, W) or (H, W, C) of 1 to 4 channels"
        try:
            sides = tuple(operator.index(n) for n in shape)
        except TypeError:
            raise TypeError(f"shape: {expected} of integers, got {shape!r}") from None
        if len(sides) not in (2, 3) or (len(sides) == 3 and not 1 <= sides[2] <= 4):
            raise ValueError(f"shape: {expected}, got {sides}")
        if min(sides) < 1:
            raise ValueError(f"shape: expected at least 1 x 1 pixels, got {sides[0]} x {sides[1]}")
        _arrays.check_size(sides[0], sides[1], "shape")
        self._device = _cuda_device.check_option(device)
        self._shape = (sides[0], sides[1])
        self._colors = None if len(sides) == 2 else _arrays.color_count(sides[2])
        said = _core.options(_options.of_type("mode", mode, str))
        self._options = {
            "color_weight": _options.optional("color_weight", color_weight, float, said["color_weight"]),
            "sigma": _options.optional("sigma", sigma, float, said["sigma"]),
            "equation": _options.optional("equation", equation, str, said["equation"]),
            "carry": _options.optional("carry", carry, str, said["carry"]),
            "pyramid": _options.optional("pyramid", pyramid, str, said["pyramid"]),
            "membrane": _options.optional("membrane", membrane, bool, said["membrane"]),
            "inset": _options.optional("inset", inset, int, said["inset"]),
            "threads": _options.optional("threads", threads, int, 0),
        }
        self._generator = _generator.resolve(generator)
        self._lock = threading.Lock()
        self._caller: int | None = None  # the thread that holds the lock
        self._core: Any = None  # a Blender of _core or of _cuda
        self._planned: _Plan | None = None
        self._is_checked = True  # whether nothing that the last call was given can still turn out to be wrong
        self._image_size: int = _options.optional(
            "generator.image_size", getattr(self._generator, "image_size", _generator.DEFAULT_IMAGE_SIZE), int, 0
        )
        self._plan_ahead()

    def _plan_ahead(self) -> None:
        place = _cuda_device.resolve(self._device)
        self._plan(_Plan(place, self._shape, 1, self._colors or 3, self._image_size))

    def _plan(self, plan: _Plan) -> Any:
        """The core for a plan; the last one made is kept."""
        if self._core is None or self._planned != plan:
            old, self._core = self._core, None  # its memory is freed before the new one's is made
            if old is not None and self._planned is not None and self._planned.place != "cpu":
                old.synchronize()  # what it has not reported yet
            del old
            self._core, self._planned = self._new_core(plan), plan
        return self._core

    def _new_core(self, plan: _Plan) -> Any:
        options: dict[str, Any] = {**self._options, "image_size": plan.image_size}
        if plan.place == "cpu":
            return _core.Blender(*plan.shape, plan.colors, **options)
        del options["threads"]
        device = int(plan.place.removeprefix("cuda:"))
        stream = _cuda_device.cuda.stream(plan.place)
        module = _cuda_device.cuda.module()

        def make() -> Any:
            return module.Blender(*plan.shape, plan.colors, batch=plan.batch, device=device, stream=stream, **options)

        try:
            return make()
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
        # Torch and earlier calls keep memory that nobody uses.
        _spare_cores.clear()
        _cuda_device.cuda.release_memory()
        return make()

    def synchronize(self) -> None:
        """Wait until the device has done all that it was asked for.

        On a CUDA device a call gives its result at once, and whoever uses it on the same stream waits by that alone.
        Values that are no numbers in [0, 1] only the device sees: the next call reports them, or this. On the CPU
        there is nothing to wait for.

        Raises
        ------
        ValueError
            If the device has come to a value that is NaN, infinite or outside [0, 1], or to a mask that is none.
        RuntimeError
            If the device, its driver or one of its libraries has failed.
        """
        if self._caller == threading.get_ident():
            raise RuntimeError("generator: expected it not to call the Blender that is calling it")
        with self._lock:
            if self._core is not None and self._planned is not None and self._planned.place != "cpu":
                self._core.synchronize()

    def __call__(
        self,
        source: Any,
        target: Any,
        mask: Any = None,
        *,
        offset: tuple[int, int] = (0, 0),
        lowres: Any = None,
        out: Any = None,
    ) -> Any:
        """Blend one image, or one batch of them; see :func:`blend`."""
        place = _cuda_device.place_for(self._device, target)
        arrays = _arrays_for(place, target)
        given = _frames.unpack(arrays, source, target, mask, offset, out)
        sources, targets, masks, result = given.sources, given.targets, given.masks, given.out
        count, shape = len(targets), tuple(targets.shape[1:3])
        if shape != self._shape or self._colors not in (None, given.colors):
            raise ValueError(
                f"target: expected {self._shape[0]} x {self._shape[1]} pixels"
                + (f" of {self._colors} colours" if self._colors else "")
                + f" as planned, got {shape[0]} x {shape[1]} of {given.colors}"
            )
        low = None if lowres is None else _lowres(arrays, lowres, given.colors, count)
        if out is not None and low is not None:
            low = arrays.apart(low, result.pixels)

        if self._caller == threading.get_ident():
            raise RuntimeError("generator: expected it not to call the Blender that is calling it")
        with self._lock:
            self._caller = threading.get_ident()
            try:
                size = self._image_size if low is None else low.shape[1]
                core = self._plan(_Plan(place, self._shape, 1 if place == "cpu" else count, given.colors, size))
                inputs = (core, sources, targets, masks, given.offset, low, result.pixels)
                if isinstance(arrays, CudaArrays):
                    self._blend_batch(arrays, *inputs)
                else:
                    self._blend_all(*inputs)
            finally:
                self._caller = None
        return result.restore(result.pixels)

    def _blend_all(
        self,
        core: _core.Blender,
        sources: _arrays.Pixels,
        targets: _arrays.Pixels,
        masks: _arrays.Pixels | None,
        offset: tuple[int, int],
        lowres: _arrays.Pixels | None,
        out: _arrays.Pixels,
    ) -> None:
        for i in range(len(targets)):
            self._blend_one(
                core,
                sources[i % len(sources)],
                targets[i],
                None if masks is None else masks[i % len(masks)],
                offset,
                None if lowres is None else lowres[i % len(lowres)],
                out[i],
            )

    def _blend_one(
        self,
        core: _core.Blender,
        source: _arrays.Pixels,
        target: _arrays.Pixels,
        mask: _arrays.Pixels | None,
        offset: tuple[int, int],
        lowres: _arrays.Pixels | None,
        out: _arrays.Pixels,
    ) -> None:
        colors = slice(0, _arrays.color_count(target.shape[2]))
        # Kept in a name until finish: the core looks at the target's memory again there.
        readable = _arrays.core_readable(target[..., colors])
        inputs = core.prepare(_arrays.core_readable(source), readable, mask, offset)
        if core.unchanged:
            np.copyto(out, target)
            return
        if lowres is None and self._generator is not None:
            lowres = _generator.run(self._generator, inputs)
        if readable.dtype == out.dtype and out.flags.aligned:
            core.finish(lowres, out[..., colors])
        else:
            result = np.empty_like(readable)
            core.finish(lowres, result)
            out[..., colors] = result
        if out.shape[2] > colors.stop:
            out[..., -1] = target[..., -1]

    def _blend_batch(
        self,
        arrays: CudaArrays,
        core: Any,
        sources: Any,
        targets: Any,
        masks: Any,
        offset: tuple[int, int],
        lowres: Any,
        out: Any,
    ) -> None:
        """On a CUDA device, all images at once; nothing is waited for unless the images come from the host."""
        import torch

        cuda, place, count = _cuda_device.cuda, arrays.place, len(targets)
        colors = _arrays.color_count(targets.shape[3])
        # Kept in names until finish: the core looks at the memory of both again there.
        source, target = arrays.core_readable(sources), arrays.core_readable(targets[..., :colors])
        result = out[..., :colors] if target.dtype == out.dtype else torch.empty_like(target)
        stream = cuda.stream(place)
        inputs = core.prepare(
            describe(source, count),
            describe(target, count),
            None if masks is None else describe(masks[..., None], count),
            offset,
            stream,
        )
        generator = self._generator if lowres is None else None
        if generator is not None:
            lowres = _generator.run_on_device(
                generator, tuple(cuda.wrap(core, address, shape, place, stream) for address, shape in inputs)
            )
        core.finish(None if lowres is None else describe(lowres, count), describe(result, count), stream)
        with torch.inference_mode():  # which takes tensors that were made in it, too
            if result.dtype != out.dtype:
                out[..., :colors].copy_(result)
            if out.shape[3] > colors and not arrays.are_same(targets, out):
                out[..., -1].copy_(targets[..., -1])
        trusted = generator is None or getattr(generator, "is_shipped", False)
        given = [x for x in (source, target, masks, None if trusted else lowres) if x is not None]
        self._is_checked = not any(dtype_name(x).startswith("float") for x in given)
        if arrays.home == "cpu":  # where the result is waited for anyway
            core.synchronize()
            self._is_checked = True


class _SpareCores:
    """Cores that calls of :func:`blend` leave to later ones: a core's memory is most of what a new one costs.

    They know nothing of generators and hold no pixels of callers but copies. Whoever takes one has it alone, so that
    calls side by side never wait for each other.
    """

    COUNT = 4
    PIXELS = 1 << 24  # of all together, two images of 3840 x 2160

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cores: list[tuple[Hashable, int, Any]] = []  # the oldest first

    def take(self, key: Hashable) -> Any:
        with self._lock:
            for i in range(len(self._cores) - 1, -1, -1):
                if self._cores[i][0] == key:
                    return self._cores.pop(i)[2]
        return None

    def give(self, key: Hashable, pixels: int, core: Any) -> None:
        dropped = []  # freed once the lock is
        with self._lock:
            self._cores.append((key, pixels, core))
            while len(self._cores) > self.COUNT or sum(size for _, size, _ in self._cores) > self.PIXELS:
                dropped.append(self._cores.pop(0))

    def clear(self) -> None:
        with self._lock:
            dropped, self._cores = self._cores, []
        del dropped


_spare_cores = _SpareCores()
_parents_cores: list[Any] = []


def _after_fork_in_child() -> None:
    """Start anew, as the lock may be another thread's at that moment.

    The parent's cores are never freed here: CUDA does not survive a fork, and to free its memory in the child may hang.
    """
    _parents_cores.append(_spare_cores._cores)
    _spare_cores.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def clear_cache() -> None:
    """Free the working memory that calls of :func:`blend` keep for the next call of the same size and options.

    They keep at most four workspaces, for 2**24 pixels in all; larger images leave none behind.
    """
    _spare_cores.clear()


class _BlenderOnce(Blender):
    """For one call: its core comes from an earlier call where one has left it."""

    _key: Hashable = None

    def _plan_ahead(self) -> None:
        """Nothing: the call comes next, and knows what it needs."""

    def _new_core(self, plan: _Plan) -> Any:
        # Checked by now, so that no two values that only look equal (1, 1.0 and True) meet here.
        environment = tuple(map(os.environ.get, _CORE_ENVIRONMENT))
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        self._key = (plan.shape, plan, tuple(self._options.values()), environment, processors)
        return _spare_cores.take(self._key) or super()._new_core(plan)

    def leave_core(self) -> None:
        """To be called after success alone: a core that has thrown is not worth keeping."""
        if not self._is_checked:
            self.synchronize()  # what is wrong with this call is not for a later one to hear
        core, plan, self._core, self._planned = self._core, self._planned, None, None
        if core is not None and plan is not None:
            _spare_cores.give(self._key, plan.batch * plan.shape[0] * plan.shape[1], core)


def blend(
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    offset: tuple[int, int] = (0, 0),
    generator: Any = "default",
    lowres: Any = None,
    mode: str = "default",
    color_weight: float | None = None,
    sigma: float | None = None,
    equation: str | None = None,
    carry: str | None = None,
    pyramid: str | None = None,
    membrane: bool | None = None,
    inset: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    out: Any = None,
) -> Any:
    """Paste the masked source into the target so that the result looks like one photograph.

    GP-GAN [1]_: a generator gives the colour at low resolution, a Gaussian-Poisson equation solved in closed form on
    every level of a pyramid gives the detail.

    Parameters
    ----------
    source, target : ndarray, PIL.Image.Image or torch.Tensor
        Arrays (H, W) or (H, W, 3), or with alpha (H, W, 2) or (H, W, 4), of uint8, uint16, float16, float32 or
        float64, floats in [0, 1]; PIL images; tensors (C, H, W) or (N, C, H, W). The source's alpha multiplies the
        mask, and its colours under alpha 0 never count; the target's alpha passes through. Neither is written to.
    mask : the same kinds, optional
        Where the source shows, of the source's size: bool, floats in [0, 1], integers from 0 to their dtype's largest,
        or integers 0 and 1. Of RGBA masks the alpha counts; RGB must be grey. Soft masks are valid. None: the source's
        alpha.
    offset : (int, int), default (0, 0)
        (top, left) of the source in the target, in pixels. Parts that fall outside are clipped.
    generator : str, path, callable or None, default "default"
        Gives the colour: a shipped one's name (:func:`gpgan.generators`), a TorchScript file, a
        ``callable(composite, mask, harmonized, source) -> colour`` on float32 arrays (S, S, 3) and (S, S) with S its
        ``image_size`` attribute or 64, or None for the downsampled composite itself (section 4.5 of [1]_).
    lowres : array (S, S, 3), optional
        The colour itself, in place of a generator's; any S up to 1024.
    mode : {"default", "paper", "released"}
        What the options below are where they are None: this library's best, the paper's Algorithm 1, or what the
        authors' released program does.
    color_weight : float, optional
        lambda of the equation, the paper's beta; 1. Larger follows the colour, smaller the gradients.
    sigma : float, optional
        Of the Gaussian on the colour constraint, in pixels; 0.5.
    equation : {"gaussian-poisson", "screened"}, optional
        The paper's Eq. 9, or the released program's.
    carry : {"correction", "image"}, optional
        What a level of the pyramid hands to the next: the change to its composite, or its image.
    pyramid : {"aspect", "square"}, optional
        Levels of the image's own aspect, or the released program's squares.
    membrane : bool, optional
        Bring the source to the target's colours at the seam first, by Poisson cloning.
    inset : int, optional
        Pixels by which the mask is eroded first, so that the seam lies inside the object; 2 by default, 0 where the
        source has alpha.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where to compute. "auto" follows the target: a CUDA tensor's own device, the CPU for all else. CUDA tensors are
        blended on torch's current stream, as one batch, and all arguments must lie on their device. With "cuda" images
        of the host's memory are copied there, and the result back. A callable `generator` gets tensors of the device
        there, image by image.
    threads : int, optional
        For the core; None: GPGAN_NUM_THREADS, or as many as the machine has.
    out : array or tensor, optional
        Of the target's type, shape and dtype, to be filled and returned. May be the target itself.

    Returns
    -------
    The target's type, shape, dtype and device.

    Raises
    ------
    TypeError
        If an argument is of a wrong type or dtype; the message names it, what was expected and what came.
    ValueError
        Likewise for wrong shapes, sizes and values: NaN, infinity, floats outside [0, 1], unknown option names, images
        over :func:`gpgan.max_pixels`.
    FileNotFoundError
        If `generator` names no file.
    RuntimeError
        If a CUDA device, its driver or one of its libraries fails.

    References
    ----------
    .. [1] H. Wu et al., "GP-GAN: Towards Realistic High-Resolution Image Blending", ACM Multimedia 2019.

    Examples
    --------
    >>> result = gpgan.blend(source, target, mask)           # doctest: +SKIP
    """
    home = _cuda_device.place_of(target)
    picture = (_arrays if home == "cpu" else CudaArrays(home, home)).image(target, "target")
    blender = _BlenderOnce(
        (*picture.shape, picture.pixels.shape[3]),
        # A colour that is given needs no generator loaded.
        generator=None if lowres is not None else generator,
        mode=mode,
        color_weight=color_weight,
        sigma=sigma,
        equation=equation,
        carry=carry,
        pyramid=pyramid,
        membrane=membrane,
        inset=inset,
        device=device,
        threads=threads,
    )
    result = blender(source, target, mask, offset=offset, lowres=lowres, out=out)
    blender.leave_core()
    return result


def _arrays_for(place: str, target: Any) -> Any:
    """Who makes pixels of arguments: the module for the host's arrays, or its twin for a device's."""
    return _arrays if place == "cpu" else CudaArrays(place, _cuda_device.place_of(target))


def _lowres(arrays: Any, value: Any, colors: int, count: int) -> Any:
    """`lowres` as (1 or N, S, S, C)."""
    picture = arrays.image(value, "lowres")
    height, width = picture.shape
    if height > 1024:
        raise ValueError(f"lowres: expected up to 1024 pixels a side, got {height} x {width}")
    if height != width or picture.has_alpha or picture.colors != colors:
        raise ValueError(
            f"lowres: expected a square image of {colors} colour channel(s), "
            f"got {height} x {width} of {picture.pixels.shape[3]}"
        )
    if len(picture.pixels) not in (1, count):
        raise ValueError(f"lowres: expected a batch of 1 or {count}, got {len(picture.pixels)}")
    return arrays.core_readable(picture.pixels)
