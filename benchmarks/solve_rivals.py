"""What others write for the closed form of one level, Eq. 9: X = (l U + lambda g C) / (l^2 + lambda g^2).

On planes (P, H, W), in the operations of a library of arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as nnf

from gpgan import reference

Planes = torch.Tensor


class Axis(NamedTuple):
    """Of N pixels, at k = 0 .. N."""

    laplacian: np.ndarray
    gaussian: np.ndarray
    rotation: np.ndarray  # exp(-i pi k / 2N)

    @classmethod
    def of(cls, n: int, sigma: float) -> Axis:
        k = np.arange(n + 1)
        kernel = reference.gaussian_kernel(sigma)
        x = np.arange(len(kernel)) - len(kernel) // 2
        gaussian = np.cos(np.pi * np.outer(k, x) / n) @ kernel
        return cls(4 * np.sin(np.pi * k / (2 * n)) ** 2, gaussian, np.exp(-0.5j * np.pi * k / n))


class TorchSolve:
    """With torch.fft alone: cosine transforms by real FFTs of as many points, in Makhoul's order.

    The real FFT at (k, j) and at (-k, j) holds the cosine coefficients at (k, j) and (H - k, j), in the real and the
    imaginary part of P, and at (k, W - j) and (H - k, W - j), in those of Q. They are divided right there.
    """

    def __init__(
        self,
        height: int,
        width: int,
        device: str,
        *,
        dtype: torch.dtype = torch.float32,
        color_weight: float = 1.0,
        sigma: float = 0.5,
    ) -> None:
        self.shape = (height, width)
        rows, columns = Axis.of(height, sigma), Axis.of(width, sigma)

        def order(n: int) -> torch.Tensor:
            return torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)]).to(device)

        def spectrum(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(dtype.to_complex()).to(device)

        self.rows, self.columns = order(height)[:, None], order(width)
        self.rows_back, self.columns_back = order(height).argsort()[:, None], order(width).argsort()
        self.mirrored = (-torch.arange(height) % height).to(device)
        self.a = spectrum(columns.rotation[: width // 2 + 1])
        self.b = spectrum(rows.rotation[:height, None])

        k, j = np.arange(height)[:, None], np.arange(width // 2 + 1)
        corners = [[(k, j), (height - k, j)], [(k, width - j), (height - k, width - j)]]  # of P, of Q

        def weights(of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> torch.Tensor:
            quotients = [
                [of(rows.laplacian[y] + columns.laplacian[x], rows.gaussian[y] * columns.gaussian[x]) for y, x in pair]
                for pair in corners
            ]
            return torch.from_numpy(np.stack([np.stack(pair, -1) for pair in quotients])[:, None]).to(dtype).to(device)

        def denominator(l: np.ndarray, g: np.ndarray) -> np.ndarray:  # noqa: E741 (the equation's own letter)
            return l**2 + color_weight * g**2

        self.of_divergence = weights(lambda l, g: l / denominator(l, g))  # noqa: E741
        self.of_color = weights(lambda l, g: color_weight * g / denominator(l, g))  # noqa: E741
        self.of_right_side = weights(lambda l, g: 1 / denominator(l, g))  # noqa: E741

    def __call__(self, divergence: Planes, color: Planes) -> Planes:
        both = self._forward(torch.cat([divergence, color]))
        u, c = both[:, : len(divergence)], both[:, len(divergence) :]
        return self._back(u * self.of_divergence + c * self.of_color)

    def from_right_side(self, b: Planes) -> Planes:
        """For L u + lambda G c, made beforehand: half of the forward transforms."""
        return self._back(self._forward(b) * self.of_right_side)

    def _forward(self, planes: Planes) -> torch.Tensor:
        near = self.a * torch.fft.rfft2(planes[:, self.rows, self.columns])
        far = near[:, self.mirrored].conj()
        return torch.view_as_real(torch.stack([self.b * (near + far), 1j * self.b * (near - far)]))

    def _back(self, coefficients: torch.Tensor) -> Planes:
        p, q = torch.view_as_complex(coefficients)
        spectrum = 0.5 * self.a.conj() * (self.b.conj() * (p - 1j * q))
        planes: Planes = torch.fft.irfft2(spectrum, s=self.shape)
        return planes[:, self.rows_back, self.columns_back]


class DctnSolve:
    """With a library that has dctn and idctn: cupyx.scipy.fft, or scipy.fft where `array` makes NumPy's."""

    def __init__(
        self, height: int, width: int, fft: Any, array: Callable[[np.ndarray], Any], sigma: float = 0.5
    ) -> None:
        l = reference.laplacian_eigenvalues((height, width))  # noqa: E741 (the equation's own letter)
        g = reference.gaussian_eigenvalues((height, width), sigma)
        self.fft = fft
        self.of_divergence, self.of_color = (array(x / (l**2 + g**2)) for x in (l, g))

    def __call__(self, divergence: Any, color: Any) -> Any:
        u, c = (self.fft.dctn(planes, axes=(1, 2)) for planes in (divergence, color))
        return self.fft.idctn(self.of_divergence * u + self.of_color * c, axes=(1, 2))


def right_side(divergence: Planes, color: Planes) -> Planes:
    """L u + G c, at lambda = 1 and sigma = 0.5."""

    def padded(planes: Planes) -> Planes:
        return nnf.pad(planes[None], (1, 1, 1, 1), mode="replicate")[0]

    u, c = padded(divergence), padded(color)
    around = u[:, :-2, 1:-1] + u[:, 2:, 1:-1] + u[:, 1:-1, :-2] + u[:, 1:-1, 2:]
    low, mid, high = reference.gaussian_kernel(0.5).tolist()
    c = low * c[:, :-2] + mid * c[:, 1:-1] + high * c[:, 2:]
    blurred = low * c[..., :-2] + mid * c[..., 1:-1] + high * c[..., 2:]
    result: Planes = 4 * divergence - around + blurred
    return result
