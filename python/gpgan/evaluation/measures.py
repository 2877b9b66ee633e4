"""The numbers that a result gets: :func:`gpgan.metrics.measure` and, where there are weights, the realism score."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpgan
from gpgan.evaluation.items import Inputs, Pixels

#: Counted up when the same pictures get other numbers.
VERSION = 1
_PSNR = "psnr"


class MissingPackageError(ImportError):
    """Nothing can be measured, whatever the method."""


class Measure:
    """Numbers of one result after the other.

    Parameters
    ----------
    realism : "default", path-like or None
        Weights of the realism score. The default ones may fail, as torch itself may be broken; a file may not.
    note : callable
        Is told if they do.

    Raises
    ------
    ValueError
        If `realism` is a file that cannot be used.
    """

    def __init__(self, realism: str | os.PathLike[str] | None, note: Callable[[str], object]) -> None:
        self._score: Callable[[Pixels], Any] | None = None
        self._weights = ""
        if realism is not None:
            self._load(realism, note)
        self.fingerprint = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def _load(self, realism: str | os.PathLike[str], note: Callable[[str], object]) -> None:
        is_default = os.fspath(realism) == "default"
        try:
            from gpgan.metrics import RealismScorer
            from gpgan.nn.realism import SHIPPED

            self._score = RealismScorer(realism)
        except Exception as error:  # torch itself may be broken, and a file may hold anything
            reason = " ".join(str(error).split()) or type(error).__name__
            if not is_default:
                raise ValueError(f"realism: cannot use {os.fspath(realism)!r}: {reason}") from error
            note(f"no realism score: {reason}")
            return
        self._weights = hashlib.sha256(Path(SHIPPED if is_default else realism).read_bytes()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """What tells these numbers from others'."""
        return {"version": VERSION, "gpgan": gpgan.__version__, "realism": self._weights}

    def __call__(self, result: Pixels, inputs: Inputs) -> dict[str, float | None]:
        """By name; None where a number is not defined, such as the error without a truth."""
        from gpgan import metrics

        scores: dict[str, float | None] = {}
        try:
            measured = metrics.measure(
                result,
                source=inputs.source,
                target=inputs.target,
                mask=inputs.mask,
                truth=inputs.truth,
                offset=inputs.offset,
            )
        except ImportError as error:
            raise MissingPackageError(str(error)) from error
        for name, value in measured.items():
            value = min(value, metrics.PSNR_CAP) if name.startswith(_PSNR) else value
            scores[name] = round(float(value), 9) if math.isfinite(value) else None
        if self._score is not None:
            value = float(self._score(result))
            scores["realism"] = round(value, 9) if math.isfinite(value) else None
        return scores

    def notes(self, names: Sequence[str]) -> list[str]:
        """What a reader of these columns has to know."""
        from gpgan.metrics import PSNR_CAP

        said = []
        if any(name.startswith(_PSNR) for name in names):
            said.append(
                "PSNR in dB: of the whole image, inside the mask, in its core (eroded by 4 px), outside, and in the "
                f"band around the seam; no error at all counts as {PSNR_CAP:g} dB"
            )
        if "gradient_kept" in names:
            said.append(
                "gradient: mean gradient relative to copy-and-paste's; seam: steps about the mask's edge that neither "
                "image asks for, in levels of 255 per pixel of its length; lower is better"
            )
        if "realism" in names:
            network = getattr(self._score, "architecture", "another network")
            scale = "as in the paper" if network == "realism-cnn" else "not the paper's RealismCNN"
            said.append(
                f"realism: by {network}, {scale}; higher is more realistic, and other weights have another scale"
            )
        return said
