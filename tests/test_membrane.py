"""The harmonic membrane: the reference by its defining equations, the native solver against the reference."""

import numpy as np
import pytest
import tolerances
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import _core, ops, reference

CROSS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def laplacian_at(w: np.ndarray, y: int, x: int) -> np.ndarray:
    """The sum of differences to the neighbours inside the image."""
    total = np.zeros(w.shape[2:])
    for dy, dx in CROSS:
        if 0 <= y + dy < w.shape[0] and 0 <= x + dx < w.shape[1]:
            total += w[y + dy, x + dx] - w[y, x]
    return total


def serpentine(size: int) -> np.ndarray:
    """One long corridor, folded, two pixels wide: hard for a solver that works from coarse to fine."""
    mask = np.zeros((size, size))
    for turn, y in enumerate(range(1, size - 2, 4)):
        mask[y : y + 2, 1:-1] = 1
        if y + 6 < size:
            x = size - 3 if turn % 2 == 0 else 1
            mask[y : y + 6, x : x + 2] = 1
    return mask


MASKS = {
    "blobs": lambda rng: draw_mask(rng, 61, 47, soft=False),
    "soft": lambda rng: draw_mask(rng, 48, 64),
    "all but one": lambda rng: 1 - np.pad(np.ones((1, 1)), ((30, 33), (0, 63))),
    "all but a corner": lambda rng: 1 - np.pad(np.ones((1, 1)), ((0, 63), (0, 40))),
    "salt": lambda rng: (rng.random((50, 50)) < 0.5).astype(float),
    "pepper": lambda rng: (rng.random((65, 65)) < 0.98).astype(float),
    "serpentine": lambda rng: serpentine(42),
    "checkerboard": lambda rng: np.indices((16, 17)).sum(axis=0) % 2.0,
    "one row": lambda rng: np.pad(np.ones((1, 50)), ((0, 0), (1, 0))),
    "one column": lambda rng: np.pad(np.ones((50, 1)), ((1, 1), (0, 0))),
    "half plane": lambda rng: np.pad(np.ones((64, 32)), ((0, 0), (0, 32))),
    "one pixel": lambda rng: np.pad(np.ones((1, 1)), 3),
}


@pytest.mark.parametrize("name", MASKS)
def test_membrane_is_harmonic_inside_and_the_difference_outside(name, rng):
    mask = MASKS[name](rng)
    source, target = (draw_image(rng, *mask.shape) for _ in range(2))
    w = reference.membrane(source, target, mask)
    outside = mask == 0
    assert_array_equal(w[outside], (target - source)[outside])
    for y, x in zip(*np.nonzero(mask), strict=True):
        assert_allclose(laplacian_at(w, y, x), 0, atol=1e-11)  # the mean-value property


@pytest.mark.parametrize("name", MASKS)
def test_membrane_stays_within_its_boundary_values(name, rng):
    mask = MASKS[name](rng)
    source, target = (draw_image(rng, *mask.shape) for _ in range(2))
    outside = mask == 0
    difference = (target - source)[outside]
    for w in (reference.membrane(source, target, mask), ops.membrane(source, target, mask)):
        slack = 1e-12 if w.dtype == np.float64 else tolerances.MEMBRANE_MAX
        assert (w >= difference.min(axis=0) - slack).all()
        assert (w <= difference.max(axis=0) + slack).all()


@pytest.mark.parametrize("impl", ["reference", "native"])
def test_membrane_of_a_region_without_boundary_is_zero(impl, rng):
    source, target = draw_image(rng, 9, 14), draw_image(rng, 9, 14)
    assert_array_equal(ops.membrane(source, target, np.full((9, 14), 0.5), impl=impl), np.zeros((9, 14, 3)))


@pytest.mark.parametrize("impl", ["reference", "native"])
def test_membrane_of_a_constant_difference_is_that_constant(impl, rng):
    source = draw_image(rng, 40, 33) / 2
    w = ops.membrane(source, source + 0.25, draw_mask(rng, 40, 33), impl=impl)
    assert_allclose(w, 0.25, atol=tolerances.MEMBRANE_MAX / 4)


