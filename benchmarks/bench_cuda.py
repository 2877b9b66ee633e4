"""What bench.py does with --device cuda: gpgan on an NVIDIA GPU, beside its CPU path, rivals and a plain copy.

End to end: 8-bit tensors in the device's memory in and out, one image at a time and in batches; NumPy arrays, copied
there and back; and the CPU path. Operations: the closed form of one level, Eq. 9, float32, beside the same quotient of
spectra in torch operations and in cupy. One process, in which methods take turns: each turn builds anew, calls to warm
up, and then times three things. "ms" is what lies between two events on the stream, for calls that follow one another
without a pause (with NumPy, and on the CPU: the caller's clock); "alone" is a single call until the device has
finished, and "host" what of it is over when the call returns: the cost of launching. Where host is as long as ms, the
device waits for the host. "device MB" is what is taken of the device's memory, images included.

gpgan's solve is timed inside a blend, mode="paper" with a single level: from its call of the generator, which gives the
composite back, to the finished 8-bit image. So it also expands the generator's colour, takes source - target, mixes the
gradients, composites and converts; the rivals are given the divergence and the colour as float planes and give float
planes, and one of them has the whole right-hand side made for it. Its bytes, like theirs, are divergence, colour and
result, once each. "floor" is what its own steps must move (level_bytes), at the speed of the copy in the same turns.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
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
    summary,
    to_json,
)
from solve_rivals import DctnSolve, TorchSolve, right_side

import gpgan
from gpgan import _core, _cuda_library, reference

LEVELS = ["640x480", "1920x1080", "3840x2016", "7680x2016"]  # sizes that can be one level: see single_level
LARGEST_S = 1024
BATCH_PIXELS = 8 * 1920 * 1080
ALONE = 5  # calls in a turn that wait for the device
SOLVE = "solve"
LEVEL = 1 / 255


def why_not() -> str | None:
    """Why nothing can be timed here, in one line."""
    available, text = _cuda_library.status()
    if not available:
        return " ".join(text.split())
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return None if torch.cuda.is_available() else f"torch {torch.__version__} finds no CUDA device"


class Device(Protocol):
    """Where it runs and what time it is there; the tests have one without a GPU."""

    name: str  # for torch and for gpgan

    def clock(self) -> float: ...  # the host's, in seconds
    def mark(self) -> Any: ...  # a moment on the stream
    def seconds(self, start: Any, end: Any) -> float: ...  # between two of them, once both are over
    def synchronize(self) -> None: ...
    def free(self) -> None: ...  # what nobody holds any more
    def used_bytes(self) -> int: ...
    def about(self) -> dict[str, Any]: ...


class CudaDevice:
    """torch's current device and stream, which are gpgan's too."""

    name = "cuda"

    def clock(self) -> float:
        return time.perf_counter()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return float(start.elapsed_time(end)) / 1e3

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def free(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def used_bytes(self) -> int:
        free, total = torch.cuda.mem_get_info()
        return total - free

    def about(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            driver = None
        return {
            "device": properties.name,
            "device_capability": f"{properties.major}.{properties.minor}",
            "device_memory_mb": properties.total_memory / 1e6,
            "device_multiprocessors": properties.multi_processor_count,
            "driver": driver,
            "gpgan_cuda": _cuda_library.status()[1],
            "torch_cuda": torch.version.cuda,
            "torch_tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
            "cupy": getattr(import_cupy(), "__version__", None),
        }


def import_cupy() -> Any:
    """cupy, or None where it is not installed, or not for the CUDA that is there."""
    try:
        return importlib.import_module("cupy")
    except ImportError:
        return None


# --- What a level costs at least ---


def single_level(size: str) -> int | None:
    """The smallest S with which a pyramid of this size is one level, or None where no S is large enough."""
    side = (min(parse_size(size)) + 1) // 2 + 1
    return side if side <= LARGEST_S else None


def level_bytes(
    *, carry: str = "image", coarsest: bool = False, stored_bytes: int | None = None, channels: int = 3
) -> dict[str, float]:
    """Bytes a pixel that each step of one level must read and write.

    Every plane that a step needs counts once, float32: neighbours come from caches and shared memory. A transform of
    an image cannot keep it on the chip and passes twice over it, along the rows and along the columns.

    Parameters
    ----------
    carry : {"image", "correction"}
    coarsest : bool
        Whether the level starts from the generator's colour, expanded before it, and not from the level below, which
        has a quarter of the pixels.
    stored_bytes : int, optional
        Of a value of the result, for the last level; None for the others, which leave a plane.
    channels : int
        Of the images; the mask has one.
    """
    plane, mask = 4.0 * channels, 4.0
    composited = carry == "image" or stored_bytes is not None
    composite = plane + plane + mask  # difference, target, mask
    return {
        "right-hand side": (composite if carry == "image" else plane + mask)
        + (plane if coarsest else plane / 4)
        + plane,
        "transform": 2 * (plane + plane),
        "division": plane + plane,
        "transform back": 2 * (plane + plane),
        "result": plane
        + (composite if composited else 0)
        + (plane if stored_bytes is None else channels * float(stored_bytes)),
    }


def timed_level_bytes(channels: int = 3) -> dict[str, float]:
    """:func:`level_bytes` of what is timed here as gpgan's solve, with what goes before it there."""
    plane = 4.0 * channels
    return {
        "colour, expanded": plane,
        "source - target": plane + plane + plane,
        **level_bytes(coarsest=True, stored_bytes=1, channels=channels),
    }


