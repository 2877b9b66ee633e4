"""The networks: the paper's Blending GAN and critic, and the small colour corrector, the default.

Every generator follows one contract, ``forward(composite, mask, harmonized, source) -> colour``: float
tensors in [0, 1], `mask` of shape (N, 1, S, S) and all others (N, 3, S, S). Everything here passes through
`torch.jit.script`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

__all__ = ["BlendingGAN", "ColorCorrector", "Critic", "dirichlet_correction", "ridge_solve"]


def _dcgan_init(module: nn.Module) -> None:
    """Weights from N(0, 0.02), batch-norm gains from N(1, 0.02): what DCGAN and WGAN start from."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class BlendingGAN(nn.Module):
    """The paper's generator (Figure 3, section 4.2): an encoder-decoder with a fully connected bottleneck.

    Parameters
    ----------
    image_size : int
        S, a power of two, 16 at least; 64 in the paper. Each halving down to 4 is one 4x4 stride-2
        convolution.
    width : int
        Channels of the first convolution, doubled by each further one.
    bottleneck : int
        Units of the fully connected layer.
    """

    def __init__(self, image_size: int = 64, width: int = 64, bottleneck: int = 4000) -> None:
        super().__init__()
        _require_power_of_two(image_size, 16)
        self.image_size = image_size
        halvings = image_size.bit_length() - 3
        channels = [width << i for i in range(halvings)]

        encoder: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for fewer, more in pairwise(channels):
            encoder += [nn.Conv2d(fewer, more, 4, 2, 1, bias=False), nn.BatchNorm2d(more), nn.LeakyReLU(0.2)]
        last = channels[-1]
        encoder += [
            nn.Conv2d(last, bottleneck, 4, bias=False), nn.BatchNorm2d(bottleneck), nn.LeakyReLU(0.2)
        ]  # fmt: skip
        decoder: list[nn.Module] = [
            nn.ConvTranspose2d(bottleneck, last, 4, bias=False), nn.BatchNorm2d(last), nn.ReLU()
        ]  # fmt: skip
        for more, fewer in pairwise(channels[::-1]):
            decoder += [
                nn.ConvTranspose2d(more, fewer, 4, 2, 1, bias=False),
                nn.BatchNorm2d(fewer),
                nn.ReLU(),
            ]
        decoder += [nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh()]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)
        self.apply(_dcgan_init)

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        """Colour (N, 3, S, S) in [0, 1] for the plain `composite`; the other three are ignored."""
        colour: Tensor = self.decoder(self.encoder(composite * 2 - 1))
        return (colour + 1) / 2


