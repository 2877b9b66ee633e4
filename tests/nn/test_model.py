"""The networks: sizes and shapes of the paper's, and what the colour corrector promises by construction."""

import pytest
import torch
from torch import Tensor

from gpgan.nn.model import BlendingGAN, ColorCorrector, Critic, dirichlet_correction, ridge_solve


def contract_inputs(n: int, size: int, seed: int = 0, *, related: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise that shows one place under two lights (`related`), or two places, under a soft-edged square."""
    random = torch.Generator().manual_seed(seed)
    source, target, joined = (torch.rand(n, 3, size, size, generator=random) for _ in range(3))
    if related:
        target = source * torch.tensor([0.6, 0.5, 0.4]).view(3, 1, 1) + 0.2 * target
    mask = torch.zeros(n, 1, size, size)
    mask[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    mask[:, :, size // 4 - 1, size // 4 : -size // 4] = 0.4
    return target + mask * (source - target), mask, target + mask * (joined - target), source


def scrambled(size: int = 32) -> ColorCorrector:
    """A corrector that corrects: random weights in the last layers too."""
    torch.manual_seed(0)
    generator = ColorCorrector(size, 8)
    for parameter in generator.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return generator.eval()


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_blending_gan_parameters() -> None:
    with torch.device("meta"):
        generator, critic = BlendingGAN(), Critic()
    # Weights of the 4x4 convolutions (first and last with a bias), gain and shift of the batch norms.
    pairs = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 4000)]
    norms = [128, 256, 512, 4000, 512, 256, 128, 64]
    assert parameters(generator) == 2 * 16 * sum(a * b for a, b in pairs) + 64 + 3 + 2 * sum(norms)
    assert 71e6 < parameters(generator) < 71.2e6
    critic_pairs = [*pairs[:4], (512, 1)]
    assert parameters(critic) == 16 * sum(a * b for a, b in critic_pairs) + 64 + 2 * (128 + 256 + 512)


def test_blending_gan_bottleneck_is_fully_connected() -> None:
    generator = BlendingGAN(64, 4, 10)
    assert generator.encoder(torch.rand(2, 3, 64, 64)).shape == (2, 10, 1, 1)


@pytest.mark.parametrize("size", [16, 64])
def test_blending_gan_shape_and_range(size: int) -> None:
    inputs = contract_inputs(2, size)
    colour = BlendingGAN(size, 4, 10)(*inputs)
    assert colour.shape == (2, 3, size, size)
    assert colour.min() >= 0 and colour.max() <= 1
    assert Critic(size, 4)(colour).shape == (2,)


def test_blending_gan_sees_the_composite_alone() -> None:
    generator = BlendingGAN(16, 4, 10).eval()
    composite, mask, harmonized, source = contract_inputs(2, 16)
    assert torch.equal(
        generator(composite, mask, harmonized, source), generator(composite, 1 - mask, source, harmonized)
    )


def test_critic_norms_all_but_first_and_last() -> None:
    kinds = [type(layer).__name__ for layer in Critic(32, 4).layers]
    assert kinds == ["Conv2d", "LeakyReLU", *["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2, "Conv2d"]


@pytest.mark.parametrize("network", [BlendingGAN, Critic, ColorCorrector])
@pytest.mark.parametrize("size", [0, 8, 48])
def test_networks_refuse_sizes(network: type, size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size must be a power of two.* is {size}"):
        network(size)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_corrector_starts_at_zero(size: int) -> None:
    inputs = contract_inputs(2, size)
    assert torch.equal(ColorCorrector(size, 8)(*inputs), inputs[2])


def test_corrector_leaves_the_outside_alone() -> None:
    composite, mask, harmonized, source = contract_inputs(2, 32)
    colour = scrambled()(composite, mask, harmonized, source)
    outside = (mask == 0).expand_as(colour)
    assert torch.equal(colour[outside], composite[outside])
    assert (colour - harmonized).abs().max() > 0.01  # or nothing was tested
    assert colour.min() >= 0 and colour.max() <= 1
    assert torch.equal(scrambled()(composite, 0 * mask, composite, source), composite)


def test_corrector_is_finite_without_surroundings() -> None:
    composite, mask, harmonized, source = contract_inputs(2, 32)
    assert torch.isfinite(scrambled()(source, torch.ones_like(mask), harmonized, source)).all()
    assert torch.isfinite(scrambled()(0 * composite, mask, 0 * composite, 0 * source)).all()


def test_corrector_does_nothing_to_equals() -> None:
    _, mask, _, source = contract_inputs(2, 32)
    torch.testing.assert_close(scrambled()(source, mask, source, source), source, rtol=0, atol=1e-6)


def test_corrector_fits_nothing_to_another_place() -> None:
    """Without the network's own maps, unrelated surroundings leave plain Poisson cloning."""
    generator = scrambled(64)
    for parameter in generator.affine.parameters():
        parameter.data.zero_()
    inputs = contract_inputs(4, 64, related=False)
    assert torch.equal(generator(*inputs), inputs[2])
    related = contract_inputs(4, 64)
    assert not torch.equal(generator(*related), related[2])


def test_corrector_keeps_grey_grey() -> None:
    grey = [x.mean(1, keepdim=True).expand_as(x) for x in contract_inputs(2, 32)]
    colour = scrambled()(*grey)
    assert (colour - grey[2]).abs().max() > 0.01
    # Grey within rounding: the channels' sums are taken in another order.
    assert (colour.amax(1) - colour.amin(1)).max() < 1e-4


def test_corrector_ignores_the_rest_of_the_batch() -> None:
    generator, inputs = scrambled(), contract_inputs(3, 32)
    alone = torch.cat([generator(*(x[i : i + 1] for x in inputs)) for i in range(3)])
    torch.testing.assert_close(generator(*inputs), alone, rtol=0, atol=1e-5)


def test_corrector_finds_an_affine_light_change() -> None:
    """Surroundings that show the change exactly, full trust: the closed form alone restores the object."""
    torch.manual_seed(0)
    generator = ColorCorrector(64, 8)
    generator.trust.bias.data[0] = 1
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8), size=(64, 64), mode="bicubic")
    source = smooth.clamp(0, 1)
    target = source * torch.tensor([0.9, 0.6, 0.4]).view(1, 3, 1, 1) + 0.05
    mask = torch.zeros(4, 1, 64, 64)
    mask[:, :, 20:44, 20:44] = 1
    composite = target + mask * (source - target)
    harmonized = target + dirichlet_correction((source - target) * torch.ones_like(mask), mask, 50)
    with torch.no_grad():
        colour = generator(composite, mask, harmonized, source)
    before, after = ((x - target).pow(2).mean().sqrt() for x in (harmonized, colour))
    assert after < before / 3


