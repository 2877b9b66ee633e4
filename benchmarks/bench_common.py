"""What the benchmarks on the CPU and on a GPU share: their images, their statistics, their file."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

Images = tuple[np.ndarray, np.ndarray, np.ndarray]

FORMAT = 1  # of the JSON file; compare.py refuses others
SIZES = ["640x480", "1920x1080", "3840x2160", "7680x4320"]
COPY = "copy of the same bytes"
MOST_CALLS = 50  # of one method in one turn


def images(height: int, width: int) -> Images:
    """A source, a target and a mask: smooth colours with noise on top, the same for every method."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 32, (height, width, 3), dtype=np.uint8)
    waves = [110 + 100 * np.sin(x / (width / (3 + c)) + c) * np.cos(y / (height / 4) - c) for c in range(3)]
    target = np.stack(waves, axis=-1).astype(np.uint8) + noise
    source = np.stack(waves[::-1], axis=-1).astype(np.uint8) + noise[::-1]
    disc = (y / height - 0.5) ** 2 + (x / width - 0.5) ** 2 < 0.1
    return source, target, np.where(disc, 255, 0).astype(np.uint8)


class WrongResultError(Exception):
    pass


def check(what: str, difference: np.ndarray, most: float) -> None:
    worst = float(np.abs(difference).max())
    if not worst <= most:
        raise WrongResultError(f"{what}: {worst:.3g} off, expected {most:.3g} at most")


def parse_size(text: str) -> tuple[int, int]:
    """WxH -> (width, height)."""
    if not (match := re.fullmatch(r"(\d+)x(\d+)", text)) or min(size := tuple(map(int, match.groups()))) < 32:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT of 32 pixels or more, got {text!r}")
    return size[0], size[1]


def size_text(text: str) -> str:
    parse_size(text)
    return text


def summary(seconds: list[float]) -> dict[str, Any]:
    low, q1, median, q3, high = (float(x) for x in np.percentile(seconds, [0, 25, 50, 75, 100]))
    return {
        "median_seconds": median,
        "min_seconds": low,
        "q1_seconds": q1,
        "q3_seconds": q3,
        "max_seconds": high,
        "calls": len(seconds),
        "seconds": [round(s, 7) for s in seconds],
    }


def about() -> dict[str, Any]:
    """What the figures are figures of."""
    import gpgan
    from gpgan import _core

    def version(*names: str) -> str | None:
        for name in names:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                pass
        return None

    def git(*arguments: str) -> str | None:
        # Without the lock a look at the state would take from whoever is committing.
        command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    changed = git("status", "--porcelain", "--untracked-files=no")
    try:
        cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        cpu = None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpgan": gpgan.__version__,
        "revision": git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "extension_sha256": hashlib.sha256(Path(_core.__file__ or "").read_bytes()).hexdigest()[:16],
        "cpu": cpu[1] if cpu else platform.processor(),
        "cpu_target": _core.cpu_target(),
        "cores": os.cpu_count(),
        "threads": _core.resolve_threads(),
        "load_average": os.getloadavg(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "opencv": version("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
        "torch": version("torch"),
        "ducc0": version("ducc0"),
    }


def to_json(result: dict[str, Any]) -> str:
    """One row a line, so that files can be compared by eye."""
    parts = [f'"format": {result["format"]}', f'"about": {json.dumps(result["about"], indent=1)}']
    for key in ("operations", "blends"):
        parts.append(f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in result[key]) + "\n]")
    return "{\n" + ",\n".join(parts) + "\n}\n"
