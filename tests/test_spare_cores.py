"""What calls of gpgan.blend leave to later ones changes no result, keeps no caller's arrays and stays bounded."""

import gc
import threading
import weakref

import numpy as np
import pytest
from conftest import draw_image, draw_mask
from numpy.testing import assert_array_equal

import gpgan
from gpgan import blender, clear_cache

H, W = 40, 52


@pytest.fixture
def images(rng):
    return draw_image(rng, H, W), draw_image(rng, H, W), draw_mask(rng, H, W)


@pytest.fixture(autouse=True)
def empty():
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def made(monkeypatch):
    """Counts the cores that are made."""
    calls = []
    core = blender._core.Blender

    def counted(*args, **options):
        calls.append((args, options))
        return core(*args, **options)

    monkeypatch.setattr(blender._core, "Blender", counted)
    return calls


def kept():
    return len(blender._spare_cores._cores)


def test_blend_leaves_its_core_to_the_next_call(images, made):
    fresh = gpgan.Blender((H, W, 3), generator=None)(*images)
    made.clear()
    for _ in range(3):
        assert_array_equal(gpgan.blend(*images, generator=None), fresh)
    assert len(made) == 1
    assert kept() == 1
    clear_cache()
    assert kept() == 0
    assert_array_equal(gpgan.blend(*images, generator=None), fresh)
    assert len(made) == 2


def test_a_core_is_left_for_other_generators_of_its_size(images, made):
    # It knows nothing of generators; what one gives must not show in the next call.
    dark = gpgan.blend(*images, generator=lambda c, m, h, s: 0.5 * h)
    plain = gpgan.blend(*images, generator=None)
    assert len(made) == 1
    clear_cache()
    assert_array_equal(gpgan.blend(*images, generator=None), plain)
    assert_array_equal(gpgan.blend(*images, generator=lambda c, m, h, s: 0.5 * h), dark)
    assert not np.allclose(dark, plain, atol=0.01)


OPTIONS = [
    {}, {"mode": "paper"}, {"mode": "released"}, {"color_weight": 2.0}, {"sigma": 0.75}, {"equation": "screened"},
    {"carry": "image"}, {"pyramid": "square"}, {"membrane": False}, {"inset": 0}, {"inset": 1}, {"threads": 1},
    {"lowres": np.full((32, 32, 3), 0.5)}, {"lowres": np.full((16, 16, 3), 0.5)},
]  # fmt: skip


def test_options_are_not_confused(images):
    expected = []
    for options in OPTIONS:
        clear_cache()
        expected.append(gpgan.blend(*images, generator=None, **options))
    for _ in range(2):
        for options, result in zip(OPTIONS, expected, strict=True):
            assert_array_equal(gpgan.blend(*images, generator=None, **options), result)
    grey = [x[..., 0] if x.ndim == 3 else x for x in images]
    clear_cache()
    expected_grey = gpgan.blend(*grey, generator=None)
    gpgan.blend(*images, generator=None)
    assert_array_equal(gpgan.blend(*grey, generator=None), expected_grey)


def test_values_that_only_look_equal_are_still_refused(images):
    gpgan.blend(*images, generator=None, inset=1, color_weight=1.0, membrane=True)
    with pytest.raises(TypeError, match=r"^inset: expected int"):
        gpgan.blend(*images, generator=None, inset=1.0, color_weight=1.0, membrane=True)
    with pytest.raises(TypeError, match=r"^color_weight: expected float"):
        gpgan.blend(*images, generator=None, inset=1, color_weight=True, membrane=True)
    with pytest.raises(TypeError, match=r"^membrane: expected bool"):
        gpgan.blend(*images, generator=None, inset=1, color_weight=1.0, membrane=1)


def test_the_environment_counts_at_every_call(images, made, monkeypatch):
    for threads in ("1", "2", "1"):
        monkeypatch.setenv("GPGAN_NUM_THREADS", threads)
        gpgan.blend(*images, generator=None)
    assert len(made) == 2
    monkeypatch.setenv("GPGAN_NUM_THREADS", "many")
    with pytest.raises(ValueError, match=r"^GPGAN_NUM_THREADS: expected"):
        gpgan.blend(*images, generator=None)
    monkeypatch.delenv("GPGAN_NUM_THREADS")
    monkeypatch.setattr("gpgan._arrays._max_pixels", None)  # as no set_max_pixels() has said otherwise
    monkeypatch.setenv("GPGAN_MAX_PIXELS", str(H * W - 1))
    with pytest.raises(ValueError, match=rf"^target: expected at most {H * W - 1} pixels"):
        gpgan.blend(*images, generator=None)


def test_the_memory_that_is_kept_is_bounded(images, monkeypatch):
    for size in range(10, 17):
        part = [x[:size, :size] for x in images]
        gpgan.blend(*part, generator=None)
    assert [key[0] for key, _, _ in blender._spare_cores._cores] == [(n, n) for n in (13, 14, 15, 16)]
    monkeypatch.setattr(blender._SpareCores, "PIXELS", 16 * 16 + 15 * 15)
    gpgan.blend(*(x[:16, :16] for x in images), generator=None)
    assert [key[0] for key, _, _ in blender._spare_cores._cores] == [(15, 15), (16, 16)]
    gpgan.blend(*images, generator=None)  # too large itself
    assert kept() == 0


def test_a_failed_call_leaves_nothing(images):
    source, target, mask = images
    gpgan.blend(*images, generator=None)
    with pytest.raises(ValueError, match=r"^source: expected finite floats"):
        gpgan.blend(np.full_like(source, np.nan), target, mask, generator=None)
    assert kept() == 0


def test_no_array_or_generator_of_the_caller_lives_on(images):
    class Same:
        def __call__(self, composite, mask, harmonized, source):
            return harmonized

    arrays = [np.array(x) for x in images]
    generator = Same()
    seen = [weakref.ref(x) for x in (*arrays, generator)]
    result = gpgan.blend(*arrays, generator=generator)
    seen.append(weakref.ref(result))
    del arrays, generator, result
    gc.collect()
    assert [ref() for ref in seen] == [None] * 5
    assert kept() == 1


def test_calls_side_by_side_have_cores_of_their_own(images, made):
    expected = gpgan.blend(*images, generator=lambda c, m, h, s: h)
    made.clear()
    meet = threading.Barrier(2, timeout=60)

    def generator(composite, mask, harmonized, source):
        meet.wait()  # both calls are between prepare and finish at once, or this breaks
        return harmonized

    results = []
    workers = [threading.Thread(target=lambda: results.append(gpgan.blend(*images, generator=generator))) for _ in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 2
    for result in results:
        assert_array_equal(result, expected)
    assert len(made) == 1
    assert kept() == 2


def test_a_generator_may_blend_too(images):
    def inner(composite, mask, harmonized, source):
        return harmonized

    def outer(composite, mask, harmonized, source):
        gpgan.blend(images[1], images[0], images[2], generator=inner)
        return harmonized

    assert_array_equal(gpgan.blend(*images, generator=outer), gpgan.blend(*images, generator=inner))
