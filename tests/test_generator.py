"""Where the low-resolution colour comes from: shipped models, files, modules, callables, arrays."""

import threading
import zipfile

import numpy as np
import pytest
import tolerances
import torch
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal

import gpgan
from gpgan import reference

H, W = 50, 61


@pytest.fixture
def images(rng):
    """Source, target, mask: floats."""
    return draw_image(rng, H, W), draw_image(rng, H, W), draw_mask(rng, H, W)


class Darker(torch.nn.Module):
    """The smallest generator there is, to the contract."""

    def forward(
        self, composite: torch.Tensor, mask: torch.Tensor, harmonized: torch.Tensor, source: torch.Tensor
    ) -> torch.Tensor:
        return 0.5 * composite + 0.125 * harmonized + 0.125 * source + 0.125 * mask


def darker(composite, mask, harmonized, source):
    return 0.5 * composite + 0.125 * harmonized + 0.125 * source + 0.125 * mask[..., None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A TorchScript file with S = 16."""
    path = tmp_path_factory.mktemp("generator") / "darker.pt"
    gpgan.nn.export.export(Darker(), path, image_size=16, architecture="darker", training_data="none")
    return path


# -------------------------------------------------------------------------------------------------- callables


def test_generator_gets_the_four_images_of_the_reference(images):
    seen = []

    def generator(*inputs):
        seen.extend(inputs)
        return inputs[2]

    gpgan.blend(*images, generator=generator)
    expected = reference.generator_inputs(*images)
    assert len(seen) == 4
    for got, want in zip(seen, expected, strict=True):
        assert got.dtype == np.float32
        assert got.shape == want.shape
        assert_allclose(got, want, atol=tolerances.MEMBRANE_MAX, rtol=0)
    assert not np.allclose(seen[0], seen[2], atol=0.01)  # harmonized is not the plain composite
    seen.clear()
    gpgan.blend(*images, generator=generator, mode="paper")
    assert_array_equal(seen[0], seen[2])


def test_generator_gets_images_in_range():
    # A white square on black goes into white: the membrane is 1, the square would be 2.
    source, target, mask = np.zeros((H, W, 3)), np.ones((H, W, 3)), np.zeros((H, W))
    source[20:30, 20:30] = mask[10:40, 10:40] = 1
    seen = []
    result = gpgan.blend(source, target, mask, generator=lambda *inputs: seen.extend(inputs) or inputs[2])
    assert_allclose(seen[2], 1, atol=tolerances.MEMBRANE_MAX)
    # And a generator that changes nothing leaves Poisson cloning as it is.
    assert_array_equal(result, gpgan.blend(source, target, mask, generator=None))
    for image in seen:
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
def test_generator_result_is_the_lowres_colour(mode, images):
    seen = []

    def generator(*inputs):
        seen.append(darker(*inputs))
        return seen[-1]

    result = gpgan.blend(*images, generator=generator, mode=mode)
    assert_array_equal(gpgan.blend(*images, lowres=seen[0], mode=mode), result)
    assert not np.allclose(gpgan.blend(*images, generator=None, mode=mode), result, atol=0.05)


def test_generator_none_is_the_harmonized_composite(images):
    assert_array_equal(gpgan.blend(*images, generator=None), gpgan.blend(*images, generator=lambda c, m, h, s: h))
    assert_array_equal(
        gpgan.blend(*images, generator=None, mode="paper"),
        gpgan.blend(*images, generator=lambda c, m, h, s: c, mode="paper"),
    )


def test_generator_image_size_is_its_attribute(images):
    sizes = []

    class Sized:
        image_size = 24

        def __call__(self, composite, mask, harmonized, source):
            sizes.append((composite.shape, mask.shape, harmonized.shape, source.shape))
            return composite

    gpgan.blend(*images, generator=Sized())
    assert sizes == [((24, 24, 3), (24, 24), (24, 24, 3), (24, 24, 3))]
    gpgan.Blender((H, W), generator=Sized())(*images)
    assert sizes[1] == sizes[0]


def test_generator_sees_grey_images_in_three_channels(images):
    source, target = (x[..., 0] for x in images[:2])

    def generator(composite, mask, harmonized, source):
        assert composite.shape == harmonized.shape == source.shape == (64, 64, 3)
        assert_array_equal(composite[..., 0], composite[..., 2])
        return composite * np.float32([0.5, 1, 0.75])

    result = gpgan.blend(source, target, images[2], generator=generator)
    expected = gpgan.blend(source, target, images[2], generator=lambda c, *_: 0.75 * c)
    assert_allclose(result, expected, atol=1e-6, rtol=0)


def test_generator_is_not_asked_where_nothing_is_masked(images):
    def generator(*_):
        raise AssertionError("called")

    source, target, mask = images
    assert_array_equal(gpgan.blend(source, target, 0 * mask, generator=generator), target)
    assert_array_equal(gpgan.blend(source, target, mask, generator=generator, offset=(H, 0)), target)


def test_generator_is_called_once_for_each_image_of_a_batch(rng):
    batch = torch.from_numpy(rng.uniform(size=(3, 3, 20, 20)))
    calls = []
    gpgan.blend(batch, batch, torch.ones(1, 1, 20, 20), generator=lambda c, *_: calls.append(c) or c)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((64, 64)), r"generator: expected it to return shape \(64, 64, 3\), got \(64, 64\)"),
        (np.zeros((3, 64, 64)), r"generator: expected it to return shape \(64, 64, 3\), got \(3, 64, 64\)"),
        (np.full((64, 64, 3), np.nan), r"generator: expected it to return finite values in \[0, 1\]"),
        (np.full((64, 64, 3), 1.1), r"generator: expected it to return finite values in \[0, 1\]"),
        (np.full((64, 64, 3), -0.1), r"generator: expected it to return finite values in \[0, 1\]"),
    ],
)
def test_generator_results_are_checked(value, message, images):
    with pytest.raises(ValueError, match=f"^{message}"):
        gpgan.blend(*images, generator=lambda *_: value)


# ------------------------------------------------------------------------------------------------------ lowres


@pytest.mark.parametrize("size", [1, 2, 16, 64, 100])
def test_lowres_may_be_of_any_size(size, images, rng):
    lowres = draw_image(rng, size, size)
    for options in ({"mode": "paper"}, {"membrane": False}):
        result = gpgan.blend(*images, lowres=lowres, **options)
        assert_allclose(result, reference.blend(*images, lowres=lowres, **options), atol=tolerances.NATIVE, rtol=0)


def test_lowres_overrides_the_generator(images, rng):
    lowres = draw_image(rng, 32, 32)

    def generator(*_):
        raise AssertionError("called")

    expected = gpgan.blend(*images, lowres=lowres, generator=None)
    assert_array_equal(gpgan.blend(*images, lowres=lowres, generator=generator), expected)
    assert_array_equal(gpgan.Blender((H, W), generator=generator)(*images, lowres=lowres), expected)


def test_lowres_may_be_of_any_kind(images, rng):
    lowres = np.round(draw_image(rng, 16, 16) * 255).astype(np.uint8)
    expected = gpgan.blend(*images, lowres=lowres)
    assert_allclose(gpgan.blend(*images, lowres=lowres / 255), expected, atol=1e-6, rtol=0)
    planes = torch.from_numpy(np.ascontiguousarray(lowres.transpose(2, 0, 1)))
    assert_array_equal(gpgan.blend(*images, lowres=planes), expected)
    assert_array_equal(gpgan.blend(*images, lowres=lowres[::-1].copy()[::-1]), expected)


def test_lowres_of_one_colour_pulls_towards_it(images):
    # What the whole method is for: with a strong colour weight the masked part takes the low-resolution colour on.
    source, target, mask = images
    lowres = np.full((64, 64, 3), (0.9, 0.1, 0.1))
    result = gpgan.blend(source, target, mask, lowres=lowres, mode="paper", color_weight=10)
    assert_allclose(result.mean(axis=(0, 1)), [0.9, 0.1, 0.1], atol=0.03)


# -------------------------------------------------------------------------------------------------- TorchScript


def test_load_generator_gives_what_the_file_says(exported, rng):
    generator = gpgan.load_generator(exported)
    assert isinstance(generator, gpgan.Generator)
    assert generator.image_size == 16
    assert generator.metadata["architecture"] == "darker"
    assert "darker" in repr(generator)
    assert "16" in repr(generator)
    inputs = [draw_image(rng, 16, 16).astype(np.float32) for _ in range(3)]
    mask = draw_mask(rng, 16, 16).astype(np.float32)
    arguments = (inputs[0], mask, inputs[1], inputs[2])
    result = generator(*arguments)
    assert result.dtype == np.float32
    assert result.shape == (16, 16, 3)
    assert_allclose(result, darker(*arguments), atol=1e-6)


def test_generator_may_be_a_path_a_string_or_a_module(exported, images):
    class Sized:
        image_size = 16

        def __call__(self, *inputs):
            return darker(*inputs)

    expected = gpgan.blend(*images, generator=Sized())
    module = Darker()
    module.image_size = 16
    for generator in (exported, str(exported), gpgan.load_generator(exported), module):
        assert_allclose(gpgan.blend(*images, generator=generator), expected, atol=1e-6, rtol=0)


def test_load_generator_default_takes_no_colour_out_of_range(images):
    assert "default" in gpgan.generators()
    generator = gpgan.load_generator("default")
    assert 64 <= generator.image_size <= 256
    for key in ("architecture", "version", "training_data"):
        assert generator.metadata[key]
    result = gpgan.blend(*images)
    assert result.shape == images[1].shape
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    assert_array_equal(gpgan.blend(*images, generator="default"), result)
    assert_array_equal(gpgan.blend(*images, generator=generator), result)


def test_load_generator_may_be_called_from_many_threads(exported, rng):
    generator = gpgan.load_generator(exported)
    image, mask = draw_image(rng, 16, 16).astype(np.float32), np.ones((16, 16), np.float32)
    expected, results = generator(image, mask, image, image), [None] * 8

    def work(i):
        for _ in range(10):
            results[i] = generator(image, mask, image, image)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        assert_array_equal(result, expected)


def test_load_generator_refuses_what_is_none(tmp_path, exported):
    with pytest.raises(
        FileNotFoundError, match=r"^generator: expected one of 'default'.* or a TorchScript file, got 'nope'"
    ):
        gpgan.load_generator("nope")
    with pytest.raises(FileNotFoundError, match=r"^generator: expected"):
        gpgan.blend(np.zeros((4, 4)), np.zeros((4, 4)), np.ones((4, 4)), generator=tmp_path)
    text = tmp_path / "text.pt"
    text.write_text("no model")
    with pytest.raises(ValueError, match=r"is no TorchScript file: expected"):
        gpgan.load_generator(text)
    archive = tmp_path / "archive.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello.txt", "no model")
    with pytest.raises(ValueError, match=r"archive\.pt"):
        gpgan.load_generator(archive)
    torch.jit.save(torch.jit.script(Darker()), tmp_path / "bare.pt")
    with pytest.raises(ValueError, match=r"has no gpgan\.json: expected"):
        gpgan.load_generator(tmp_path / "bare.pt")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(exported.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"damaged\.pt"):
        gpgan.load_generator(damaged)


def test_load_generator_reads_a_changed_file_anew(tmp_path, exported):
    path = tmp_path / "g.pt"
    path.write_bytes(exported.read_bytes())
    assert gpgan.load_generator(path).image_size == 16
    gpgan.nn.export.export(Darker(), path, image_size=8, architecture="darker", training_data="none")
    assert gpgan.load_generator(path).image_size == 8


# ---------------------------------------------------------------------------------------------- good manners


@pytest.mark.parametrize("scripted", [False, True])
def test_a_network_in_training_stays_in_training(scripted, images):
    class Noisy(Darker):
        def forward(
            self, composite: torch.Tensor, mask: torch.Tensor, harmonized: torch.Tensor, source: torch.Tensor
        ) -> torch.Tensor:
            return torch.dropout(composite, 0.5, self.training)

    network = torch.jit.script(Noisy()) if scripted else Noisy()
    expected = gpgan.blend(*images, generator=lambda composite, *_: composite)
    for training in (True, False):
        network.train(training)
        assert_array_equal(gpgan.blend(*images, generator=network), expected)  # evaluated all the same
        assert network.training == training


def test_a_file_is_loaded_once_and_again_when_it_changes(exported, tmp_path):
    path = tmp_path / "darker.pt"
    path.write_bytes(exported.read_bytes())
    first = gpgan.load_generator(path)
    assert gpgan.load_generator(path) is first
    gpgan.nn.export.export(Darker(), path, image_size=32, architecture="darker", training_data="none")
    assert gpgan.load_generator(path).image_size == 32


def test_a_generator_cannot_call_its_own_blender(images):
    source, target, mask = images
    blender = None

    def inward(composite, mask_, harmonized, source_):
        return blender(source, target, mask)

    blender = gpgan.Blender(target.shape, generator=inward)
    with pytest.raises(RuntimeError, match=r"^generator: expected it not to call the Blender"):
        blender(source, target, mask)
    assert_array_equal(
        blender(source, target, mask, lowres=np.full((64, 64, 3), 0.5)),
        gpgan.blend(source, target, mask, lowres=np.full((64, 64, 3), 0.5)),
    )


def test_generator_results_are_arrays(images):
    with pytest.raises(TypeError, match=r"^generator: expected it to return an array of shape .*, got str"):
        gpgan.blend(*images, generator=lambda *_: "hi")


def test_image_size_of_a_callable_is_checked(images):
    for size in ("abc", None, 64.5):

        def odd(*_):
            raise AssertionError("never reached")

        odd.image_size = size
        with pytest.raises((TypeError, ValueError), match=r"^(generator.image_size|image_size): expected"):
            gpgan.blend(*images, generator=odd)
