"""The equations of GP-GAN in float64 NumPy and SciPy, written for reading.

Every operation of the native core has its slow twin here under the same name, and the tests compare the two.
Images are float arrays (H, W) or (H, W, C) with values in [0, 1], masks are (H, W) in [0, 1] where 1 selects the
source. All borders are half-sample symmetric (``... c b a | a b c ...``), so that the DCT-II diagonalises every
operator.

References
----------
.. [1] H. Wu, S. Zheng, J. Zhang, K. Huang, "GP-GAN: Towards Realistic High-Resolution Image Blending", 2019.
.. [2] P. Perez, M. Gangnet, A. Blake, "Poisson Image Editing", 2003.
.. [3] R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
.. [4] S. Gortler, R. Grzeszczuk, R. Szeliski, M. Cohen, "The Lumigraph" (push-pull), 1996.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg

Array = npt.NDArray[np.float64]
Shape = tuple[int, int]

__all__ = [
    "GeneratorInputs",
    "area_average",
    "blend",
    "composite",
    "downsample",
    "extend",
    "gaussian_blur",
    "gaussian_eigenvalues",
    "gaussian_kernel",
    "generator_inputs",
    "guidance_divergence",
    "inset",
    "laplacian",
    "laplacian_eigenvalues",
    "membrane",
    "pyramid_shapes",
    "resample_bicubic",
    "resize",
    "solve",
    "upsample",
]

#: 4-neighbour connectivity, for components of a mask and its erosion.
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)

#: What each mode says where an option is not given.
MODES: dict[str, dict[str, Any]] = {
    "default": {
        "equation": "gaussian-poisson",
        "carry": "correction",
        "pyramid": "aspect",
        "membrane": True,
        "inset": 2,
    },
    "paper": {
        "equation": "gaussian-poisson",
        "carry": "image",
        "pyramid": "aspect",
        "membrane": False,
        "inset": 0,
    },
    "released": {
        "equation": "screened",
        "carry": "image",
        "pyramid": "square",
        "membrane": False,
        "inset": 0,
    },
}


def _weights(mask: Array, image: Array) -> Array:
    """The mask with a channel axis where the image has one."""
    return mask[..., None] if image.ndim == 3 else mask


# ------------------------------------------------------------------------------------------------ the equations


def composite(source: Array, target: Array, mask: Array) -> Array:
    """Copy-and-paste, Eq. 1 of [1]_: ``mask * source + (1 - mask) * target``.

    Parameters
    ----------
    source, target : ndarray, shape (H, W) or (H, W, C)
    mask : ndarray, shape (H, W)

    Returns
    -------
    ndarray, the shape of `target`
    """
    m = _weights(mask, target)
    return m * source + (1 - m) * target


def guidance_divergence(source: Array, target: Array, mask: Array) -> Array:
    """Negative divergence of the mixed gradient field, ``u = -div v`` with v from Eq. 8 of [1]_.

    v lives on the edges between 4-neighbours: the forward difference of the source weighted by the mean of the mask at
    the edge's two ends, that of the target by the rest; nothing flows across the image border. The sign is such that
    ``u == laplacian(x)`` when v is the gradient of x.

    Parameters
    ----------
    source, target : ndarray, shape (H, W) or (H, W, C)
    mask : ndarray, shape (H, W)

    Returns
    -------
    ndarray, the shape of `target`
    """
    u = np.zeros_like(target)
    for axis in (0, 1):
        ends = np.moveaxis(_weights(mask, target), axis, 0)
        m = (ends[1:] + ends[:-1]) / 2
        v = m * np.diff(np.moveaxis(source, axis, 0), axis=0)
        v += (1 - m) * np.diff(np.moveaxis(target, axis, 0), axis=0)
        out = np.moveaxis(u, axis, 0)
        out[:-1] -= v
        out[1:] += v
    return u


def laplacian(image: Array) -> Array:
    """``L x``, the negative 5-point Laplacian with half-sample symmetric borders (L of Eq. 9 in [1]_)."""
    zero = np.zeros(image.shape[:2])
    return guidance_divergence(image, image, zero)


def gaussian_kernel(sigma: float) -> Array:
    """One axis of G: sampled Gaussian, normalised, radius 1 for ``sigma <= 0.5`` and ``ceil(3 sigma)`` above."""
    radius = 1 if sigma <= 0.5 else math.ceil(3 * sigma)
    x = np.arange(-radius, radius + 1)
    # Dividing first keeps the exponent finite for any sigma > 0: a tiny one gives the identity.
    kernel: Array = np.exp(-0.5 * (x / sigma) ** 2)
    kernel /= kernel.sum()
    return kernel


def gaussian_blur(image: Array, sigma: float = 0.5) -> Array:
    """``G x``, the separable Gaussian of Eq. 7 in [1]_; `sigma` in pixels."""
    kernel = gaussian_kernel(sigma)
    for axis in (0, 1):
        image = scipy.ndimage.correlate1d(image, kernel, axis=axis, mode="reflect")
    return image


def laplacian_eigenvalues(shape: Shape) -> Array:
    """Eigenvalues of L in the DCT-II basis, ``a_k + a_l`` with ``a_k = 2 - 2 cos(pi k / N)``; shape (H, W)."""
    rows, columns = (2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in shape)
    eigenvalues: Array = rows[:, None] + columns[None, :]
    return eigenvalues


def gaussian_eigenvalues(shape: Shape, sigma: float = 0.5) -> Array:
    """Eigenvalues of G in the DCT-II basis: the kernel's cosine series along each axis; shape (H, W)."""
    kernel = gaussian_kernel(sigma)
    x = np.arange(len(kernel)) - len(kernel) // 2
    rows, columns = (np.cos(np.pi * np.outer(np.arange(n), x) / n) @ kernel for n in shape)
    return rows[:, None] * columns[None, :]


