"""The benchmarks as programs: what they write and what they refuse. Nothing here depends on how long things take."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.fft
import torch
from tolerances import FLOAT64, NATIVE

import gpgan
from gpgan import _core, _cuda_library, reference

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a source distribution comes without benchmarks")


def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


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


def test_seamless_clone_benchmark_has_a_row_for_each_mode():
    done = run("seamless_clone.py", "--sizes", "96x64", "--shares", "0.5", "--rounds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| 96x64, 50%")]
    assert [row[1] for row in rows] == ["NORMAL_CLONE", "MIXED_CLONE", "MONOCHROME_TRANSFER"]
    for row in rows:
        for theirs, ours in (row[2:4], row[4:6]):
            milliseconds, times = map(float, ours.rstrip("x)").split(" ("))
            assert float(theirs) > 0 and milliseconds > 0
            # Both are rounded to a tenth.
            low, high = ((float(theirs) + d) / (milliseconds - d) for d in (-0.051, 0.051))
            assert low - 0.051 <= times <= high + 0.051
        assert 0 < float(row[6].rstrip(" |")) < 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sizes", "12"],
        ["--sizes", "8x8"],
        ["--json", "/none/x.json"],
        ["--methods", "x"],
        ["--device", "tpu"],
        ["--device", "cuda", "--methods", "cv2.seamlessClone NORMAL"],
    ],
)
def test_bench_refuses_bad_arguments_at_once(arguments):
    done = run("bench.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr.splitlines()[-1]


# --- On a GPU: everything but the device itself ---


class ClockworkDevice:
    """The CPU as a device. Its time goes on by a millisecond whenever somebody looks."""

    name = "cpu"

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        self.now += 1e-3
        return self.now

    mark = clock

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self) -> None:
        pass

    def free(self) -> None:
        pass

    def used_bytes(self) -> int:
        return int(self.now * 1e9)

    def about(self) -> dict:
        return {"device": "clockwork"}


@pytest.fixture
def bench_cuda(bench):
    """On images this small torch's threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("bench_cuda")
    torch.set_num_threads(before)


@pytest.fixture
def rivals(bench):
    return importlib.import_module("solve_rivals")


SHAPES = [(1, 1), (1, 7), (2, 1), (2, 2), (5, 8), (8, 5), (7, 13), (12, 16), (33, 64)]