def test_corrector_gradients_reach_every_parameter() -> None:
    generator = scrambled().train()
    generator(*contract_inputs(2, 32)).pow(2).mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_corrector_first_gradient_is_not_zero() -> None:
    """A zero start must not be a dead start: the last layers learn at once."""
    generator = ColorCorrector(32, 8)
    generator(*contract_inputs(2, 32)).pow(2).mean().backward()
    assert generator.trust.weight.grad.abs().sum() > 0
    assert generator.affine.weight.grad.abs().sum() > 0


def test_ridge_solve_against_linalg() -> None:
    torch.manual_seed(0)
    a = torch.randn(5, 19, 40, dtype=torch.float64)
    gram, moment = a @ a.mT + 1e-3 * torch.eye(19), torch.randn(5, 19, 3, dtype=torch.float64)
    torch.testing.assert_close(ridge_solve(gram, moment), torch.linalg.solve(gram, moment), rtol=1e-9, atol=1e-9)


def test_dirichlet_correction_removes_constants_and_keeps_the_edge() -> None:
    mask = contract_inputs(1, 32)[1]
    constant = torch.full((1, 3, 32, 32), 0.3)
    assert dirichlet_correction(constant, mask).abs().max() < 1e-6
    change = torch.rand(1, 3, 32, 32)
    correction = dirichlet_correction(change, mask)
    assert correction[(mask == 0).expand_as(change)].abs().max() == 0
    doubled = dirichlet_correction(2 * change, mask)
    torch.testing.assert_close(doubled, 2 * correction)


def test_dirichlet_correction_converges_to_poisson_cloning() -> None:
    """Enough sweeps: the change minus its harmonic extension, so their Laplacians agree inside."""
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    mask[:, :, 8:24, 8:24] = 1
    change = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    correction = dirichlet_correction(change, mask, last_sweeps=2000)
    extension = change - correction  # harmonic in the mask: every pixel is the mean of its 3x3 neighbourhood
    mean = torch.nn.functional.avg_pool2d(extension, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(mask * extension, mask * mean, rtol=0, atol=1e-12)
    # The cascade's few sweeps are close to that already, for a change as smooth as an affine colour map's.
    smooth = torch.linspace(0, 1, 32, dtype=torch.float64).square().expand(1, 1, 32, 32)
    exact = dirichlet_correction(smooth, mask, last_sweeps=2000)
    assert (dirichlet_correction(smooth, mask) - exact).abs().max() < 0.35 * exact.abs().max()


def test_corrector_leans_to_equal_trust() -> None:
    generator, inputs = scrambled(64), contract_inputs(2, 64)
    results = []
    for share in (0.0, 0.5, 1.0):
        generator.lean(share)
        results.append(generator(*inputs))
    assert torch.equal(scrambled(64)(*inputs), results[0])
    assert not torch.equal(results[0], results[1])
    assert (generator.trust.weight[:2] == 0).all() and (generator.trust.bias[:2] == 0.5).all()
    assert not (generator.trust.weight[2:] == 0).any()
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], but is 2"):
        generator.lean(2)
