"""Parts of the networks in the forms that are fastest on one core of a CPU, for scripted networks only.

Each gives what the function of the same name in `gpgan.nn.model` gives, but for rounding. Those are what training and
ONNX files keep: easier to read and to differentiate, and without operators that ONNX does not know. Torch pools and
resizes a few channels pixel by pixel, without vector instructions, which sums of shifted images and small matrix
products avoid; and on images this small each call of an operator counts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as nnf

__all__ = ["conv_to_few", "dirichlet_correction", "double", "mean3", "radial", "ridge_solve", "shrink"]


def ridge_solve(gram: Tensor, moment: Tensor) -> Tensor:
    """By LU factors; in float64, as that costs nothing here and two runtimes then agree but for the sums in `gram`."""
    found: Tensor = torch.linalg.solve(gram.double(), moment.double())
    return found.to(gram.dtype)


def radial(centre: Tensor, where: Tensor) -> Tensor:
    """All of the exponent by one matrix product, and powers of two: exp2 is vector code where exp is not."""
    log2_e = 1.4426950408889634
    norm = (centre * centre).sum(2, keepdim=True) * -0.5
    left = torch.cat([centre, norm, torch.ones_like(norm)], 2) * log2_e
    norm = (where * where).sum(1, keepdim=True) * -0.5
    return torch.bmm(left, torch.cat([where, torch.ones_like(norm), norm], 1)).clamp_(max=0.0).exp2_()


def conv_to_few(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution to few channels: one matrix product for all taps, then nine shifted sums."""
    taps = weight.permute(0, 2, 3, 1).flip([1, 2]).reshape(-1, weight.shape[1])
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)  # no copy of channels_last
    y = nnf.fold(torch.matmul(taps, pixels), (x.shape[2], x.shape[3]), (3, 3), padding=(1, 1))
    return y.add_(bias.view(1, -1, 1, 1))


def _add_neighbours(x: Tensor, dim: int) -> Tensor:
    """Sums of three along an axis, of two at its ends."""
    size = x.shape[dim]
    y = x.clone()
    y.narrow(dim, 1, size - 1).add_(x.narrow(dim, 0, size - 1))
    y.narrow(dim, 0, size - 1).add_(x.narrow(dim, 1, size - 1))
    return y


def _sum3(x: Tensor) -> Tensor:
    return _add_neighbours(_add_neighbours(x, 2), 3)


def _share(x: Tensor) -> Tensor:
    """(H, W): one over the number of pixels in each 3x3 neighbourhood."""
    row = torch.full([x.shape[3]], 1 / 3, dtype=x.dtype, device=x.device)
    row[0] = 0.5
    row[-1] = 0.5
    column = torch.full([x.shape[2], 1], 1 / 3, dtype=x.dtype, device=x.device)
    column[0] = 0.5
    column[-1] = 0.5
    return row * column


def mean3(x: Tensor) -> Tensor:
    if x.shape[3] < 32:
        return nnf.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return _sum3(x).mul_(_share(x))


def _double_along(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    shape = list(x.shape)
    shape.insert(dim + 1, 2)
    y = torch.empty(shape, dtype=x.dtype, device=x.device)
    low, high = y.select(dim + 1, 0), y.select(dim + 1, 1)
    most, rest = x * 0.75, x * 0.25
    low.select(dim, 0).copy_(x.select(dim, 0))
    low.narrow(dim, 1, size - 1).copy_(most.narrow(dim, 1, size - 1) + rest.narrow(dim, 0, size - 1))
    high.narrow(dim, 0, size - 1).copy_(most.narrow(dim, 0, size - 1) + rest.narrow(dim, 1, size - 1))
    high.select(dim, size - 1).copy_(x.select(dim, size - 1))
    return y.flatten(dim, dim + 1)


def double(x: Tensor) -> Tensor:
    if x.shape[3] < 64 or not x.is_contiguous():  # channels_last has vector code across the channels
        return nnf.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return _double_along(_double_along(x, 3), 2)


def shrink(image: Tensor, factor: int) -> Tensor:
    n, channels, height, width = image.shape
    if factor == 1:
        return image
    rows = image.reshape(n * channels, height // factor, factor, width).sum(2)
    unit = torch.eye(width // factor, dtype=image.dtype, device=image.device) / (factor * factor)
    unit = unit.repeat_interleave(factor, 0)
    return torch.matmul(rows.view(-1, width), unit).view(n, channels, height // factor, width // factor)


def _half(x: Tensor) -> Tensor:
    """Means of 2x2 pixels."""
    if x.shape[3] < 64:
        return nnf.avg_pool2d(x, 2)
    n, channels, height, width = x.shape
    y = x.view(n, channels, height // 2, 2, width)
    z = (y.select(3, 0) + y.select(3, 1)).view(n, channels, height // 2, width // 2, 2)
    return (z.select(4, 0) + z.select(4, 1)).mul_(0.25)


def dirichlet_correction(change: Tensor, mask: Tensor, sweeps: int = 4, last_sweeps: int = 2) -> Tensor:
    """With f = e - change the relaxation is ``f = mask * mean(f) - (1 - mask) * change``, a mean less a level."""
    changes = [change.contiguous()]
    masks = [mask.contiguous()]
    while changes[-1].shape[3] > 8:
        changes.append(_half(changes[-1]))
        masks.append(_half(masks[-1]))
    correction = torch.zeros_like(changes[-1])
    for level in range(len(changes) - 1, -1, -1):
        if level < len(changes) - 1:
            correction = double(correction)
        fixed = (1 - masks[level]) * changes[level]
        f = correction - changes[level]
        if f.shape[3] < 32:
            for _ in range(sweeps if level else last_sweeps):
                f = nnf.avg_pool2d(f, 3, 1, 1, count_include_pad=False).mul_(masks[level]).sub_(fixed)
        else:
            share = masks[level] * _share(f)
            for _ in range(sweeps if level else last_sweeps):
                f = _sum3(f).mul_(share).sub_(fixed)
        correction = f.add_(changes[level])
    return correction
