"""The networks: the paper's Blending GAN and critic, and the small colour corrector, the default.

Every generator follows one contract, ``forward(composite, mask, harmonized, source) -> colour``: float
tensors in [0, 1], `mask` of shape (N, 1, S, S) and all others (N, 3, S, S). Everything here passes through
`torch.jit.script`, and the generators through ONNX export too, which knows neither `diag` nor `mT`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]
from torch.nn import functional as nnf

from gpgan.nn import _inference

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
    if is_scripting():
        return _inference.ridge_solve(gram, moment)
    unit = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    system = torch.cat([gram, moment], 2)
    for i in range(gram.shape[1]):
        row = system[:, i : i + 1] / system[:, i : i + 1, i : i + 1]
        system = system - (system[:, :, i : i + 1] - unit[:, i : i + 1]) @ row
    return system[:, :, gram.shape[1] :]


def _double(x: Tensor) -> Tensor:
    if is_scripting():
        return _inference.double(x)
    return nnf.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _for_layers(x: Tensor) -> Tensor:
    """The input of convolutions, in the layout that they are fastest with."""
    if is_scripting():
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _mean3(x: Tensor) -> Tensor:
    """The mean over 3x3 pixels, of those that there are at the borders."""
    if is_scripting():
        return _inference.mean3(x)
    return nnf.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


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
    if is_scripting():
        return _inference.dirichlet_correction(change, mask, sweeps, last_sweeps)
    changes = [change]
    masks = [mask]
    while changes[-1].shape[3] > 8:
        changes.append(nnf.avg_pool2d(changes[-1], 2))
        masks.append(nnf.avg_pool2d(masks[-1], 2))
    correction = torch.zeros_like(changes[-1])
    for level in range(len(changes) - 1, -1, -1):
        if level < len(changes) - 1:
            correction = _double(correction)
        detail = changes[level] - _mean3(changes[level])
        for _ in range(sweeps if level else last_sweeps):
            correction = masks[level] * (_mean3(correction) + detail)
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


def _resample(image: Tensor, along: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, P, P): images times the matrices (2 N, 1, P, H) of their rows, then of their columns."""
    n, channels, height, width = image.shape
    rows, columns = along[:n], along[n:].squeeze(1)
    image = (image.reshape(n, channels * height, width) @ columns.transpose(1, 2)).view(n, channels, height, -1)
    return rows @ image


def _shrink(image: Tensor, factor: int) -> Tensor:
    """Area averages of square blocks of pixels."""
    if is_scripting():
        return _inference.shrink(image, factor)
    return nnf.avg_pool2d(image, factor)


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
    if is_scripting():
        return _inference.radial(centre, where)
    apart = centre @ where - ((centre * centre).sum(2, keepdim=True) + (where * where).sum(1, keepdim=True)) / 2
    return torch.exp(torch.clamp(apart, max=0.0))


