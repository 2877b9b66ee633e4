"""Pictures and masks that every test can make, and the settings of hypothesis."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import gpgan
from gpgan import _core, _cuda_device, _cuda_library

CUDA_TESTS = Path(__file__).parent / "cuda"

# The same examples in every run, so that a failure is one for everybody: `--hypothesis-profile=explore` draws new ones.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("explore", settings.get_profile("repeatable"), derandomize=False, max_examples=1000)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-cuda",
        action="store_true",
        help="Run tests/cuda on a CUDA device, with no emulation in its place, and take a skip for a failure.",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    # A shell that runs the tests in the background has Ctrl-C ignored, which the programs under test would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if session.config.getoption("--require-cuda"):
        available, reason = _cuda_library.status()
        if not available:
            pytest.exit(f"--require-cuda: {reason}", returncode=pytest.ExitCode.TESTS_FAILED)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport, node: pytest.Item | pytest.Collector) -> None:
    """Under --require-cuda nobody passes by not running."""
    tests = (node.path, *node.path.parents)
    if report.skipped and node.config.getoption("--require-cuda") and CUDA_TESTS in tests:
        report.outcome = "failed"
        report.longrepr = f"--require-cuda: {node.nodeid} did not run to its end: {report.longrepr}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    _refuse_skip((yield).get_result(), item)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    _refuse_skip((yield).get_result(), collector)


def draw_image(rng: np.random.Generator, height: int, width: int, channels: int | None = 3) -> np.ndarray:
    """Float64 (H, W, C), or (H, W) for None, in [0, 1] with every value one of float32: ramps, edges and noise."""
    y, x = np.mgrid[0:height, 0:width]
    count = channels or 1
    image = np.empty((height, width, count))
    for c in range(count):
        a, b, phase = rng.uniform(-0.2, 0.2, 3)
        plane = 0.5 + 0.3 * np.sin(a * y + b * x + 6 * phase)
        plane += 0.2 * ((x * rng.uniform() + y) % 16 < 5)
        plane += 0.1 * rng.standard_normal((height, width))
        image[..., c] = plane
    image = np.clip(image, 0, 1).astype(np.float32).astype(np.float64)
    return image if channels is not None else image[..., 0]


def draw_mask(rng: np.random.Generator, height: int, width: int, *, soft: bool = True) -> np.ndarray:
    """Float64 (H, W): blobs, some touching the border, a hole, a lone pixel; soft edges on request."""
    y, x = np.mgrid[0:height, 0:width]
    mask = np.zeros((height, width))
    for _ in range(3):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(0.1, 0.45, 2) * (height, width) + 0.6
        distance = np.hypot((y - cy) / ry, (x - cx) / rx)
        blob = np.clip((1.2 - distance) * 4, 0, 1) if soft else (distance < 1).astype(float)
        mask = np.maximum(mask, blob)
    if min(height, width) > 12:
        mask[height // 2 : height // 2 + 3, width // 2 : width // 2 + 2] = 0
        mask[0, width - 1] = 1
    if not mask.any():
        mask[height // 2, width // 2] = 1
    return mask.astype(np.float32).astype(np.float64)


def native_blend(
    source: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray | None,
    *,
    lowres: np.ndarray | None = None,
    image_size: int = 64,
    offset: tuple[int, int] = (0, 0),
    mode: str = "default",
    threads: int = 0,
    **options: Any,
) -> np.ndarray:
    """The core itself, any number of channels: float32 (H, W, C). A source with one channel more brings alpha."""
    said = _core.options(mode) | {k: v for k, v in options.items() if v is not None}
    size = image_size if lowres is None else len(lowres)
    core = _core.Blender(*target.shape, image_size=size, threads=threads, **said)
    target = target.astype(np.float32)
    core.prepare(source.astype(np.float32), target, None if mask is None else mask.astype(np.float32), offset)
    out = np.empty_like(target)
    core.finish(None if lowres is None else lowres.astype(np.float32), out)
    return out


def cmake_build(source: Path, build: Path, *definitions: str) -> None:
    """Configure and build a CMake project against the installed gpgan."""
    _cmake(source, build, f"-Dgpgan_ROOT={gpgan.cmake_prefix()}", *definitions)


def _cmake(source: Path, build: Path, *definitions: str, target: str = "all") -> None:
    # CMake and Ninja may come from pip, and pytest from an environment that is not activated.
    tools = os.environ | {"PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]}
    for command in (["-G", "Ninja", "-S", source, "-B", build, *definitions], ["--build", build, "--target", target]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, timeout=900, env=tools)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190317)


@pytest.fixture
def small_pixel_limit() -> Iterator[int]:
    """At most 100 pixels an image, until the test ends."""
    before = gpgan.max_pixels()
    gpgan.set_max_pixels(100)
    yield 100
    gpgan.set_max_pixels(before)


# ------------------------------------------------------------------------------------------------------- CUDA


def _load_extension(name: str, path: Path) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """gpgan._cuda over the emulation of tests/cuda_cpu, and what tests can see and change of that.

    GPGAN_CUDA_CPU_BUILD names a folder that keeps what is built.
    """
    import pybind11

    kept = os.environ.get("GPGAN_CUDA_CPU_BUILD")
    build = Path(kept) if kept else tmp_path_factory.mktemp("cuda_cpu")
    _cmake(
        CUDA_TESTS.parent / "cuda_cpu" / "python",
        build,
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        target="_cuda_cpu",
    )
    [path] = build.glob("_cuda_cpu.*.so")
    return SimpleNamespace(module=_load_extension("_cuda_cpu", path), emulation=_load_extension("_emulation", path))


@pytest.fixture(scope="session")
def has_cuda(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--require-cuda") or _cuda_library.status()[0])


@pytest.fixture(scope="session")
def cuda_module(request: pytest.FixtureRequest, has_cuda: bool) -> ModuleType:
    """gpgan._cuda where there is a device, the emulated one where there is none."""
    module: ModuleType = _cuda_library.load() if has_cuda else request.getfixturevalue("emulated").module
    return module


@pytest.fixture
def fake(emulated: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two emulated devices in place of torch's, whatever there is."""
    from fake_device import FakeCuda

    emulated.emulation.set_device_count(2)
    emulated.emulation.set_device(0)
    emulated.emulation.reset_counts()
    gpgan.clear_cache()
    device = FakeCuda(emulated.module, emulated.emulation)
    monkeypatch.setattr(_cuda_device, "cuda", device)
    yield device
    gpgan.clear_cache()
    emulated.emulation.set_device_count(1)


@pytest.fixture
def device(request: pytest.FixtureRequest, has_cuda: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What gpgan computes on where it is told "cuda": a device, or the first of the emulated ones."""
    if not has_cuda:
        return request.getfixturevalue("fake")
    from fake_device import RealCuda

    real = RealCuda()
    monkeypatch.setattr(_cuda_device, "cuda", real)
    return real


@pytest.fixture
def registered() -> Iterator[Callable[..., None]]:
    """:func:`gpgan.evaluation.register`, undone in the end."""
    methods = importlib.import_module("gpgan.evaluation.methods")
    before = dict(methods._registered)
    yield methods.register
    methods._registered.clear()
    methods._registered.update(before)
