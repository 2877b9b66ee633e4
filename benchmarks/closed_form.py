"""Write the generators that need no training, to compare trained ones with: closed-form colour regressions.

    python benchmarks/closed_form.py PROCESSES.pt AFFINE.pt [--image-size 128]

The first is gpgan's corrector without its networks: its Gaussian processes as they are initialised, trusted by half
each. The second is one affine map of the source's colours, 3 x 4, fitted to the surroundings with weights that fall
with the distance from the mask (at half the root of its area) and a ridge of 0.01, then cloned like any source.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from gpgan.nn.export import export
from gpgan.nn.model import ColorCorrector, dirichlet_correction, ridge_solve


class AffineRegression(nn.Module):
    """Poisson cloning of the source with the colours that one affine map gives it."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        n, size = mask.shape[0], mask.shape[2]
        # The distance in pixels: how many dilations by 3 x 3 it takes to come there.
        distance = torch.zeros_like(mask)
        reached = mask
        for _ in range(size // 2):
            reached = nnf.max_pool2d(reached, 3, 1, 1)
            distance = distance + (reached < 0.5).to(mask.dtype)
        reach = torch.sqrt(mask.sum((2, 3), keepdim=True)) / 2 + 1e-6
        weight = ((mask <= 0.25).to(mask.dtype) * torch.exp(-distance / reach) + 1e-9).flatten(2)
        weight = weight / weight.sum(2, keepdim=True)
        features = torch.cat([source, torch.ones_like(mask)], 1).flatten(2)
        ridge = 0.01 * torch.eye(4, dtype=mask.dtype, device=mask.device)
        weighted = features * weight
        wanted = (composite - source).flatten(2)
        found = ridge_solve(weighted @ features.transpose(1, 2) + ridge, weighted @ wanted.transpose(1, 2))
        change = (found.transpose(1, 2) @ features).view(n, 3, size, size)
        return torch.clamp(harmonized + dirichlet_correction(change, mask), 0, 1)


def processes(image_size: int) -> ColorCorrector:
    generator = ColorCorrector(image_size)
    with torch.no_grad():
        generator.eye[-1].weight.zero_()
        generator.eye[-1].bias.zero_()
    generator.lean(1)
    return generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("processes")
    parser.add_argument("affine")
    parser.add_argument("--image-size", type=int, default=128)
    said = parser.parse_args()
    for path, generator in (
        (said.processes, processes(said.image_size)),
        (said.affine, AffineRegression(said.image_size)),
    ):
        export(generator, path, image_size=said.image_size, architecture="closed-form", training_data="none")


if __name__ == "__main__":
    main()
