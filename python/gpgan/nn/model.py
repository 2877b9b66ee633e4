"""The networks: the paper's Blending GAN and critic, and the small colour corrector, the default.

Every generator follows one contract, ``forward(composite, mask, harmonized, source) -> colour``: float
tensors in [0, 1], `mask` of shape (N, 1, S, S) and all others (N, 3, S, S). Everything here passes through
`torch.jit.script`, and the generators through ONNX export too, which knows neither `diag` nor `mT`.
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


def _window(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length (N, 1) in [0, 1] of what is looked at, about three times as long as the mask is.

    `profile` (N, S) is the mask summed across the axis. The window lies within the image.
    """
    size = profile.shape[1]
    at = (torch.arange(size, dtype=profile.dtype, device=profile.device) + 0.5) / size
    share = profile / (profile.sum(1, keepdim=True) + 1e-6)
    centre = (share * at).sum(1, keepdim=True)
    deviation = torch.sqrt((share * (at - centre) ** 2).sum(1, keepdim=True) + 1e-6)
    length = torch.clamp(10 * deviation + 0.1, max=1.0)
    return torch.minimum(torch.clamp(centre - length / 2, min=0.0), 1 - length), length


def _average(start: Tensor, length: Tensor, cells: int, size: int) -> Tensor:
    """(N, 1, cells, size): area averages of `size` pixels over the equal `cells` of a window."""
    edges = torch.arange(cells + 1, dtype=start.dtype, device=start.device) / cells
    edges = ((start + length * edges) * size).unsqueeze(2)
    low, high = edges[:, :-1], edges[:, 1:]
    pixel = torch.arange(size, dtype=start.dtype, device=start.device)
    overlap = torch.clamp(torch.minimum(high, pixel + 1) - torch.maximum(low, pixel), min=0.0)
    return (overlap / (high - low)).unsqueeze(1)


def _interpolate(start: Tensor, length: Tensor, cells: int, size: int) -> Tensor:
    """(N, 1, size, cells): back from the window's cells to the pixels, linearly, the last cell beyond it."""
    pixel = (torch.arange(size, dtype=start.dtype, device=start.device) + 0.5) / size
    at = torch.clamp((pixel - start) / length * cells - 0.5, 0.0, cells - 1.0).unsqueeze(2)
    return torch.clamp(
        1 - torch.abs(at - torch.arange(cells, dtype=start.dtype, device=start.device)), min=0.0
    ).unsqueeze(1)


def _place(position: Tensor, length: Tensor, inside: Tensor, cell: Tensor) -> Tensor:
    """(N, 2, cells): where the cells of the window and of the whole picture are, along one axis.

    From the middle of the mask and in units of its deviation. `position` (N, cells) of the window's cells, `length`
    (N, 1) of the window, `inside` (N, cells) the mask's share of each, `cell` (cells,) of the whole picture's.
    """
    middle = (position * inside).sum(1, keepdim=True)
    extent = torch.sqrt((inside * (position - middle) ** 2).sum(1, keepdim=True) + (0.035 * length) ** 2)
    return torch.stack([(position - middle) / extent, (cell - middle) / extent], 1)


def _powers(color: Tensor) -> Tensor:
    """(N, 10, P): the monomials up to the second degree of colours (N, 3, P), around mid-grey."""
    x = color - 0.5
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return torch.cat([x, x * x, red * green, green * blue, red * blue, torch.ones_like(red)], 1)


def _radial(centre: Tensor, where: Tensor) -> Tensor:
    """(N, M, P): exp(-|a - b|^2 / 2) of centres (N, M, D) and places (N, D, P)."""
    apart = centre @ where - ((centre * centre).sum(2, keepdim=True) + (where * where).sum(1, keepdim=True)) / 2
    return torch.exp(torch.clamp(apart, max=0.0))