def solve(
    divergence: Array,
    color: Array,
    *,
    color_weight: float = 1.0,
    sigma: float = 0.5,
    equation: str = "gaussian-poisson",
) -> Array:
    """The closed-form solution of the Gaussian-Poisson equation.

    ``"gaussian-poisson"`` minimises ``|u - L x|^2 + lambda |G x - c|^2`` (Eq. 9 of [1]_), in the DCT-II basis
    ``X = (l U + lambda g C) / (l^2 + lambda g^2)``. ``"screened"`` is what the authors' released program solves,
    ``X = (U + lambda C) / (l + lambda g)``.

    Parameters
    ----------
    divergence : ndarray, shape (H, W) or (H, W, C)
        u, as :func:`guidance_divergence` gives it.
    color : ndarray, the shape of `divergence`
        c, the colour constraint.
    color_weight : float, default 1.0
        lambda, the paper's beta.
    sigma : float, default 0.5
        Standard deviation of G in pixels.
    equation : {"gaussian-poisson", "screened"}

    Returns
    -------
    ndarray, the shape of `divergence`, not clamped
    """
    shape = divergence.shape[:2]
    l = laplacian_eigenvalues(shape)  # noqa: E741 (the equation's own letter)
    g = gaussian_eigenvalues(shape, sigma)
    if divergence.ndim == 3:
        l, g = l[..., None], g[..., None]  # noqa: E741
    u_hat = scipy.fft.dctn(divergence, axes=(0, 1))
    c_hat = scipy.fft.dctn(color, axes=(0, 1))
    if equation == "gaussian-poisson":
        x_hat = (l * u_hat + color_weight * g * c_hat) / (l**2 + color_weight * g**2)
    elif equation == "screened":
        x_hat = (u_hat + color_weight * c_hat) / (l + color_weight * g)
    else:
        raise ValueError(f"equation: expected 'gaussian-poisson' or 'screened', got {equation!r}")
    x: Array = scipy.fft.idctn(x_hat, axes=(0, 1))
    return x


# ------------------------------------------------------------------------------------------------- the pyramid


def downsample(image: Array) -> Array:
    """One level down: separable binomial [1 3 3 1] / 8; pixel k covers pixels 2k and 2k + 1, sizes ``ceil(N / 2)``."""
    for axis in (0, 1):
        x = np.moveaxis(image, axis, 0)
        n = (len(x) + 1) // 2
        x = np.pad(x, [(1, 2 * n - len(x) + 1)] + [(0, 0)] * (x.ndim - 1), mode="symmetric")
        x = (x[0 : 2 * n : 2] + 3 * x[1 : 2 * n + 1 : 2] + 3 * x[2 : 2 * n + 2 : 2] + x[3 : 2 * n + 3 : 2]) / 8
        image = np.moveaxis(x, 0, axis)
    return image


