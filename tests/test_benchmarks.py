"""The benchmarks as programs: what they write and what they refuse. Nothing here depends on how long things take."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpgan
from gpgan import _core

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a source distribution comes without benchmarks")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def times(median: float, spread: float = 0.01) -> dict[str, float]:
    return {
        "median_seconds": median,
        "q1_seconds": median * (1 - spread),
        "q3_seconds": median * (1 + spread),
    }


def blend(method: str, median: float, *, ours: bool = True, size: str = "640x480", spread: float = 0.01) -> dict:
    return {"method": method, "size": size, "ours": ours, **times(median, spread)}


def operation(name: str, median: float, *, copy: float = 0.001) -> dict:
    row = {"operation": name, "size": "64 rows of 9", "implementation": "gpgan", "threads": 1, "ours": True}
    return {**row, **times(median), "copy_seconds": copy}


@pytest.fixture
def compare(tmp_path):
    """compare.py on results of these rows."""

    def run_compare(old: list[dict], new: list[dict], *arguments: str) -> subprocess.CompletedProcess[str]:
        paths = []
        for name, rows in (("old.json", old), ("new.json", new)):
            operations = [row for row in rows if "operation" in row]
            blends = [row for row in rows if "method" in row]
            paths.append(tmp_path / name)
            paths[-1].write_text(json.dumps({"format": 1, "about": {}, "operations": operations, "blends": blends}))
        return run("compare.py", *paths, *arguments)

    return run_compare


def line(done: subprocess.CompletedProcess[str], start: str) -> str:
    (found,) = (text for text in done.stdout.splitlines() if text.startswith(start))
    return found


def test_compare_says_what_became_faster_and_slower(compare):
    old = [blend("a", 0.1), blend("b", 0.1), blend("c", 0.1), operation("dct", 0.1)]
    done = compare(old, [blend("a", 0.05), blend("b", 0.11), blend("c", 0.13), operation("dct", 0.2)])
    assert done.returncode == 1
    assert line(done, "a, 640x480").endswith("0.50  faster")
    assert line(done, "b, 640x480").endswith("1.10")
    assert line(done, "c, 640x480").endswith("1.30  SLOWER")
    assert line(done, "dct, 64 rows of 9, gpgan, threads=1").endswith("2.00  SLOWER")


def test_compare_ends_with_0_within_the_threshold(compare):
    assert compare([blend("a", 0.1)], [blend("a", 0.115)]).returncode == 0
    assert compare([blend("a", 0.1)], [blend("a", 0.115)], "--threshold", "1.1").returncode == 1
    assert compare([blend("a", 0.1)], [blend("a", 0.05)]).returncode == 0


def test_compare_says_that_quartiles_overlap(compare):
    done = compare([blend("a", 0.1, spread=0.3)], [blend("a", 0.13, spread=0.3)])
    assert done.returncode == 1
    assert line(done, "a, ").endswith("1.30  SLOWER, quartiles overlap")


def test_compare_does_not_blame_gpgan_for_others(compare):
    done = compare([blend("a", 0.1), blend("b", 0.1, ours=False)], [blend("a", 0.1), blend("b", 0.3, ours=False)])
    assert done.returncode == 0
    assert line(done, "b, ").endswith("3.00  slower, not gpgan's")


def test_compare_names_rows_of_one_file_only(compare):
    done = compare([blend("a", 0.1), blend("b", 0.1)], [blend("a", 0.1), blend("a", 0.1, size="64x48")])
    assert done.returncode == 0
    assert line(done, "b, 640x480").endswith("only in the old file")
    assert line(done, "a, 64x48").endswith("only in the new file")


def test_compare_normalises_by_the_copy(compare):
    copy = "copy of the same bytes"
    old = [blend("a", 0.1), blend(copy, 0.01, ours=False), operation("dct", 0.1, copy=0.01)]
    new = [blend("a", 0.2), blend(copy, 0.02, ours=False), operation("dct", 0.2, copy=0.02)]
    assert compare(old, new).returncode == 1
    done = compare(old, new, "--normalise")
    assert done.returncode == 0
    assert line(done, "a, ").split()[-3:] == ["10.000", "10.000", "1.00"]
    assert line(done, "dct, ").split()[-3:] == ["10.000", "10.000", "1.00"]
    done = compare(old[:1], new, "--normalise")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "without a copy" in done.stderr


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 0}', '{"format": 1}', '{"format": 1, "operations": [], "blends": [{"size": 1}]}'],
)
def test_compare_refuses_what_is_no_result(text, compare, tmp_path):
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"format": 1, "operations": [], "blends": [blend("a", 0.1)]}))
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    for pair in ((good, bad), (bad, good)):
        done = run("compare.py", *pair)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert str(bad) in done.stderr


def test_compare_refuses_files_with_nothing_in_common(compare, tmp_path):
    done = compare([blend("a", 0.1)], [blend("b", 0.1)])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    done = run("compare.py", tmp_path / "old.json", tmp_path / "none.json")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("bench")


def test_bench_times_nothing_of_gpgan_that_is_wrong(bench, monkeypatch):
    blend, dct = gpgan.blend, _core.dct

    def two_levels_off(*images, **options):
        result = blend(*images, **options)
        return result + result.dtype.type(2) if result.dtype == np.uint8 else result

    def slightly_off(*images, **options):
        result = blend(*images, **options)
        return result if result.dtype == np.uint8 or options["membrane"] else result + np.float32(1e-4)

    def other_with_threads(*images, **options):
        result = blend(*images, **options)
        return result if result.dtype == np.uint8 or options["threads"] == 1 else result + np.float32(1e-6)

    for wrong, what in ((two_levels_off, "uint8"), (slightly_off, "float32"), (other_with_threads, "against 1 thread")):
        with monkeypatch.context() as patch:
            patch.setattr(gpgan, "blend", wrong)
            with pytest.raises(bench.WrongResultError, match=rf"^{what}"):
                bench.verify_gpgan(quick=True, generator=False)
    monkeypatch.setattr(_core, "dct", lambda rows: 1.0001 * dct(rows))
    with pytest.raises(bench.WrongResultError, match=r"^dct of 1920"):
        bench.verify_gpgan(quick=True, generator=False)


def test_bench_times_no_rival_that_is_wrong(bench, monkeypatch):
    name = "cv2.seamlessClone NORMAL"
    for result in (lambda i: i[1], lambda i: i[0], lambda i: i[1][:-1], lambda i: i[1] / 255):
        method = replace(bench.METHODS[name], build=lambda i, out, result=result: lambda: result(i))
        monkeypatch.setitem(bench.METHODS, name, method)
        with pytest.raises(bench.WrongResultError):
            bench.verify_rival(name)


METHODS = ["gpgan.Blender, no generator", "cv2.seamlessClone NORMAL", "copy of the same bytes"]


def test_bench_writes_all_fields_and_a_plot(tmp_path):
    result, plot = tmp_path / "result.json", tmp_path / "plot.svg"
    sizes = ["64x48", "97x61"]
    done = run("bench.py", "--quick", "--sizes", *sizes, "--methods", *METHODS, "--json", result, "--plot", plot)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results verified" in done.stdout
    written = json.loads(result.read_text())

    about = written["about"]
    assert {"date", "gpgan", "revision", "uncommitted_changes", "extension_sha256", "cpu", "cpu_target", "cores"} < {
        *about
    }
    assert {"threads", "load_average", "os", "python", "numpy", "scipy", "opencv", "torch", "ducc0"} < {*about}

    assert [(row["size"], row["method"]) for row in written["blends"]] == [(s, m) for s in sizes for m in METHODS]
    for row in written["blends"]:
        assert row["calls"] == len(row["seconds"]) >= 1
        ordered = [row[f"{key}_seconds"] for key in ("min", "q1", "median", "q3", "max")]
        assert ordered[0] > 0 and ordered == sorted(ordered)
        assert row["peak_mb"] > row["working_mb"] >= 0
        width, height = map(int, row["size"].split("x"))
        assert row["megapixels_per_s"] == pytest.approx(width * height / 1e6 / row["median_seconds"])
        assert row["ours"] == row["method"].startswith("gpgan")
        assert {"first_call_seconds", "working_bytes_per_pixel", "processes", "speedup_of_threads"} < {*row}
    assert [row["times_opencv"] for row in written["blends"] if row["method"] == METHODS[1]] == [1, 1]

    timed = {(row["operation"], row["implementation"]) for row in written["operations"]}
    assert timed >= {("dct", by) for by in ("gpgan", "scipy", "ducc0")}
    assert timed >= {(name, "gpgan") for name in ("membrane", "solve", "downsample", "upsample", "gaussian_blur")}
    assert timed >= {(name, "gpgan") for name in ("guidance_divergence", "inset", "area_average")}
    for row in written["operations"]:
        assert min(row["bytes"], row["copy_seconds"], row["min_seconds"], row["threads"]) > 0
        assert row["gb_per_s"] > 0
        assert {"copy_seconds", "share_of_copy", "calls", "seconds", "ours"} < {*row}

    assert plot.read_text().lstrip().startswith("<?xml")
    assert 1000 < plot.stat().st_size < 100_000
    done = run("compare.py", result, result, "--normalise")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments", [["--sizes", "12"], ["--sizes", "8x8"], ["--json", "/none/x.json"], ["--methods", "x"]]
)
def test_bench_refuses_bad_arguments_at_once(arguments):
    done = run("bench.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr.splitlines()[-1]
