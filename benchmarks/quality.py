"""Quality on aligned photos: how near does a blend come to what the camera saw?

    python benchmarks/quality.py FRAMES MASKS [NAME=GENERATOR ...] [--pairs 60] [--seed 0] [--markdown]

FRAMES is a folder of frames of one fixed camera under several lights, MASKS one of drawn masks of the frames' size. A
pair is two frames at random; the masked part of the first is blended into the second, and the second is the truth.
Generators are TorchScript files, names of shipped ones, or `paper:FILE` to blend with mode="paper". Rows: copy-and-
paste, OpenCV's seamlessClone, gpgan without a generator, gpgan with each of them. Columns, means over the pairs, in dB
of PSNR but for the last: the whole image, inside the mask, in its core (eroded by 4 px, so that nobody scores by
copying the target at the rim), outside, in the band around the seam (where the mask smoothed with 3 px lies between
0.02 and 0.98), and the mean gradient relative to the copy-and-paste's. Then what the core gains over no generator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import gpgan

Pixels = NDArray[np.uint8]
Method = Callable[[Pixels, Pixels, Pixels], Pixels]
SUFFIXES = {".jpg", ".jpeg", ".png"}
COLUMNS = ("whole", "inside", "core", "outside", "band", "gradient")


def copy_paste(source: Pixels, target: Pixels, mask: Pixels) -> Pixels:
    return np.where(mask[..., None] > 0, source, target)


def opencv_clone(source: Pixels, target: Pixels, mask: Pixels) -> Pixels:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    # seamlessClone puts the middle of the mask's bounding box at this point.
    middle = (
        int(columns[0] + (columns[-1] - columns[0] + 1) // 2),
        int(rows[0] + (rows[-1] - rows[0] + 1) // 2),
    )
    # It erodes the mask that it is given in place.
    return np.asarray(cv2.seamlessClone(source, target, mask.copy(), middle, cv2.NORMAL_CLONE), np.uint8)


def ours(generator: str | None, mode: str = "default") -> Method:
    def blend(source: Pixels, target: Pixels, mask: Pixels) -> Pixels:
        return np.asarray(gpgan.blend(source, target, mask, generator=generator, mode=mode), np.uint8)

    return blend


def psnr(error: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """99 for no error at all, which a mean can bear."""
    return float(min(99.0, -10 * np.log10(np.mean(error[where]) + 1e-12)))


def gradient(image: Pixels) -> float:
    x = image.astype(np.float64)
    return float(np.abs(np.diff(x, axis=0)).mean() + np.abs(np.diff(x, axis=1)).mean())


def scores(result: Pixels, source: Pixels, target: Pixels, mask: Pixels) -> list[float]:
    inside = mask > 0
    core = cv2.erode(mask, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    smooth = cv2.GaussianBlur(inside.astype(np.float64), (0, 0), 3)
    error = ((result.astype(np.float64) - target) / 255) ** 2
    regions = (np.ones_like(inside), inside, core, ~inside, (smooth > 0.02) & (smooth < 0.98))
    kept = gradient(result) / gradient(copy_paste(source, target, mask))
    return [psnr(error, where) for where in regions] + [kept]


def read(path: Path) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)


def find(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"no images in {folder}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("generators", nargs="*", metavar="NAME=GENERATOR")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()

    methods: dict[str, Method] = {
        "copy-paste": copy_paste, "OpenCV seamlessClone": opencv_clone, "no generator": ours(None),
    }  # fmt: skip
    for said in arguments.generators or ["default=default"]:
        name, _, generator = said.partition("=")
        paper = generator.startswith("paper:")
        methods[name] = ours(generator.removeprefix("paper:"), "paper" if paper else "default")
    frames, masks = find(arguments.frames), find(arguments.masks)
    rng = np.random.default_rng(arguments.seed)
    rows: dict[str, list[list[float]]] = {name: [] for name in methods}
    for k in range(arguments.pairs):
        source, target = (read(frames[i]) for i in rng.choice(len(frames), 2, replace=False))
        grey = cv2.imread(str(masks[k % len(masks)]), cv2.IMREAD_GRAYSCALE)
        mask = np.where(np.asarray(grey) > 127, 255, 0).astype(np.uint8)
        for name, method in methods.items():
            rows[name].append(scores(method(source, target, mask), source, target, mask))

    core = COLUMNS.index("core")
    plain = np.array(rows["no generator"])[:, core]
    header = [f"{arguments.frames.name}, {arguments.pairs} pairs", *COLUMNS, "core gain", "worst", "losing", "by mask"]
    table = [header]
    for name, values in rows.items():
        each = np.array(values)
        gain = each[:, core] - plain
        by_mask = [f"{gain[i :: len(masks)].mean():+.2f}" for i in range(len(masks))]
        cells = [f"{x:.2f}" for x in each.mean(0)]
        table.append([
            name, *cells, f"{gain.mean():+.2f}", f"{gain.min():+.2f}", f"{np.mean(gain < 0):.0%}", " ".join(by_mask),
        ])  # fmt: skip
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for number, row in enumerate(table):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("| " + " | ".join(cells) + " |" if arguments.markdown else "  ".join(cells))
        if number == 0 and arguments.markdown:
            print("| " + " | ".join("---" for _ in row) + " |")


if __name__ == "__main__":
    main()
