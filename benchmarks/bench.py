"""Time gpgan, its single operations and its rivals, in one run.

    python benchmarks/bench.py [--device cuda] [--sizes 640x480 ...] [--repeats N] [--json FILE] [--plot FILE] [--quick]

First the results are verified, against the float64 reference and SciPy; what is wrong is not timed.

End to end: 8-bit in, 8-bit out, a disc over 31 % of the frame as the mask. Methods take turns, so that a machine whose
speed drifts slows all of them alike, each turn in a process of its own, so that memory is that method's: one call to
warm up, then as many timed ones as fit. Who can write into a given array is given one. "peak MB" is all of the process,
libraries included; "work MB" is the peak in the second call, beyond what libraries, generator, images and result take.

Operations: float32, the bytes of inputs and output per second, and that as a share of the speed at which np.copyto,
on one thread, moves as many bytes in the same turns. They are timed as they are called from Python: all but the
transform turn pixels into planes and back on the way, which takes longer than most of them and which a blend does not
do. gpgan's transform and SciPy's allocate their results.

All this on the CPU; --device cuda times on an NVIDIA GPU what bench_cuda.py describes.

compare.py compares two JSON files, plot.py draws one.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_common import (
    COPY,
    FORMAT,
    MOST_CALLS,
    SIZES,
    Images,
    WrongResultError,
    about,
    check,
    images,
    parse_size,
    size_text,
    summary,
    to_json,
)

Call = Callable[[], Any]

LENGTHS = [1920, 3840, 7680, 1000, 1999, 4096]  # image sides, one of odd factors, a prime, a power of two
OPENCV = "cv2.seamlessClone NORMAL"


@dataclass(frozen=True)
class Method:
    """What is timed: ``build(images, out)`` is not, the call that it gives is."""

    build: Callable[[Images, np.ndarray], Call]
    module: str = "gpgan"  # which must be installed
    generator: bool = False
    same_result: str = ""  # methods of one such name must agree bit for bit


def _blender(**options: Any) -> Callable[[Images, np.ndarray], Call]:
    def build(i: Images, out: np.ndarray) -> Call:
        import gpgan

        blender = gpgan.Blender(i[1].shape, **options)
        return lambda: blender(*i, out=out)

    return build


def _blend(i: Images, out: np.ndarray) -> Call:
    import gpgan

    return lambda: gpgan.blend(*i)


def _seamless_clone(i: Images, out: np.ndarray) -> Call:
    import cv2

    x, y, width, height = cv2.boundingRect(i[2])
    center = (x + width // 2, y + height // 2)
    # It erodes the mask that it is given in place.
    return lambda: cv2.seamlessClone(i[0], i[1], i[2].copy(), center, cv2.NORMAL_CLONE, out)


def _multi_band(i: Images, out: np.ndarray) -> Call:
    import cv2

    def run() -> np.ndarray:
        blender = cv2.detail_MultiBandBlender(0, 5)
        blender.prepare((0, 0, i[1].shape[1], i[1].shape[0]))
        blender.feed(i[0].astype(np.int16), i[2], (0, 0))
        blender.feed(i[1].astype(np.int16), cv2.bitwise_not(i[2]), (0, 0))
        result, _ = blender.blend(None, None)
        return cv2.convertScaleAbs(cv2.max(result, 0), dst=out)

    return run


def _feathered_paste(i: Images, out: np.ndarray) -> Call:
    """With the kernel of libcom's "gaussian": 15 x 15, sigma 5."""
    import cv2

    def run() -> np.ndarray:
        weight = cv2.GaussianBlur(i[2], (15, 15), 5).astype(np.float32)[..., None] / 255
        return (i[0] * weight + i[1] * (1 - weight)).astype(np.uint8)

    return run


def _copy(i: Images, out: np.ndarray) -> Call:
    copies = [np.zeros_like(i[0]), out, np.zeros_like(i[2])]

    def run() -> np.ndarray:
        for to, image in zip(copies, i, strict=True):
            np.copyto(to, image)
        return out

    return run


METHODS = {
    "gpgan.Blender": Method(_blender(), generator=True, same_result="default"),
    "gpgan.blend": Method(_blend, generator=True, same_result="default"),
    "gpgan.Blender, 1 thread": Method(_blender(threads=1), generator=True, same_result="default"),
    "gpgan.Blender, no generator": Method(_blender(generator=None)),
    'gpgan.Blender, mode="paper"': Method(_blender(mode="paper"), generator=True),
    OPENCV: Method(_seamless_clone, "cv2"),
    "cv2 MultiBandBlender, 5 bands": Method(_multi_band, "cv2"),
    "feathered paste": Method(_feathered_paste, "cv2"),
    COPY: Method(_copy, "numpy"),
}


