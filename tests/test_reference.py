"""The float64 reference against what the mathematics says: dense operators, identities, inequalities, hand-made values.

Nothing here touches the native core; the other files hold the core against the reference.
"""

import numpy as np
import pytest
import scipy.fft
import tolerances
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal

from gpgan import reference

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 8), (13, 11)]
EQUATIONS = ["gaussian-poisson", "screened"]


def dense(operator, shape) -> np.ndarray:
    """The matrix of a linear operator on images of `shape`, column by column."""
    count = shape[0] * shape[1]
    return np.stack([operator(e.reshape(shape)).ravel() for e in np.eye(count)], axis=1)


def laplacian_by_hand(shape) -> np.ndarray:
    """L written out pixel by pixel: one for each neighbour inside the image on the diagonal, -1 beside it."""
    height, width = shape
    matrix = np.zeros((height * width, height * width))
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    matrix[y * width + x, y * width + x] += 1
                    matrix[y * width + x, (y + dy) * width + x + dx] -= 1
    return matrix


def gaussian_by_hand(shape, sigma) -> np.ndarray:
    """G written out: every tap lands on the pixel that half-sample symmetry mirrors it to."""

    def axis(n):
        radius = 1 if sigma <= 0.5 else int(np.ceil(3 * sigma))
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        matrix = np.zeros((n, n))
        for i in range(n):
            for k, tap in enumerate(taps / taps.sum()):
                j = (i + k - radius) % (2 * n)
                matrix[i, j if j < n else 2 * n - 1 - j] += tap
        return matrix

    return np.kron(axis(shape[0]), axis(shape[1]))


# ------------------------------------------------------------------------------------------------ operators


@pytest.mark.parametrize("shape", SHAPES)
def test_laplacian_is_the_graph_laplacian(shape):
    matrix = dense(reference.laplacian, shape)
    assert_allclose(matrix, laplacian_by_hand(shape), atol=1e-14)
    assert_allclose(matrix, matrix.T, atol=1e-14)  # self-adjoint


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_blur_is_the_mirrored_convolution(shape, sigma):
    matrix = dense(lambda x: reference.gaussian_blur(x, sigma), shape)
    assert_allclose(matrix, gaussian_by_hand(shape, sigma), atol=1e-14)
    assert_allclose(matrix, matrix.T, atol=1e-14)  # self-adjoint, so its rows sum to one as its columns do
    assert_allclose(matrix.sum(axis=1), 1, atol=1e-13)