def keys_kernel(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -0.5 [3]_."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _interpolate(image: Array, positions: list[Array]) -> Array:
    """Sample at fractional (row, column) positions with Keys' kernel."""
    for axis, at in enumerate(positions):
        x = np.moveaxis(image, axis, 0)
        first = np.floor(at).astype(int) - 1
        period = 2 * len(x)
        total = np.zeros((len(at), *x.shape[1:]))
        for tap in range(4):
            index = (first + tap) % period
            index = np.where(index < len(x), index, period - 1 - index)  # half-sample symmetric
            weight = keys_kernel(at - (first + tap))
            total += weight.reshape(-1, *[1] * (x.ndim - 1)) * x[index]
        image = np.moveaxis(total, 0, axis)
    return image


def upsample(image: Array, shape: Shape) -> Array:
    """One level up: Keys' bicubic at the two fixed phases, pixel 2k at ``k - 1/4`` and 2k + 1 at ``k + 1/4``.

    Parameters
    ----------
    image : ndarray, shape (h, w) or (h, w, C)
    shape : (H, W)
        The finer level: 2h or 2h - 1 rows, 2w or 2w - 1 columns.

    Raises
    ------
    ValueError
        If `image` is not one level below `shape`.
    """
    if tuple((n + 1) // 2 for n in shape) != image.shape[:2]:
        raise ValueError(f"shape: expected twice {image.shape[:2]} or one less, got {tuple(shape)}")
    return _interpolate(image, [(np.arange(n) + 0.5) / 2 - 0.5 for n in shape])


def resample_bicubic(image: Array, shape: Shape) -> Array:
    """Keys' bicubic at half-pixel centres for any pair of sizes, point-sampled (no smoothing where it shrinks)."""
    sizes = zip(shape, image.shape[:2], strict=True)
    return _interpolate(image, [(np.arange(n) + 0.5) * old / n - 0.5 for n, old in sizes])


def resample_nearest(mask: Array, shape: Shape) -> Array:
    """Nearest neighbour at half-pixel centres, halves rounded up."""
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def area_average(image: Array, shape: Shape) -> Array:
    """Mean over the part of the image that each output pixel covers, for any pair of sizes."""
    for axis, n in enumerate(shape):
        x = np.moveaxis(image, axis, 0)
        edges = np.arange(n + 1) * len(x) / n
        pixel = np.arange(len(x))
        overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        image = np.moveaxis(np.tensordot(np.maximum(overlap, 0) * n / len(x), x, axes=1), 0, axis)
    return image


def resize(image: Array, shape: Shape) -> Array:
    """From the generator's size to a level: bicubic along an axis that grows, area average along one that shrinks."""
    height, width = image.shape[:2]
    grown = resample_bicubic(image, (max(height, shape[0]), max(width, shape[1])))
    return area_average(grown, shape)


def pyramid_shapes(shape: Shape, image_size: int, pyramid: str = "aspect") -> list[Shape]:
    """Sizes of the levels, coarsest first.

    ``"aspect"``: halves, rounded up, as many as keep the smaller side at `image_size` or more, one at least.
    ``"square"``: squares of ``image_size * 2**i`` below the full size, ``ceil(log2(max(H, W) / image_size)) + 1``
    levels, as in the authors' released program.
    """
    shapes = [shape]
    if pyramid == "aspect":
        while max(shape) > 1 and (min(shape) + 1) // 2 >= image_size:
            shape = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
            shapes.append(shape)
    elif pyramid == "square":
        below = 0
        while image_size << below < max(shape):
            below += 1
        shapes += [(image_size << i, image_size << i) for i in reversed(range(below))]
    else:
        raise ValueError(f"pyramid: expected 'aspect' or 'square', got {pyramid!r}")
    return shapes[::-1]


# -------------------------------------------------------------------------------- the seam and unknown pixels


def inset(mask: Array, pixels: int) -> Array:
    """Erode the mask by `pixels` steps of the minimum over 4-neighbours.

    The image border does not erode, and a component (4-connected, mask > 0) that would vanish stays as it is.
    """
    eroded = mask
    for _ in range(pixels):
        before, eroded = eroded, scipy.ndimage.grey_erosion(eroded, footprint=CROSS, mode="nearest")
        if np.array_equal(before, eroded):
            break  # nothing left to take
    labels, count = scipy.ndimage.label(mask > 0, structure=CROSS)
    survives = np.zeros(count + 1, dtype=bool)
    survives[labels[eroded > 0]] = True
    return np.where(survives[labels], eroded, mask)


def extend(source: Array, alpha: Array) -> Array:
    """Fill the pixels with ``alpha == 0`` from the others by push-pull [4]_.

    Push: alpha-weighted means over 2 x 2 pixels, level by level, until nothing is unknown. Pull: an unknown pixel takes
    the bilinear interpolation of the level above. Pixels with any alpha keep their value.

    Parameters
    ----------
    source : ndarray, shape (H, W, C)
    alpha : ndarray, shape (H, W)

    Returns
    -------
    ndarray, the shape of `source`; zero where nothing at all is known
    """
    known = alpha > 0
    source = np.where(known[..., None], source, 0.0)
    if known.all() or not known.any():
        return source
    height, width = alpha.shape
    pad = ((0, height % 2), (0, width % 2))
    a = np.pad(alpha, pad)
    c = np.pad(source * alpha[..., None], (*pad, (0, 0)))
    blocks = (slice(0, None, 2), slice(1, None, 2))
    weight: Array = np.mean([a[i, j] for i in blocks for j in blocks], axis=0)
    color: Array = np.mean([c[i, j] for i in blocks for j in blocks], axis=0)
    color = np.where(weight[..., None] > 0, color / np.where(weight > 0, weight, 1)[..., None], 0)
    filled = extend(color, weight)
    for axis, n in enumerate((height, width)):
        x = np.moveaxis(filled, axis, 0)
        before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
        fine = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=1)
        filled = np.moveaxis(fine.reshape(-1, *x.shape[1:])[:n], 0, axis)
    return np.where(known[..., None], source, filled)


def membrane(source: Array, target: Array, mask: Array) -> Array:
    """The harmonic membrane w between the two sides of the seam: Poisson cloning [2]_ in its difference form.

    The Laplacian of w is 0 on the pixels with ``mask > 0``, ``w = target - source`` on all others, neighbours beyond
    the image border are dropped, and w = 0 on a component that has no boundary. ``source + w`` then meets the target
    everywhere outside the mask.

    Parameters
    ----------
    source, target : ndarray, shape (H, W) or (H, W, C)
    mask : ndarray, shape (H, W)

    Returns
    -------
    ndarray, the shape of `target`
    """
    inside = mask > 0
    w = target - source
    labels, _ = scipy.ndimage.label(inside, structure=CROSS)
    ring = scipy.ndimage.binary_dilation(~inside, structure=CROSS) & inside
    bounded = np.isin(labels, labels[ring]) & inside
    w[inside & ~bounded] = 0
    if not bounded.any():
        return w
    number = np.full(mask.shape, -1)
    number[bounded] = np.arange(bounded.sum())
    values = w.reshape(*mask.shape, -1)
    degree = np.zeros(bounded.sum())
    rhs = np.zeros((bounded.sum(), values.shape[-1]))
    rows, columns = [], []
    for axis in (0, 1):
        for a, b in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            here = tuple(a if i == axis else slice(None) for i in (0, 1))
            there = tuple(b if i == axis else slice(None) for i in (0, 1))
            one, other = number[here], number[there]
            degree += np.bincount(one[one >= 0], minlength=len(degree))
            inner = (one >= 0) & (other >= 0)
            rows.append(one[inner])
            columns.append(other[inner])
            seam = (one >= 0) & (other < 0)
            np.add.at(rhs, one[seam], values[there][seam])
    i, j = np.concatenate(rows), np.concatenate(columns)
    matrix = scipy.sparse.csc_array((-np.ones(len(i)), (i, j)), shape=(len(degree), len(degree)))
    matrix = (matrix + scipy.sparse.diags_array(degree)).tocsc()
    values[bounded] = scipy.sparse.linalg.splu(matrix).solve(rhs)
    return values.reshape(target.shape)


# --------------------------------------------------------------------------------------------- the whole method


class GeneratorInputs(NamedTuple):
    """What a generator sees, all at S x S: the TorchScript contract's four images, here (S, S, C) and (S, S)."""

    composite: Array
    mask: Array
    harmonized: Array
    source: Array


def generator_inputs(
    source: Array,
    target: Array,
    mask: Array,
    *,
    image_size: int = 64,
    membrane: bool = True,
    inset: int = 2,
    alpha: Array | None = None,
) -> GeneratorInputs:
    """The generator's level: area averages of source, target and mask, composited plainly and with the membrane.

    Parameters are those of :func:`blend`.
    """
    return _prepare(source, target, mask, alpha, membrane, inset, image_size)[2]


def _prepare(
    source: Array,
    target: Array,
    mask: Array,
    alpha: Array | None,
    with_membrane: bool,
    pixels: int,
    size: int,
) -> tuple[Array, Array, GeneratorInputs]:
    """The source made ready (extended, with the membrane), the inset mask and the generator's inputs."""
    if alpha is not None:
        source = extend(source, alpha)
        mask = mask * alpha
    mask = inset(mask, pixels)
    square = (size, size)
    small_source, small_target, small_mask = (area_average(x, square) for x in (source, target, mask))
    plain = harmonized = composite(small_source, small_target, small_mask)
    if with_membrane:
        source = source + membrane(source, target, mask)
        # The membrane can leave the range; a generator neither sees nor gives what does.
        harmonized = np.clip(composite(area_average(source, square), small_target, small_mask), 0, 1)
    return source, mask, GeneratorInputs(plain, small_mask, harmonized, small_source)


def _levels(image: Array, shapes: list[Shape], pyramid: str) -> list[Array]:
    """The image at every level, coarsest first."""
    levels = [image]
    for shape in shapes[-2::-1]:
        finer = levels[-1]
        levels.append(downsample(finer) if pyramid == "aspect" else resample_bicubic(gaussian_blur(finer, 1.0), shape))
    return levels[::-1]


def blend(
    source: Array,
    target: Array,
    mask: Array,
    *,
    alpha: Array | None = None,
    generator: Callable[[Array, Array, Array, Array], Array] | None = None,
    lowres: Array | None = None,
    image_size: int = 64,
    mode: str = "default",
    color_weight: float = 1.0,
    sigma: float = 0.5,
    equation: str | None = None,
    carry: str | None = None,
    pyramid: str | None = None,
    membrane: bool | None = None,
    inset: int | None = None,
) -> Array:
    """GP-GAN, Algorithm 1 of [1]_, with the options of :func:`gpgan.blend`.

    Parameters
    ----------
    source, target : ndarray, shape (H, W, C)
    mask : ndarray, shape (H, W)
    alpha : ndarray, shape (H, W), optional
        What is known of the source: it multiplies the mask, and pixels with alpha 0 are extended from the others.
    generator : callable, optional
        ``generator(composite, mask, harmonized, source) -> colour``, all (S, S, C) but the mask, (S, S).
    lowres : ndarray, shape (S, S, C), optional
        The colour itself, instead of a generator. Without either it is the harmonized composite.
    image_size : int, default 64
        S; the side of `lowres` where that is given.
    mode : {"default", "paper", "released"}
        What the options that are None mean; see :data:`MODES`.
    color_weight, sigma, equation
        See :func:`solve`.
    carry : {"image", "correction"}
        What a level hands on: itself, or the change that it made to its composite.
    pyramid : {"aspect", "square"}
        See :func:`pyramid_shapes`.
    membrane : bool
        Add the :func:`membrane` to the source first.
    inset : int
        Pixels by which the mask is eroded first; None means 0 where `alpha` is given.

    Returns
    -------
    ndarray, the shape of `target`, in [0, 1]
    """
    said = MODES[mode]
    equation = said["equation"] if equation is None else equation
    carry = said["carry"] if carry is None else carry
    pyramid = said["pyramid"] if pyramid is None else pyramid
    with_membrane = said["membrane"] if membrane is None else membrane
    if inset is None:
        inset = 0 if alpha is not None else said["inset"]
    if carry not in ("image", "correction"):
        raise ValueError(f"carry: expected 'image' or 'correction', got {carry!r}")
    if lowres is not None:
        image_size = len(lowres)

    source, mask, inputs = _prepare(source, target, mask, alpha, with_membrane, inset, image_size)
    if not mask.any():
        return np.array(target)
    if lowres is None:
        lowres = generator(*inputs) if generator is not None else inputs.harmonized

    shapes = pyramid_shapes(target.shape[:2], image_size, pyramid)
    sources, targets = (_levels(x, shapes, pyramid) for x in (source, target))
    masks = _levels(mask, shapes, pyramid) if pyramid == "aspect" else [resample_nearest(mask, s) for s in shapes]
    step = upsample if pyramid == "aspect" else resample_bicubic

    carried = lowres if carry == "image" else lowres - inputs.harmonized
    for level, shape in enumerate(shapes):
        carried = resize(carried, shape) if level == 0 else step(carried, shape)
        copied = composite(sources[level], targets[level], masks[level])
        color = carried if carry == "image" else gaussian_blur(copied + carried, sigma)
        u = guidance_divergence(sources[level], targets[level], masks[level])
        x = solve(u, color, color_weight=color_weight, sigma=sigma, equation=equation)
        if carry == "image":
            x = carried = np.clip(x, 0, 1)
        else:
            carried = x - copied
    result: Array = np.clip(x, 0, 1)
    return result
