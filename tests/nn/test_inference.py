"""The forms that scripted networks compute by, against those that can be read; the processes, by their formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

from gpgan.nn import _inference, model

from .test_model import contract_inputs, scrambled

SIZES = [8, 16, 32, 64, 128]


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_mean3_and_double(size: int, channels: int) -> None:
    for n in (1, 2):
        x = drawn(n, channels, size, size)
        torch.testing.assert_close(_inference.mean3(x), model._mean3(x), rtol=0, atol=1e-6)
        for layout in (torch.contiguous_format, torch.channels_last):
            given = _inference.double(x.contiguous(memory_format=layout))
            torch.testing.assert_close(given, model._double(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_shrink(factor: int) -> None:
    x = drawn(2, 10, 32 * factor, 32 * factor)
    torch.testing.assert_close(_inference.shrink(x, factor), model._shrink(x, factor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_dirichlet_correction(size: int) -> None:
    change, mask = drawn(2, 3, size, size) - 0.5, torch.zeros(2, 1, size, size)
    mask[0, :, size // 8 : size // 2, size // 4 :] = 1
    mask[1] = drawn(1, size, size) * (drawn(1, size, size).flip(2) > 0.3)
    for sweeps in ((), (1, 1), (0, 5)):
        given = _inference.dirichlet_correction(change, mask, *sweeps)
        torch.testing.assert_close(given, model.dirichlet_correction(change, mask, *sweeps), rtol=0, atol=2e-6)
        assert not given[(mask == 0).expand_as(given)].any()
    full = torch.ones_like(mask)
    expected = model.dirichlet_correction(change, full)
    torch.testing.assert_close(_inference.dirichlet_correction(change, full), expected, rtol=0, atol=2e-6)


def test_radial() -> None:
    centre, where = 3 * drawn(3, 64, 11), 3 * drawn(3, 11, 1024)
    exact = torch.exp(-(torch.cdist(centre.double(), where.double().transpose(1, 2)) ** 2) / 2)
    for form in (_inference.radial, model._radial):
        torch.testing.assert_close(form(centre, where).double(), exact, rtol=0, atol=2e-5)
    assert _inference.radial(centre, centre.transpose(1, 2)).amax() <= 1


def test_ridge_solve() -> None:
    a = drawn(2, 74, 200)
    gram, moment = a @ a.mT + 0.1 * torch.eye(74), drawn(2, 74, 3)
    given, exact = _inference.ridge_solve(gram, moment), torch.linalg.solve(gram.double(), moment.double())
    assert given.dtype == torch.float32
    torch.testing.assert_close(given.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv_to_few(layout: torch.memory_format) -> None:
    x, weight, bias = drawn(2, 48, 32, 32).contiguous(memory_format=layout), drawn(3, 48, 3, 3) - 0.5, drawn(3)
    expected = nnf.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(_inference.conv_to_few(x, weight, bias), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("related", [True, False])
def test_scripted_corrector_is_the_eager_one(size: int, related: bool) -> None:
    generator = scrambled(size)
    scripted = torch.jit.script(generator)
    for n in (1, 3):
        inputs = contract_inputs(n, size, seed=n, related=related)
        with torch.inference_mode():
            # Random weights enlarge the rounding of float32 more than the shipped ones do.
            torch.testing.assert_close(scripted(*inputs), generator(*inputs), rtol=0, atol=2e-4)
    scripted(*inputs)  # and without inference mode
    exact = scrambled(size).double()
    with torch.inference_mode():
        doubled = [x.double() for x in inputs]
        torch.testing.assert_close(torch.jit.script(exact)(*doubled), exact(*doubled), rtol=0, atol=1e-11)


def test_fit_is_two_gaussian_processes() -> None:
    """By the formulas, one process and one cell set at a time; the slope by automatic differentiation."""
    generator = scrambled().double()
    random = torch.Generator().manual_seed(1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, dtype=torch.float64)

    n = 2
    source, change = uniform(n, 2, 3, 32, 32), uniform(n, 2, 3, 32, 32) - 0.5
    place, weight = 4 * uniform(n, 2, 2, 32, 32) - 2, uniform(n, 2, 1024)
    weight = weight / weight.sum(2, keepdim=True)
    with torch.no_grad():
        learned, estimate, slope = generator.fit(source, change, weight, place)

    def process(sample: int, which: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The mean, as a function of colour (P, 3), place (P, 2) and what is seen (P, 6)."""

        def compared(color: Tensor, at: Tensor, seen: Tensor) -> Tensor:
            narrow, near = torch.exp(-generator.log_color[which]), torch.exp(-generator.log_distance[which])
            return torch.cat([color * narrow, at * near, seen], 1)

        def monomials(color: Tensor) -> Tensor:
            r, g, b = (color - 0.5).unbind(1)
            return torch.stack([r, g, b, r * r, g * g, b * b, r * g, g * b, r * b, torch.ones_like(r)], 1)

        seen = torch.tanh(generator.eye(source[sample, which, None] * 2 - 1))[0]
        images = [x.reshape(x.shape[0], -1).T for x in (source[sample, which], place[sample, which], seen)]
        known = compared(*images)
        centre = known.T.reshape(11, 8, 4, 8, 4).mean((2, 4)).reshape(11, 64).T

        def features(*asked: Tensor) -> Tensor:
            kernel = torch.exp(-((compared(*asked).unsqueeze(1) - centre) ** 2).sum(2) / 2)
            return torch.cat([monomials(asked[0]), kernel], 1)

        f, smoothness = features(*images), torch.exp(generator.log_smoothness[which])
        prior = torch.zeros(74, 74, dtype=torch.float64)
        prior[10:, 10:] = smoothness * torch.exp(-((centre.unsqueeze(1) - centre) ** 2).sum(2) / 2)
        prior += torch.diag(torch.cat([torch.exp(generator.log_ridge[which]), (smoothness / 100).expand(64)]))
        w = weight[sample, which].unsqueeze(1)
        wanted = change[sample, which].reshape(3, -1).T
        found = torch.linalg.solve(f.T @ (w * f) + prior, f.T @ (w * wanted))
        return lambda *asked: features(*asked) @ found

    close = {"rtol": 1e-7, "atol": 1e-8}
    for sample in range(n):
        seen = [torch.tanh(generator.eye(source[sample, p, None] * 2 - 1))[0].flatten(1).T.detach() for p in (0, 1)]
        flat = [[x[sample, p].flatten(1).T for x in (source, place)] + [seen[p]] for p in (0, 1)]
        for which in (0, 1):
            mean = process(sample, which)
            torch.testing.assert_close(learned[sample, which].T, mean(*flat[which]).detach(), **close)
            color = flat[0][0].clone().requires_grad_()
            asked = mean(color, *flat[0][1:])
            torch.testing.assert_close(estimate[sample, which].T, asked.detach(), **close)
            for channel in range(3):
                (gradient,) = torch.autograd.grad(asked[:, channel].sum(), color, retain_graph=True)
                torch.testing.assert_close(slope[sample, which, channel].T, gradient, **close)
