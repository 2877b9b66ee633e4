"""How far results may lie apart, and why: one table for the whole suite. Images are in [0, 1]."""

import numpy as np

#: Native float32 against the float64 reference, largest difference. float32 has an eps of 1.2e-7; a cosine transform
#: of length N loses about log2(N) of them, and the division by the spectrum multiplies by up to 1 / lambda.
NATIVE = 2e-5

#: With the membrane: an iterative solver that stops at a fraction of one of 255 levels.
MEMBRANE_MAX = 1 / 255
MEMBRANE_MEAN = 0.1 / 255

#: Exact up to the rounding of a few float32 operations on values of order 1.
FLOAT32 = 2e-6

#: The reference against the mathematics: float64 rounding, times the largest eigenvalues (8 squared).
FLOAT64 = 1e-10

#: Half a step of the result's dtype in [0.5, 1], on top of what the float32 core is off.
ROUNDING = {
    np.dtype(np.uint8): 0.5 / 255,
    np.dtype(np.uint16): 0.5 / 65535,
    np.dtype(np.float16): 2.0**-12,
    np.dtype(np.float32): 0.0,
    np.dtype(np.float64): 0.0,
}


def result(dtype: np.dtype | type) -> float:
    """Largest difference of a blend in `dtype` from the reference, without the membrane."""
    return NATIVE + ROUNDING[np.dtype(dtype).newbyteorder("=")]


def dct(length: int) -> float:
    """Relative to the largest output of a row: an eps of float32 for each of log2(N) stages and the twiddles before and
    after. Bluestein's lengths come closest, with two transforms of more than twice the length.
    """
    return 1.2e-7 * (2 + np.log2(length))


def assert_matches(got: np.ndarray, expected: np.ndarray, *, membrane: bool = False) -> None:
    """Within the native path's tolerance of the reference, or within its membrane's."""
    assert got.shape == expected.shape
    off = np.abs(got - expected)
    if membrane:
        assert off.max() <= MEMBRANE_MAX
        assert off.mean() <= MEMBRANE_MEAN
    else:
        assert off.max() <= NATIVE
