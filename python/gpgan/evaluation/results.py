"""What an evaluation gives, and its forms for people and programs."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpgan
from gpgan.evaluation import table
from gpgan.evaluation.run_folder import FORMAT, Record


@dataclass(frozen=True)
class Results:
    """What came out.

    Attributes
    ----------
    run : Path
        The folder, with ``report.html``, ``table.txt``, ``table.csv``, ``scores.csv``, ``scores.json`` and
        ``items/``.
    items : list of dict
        What each ``item.json`` holds of the methods that were asked for: name, title, files, error, and by label
        seconds, scores and error.
    summary : dict
        See :func:`gpgan.evaluation.table.summarise`.
    metrics : list of str
    notes : list of str
        On how to read the numbers.
    computed : int
        Results that were computed now and not found in the folder.
    """

    run: Path
    items: list[Record]
    summary: dict[str, dict[str, Any]]
    metrics: list[str]
    notes: list[str]
    computed: int = 0

    @property
    def failed(self) -> int:
        """How many pairs of item and method have no result."""
        return sum(row["failed"] for row in self.summary.values())

    def table(self) -> str:
        """The means as text: methods down, metrics across."""
        return table.as_text(self.summary, self.metrics, len(self.items), self.notes)

    def to_dict(self) -> dict[str, Any]:
        """What ``scores.json`` holds."""
        return {
            "format": FORMAT, "gpgan": gpgan.__version__, "metrics": self.metrics, "notes": self.notes,
            "summary": self.summary, "items": self.items,
        }  # fmt: skip

    def scores_csv(self) -> str:
        """Every result's numbers as CSV, a line for each item and method."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["item", "source", "target", "mask", "method", *map(table.harmless, self.metrics), "error"])
        for record in self.items:
            files = [record["files"].get(role, {}).get("path", "") for role in ("source", "target", "mask")]
            for label, said in record["methods"].items():
                values = table.values(said)
                numbers = [values.get(metric) for metric in self.metrics]
                row = [record["item"], *files, label, *numbers, said["error"] or ""]
                writer.writerow(["" if cell is None else table.harmless(cell) for cell in row])
        return text.getvalue()