class ColorCorrector(nn.Module):
    """The small generator: corrects the harmonized composite by what the surroundings say about the light.

    Outside the mask both photos are known, so how the target's colours differ from the source's can be learned there,
    from the picture itself: two Gaussian processes in closed form give the change as a function of the source's colour
    (quadratic, and a radial kernel over colour, place and what a small network sees there). One learns from a window
    around the mask, the other from the whole picture. A second network sees how well they explain the surroundings,
    says where to trust which, and adds a coarse grid of affine maps of its own. The change is made to vanish at the
    mask's edge like any Poisson cloning; deep inside, the network may also lean to the changed source itself. Both last
    layers start at zero, where the result is `harmonized` exactly.

    The window is about three times as large as the mask, and of 32x32 cells like the whole picture, so that small
    objects are seen as well as large ones, whatever S is.

    Three things hold by construction: no change where the surroundings of source and target agree, no colour
    where neither photo has any, and no use of the processes where the surroundings show another place.

    Parameters
    ----------
    image_size : int
        S, a power of two, 32 at least.
    width : int
        Channels of the finest feature maps (32x32), a multiple of 8.
    """

    def __init__(self, image_size: int = 128, width: int = 16) -> None:
        super().__init__()
        _require_power_of_two(image_size, 32)
        self.image_size = image_size
        self.cells = 32
        self.centres = 8  # a side: the places of the radial kernels
        self.powers = 10  # monomials of the colour up to the second degree
        self.eye = nn.Sequential(  # dilated, as what a thing is depends on what surrounds it
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(16, 6, 3, padding=4, dilation=4),
        )  # fmt: skip
        # Of each process: the near one, the far one.
        self.log_ridge = nn.Parameter(torch.full((2, self.powers), -6.0))
        self.log_smoothness = nn.Parameter(torch.full((2,), -4.0))
        self.log_reach = nn.Parameter(torch.tensor([0.5, -0.3]))
        self.log_color = nn.Parameter(torch.full((2,), -1.9))
        self.log_distance = nn.Parameter(torch.tensor([0.5, 1.5]))
        self.stem = nn.Sequential(nn.Conv2d(36, width, 3, padding=1), nn.ReLU())
        self.down1 = _down(width, 2 * width)
        self.down2 = _down(2 * width, 3 * width)
        self.down3 = _down(3 * width, 4 * width)
        self.context = nn.Linear(4 * width, 4 * width)
        self.up3 = nn.Conv2d(7 * width, 3 * width, 3, padding=1)
        self.up2 = nn.Conv2d(5 * width, 2 * width, 3, padding=1)
        self.trust = nn.Conv2d(3 * width, 3, 3, padding=1)
        self.affine = nn.Conv2d(2 * width, 12, 3, padding=1)
        for last in (self.trust, self.affine):
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def lean(self, share: float) -> None:
        """Move the trust in the two processes by `share` of the way, from 0 to 1, towards one half in each.

        A loss that counts what is lost twice makes the network timid; on places that it has not seen equal trust does
        better than its own.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], but is {share}")
        assert self.trust.bias is not None
        with torch.no_grad():
            self.trust.weight[:2] *= 1 - share
            self.trust.bias[:2] = (1 - share) * self.trust.bias[:2] + share / 2

    def where(self, source: Tensor, place: Tensor) -> Tensor:
        """What the radial kernels compare (N, 2, 11, 32, 32) of cells (N, 2, 3, 32, 32) at places (N, 2, 2, 32, 32)."""
        n, cells = source.shape[0], self.cells
        narrow = torch.exp(-self.log_color).view(1, 2, 1, 1, 1)
        near = torch.exp(-self.log_distance).view(1, 2, 1, 1, 1)
        seen = torch.tanh(self.eye(source.flatten(0, 1) * 2 - 1)).view(n, 2, 6, cells, cells)
        return torch.cat([source * narrow, place * near, seen], 2)

    def fit(
        self, source: Tensor, change: Tensor, weight: Tensor, place: Tensor, at: Tensor, at_place: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Two Gaussian processes that give `change` as a function of the source's colour and place.

        Parameters
        ----------
        source, change : Tensor
            (N, 2, 3, 32, 32), what each process learns from.
        weight : Tensor
            (N, 2, 1024), of each cell as an observation; they sum to 1.
        place, at_place : Tensor
            (N, 2, 2, 32, 32), in units of the mask's extent.
        at : Tensor
            (N, 2, 3, 32, 32), the source where the processes are asked.

        Returns
        -------
        learned : Tensor
            (N, 2, 3, 1024), the mean of each process where it learned.
        estimate : Tensor
            (N, 2, 3, 1024), its mean where it is asked.
        slope : Tensor
            (N, 2, 3, 3, 1024), its derivative there: of channel (third axis) by the source's colour (fourth).
        """
        n, cells = weight.shape[0], weight.shape[2]
        known = self.where(source, place).flatten(0, 1)
        asked = self.where(at, at_place).flatten(0, 1).flatten(2)
        centre = nnf.avg_pool2d(known, self.cells // self.centres).flatten(2).transpose(1, 2)
        features = torch.cat([_powers(source.flatten(0, 1).flatten(2)), _radial(centre, known.flatten(2))], 1)
        kernel = _radial(centre, asked)

        # Ridge regression on the monomials, and on the kernels with their own Gram matrix as the prior (the subset-of-
        # regressors approximation of a Gaussian process).
        count = centre.shape[1]
        unit = torch.eye(self.powers + count, dtype=centre.dtype, device=centre.device)
        smoothness = torch.exp(self.log_smoothness).unsqueeze(1)
        ridge = torch.cat([torch.exp(self.log_ridge), smoothness.expand(2, count) / 100], 1).unsqueeze(2) * unit
        among = nnf.pad(_radial(centre, centre.transpose(1, 2)), [self.powers, 0, self.powers, 0])
        prior = among.view(n, 2, -1) * smoothness + ridge.flatten(1)
        weighted = features * weight.reshape(2 * n, 1, cells)
        gram = weighted @ features.transpose(1, 2) + prior.view(2 * n, self.powers + count, self.powers + count)
        wanted = change.flatten(0, 1).flatten(2)
        found = ridge_solve(gram, weighted @ wanted.transpose(1, 2)).transpose(1, 2)  # (2 N, 3, powers + count)
        plain, radial = found[:, :, : self.powers], found[:, :, self.powers :]

        color = at.flatten(0, 1).flatten(2)
        estimate = plain @ _powers(color) + radial @ kernel
        # The derivative of the monomials and of the kernels.
        a, x = plain.unsqueeze(3), (color - 0.5).unsqueeze(1)
        r, g, b = x[:, :, 0], x[:, :, 1], x[:, :, 2]
        slope = torch.stack(
            [
                a[:, :, 0] + 2 * a[:, :, 3] * r + a[:, :, 6] * g + a[:, :, 8] * b,
                a[:, :, 1] + 2 * a[:, :, 4] * g + a[:, :, 6] * r + a[:, :, 7] * b,
                a[:, :, 2] + 2 * a[:, :, 5] * b + a[:, :, 7] * g + a[:, :, 8] * r,
            ],
            2,
        )  # fmt: skip
        toward = (radial.unsqueeze(2) * centre[:, :, :3].transpose(1, 2).unsqueeze(1)).flatten(1, 2) @ kernel
        away = (radial @ kernel).unsqueeze(2) * asked[:, :3].unsqueeze(1)
        scale = torch.exp(-self.log_color).view(1, 2, 1, 1, 1)
        slope = slope.view(n, 2, 3, 3, cells) + (toward.view(2 * n, 3, 3, cells) - away).view(n, 2, 3, 3, cells) * scale
        return (found @ features).view(n, 2, 3, cells), estimate.view(n, 2, 3, cells), slope

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        """Colour (N, 3, S, S) in [0, 1]; equals `harmonized` wherever `mask` is 0."""
        n, cells, size = mask.shape[0], self.cells, mask.shape[2]
        whole = torch.cat([composite, mask, harmonized, source], 1)
        top, height = _window(mask.sum(3).squeeze(1))
        left, width = _window(mask.sum(2).squeeze(1))
        near = _average(top, height, cells, size) @ whole @ _average(left, width, cells, size).transpose(2, 3)
        c, m, h, s = near[:, 0:3], near[:, 3:4], near[:, 4:7], near[:, 7:10]

        # What is known: the window and the whole picture. Where their cells are, from the middle of the mask and in
        # units of its extent, and what they weigh as observations: 0 in the mask, less with the distance. A cell with a
        # quarter of source says nothing.
        views = torch.stack([near, nnf.avg_pool2d(whole, size // cells)], 1)
        targets, sources = views[:, :, 0:3], views[:, :, 7:10]
        inside = m / (m.sum((2, 3), keepdim=True) + 1e-6)
        cell = (torch.arange(cells, dtype=m.dtype, device=m.device) + 0.5) / cells
        y = _place(top + height * cell, height, inside.sum(3).squeeze(1), cell).unsqueeze(3).expand(n, 2, cells, cells)
        x = _place(left + width * cell, width, inside.sum(2).squeeze(1), cell).unsqueeze(2).expand(n, 2, cells, cells)
        place = torch.stack([y, x], 2)
        known = torch.clamp(1 - 4 * views[:, :, 3].flatten(2), min=0.0)
        distance = torch.sqrt((place * place).sum(2)).flatten(2)
        weight = known * torch.exp(-distance * torch.exp(self.log_reach).view(1, 2, 1) / 2) + 1e-6
        weight = weight / weight.sum(2, keepdim=True)

        at = s.unsqueeze(1).expand(n, 2, 3, cells, cells)
        at_place = place[:, :1].expand(n, 2, 2, cells, cells)
        learned, estimate, slope = self.fit(sources, targets - sources, weight, place, at, at_place)

        # What tells matching surroundings from unrelated ones: the share of the target's variance that a process
        # explains, what it leaves, and whether edges lie in the same places, as they are and once the source has the
        # target's colours as well as one affine map can give them. (The processes could draw edges of their own.)
        w = weight.unsqueeze(2)
        target = targets.flatten(3)
        left_over = (((target - sources.flatten(3) - learned) ** 2) * w).sum((2, 3))
        spread = (((target - (target * w).sum(3, keepdim=True)) ** 2) * w).sum((2, 3))
        explained = torch.clamp(1 - left_over / (spread + 1e-3), min=-1.0)
        color = torch.cat([sources, torch.ones_like(sources[:, :, :1])], 2).flatten(0, 1).flatten(2)
        weighted = color * weight.reshape(2 * n, 1, -1)
        ridge = 1e-3 * torch.eye(4, dtype=m.dtype, device=m.device)
        plain = ridge_solve(weighted @ color.transpose(1, 2) + ridge, weighted @ target.flatten(0, 1).transpose(1, 2))
        recolored = (plain.transpose(1, 2) @ color).view(2 * n, 3, cells, cells)
        masks = views[:, :, 3:4].flatten(0, 1)
        clear = weight.reshape(2 * n, 1, -1) * (nnf.max_pool2d(masks, 3, 1, 1) == 0).to(m.dtype).flatten(2)
        alike = [
            _edge_correlation(image, targets.flatten(0, 1), clear).view(n, 2)
            for image in (sources.flatten(0, 1), recolored)
        ]
        evidence = torch.cat([explained, 4 * torch.sqrt(left_over + 1e-6), alike[0], alike[1]], 1)
        evidence = evidence.view(n, 8, 1, 1).expand(n, 8, cells, cells)

        # Network: where to trust which process, and what to add. 4 makes differences as large as colours.
        misfit = ((c - s).flatten(2).unsqueeze(1) - estimate) * (known[:, :1] > 0).to(m.dtype).unsqueeze(2)
        seam = ((h - s).flatten(2).unsqueeze(1) - estimate) * m.flatten(2).unsqueeze(1)
        shown = [c, m, h, s, evidence]
        shown += [4 * each.reshape(n, 6, cells, cells) for each in (estimate, misfit, seam)]
        at32 = self.stem(torch.cat(shown, 1))
        at16 = self.down1(at32)
        at8 = self.down2(at16)
        at4 = self.down3(at8)
        at4 = at4 + self.context(at4.mean((2, 3))).unsqueeze(2).unsqueeze(3)
        at8 = nnf.relu(self.up3(torch.cat([at8, _double(at4)], 1)))
        at16 = nnf.relu(self.up2(torch.cat([at16, _double(at8)], 1)))
        both = self.trust(torch.cat([at32, _double(at16)], 1))
        # Edges in other places are another place: no process is worth anything then, and chance stays below 0.1.
        same_place = torch.clamp(4 * torch.maximum(alike[0], alike[1]).amax(1) - 0.4, 0, 1).view(n, 1, 1, 1)
        trust = (same_place * torch.clamp(both[:, :2], -0.5, 1.5)).flatten(2).unsqueeze(2)
        pull = same_place * torch.clamp(both[:, 2:], -0.25, 1.0)
        own = _double(torch.tanh(self.affine(at16)))

        # To every pixel: the estimate of its cell, and the slope for how its colour differs from the cell's.
        matrix = (slope * trust.unsqueeze(3)).sum(1).view(n, 3, 3, cells, cells)
        offset = (estimate * trust).sum(1).view(n, 3, cells, cells) - (matrix * s.unsqueeze(1)).sum(2)
        maps = torch.cat([matrix.flatten(1, 2) + own[:, :9], offset + own[:, 9:], pull], 1)
        maps = _interpolate(top, height, cells, size) @ maps @ _interpolate(left, width, cells, size).transpose(2, 3)
        change = (maps[:, :9].view(n, 3, 3, size, size) * source.unsqueeze(1)).sum(2) + maps[:, 9:12]

        # Guards: no change where the surroundings agree, no colour where there is none; open from 0.04 on.
        disagreement = (torch.abs(targets - sources).flatten(3) * w).sum(3).mean((1, 2)).view(n, 1, 1, 1)
        chroma = (_chroma(s) + _chroma(c)).view(n, 1, 1, 1)
        grey = change.mean(1, keepdim=True)
        change = (grey + torch.tanh(chroma * 50) * (change - grey)) * torch.tanh(disagreement * 50)

        # Cloning trusts the colours along the edge, the processes those of the surroundings; pull leans to these.
        colour = harmonized + dirichlet_correction(change, mask)
        colour = colour + maps[:, 12:13] * mask * (source + change - colour)
        return torch.clamp(colour, 0, 1)
