"""The project's own cosine transform against SciPy's and ducc0's, in double."""

import ducc0
import numpy as np
import pytest
import scipy.fft
import tolerances
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import _core

# Every short length, which is every radix alone and mixed and many a prime through Bluestein; the sides of tiles and
# images; odd and even lengths with large prime factors.
LENGTHS = [*range(1, 201), 256, 307, 320, 384, 480, 512, 641, 1000, 1001, 1920, 1998, 1999, 3840, 4096, 7680]


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Each row to its own largest value: that is what rounding scales with."""
    assert got.dtype == np.float32
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(got - expected) <= tolerances.dct(expected.shape[1]) * scale).all()


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_dct_matches_scipy_and_ducc(length, kind, rng):
    rows = rng.standard_normal((17, length)).astype(np.float32)
    got = _core.dct(rows, kind)
    double = rows.astype(np.float64)
    assert_close(got, scipy.fft.dct(double, kind))
    assert_close(got, ducc0.fft.dct(double, type=kind, axes=(1,)))


@pytest.mark.parametrize("count", range(1, 34))
@pytest.mark.parametrize("length", [7, 12])
def test_dct_takes_any_number_of_rows(count, length, rng):
    rows = rng.standard_normal((count, length)).astype(np.float32)
    for kind in (2, 3):
        assert_close(_core.dct(rows, kind), scipy.fft.dct(rows.astype(np.float64), kind))


@pytest.mark.parametrize("length", [30, 31, 128, 641])
@pytest.mark.parametrize("kind", [2, 3])
def test_dct_rows_of_other_batches_have_no_influence(kind, length, rng):
    # Sixteen rows share a batch. One huge row first: what it leaves in memory must not reach the batches after it, the
    # last of which is not full.
    rows = rng.standard_normal((37, length)).astype(np.float32)
    alone = _core.dct(rows[16:], kind, threads=1)
    rows[3] *= 1e30
    together = _core.dct(rows, kind, threads=1)
    assert_array_equal(together[16:], alone)


@pytest.mark.parametrize("kind", [2, 3])
def test_dct_of_a_lone_row_needs_no_partner(kind, rng):
    # A row and the one eight lanes on share a complex transform; the lanes that are left over hold zeros.
    rows = rng.standard_normal((20, 45)).astype(np.float32)
    for i in (0, 7, 8, 15, 16, 19):
        assert_close(_core.dct(rows[i : i + 1], kind), scipy.fft.dct(rows[i : i + 1].astype(np.float64), kind))
        assert_close(_core.dct(rows, kind)[i : i + 1], scipy.fft.dct(rows[i : i + 1].astype(np.float64), kind))


@pytest.mark.parametrize("length", LENGTHS)
def test_dct_type_3_undoes_type_2(length, rng):
    rows = rng.uniform(-1, 1, (5, length)).astype(np.float32)
    back = _core.dct(_core.dct(rows, 2), 3) / (2 * length)
    assert_allclose(back, rows, atol=2 * tolerances.dct(length))


def test_dct_is_exact_on_what_it_must_be():
    # A constant has one coefficient, 2 N times its value; the rest is rounding.
    got = _core.dct(np.ones((3, 96), np.float32))
    assert_allclose(got[:, 0], 192, rtol=1e-6)
    assert np.abs(got[:, 1:]).max() < 192 * tolerances.dct(96)
    assert_array_equal(_core.dct(np.zeros((33, 31), np.float32)), np.zeros((33, 31)))


def test_dct_is_the_same_for_any_number_of_threads(rng):
    rows = rng.standard_normal((500, 307)).astype(np.float32)
    one = _core.dct(rows, threads=1)
    for threads in (2, 3, 16):
        assert_array_equal(_core.dct(rows, threads=threads), one)


def test_dct_refuses_other_arguments():
    with pytest.raises(ValueError, match=r"^type: expected 2 or 3, got 4$"):
        _core.dct(np.zeros((2, 2), np.float32), 4)
    for bad in (np.zeros(3, np.float32), np.zeros((2, 3, 4), np.float32), np.zeros((0, 4), np.float32)):
        with pytest.raises(ValueError, match=r"^rows: expected"):
            _core.dct(bad)