@pytest.mark.parametrize(("sigma", "taps"), [(1e-6, 3), (0.5, 3), (0.5001, 5), (1.0, 7), (1.01, 9), (3.0, 19)])
def test_gaussian_kernel_has_the_stated_radius(sigma, taps):
    kernel = reference.gaussian_kernel(sigma)
    assert len(kernel) == taps
    assert_allclose(kernel.sum(), 1, rtol=1e-14)
    assert_array_equal(kernel, kernel[::-1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("operator", "eigenvalues"),
    [
        (reference.laplacian, reference.laplacian_eigenvalues),
        (reference.gaussian_blur, reference.gaussian_eigenvalues),
        (lambda x: reference.gaussian_blur(x, 1.7), lambda shape: reference.gaussian_eigenvalues(shape, 1.7)),
    ],
)
def test_eigenvalues_diagonalise_the_operator_in_the_dct_basis(shape, operator, eigenvalues, rng):
    x = rng.standard_normal(shape)
    assert_allclose(scipy.fft.dctn(operator(x)), eigenvalues(shape) * scipy.fft.dctn(x), atol=1e-11)
    spectrum = np.linalg.eigvalsh(dense(operator, shape))
    assert_allclose(np.sort(eigenvalues(shape).ravel()), spectrum, atol=1e-12)


def test_composite_interpolates(rng):
    source, target = draw_image(rng, 4, 5), draw_image(rng, 4, 5)
    assert_array_equal(reference.composite(source, target, np.ones((4, 5))), source)
    assert_array_equal(reference.composite(source, target, np.zeros((4, 5))), target)
    assert_allclose(
        reference.composite(source, target, np.full((4, 5), 0.25)), 0.25 * source + 0.75 * target, atol=1e-15
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_guidance_divergence_of_one_image_is_its_laplacian(shape, rng):
    x = draw_image(rng, *shape)
    mask = draw_mask(rng, *shape)
    assert_allclose(reference.guidance_divergence(x, x, mask), reference.laplacian(x), atol=1e-14)
    # Whatever the field, nothing flows across the border: its divergence sums to zero.
    u = reference.guidance_divergence(draw_image(rng, *shape), x, mask)
    assert_allclose(u.sum(axis=(0, 1)), 0, atol=1e-11)


def test_guidance_divergence_mixes_each_edge_with_the_mean_of_its_ends():
    source, target = np.array([[0.0, 1.0, 5.0]]), np.array([[2.0, 2.5, 2.0]])
    mask = np.array([[1.0, 0.5, 0.0]])
    # Edges: 0.75 * 1 + 0.25 * 0.5 and 0.25 * 4 + 0.75 * -0.5.
    first, second = 0.875, 0.625
    assert_allclose(reference.guidance_divergence(source, target, mask), [[-first, first - second, second]])
    assert_allclose(reference.guidance_divergence(source.T, target.T, mask.T), [[-first], [first - second], [second]])


# ---------------------------------------------------------------------------------------------------- solve


@pytest.mark.parametrize("color_weight", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_solve_satisfies_the_normal_equations(shape, sigma, color_weight, rng):
    L, G = laplacian_by_hand(shape), gaussian_by_hand(shape, sigma)
    u, c = rng.standard_normal(shape), rng.standard_normal(shape)
    options = {"color_weight": color_weight, "sigma": sigma}
    x = reference.solve(u, c, **options, equation="gaussian-poisson").ravel()
    right = L.T @ u.ravel() + color_weight * G.T @ c.ravel()
    assert_allclose((L.T @ L + color_weight * G.T @ G) @ x, right, atol=tolerances.FLOAT64)
    x = reference.solve(u, c, **options, equation="screened").ravel()
    assert_allclose((L + color_weight * G) @ x, u.ravel() + color_weight * c.ravel(), atol=tolerances.FLOAT64)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_solve_gives_back_the_image_that_both_terms_describe(equation, rng):
    x = draw_image(rng, 23, 18)
    u, c = reference.laplacian(x), reference.gaussian_blur(x, 0.5)
    assert_allclose(reference.solve(u, c, equation=equation), x, atol=tolerances.FLOAT64)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_solve_is_linear(equation, rng):
    u1, u2, c1, c2 = rng.standard_normal((4, 9, 14))
    combined = reference.solve(2 * u1 - u2, 2 * c1 - c2, equation=equation)
    apart = 2 * reference.solve(u1, c1, equation=equation) - reference.solve(u2, c2, equation=equation)
    assert_allclose(combined, apart, atol=tolerances.FLOAT64)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_solve_keeps_the_mean_of_the_colour(equation, rng):
    u = reference.guidance_divergence(draw_image(rng, 12, 9), draw_image(rng, 12, 9), draw_mask(rng, 12, 9))
    c = draw_image(rng, 12, 9)
    means = reference.solve(u, c, equation=equation).mean(axis=(0, 1))
    assert_allclose(means, c.mean(axis=(0, 1)), atol=1e-12)


def test_solve_treats_channels_alike(rng):
    u, c = rng.standard_normal((2, 6, 7, 3))
    together = reference.solve(u, c)
    for i in range(3):
        assert_allclose(together[..., i], reference.solve(u[..., i], c[..., i]), atol=1e-13)


# --------------------------------------------------------------------------------------------------- pyramid


@pytest.mark.parametrize("shape", SHAPES)
def test_resampling_keeps_constants(shape):
    x = np.full((*shape, 3), 0.7)
    finer = (2 * shape[0], 2 * shape[1] - 1)
    for y in (
        reference.downsample(x),
        reference.upsample(x, finer),
        reference.resample_bicubic(x, (9, 4)),
        reference.area_average(x, (4, 9)),
        reference.resize(x, (3, 20)),
    ):
        assert_allclose(y, 0.7, atol=1e-14)
    assert reference.downsample(x).shape[:2] == ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    assert reference.upsample(x, finer).shape[:2] == finer


def test_downsample_keeps_the_mean_of_even_sizes(rng):
    # Each inner pixel is weighted (1 + 3) / 8 in all; so is a border pixel, whose mirror image counts for it.
    x = draw_image(rng, 10, 16)
    assert_allclose(reference.downsample(x).mean(axis=(0, 1)), x.mean(axis=(0, 1)), atol=1e-14)


def test_downsample_has_the_binomial_taps():
    x = np.zeros((1, 8))
    x[0, 4] = 8
    assert_allclose(reference.downsample(x), [[0, 1, 3, 0]], atol=1e-14)
    x = np.zeros((1, 8))
    x[0, 0] = 8  # and its mirror image at -1
    assert_allclose(reference.downsample(x), [[4, 0, 0, 0]], atol=1e-14)
    x = np.zeros((1, 7))
    x[0, 6] = 8  # and its mirror image at 7
    assert_allclose(reference.downsample(x), [[0, 0, 1, 6]], atol=1e-14)


def test_upsample_phases_are_keys_by_hand():
    # Keys' kernel with a = -0.5 at 1/4 and 3/4 of a pixel: 0.8671875, 0.2265625, -0.0703125, -0.0234375.
    near, far, below, beyond = 0.8671875, 0.2265625, -0.0703125, -0.0234375
    x = np.zeros((1, 9))
    x[0, 4] = 1
    # Pixel 2k lies at k - 1/4, pixel 2k + 1 at k + 1/4.
    expected = np.zeros(18)
    expected[[8, 9]] = near
    expected[[7, 10]] = far
    expected[[6, 11]] = below
    expected[[5, 12]] = beyond
    assert_allclose(reference.keys_kernel(np.array([0.25, 0.75, 1.25, 1.75])), [near, far, below, beyond])
    assert_allclose(reference.upsample(x, (1, 18))[0], expected, atol=1e-14)
    assert_allclose(reference.upsample(x.T, (18, 1))[:, 0], expected, atol=1e-14)
    assert_allclose(reference.upsample(x, (1, 17))[0], expected[:17], atol=1e-14)


def test_resample_bicubic_reproduces_quadratics_away_from_the_border():
    # Keys' a = -0.5 is the value for which the interpolation is exact up to second order.
    centres = np.arange(40)
    y = reference.resample_bicubic((0.01 * centres**2 + 0.1 * centres)[None], (1, 97))[0]
    at = (np.arange(97) + 0.5) * 40 / 97 - 0.5
    inner = (at > 1) & (at < 38)
    assert_allclose(y[inner], (0.01 * at**2 + 0.1 * at)[inner], atol=1e-12)


def test_upsample_is_resample_bicubic_at_twice_the_size(rng):
    x = draw_image(rng, 9, 6)
    assert_allclose(reference.upsample(x, (18, 12)), reference.resample_bicubic(x, (18, 12)), atol=1e-13)


def test_upsample_refuses_other_sizes():
    for shape in ((6, 8), (9, 8), (8, 6), (8, 9)):
        with pytest.raises(ValueError, match=r"^shape: expected"):
            reference.upsample(np.zeros((4, 4)), shape)


def test_resample_nearest_picks_the_covering_pixel():
    x = np.arange(5.0)[None]
    assert_array_equal(reference.resample_nearest(x, (1, 10)), [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])
    # Centres of three output pixels lie at 5/6, 15/6 and 25/6 of the five: a half is rounded up.
    assert_array_equal(reference.resample_nearest(x, (1, 3)), [[0, 2, 4]])
    assert_array_equal(reference.resample_nearest(x[:, :4], (1, 2)), [[1, 3]])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 64), (100, 7)])