# --- Verification ---


def verify_gpgan(quick: bool, generator: bool) -> None:
    """Raises WrongResultError where the native results are not the reference's."""
    import scipy.fft

    import gpgan
    from gpgan import _core, reference

    levels = 1 / 255
    for height, width in [(96, 131)] if quick else [(96, 131), (211, 307), (257, 128)]:
        as_uint8 = images(height, width)
        source, target, mask = as_floats = tuple(x / np.float32(255) for x in as_uint8)
        exact_inputs = [x.astype(np.float64) for x in as_floats]
        for mode in ("default", "paper", "released"):
            for membrane in (True, False):
                options: dict[str, Any] = {"mode": mode, "membrane": membrane}
                exact = reference.blend(*exact_inputs, **options)
                results = []
                for threads in (1, 2, 3):
                    what = f"{mode}, membrane={membrane}, {width} x {height}, {threads} threads"
                    options.update(generator=None, threads=threads)
                    check(f"uint8, {what}", gpgan.blend(*as_uint8, **options) / 255.0 - exact, levels)
                    results.append(gpgan.blend(*as_floats, **options))
                    check(f"float32, {what}", results[-1] - exact, levels if membrane else 2e-5)
                    check(f"against 1 thread, {what}", results[-1] - results[0], 0)
        if generator:
            shipped = gpgan.load_generator("default")
            exact = reference.blend(
                *exact_inputs,
                generator=lambda *inputs, shipped=shipped: shipped(*(x.astype(np.float32) for x in inputs)),
                image_size=shipped.image_size,
            )
            # The generator answers to differences of the membrane that each lie within a level, too.
            check(f"uint8 with the generator, {width} x {height}", gpgan.blend(*as_uint8) / 255.0 - exact, 2 * levels)
        check("membrane", _core.membrane(source, target, mask) - reference.membrane(*exact_inputs), levels)
    rng = np.random.default_rng(1)
    for length in LENGTHS[:1] if quick else LENGTHS:
        rows = rng.standard_normal((35, length)).astype(np.float32)
        exact = scipy.fft.dct(rows.astype(np.float64))
        scale = np.abs(exact).max(axis=1, keepdims=True)
        check(f"dct of {length}", (_core.dct(rows) - exact) / scale, 1.2e-7 * (2 + np.log2(length)))


def verify_rival(name: str) -> None:
    """Raises WrongResultError where the result is not the target far outside, with the source's detail inside."""
    height, width = 480, 640
    source, target, mask = images(height, width)
    y, x = np.mgrid[0:height, 0:width]
    distance = (y / height - 0.5) ** 2 + (x / width - 0.5) ** 2  # the mask is where it is below 0.1
    result = METHODS[name].build((source, target, mask), np.zeros_like(target))()
    if result.shape != target.shape or result.dtype != np.uint8:
        raise WrongResultError(f"result of shape {result.shape} and dtype {result.dtype}")
    if name == COPY:
        check("copy", result.astype(int) - target, 0)
        return
    check("outside the mask", (result.astype(int) - target)[distance > 0.22], 8)
    detail = np.diff(result.astype(int), axis=1) - np.diff(source.astype(int), axis=1)
    check("mean detail inside the mask", np.abs(detail[distance[:, 1:] < 0.05]).mean(), 2)