# --- Turns ---


class Job(NamedTuple):
    call: Callable[[], object]
    result: Callable[[], np.ndarray]
    began: Callable[[], Any] | None = None  # the moment from which on the last call counts; None: all of it


@dataclass(frozen=True)
class Task:
    """What is timed: ``build()`` is not, what it gives is. Results must be within `most` of what is expected."""

    build: Callable[[], Job]
    expected: np.ndarray
    most: float
    on_stream: bool = True  # else the call itself waits for its result


@dataclass
class Times:
    seconds: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # of a turn: building with it, and taking the images there
    device_bytes: int = 0


def one_turn(device: Device, task: Task, seconds: float, times: Times) -> None:
    """Adds a turn's times."""
    device.free()
    before = device.used_bytes()
    start = device.clock()
    job = task.build()
    job.call()
    device.synchronize()
    times.first.append(device.clock() - start)
    times.device_bytes = max(times.device_bytes, device.used_bytes() - before)
    end = device.clock() + seconds / 2
    while device.clock() < end:  # until the device's own clock has risen
        job.call()
        device.synchronize()
    for _ in range(ALONE):
        start = device.clock()
        job.call()
        returned = device.clock()
        device.synchronize()
        times.host.append(returned - start)
        times.alone.append(device.clock() - start)

    moments: list[tuple[Any, Any]] = []
    end = device.clock() + seconds
    while not moments or (device.clock() < end and len(moments) < MOST_CALLS):
        if task.on_stream:
            start = device.mark()
            job.call()
            moments.append((job.began() if job.began else start, device.mark()))
        else:
            start = device.clock()
            job.call()
            moments.append((start, device.clock()))
    device.synchronize()
    elapsed = device.seconds if task.on_stream else lambda start, end: end - start
    times.seconds += [elapsed(*pair) for pair in moments]
    check("result", job.result().astype(np.float32) - task.expected, task.most)


