"""Means over the items: methods down, metrics across."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: (header, digits) of the metrics that have a column of their own name; others come under their key.
HEADERS = {
    "psnr": ("PSNR", 2), "psnr_inside": ("inside", 2), "psnr_core": ("core", 2), "psnr_outside": ("outside", 2),
    "psnr_band": ("band", 2), "mse": ("MSE", 1), "fmse": ("fMSE", 1), "ssim": ("SSIM", 4),
    "gradient_kept": ("gradient", 3), "seam_visibility": ("seam", 2), "realism": ("realism", 3),
    "seconds": ("seconds", 3),
}  # fmt: skip
LOWER_IS_BETTER = frozenset({"mse", "fmse", "seam_visibility", "seconds"})
#: Nearer to 1 is better: there is no best direction to mark.
NO_DIRECTION = frozenset({"gradient_kept"})
#: The paper's names in its Table 1.
_TABLE_1 = {
    "copy_paste": "Input", "poisson": "PB", "modified_poisson": "MPB", "multi_spline": "MSB", "gpgan": "Ours",
}  # fmt: skip
#: Along the seam, inside the mask too, they mix the target's own pixels in.
_FEATHERED = ("alpha", "multiband")
#: What a generator's gain is counted against, and in what.
PLAIN, GAIN_METRIC = "gpgan-no-generator", "psnr_core"


def values(said: Mapping[str, Any]) -> dict[str, float]:
    """A result's numbers, the seconds that it took among them; none of one that failed."""
    if said.get("error") is not None or not said.get("scores"):
        return {}
    numbers = dict(said["scores"]) | {"seconds": said.get("seconds")}
    return {name: value for name, value in numbers.items() if value is not None}


