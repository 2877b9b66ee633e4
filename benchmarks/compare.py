"""Compare two results of bench.py.

    python benchmarks/compare.py OLD.json NEW.json [--threshold 1.2] [--normalise]

One line for each method and operation in both files: the medians, and how many times as long the new one takes. Where
the quartiles overlap, the difference may be noise, and the line says so. Exit code 1 if something of gpgan became
slower by more than the threshold; what others did is shown, and tells of the machine. Exit code 2 if the files cannot
be read or have nothing in common.

--normalise divides each time by that of the copy in the same file, for files from two machines or two hours.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
COPY = "copy of the same bytes"


class UnusableFileError(Exception):
    pass


class Time(NamedTuple):
    """Seconds, or multiples of the copy's."""

    median: float
    q1: float
    q3: float
    ours: bool


Times = dict[tuple[str, ...], Time]


def _time(row: dict[str, Any], unit: float) -> Time:
    median, q1, q3 = (float(row[f"{key}_seconds"]) / unit for key in ("median", "q1", "q3"))
    if not 0 < q1 <= median <= q3:
        raise ValueError("no times")
    return Time(median, q1, q3, bool(row["ours"]))


def read(path: Path, normalise: bool) -> Times:
    """The file's times by what was timed."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnusableFileError(f"{path}: {error}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise UnusableFileError(f"{path}: expected a result of bench.py in format {FORMAT}")
    times: Times = {}
    try:
        copies = {row["size"]: row["median_seconds"] for row in result["blends"] if row["method"] == COPY}
        for row in result["operations"]:
            where = row["device"] if "device" in row else f"threads={row['threads']}"  # of bench_cuda.py's
            key = (row["operation"], row["size"], row["implementation"], where)
            times[key] = _time(row, row["copy_seconds"] if normalise else 1)
        for row in result["blends"]:
            if normalise and row["size"] not in copies:
                raise UnusableFileError(f"{path}: {row['size']} was timed without a copy, and cannot be normalised")
            times[row["method"], row["size"]] = _time(row, copies[row["size"]] if normalise else 1)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnusableFileError(f"{path}: not as bench.py writes it ({type(error).__name__}: {error})") from None
    return times


def compare(old: Times, new: Times, threshold: float, unit: str) -> bool:
    """Prints the table; whether something of ours became slower by more than the threshold."""
    common = [key for key in old if key in new]
    width = max(len(", ".join(key)) for key in old.keys() | new.keys())
    scale = 1e3 if unit == "ms" else 1.0
    print(f"{'':<{width}} {'old ' + unit:>12} {'new ' + unit:>12} {'new/old':>8}")
    slower = False
    for key in common:
        a, b = old[key], new[key]
        ratio = b.median / a.median
        says = []
        if ratio > threshold:
            says.append("SLOWER" if b.ours else "slower, not gpgan's")
            slower |= b.ours
        elif ratio < 1 / threshold:
            says.append("faster")
        if says and a.q1 <= b.q3 and b.q1 <= a.q3:
            says.append("quartiles overlap")
        print(
            f"{', '.join(key):<{width}} {a.median * scale:>12.3f} {b.median * scale:>12.3f} {ratio:>8.2f}  "
            f"{', '.join(says)}".rstrip()
        )
    for where, here, there in (("old", old, new), ("new", new, old)):
        for key in here:
            if key not in there:
                print(f"{', '.join(key):<{width}} only in the {where} file")
    return slower


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=1.2, help="of new / old, above 1 (1.2)")
    parser.add_argument("--normalise", action="store_true", help="by the copy of the same bytes in each file")
    options = parser.parse_args()
    if not options.threshold > 1:
        parser.error(f"--threshold: expected more than 1, got {options.threshold}")
    try:
        old, new = (read(path, options.normalise) for path in (options.old, options.new))
        if not old.keys() & new.keys():
            raise UnusableFileError(f"{options.old} and {options.new} have nothing in common")
    except UnusableFileError as error:
        print(error, file=sys.stderr)
        return 2
    return int(compare(old, new, options.threshold, "copies" if options.normalise else "ms"))


if __name__ == "__main__":
    sys.exit(main())
