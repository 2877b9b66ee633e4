"""Time ``gpgan.blend`` beside OpenCV's seamlessClone and a plain copy, in one run.

    python benchmarks/bench.py [--sizes 640x480 1920x1080] [--repeats 5] [--json FILE]

The result is verified against the float64 reference first. Every figure is taken in a process of its own, so that peak
memory is that method's; methods take turns, so that a machine whose speed drifts slows all of them alike. 8-bit in,
8-bit out, a disc over 31 % of the frame as the mask.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Images = tuple[np.ndarray, np.ndarray, np.ndarray]


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


def _blend(**options: Any) -> Callable[[Images], Any]:
    import gpgan

    return lambda i: gpgan.blend(*i, **options)


def _opencv() -> Callable[[Images], Any]:
    import cv2

    def run(i: Images) -> Any:
        x, y, width, height = cv2.boundingRect(i[2])
        # OpenCV erodes the mask that it is given in place.
        return cv2.seamlessClone(i[0], i[1], i[2].copy(), (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)

    return run


METHODS: dict[str, Callable[[], Callable[[Images], Any]]] = {
    "gpgan.blend": _blend,
    "gpgan.blend, no generator": lambda: _blend(generator=None),
    'gpgan.blend, mode="paper", no generator': lambda: _blend(generator=None, mode="paper"),
    "cv2.seamlessClone NORMAL": _opencv,
    "copy of the same bytes": lambda: lambda i: [np.copy(x) for x in i],
}


def verify() -> None:
    """The native result is the reference's rounding to 1 level before any time counts."""
    import gpgan

    source, target, mask = images(211, 307)
    for mode in ("default", "paper", "released"):
        native = gpgan.blend(source, target, mask, generator=None, mode=mode)
        exact = gpgan.reference.blend(source / 255, target / 255, mask / 255, mode=mode)
        worst = np.abs(native - exact * 255).max()
        if worst > 1:
            raise SystemExit(f"mode {mode!r} is {worst:.2f} levels off the reference: no times")


def measure(method: str, height: int, width: int) -> dict[str, float]:
    """One timed call after one that is not, in this process."""
    data = images(height, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = METHODS[method]()
    run(data)
    start = time.perf_counter()
    run(data)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mb": peak / 1024, "peak_mb_beyond_inputs": (peak - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1920x1080", "3840x2160"], metavar="WxH")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    if options.one:
        method, height, width = options.one
        print(json.dumps(measure(method, int(height), int(width))))
        return

    import gpgan

    verify()
    about = {
        "gpgan": gpgan.__version__,
        "cpu_target": gpgan._core.cpu_target(),
        "threads": gpgan._core.resolve_threads(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(about))
    print(f"{'size':>10}  {'method':<40} {'median s':>9} {'min':>7} {'max':>7} {'peak MB':>8}")
    rows = []
    for size in options.sizes:
        width, height = map(int, size.split("x"))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
        for _ in range(options.repeats):
            for name in METHODS:
                command = [sys.executable, __file__, "--one", name, str(height), str(width)]
                runs[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        for name, taken in runs.items():
            seconds = [run["seconds"] for run in taken]
            peak = max(run["peak_mb"] for run in taken)
            median = statistics.median(seconds)
            print(f"{size:>10}  {name:<40} {median:>9.3f} {min(seconds):>7.3f} {max(seconds):>7.3f} {peak:>8.0f}")
            rows.append({"size": size, "method": name, "median_seconds": median, "runs": taken})
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