def draw_equation(rng, shape):
    """A divergence and a colour, (H, W, 3), and the same as planes of torch."""
    source, target = rng.random((2, *shape, 3))
    divergence = reference.guidance_divergence(source, target, rng.random(shape))
    return (divergence, target), [torch.from_numpy(np.moveaxis(x, -1, 0).copy()) for x in (divergence, target)]


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_solve_is_the_reference(rivals, rng, shape):
    equation, planes = draw_equation(rng, shape)
    for options in ({"color_weight": 1.0, "sigma": 0.5}, {"color_weight": 0.3, "sigma": 1.2}):
        exact = np.moveaxis(reference.solve(*equation, **options), -1, 0)
        solve = rivals.TorchSolve(*shape, "cpu", dtype=torch.float64, **options)
        np.testing.assert_allclose(solve(*planes), exact, rtol=0, atol=FLOAT64)
        in_float32 = rivals.TorchSolve(*shape, "cpu", **options)(*(x.float() for x in planes))
        assert in_float32.dtype == torch.float32
        np.testing.assert_allclose(in_float32, exact, rtol=0, atol=NATIVE)


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_solve_from_the_right_side_is_the_reference(rivals, rng, shape):
    equation, planes = draw_equation(rng, shape)
    b = rivals.right_side(*planes)
    expected = reference.laplacian(equation[0]) + reference.gaussian_blur(equation[1])
    np.testing.assert_allclose(np.moveaxis(b.numpy(), 0, -1), expected, rtol=0, atol=FLOAT64)
    solve = rivals.TorchSolve(*shape, "cpu", dtype=torch.float64)
    exact = np.moveaxis(reference.solve(*equation), -1, 0)
    np.testing.assert_allclose(solve.from_right_side(b), exact, rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("shape", SHAPES)
def test_dctn_solve_is_the_reference(rivals, rng, shape):
    equation, planes = draw_equation(rng, shape)
    solved = rivals.DctnSolve(*shape, scipy.fft, np.asarray)(*(x.numpy() for x in planes))
    exact = np.moveaxis(reference.solve(*equation), -1, 0)
    np.testing.assert_allclose(solved, exact, rtol=0, atol=FLOAT64)


def test_single_level_is_the_smallest_that_is_one(bench_cuda):
    for size in ("640x480", "33x32", "97x61", "1920x1080", "2046x2046", *bench_cuda.LEVELS):
        width, height = bench_cuda.parse_size(size)
        image_size = bench_cuda.single_level(size)
        assert reference.pyramid_shapes((height, width), image_size) == [(height, width)]
        assert len(reference.pyramid_shapes((height, width), image_size - 1)) == 2
    assert bench_cuda.single_level("2047x2047") is bench_cuda.single_level("3840x2160") is None


def test_level_bytes_are_those_of_the_steps(bench_cuda):
    coarser = bench_cuda.level_bytes(carry="correction")
    assert coarser == {"right-hand side": 31, "transform": 48, "division": 24, "transform back": 48, "result": 24}
    last = bench_cuda.level_bytes(carry="correction", stored_bytes=1)
    assert last == coarser | {"result": 43}
    # The paper's levels composite in both kernels.
    assert bench_cuda.level_bytes() == coarser | {"right-hand side": 43, "result": 52}
    assert bench_cuda.level_bytes(stored_bytes=1, channels=1)["result"] == 17
    # A float of the colour for a quarter of one from below, and what comes before.
    assert sum(bench_cuda.timed_level_bytes().values()) == sum(last.values()) + 12 + 9 + 12 + 36


def test_batch_of_is_bounded_by_pixels(bench_cuda):
    sizes = ("640x480", "1920x1080", "3840x2160", "7680x4320")
    assert [bench_cuda.batch_of(size) for size in sizes] == [8, 8, 2, 1]


def test_one_turn_measures_what_it_says(bench_cuda):
    device = ClockworkDevice()
    began = []

    def call() -> None:
        device.now += 0.5
        began.append(device.now)
        device.now += 0.25

    def times(job, **options) -> object:
        taken = bench_cuda.Times()
        bench_cuda.one_turn(device, bench_cuda.Task(lambda: job, np.zeros(1), 0, **options), 10, taken)
        assert len(taken.seconds) == 14  # of 0.75 s
        assert len(taken.host) == len(taken.alone) == bench_cuda.ALONE
        assert taken.host == pytest.approx([0.751] * len(taken.host))
        assert taken.alone == pytest.approx([0.752] * len(taken.host))
        assert taken.first == pytest.approx([0.751])
        assert taken.device_bytes == pytest.approx(0.752e9, rel=1e-2)
        return taken.seconds

    job = bench_cuda.Job(call, lambda: np.zeros(1))
    assert times(job) == pytest.approx([0.751] * 14)
    assert times(job, on_stream=False) == pytest.approx([0.751] * 14)
    assert times(bench_cuda.Job(call, lambda: np.zeros(1), began.pop)) == pytest.approx([0.251] * 14)


def test_take_turns_ends_in_time_and_drops_who_fails(bench_cuda):
    device = ClockworkDevice()
    order = []

    def task(name, result=0.0, fails_in=None):
        def build():
            order.append(name)
            if fails_in == order.count(name):
                raise torch.OutOfMemoryError("no memory left\nfor a second line")
            return bench_cuda.Job(lambda: None, lambda: np.full(1, result))

        return bench_cuda.Task(build, np.zeros(1), 0.5)

    tasks = {"a": task("a"), "b": task("b", fails_in=2), "c": task("c", 1)}
    failures = []
    taken = bench_cuda.take_turns(device, "64x48", tasks, 3, 0.01, 1e9, failures)
    assert order == ["a", "b", "c", "a", "b", "a"]
    assert (list(taken), len(taken["a"].first)) == (["a"], 3)
    assert failures[1] == "b at 64x48: no memory left"
    assert failures[0].startswith("c at 64x48: result: 1 off")
    taken = bench_cuda.take_turns(device, "64x48", {"a": task("a")}, 3, 0.01, 1e-9, [])
    assert len(taken["a"].first) == 1


@pytest.fixture
def clockwork(bench, bench_cuda, monkeypatch):
    """bench.py --device cuda with the CPU as its device, in this process."""

    def run_clockwork(*arguments: object) -> None:
        monkeypatch.setattr(bench_cuda, "why_not", lambda: None)
        monkeypatch.setattr(bench_cuda, "CudaDevice", ClockworkDevice)
        monkeypatch.setattr(sys, "argv", ["bench.py", "--device", "cuda", *map(str, arguments)])
        bench.main()

    return run_clockwork


def test_bench_on_a_device_writes_all_fields_and_a_plot(bench_cuda, clockwork, monkeypatch, tmp_path, capsys):
    cupy = SimpleNamespace(
        from_dlpack=np.from_dlpack,
        asarray=np.asarray,
        asnumpy=np.asarray,
        float32=np.float32,
        cuda=SimpleNamespace(ExternalStream=lambda stream: contextlib.nullcontext()),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupyx.scipy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupyx.scipy.fft", scipy.fft)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(bench_cuda, "BATCH_PIXELS", 3 * 64 * 48)
    monkeypatch.setattr(bench_cuda, "ALONE", 1)
    path, plot, sizes = tmp_path / "result.json", tmp_path / "plot.svg", ["64x48", "97x61"]
    few = ("--repeats", 1, "--seconds", 0.004)
    clockwork("--quick", "--sizes", *sizes, *few, "--json", path, "--plot", plot)
    printed = capsys.readouterr().out
    assert "results verified" in printed and "batch at 97x61: left out" in printed
    written = json.loads(path.read_text())
    assert {"date", "revision", "cpu", "torch", "device", "level_bytes"} < {*written["about"]}

    methods = [(size, name) for size in sizes for name in bench_cuda.METHODS if size == "64x48" or "batch" not in name]
    assert [(row["size"], row["method"]) for row in written["blends"]] == methods
    for row in written["blends"]:
        assert row["images"] == (3 if "batch" in row["method"] else 1)
        assert row["calls"] == len(row["seconds"]) > row["turns"] == 1
        # A look at the clock before and one after.
        assert row["median_seconds"] == pytest.approx(1e-3) == row["host_seconds"]
        assert row["alone_seconds"] == pytest.approx(2e-3)
        width, height = map(int, row["size"].split("x"))
        assert row["megapixels_per_s"] == pytest.approx(row["images"] * width * height / 1e3)
        assert row["ours"] == row["method"].startswith("gpgan")
        assert row["times_cpu"] == (pytest.approx(row["images"]) if row["ours"] else None)
        assert {"first_call_seconds", "device_mb"} < {*row}

    by = ["gpgan", "torch.fft", "torch.fft, right-hand side given", "cupy"]
    timed = [(row["operation"], row["size"], row["implementation"]) for row in written["operations"]]
    assert timed == [("solve", size, name) for size in sizes for name in by]
    for row in written["operations"]:
        width, height = map(int, row["size"].split("x"))
        assert row["bytes"] == 36 * width * height
        # gpgan's from the call of the generator on, which looks at the clock itself.
        assert [row["median_seconds"], row["copy_seconds"]] == pytest.approx([1e-3, 1e-3])
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / 1e6)
        assert row["share_of_copy"] == pytest.approx(1)
        assert row["ours"] == (row["implementation"] == "gpgan") == ("share_of_floor" in row)
        if row["ours"]:
            assert row["floor_bytes"] == 263 * width * height
            assert row["share_of_floor"] == pytest.approx(263 / 36)

    assert "clockwork" in plot.read_text()
    done = run("compare.py", path, path, "--normalise")
    assert done.returncode == 0, done.stdout + done.stderr
    assert line(done, "solve, 64x48, gpgan, cpu").endswith("1.00")


def test_bench_on_a_device_times_nothing_that_is_wrong(bench_cuda, clockwork, monkeypatch):
    blend = gpgan.blend

    def wrong(where, by):
        """Adds to the result where the arguments say so."""

        def call(*images, **options):
            result = blend(*images, **options)
            return result + by if where(result, options) else result

        return call

    def is_tensor(result, options):
        return isinstance(result, torch.Tensor)

    for call, what in (
        (wrong(lambda r, o: is_tensor(r, o) and r.dtype == torch.uint8, 3), "uint8"),
        (wrong(lambda r, o: is_tensor(r, o) and r.dtype == torch.float32 and not o["membrane"], 1e-4), "float32"),
        (wrong(lambda r, o: is_tensor(r, o) and r.ndim == 4, 3), "image 0 of a batch"),
        (wrong(lambda r, o: not is_tensor(r, o), 3), "against the CPU path"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(gpgan, "blend", call)
            with pytest.raises(SystemExit, match=f"no times, as the results are wrong: {what}"):
                clockwork("--quick", "--methods", "gpgan.Blender, cuda, no generator")


def test_bench_on_a_device_lists_what_it_could_not_time(bench_cuda, clockwork, monkeypatch, tmp_path):
    method = "gpgan.Blender, cuda, no generator"
    blender = gpgan.Blender.__call__
    solve = bench_cuda.TorchSolve.from_right_side

    def only_numpy_is_right(self, *images, out=None, **options):
        result = blender(self, *images, out=out, **options)
        return result if isinstance(result, np.ndarray) else result.add_(9)

    monkeypatch.setattr(bench_cuda, "verify", lambda *arguments, **options: None)
    monkeypatch.setattr(gpgan.Blender, "__call__", only_numpy_is_right)
    monkeypatch.setattr(bench_cuda.TorchSolve, "from_right_side", lambda self, b: solve(self, b) + 0.01)
    path = tmp_path / "result.json"
    with pytest.raises(SystemExit) as ended:
        clockwork("--quick", "--sizes", "64x48", "--methods", method, bench_cuda.COPY, "--json", path)
    failed = str(ended.value).splitlines()[2:]
    assert [text.split(": ")[0] for text in failed] == [
        "gpgan at solve, 64x48",
        "torch.fft, right-hand side given at solve, 64x48",
        f"{method} at 64x48",
    ]
    written = json.loads(path.read_text())
    assert [row["implementation"] for row in written["operations"]] == ["torch.fft"]
    assert [row["method"] for row in written["blends"]] == [bench_cuda.COPY]


def test_bench_leaves_out_the_solve_of_sizes_that_are_no_single_level(bench_cuda, clockwork, monkeypatch, capsys):
    monkeypatch.setattr(bench_cuda, "verify", lambda *arguments, **options: None)
    monkeypatch.setattr(bench_cuda, "LARGEST_S", 30)
    clockwork("--quick", "--sizes", "97x61", "--methods", bench_cuda.COPY)
    assert "solve of 97x61: left out" in capsys.readouterr().out


def test_bench_says_why_there_is_no_device(bench_cuda, monkeypatch):
    monkeypatch.setattr(_cuda_library, "status", lambda: (False, "no CUDA device:\nno driver"))
    assert bench_cuda.why_not() == "no CUDA device: no driver"
    monkeypatch.setattr(_cuda_library, "status", lambda: (True, "NVIDIA H100 (cuFFT 12.0.0)"))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in bench_cuda.why_not()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA device" in bench_cuda.why_not()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert bench_cuda.why_not() is None


def test_bench_refuses_cuda_in_one_line_where_there_is_none():
    done = run("bench.py", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("--device cuda: ")


def test_bench_times_on_a_gpu(bench_cuda, tmp_path):
    if reason := bench_cuda.why_not():
        pytest.skip(reason)
    path = tmp_path / "result.json"
    done = run("bench.py", "--device", "cuda", "--quick", "--sizes", "64x48", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(path.read_text())
    assert written["about"]["driver"]
    assert [row["method"] for row in written["blends"]] == [*bench_cuda.METHODS]
    assert written["operations"][0]["implementation"] == "gpgan"
