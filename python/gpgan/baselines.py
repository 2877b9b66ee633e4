"""The methods that blending is compared with, written from their papers' formulas.

Every function takes ``(source, target, mask)`` and ``offset`` and ``out`` as :func:`gpgan.blend` does, with the same
kinds of images and the same errors, and returns the target's kind. They compute in float64 on the CPU. No method
clips its result: where the target is of floats, the result may lie outside [0, 1]; integers are rounded and saturate.
Where the mask is 0 everywhere the result is the target.

References
----------
.. [1] P. Burt, E. Adelson, "A Multiresolution Spline with Application to Image Mosaics", ACM Transactions on
   Graphics, 1983.
.. [2] P. Perez, M. Gangnet, A. Blake, "Poisson Image Editing", SIGGRAPH 2003.
.. [3] M. Tanaka, R. Kamio, M. Okutomi, "Seamless Image Cloning by a Closed Form Solution of a Modified Poisson
   Problem", SIGGRAPH Asia 2012.
.. [4] R. Szeliski, M. Uyttendaele, D. Steedly, "Fast Poisson Blending using Multi-Splines", ICCP 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg

from gpgan import _core, _frames, _options, _poisson, reference

Array = npt.NDArray[np.float64]

__all__ = ["alpha", "copy_paste", "modified_poisson", "multi_spline", "multiband", "poisson"]

#: Burt and Adelson's generating kernel with a = 0.4, the one closest to a Gaussian.
_GENERATING_KERNEL = np.array([0.05, 0.25, 0.4, 0.25, 0.05])

#: Of multi-splines, for the memory that the seam of a torn mask takes.
_PAIRS_AT_ONCE = 1 << 20


def copy_paste(source: Any, target: Any, mask: Any = None, *, offset: tuple[int, int] = (0, 0), out: Any = None) -> Any:
    """Paste the source over the target: ``mask * source + (1 - mask) * target``.

    Parameters
    ----------
    source, target, mask, offset, out
        See :func:`gpgan.blend`.

    Returns
    -------
    The target's type, shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does.
    """
    return _frames.apply(reference.composite, source, target, mask, offset, out)


def alpha(
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    offset: tuple[int, int] = (0, 0),
    sigma: float = 8.0,
    out: Any = None,
) -> Any:
    """Feather: copy-and-paste with the mask smoothed by a Gaussian.

    Parameters
    ----------
    source, target, mask, offset, out
        See :func:`gpgan.blend`.
    sigma : float, default 8.0
        Of the Gaussian in pixels, above 0 and up to 1000; the transition is about 4 sigma wide, half of it outside
        the mask. No value is right for all: a wide transition hides the seam, and shows more of the source's
        surroundings and of the target through the object. On photos of 640 pixels the seam gains most up to 8; beyond
        that each doubling gives it half a decibel more, and takes 2.5 to 3 from what is outside.

    Returns
    -------
    The target's type, shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, and for a `sigma` out of its range.
    """
    width = _options.positive("sigma", sigma, 1000)

    def method(source: Array, target: Array, mask: Array) -> Array:
        return reference.composite(source, target, scipy.ndimage.gaussian_filter(mask, width, mode="reflect"))

    return _frames.apply(method, source, target, mask, offset, out)


def multiband(
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    offset: tuple[int, int] = (0, 0),
    levels: int | None = None,
    out: Any = None,
) -> Any:
    """Blend band by band: the Laplacian pyramids of both, mixed by the Gaussian pyramid of the mask [1]_.

    Parameters
    ----------
    source, target, mask, offset, out
        See :func:`gpgan.blend`.
    levels : int, optional
        How often the images are halved, 0 (copy-and-paste) or more; what is one pixel high or wide stays so, and one
        pixel in all ends it. The coarsest level's transition reaches about ``2**levels`` pixels to each side of the
        seam. None: as often as leaves the longer side at 16 pixels or more, so that all of an object of common size
        takes part and the far corners of the target do not.

    Returns
    -------
    The target's type, shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, and for `levels` below 0.
    """
    if levels is not None:
        levels = _options.of_type("levels", levels, int)
        if levels < 0:
            raise ValueError(f"levels: expected 0 or more, got {levels}")

    def method(source: Array, target: Array, mask: Array) -> Array:
        depth = _halvings(mask.shape, 16) if levels is None else min(levels, _halvings(mask.shape, 1))
        weights = [mask]
        for _ in range(depth):
            weights.append(_reduce(weights[-1]))
        # Everything is linear: mixing both pyramids is adding to the target the mixed one of the difference.
        for c in range(target.shape[2]):
            finest = source[..., c] - target[..., c]
            bands = []
            for _ in range(depth):
                coarser = _reduce(finest)
                bands.append(finest - _expand(coarser, finest.shape))
                finest = coarser
            total = weights[depth] * finest
            for band, weight in zip(reversed(bands), reversed(weights[:depth]), strict=True):
                total = weight * band + _expand(total, band.shape)
            target[..., c] += total
        return target

    return _frames.apply(method, source, target, mask, offset, out)


def poisson(
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    offset: tuple[int, int] = (0, 0),
    mode: str = "seamless",
    out: Any = None,
) -> Any:
    """Poisson cloning: the target's values around the mask, the source's gradients inside it [2]_.

    Parameters
    ----------
    source, target, mask, offset, out
        See :func:`gpgan.blend`. The equation is solved where the mask is above 0; where it is soft the solution then
        shows by as much as the mask says.
    mode : {"seamless", "mixed", "monochrome"}
        The source's gradients; on every edge the stronger one of source and target; or those of the source's
        brightness alone.

    Returns
    -------
    The target's type, shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, and for another `mode`.
    """
    _options.one_of("mode", mode, _poisson.MODES)

    def method(source: Array, target: Array, mask: Array) -> Array:
        cloned = np.asarray(_poisson.clone(source, target, mask > 0, mode), np.float64)
        return reference.composite(cloned, target, mask)

    return _frames.apply(method, source, target, mask, offset, out)


def modified_poisson(
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    offset: tuple[int, int] = (0, 0),
    eps: float = 1e-8,
    out: Any = None,
) -> Any:
    """The composited gradients, integrated over the whole frame in closed form [3]_.

    Minimises ``sum |grad x - v|^2 + eps * sum |x - c|^2`` with c the copy-and-paste and v its parts' gradients, no
    gradient across the border. Nothing holds the target in place but its mean: a source that is darker in all darkens
    the whole frame.

    Parameters
    ----------
    source, target, mask, offset, out
        See :func:`gpgan.blend`.
    eps : float, default 1e-8
        Above 0 and up to 1; the paper's epsilon.

    Returns
    -------
    The target's type, shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, and for an `eps` out of its range.
    """
    weight = _options.positive("eps", eps, 1)
    workers = _core.resolve_threads()

    def method(source: Array, target: Array, mask: Array) -> Array:
        # The DCT-II diagonalises the normal equation (L + eps) x = u + eps c. The floor is that of the authors' code.
        denominator = np.maximum(reference.laplacian_eigenvalues(mask.shape) + weight, 1e-12)
        for c in range(target.shape[2]):
            s, t = source[..., c], target[..., c]
            # v is the mean of two composites, one of forward and one of backward differences. On the edge from i to
            # j = i + 1 both have the difference x_j - x_i, the first at i with the mask m_i, the second at j with m_j:
            # so v mixes source and target by (m_i + m_j) / 2, and -div v is guidance_divergence.
            right = reference.guidance_divergence(s, t, mask)
            right += weight * reference.composite(s, t, mask)
            spectrum = scipy.fft.dctn(right, workers=workers, overwrite_x=True)
            spectrum /= denominator
            target[..., c] = scipy.fft.idctn(spectrum, workers=workers, overwrite_x=True)
        return target

    return _frames.apply(method, source, target, mask, offset, out)


def multi_spline(
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    offset: tuple[int, int] = (0, 0),
    spacing: int = 32,
    weight: float = 1.0,
    smoothness: str = "laplacian",
    out: Any = None,
) -> Any:
    """Bring both sides of the seam together by two smooth offset fields, one a side, each a coarse spline [4]_.

    The fields s (source) and t (target) are bilinear between knots every `spacing` pixels, and 0 at the knots that
    would come next to the grid. They minimise the sum over the seam of ``(s(p) - t(p) - e)^2``, e the mean of
    ``target - source`` at p and q, plus `weight` times the roughness of both. A pair (p, q) of 4-neighbours, p the
    upper or left one, is part of the seam where the mask is 0.5 or more at one of them alone.

    Parameters
    ----------
    source, target, mask, offset, out
        See :func:`gpgan.blend`. Soft masks mix ``source + s`` and ``target + t``.
    spacing : int, default 32
        Of the knots in pixels. An axis of n pixels has ``floor(n / spacing + 2)`` of them, both axes together 2**18 at
        most.
    weight : float, default 1.0
        Of the roughness, from 1e-6 to 1e6.
    smoothness : {"laplacian", "gradient"}
        What roughness is: the sum over the knots of the squared Laplacian, or of the squared differences between
        neighbours, as in [4]_ and in the program that the authors of GP-GAN compared with. The latter changes less
        of the target far from the seam.

    Returns
    -------
    The target's type, shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`gpgan.blend` does, and for options out of their range.
    """
    amount = _options.positive("weight", weight, 1e6)
    if amount < 1e-6:
        raise ValueError(f"weight: expected a number from 1e-6 to 1e6, got {weight!r}")
    spacing = _options.of_type("spacing", spacing, int)
    if spacing < 1:
        raise ValueError(f"spacing: expected 1 pixel or more, got {spacing}")
    _options.one_of("smoothness", smoothness, ("laplacian", "gradient"))

    def method(source: Array, target: Array, mask: Array) -> Array:
        grid = (mask.shape[0] // spacing + 2, mask.shape[1] // spacing + 2)
        if grid[0] * grid[1] > 1 << 18:
            raise ValueError(
                f"spacing: expected at most 2**18 knots, got {spacing}, which makes {grid[0]} x {grid[1]} of them"
            )
        laplacian = _grid_laplacian(grid)
        roughness = laplacian if smoothness == "gradient" else laplacian.T @ laplacian
        field = _seam_spline(source, target, mask >= 0.5, grid[1], spacing, amount * roughness)
        for c in range(target.shape[2]):
            half = _between_knots(field[:, c].reshape(grid), mask.shape, spacing)
            half /= 2
            target[..., c] = reference.composite(source[..., c] + half, target[..., c] - half, mask)
        return target

    return _frames.apply(method, source, target, mask, offset, out)


# ------------------------------------------------------------------------------------------- Burt and Adelson's pyramid


def _halvings(shape: tuple[int, ...], least: int) -> int:
    """How often a frame can be halved, rounding up, until its longer side would be below `least`."""
    side, count = max(shape), 0
    while side > 1 and (side + 1) // 2 >= least:
        side, count = (side + 1) // 2, count + 1
    return count


def _reduce(image: Array) -> Array:
    """REDUCE of [1]_: smoothed, then every other pixel, beginning with the first."""
    for axis in (0, 1):
        if image.shape[axis] > 1:
            image = scipy.ndimage.correlate1d(image, _GENERATING_KERNEL, axis=axis, mode="mirror")
            image = image[::2] if axis == 0 else image[:, ::2]
    return image


def _expand(image: Array, shape: tuple[int, ...]) -> Array:
    """EXPAND of [1]_: zeros between the pixels, then smoothed, twice as strong."""
    for axis in (0, 1):
        if shape[axis] > 1:
            sizes = (shape[0], image.shape[1]) if axis == 0 else (image.shape[0], shape[1])
            sparse = np.zeros(sizes)
            (sparse[::2] if axis == 0 else sparse[:, ::2])[...] = image
            # Mirrored at the last pixel, a pixel keeps its parity, and so the weights their sum.
            image = scipy.ndimage.correlate1d(sparse, 2 * _GENERATING_KERNEL, axis=axis, mode="mirror")
    return image


# -------------------------------------------------------------------------------------------------- multi-splines


def _grid_laplacian(grid: tuple[int, int]) -> scipy.sparse.csr_array:
    """The negative Laplacian of the knots, row by row, those beyond the grid taken for 0."""
    # Along one axis: the next, the knot itself, the next.
    rows, columns = (scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)) for n in grid)
    return scipy.sparse.csr_array(scipy.sparse.kronsum(columns, rows))


def _seam_spline(
    source: Array,
    target: Array,
    inside: npt.NDArray[np.bool_],
    columns: int,
    spacing: int,
    roughness: scipy.sparse.csr_array,
) -> Array:
    """d = s - t at the knots, shape (knots, C); there are `columns` of them in a row.

    The energy of s and t is that of d with half the weight on its roughness, plus half the roughness of s + t. The
    data do not depend on the latter, so that s + t = 0: the fields are s = d / 2 and t = -d / 2.
    """
    matrix, right = roughness / 2, np.zeros((roughness.shape[0], target.shape[2]))
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        every = np.nonzero(inside[first] != inside[second])
        for begin in range(0, len(every[0]), _PAIRS_AT_ONCE):
            p = tuple(i[begin : begin + _PAIRS_AT_ONCE] for i in every)
            e = (target[first][p] - source[first][p] + target[second][p] - source[second][p]) / 2
            (y, x), (v, u) = (i // spacing for i in p), (i % spacing / spacing for i in p)
            # A pixel lies under the four tents around it.
            tents = np.concatenate([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u])
            knots = np.concatenate([(y + j) * columns + x + i for j in (0, 1) for i in (0, 1)])
            pairs = np.tile(np.arange(len(e)), 4)
            data = scipy.sparse.csr_array((tents, (pairs, knots)), shape=(len(e), len(right)))
            matrix = matrix + data.T @ data
            right += data.T @ e
    # Symmetric and positive definite: no pivoting, and the ordering that is made for it.
    factors = scipy.sparse.linalg.splu(
        matrix.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    field: Array = factors.solve(right)
    return field


def _between_knots(values: Array, shape: tuple[int, ...], spacing: int) -> Array:
    """Bilinear between knots at multiples of `spacing`; shape (H, W)."""
    y, x = (np.arange(n) for n in shape)
    fraction = (y % spacing / spacing)[:, None]
    y //= spacing
    rows = values[y] * (1 - fraction) + values[y + 1] * fraction
    fraction = x % spacing / spacing
    x //= spacing
    columns = rows[:, x] * (1 - fraction)
    columns += rows[:, x + 1] * fraction
    return columns
