"""Methods by name: gpgan's own, the baselines, OpenCV's where it is installed, and any function that is registered."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gpgan
from gpgan import _frames
from gpgan.evaluation.items import RESERVED, Inputs, Pixels

__all__ = ["Method", "default_methods", "method", "method_names", "parse_method", "register"]

Prepare = Callable[[Inputs], Any]
Run = Callable[[Any], Any]
Function = Callable[[Pixels, Pixels, Pixels], Any]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _as_they_are(inputs: Inputs) -> Inputs:
    return inputs


@dataclass(frozen=True)
class Method:
    """A method with its options, ready to run.

    Attributes
    ----------
    label : str
        What it is called in the tables, and the stem of its files: letters, digits, ``.``, ``_`` and ``-``.
    name : str
        Of the registered method, or of the function.
    run : callable(what `prepare` gives) -> image
    options : dict
    version : str
        Of what computes it: results of another one are computed anew.
    prepare : callable(Inputs), optional
        What the time that it takes is not counted of, such as bringing the colours into another order.
    """

    label: str
    name: str
    run: Run = field(compare=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    prepare: Prepare = field(default=_as_they_are, compare=False)

    def __call__(self, inputs: Inputs) -> Pixels:
        """The result, uint8 (H, W, 3).

        Raises
        ------
        TypeError, ValueError
            If the method gives no image of the target's size: uint8, or floats in [0, 1] within rounding.
        """
        return self.timed(inputs)[0]

    def timed(self, inputs: Inputs) -> tuple[Pixels, float]:
        """What a call gives, and the seconds that the method took; raises the same."""
        given = self.prepare(inputs)
        start = time.perf_counter()
        result = self.run(given)
        seconds = time.perf_counter() - start
        return _pixels(result, inputs.target.shape), seconds

    def identity(self) -> dict[str, Any]:
        """What tells its results from others', for a JSON file; of options that are files, the content.

        Objects say nothing of their content. With one among its options a method is like no other that is made, and
        only it takes results that are there for its own.
        """
        return dict(self._identity)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        options = {key: _option_identity(key, value) for key, value in sorted(self.options.items())}
        return {"name": self.name, "options": options, "version": self.version}


@dataclass(frozen=True)
class _Registered:
    """A method before it has options."""

    make: Callable[[dict[str, Any]], Run]
    accepted: Callable[[], set[str]]
    version: Callable[[], str]
    prepare: Prepare = _as_they_are
    is_default: bool = True
    takes_any: bool = False


_registered: dict[str, _Registered] = {}


def register(name: str, function: Function, *, version: str = "") -> None:
    """Make a function a method for :func:`evaluate`, by a name.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``; of a registered function, it takes that one's place.
    function : callable(source, target, mask, **options) -> image
        Takes uint8 arrays, source and target (H, W, 3) and mask (H, W) from 0 to 255, and gives uint8, or floats in
        [0, 1], (H, W, 3). The arrays are its own to write to. Further arguments are its options, of any name where it
        has ``**options``.
    version : str, optional
        Change it when the function changes, so that a run that goes on computes it anew.

    Raises
    ------
    ValueError
        If the name is none, or one of the methods that come with gpgan.

    Examples
    --------
    >>> gpgan.evaluation.register("mean", lambda source, target, mask: (source // 2 + target // 2))
    """
    _check_label(name, "name")
    if not callable(function):
        raise TypeError(f"function: expected a callable(source, target, mask), got {type(function).__name__}")
    key = _canonical(name)
    if key in _built_in():
        raise ValueError(f"name: {name!r} is a method that comes with gpgan")
    for known in [other for other in _registered if _canonical(other) == key]:
        del _registered[known]

    def make(options: dict[str, Any]) -> Run:
        return lambda images: function(*images, **options)

    def copies(inputs: Inputs) -> list[Pixels]:
        # So that a function that writes to what it is given spoils nothing for the others.
        return [pixels.copy() for pixels in inputs.framed]

    _registered[name] = _Registered(
        make, lambda: _keywords(function, 3), lambda: version, copies, is_default=False, takes_any=_takes_any(function)
    )


def method_names() -> list[str]:
    """The methods that can be had here, those that come with gpgan first."""
    return [*(registered[0] for registered in _built_in().values()), *_registered]


def default_methods() -> list[Method]:
    """One of each method that comes with gpgan and whose packages are installed, with no options."""
    return [method(name) for name, registered in _built_in().values() if registered.is_default]


def method(name: str, *, label: str | None = None, **options: Any) -> Method:
    """A method by its name.

    Parameters
    ----------
    name : str
        One of :func:`method_names`; ``-`` and ``_`` are the same.
    label : str, optional
        What to call it; by default its name, followed by the options.
    **options
        Of the function behind it: for ``gpgan`` and its kin those of :func:`gpgan.blend`, for baselines those of their
        function in :mod:`gpgan.baselines`.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        If there is no such method, or it has no such option.
    """
    found = _built_in().get(_canonical(name)) or next(
        ((known, entry) for known, entry in _registered.items() if _canonical(known) == _canonical(name)), None
    )
    if found is None:
        hint = "; OpenCV is not installed" if _canonical(name).startswith("opencv") else ""
        raise ValueError(f"method: expected one of {', '.join(method_names())}, got {name!r}{hint}")
    name, registered = found
    unknown, accepted = sorted(set(options) - registered.accepted()), registered.accepted()
    if unknown and not registered.takes_any:
        expected = f"one of {', '.join(sorted(accepted))}" if accepted else "none"
        raise ValueError(f"method {name}: expected as option {expected}, got {unknown[0]!r}")
    if label is None:
        parts = [re.sub(r"[^A-Za-z0-9.]+", "-", f"{key} {_short(value)}").strip("-.") for key, value in options.items()]
        label = "-".join([name, *parts])[:64].rstrip("-.")
    _check_label(label, "method")
    return Method(label, name, registered.make(dict(options)), dict(options), registered.version(), registered.prepare)


def parse_method(text: str) -> Method:
    """A method from ``[LABEL=]NAME[:option=value,...]``, as the command line has it.

    Values are Python's numbers, ``true``, ``false`` or ``none``, or else text.

    Raises
    ------
    ValueError
        If the text, the name, an option or an option's value is wrong; values are tried on a small picture.
    """
    head, colon, tail = text.partition(":")
    label, equals, name = head.rpartition("=")
    if (equals and not label) or not name:
        raise ValueError(f"method: expected [LABEL=]NAME[:option=value,...], got {text!r}")
    options: dict[str, Any] = {}
    for setting in tail.split(",") if colon else []:
        key, equals_, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals_ or not key or key in options or not key.isidentifier() or key in ("label", "name"):
            raise ValueError(f"method: expected option=value, each once, after {head!r}, got {setting!r}")
        options[key] = _value(value.strip())
    found = method(name, label=label or None, **options)
    if options:
        try:
            warm_up(found)
        except Exception as error:
            raise ValueError(f"method {text!r}: {error}") from error
    return found


def as_methods(given: Iterable[str | Method] | None) -> list[Method]:
    """Methods of different labels, from methods and texts.

    Raises
    ------
    TypeError, ValueError
        If one is none of these, or two have one label.
    """
    if isinstance(given, (str, Method)):
        given = [given]
    methods = default_methods() if given is None else [
        entry if isinstance(entry, Method) else parse_method(entry) for entry in _texts(given)
    ]  # fmt: skip
    labels: set[str] = set()
    for entry in methods:
        _check_label(entry.label, "method")
        if entry.label.lower() in labels:
            raise ValueError(f"method: expected labels that differ, got {entry.label!r} twice")
        labels.add(entry.label.lower())
    if not methods:
        raise ValueError("method: expected one at least, got none")
    return methods


def _texts(given: Iterable[Any]) -> Iterable[Any]:
    for entry in given:
        if not isinstance(entry, (str, Method)):
            raise TypeError(f"method: expected a name or a gpgan.evaluation.Method, got {type(entry).__name__}")
        yield entry


def warm_up(method: Method) -> None:
    """Run a method on a small picture, so that no time that is reported holds an import or a model that is loaded."""
    y, x = np.mgrid[0:48, 0:64]
    source = np.stack([90 + x, 60 + y, 120 + x // 2], -1).astype(np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[12:36, 16:48] = 255
    method(Inputs(source, source[::-1, ::-1].copy(), mask))


# ------------------------------------------------------------------------------------------------ those that are here


def _built_in() -> dict[str, tuple[str, _Registered]]:
    """By canonical name, in the order of the tables: the paper's Table 1 from its input to its own method."""
    baselines = gpgan.baselines
    found = {
        "copy_paste": _of_function(baselines.copy_paste),
        "alpha": _of_function(baselines.alpha),
        "multiband": _of_function(baselines.multiband),
        "poisson": _of_function(baselines.poisson),
        "poisson-mixed": _of_function(baselines.poisson, mode="mixed"),
        "poisson-monochrome": _of_function(baselines.poisson, mode="monochrome"),
        "modified_poisson": _of_function(baselines.modified_poisson),
        "multi_spline": _of_function(baselines.multi_spline),
        "seamless_clone": _Registered(_seamless_clone, lambda: {"flags"}, lambda: gpgan.__version__, _for_cloning),
    }
    if _has_opencv():
        for name, flag in _FLAGS.items():
            found[f"opencv-{name}"] = _opencv(flag)
    found["gpgan-no-generator"] = _of_function(gpgan.blend, generator=None)
    found["gpgan-paper"] = _of_function(gpgan.blend, mode="paper")
    found["gpgan-released"] = _of_function(gpgan.blend, mode="released")
    found["gpgan"] = _of_function(gpgan.blend)
    return {_canonical(name): (name, registered) for name, registered in found.items()}


def _of_function(function: Callable[..., Any], **fixed: Any) -> _Registered:
    """A function with the arguments of :func:`gpgan.blend`."""

    def make(options: dict[str, Any]) -> Run:
        given = fixed | options

        def run(inputs: Inputs) -> Any:
            if isinstance(given.get("generator"), str):  # once, and not by a cache that others share
                given["generator"] = gpgan.load_generator(given["generator"])
            return function(inputs.source, inputs.target, inputs.mask, offset=inputs.offset, **given)

        return run

    def accepted() -> set[str]:
        return _keywords(function, 3) - {"offset", "out", *fixed}

    return _Registered(make, accepted, lambda: gpgan.__version__)


#: By the names that options and methods have, the flags of OpenCV and of :func:`gpgan.seamless_clone`.
_FLAGS = {"normal": 1, "mixed": 2, "monochrome": 3}
_ToClone = tuple[Pixels, Pixels, Pixels, tuple[int, int]]


def _seamless_clone(options: dict[str, Any]) -> Run:
    said = str(options.get("flags", "normal"))

    def run(images: _ToClone) -> Any:
        if said not in _FLAGS:
            raise ValueError(f"flags: expected {', '.join(_FLAGS)}, got {said!r}")
        return gpgan.seamless_clone(*images, _FLAGS[said])[..., ::-1]

    return run


def _opencv(flag: int) -> _Registered:
    def prepare(inputs: Inputs) -> _ToClone:
        # It knows no soft masks, and erodes the one that it is given in place.
        mask = np.where(inputs.framed[2] > 127, 255, 0).astype(np.uint8)
        if not mask.any():
            raise ValueError("mask: expected values above one half for OpenCV's seamlessClone, got none")
        return _for_cloning(inputs, mask)

    def run(images: _ToClone) -> Any:
        import cv2

        return np.asarray(cv2.seamlessClone(*images, flag))[..., ::-1]

    def version() -> str:
        return f"OpenCV {importlib.import_module('cv2').__version__}"

    return _Registered(lambda options: run, set, version, prepare)


def _for_cloning(inputs: Inputs, mask: Pixels | None = None) -> _ToClone:
    """What OpenCV's seamlessClone takes: source, target, mask, and the point of the target for the mask's middle."""
    source, target, soft = inputs.framed
    mask = soft if mask is None else mask
    # The point is the middle of the mask's bounding box, for which pixels on the border do not count.
    inner = mask.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = 0
    rows, columns = _frames.bounding_box((inner if inner.any() else mask) > 0)
    x, y = (side.start + (side.stop - side.start) // 2 for side in (columns, rows))
    # Blue comes first there, which matters where colours are turned to grey.
    return np.ascontiguousarray(source[..., ::-1]), np.ascontiguousarray(target[..., ::-1]), mask, (x, y)


@lru_cache(maxsize=1)
def _has_opencv() -> bool:
    """Whether cv2 is there, works and has its photo module."""
    try:
        return importlib.util.find_spec("cv2") is not None and hasattr(importlib.import_module("cv2"), "seamlessClone")
    except Exception:  # a broken installation raises what it likes
        return False


# --------------------------------------------------------------------------------------------------------------- parts


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def _check_label(label: str, argument: str) -> None:
    if not _LABEL.fullmatch(label) or label.lower() in RESERVED:
        raise ValueError(
            f"{argument}: expected up to 64 letters, digits, '.', '_' and '-' that begin with a letter or digit "
            f"and are none of {', '.join(RESERVED)}, got {label!r}"
        )


def _keywords(function: Callable[..., Any], positional: int) -> set[str]:
    """What a function takes by keyword besides its first arguments."""
    parameters = list(inspect.signature(function).parameters.values())[positional:]
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {parameter.name for parameter in parameters if parameter.kind in kinds} - {"lowres"}


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values()
    )


def _value(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, (int, float)) else text


def _short(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return Path(value).stem
    if value is None or isinstance(value, (bool, int, float, list, tuple)):
        return str(value)
    return str(getattr(value, "__name__", type(value).__name__))


def _option_identity(key: str, value: Any) -> Any:
    if key == "generator" and isinstance(value, (str, os.PathLike)):
        shipped = Path(gpgan.__file__).parent / "weights" / f"{os.fspath(value)}.pt"
        value = shipped if os.fspath(value) in gpgan.generators() else value
    if isinstance(value, (str, os.PathLike)) and Path(value).is_file():
        return {"sha256": hashlib.sha256(Path(value).read_bytes()).hexdigest()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_option_identity("", entry) for entry in value]
    return {"type": f"{type(value).__module__}.{type(value).__qualname__}", "object": secrets.token_hex(8)}


def _pixels(result: Any, shape: tuple[int, ...]) -> Pixels:
    pixels: npt.NDArray[Any] = np.asarray(result)
    if pixels.shape != shape:
        raise ValueError(f"expected a result of the target's shape {shape}, got {pixels.shape}")
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype.kind != "f":
        raise TypeError(f"expected a result of uint8 or of floats in [0, 1], got {pixels.dtype}")
    if not np.isfinite(pixels).all() or pixels.min() < -0.5 or pixels.max() > 1.5:
        raise ValueError(f"expected a result of floats in [0, 1], got {pixels.min():g} to {pixels.max():g}")
    rounded: Pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return rounded
