"""Poisson cloning against a sparse direct solution of the equation as Perez et al. write it."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tolerances
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import _poisson


def direct(source: np.ndarray, target: np.ndarray, inside: np.ndarray, mode: str) -> np.ndarray:
    """Eq. 7 of the paper, edge by edge in float64: every edge with an end inside is a row of A x = v."""
    if mode == "monochrome" and source.shape[2] == 3:
        grey = 0.299 * source[..., 0] + 0.587 * source[..., 1] + 0.114 * source[..., 2]
        source = np.stack([grey] * 3, axis=2)
    index = np.arange(inside.size).reshape(inside.shape)
    one = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    other = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    inner = inside.ravel()
    edges = inner[one] | inner[other]
    one, other = one[edges], other[edges]
    s, t = (image.reshape(-1, image.shape[2]) for image in (source, target))
    v = s[other] - s[one]
    if mode == "mixed":
        of_target = t[other] - t[one]
        v = np.where(np.abs(v) >= np.abs(of_target) - 1e-6, v, of_target)  # ties are the source's
    row = np.arange(len(one))
    ones = np.ones(len(one))
    difference = scipy.sparse.csr_array((ones, (row, other)), shape=(len(one), inside.size)) - scipy.sparse.csr_array(
        (ones, (row, one)), shape=(len(one), inside.size)
    )
    known = np.where(inner[:, None], 0, t)
    unknown = difference[:, np.nonzero(inner)[0]]
    x = t.copy()
    normal = (unknown.T @ unknown).tocsc()
    x[inner] = scipy.sparse.linalg.splu(normal).solve(unknown.T @ (v - difference @ known))
    return x.reshape(target.shape)


MASKS = {
    "blobs, holes, a corner": lambda rng: draw_mask(rng, 61, 83, soft=False) > 0,
    "salt": lambda rng: rng.random((40, 37)) < 0.5,
    "one pixel": lambda rng: np.pad(np.ones((1, 1), bool), 3),
    "a pixel in the corner": lambda rng: np.pad(np.ones((1, 1), bool), ((0, 8), (0, 5))),
    "all but one": lambda rng: ~np.pad(np.ones((1, 1), bool), ((20, 22), (0, 40))),
    "left half": lambda rng: np.arange(47)[None, :] < np.full((59, 1), 20),
    "right half": lambda rng: np.arange(47)[None, :] >= np.full((59, 1), 20),
    "a band from side to side": lambda rng: np.pad(np.ones((11, 53), bool), ((7, 9), (0, 0))),
    "one row": lambda rng: np.pad(np.ones((1, 50), bool), ((0, 0), (1, 0))),
    "one column": lambda rng: np.pad(np.ones((50, 1), bool), ((0, 1), (0, 0))),
}


def assert_near(result: np.ndarray, expected: np.ndarray) -> None:
    off = np.abs(result - expected)
    assert off.max() <= tolerances.MEMBRANE_MAX
    assert off.mean() <= tolerances.MEMBRANE_MEAN


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", _poisson.MODES)
@pytest.mark.parametrize("name", MASKS)
def test_clone_solves_poissons_equation(name, mode, channels, rng):
    inside = MASKS[name](rng)
    source, target = (draw_image(rng, *inside.shape, channels) for _ in range(2))
    result = _poisson.clone(source, target, inside, mode)
    assert result.dtype == np.float64
    assert_near(result, direct(source, target, inside, mode))
    assert_array_equal(result[~inside], target[~inside])


@pytest.mark.parametrize("mode", _poisson.MODES)
def test_clone_solves_poissons_equation_on_a_large_region(mode, rng):
    # A mixed guidance is the gradient of nothing: what it adds up to over hundreds of pixels leaves [0, 1].
    y, x = np.mgrid[0:1:307j, 0:1:401j]
    inside = np.hypot(x - 0.55, y - 0.5) < 0.46
    source = draw_image(rng, *inside.shape) / 2 + ((16 * x).astype(int) % 2)[..., None] / 2
    target = draw_image(rng, *inside.shape) / 2 + y[..., None] / 2
    assert_near(_poisson.clone(source, target, inside, mode), direct(source, target, inside, mode))


@pytest.mark.parametrize("mode", _poisson.MODES)
def test_clone_looks_at_the_region_and_the_pixels_next_to_it_alone(mode, rng):
    source, target = draw_image(rng, 40, 60), draw_image(rng, 40, 60)
    inside = np.zeros((40, 60), bool)
    inside[11:23, 17:40] = True
    near = np.s_[10:24, 16:41]
    far = np.ones((40, 60), bool)
    far[near] = False
    source[far] = np.nan
    result = _poisson.clone(source, target, inside, mode)
    assert_array_equal(result[near], _poisson.clone(source[near], target[near], inside[near], mode))
    assert_array_equal(result[far], target[far])


@pytest.mark.parametrize("mode", _poisson.MODES)
def test_clone_writes_to_no_argument(mode, rng):
    source, target, inside = draw_image(rng, 30, 31), draw_image(rng, 30, 31), draw_mask(rng, 30, 31) > 0
    for empty in (False, True):
        given = (source, target, inside & (not empty))
        for argument in given:
            argument.flags.writeable = False
        result = _poisson.clone(*given, mode)
        assert not np.shares_memory(result, target)
        if empty:
            assert_array_equal(result, target)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (30, 31)])
@pytest.mark.parametrize("mode", _poisson.MODES)
def test_clone_of_everything_keeps_the_sources_mean(mode, shape, rng):
    source, target = draw_image(rng, *shape), draw_image(rng, *shape)
    result = _poisson.clone(source, target, np.ones(shape, bool), mode)
    mean = source.mean(axis=(0, 1))
    if mode == "monochrome":
        mean = np.full(3, mean @ [0.299, 0.587, 0.114])
    assert_allclose(result.mean(axis=(0, 1)), mean, atol=tolerances.FLOAT32)
    if mode == "seamless":
        assert_array_equal(result, source)


def test_seamless_takes_the_light_of_the_target(rng):
    target = draw_image(rng, 50, 60) * 0.5
    inside = draw_mask(rng, 50, 60) > 0
    result = _poisson.clone(target + 0.4, target, inside, "seamless")
    assert_allclose(result, target, atol=tolerances.MEMBRANE_MAX / 4)


def test_mixed_of_a_flat_source_is_the_target(rng):
    target = draw_image(rng, 50, 61)
    inside = draw_mask(rng, 50, 61) > 0
    result = _poisson.clone(np.full_like(target, 0.3), target, inside, "mixed")
    assert_allclose(result, target, atol=tolerances.FLOAT32)


def test_mixed_over_a_flat_target_is_seamless(rng):
    source, target = draw_image(rng, 50, 61), np.full((50, 61, 3), 0.3)
    inside = draw_mask(rng, 50, 61) > 0
    assert_near(_poisson.clone(source, target, inside, "mixed"), _poisson.clone(source, target, inside, "seamless"))


def test_mixed_of_gradients_as_large_is_the_sources(rng):
    # The negative of a photo, whose floats round otherwise: still no edge is the target's.
    target = rng.integers(0, 256, (30, 40, 3)) / 255
    source = 1 - target * (1 - 1e-9)
    inside = draw_mask(rng, 30, 40) > 0
    assert_near(_poisson.clone(source, target, inside, "mixed"), _poisson.clone(source, target, inside, "seamless"))


def test_mixed_decides_on_each_edge_and_channel(rng):
    # Bars of the source across bars of the target: both stay, each in its own channel too.
    target, source = np.full((40, 40, 3), 0.5), np.full((40, 40, 3), 0.5)
    target[18:22, :, 0] = 0.2
    source[:, 18:22, 1] = 0.9
    inside = np.zeros((40, 40), bool)
    inside[5:35, 5:35] = True
    source[~inside] = 0.5
    result = _poisson.clone(source, target, inside, "mixed")
    assert_allclose(result[..., 0], target[..., 0], atol=tolerances.FLOAT32)
    assert_allclose(result[10:16, 18:22, 1] - result[10:16, 12:16, 1], 0.4, atol=0.05)


def test_monochrome_keeps_the_targets_colour(rng):
    target = np.full((40, 50, 3), (0.6, 0.5, 0.3))
    inside = draw_mask(rng, 40, 50) > 0
    source = draw_image(rng, 40, 50)
    change = _poisson.clone(source, target, inside, "monochrome") - target
    assert np.ptp(change[inside], axis=0).min() > 0.2
    assert_allclose(change, change[..., :1].repeat(3, axis=2), atol=tolerances.MEMBRANE_MAX / 4)


def test_clone_says_what_modes_there_are(rng):
    image = draw_image(rng, 4, 4)
    with pytest.raises(ValueError, match=r"^mode: expected 'seamless', 'mixed', 'monochrome', got 'normal'$"):
        _poisson.clone(image, image, np.ones((4, 4), bool), "normal")