def _with_third(pair: Tensor, which: int) -> Tensor:
    """(N, 3, ...): a pair (N, 2, ...) and one of the two again."""
    return torch.cat([pair, pair[:, which : which + 1]], 1)


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
        """What the radial kernels compare (N, 3, 11, 32, 32).

        Of the near process in its cells, of the far one in its own and of the far one in the near one's. `source` and
        `place` (N, 2, 3 or 2, 32, 32) are of the cells of each process.
        """
        n, cells = source.shape[0], self.cells
        seen = torch.tanh(self.eye(_for_layers(source.flatten(0, 1) * 2 - 1))).reshape(n, 2, 6, cells, cells)
        narrow, near = torch.exp(-self.log_color).unsqueeze(1), torch.exp(-self.log_distance).unsqueeze(1)
        scale = torch.cat([narrow.expand(2, 3), near.expand(2, 2), torch.ones_like(narrow).expand(2, 6)], 1)
        each = torch.cat([source, place, seen], 2)
        return _with_third(each, 0) * _with_third(scale.unsqueeze(0), 1).unsqueeze(3).unsqueeze(4)

    def fit(self, source: Tensor, change: Tensor, weight: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two Gaussian processes that give `change` as a function of the source's colour and place.

        Both are asked in the cells that the first one learns from.

        Parameters
        ----------
        source, change : Tensor
            (N, 2, 3, 32, 32), what each process learns from.
        weight : Tensor
            (N, 2, 1024), of each cell as an observation; they sum to 1.
        place : Tensor
            (N, 2, 2, 32, 32), in units of the mask's extent.

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
        count, size = self.centres * self.centres, self.powers + self.centres * self.centres
        known = self.where(source, place)
        centre = nnf.avg_pool2d(known[:, :2].flatten(0, 1), self.cells // self.centres)
        centre = centre.flatten(2).transpose(1, 2).view(n, 2, count, -1)
        known = known.flatten(3)
        kernel = _radial(_with_third(centre, 1).flatten(0, 1), known.flatten(0, 1)).view(n, 3, count, cells)
        powers = _powers(source.flatten(0, 1).flatten(2)).view(n, 2, self.powers, cells)
        features = torch.cat([_with_third(powers, 0), kernel], 2)  # (N, 3, powers + count, 1024)

        # Ridge regression on the monomials, and on the kernels with their own Gram matrix as the prior (the subset-of-
        # regressors approximation of a Gaussian process).
        unit = torch.eye(size, dtype=centre.dtype, device=centre.device)
        smoothness = torch.exp(self.log_smoothness).view(2, 1, 1)
        ridge = torch.cat([torch.exp(self.log_ridge), smoothness.squeeze(2).expand(2, count) / 100], 1)
        flat = centre.flatten(0, 1)
        among = _radial(flat, flat.transpose(1, 2)).view(n, 2, count, count) * smoothness
        prior = nnf.pad(among, [self.powers, 0, self.powers, 0]) + ridge.unsqueeze(2) * unit
        weighted = features[:, :2] * weight.unsqueeze(2)
        gram = weighted @ features[:, :2].transpose(2, 3) + prior
        moment = weighted @ change.flatten(3).transpose(2, 3)
        found = ridge_solve(gram.flatten(0, 1), moment.flatten(0, 1)).transpose(1, 2).view(n, 2, 3, size)
        plain, radial = found[:, :, :, : self.powers], found[:, :, :, self.powers :]

        # The derivative of the monomials is linear in the colour, and so in them; that of a kernel is the kernel times
        # the way to its centre, of which the second part is left for later.
        r, g, b, rr, gg, bb, rg, gb, rb = [plain[:, :, :, i : i + 1] for i in range(9)]
        none = torch.zeros_like(r)
        by_color = torch.stack(
            [
                torch.cat([2 * rr, rg, rb, none, none, none, none, none, none, r], 3),
                torch.cat([rg, 2 * gg, gb, none, none, none, none, none, none, g], 3),
                torch.cat([rb, gb, 2 * bb, none, none, none, none, none, none, b], 3),
            ],
            3,
        )  # (N, 2, 3, 3, powers)
        narrow = torch.exp(-self.log_color).view(1, 2, 1, 1, 1)
        toward = radial.unsqueeze(3) * (centre[:, :, :, :3].transpose(2, 3).unsqueeze(2) * narrow)
        slopes = torch.cat([by_color, toward], 4).flatten(2, 3)
        kernels = torch.cat([torch.zeros_like(plain), radial], 3)
        asked = torch.cat([found, kernels, slopes], 2) @ features[:, ::2]  # (N, 2, 3 + 3 + 9, 1024)
        learned = torch.stack([asked[:, 0, :3], found[:, 1] @ features[:, 1]], 1)
        away = asked[:, :, 3:6].unsqueeze(3) * (known[:, ::2, :3].unsqueeze(2) * narrow)
        return learned, asked[:, :, :3], asked[:, :, 6:].view(n, 2, 3, 3, cells) - away

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        """Colour (N, 3, S, S) in [0, 1]; equals `harmonized` wherever `mask` is 0."""
        n, cells, size = mask.shape[0], self.cells, mask.shape[2]
        whole = torch.cat([composite, mask, harmonized, source], 1)
        # The window's rows, and behind them its columns.
        start, length = _window(torch.cat([mask.sum(3), mask.sum(2)]).squeeze(1))
        near = _resample(whole, _average(start, length, cells, size))
        c, m, h, s = near[:, 0:3], near[:, 3:4], near[:, 4:7], near[:, 7:10]

        # What is known: the window and the whole picture. Where their cells are, from the middle of the mask and in
        # units of its extent, and what they weigh as observations: 0 in the mask, less with the distance. A cell with a
        # quarter of source says nothing.
        views = torch.stack([near, _shrink(whole, size // cells)], 1)
        targets, sources = views[:, :, 0:3], views[:, :, 7:10]
        inside = m / (m.sum((2, 3), keepdim=True) + 1e-6)
        inside = torch.cat([inside.sum(3), inside.sum(2)]).squeeze(1)
        cell = (torch.arange(cells, dtype=m.dtype, device=m.device) + 0.5) / cells
        where = _place(start + length * cell, length, inside, cell)
        y, x = where[:n].unsqueeze(3).expand(n, 2, cells, cells), where[n:].unsqueeze(2).expand(n, 2, cells, cells)
        place = torch.stack([y, x], 2)
        known = torch.clamp(1 - 4 * views[:, :, 3].flatten(2), min=0.0)
        distance = torch.sqrt((place * place).sum(2)).flatten(2)
        weight = known * torch.exp(-distance * torch.exp(self.log_reach).view(1, 2, 1) / 2) + 1e-6
        weight = weight / weight.sum(2, keepdim=True)

        wanted = targets - sources
        learned, estimate, slope = self.fit(sources, wanted, weight, place)

        # What tells matching surroundings from unrelated ones: the share of the target's variance that a process
        # explains, what it leaves, and whether edges lie in the same places, as they are and once the source has the
        # target's colours as well as one affine map can give them. (The processes could draw edges of their own.)
        w = weight.unsqueeze(2)
        target = targets.flatten(3)
        left_over = (((wanted.flatten(3) - learned) ** 2) * w).sum((2, 3))
        spread = (((target - (target * w).sum(3, keepdim=True)) ** 2) * w).sum((2, 3))
        explained = torch.clamp(1 - left_over / (spread + 1e-3), min=-1.0)
        color = torch.cat([sources, torch.ones_like(sources[:, :, :1])], 2).flatten(0, 1).flatten(2)
        weighted = color * weight.reshape(2 * n, 1, -1)
        ridge = 1e-3 * torch.eye(4, dtype=m.dtype, device=m.device)
        plain = ridge_solve(weighted @ color.transpose(1, 2) + ridge, weighted @ target.flatten(0, 1).transpose(1, 2))
        # Edges are what a 3x3 mean leaves; the affine map of the colours is that of the edges, but for its constant.
        both = torch.cat([sources, targets], 2).flatten(0, 1)
        edges = (both - _mean3(both)).flatten(2)
        masks = views[:, :, 3:4].flatten(0, 1)
        clear = weight.reshape(2 * n, 1, -1) * (nnf.max_pool2d(masks, 3, 1, 1) == 0).to(m.dtype).flatten(2)
        drawn = torch.stack([edges[:, :3], plain[:, :3].transpose(1, 2) @ edges[:, :3]], 1)  # (2 N, 2, 3, 1024)
        seen = edges[:, 3:] * clear
        power = (drawn**2 * clear.unsqueeze(1)).sum((2, 3)) * (edges[:, 3:] * seen).sum((1, 2)).unsqueeze(1)
        alike = (drawn * seen.unsqueeze(1)).sum((2, 3)) / torch.sqrt(power + 1e-10)
        alike = alike.view(n, 2, 2).transpose(1, 2).flatten(1)  # as they are: near, far; recoloured: near, far
        evidence = torch.cat([explained, 4 * torch.sqrt(left_over + 1e-6), alike], 1)
        evidence = evidence.view(n, 8, 1, 1).expand(n, 8, cells, cells)

        # Network: where to trust which process, and what to add. 4 makes differences as large as colours. The threshold
        # keeps rounding from deciding about cells with just a quarter of source, which are common.
        misfit = ((c - s).flatten(2).unsqueeze(1) - estimate) * (known[:, :1] > 1e-5).to(m.dtype).unsqueeze(2)
        seam = ((h - s).flatten(2).unsqueeze(1) - estimate) * m.flatten(2).unsqueeze(1)
        shown = [c, m, h, s, evidence]
        shown += [4 * each.reshape(n, 6, cells, cells) for each in (estimate, misfit, seam)]
        at32 = self.stem(_for_layers(torch.cat(shown, 1)))
        at16 = self.down1(at32)
        at8 = self.down2(at16)
        at4 = self.down3(at8)
        at4 = at4 + self.context(at4.mean((2, 3))).unsqueeze(2).unsqueeze(3)
        at8 = nnf.relu(self.up3(torch.cat([at8, _double(at4)], 1)))
        at16 = nnf.relu(self.up2(torch.cat([at16, _double(at8)], 1)))
        last = torch.cat([at32, _double(at16)], 1)
        bias = self.trust.bias
        if is_scripting() and bias is not None:
            both = _inference.conv_to_few(last, self.trust.weight, bias)
        else:
            both = self.trust(last)
        # Edges in other places are another place: no process is worth anything then, and chance stays below 0.1.
        same_place = torch.clamp(4 * alike.amax(1) - 0.4, 0, 1).view(n, 1, 1, 1)
        trust = (same_place * torch.clamp(both[:, :2], -0.5, 1.5)).flatten(2).unsqueeze(2)
        pull = same_place * torch.clamp(both[:, 2:], -0.25, 1.0)
        own = _double(torch.tanh(self.affine(at16)))

        # To every pixel: the estimate of its cell, and the slope for how its colour differs from the cell's.
        matrix = (slope * trust.unsqueeze(3)).sum(1)
        offset = (estimate * trust).sum(1) - (matrix * s.flatten(2).unsqueeze(1)).sum(2)
        maps = torch.cat([matrix, offset.unsqueeze(2)], 2)  # (N, 3, 4, 1024): of a channel, by the colour and constant
        own = torch.cat([own[:, :9].reshape(n, 3, 3, -1), own[:, 9:].reshape(n, 3, 1, -1)], 2)
        maps = maps + own

        # Guards: no change where the surroundings agree, no colour where there is none; open from 0.04 on.
        disagreement = (torch.abs(wanted).flatten(3) * w).sum(3).mean((1, 2)).view(n, 1, 1, 1)
        chroma = (_chroma(s) + _chroma(c)).view(n, 1, 1, 1)
        grey = maps.mean(1, keepdim=True)
        maps = (grey + torch.tanh(chroma * 50) * (maps - grey)) * torch.tanh(disagreement * 50)
        maps = torch.cat([maps.view(n, 12, cells, cells), pull], 1)
        maps = _resample(maps, _interpolate(start, length, cells, size))
        change = maps[:, 3:12:4]
        for i in range(3):
            change = torch.addcmul(change, maps[:, i:12:4], source[:, i : i + 1])

        # Cloning trusts the colours along the edge, the processes those of the surroundings; pull leans to these.
        colour = harmonized + dirichlet_correction(change, mask)
        colour = colour + maps[:, 12:13] * mask * (source + change - colour)
        return torch.clamp(colour, 0, 1)