def test_area_average_keeps_the_mean(shape, rng):
    x = draw_image(rng, 30, 41)
    assert_allclose(reference.area_average(x, shape).mean(axis=(0, 1)), x.mean(axis=(0, 1)), atol=1e-13)


def test_area_average_weighs_by_coverage():
    assert_allclose(reference.area_average(np.array([[0.0, 3.0, 6.0]]), (1, 2)), [[1.0, 5.0]])
    assert_allclose(reference.area_average(np.array([[0.0, 6.0]]), (1, 3)), [[0.0, 3.0, 6.0]])
    x = np.arange(24.0).reshape(4, 6)
    assert_allclose(reference.area_average(x, (2, 3)), x.reshape(2, 2, 3, 2).mean(axis=(1, 3)))


def test_resize_grows_bicubically_and_shrinks_by_area(rng):
    x = draw_image(rng, 8, 8)
    assert_allclose(reference.resize(x, (20, 30)), reference.resample_bicubic(x, (20, 30)))
    assert_allclose(reference.resize(x, (3, 5)), reference.area_average(x, (3, 5)))
    grown = reference.resample_bicubic(x, (20, 8))
    assert_allclose(reference.resize(x, (20, 3)), reference.area_average(grown, (20, 3)))


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 1), 64, [(1, 1)]),
        ((1, 1), 1, [(1, 1)]),
        ((64, 64), 64, [(64, 64)]),
        ((126, 400), 64, [(126, 400)]),
        ((127, 400), 64, [(64, 200), (127, 400)]),
        ((480, 641), 64, [(120, 161), (240, 321), (480, 641)]),
        ((256, 256), 64, [(64, 64), (128, 128), (256, 256)]),
        ((5, 3), 1, [(1, 1), (2, 1), (3, 2), (5, 3)]),
        ((1, 8), 1, [(1, 1), (1, 2), (1, 4), (1, 8)]),
    ],
)
def test_pyramid_shapes_aspect_by_hand(shape, size, expected):
    assert reference.pyramid_shapes(shape, size, "aspect") == expected


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 1), 64, [(1, 1)]),
        ((64, 64), 64, [(64, 64)]),
        ((65, 10), 64, [(64, 64), (65, 10)]),
        ((128, 128), 64, [(64, 64), (128, 128)]),
        ((480, 641), 64, [(64, 64), (128, 128), (256, 256), (512, 512), (480, 641)]),
        ((1, 5), 1, [(1, 1), (2, 2), (4, 4), (1, 5)]),
    ],
)
def test_pyramid_shapes_square_by_hand(shape, size, expected):
    assert reference.pyramid_shapes(shape, size, "square") == expected
    levels = max(0, int(np.ceil(np.log2(max(shape) / size)))) + 1  # the released program's count
    assert len(expected) == levels