def take_turns(
    device: Device, what: str, tasks: dict[str, Task], turns: int, seconds: float, limit: float, failures: list[str]
) -> dict[str, Times]:
    """The times by method: `turns` turns, or as many as fit into `limit` seconds, one at least.

    A method that fails has none, but a line in `failures`.
    """
    taken = {name: Times() for name in tasks}
    began = device.clock()
    for turn in range(turns):
        spent = device.clock() - began
        if turn and spent * (turn + 1) / turn > limit:
            break
        for name in list(taken):
            try:
                one_turn(device, tasks[name], seconds, taken[name])
            except Exception as error:
                failures.append(f"{name} at {what}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
                del taken[name]
    return taken


# --- End to end ---


@dataclass(frozen=True)
class Method:
    mode: str = "default"
    generator: bool = True
    batch: bool = False
    numpy: bool = False
    cpu: bool = False

    @property
    def what(self) -> tuple[str, bool]:
        """The same for those that compute the same."""
        return self.mode, self.generator

    @property
    def options(self) -> dict[str, Any]:
        return {"mode": self.mode} | ({} if self.generator else {"generator": None})

    @property
    def most(self) -> float:
        """How many levels it may be from the CPU path: one by rounding, one by the membrane, and what a generator makes
        of such differences."""
        return 1 + (self.mode == "default") + 2 * self.generator


METHODS = {
    "gpgan.Blender, cuda": Method(),
    "gpgan.Blender, cuda, no generator": Method(generator=False),
    'gpgan.Blender, cuda, mode="paper"': Method("paper"),
    'gpgan.Blender, cuda, mode="paper", no generator': Method("paper", generator=False),
    "gpgan.Blender, cuda, batch": Method(batch=True),
    "gpgan.Blender, cuda, batch, no generator": Method(batch=True, generator=False),
    'gpgan.Blender, cuda, batch, mode="paper"': Method("paper", batch=True),
    'gpgan.Blender, cuda, batch, mode="paper", no generator': Method("paper", batch=True, generator=False),
    "gpgan.Blender, cuda, NumPy in and out": Method(numpy=True),
    "gpgan.Blender, cuda, NumPy in and out, no generator": Method(numpy=True, generator=False),
    "gpgan.Blender": Method(numpy=True, cpu=True),
    "gpgan.Blender, no generator": Method(numpy=True, cpu=True, generator=False),
    'gpgan.Blender, mode="paper"': Method("paper", numpy=True, cpu=True),
    'gpgan.Blender, mode="paper", no generator': Method("paper", numpy=True, cpu=True, generator=False),
    COPY: Method(),
}


def batch_of(size: str) -> int:
    """Images in a batch: together no more pixels than 8 of 1920x1080."""
    return max(1, min(8, BATCH_PIXELS // int(np.prod(parse_size(size)))))


def to_tensors(arrays: tuple[np.ndarray, ...], device: str) -> tuple[torch.Tensor, ...]:
    """(H, W) stays so; (H, W, C) becomes (C, H, W), (N, H, W, C) becomes (N, C, H, W)."""
    return tuple(
        torch.from_numpy(np.ascontiguousarray(x if x.ndim == 2 else np.moveaxis(x, -1, -3))).to(device) for x in arrays
    )


def to_array(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.cpu().numpy(), -3, -1)


def as_batch(data: Images, count: int) -> Images:
    """The images and their mirror images by turns; the mask gets an axis for its channel."""
    source, target, mask = data
    both = [(x, x[:, ::-1]) for x in (source, target, mask[..., None])]
    return tuple(np.stack([pair[i % 2] for i in range(count)]) for pair in both)  # type: ignore[return-value]


def blend_task(device: Device, method: Method, data: Images, expected: np.ndarray, count: int) -> Task:
    name = "cpu" if method.cpu else device.name

    def build() -> Job:
        blender = gpgan.Blender(data[1].shape, device=name, **method.options)
        if method.numpy:
            result = np.zeros_like(data[1])
            return Job(lambda: blender(*data, out=result), lambda: result)
        tensors = to_tensors(as_batch(data, count) if method.batch else data, device.name)
        out = torch.zeros_like(tensors[1])
        return Job(lambda: blender(*tensors, out=out), lambda: to_array(out))

    wanted = np.stack([expected[i % 2] for i in range(count)]) if method.batch else expected[0]
    return Task(build, wanted, method.most, on_stream=not method.numpy)


def copy_task(device: Device, data: Images) -> Task:
    def build() -> Job:
        tensors = to_tensors(data, device.name)
        copies = [torch.zeros_like(x) for x in tensors]

        def call() -> None:
            for to, image in zip(copies, tensors, strict=True):
                to.copy_(image)

        return Job(call, lambda: to_array(copies[1]))

    return Task(build, data[1], 0)


def on_cpu(method: Method, data: Images, mirrored: bool) -> np.ndarray:
    """What gpgan's CPU path makes of the images, and with `mirrored` of their mirror images too: (1 or 2, H, W, C)."""
    blender = gpgan.Blender(data[1].shape, device="cpu", **method.options)
    pairs = [data] + [tuple(np.ascontiguousarray(x[:, ::-1]) for x in data)] * mirrored
    return np.stack([blender(*pair) for pair in pairs])


def run_size(
    device: Device, size: str, names: list[str], turns: int, seconds: float, limit: float, failures: list[str]
) -> list[dict[str, Any]]:
    width, height = parse_size(size)
    data = images(height, width)
    count = batch_of(size)
    expected: dict[tuple[str, bool], np.ndarray] = {}
    tasks: dict[str, Task] = {}
    for name in names:
        method = METHODS[name]
        if name == COPY:
            tasks[name] = copy_task(device, data)
            continue
        if method.batch and count == 1:
            print(f"{name} at {size}: left out, as one image is as large as a batch may be")
            continue
        if method.what not in expected:
            expected[method.what] = on_cpu(method, data, mirrored=count > 1)
        tasks[name] = blend_task(device, method, data, expected[method.what], count)
    taken = take_turns(device, size, tasks, turns, seconds, limit, failures)

    rows = []
    for name, times in taken.items():
        method = METHODS[name]
        number = count if method.batch else 1
        row: dict[str, Any] = {"size": size, "method": name, "ours": name != COPY, "images": number}
        row |= summary(times.seconds) | {"turns": len(times.first)}
        row["megapixels_per_s"] = number * width * height / 1e6 / row["median_seconds"]
        row["first_call_seconds"] = float(np.median(times.first))
        row["alone_seconds"] = float(np.median(times.alone))
        row["host_seconds"] = float(np.median(times.host))
        row["device_mb"] = 0.0 if method.cpu else times.device_bytes / 1e6
        rows.append(row)
    by_cpu = {METHODS[row["method"]].what: row["median_seconds"] for row in rows if METHODS[row["method"]].cpu}
    for row in rows:
        cpu = None if row["method"] == COPY else by_cpu.get(METHODS[row["method"]].what)
        row["times_cpu"] = None if cpu is None else cpu * row["images"] / row["median_seconds"]
    return rows


def print_size(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    print(
        f"\n{rows[0]['size']:<56} {'images':>6} {'ms':>9} {'q1':>8} {'q3':>8} {'alone':>8} {'host':>8} {'calls':>5} "
        f"{'MP/s':>8} {'x CPU':>6} {'device MB':>9}"
    )
    for row in rows:
        times = " ".join(f"{row[f'{key}_seconds'] * 1e3:>8.3f}" for key in ("q1", "q3", "alone", "host"))
        faster = "-" if row["times_cpu"] is None else f"{row['times_cpu']:.1f}"
        print(
            f"{row['method']:<56} {row['images']:>6} {row['median_seconds'] * 1e3:>9.3f} {times} {row['calls']:>5} "
            f"{row['megapixels_per_s']:>8.0f} {faster:>6} {row['device_mb']:>9.0f}",
            flush=True,
        )


# --- The solve of one level ---


class Marker(torch.nn.Module):
    """A generator that gives the composite back, and tells when it was called."""

    def __init__(self, image_size: int, call: Callable[[], None]) -> None:
        super().__init__()
        self.image_size = image_size
        self.call = call

    def forward(
        self, composite: torch.Tensor, mask: torch.Tensor, harmonized: torch.Tensor, source: torch.Tensor
    ) -> torch.Tensor:
        self.call()
        return composite


def level_task(device: Device, size: str, data: Images) -> Task:
    image_size = single_level(size)
    assert image_size is not None
    moments: list[Any] = []

    def blender(name: str, call: Callable[[], None]) -> gpgan.Blender:
        return gpgan.Blender(data[1].shape, mode="paper", generator=Marker(image_size, call), device=name)

    def build() -> Job:
        level = blender(device.name, lambda: moments.append(device.mark()))
        tensors = to_tensors(data, device.name)
        out = torch.zeros_like(tensors[1])

        return Job(lambda: level(*tensors, out=out), lambda: to_array(out), moments.pop)

    return Task(build, blender("cpu", lambda: None)(*data), 1)


def torch_task(device: Device, u: np.ndarray, c: np.ndarray, expected: np.ndarray, right_side_given: bool) -> Task:
    def build() -> Job:
        divergence, color = to_tensors((u, c), device.name)
        rival = TorchSolve(u.shape[0], u.shape[1], device.name)
        b = right_side(divergence, color) if right_side_given else None
        results: list[Any] = []

        def call() -> None:
            results[:] = [rival(divergence, color) if b is None else rival.from_right_side(b)]

        return Job(call, lambda: to_array(results[0]))

    return Task(build, expected, 1e-4)


def cupy_task(device: Device, u: np.ndarray, c: np.ndarray, expected: np.ndarray) -> Task:
    def build() -> Job:
        cupy, fft = import_cupy(), importlib.import_module("cupyx.scipy.fft")
        divergence, color = (cupy.from_dlpack(x) for x in to_tensors((u, c), device.name))
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
        rival = DctnSolve(u.shape[0], u.shape[1], fft, lambda x: cupy.asarray(x, cupy.float32))
        results: list[Any] = []

        def call() -> None:
            with stream:
                results[:] = [rival(divergence, color)]

        return Job(call, lambda: np.moveaxis(cupy.asnumpy(results[0]), 0, -1))

    return Task(build, expected, 1e-4)


def bytes_task(device: Device, moved: int) -> Task:
    """A copy that reads and writes so many bytes in all."""

    def build() -> Job:
        source = torch.ones(moved // 2, dtype=torch.uint8, device=device.name)
        target = torch.zeros_like(source)
        return Job(lambda: target.copy_(source), lambda: target[-1:].cpu().numpy())

    return Task(build, np.ones(1), 0)


def run_solve(
    device: Device, size: str, turns: int, seconds: float, limit: float, failures: list[str]
) -> list[dict[str, Any]]:
    width, height = parse_size(size)
    data = images(height, width)
    source, target, mask = (x / np.float32(255) for x in data)
    u, c = _core.guidance_divergence(source, target, mask), target
    expected = _core.solve(u, c, 1.0, 0.5, False)
    moved = u.nbytes + c.nbytes + expected.nbytes
    tasks = {
        "gpgan": level_task(device, size, data),
        "torch.fft": torch_task(device, u, c, expected, right_side_given=False),
        "torch.fft, right-hand side given": torch_task(device, u, c, expected, right_side_given=True),
    }
    if import_cupy() is not None:
        tasks["cupy"] = cupy_task(device, u, c, expected)
    taken = take_turns(
        device, f"{SOLVE}, {size}", {**tasks, COPY: bytes_task(device, moved)}, turns, seconds, limit, failures
    )
    if COPY not in taken:
        return []
    copy = float(np.median(taken.pop(COPY).seconds))
    rows = []
    for name, times in taken.items():
        row: dict[str, Any] = {"operation": SOLVE, "size": size, "implementation": name, "device": device.name}
        row |= {"bytes": moved} | summary(times.seconds) | {"turns": len(times.first), "ours": name == "gpgan"}
        row["device_mb"] = times.device_bytes / 1e6
        row["copy_seconds"] = copy
        row["gb_per_s"] = moved / row["median_seconds"] / 1e9
        row["share_of_copy"] = copy / row["median_seconds"]
        if row["ours"]:
            row["floor_bytes"] = round(sum(timed_level_bytes().values()) * width * height)
            row["floor_seconds"] = copy * row["floor_bytes"] / moved
            row["share_of_floor"] = row["floor_seconds"] / row["median_seconds"]
        rows.append(row)
    return rows


def print_solve(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    title = f"{SOLVE} of {rows[0]['size']}"
    print(f"\n{title:<36} {'ms':>9} {'q1':>8} {'q3':>8} {'calls':>5} {'GB/s':>7} {'of copy':>8}")
    for row in rows:
        times = " ".join(f"{row[f'{key}_seconds'] * 1e3:>8.3f}" for key in ("q1", "q3"))
        print(
            f"{row['implementation']:<36} {row['median_seconds'] * 1e3:>9.3f} {times} {row['calls']:>5} "
            f"{row['gb_per_s']:>7.0f} {row['share_of_copy']:>8.1%}"
        )
    for row in rows:
        if row["ours"]:
            print(
                f"gpgan's steps must move {row['floor_bytes'] / 1e6:.0f} MB: at the copy's "
                f"{row['bytes'] / row['copy_seconds'] / 1e9:.0f} GB/s {row['floor_seconds'] * 1e3:.3f} ms, "
                f"{row['share_of_floor']:.0%} of the time",
                flush=True,
            )


# --- Verification ---


def verify(device: Device, quick: bool, generator: bool) -> None:
    """Raises WrongResultError where results on the device are not the reference's and the CPU path's."""
    for height, width in [(96, 131)] if quick else [(96, 131), (211, 307), (257, 128)]:
        as_uint8 = images(height, width)
        as_floats = tuple(x / np.float32(255) for x in as_uint8)
        exact_inputs = [x.astype(np.float64) for x in as_floats]
        tensors, floats, batch = (to_tensors(x, device.name) for x in (as_uint8, as_floats, as_batch(as_uint8, 3)))
        for mode in ("default", "paper", "released"):
            for membrane in (True, False):
                options: dict[str, Any] = {"mode": mode, "membrane": membrane}
                what = f"{mode}, membrane={membrane}, {width} x {height}"
                exact = reference.blend(*exact_inputs, **options)
                options["generator"] = None
                result = to_array(gpgan.blend(*tensors, **options))
                check(f"uint8, {what}", result / 255.0 - exact, LEVEL)
                check(
                    f"float32, {what}",
                    to_array(gpgan.blend(*floats, **options)) - exact,
                    LEVEL if membrane else 2e-5,
                )
                cpu = gpgan.blend(*as_uint8, device="cpu", **options)
                check(f"against the CPU path, {what}", result.astype(int) - cpu, 1 + membrane)
                there_and_back = gpgan.blend(*as_uint8, device=device.name, **options)
                check(f"NumPy in and out, {what}", result.astype(int) - there_and_back, 1)
                of_batch = to_array(gpgan.blend(*batch, **options))
                for i in (0, 2):
                    check(f"image {i} of a batch, {what}", result.astype(int) - of_batch[i], 1)
                mirrored = reference.blend(*(x[:, ::-1] for x in exact_inputs), **options)
                check(f"image 1 of a batch, {what}", of_batch[1] / 255.0 - mirrored, LEVEL)
        if generator:
            for mode in ("default", "paper"):
                cpu = gpgan.blend(*as_uint8, mode=mode, device="cpu")
                result = to_array(gpgan.blend(*tensors, mode=mode))
                what = f"with the generator, {mode}, {width} x {height}, against the CPU path"
                check(what, result.astype(int) - cpu, Method(mode).most)


# --- The run ---


def run(options: argparse.Namespace, device: Device) -> tuple[dict[str, Any], list[str]]:
    """The result, and a line for each method that could not be timed.

    Ends the run if gpgan's results are wrong.
    """
    quick = options.quick
    sizes = sorted(options.sizes or (SIZES[:2] if quick else SIZES), key=lambda s: np.prod(parse_size(s)))
    levels = sizes if options.sizes else (LEVELS[:2] if quick else LEVELS)
    names = [name for name in METHODS if name in (options.methods or METHODS)]
    turns = options.repeats or (2 if quick else 10)
    seconds = options.seconds if options.seconds is not None else (0.05 if quick else 0.2)
    end = device.clock() + 60 * options.minutes
    facts = about() | device.about() | {"level_bytes": timed_level_bytes()}
    result: dict[str, Any] = {"format": FORMAT, "about": facts, "operations": [], "blends": []}
    for key, value in facts.items():
        print(f"{key}: {value}")
    try:
        verify(device, quick, generator=any(METHODS[name].generator for name in names if name != COPY))
    except WrongResultError as wrong:
        raise SystemExit(f"no times, as the results are wrong: {wrong}") from None
    print("results verified", flush=True)

    failures: list[str] = []
    work: list[tuple[bool, str]] = []
    for size in [] if options.no_operations else levels:
        if single_level(size) is None:
            print(f"{SOLVE} of {size}: left out, as no S up to {LARGEST_S} makes it a single level")
        else:
            work.append((True, size))
    work += [(False, size) for size in sizes]
    for i, (is_solve, size) in enumerate(work):
        limit = (end - device.clock()) / (len(work) - i)  # what one size leaves is the next one's
        if is_solve:
            rows = run_solve(device, size, turns, seconds, limit, failures)
            result["operations"] += rows
            print_solve(rows)
        else:
            rows = run_size(device, size, names, turns, seconds, limit, failures)
            result["blends"] += rows
            print_size(rows)
        if options.json:
            options.json.write_text(to_json(result))
    return result, failures