def summarise(records: Sequence[Mapping[str, Any]], methods: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """By label: name, items, failed, complete, and of every metric mean, median and count.

    Parameters
    ----------
    records : sequence of dict
        As in item.json, each with all the methods.
    methods : iterable of (label, name)

    Returns
    -------
    dict
        A row is complete that has every item of which any method has made something. Where a row has no generator, the
        others have ``gain`` too: what psnr_core gains over it on the same items. Of several such rows it is the one
        with no options, or else the first.
    """
    summary: dict[str, dict[str, Any]] = {}
    names = dict(methods)
    by_label = {label: [values(record["methods"][label]) for record in records] for label in names}
    bases = [label for label, name in names.items() if name == PLAIN]
    base = PLAIN if PLAIN in bases else next(iter(bases), None)
    plain = {i: row[GAIN_METRIC] for i, row in enumerate(by_label.get(base or "", ())) if GAIN_METRIC in row}
    made = sum(1 for rows in zip(*by_label.values(), strict=True) if any(rows))
    for label, rows in by_label.items():
        metrics: dict[str, Any] = {}
        for metric in dict.fromkeys(key for row in rows for key in row):
            column = [row[metric] for row in rows if metric in row]
            metrics[metric] = {
                "mean": statistics.fmean(column), "median": statistics.median(column), "count": len(column),
            }  # fmt: skip
        done = sum(1 for row in rows if row)
        summary[label] = {
            "name": names[label], "items": done, "failed": len(rows) - done, "complete": done == made,
            "metrics": metrics,
        }  # fmt: skip
        if label != base:
            pairs = [row[GAIN_METRIC] - plain[i] for i, row in enumerate(rows) if GAIN_METRIC in row and i in plain]
            if pairs:
                summary[label]["gain"] = {
                    "over": base, "mean": statistics.fmean(pairs), "worst": min(pairs), "count": len(pairs),
                    "losing": sum(gain < 0 for gain in pairs) / len(pairs),
                }  # fmt: skip
    return summary


def metrics_of(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The metrics that anything has, in the order of :data:`HEADERS`, with the seconds last."""
    found = dict.fromkeys(name for row in summary.values() for name in row["metrics"])
    known = [name for name in HEADERS if name in found and name != "seconds"]
    return [*known, *(name for name in found if name not in HEADERS), *(["seconds"] if "seconds" in found else [])]


def header(metric: str) -> str:
    return HEADERS.get(metric, (metric, 3))[0]


def cell(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{HEADERS.get(metric, (metric, 3))[1]}f}"


def mean(row: Mapping[str, Any], metric: str) -> float | None:
    found = row["metrics"].get(metric)
    return None if found is None else float(found["mean"])


def best(summary: Mapping[str, Mapping[str, Any]], metric: str) -> float | None:
    """The best mean of a column, where it has a best; who failed where another did not, on a hard item maybe, takes no
    part."""
    column = [value for row in summary.values() if row["complete"] and (value := mean(row, metric)) is not None]
    if metric in NO_DIRECTION or len(column) < 2:
        return None
    return min(column) if metric in LOWER_IS_BETTER else max(column)


def as_text(summary: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], items: int, notes: Sequence[str]) -> str:
    """The table for a terminal, and below it what there is to say of it."""
    failed = any(row["failed"] for row in summary.values())
    rows = [[f"means over {items} item{'s' * (items != 1)}", *map(header, metrics), *(["failed"] if failed else [])]]
    for label, row in summary.items():
        cells = [cell(metric, mean(row, metric)) for metric in metrics]
        rows.append([label, *cells, *([str(row["failed"])] if failed else [])])
    lines = _aligned(rows)
    gains = gain_rows(summary)
    if gains:
        lines += ["", *_aligned(gains)]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines)


def as_csv(summary: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """The means as CSV for other programs: a line for each method, by the metrics' keys, no digit rounded off."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "items", "failed", *map(harmless, metrics)])
    for label, row in summary.items():
        means = [mean(row, metric) for metric in metrics]
        numbers = ["" if value is None else value for value in means]
        writer.writerow([harmless(label), row["items"], row["failed"], *numbers])
    return text.getvalue()


def harmless(cell: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") and cell else cell


def gain_rows(summary: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """(label, mean gain, worst gain, share of the items that lose) of the methods that have them, below a header."""
    gains = {label: row["gain"] for label, row in summary.items() if "gain" in row}
    return [
        *([f"core PSNR over {gain['over']}", "gain", "worst", "losing"] for gain in list(gains.values())[:1]),
        *(
            [label, f"{gain['mean']:+.2f}", f"{gain['worst']:+.2f}", f"{gain['losing']:.0%}"]
            for label, gain in gains.items()
        ),
    ]


def notes(
    summary: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The paper's Table 1, what is not fair, and what failed."""
    said = []
    paper = {row["name"]: mean(row, "realism") for row in summary.values() if label_is_plain(row, summary)}
    row_1 = [f"{text} {paper[name]:.3f}" for name, text in _TABLE_1.items() if paper.get(name) is not None]
    if "realism" in metrics and len(row_1) > 1:
        said.append(f"realism in the order of the paper's Table 1: {', '.join(row_1)}")
    digests = [[record["files"].get(role, {}).get("sha256") for role in ("target", "truth")] for record in records]
    if any(target is not None and target == truth for target, truth in digests):
        mixed = [label for label, row in summary.items() if _is_mixed(label, row["name"], records)]
        feathered = [label for label, row in summary.items() if row["name"] in _FEATHERED]
        if mixed:
            said.append(f"the truth is the target itself, and {', '.join(mixed)} used its gradients under the mask")
        if feathered:
            said.append(f"the truth is the target itself, which {', '.join(feathered)} blended in along the seam")
    failed = {label: row["failed"] for label, row in summary.items() if row["failed"]}
    if failed:
        counts = ", ".join(f"{label} {count}" for label, count in failed.items())
        said.append(f"failed, and not in the means: {counts}; scores.json says why")
    return said


def _is_mixed(label: str, name: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a method takes the stronger gradient of source and target, by its name or by an option."""
    options = (record["methods"][label].get("options") or {} for record in records)
    return "mixed" in name or any("mixed" in said.values() for said in options)


def label_is_plain(row: Mapping[str, Any], summary: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a method goes by its own name: of several with one name, that one stands for it."""
    return summary.get(row["name"]) is row


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(n) for text, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
