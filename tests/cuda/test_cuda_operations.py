"""Every operation of the CUDA backend against gpgan.reference."""

import inspect

import numpy as np
import pytest
import tolerances
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import _core, reference

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 3), (31, 33), (64, 65), (127, 128)]
EQUATIONS = ["gaussian-poisson", "screened"]


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_single_operations_match_reference(shape, channels, cuda_module, rng):
    source, target = draw_image(rng, *shape, channels), draw_image(rng, *shape, channels)
    mask = draw_mask(rng, *shape)
    coarser, finer = ((shape[0] + 1) // 2, (shape[1] + 1) // 2), (2 * shape[0] - 1, 2 * shape[1])
    calls = [
        ("composite", (source, target, mask), ()),
        ("guidance_divergence", (source, target, mask), ()),
        ("downsample", (source,), (coarser,)),
        ("upsample", (source, finer), ()),
        ("area_average", (source, (16, 16)), ()),
        *(("gaussian_blur", (source, sigma), ()) for sigma in (0.3, 0.5, 0.8, 1.0, 3.0)),
    ]
    if channels is not None:
        calls.append(("extend", (source, mask), ()))
    for name, arguments, more in calls:
        got = getattr(cuda_module, name)(*arguments, *more)
        expected = getattr(reference, name)(*arguments)
        assert got.dtype == np.float32
        assert_allclose(got, expected, atol=tolerances.FLOAT32, rtol=0, err_msg=f"{name} {arguments[1:]}")


@pytest.mark.parametrize("shape", SHAPES)
def test_membrane_matches_reference(shape, cuda_module, rng):
    for soft in (True, False):
        source, target = draw_image(rng, *shape), draw_image(rng, *shape)
        mask = draw_mask(rng, *shape, soft=soft)
        off = np.abs(cuda_module.membrane(source, target, mask) - reference.membrane(source, target, mask))
        assert off.max() <= tolerances.MEMBRANE_MAX
        assert off.mean() <= tolerances.MEMBRANE_MEAN


def test_membrane_is_nothing_where_a_region_has_no_boundary(cuda_module, rng):
    source, target = draw_image(rng, 20, 31), draw_image(rng, 20, 31)
    assert_array_equal(cuda_module.membrane(source, target, np.ones((20, 31))), np.zeros((20, 31, 3)))


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_solve_matches_reference(shape, equation, cuda_module, rng):
    source, target = draw_image(rng, *shape), draw_image(rng, *shape)
    mask = draw_mask(rng, *shape)
    for sigma, color_weight in ((0.5, 0.01), (0.5, 1.0), (0.5, 100.0), (0.3, 1.0), (0.8, 1.0), (2.0, 1.0)):
        u = reference.guidance_divergence(source, target, mask)
        c = reference.gaussian_blur(target, sigma)
        # The operation takes float32: what its own rounding of u and c does to the result is no error of the solver.
        u, c = (x.astype(np.float32).astype(np.float64) for x in (u, c))
        got = cuda_module.solve(u, c, color_weight, sigma, equation == "screened")
        expected = reference.solve(u, c, sigma=sigma, color_weight=color_weight, equation=equation)
        # A weak colour and a wide Gaussian leave high frequencies to u alone, where an image overshoots [0, 1]; and
        # each frequency that lambda bounds has its own rounding of u divided by it.
        scale = max(1, np.abs(expected).max(), 1 / color_weight if equation == "screened" else 1)
        assert_allclose(got, expected, atol=tolerances.NATIVE * scale, rtol=0, err_msg=f"{sigma}, {color_weight}")


def test_solve_refuses_what_is_singular(cuda_module):
    x = np.zeros((64, 64))
    with pytest.raises(ValueError, match=r"^color_weight: expected a smaller value.*singular"):
        cuda_module.solve(x, x, 1e4, 3.0, True)


@pytest.mark.parametrize("operation", ["resize", "resample_bicubic", "area_average"])
def test_resampling_matches_reference(operation, cuda_module, rng):
    for old in ((1, 1), (2, 5), (8, 8), (33, 20), (70, 129)):
        image = draw_image(rng, *old)
        for new in ((1, 1), (3, 4), (8, 8), (16, 17), (64, 64)):
            got = getattr(cuda_module, operation)(image, new)
            expected = getattr(reference, operation)(image, new)
            assert_allclose(got, expected, atol=tolerances.FLOAT32, rtol=0, err_msg=f"{old} to {new}")


def test_resample_nearest_matches_reference(cuda_module, rng):
    for old in ((1, 1), (2, 5), (63, 100), (200, 31)):
        mask = draw_mask(rng, *old)
        for new in ((1, 1), (3, 4), (64, 64), (128, 128)):
            assert_array_equal(cuda_module.resample_nearest(mask, new), reference.resample_nearest(mask, new))


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 60])
def test_inset_matches_reference_on_ragged_masks(pixels, cuda_module, rng):
    for density in (0.3, 0.6, 0.9):
        mask = (rng.random((60, 45)) < density) * rng.uniform(0.1, 1, (60, 45))
        mask = mask.astype(np.float32).astype(np.float64)
        assert_array_equal(cuda_module.inset(mask, pixels), reference.inset(mask, pixels))
    for shape in SHAPES:
        mask = draw_mask(rng, *shape)
        assert_array_equal(cuda_module.inset(mask, pixels), reference.inset(mask, pixels))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (40, 31), (64, 64), (129, 65)])
def test_extend_matches_reference_on_sparse_alpha(shape, cuda_module, rng):
    source = draw_image(rng, *shape)
    for density in (0.0, 0.01, 0.5, 1.0):
        alpha = ((rng.random(shape) < density) * rng.uniform(0.1, 1, shape)).astype(np.float32)
        got = cuda_module.extend(source, alpha)
        assert_allclose(got, reference.extend(source, alpha), atol=tolerances.FLOAT32, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 31, 64, 97, 127, 128, 129, 1000])
def test_dct_matches_the_cpus(length, cuda_module, rng):
    rows = rng.uniform(-1, 1, (5, length)).astype(np.float32)
    for kind in (2, 3):
        expected = _core.dct(rows, kind)
        atol = tolerances.dct(length) * max(1, np.abs(expected).max())
        assert_allclose(cuda_module.dct(rows, kind), expected, atol=atol, rtol=0)


def test_operations_take_any_memory_layout(cuda_module, rng):
    image = draw_image(rng, 21, 18)
    expected = cuda_module.gaussian_blur(image, 1.0)
    for same in (np.asfortranarray(image), image[::-1].copy()[::-1], np.repeat(image, 2, axis=1)[:, ::2]):
        assert_array_equal(cuda_module.gaussian_blur(same, 1.0), expected)


def test_operations_have_the_names_and_arguments_of_the_cpus(cuda_module):
    def signature(function):
        return function.__doc__.splitlines()[0].replace("threads: ", "device: ")

    operations = {name for name in vars(_core) if inspect.isbuiltin(getattr(_core, name))}
    operations -= {"version", "options", "cpu_target", "cpu_targets", "resolve_threads"}
    assert len(operations) > 10
    for name in operations:
        assert signature(getattr(cuda_module, name)) == signature(getattr(_core, name))


def test_operations_refuse_a_device_that_is_not_there(cuda_module):
    with pytest.raises(RuntimeError, match=r"cudaSetDevice: .* \(cudaErrorInvalidDevice\)"):
        cuda_module.downsample(np.zeros((4, 4)), (2, 2), device=99)