def test_membrane_drops_neighbours_beyond_the_border():
    # A corridor along the border, known only at its two ends: linear between them, as beyond the border is nothing.
    source, mask = np.zeros((1, 6)), np.array([[0.0, 1, 1, 1, 1, 0]])
    target = np.array([[0.0, 9, 9, 9, 9, 1]])
    assert_allclose(reference.membrane(source, target, mask), [np.linspace(0, 1, 6)], atol=1e-14)
    # Known at one end only: constant.
    assert_allclose(reference.membrane(source, target, np.array([[1.0, 1, 1, 1, 1, 0]])), np.ones((1, 6)), atol=1e-14)


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("name", MASKS)
def test_membrane_native_matches_reference(name, channels, rng):
    mask = MASKS[name](rng)
    source, target = (draw_image(rng, *mask.shape, channels) for _ in range(2))
    off = np.abs(ops.membrane(source, target, mask) - reference.membrane(source, target, mask))
    assert off.max() <= tolerances.MEMBRANE_MAX
    assert off.mean() <= tolerances.MEMBRANE_MEAN


@pytest.mark.parametrize("shape", [(1, 2), (7, 1), (2, 3), (63, 64), (127, 129), (211, 307), (301, 641)])
def test_membrane_native_matches_reference_at_every_size(shape, rng):
    source, target = draw_image(rng, *shape), draw_image(rng, *shape)
    # The largest jump that images allow, over the whole of the seam.
    source[:, : shape[1] // 2], target[:, : shape[1] // 2] = 0, 1
    mask = draw_mask(rng, *shape)
    mask[0, 0] = 0
    off = np.abs(ops.membrane(source, target, mask) - reference.membrane(source, target, mask))
    assert off.max() <= tolerances.MEMBRANE_MAX
    assert off.mean() <= tolerances.MEMBRANE_MEAN


def test_membrane_native_matches_reference_on_large_regions(rng):
    # Far from any boundary: over the border on one side, two regions apart, one around a bay.
    mask = np.zeros((400, 512))
    mask[40:330, :300] = mask[350:, 200:360] = 1
    mask[120:200, 100:250] = 0
    y, x = np.mgrid[0:1:400j, 0:1:512j]
    source = np.stack([0.5 + 0.5 * np.sin(9 * x + 5 * y), 1 - y * x, (x < 0.3).astype(float)], axis=2)
    target = draw_image(rng, 400, 512)
    off = np.abs(ops.membrane(source, target, mask) - reference.membrane(source, target, mask))
    assert off.max() <= tolerances.MEMBRANE_MAX
    assert off.mean() <= tolerances.MEMBRANE_MEAN


@pytest.mark.parametrize("shape", [(301, 507), (320, 448)])
def test_membrane_native_matches_reference_where_large_cells_meet_the_border(shape):
    # The seam and jumps of the largest size run into a border that does or does not cut the solver's cells.
    y, x = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    mask = (x > 0.5).astype(float)
    target = np.stack([y < 0.5, x + y < 1, np.sin(9 * x + 5 * y) > 0], axis=2).astype(float)
    off = np.abs(ops.membrane(1 - target, target, mask) - reference.membrane(1 - target, target, mask))
    assert off.max() <= tolerances.MEMBRANE_MAX
    assert off.mean() <= tolerances.MEMBRANE_MEAN


def test_membrane_is_the_same_for_any_number_of_threads(rng):
    source, target = draw_image(rng, 301, 257), draw_image(rng, 301, 257)
    mask = draw_mask(rng, 301, 257)
    one = _core.membrane(source, target, mask, threads=1)
    for threads in (2, 3, 8):
        assert_array_equal(_core.membrane(source, target, mask, threads=threads), one)


@pytest.mark.parametrize("shape", [(1, 20000), (3, 5000), (20, 3840), (2, 3000), (200, 3000)])
def test_membrane_spans_long_strips_that_hang_on_one_end(shape):
    # The longer the strip, the more the inverse makes of float32 rounding: by the square of its length.
    mask = np.ones(shape)
    mask[0, 0] = 0
    w = ops.membrane(np.zeros((*shape, 1)), np.ones((*shape, 1)), mask)
    assert_allclose(w, 1, atol=tolerances.MEMBRANE_MAX)
    assert abs(w.mean() - 1) < tolerances.MEMBRANE_MEAN
