"""What decides a training run: one flat dataclass, the two recipes, and how both are read from text.

Imports no torch, so that the command line can refuse bad settings at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

__all__ = ["DEFAULT", "PAPER", "RECIPES", "TrainConfig", "from_json", "read_config", "with_settings"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run. The defaults are the paper's (section 4 and the authors' program).

    Parameters
    ----------
    run : str
        Folder of the run.
    scenes : str
        ``ROOT`` of ``ROOT/<camera>/*.jpg``.
    photos, masks : tuple of str
        Folders of single photos (for simulated pairs and unrelated surroundings), and of drawn masks or LabelMe
        annotations.
    held_out : tuple of str
        Cameras below `scenes` for validation only.
    held_out_masks : str or None
        ``ROOT`` of ``ROOT/<camera>/*``: drawn masks that are valid for every frame of a held-out camera. Cameras
        without any, and None, get object-like masks at random.
    exclude : tuple of str
        Cameras to leave alone altogether.
    crop_file : str or None
        Boxes to which the frames of each camera are cropped, as `gpgan.nn.data.read_crops` reads them.
    pairs, seed, workers
        Training samples, what decides them, processes that compute them.
    pool : bool
        Compute all samples once, before training, instead of whenever they are needed.
    augment : bool
        Flips, channel permutations and gains on each batch.
    centred_square, membrane
        See `PairDataset`; without `membrane`, validation blends with ``mode="paper"``.
    crops : bool
        Random crops, and with them all the variety of `PairDataset`: simulated pairs, unrelated surroundings
        and the rest. Otherwise whole aligned frames, as in the paper.
    architecture : str
        ``"blending-gan"`` (the paper) or ``"color-corrector"`` (the shipped default).
    inputs : str
        An ablation. ``"all"``: what the contract gives. ``"harmonized"`` and ``"composite"``: that image and the mask
        alone, with black for what surrounds the source; the network starts from the image that it sees.
    image_size, width, bottleneck, critic_width
        See the networks; `bottleneck` is the paper's alone.
    loss : str
        ``"l2"``: mean squared error of the whole image. ``"decibel"``: log10 of the error inside the mask,
        sample by sample and relative to the harmonized composite's, which is what PSNR measures.
    harm : float
        How much more a decibel lost weighs than one won, in the loss ``"decibel"``.
    reconstruction : float
        lambda of the paper's Eq. 2: ``lambda * loss + (1 - lambda) * adversarial``; 1 trains without a
        critic.
    clip : float
        The critic's weights stay within +-clip (WGAN).
    critic_steps, critic_boost, boost_first, boost_every
        Critic steps per generator step: `critic_boost` in the first `boost_first` and every `boost_every`-th
        step, otherwise `critic_steps`.
    learning_rate, critic_learning_rate, beta1, weight_decay
        Adam; decoupled weight decay of the generator.
    gradient_norm : float or None
        The generator's gradient is scaled down to this norm where it is larger; None leaves it alone.
    schedule : str
        ``"constant"``, or ``"cosine"``: a short linear start, then to 0 at the last step.
    batch_size, epochs, steps, stop
        `steps` generator steps; None: ``epochs * pairs / batch_size``. `stop` ends the run earlier, at that step of the
        same schedule. Several processes share a batch.
    average : float
        Decay of the running average of the weights that is validated and exported; 0 for none.
    validate_every, validation_pairs, validation_rows : int
        Steps between validations (and checkpoints), the pairs that each of them blends, and the height to which
        larger frames are shrunk first.
    precision : str
        Of convolutions and linear layers, in training alone: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16
        where the processor computes in it. All else is float32.
    threads : int or None
        Torch threads; None leaves them alone.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    TypeError, ValueError
        For a value of another type or range; the message names the field.
    """

    run: str
    scenes: str
    photos: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    held_out_masks: str | None = None
    exclude: tuple[str, ...] = ()
    crop_file: str | None = None
    pairs: int = 150_000
    seed: int = 0
    workers: int = 0
    pool: bool = False
    augment: bool = False
    centred_square: bool = True
    membrane: bool = False
    crops: bool = False
    architecture: str = "blending-gan"
    inputs: str = "all"
    image_size: int = 64
    width: int = 64
    bottleneck: int = 4000
    critic_width: int = 64
    loss: str = "l2"
    harm: float = 1.0
    reconstruction: float = 0.999
    clip: float = 0.01
    critic_steps: int = 5
    critic_boost: int = 100
    boost_first: int = 25
    boost_every: int = 500
    learning_rate: float = 0.002
    critic_learning_rate: float = 0.0002
    beta1: float = 0.5
    weight_decay: float = 0.0
    gradient_norm: float | None = None
    schedule: str = "constant"
    batch_size: int = 64
    epochs: int = 25
    steps: int | None = None
    stop: int | None = None
    average: float = 0.0
    validate_every: int = 500
    validation_pairs: int = 64
    validation_rows: int = 384
    precision: str = "float32"
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            _check_type(name, getattr(self, name), kind)
        choices = {
            "architecture": ("blending-gan", "color-corrector"), "inputs": ("all", "harmonized", "composite"),
            "loss": ("l2", "decibel"), "schedule": ("constant", "cosine"),
            "precision": ("float32", "bfloat16", "auto"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, but is {getattr(self, name)!r}")
        for name in (
            "pairs", "batch_size", "epochs", "steps", "stop", "critic_steps", "critic_boost", "boost_every",
            "validate_every", "validation_pairs", "threads",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if self.batch_size > self.pairs:
            raise ValueError(f"batch_size must be at most pairs, {self.pairs}, but is {self.batch_size}")
        if self.validation_rows < 32:
            raise ValueError(f"validation_rows must be at least 32, but is {self.validation_rows}")
        for name in ("seed", "workers", "boost_first", "harm", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, but is {getattr(self, name)}")
        for name in ("clip", "learning_rate", "critic_learning_rate", "gradient_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, but is {value}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu or cuda, but is {self.device!r}")
        if not 0 <= self.reconstruction <= 1:
            raise ValueError(f"reconstruction must lie in [0, 1], but is {self.reconstruction}")
        for name in ("average", "beta1"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), but is {getattr(self, name)}")

    @property
    def last_step(self) -> int:
        """Generator steps of the whole schedule."""
        return self.steps if self.steps is not None else self.epochs * self.pairs // self.batch_size

    @property
    def stop_step(self) -> int:
        """Generator steps of the run."""
        return self.last_step if self.stop is None else min(self.stop, self.last_step)


def _check_type(name: str, value: Any, kind: Any) -> None:
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for one in allowed:
        if typing.get_origin(one) is tuple:
            if isinstance(value, tuple) and all(isinstance(x, str) for x in value):
                return
        elif one is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                return
        elif isinstance(value, one) and (one is bool or not isinstance(value, bool)):
            return
    raise TypeError(f"{name} must be {_said(kind)}, but is {value!r}")


def _said(kind: Any) -> str:
    """A field's type in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_said(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list of texts"
    words = {str: "a text", int: "an integer", float: "a finite number", bool: "true or false", types.NoneType: "none"}
    return words[kind]


_KINDS: dict[str, Any] = typing.get_type_hints(TrainConfig)

PAPER = TrainConfig(run="runs/paper", scenes="data/aligned")

DEFAULT = TrainConfig(
    run="runs/default", scenes="data/aligned", pairs=32_000, pool=True, augment=True, centred_square=False,
    membrane=True, crops=True, architecture="color-corrector", width=16, critic_width=16, loss="decibel",
    critic_steps=1, critic_boost=1, learning_rate=0.001, beta1=0.9, weight_decay=0.05, gradient_norm=5.0,
    schedule="cosine", steps=1_200, batch_size=32, validate_every=150, average=0.995, precision="auto",
)  # fmt: skip

RECIPES = {"paper": PAPER, "default": DEFAULT}


def from_json(said: Mapping[str, Any]) -> TrainConfig:
    """A configuration from a JSON object; fields that it does not name have their defaults, the paper's.

    Raises
    ------
    TypeError, ValueError
        For unknown fields and for values that are none of theirs.
    """
    _require_known(said)
    known: dict[str, Any] = {"run": PAPER.run, "scenes": PAPER.scenes} | dict(said)
    lists = {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    return TrainConfig(**(known | lists))


def read_config(name: str | os.PathLike[str]) -> TrainConfig:
    """``"paper"``, ``"default"``, or a JSON file of fields such as a run's ``config.json``."""
    if name in RECIPES:
        return RECIPES[os.fspath(name)]
    path = Path(name)
    if not path.is_file():
        recipes = ", ".join(RECIPES)
        raise FileNotFoundError(f"config must be one of {recipes} or a JSON file, but is {os.fspath(name)!r}")
    try:
        said = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"config: {os.fspath(name)!r} is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ValueError(f"config: {os.fspath(name)!r} must hold a JSON object, but holds {type(said).__name__}")
    return from_json(said)


def with_settings(config: TrainConfig, settings: Mapping[str, str]) -> TrainConfig:
    """`config` with some fields from text: ``true``, ``false``, ``none``, numbers, lists with commas."""
    _require_known(settings)
    return replace(config, **{name: _parse(name, text) for name, text in settings.items()})


def _require_known(names: Mapping[str, Any]) -> None:
    if unknown := sorted(set(names) - {field.name for field in fields(TrainConfig)}):
        raise ValueError(f"no such field: {', '.join(unknown)}; there are {', '.join(_KINDS)}")


def _parse(name: str, text: str) -> Any:
    kind = _KINDS[name]
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if types.NoneType in allowed and text.lower() == "none":
        return None
    if typing.get_origin(kind) is tuple:
        return tuple(part for part in text.split(",") if part)
    if str in allowed:
        return text
    if bool in allowed:
        return {"true": True, "false": False}.get(text.lower(), text)  # the type check names what is neither
    try:
        return int(text) if int in allowed else float(text)
    except ValueError:
        raise TypeError(f"{name} must be {_said(kind)}, but is {text!r}") from None
