"""`gpgan.seamless_clone` beside the function whose call it takes, in one run and in turns.

    python benchmarks/seamless_clone.py [--sizes 640x480 1920x1080 3840x2160] [--shares 0.8 0.2] [--rounds 7]

8-bit photos of scikit-image, the astronaut into the coffee, under an ellipse of so much of the frame's height and
width. Prints medians in milliseconds by the clock and by processor time, which says more on a machine that is shared,
how many times as fast gpgan is, and how far the two results lie apart inside the ellipse in the mean, in levels of 255.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from bench_common import parse_size, size_text
from skimage import data

import gpgan

Clone = Callable[..., np.ndarray]
#: Inside the mask two solvers of nearly the same problem are this near in the mean, in levels of 255, or one is wrong.
MOST_APART = 20.0


def share(text: str) -> float:
    if not 0.05 <= float(text) <= 0.95:
        raise argparse.ArgumentTypeError(f"expected 0.05 to 0.95, got {text}")
    return float(text)


def timed(clone: Clone, *arguments: object) -> tuple[np.ndarray, float, float]:
    """The result, and milliseconds by the clock and of all processors."""
    clock, processor = time.perf_counter(), time.process_time()
    result = clone(*arguments)
    return result, 1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=size_text, default=["640x480", "1920x1080", "3840x2160"])
    parser.add_argument("--shares", nargs="+", type=share, default=[0.8, 0.2])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds: expected 1 or more, got {options.rounds}")

    photos = [np.ascontiguousarray(photo[..., ::-1]) for photo in (data.astronaut(), data.coffee())]
    clones: tuple[Clone, Clone] = (cv2.seamlessClone, gpgan.seamless_clone)
    print(f"OpenCV {cv2.__version__}, gpgan {gpgan.__version__}; medians of {options.rounds}, ms\n")
    print("| | | OpenCV, clock | gpgan | OpenCV, processor | gpgan | apart |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in options.sizes:
        width, height = parse_size(size)
        source, target = (cv2.resize(photo, (width, height)) for photo in photos)
        for part in options.shares:
            mask = np.zeros((height, width), np.uint8)
            middle, axes = (width // 2, height // 2), (int(width * part / 2), int(height * part / 2))
            cv2.ellipse(mask, middle, axes, 0, 0, 360, 255, -1)
            for flag in (
                gpgan.CloneFlag.NORMAL_CLONE,
                gpgan.CloneFlag.MIXED_CLONE,
                gpgan.CloneFlag.MONOCHROME_TRANSFER,
            ):
                clock: tuple[list[float], list[float]] = ([], [])
                processor: tuple[list[float], list[float]] = ([], [])
                for turn in range(options.rounds + 1):
                    results = []
                    for i, clone in enumerate(clones):
                        # OpenCV erodes the mask that it is given in place.
                        result, by_clock, by_processor = timed(clone, source, target, mask.copy(), middle, int(flag))
                        results.append(result.astype(np.float32))
                        if turn:  # the first warms up
                            clock[i].append(by_clock)
                            processor[i].append(by_processor)
                apart = float(np.abs(results[0] - results[1])[mask > 0].mean())
                if apart > MOST_APART:
                    raise SystemExit(f"{size}, {flag.name}: the results are {apart:.1f} levels apart in the mean")
                cells = []
                for column in (clock, processor):
                    theirs, ours = map(statistics.median, column)
                    cells += [f"{theirs:.1f}", f"{ours:.1f} ({theirs / ours:.1f}x)"]
                print(f"| {size}, {part:.0%} | {flag.name} | {' | '.join(cells)} | {apart:.1f} |", flush=True)


if __name__ == "__main__":
    main()
