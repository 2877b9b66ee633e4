"""The engine that solves an image in windows and strips: against the reference at its internal borders, its memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tolerances
from conftest import draw_image, native_blend
from numpy.testing import assert_allclose, assert_array_equal

import gpgan
from gpgan import _core, reference

#: The rows of a window and those of it that are used, at lambda 1: 24 of a halo on either side of 64 or 128.
EDGES = [64, 112, 128, 176]


def one(shape: tuple[int, int], y: int, x: int) -> np.ndarray:
    mask = np.zeros(shape)
    mask[y, x] = 1
    return mask


def masks(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What blocks of 16 pixels, strips and windows may stumble over."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    out = {
        "everything": np.ones(shape),
        "line": (y == height // 2).astype(float),
        "gradient": ((x + 2 * y) / (width + 2 * height)).astype(np.float32).astype(np.float64),
        "checkerboard": ((x + y) % 2).astype(float),
        "frame": ((y == 0) | (x == 0) | (y == height - 1) | (x == width - 1)).astype(float),
    }
    out |= {f"corner {i}": one(shape, -(i // 2), -(i % 2)) for i in range(4)}
    out |= {f"pixel {i}": one(shape, i, i) for i in (15, 16, 32) if i < min(shape)}
    return out


def rough(composite, mask, harmonized, source):
    return np.random.default_rng(4).random(harmonized.shape).astype(np.float32).astype(np.float64)


def smooth(composite, mask, harmonized, source):
    size = len(mask)
    wave = np.cos(np.pi * (np.arange(size) + 0.5) / size)
    change = 0.2 * (wave[:, None] + 0.5 * wave)[..., None]
    return np.clip(harmonized + change, 0, 1).astype(np.float32).astype(np.float64)


def check(shape, mask, *, channels=1, size=16, generator=None, tolerance=tolerances.NATIVE, **options):
    rng = np.random.default_rng(sum(shape))
    source, target = draw_image(rng, *shape, channels), draw_image(rng, *shape, channels)
    said = {"membrane": False, "inset": 0} | options
    colors = None
    if generator is not None:
        inputs = reference.generator_inputs(
            source, target, mask, image_size=size, membrane=said["membrane"], inset=said["inset"]
        )
        colors = generator(*inputs)
    expected = reference.blend(source, target, mask, lowres=colors, image_size=size, **said)
    got = native_blend(source, target, mask, lowres=colors, image_size=size, **said)
    assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("carry", ["correction", "image"])
@pytest.mark.parametrize("name", masks((70, 83)))
def test_every_mask_is_the_reference(name, carry):
    shape = (70, 83)
    check(shape, masks(shape)[name], generator=rough, carry=carry)
    check(shape, masks(shape)[name], carry=carry)


@pytest.mark.parametrize("carry", ["correction", "image"])
@pytest.mark.parametrize(
    "shape",
    [(8, 9), (9, 8), (300, 17), (17, 300), (15, 33), (16, 32), (17, 31)]
    + [(edge + more, 40 - more) for edge in EDGES for more in (-1, 0, 1)]
    + [(33 + more, edge + more) for edge in (112, 256) for more in (-1, 0, 1)],
)
def test_every_size_is_the_reference(shape, carry):
    height, width = shape
    mask = np.zeros(shape)
    mask[height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] = 1
    for generator in (rough, smooth):
        check(shape, mask, generator=generator, size=8, carry=carry)


@pytest.mark.parametrize("carry", ["correction", "image"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("weight", [0.05, 0.3, 10, 100])
def test_every_lambda_is_the_reference(weight, channels, carry):
    shape = (61, 90)
    mask = np.zeros(shape)
    mask[10:40, 30:62] = 1
    tolerance = tolerances.NATIVE * max(1, 0.1 / weight)  # a small lambda multiplies rounding
    check(shape, mask, generator=rough, channels=channels, carry=carry, color_weight=weight, tolerance=tolerance)


def scene(shape: tuple[int, int], dtype: str = "u1") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    scale = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    source, target = ((draw_image(rng, *shape) * scale).round(6).astype(dtype) for _ in range(2))
    mask = np.zeros(shape, bool)
    mask[shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = True
    return source, target, mask


@pytest.mark.parametrize("mode", ["default", "paper"])
@pytest.mark.parametrize("generator", [None, smooth])
def test_8_bits_are_the_rounded_floats(mode, generator):
    source, target, mask = scene((300, 410))
    floats = gpgan.blend(source / np.float32(255), target / np.float32(255), mask, generator=generator, mode=mode)
    out = gpgan.blend(source, target, mask, generator=generator, mode=mode)
    assert np.abs(out - np.round(floats * 255)).max() <= 1
    assert np.abs(out / 255 - floats).max() <= 0.5 / 255 + 4e-6  # what changes less than 0.49 of a step is let be


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_far_from_the_seam_the_target_stays_as_it_is(dtype):
    source, target, mask = scene((600, 800), dtype)
    mask[:] = False
    mask[:40, :40] = True
    out = gpgan.blend(source, target, mask, generator=None, membrane=False)
    # A pixel of the coarsest level is 8 wide, and its windows reach 24 of those beyond the mask's.
    if dtype == "f4":  # where what fades is never quite nothing
        assert_allclose(out[300:], target[300:], rtol=0, atol=1.2e-7)
    else:
        assert_array_equal(out[300:], target[300:])
    assert (out[:40, :40] != target[:40, :40]).any()


@pytest.mark.parametrize("mode", ["default", "paper"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_in_place_is_apart(mode, dtype):
    source, target, mask = scene((150, 190), dtype)
    expected = gpgan.blend(source, target, mask, generator=None, mode=mode)
    out = target.copy()
    assert_array_equal(gpgan.blend(source, out, mask, generator=None, mode=mode, out=out), expected)
    out = source.copy()
    assert_array_equal(gpgan.blend(out, target, mask, generator=None, mode=mode, out=out), expected)
    # A view of the same memory some rows and columns on; the rest of it stays.
    memory = np.zeros((160, 200, 3), dtype)
    memory[:150, :190] = target
    before = memory.copy()
    gpgan.blend(source, memory[:150, :190], mask, generator=None, mode=mode, out=memory[10:, 10:])
    assert_array_equal(memory[10:, 10:], expected)
    assert_array_equal(memory[:10], before[:10])
    assert_array_equal(memory[:, :10], before[:, :10])


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_threads_and_earlier_calls_leave_no_trace(mode):
    source, target, mask = scene((330, 420))
    soft = np.random.default_rng(1).random(mask.shape).astype("f4")
    expected = [gpgan.blend(source, target, m, generator=rough, mode=mode, threads=1) for m in (mask, soft)]
    for threads in (1, 2, 3, 5):
        blender = gpgan.Blender(target.shape, generator=rough, mode=mode, threads=threads)
        for i in (0, 0, 1, 0, 1, 1):
            assert_array_equal(blender(source, target, (mask, soft)[i]), expected[i])


def test_levels_in_bands_are_those_of_a_crop():
    # Two levels of over 2^22 pixels below the finest. Without a generator all is local, so that a crop at a multiple of
    # the coarsest pixels gives the same, with S such that it has as many levels; its own are kept whole.
    height, width = 16384, 4200
    rng = np.random.default_rng(3)
    tile = (draw_image(rng, 512, 600, 1)[..., 0] * 255).astype("u1")
    source = np.tile(tile, (32, 7))
    target = 255 - source
    mask = np.zeros((height, width), "u1")
    mask[8192 - 100 : 8192 + 130, 1000:1300] = 255  # across a band's border
    mask[8192 + 300 : 8192 + 301, 900:1200] = 255
    rows, columns = slice(8192 - 1024, 8192 + 1024), slice(0, 2048)
    options = _core.options("default") | {"membrane": False, "threads": 2}
    results = []
    for size, part in ((512, (slice(None), slice(None))), (256, (rows, columns))):
        s, t, m = (np.ascontiguousarray(a[part])[..., None] for a in (source, target, mask))
        out = np.zeros_like(t)
        core = _core.Blender(*t.shape, image_size=size, **options)
        core.prepare(s, t, m, (0, 0))
        core.finish(None, out)
        results.append(out[..., 0])
    inner = (slice(300, -300), slice(0, -300))  # where the crop's border is not felt
    whole = results[0][rows, columns][inner].astype(int)
    crop = results[1][inner].astype(int)
    assert (whole != target[rows, columns][inner]).any()
    assert np.abs(whole - crop).max() <= 1  # a value may lie on the edge between two
    assert (whole != crop).mean() < 1e-3


PEAK = """
import contextlib, ctypes, json
from pathlib import Path
import numpy as np, gpgan

def status(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])

height, width = 4320, 7680
y, x = np.mgrid[0:height, 0:width].astype(np.uint16)
source, target = ((a * np.uint16(k) + x[..., None] * np.arange(1, 4, dtype=np.uint16)).astype(np.uint8)
                  for k, a in ((3, y[..., None]), (7, y[..., None])))
mask = ((np.hypot(y - 2000.0, x - 4000.0) < 1400) * np.uint8(255)).astype(np.uint8)
del y, x
out = np.zeros_like(target)
result = {}
for mode in ("default", "paper"):
    for threads in (1, 2):
        with contextlib.suppress(AttributeError, OSError):  # where the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)  # what an earlier Blender left would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        blender = gpgan.Blender(target.shape, generator=None, mode=mode, threads=threads)
        blender(source, target, mask, out=out)
        result[mode, threads] = status("VmHWM") - before
        del blender
print(json.dumps({f"{mode}, {threads} threads": peak / 1e6 for (mode, threads), peak in result.items()}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resets the peak in /proc")
def test_a_large_image_takes_little_memory_beside_itself():
    # Three planes of floats would be 400 MB; levels are there in bands, and the image itself never is as floats.
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    print(peaks)
    assert max(peaks.values()) < 250, peaks