class Critic(nn.Module):
    """The paper's critic (Figure 4): leaky ReLU on all layers but the last, batch norm not on the first."""

    def __init__(self, image_size: int = 64, width: int = 64) -> None:
        super().__init__()
        _require_power_of_two(image_size, 16)
        channels = [width << i for i in range(image_size.bit_length() - 3)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for fewer, more in pairwise(channels):
            layers += [nn.Conv2d(fewer, more, 4, 2, 1, bias=False), nn.BatchNorm2d(more), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(channels[-1], 1, 4, bias=False)]
        self.layers = nn.Sequential(*layers)
        self.apply(_dcgan_init)

    def forward(self, image: Tensor) -> Tensor:
        """Scores (N,), unbounded, for images (N, 3, S, S) in [0, 1]."""
        score: Tensor = self.layers(image * 2 - 1)
        return score.flatten()


def _require_power_of_two(image_size: int, least: int) -> None:
    if image_size < least or image_size & (image_size - 1):
        raise ValueError(f"image_size must be a power of two, {least} at least, but is {image_size}")


def ridge_solve(gram: Tensor, moment: Tensor) -> Tensor:
    """Solve the symmetric positive definite systems ``gram @ x = moment`` by Gauss-Jordan elimination.

    A loop of matrix products instead of `torch.linalg`, so that it exports to ONNX. Pivoting is not needed,
    as the ridge keeps the pivots away from zero.

    Parameters
    ----------
    gram : Tensor
        (N, D, D), positive definite.
    moment : Tensor
        (N, D, K).

    Returns
    -------
    Tensor
        (N, D, K).
    """
    unit = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    system = torch.cat([gram, moment], 2)
    for i in range(gram.shape[1]):
        row = system[:, i : i + 1] / system[:, i : i + 1, i : i + 1]
        system = system - (system[:, :, i : i + 1] - unit[:, i : i + 1]) @ row
    return system[:, :, gram.shape[1] :]


def _double(x: Tensor) -> Tensor:
    return nnf.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def dirichlet_correction(change: Tensor, mask: Tensor, sweeps: int = 4, last_sweeps: int = 2) -> Tensor:
    """What is left of `change` inside the mask once it must vanish at the mask's edge (Poisson cloning).

    It is ``change`` minus the harmonic extension of its own values on the edge: the fixed point of ``e = mask
    * (mean(e) + change - mean(change))`` with the mean over 3x3 pixels, found by a coarse-to-fine cascade of
    `sweeps` relaxations a level. Exactly 0 where the mask is 0; soft masks soften the edge.

    Parameters
    ----------
    change : Tensor
        (N, C, S, S), S divisible by 2 until it is at most 8.
    mask : Tensor
        (N, 1, S, S) in [0, 1].
    """
    changes = [change]
    masks = [mask]
    while changes[-1].shape[3] > 8:
        changes.append(nnf.avg_pool2d(changes[-1], 2))
        masks.append(nnf.avg_pool2d(masks[-1], 2))
    correction = torch.zeros_like(changes[-1])
    for level in range(len(changes) - 1, -1, -1):
        if level < len(changes) - 1:
            correction = _double(correction)
        detail = changes[level] - nnf.avg_pool2d(changes[level], 3, 1, 1, count_include_pad=False)
        for _ in range(sweeps if level else last_sweeps):
            correction = masks[level] * (nnf.avg_pool2d(correction, 3, 1, 1, count_include_pad=False) + detail)
    return correction


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return nnf.relu(x + self.layers(x))


def _down(fewer: int, more: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(fewer, more, 3, 2, 1, bias=False), nn.GroupNorm(8, more), nn.ReLU(), _Residual(more))


def _chroma(image: Tensor) -> Tensor:
    """Mean distance (N,) of the pixels from grey."""
    return torch.abs(image - image.mean(1, keepdim=True)).mean((1, 2, 3))


def _edge_correlation(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Correlation (N, 1) of what a 3x3 mean leaves of two images (N, C, H, W); weight (N, 1, H W)."""
    edges_a = (a - nnf.avg_pool2d(a, 3, 1, 1, count_include_pad=False)).flatten(2)
    edges_b = (b - nnf.avg_pool2d(b, 3, 1, 1, count_include_pad=False)).flatten(2)
    power = (edges_a**2 * weight).sum((1, 2)) * (edges_b**2 * weight).sum((1, 2))
    return ((edges_a * edges_b * weight).sum((1, 2)) / torch.sqrt(power + 1e-10)).unsqueeze(1)


class ColorCorrector(nn.Module):
    """The small generator: corrects the harmonized composite by what the surroundings say about the light.

    Outside the mask both photos are known, so the colour map from source to target can be estimated there.
    The network sorts the source's pixels into soft classes; each class gets its own affine map, all of them
    (and a shared quadratic term) fitted at once by one weighted ridge regression in closed form. A second
    network sees how well that explains the surroundings and says where to trust it, and adds a coarse grid of
    affine maps of its own. The change is made to vanish at the mask's edge like any Poisson cloning; deep
    inside, the network may also lean to the mapped source itself. Both last layers start at zero, where the
    result is `harmonized` exactly.

    Three things hold by construction: no change where the surroundings of source and target agree, no colour
    where neither photo has any, and no use of the fit where the surroundings show another place.

    Parameters
    ----------
    image_size : int
        S, a power of two, 32 at least.
    width : int
        Channels of the finest feature maps (32x32), a multiple of 8.
    classes : int
        Soft pixel classes with an affine map each.
    """

    def __init__(self, image_size: int = 128, width: int = 24, classes: int = 4) -> None:
        super().__init__()
        _require_power_of_two(image_size, 32)
        self.image_size = image_size
        self.pool = image_size // 32
        self.classes = classes
        self.sorter = nn.Sequential(  # dilated, so that a class may depend on what surrounds the pixel
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(16, classes, 3, padding=4, dilation=4),
        )  # fmt: skip
        self.log_ridge = nn.Parameter(torch.full((4 * classes + 3,), -7.0))
        self.log_reach = nn.Parameter(torch.tensor(0.7))
        self.log_outlier = nn.Parameter(torch.tensor(-2.0))
        self.stem = nn.Sequential(nn.Conv2d(21, width, 3, padding=1), nn.ReLU())
        self.down1 = _down(width, 2 * width)
        self.down2 = _down(2 * width, 3 * width)
        self.down3 = _down(3 * width, 4 * width)
        self.context = nn.Linear(4 * width, 4 * width)
        self.up3 = nn.Conv2d(7 * width, 3 * width, 3, padding=1)
        self.up2 = nn.Conv2d(5 * width, 2 * width, 3, padding=1)
        self.trust = nn.Conv2d(3 * width + 5, 2, 3, padding=1)
        self.affine = nn.Conv2d(2 * width, 12, 3, padding=1)
        for last in (self.trust, self.affine):
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def weights(self, mask: Tensor) -> Tensor:
        """Weights (N, 1, H W) of the regression: 0 in the mask, falling with the distance from it."""
        height, width = mask.shape[2:]
        y = torch.linspace(-1, 1, height, dtype=mask.dtype, device=mask.device).view(1, 1, height, 1)
        x = torch.linspace(-1, 1, width, dtype=mask.dtype, device=mask.device).view(1, 1, 1, width)
        inside = mask / (mask.sum((2, 3), keepdim=True) + 1e-6)
        dy = y - (y * inside).sum((2, 3), keepdim=True)
        dx = x - (x * inside).sum((2, 3), keepdim=True)
        # In units of the mask's own extent, so that a tall object looks further up than sideways.
        extent_y = (dy * dy * inside).sum((2, 3), keepdim=True) + 0.01
        extent_x = (dx * dx * inside).sum((2, 3), keepdim=True) + 0.01
        distance = torch.sqrt(dy * dy / extent_y + dx * dx / extent_x)
        # A pixel with a quarter of source says nothing about the target.
        known = torch.clamp(1 - 4 * mask, min=0.0)
        weight = known * torch.exp(-distance * torch.exp(self.log_reach) / 2) + 1e-6
        return (weight / weight.sum((2, 3), keepdim=True)).flatten(2)

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        """Colour (N, 3, S, S) in [0, 1]; equals `harmonized` wherever `mask` is 0."""
        small_mask = nnf.avg_pool2d(mask, self.pool)
        small_source = nnf.avg_pool2d(source, self.pool)
        small_composite = nnf.avg_pool2d(composite, self.pool)
        small_harmonized = nnf.avg_pool2d(harmonized, self.pool)
        n, _, height, width = small_mask.shape

        # Closed form: which change, affine in each class, makes the source's surroundings the target's?
        member = torch.softmax(self.sorter(small_source * 2 - 1), 1).unsqueeze(2)
        colour1 = torch.cat([small_source, torch.ones_like(small_mask)], 1)
        features = torch.cat([(member * colour1.unsqueeze(1)).flatten(1, 2), small_source * small_source], 1)
        features = features.flatten(2)
        wanted = (small_composite - small_source).flatten(2)
        weight = self.weights(small_mask)
        ridge = torch.diag(torch.exp(self.log_ridge))
        weighted = features * weight
        coefficients = ridge_solve(weighted @ features.mT + ridge, weighted @ wanted.mT)
        # Once more without what changed between the photos (people, clouds, lamps): Geman-McClure weights.
        misfit = ((wanted - coefficients.mT @ features) ** 2).sum(1, keepdim=True)
        scale = (misfit * weight).sum(2, keepdim=True) * torch.exp(self.log_outlier + 2) + 1e-4
        weighted = weighted / (1 + misfit / scale) ** 2
        coefficients = ridge_solve(weighted @ features.mT + ridge, weighted @ wanted.mT)
        estimate = coefficients.mT @ features

        # What tells matching surroundings from unrelated ones: the share of the target's variance that the
        # fit explains, and whether edges lie in the same places, before the fit and after it.
        misfit = (wanted - estimate) * (weight > 1e-5).to(weight.dtype)
        target = small_composite.flatten(2)
        spread = (target - (target * weight).sum(2, keepdim=True)) ** 2
        unexplained = (misfit**2 * weight).sum(2) / ((spread * weight).sum(2) + 1e-3)
        explained = torch.clamp(1 - unexplained, min=-1.0)
        clear = weight * (nnf.max_pool2d(small_mask, 3, 1, 1) == 0).to(weight.dtype).flatten(2)
        fitted_source = small_source + estimate.view(n, 3, height, width)
        alike = [_edge_correlation(x, small_composite, clear) for x in (small_source, fitted_source)]
        evidence = torch.cat([explained, alike[0], alike[1]], 1).view(n, 5, 1, 1).expand(n, 5, height, width)

        # Network: where to trust the fit, and what to add. 4 makes differences as large as colours.
        seen = [small_composite, small_mask, small_harmonized, small_source, evidence]
        seen += [4 * x.view(n, 3, height, width) for x in (estimate, misfit)]
        at32 = self.stem(torch.cat(seen, 1))
        at16 = self.down1(at32)
        at8 = self.down2(at16)
        at4 = self.down3(at8)
        at4 = at4 + self.context(at4.mean((2, 3))).unsqueeze(2).unsqueeze(3)
        at8 = nnf.relu(self.up3(torch.cat([at8, _double(at4)], 1)))
        at16 = nnf.relu(self.up2(torch.cat([at16, _double(at8)], 1)))
        both = self.trust(torch.cat([at32, _double(at16), evidence], 1))
        # Edges in other places are another place: no fit is worth anything then, and chance stays below 0.1.
        same_place = torch.clamp(4 * torch.maximum(alike[0], alike[1]) - 0.4, 0, 1).view(n, 1, 1, 1)
        deep_inside = torch.clamp(2 * nnf.avg_pool2d(small_mask, 3, 1, 1, count_include_pad=False) - 1, 0, 1)
        trust = same_place * torch.clamp(both[:, :1], -0.5, 1.5)
        pull = same_place * deep_inside * torch.clamp(both[:, 1:], -0.25, 1)
        own = _double(torch.tanh(self.affine(at16)))

        # Apply both to every pixel: change = (trust * A + own) (source, 1) + trust * Q source^2.
        per_class = coefficients[:, : 4 * self.classes].reshape(n, self.classes, 12)
        fitted = (per_class.mT @ member.flatten(1).view(n, self.classes, -1)).view(n, 4, 3, height, width)
        affine = trust * fitted.transpose(1, 2).reshape(n, 12, height, width) + own
        if self.pool > 1:
            affine = nnf.interpolate(affine, size=(self.image_size, self.image_size), mode="bilinear")
            trust = nnf.interpolate(trust, size=(self.image_size, self.image_size), mode="bilinear")
            pull = nnf.interpolate(pull, size=(self.image_size, self.image_size), mode="bilinear")
        affine = affine.view(n, 3, 4, self.image_size, self.image_size)
        quadratic = coefficients[:, 4 * self.classes :].mT @ (source * source).flatten(2)
        change = (affine[:, :, :3] * source.unsqueeze(1)).sum(2) + affine[:, :, 3]
        change = change + trust * quadratic.view(n, 3, self.image_size, self.image_size)

        # Guards: no change where the surroundings agree, no colour where there is none; open from 0.04 on.
        disagreement = (torch.abs(wanted) * weight).sum(2).mean(1).view(n, 1, 1, 1)
        chroma = (_chroma(small_source) + _chroma(small_composite)).view(n, 1, 1, 1)
        grey = change.mean(1, keepdim=True)
        change = (grey + torch.tanh(chroma * 50) * (change - grey)) * torch.tanh(disagreement * 50)

        # Cloning trusts the colours along the edge, the fit those of the whole surroundings; pull leans to the fit.
        colour = harmonized + dirichlet_correction(change, mask)
        colour = colour + pull * mask * (source + change - colour)
        return torch.clamp(colour, 0, 1)
