"""Poisson image editing [1]_ on the core's membrane: one solver for all of its guidance fields.

Whatever the guidance v is, the result is a particular solution p of ``Laplacian(p) = div v`` plus the harmonic
membrane that takes p to the target on the seam. For the gradient of the source p is the source itself; for others a
closed form with Neumann borders gives one, and the membrane takes its borders away again.

References
----------
.. [1] P. Perez, M. Gangnet, A. Blake, "Poisson Image Editing", 2003.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan import _core, _frames

Array = npt.NDArray[np.floating[Any]]
Inside = npt.NDArray[np.bool_]

#: Guidance: the source's gradient, on each edge the larger of source's and target's, the gradient of the source's grey.
MODES = ("seamless", "mixed", "monochrome")

#: Gradients of 8- and 16-bit photos are often as large as each other, and as floats they still are to within this.
_TIE = 1e-6

#: Rows that are worked on at once, so that what is in between stays in the cache.
_STRIP = 32

#: Luma of ITU-R BT.601, channels red, green, blue: the weights that OpenCV, Pillow and JPEG turn colours to grey with.
LUMA = (0.299, 0.587, 0.114)


def clone(source: Array, target: Array, inside: Inside, mode: str) -> Array:
    """Clone a region of the source into the target.

    ``Laplacian(x) = div v`` inside, x = target elsewhere, neighbours beyond the image border dropped (Eq. 3 of
    Perez et al.). The guidance v lives on the edges between 4-neighbours with at least one end inside: the difference
    of the source (``"seamless"``, Eq. 9), of source or target whichever is larger in absolute value, channel by channel
    (``"mixed"``, Eq. 12; the source's where both are as large), or of the source's luminance in every channel
    (``"monochrome"``).

    Parameters
    ----------
    source, target : ndarray of float64 or float32, shape (H, W, C)
        C = 1, or 3 in the order red, green, blue, which only ``"monochrome"`` asks for. Of the source, `inside` and the
        pixels next to it count.
    inside : ndarray of bool, shape (H, W)
    mode : {"seamless", "mixed", "monochrome"}

    Returns
    -------
    ndarray, the shape and dtype of `target`
        Not clipped: it can leave the range of its arguments. The target's own values outside. Where no pixel is
        outside nothing ties the result to the target, and it keeps the source's mean.

    Raises
    ------
    ValueError
        If `mode` is none of the three.
    """
    if mode not in MODES:
        raise ValueError(f"mode: expected {', '.join(map(repr, MODES))}, got {mode!r}")
    result: Array = target.copy()
    if not inside.any():
        return result
    # Beyond the outer ring nothing has a say.
    box = _frames.bounding_box(inside, 1)
    source, target, inside = source[box], target[box], inside[box]
    if mode == "monochrome" and source.shape[2] == 3:
        source = np.repeat(source @ np.array(LUMA, source.dtype)[:, None], 3, axis=2)
    particular = _integrated(source, target, inside) if mode == "mixed" else source
    # Straight to the core: what ops would check and convert is what this module has made.
    membrane = _core.membrane(particular, target, inside)
    cloned = np.add(membrane, particular, out=membrane if particular.dtype == np.float32 else None)
    np.copyto(result[box], cloned, where=inside[..., None])
    return result


def _integrated(source: Array, target: Array, inside: Inside) -> Array:
    """A p whose Laplacian is the divergence of the mixed guidance, wherever `inside` asks for it."""
    # On each edge (rows, then columns): may the source have it?
    edges = (inside[1:] | inside[:-1], inside[:, 1:] | inside[:, :-1])
    (above, below), (before, after) = (_padding(inside, axis) for axis in (0, 1))
    height, width = inside.shape
    result = np.empty_like(target)
    for c in range(target.shape[2]):  # contiguous planes: the transforms are twice as fast
        s, t = (np.ascontiguousarray(image[..., c], np.float64) for image in (source, target))
        divergence = np.zeros((above + height + below, before + width + after))
        window = divergence[above : above + height, before : before + width]
        for first in range(0, height, _STRIP):
            rows, with_next = slice(first, first + _STRIP), slice(first, first + _STRIP + 1)
            _add_mixed_divergence(window[with_next], s[with_next], t[with_next], edges[0][rows])
            _add_mixed_divergence(window[rows].T, s[rows].T, t[rows].T, edges[1][rows].T)
        p = _integrate(divergence)[above : above + height, before : before + width]
        # Poisson's equation leaves a constant free. Near the images, so that the membrane's float32 does not lose it;
        # and where there is no outside it is the one that stays.
        result[..., c] = p + ((s if inside.all() else t).mean() - p.mean())
    return result


def _padding(inside: Inside, axis: int) -> tuple[int, int]:
    """How many rows or columns to put before and after, for the sake of the transform's speed.

    Edges to them carry no gradient, which is right at a side where the pixels of the rim are not inside; where all of
    both rims may be, as at two borders of the image, there can be none.
    """
    import scipy.fft

    first, last = inside.take(0, axis).any(), inside.take(-1, axis).any()
    length = inside.shape[axis]
    more = scipy.fft.next_fast_len(length, real=True) - length
    return (0, 0) if first and last else ((more, 0) if last else (0, more))


def _add_mixed_divergence(out: Array, source: Array, target: Array, edges: Inside) -> None:
    """Along the rows' axis: of two gradients the larger on `edges`, the target's on the others."""
    v = target[1:] - target[:-1]
    of_source = source[1:] - source[:-1]
    np.copyto(v, of_source, where=(np.abs(of_source) >= np.abs(v) - _TIE) & edges)
    out[:-1] += v
    out[1:] -= v


def _integrate(divergence: Array) -> Array:
    """A p with ``Laplacian(p) = divergence``, neighbours beyond the border dropped: closed form by DCT, mean 0."""
    import scipy.fft

    # A small transform is over before another thread has started.
    workers = _core.resolve_threads() if divergence.size >= 1 << 18 else 1
    rows, columns = (2 * np.cos(np.pi * np.arange(n) / n) - 2 for n in divergence.shape)
    spectrum: Array = scipy.fft.dctn(divergence, overwrite_x=True, workers=workers)
    eigenvalues = rows[:, None] + columns
    eigenvalues[0, 0] = 1
    spectrum /= eigenvalues
    spectrum[0, 0] = 0  # the constant, of which the divergence of an edge field has none
    p: Array = scipy.fft.idctn(spectrum, overwrite_x=True, workers=workers)
    return p
