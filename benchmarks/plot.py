"""Draw what bench.py measured: milliseconds against megapixels.

python benchmarks/plot.py RESULT.json PLOT.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Of the methods those that tell the story, in colours that can be read on white and on black.
STYLES = {
    "gpgan.Blender, cuda": ("#a371f7", 2.6),
    "gpgan.Blender, cuda, no generator": ("#c297ff", 1.4),
    "gpgan.Blender, cuda, NumPy in and out": ("#d18616", 1.8),
    "gpgan.Blender": ("#2f81f7", 2.6),
    "gpgan.Blender, no generator": ("#58a6ff", 1.4),
    "cv2.seamlessClone NORMAL": ("#e5534b", 1.8),
    "cv2 MultiBandBlender, 5 bands": ("#d18616", 1.8),
    "feathered paste": ("#3fa45b", 1.8),
    "copy of the same bytes": ("#8b949e", 1.4),
}
GREY = "#8b949e"


def _spread(places: list[float], gap: float) -> list[float]:
    """Ascending places moved apart to at least `gap`, each group staying around its middle."""
    groups: list[list[float]] = []  # of wanted places; a group is laid out evenly about its mean

    def ends(group: list[float]) -> tuple[float, float]:
        middle, half = sum(group) / len(group), gap * (len(group) - 1) / 2
        return middle - half, middle + half

    for place in places:
        groups.append([place])
        while len(groups) > 1 and ends(groups[-1])[0] - ends(groups[-2])[1] < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [ends(group)[0] + gap * i for group in groups for i in range(len(group))]


def draw(result: dict[str, Any], path: Path) -> None:
    """Writes an SVG or a PNG without background, for pages light and dark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullLocator

    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "gpgan", "text.color": GREY, "axes.labelcolor": GREY})
    figure, axes = plt.subplots(figsize=(7.6, 4.2), layout="constrained")
    ends = []
    ticks: dict[float, str] = {}
    for name, (color, width) in STYLES.items():
        points = []
        for row in result["blends"]:
            if row["method"] == name:
                w, h = map(int, row["size"].split("x"))
                ticks[w * h / 1e6] = f"{w * h / 1e6:.2g}\n{w}×{h}"
                points.append((w * h / 1e6, *(1e3 * row[f"{key}_seconds"] for key in ("median", "q1", "q3"))))
        if not points:
            continue
        x, median, low, high = zip(*sorted(points), strict=True)
        axes.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)
        axes.plot(x, median, color=color, linewidth=width, marker="o", markersize=4)
        ends.append((median[-1], x[-1], name, color, width))
    axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="milliseconds")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=GREY, which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    low, high = axes.get_ylim()
    if low < 1000 / 30 < high:
        axes.axhline(1000 / 30, color=GREY, linewidth=0.9, linestyle=(0, (4, 4)))
        # Beside the axis, where no line passes.
        beside = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "right", "va": "center"}
        axes.annotate("30 fps", (0, 1000 / 30), (-4, 0), color=GREY, **beside)

    # Names at the lines' ends, moved apart where lines end close together, in points above the axes' lower end.
    figure.draw_without_rendering()
    ends.sort()
    scale = 72 / figure.dpi
    wanted = [axes.transData.transform((x, y))[1] * scale for y, x, *_ in ends]
    for (y, x, name, color, width), was, place in zip(ends, wanted, _spread(wanted, 13), strict=True):
        axes.annotate(
            name,
            (x, y),
            (10, place - was),
            textcoords="offset points",
            color=color,
            va="center",
            weight="bold" if width > 2 else "normal",
        )
    about = result["about"]
    cores = f"{about['cpu']}, {about['threads']} thread" + "s" * (about["threads"] != 1)
    where = f"{about['device']}; {cores}" if "device" in about else cores  # of bench_cuda.py's
    axes.set_title(f"8-bit in, 8-bit out; {where}", fontsize=9, loc="left", color=GREY)
    metadata = {"Date": None} if path.suffix == ".svg" else None  # the same figures give the same file
    figure.savefig(path, transparent=True, dpi=150, metadata=metadata)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
