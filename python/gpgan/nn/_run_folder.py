"""The files of a run. Each is whole at any moment, so that a run can be killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gpgan.nn.config import TrainConfig, from_json

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("gpgan.nn.train needs matplotlib: pip install 'gpgan[train]'") from error

__all__ = [
    "append_to_log", "claim", "load_state", "plot_log", "progress_bar", "read_log", "replacing", "save_state",
    "shorten_log", "summary_writer",
]  # fmt: skip

# What may change between two calls that continue one run.
_FREE = {"run", "steps", "stop", "device", "threads", "workers"}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place in the end: a kill at any moment leaves the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def claim(config: TrainConfig) -> None:
    """Make the folder this configuration's, in ``config.json``; refuse one that holds anything of another's."""
    run = Path(config.run)
    run.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(asdict(config)))
    path, checkpoint = run / "config.json", run / "checkpoint.pt"
    if path.exists() and (checkpoint.exists() or (run / "pool.npy").exists()):
        _require_same(wanted, json.loads(path.read_bytes()), run)
    elif checkpoint.exists():
        _require_same(wanted, json.loads(load_state(checkpoint)["config"]), run)
    with replacing(path) as file:
        file.write(json.dumps(wanted, indent=1).encode())


def _require_same(wanted: Mapping[str, Any], saved: Mapping[str, Any], run: Path) -> None:
    saved = asdict(from_json(saved))
    different = sorted(k for k, v in asdict(from_json(wanted)).items() if k not in _FREE and v != saved[k])
    if different:
        raise ValueError(f"run: {run} holds a run with another {', '.join(different)}; expected an empty folder")


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """A checkpoint, whole or not at all."""
    with replacing(path) as file:
        torch.save(dict(state), file)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint; `FileNotFoundError` without one."""
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {os.fspath(path)!r}")
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


# --- The log ------------------------------------------------------------------------------------------------


def read_log(run: Path) -> list[dict[str, Any]]:
    """The entries of ``log.jsonl``, up to where a kill may have left half a line."""
    path = run / "log.jsonl"
    entries: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def shorten_log(run: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint, at `step`: it will be logged again."""
    lines = [json.dumps(entry) + "\n" for entry in read_log(run) if entry["step"] <= step]
    with replacing(run / "log.jsonl") as file:
        file.write("".join(lines).encode())


def append_to_log(run: Path, entry: Mapping[str, Any]) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
        log.flush()
        os.fsync(log.fileno())


def plot_log(run: Path) -> None:
    """``loss.png``: the loss and, where the run validates, PSNR with and without the generator, over the steps."""
    entries = read_log(run)
    steps = [entry["step"] for entry in entries]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left = figure.add_subplot()
    left.plot(steps, [entry["loss"] for entry in entries], color="tab:blue", marker=".")
    left.set_xlabel("step")
    left.set_ylabel("training loss", color="tab:blue")
    if entries and "psnr" in entries[0]:
        right = left.twinx()
        right.plot(steps, [entry["psnr"] for entry in entries], color="tab:orange", marker=".", label="held out")
        plain = [entry["psnr"] - entry["gain"] for entry in entries]
        right.plot(steps, plain, color="tab:orange", linestyle=":", label="held out, without the generator")
        right.set_ylabel("PSNR of the blend inside the mask, dB", color="tab:orange")
        right.legend(loc="lower right")
    with replacing(run / "loss.png") as file:
        canvas.print_png(file)  # type: ignore[no-untyped-call]


# --- What watches ---------------------------------------------------------------------------------------------


def progress_bar(work: Iterable[Any] | None = None, **options: Any) -> Any:
    """tqdm's."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("the progress bar needs tqdm: pip install 'gpgan[train]'") from error
    return tqdm(work, mininterval=1.0, **options)


def summary_writer(run: Path, step: int) -> Any:
    """For TensorBoard; what a killed run wrote after `step` is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard=True needs tensorboard: pip install 'gpgan[train]'") from error
    return SummaryWriter(os.fspath(run), purge_step=step + 1)