# --- Memory ---


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes, or None where there is none."""
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _peak() -> int:
    # Not ru_maxrss first: a process starts with that of the one it was forked from.
    high = _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit if high is None else high


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _give_back_freed() -> None:
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # where the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)


# --- What the processes do ---


def measure_blend(name: str, folder: str, seconds: float, threads: int) -> dict[str, Any]:
    """One method on the images in a folder, in this process."""
    method = METHODS[name]
    if method.module == "cv2":
        import cv2

        cv2.setNumThreads(threads)
    small = images(96, 96)
    method.build(small, np.zeros_like(small[1]))()  # loads libraries and generator
    data = tuple(np.load(Path(folder) / f"{i}.npy") for i in range(3))
    out = np.full_like(data[1], 1)  # touched, hence resident
    _give_back_freed()
    before = _status("VmRSS") or _peak()

    run = method.build(data, out)
    start = time.perf_counter()
    result = run()
    first = time.perf_counter() - start
    checksum = zlib.crc32(result)
    result_bytes = 0 if np.may_share_memory(result, out) else result.nbytes
    del result
    peak = _peak()
    _reset_peak()  # where that is not possible the peak is that of both calls
    taken: list[float] = []
    second_peak = 0
    # Two at least, as long as they are not very slow.
    while not taken or (sum(taken) < seconds * (5 if len(taken) < 2 else 1) and len(taken) < MOST_CALLS):
        start = time.perf_counter()
        result = run()
        taken.append(time.perf_counter() - start)
        second_peak = second_peak or _peak()
        if zlib.crc32(result) != checksum:
            raise WrongResultError("another result in a later call")
        del result
    return {
        "seconds": taken,
        "first_call_seconds": first,
        "checksum": checksum,
        "peak_bytes": max(peak, _peak()),
        "working_bytes": max(second_peak - before - result_bytes, 0),
    }


def _take_turns(calls: dict[Any, Call], seconds: float) -> dict[Any, list[float]]:
    """Times of each call, the first one of each left out; as many turns as fit into so many seconds, 5 at least."""
    taken: dict[Any, list[float]] = {key: [] for key in calls}
    end = time.perf_counter() + seconds
    turn = 0
    while turn <= 5 or (time.perf_counter() < end and turn <= 10 * MOST_CALLS):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                taken[key].append(time.perf_counter() - start)
        turn += 1
    return taken


def measure_operations(size: str, lengths: list[int], batch: int, seconds: float, threads: int) -> list[dict[str, Any]]:
    import scipy.fft

    from gpgan import _core

    ducc_fft = importlib.import_module("ducc0").fft if importlib.util.find_spec("ducc0") else None
    rows = []

    def add(operation: str, what: str, calls: dict[Any, Call], arrays: list[np.ndarray], out: Any) -> None:
        moved = sum(a.nbytes for a in arrays) + out.nbytes
        source, target = np.ones(moved // 2, np.uint8), np.ones(moved // 2, np.uint8)
        calls = {**calls, "copy": lambda: np.copyto(target, source)}
        taken = _take_turns(calls, seconds)
        median = {key: float(np.median(times)) for key, times in taken.items()}
        for key in calls:
            if isinstance(key, str):
                continue
            name, count = key
            row = {"operation": operation, "size": what, "implementation": name, "threads": count, "bytes": moved}
            row |= summary(taken[key]) | {"ours": name == "gpgan"}
            row["copy_seconds"] = median["copy"]
            row["gb_per_s"] = moved / row["median_seconds"] / 1e9
            row["share_of_copy"] = median["copy"] / row["median_seconds"]
            rows.append(row)

    rng = np.random.default_rng(2)
    for length in lengths:
        x = rng.standard_normal((batch, length)).astype(np.float32)
        out = np.zeros_like(x)
        calls: dict[Any, Call] = {("gpgan", 1): lambda x=x: _core.dct(x, 2, 1)}
        calls["scipy", 1] = lambda x=x: scipy.fft.dct(x, workers=1)
        if ducc_fft is not None:
            calls["ducc0", 1] = lambda x=x, out=out: ducc_fft.dct(x, type=2, axes=(1,), nthreads=1, out=out)
        add("dct", f"{batch} rows of {length}", calls, [x], out)

    width, height = parse_size(size)
    source, target, mask = (image / np.float32(255) for image in images(height, width))
    half = ((height + 1) // 2, (width + 1) // 2)
    square = (min(128, height), min(128, width))  # the shipped generator's
    small = _core.downsample(target, half)
    divergence = _core.guidance_divergence(source, target, mask)
    operations: dict[str, tuple[Callable[[int], Any], list[np.ndarray]]] = {
        "membrane": (lambda n: _core.membrane(source, target, mask, n), [source, target, mask]),
        "solve": (lambda n: _core.solve(divergence, target, 1.0, 0.5, False, n), [divergence, target]),
        "guidance_divergence": (lambda n: _core.guidance_divergence(source, target, mask, n), [source, target, mask]),
        "gaussian_blur": (lambda n: _core.gaussian_blur(target, 0.5, n), [target]),
        "downsample": (lambda n: _core.downsample(target, half, n), [target]),
        "upsample": (lambda n: _core.upsample(small, (height, width), n), [small]),
        "area_average": (lambda n: _core.area_average(target, square, n), [target]),
        "inset": (lambda n: _core.inset(mask, 2, n), [mask]),
    }
    for name, (call, arrays) in operations.items():
        calls = {("gpgan", n): lambda call=call, n=n: call(n) for n in sorted({1, threads})}
        add(name, size, calls, arrays, call(threads))
    return rows


def in_a_process(task: str, **arguments: Any) -> Any:
    """A function of this file in a new process: (its result, None) or (None, why it has none)."""
    command = [sys.executable, __file__, "--task", json.dumps({"task": task, **arguments})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), None


# --- The run ---


def usable(names: list[str], quick: bool) -> list[str]:
    """The methods that are installed and right. Ends the run if gpgan is not."""
    kept = []
    for name in names:
        if not importlib.util.find_spec(METHODS[name].module):
            print(f"{name}: left out, as {METHODS[name].module} is not installed")
            continue
        if METHODS[name].module != "gpgan":
            _, why = in_a_process("verify_rival", name=name)
            if why:
                print(f"{name}: left out, as its result is not sane: {why}")
                continue
        kept.append(name)
    _, why = in_a_process("verify_gpgan", quick=quick, generator=any(METHODS[name].generator for name in kept))
    if why:
        raise SystemExit(f"no times, as the results are wrong: {why}")
    return kept


def print_operations(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'operation':<20} {'size':<18} {'by':<6} {'threads':>7} {'median ms':>9} {'GB/s':>7} {'of copy':>8}")
    for row in rows:
        print(
            f"{row['operation']:<20} {row['size']:<18} {row['implementation']:<6} {row['threads']:>7} "
            f"{row['median_seconds'] * 1e3:>9.2f} {row['gb_per_s']:>7.2f} {row['share_of_copy']:>8.0%}"
        )


def run_size(
    size: str, names: list[str], repeats: int, seconds: float, limit: float, threads: int, failures: list[str]
) -> list[dict[str, Any]]:
    """The rows of one size: turns in processes until there are `repeats`, or no time is left for one more.

    A method that fails has no row, but a line in `failures`.
    """
    width, height = parse_size(size)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images(height, width)):
            np.save(Path(folder) / f"{i}.npy", image)
        for turn in range(repeats):
            spent = time.perf_counter() - began
            if turn and spent * (turn + 1) / turn > limit:
                break
            for name in list(turns):
                taken, why = in_a_process("measure_blend", name=name, folder=folder, seconds=seconds, threads=threads)
                if why:
                    failures.append(f"{name} at {size}: {why}")
                    del turns[name]
                else:
                    turns[name].append(taken)
    checksums: dict[str, set[int]] = {}
    for name in turns:
        checksums.setdefault(METHODS[name].same_result or name, set()).update(t["checksum"] for t in turns[name])
    for name in list(turns):
        if len(checksums[METHODS[name].same_result or name]) > 1:
            failures.append(f"{name} at {size}: results differ between processes or numbers of threads")
            del turns[name]

    rows = []
    for name in turns:
        row: dict[str, Any] = {"size": size, "method": name, "ours": METHODS[name].module == "gpgan"}
        row |= summary([s for turn in turns[name] for s in turn["seconds"]]) | {"processes": len(turns[name])}
        row["megapixels_per_s"] = width * height / 1e6 / row["median_seconds"]
        row["first_call_seconds"] = float(np.median([turn["first_call_seconds"] for turn in turns[name]]))
        row["peak_mb"] = max(turn["peak_bytes"] for turn in turns[name]) / 1e6
        row["working_mb"] = max(turn["working_bytes"] for turn in turns[name]) / 1e6
        row["working_bytes_per_pixel"] = row["working_mb"] * 1e6 / (width * height)
        rows.append(row)
    medians = {row["method"]: row["median_seconds"] for row in rows}
    one = medians.get("gpgan.Blender, 1 thread")
    for row in rows:
        row["times_opencv"] = medians[OPENCV] / row["median_seconds"] if OPENCV in medians else None
        row["speedup_of_threads"] = one / row["median_seconds"] if one and row["method"] == "gpgan.Blender" else None
    return rows


def print_size(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    print(
        f"\n{rows[0]['size']:<30} {'median ms':>9} {'min':>8} {'q1':>8} {'q3':>8} {'max':>8} {'calls':>5} {'MP/s':>7} "
        f"{'x OpenCV':>8} {'peak MB':>7} {'work MB':>7}"
    )
    for row in rows:
        times = " ".join(f"{row[f'{key}_seconds'] * 1e3:>8.2f}" for key in ("min", "q1", "q3", "max"))
        faster = "-" if row["times_opencv"] is None else f"{row['times_opencv']:.2f}"
        print(
            f"{row['method']:<30} {row['median_seconds'] * 1e3:>9.2f} {times} {row['calls']:>5} "
            f"{row['megapixels_per_s']:>7.1f} {faster:>8} {row['peak_mb']:>7.0f} {row['working_mb']:>7.1f}"
        )
    for row in rows:
        if row["speedup_of_threads"] is not None:
            print(f"threads make gpgan.Blender {row['speedup_of_threads']:.2f} times as fast", flush=True)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The result, and a line for each method that could not be timed."""
    quick = options.quick
    sizes = sorted(options.sizes or (SIZES[:2] if quick else SIZES), key=lambda s: np.prod(parse_size(s)))
    repeats = options.repeats or (1 if quick else 3)
    seconds = options.seconds if options.seconds is not None else (0.2 if quick else 1.0)
    end = time.perf_counter() + 60 * options.minutes
    result: dict[str, Any] = {"format": FORMAT, "about": about(), "operations": [], "blends": []}
    for key, value in result["about"].items():
        print(f"{key}: {value}")
    load = result["about"]["load_average"][0]
    if load > 0.5:
        print(f"the machine is busy, with a load of {load:.1f}: expect noise")
    names = usable([name for name in METHODS if name in (options.methods or METHODS)], quick)
    print("results verified", flush=True)
    threads = result["about"]["threads"]
    if not options.no_operations:
        rows, why = in_a_process(
            "measure_operations",
            size=sizes[0] if quick else "1920x1080",
            lengths=[1920, 1999] if quick else LENGTHS,
            batch=64 if quick else 512,
            seconds=0.1 if quick else 1.0,
            threads=threads,
        )
        if why:
            raise SystemExit(f"operations: {why}")
        result["operations"] = rows
        print_operations(rows)
    failures: list[str] = []
    for i, size in enumerate(sizes):
        limit = (end - time.perf_counter()) / (len(sizes) - i)  # what one size leaves is the next one's
        rows = run_size(size, names, repeats, seconds, limit, threads, failures)
        result["blends"] += rows
        result["about"]["load_average_at_end"] = os.getloadavg()
        print_size(rows)
        if options.json:
            options.json.write_text(to_json(result))
    return result, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what to time (cpu)")
    parser.add_argument("--sizes", nargs="+", type=size_text, metavar="WxH", help=f"default: {' '.join(SIZES)}")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"of: {'; '.join(METHODS)}; on a GPU others")
    parser.add_argument(
        "--repeats", type=int, help="turns of a method and size (3; on a GPU 10), fewer if time runs out"
    )
    parser.add_argument("--seconds", type=float, help="of timed calls in each turn (1; on a GPU 0.2)")
    parser.add_argument("--minutes", type=float, default=7, help="after which no further repeat begins (7)")
    parser.add_argument("--quick", action="store_true", help="under a minute: two sizes, few turns")
    parser.add_argument("--no-operations", action="store_true", help="only end to end")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=".svg or .png")
    parser.add_argument("--task", help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    if options.task:
        task = json.loads(options.task)
        try:
            print(json.dumps(globals()[task.pop("task")](**task)))
        except WrongResultError as wrong:
            raise SystemExit(str(wrong)) from None
        return
    for path in (options.json, options.plot):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{path}: no such folder")
    if options.plot is not None and not importlib.util.find_spec("matplotlib"):
        parser.error("--plot: matplotlib is not installed")
    known = list(METHODS)
    if options.device == "cuda":
        import bench_cuda  # which needs torch

        known = list(bench_cuda.METHODS)
    for name in options.methods or ():
        if name not in known:
            parser.error(f"--methods: expected any of {'; '.join(known)}, got {name!r}")

    if options.device == "cuda":
        if reason := bench_cuda.why_not():
            print(f"--device cuda: {reason}", file=sys.stderr)
            raise SystemExit(2)
        result, failures = bench_cuda.run(options, bench_cuda.CudaDevice())
    else:
        result, failures = run(options)
    if options.plot:
        import plot

        plot.draw(result, options.plot)
    if failures:
        raise SystemExit("\n".join(["", "not timed:", *failures]))


if __name__ == "__main__":
    main()
