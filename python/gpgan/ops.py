"""The method's single operations, native or in float64.

Every function takes floating-point arrays (H, W) or (H, W, C) with any finite values, and masks (H, W) in [0, 1].
``impl="native"`` computes in float32 with the C++ core and returns float32; ``impl="reference"`` calls the function of
the same name in :mod:`gpgan.reference` and returns float64.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpgan import _core, _options

Array = npt.NDArray[Any]
Impl = Literal["native", "reference"]

__all__ = [
    "composite",
    "downsample",
    "extend",
    "gaussian_blur",
    "guidance_divergence",
    "inset",
    "membrane",
    "solve",
    "upsample",
]


def composite(source: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, *, impl: Impl = "native") -> Array:
    """Copy-and-paste: ``mask * source + (1 - mask) * target`` (Eq. 1).

    Parameters
    ----------
    source, target : array_like, shape (H, W) or (H, W, C)
    mask : array_like, shape (H, W), in [0, 1]
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, the shape of `target`

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of finite floats of the fitting shape.
    """
    return _three("composite", source, target, mask, impl)


def guidance_divergence(
    source: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, *, impl: Impl = "native"
) -> Array:
    """Negative divergence ``u = -div v`` of the mixed gradients (Eq. 8).

    Parameters and errors are those of :func:`composite`.

    Returns
    -------
    ndarray, the shape of `target`; equal to L x (L the negative Laplacian) where v is the gradient of an image x
    """
    return _three("guidance_divergence", source, target, mask, impl)


def membrane(source: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, *, impl: Impl = "native") -> Array:
    """The harmonic membrane w: ``Laplacian(w) = 0`` where the mask is above 0, ``w = target - source`` elsewhere.

    Parameters and errors are those of :func:`composite`. The native solver is iterative: within 1/255 of the exact
    solution everywhere and 0.1/255 in the mean.

    Returns
    -------
    ndarray, the shape of `target`; 0 where the masked region has no boundary
    """
    return _three("membrane", source, target, mask, impl)


def gaussian_blur(image: npt.ArrayLike, sigma: float = 0.5, *, impl: Impl = "native") -> Array:
    """G: separable Gaussian with half-sample symmetric borders, 3 taps for ``sigma <= 0.5``.

    Parameters
    ----------
    image : array_like, shape (H, W) or (H, W, C)
    sigma : float, default 0.5
        In pixels, above 0 and up to 1000.
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, the shape of `image`

    Raises
    ------
    TypeError, ValueError
        If `image` is no array of finite floats, or `sigma` out of range.
    """
    x = _floats("image", image)
    return _call("gaussian_blur", impl, x, sigma=_options.positive("sigma", sigma, 1000))


def solve(
    divergence: npt.ArrayLike,
    color: npt.ArrayLike,
    *,
    color_weight: float = 1.0,
    sigma: float = 0.5,
    equation: str = "gaussian-poisson",
    impl: Impl = "native",
) -> Array:
    """The closed-form solution of the Gaussian-Poisson equation (Eq. 9) on one level, not clamped.

    Parameters
    ----------
    divergence : array_like, shape (H, W) or (H, W, C)
        u, from :func:`guidance_divergence`.
    color : array_like, the shape of `divergence`
        c, the colour constraint.
    color_weight : float, default 1.0
        lambda, above 0.
    sigma : float, default 0.5
        Of the Gaussian on the colour, in pixels, above 0 and up to 1000.
    equation : {"gaussian-poisson", "screened"}
        ``|u - L x|^2 + lambda |G x - c|^2`` minimised, or ``(L + lambda G) x = u + lambda c``.
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, the shape of `divergence`

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of finite floats of the fitting shape, or out of its range.
    """
    u, c = _floats("divergence", divergence), _floats("color", color)
    if u.shape != c.shape:
        raise ValueError(f"color: expected the divergence's shape {u.shape}, got {c.shape}")
    weight, sigma = _options.positive("color_weight", color_weight, 1e30), _options.positive("sigma", sigma, 1000)
    if equation not in ("gaussian-poisson", "screened"):
        raise ValueError(f"equation: expected 'gaussian-poisson' or 'screened', got {equation!r}")
    if _is_native(impl):
        return _core.solve(u, c, weight, sigma, equation == "screened")
    return _call("solve", impl, u, c, color_weight=weight, sigma=sigma, equation=equation)


def downsample(image: npt.ArrayLike, *, impl: Impl = "native") -> Array:
    """One level of the pyramid down: binomial [1 3 3 1] / 8, to ``ceil(N / 2)``.

    Parameters
    ----------
    image : array_like, shape (H, W) or (H, W, C)
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, shape (ceil(H / 2), ceil(W / 2)) or (ceil(H / 2), ceil(W / 2), C)

    Raises
    ------
    TypeError, ValueError
        If `image` is no array of finite floats.
    """
    x = _floats("image", image)
    if _is_native(impl):
        return _core.downsample(x, ((x.shape[0] + 1) // 2, (x.shape[1] + 1) // 2))
    return _call("downsample", impl, x)


def upsample(image: npt.ArrayLike, shape: tuple[int, int], *, impl: Impl = "native") -> Array:
    """One level of the pyramid up: Keys' bicubic (a = -0.5) at its two phases.

    Parameters
    ----------
    image : array_like, shape (h, w) or (h, w, C)
    shape : (H, W)
        2h or 2h - 1, and 2w or 2w - 1.
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, shape (H, W) or (H, W, C)

    Raises
    ------
    TypeError, ValueError
        If `image` is no array of finite floats, or not one level below `shape`.
    """
    x = _floats("image", image)
    try:
        height, width = (_options.of_type("shape", n, int) for n in shape)
    except (TypeError, ValueError):
        raise TypeError(f"shape: expected two integers (H, W), got {shape!r}") from None
    if ((height + 1) // 2, (width + 1) // 2) != x.shape[:2] or min(height, width) < 1:
        raise ValueError(f"shape: expected twice the image's {x.shape[:2]}, or one less, got {(height, width)}")
    return _call("upsample", impl, x, shape=(height, width))


def inset(mask: npt.ArrayLike, pixels: int, *, impl: Impl = "native") -> Array:
    """Erode a mask by so many steps of the minimum over 4-neighbours; components that would vanish stay.

    Parameters
    ----------
    mask : array_like, shape (H, W)
    pixels : int
        0 or more.
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, shape (H, W)

    Raises
    ------
    TypeError, ValueError
        If `mask` is no array (H, W) of finite floats, or `pixels` below 0.
    """
    m = _floats("mask", mask)
    if m.ndim != 2:
        raise ValueError(f"mask: expected shape (H, W), got {m.shape}")
    pixels = _options.of_type("pixels", pixels, int)
    if not 0 <= pixels <= 1 << 20:
        raise ValueError(f"pixels: expected 0 to {1 << 20}, got {pixels}")
    return _call("inset", impl, m, pixels=pixels)


def extend(source: npt.ArrayLike, alpha: npt.ArrayLike, *, impl: Impl = "native") -> Array:
    """Fill the pixels with ``alpha == 0`` from the others, smoothly, by push-pull.

    Parameters
    ----------
    source : array_like, shape (H, W, C)
    alpha : array_like, shape (H, W)
    impl : {"native", "reference"}

    Returns
    -------
    ndarray, shape (H, W, C)

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of finite floats of the fitting shape.
    """
    s, a = _floats("source", source), _floats("alpha", alpha)
    if s.ndim != 3 or a.shape != s.shape[:2]:
        raise ValueError(f"alpha: expected (H, W) of a source (H, W, C), got {a.shape} and {s.shape}")
    return _call("extend", impl, s, alpha=a)


def _three(name: str, source: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, impl: Impl) -> Array:
    s, t, m = _floats("source", source), _floats("target", target), _floats("mask", mask)
    if s.shape != t.shape:
        raise ValueError(f"source: expected the target's shape {t.shape}, got {s.shape}")
    if m.shape != t.shape[:2]:
        raise ValueError(f"mask: expected the target's height and width {t.shape[:2]}, got {m.shape}")
    return _call(name, impl, s, t, mask=m)


def _call(name: str, impl: Impl, *args: Any, **options: Any) -> Array:
    module = _core if _is_native(impl) else importlib.import_module("gpgan.reference")
    result: Array = getattr(module, name)(*args, **options)
    return result


def _is_native(impl: str) -> bool:
    if impl not in ("native", "reference"):
        raise ValueError(f"impl: expected 'native' or 'reference', got {impl!r}")
    return impl == "native"


def _floats(argument: str, value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "bf":
        raise TypeError(f"{argument}: expected floating-point values, got {array.dtype}")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"{argument}: expected (H, W) or (H, W, C), not empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{argument}: expected finite values, got NaN or infinity")
    if array.size and np.abs(array).max() > np.finfo(np.float32).max:
        raise ValueError(f"{argument}: expected values that float32 can hold, got {np.abs(array).max():g}")
    return array.astype(np.float64, copy=False)