# ---------------------------------------------------------------------------------- the seam, unknown pixels


def brute_force_inset(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The definition, pixel by pixel: the least of the city-block ball, except where a component would be gone."""
    height, width = mask.shape
    eroded = np.empty_like(mask)
    for y in range(height):
        for x in range(width):
            eroded[y, x] = min(
                mask[j, i]
                for j in range(max(0, y - pixels), min(height, y + pixels + 1))
                for i in range(max(0, x - pixels), min(width, x + pixels + 1))
                if abs(j - y) + abs(i - x) <= pixels
            )
    out = eroded.copy()
    seen = np.zeros(mask.shape, dtype=bool)
    for start in zip(*np.nonzero(mask > 0), strict=True):
        if seen[start]:
            continue
        component, front = [start], [start]
        seen[start] = True
        while front:
            y, x = front.pop()
            for j, i in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= j < height and 0 <= i < width and mask[j, i] > 0 and not seen[j, i]:
                    seen[j, i] = True
                    component.append((j, i))
                    front.append((j, i))
        if not any(eroded[p] > 0 for p in component):
            for p in component:
                out[p] = mask[p]
    return out


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 22)])
def test_inset_is_its_definition(shape, soft, pixels, rng):
    for _ in range(3):
        mask = draw_mask(rng, *shape, soft=soft)
        assert_array_equal(reference.inset(mask, pixels), brute_force_inset(mask, pixels))
    ragged = (rng.random(shape) < 0.7).astype(float)
    assert_array_equal(reference.inset(ragged, pixels), brute_force_inset(ragged, pixels))


def test_inset_spares_the_border_and_what_would_vanish():
    mask = np.zeros((7, 12))
    mask[:, :4] = 1  # at the border on three sides: only its right side gives way
    mask[3, 7] = 0.5  # a component of one pixel
    expected = mask.copy()
    expected[:, 2:4] = 0
    assert_array_equal(reference.inset(mask, 2), expected)
    assert_array_equal(reference.inset(np.ones((4, 5)), 3), np.ones((4, 5)))


def test_extend_never_sees_what_is_unknown(rng):
    source = draw_image(rng, 19, 26)
    alpha = draw_mask(rng, 19, 26)
    other = source.copy()
    other[alpha == 0] = rng.uniform(-1e6, 1e6, (int((alpha == 0).sum()), 3))
    assert_array_equal(reference.extend(source, alpha), reference.extend(other, alpha))
    other[alpha == 0] = np.nan
    assert_array_equal(reference.extend(source, alpha), reference.extend(other, alpha))


@pytest.mark.parametrize("shape", SHAPES)
def test_extend_is_a_mean_of_what_is_known(shape, rng):
    source, alpha = draw_image(rng, *shape), draw_mask(rng, *shape)
    filled = reference.extend(source, alpha)
    known = alpha > 0
    assert_array_equal(filled[known], source[known])
    # A mean lies between the least and the largest; the last digits are rounding.
    assert (filled >= source[known].min(axis=0) - 1e-12).all()
    assert (filled <= source[known].max(axis=0) + 1e-12).all()
    constant = np.full((*shape, 3), 0.3)
    assert_allclose(reference.extend(constant, alpha), constant, atol=1e-14)


def test_extend_of_nothing_is_zero():
    assert_array_equal(reference.extend(np.full((3, 4, 3), np.nan), np.zeros((3, 4))), np.zeros((3, 4, 3)))


def test_extend_weighs_by_alpha():
    source = np.array([[[0.0], [1.0]], [[9.0], [9.0]]])
    filled = reference.extend(source, np.array([[0.25, 0.75], [0.0, 0.0]]))
    assert_allclose(filled[1, :, 0], 0.75)  # the mean of the one block that there is
