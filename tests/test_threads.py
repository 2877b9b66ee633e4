"""The library's threads beside Python's: many callers, forks, the GIL, and no thread where none was asked for."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image, draw_mask
from numpy.testing import assert_array_equal

import gpgan
from gpgan import _core

HEIGHT, WIDTH = 210, 260

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")


@pytest.fixture
def images(rng) -> tuple[np.ndarray, ...]:
    return draw_image(rng, HEIGHT, WIDTH), draw_image(rng, HEIGHT, WIDTH), draw_mask(rng, HEIGHT, WIDTH)


def blend(images: tuple[np.ndarray, ...], threads: int = 3) -> np.ndarray:
    return gpgan.blend(*images, generator=None, threads=threads)


def run_python(code: str) -> str:
    """What the code prints in a fresh process."""
    setup = (
        "import os, numpy as np; from gpgan import _core; import gpgan\n"
        f"x = np.random.default_rng(1).random(({HEIGHT}, {WIDTH}, 3)); m = x[..., 0] > 0.5\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "def blend(threads): return gpgan.blend(x, x[::-1], m, generator=None, threads=threads)\n"
    )
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_many_python_threads_blend_as_one_does(rng):
    scenes = [
        (draw_image(rng, 150 + i, 180), draw_image(rng, 150 + i, 180), draw_mask(rng, 150 + i, 180)) for i in range(4)
    ]
    expected = [blend(scene, threads=1) for scene in scenes]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: blend(scenes[i % 4], threads=1 + i % 5), range(40)))
    for i, result in enumerate(results):
        assert_array_equal(result, expected[i % 4])


@needs_proc
def test_one_thread_starts_none():
    assert run_python("before = threads(); blend(1); print(threads() - before)").split() == ["0"]


@needs_proc
def test_threads_are_started_once():
    code = "before = threads(); blend(2); a = threads(); blend(3); b = threads(); [blend(3) for _ in range(5)];"
    assert run_python(code + "print(a - before, b - before, threads() - before)").split() == ["1", "2", "2"]


@needs_proc
def test_idle_threads_sleep():
    # Of the processor time of all threads; what Python itself takes to sleep and wake is far below.
    code = (
        "import time; blend(4); time.sleep(0.05); start = time.process_time(); time.sleep(0.3);"
        "print(time.process_time() - start)"
    )
    assert float(run_python(code)) < 0.02


def test_blend_releases_the_gil(images):
    images = tuple(np.tile(image, (4, 4, 1) if image.ndim == 3 else (4, 4)) for image in images)
    stop, count = threading.Event(), 0

    def work() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0.0005)

    core = _core.Blender(*images[1].shape, image_size=64, threads=1, **_core.options("default"))
    source, target, mask = (image.astype(np.float32) for image in images)
    out = np.empty_like(target)
    other = threading.Thread(target=work)
    other.start()
    before, start = count, time.perf_counter()
    core.prepare(source, target, mask)
    core.finish(None, out)
    during, seconds = count - before, time.perf_counter() - start
    stop.set()
    other.join()
    # Of about 1500 turns a second; with the GIL held, it would be a few at the ends.
    assert during >= max(3, 200 * seconds)


def fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of it; that it works here is what the tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(images: tuple[np.ndarray, ...], expected: np.ndarray) -> int:
    """The exit status of a forked child that blends; a child that hangs is killed."""
    child = fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)
            code = 0 if np.array_equal(blend(images), expected) else 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_child_of_a_fork_blends(images):
    expected = blend(images)  # the parent has its threads
    for _ in range(3):
        assert in_child(images, expected) == 0
    assert_array_equal(blend(images), expected)


def test_child_of_a_fork_blends_while_the_parent_does(images):
    expected = blend(images)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            blend(images, threads=2)

    others = [threading.Thread(target=work) for _ in range(2)]
    for other in others:
        other.start()
    try:
        assert [in_child(images, expected) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for other in others:
            other.join()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(images, method):
    expected = blend(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context(method).Pool(2) as pool:
            results = pool.map_async(blend, [images] * 4).get(timeout=120)
    for result in results:
        assert_array_equal(result, expected)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_threads_are_as_many_as_the_process_may_use():
    code = (
        "os.environ.pop('GPGAN_NUM_THREADS', None); before = _core.resolve_threads() == len(os.sched_getaffinity(0));"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(before, _core.resolve_threads())"
    )
    assert run_python(code).split() == ["True", "1"]
