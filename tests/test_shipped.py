"""What the shipped generator does to pictures that it was not made for: no colour cast, no change where none is due."""

import itertools

import cv2
import numpy as np
import pytest
from skimage import data

import gpgan

HEIGHT, WIDTH = 200, 300
#: Levels of 255 by which one channel may drift from the others, in the mean over what was pasted.
CAST = 8


def small(photo):
    return cv2.resize(photo, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def night(photo):
    linear = (photo / 255) ** 2.2
    dark = 0.1 * (0.6 * linear.mean(2, keepdims=True) * [0.7, 0.85, 1.2] + 0.4 * linear)
    return np.rint(255 * np.clip(dark, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def painted(photo):
    return cv2.stylization(photo, sigma_s=60, sigma_r=0.45)


def grey(photo):
    return np.repeat(np.rint(photo.mean(2, keepdims=True)).astype(np.uint8), 3, 2)


@pytest.fixture(scope="module")
def photos():
    """Two indoor photos, an animal, a launch in the evening."""
    return [small(photo) for photo in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())]


@pytest.fixture(scope="module")
def mask():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((y - 100) / 45) ** 2 + ((x - 140) / 60) ** 2 < 1


@pytest.mark.parametrize(
    ("of_source", "of_target"),
    [(np.copy, np.copy), (night, night), (np.copy, night), (night, np.copy), (painted, painted), (np.copy, painted)],
)
def test_shipped_gives_no_cast(photos, mask, of_source, of_target):
    for source, target in itertools.permutations(photos, 2):
        plain, result = (
            gpgan.blend(of_source(source), of_target(target), mask, generator=generator)[mask].astype(float).mean(0)
            for generator in (None, "default")
        )
        change = result - plain
        assert np.abs(change - change.mean()).max() < CAST


def test_shipped_keeps_grey_pictures_grey(photos, mask):
    for source, target in itertools.permutations(photos, 2):
        result = gpgan.blend(grey(source), grey(target), mask).astype(int)
        assert np.ptp(result, axis=2).max() <= 1


def test_shipped_leaves_alone_what_agrees(photos, mask):
    for photo in photos:
        assert np.abs(gpgan.blend(photo, photo, mask).astype(int) - photo).mean() < 1


def test_shipped_brings_the_light_of_the_target(photos, mask):
    """The same place in a warmer, darker light: nearer to the truth than Poisson cloning."""
    for photo in photos:
        target = np.rint(photo * [0.8, 0.6, 0.45] + 8).astype(np.uint8)
        plain, result = (
            np.square(gpgan.blend(photo, target, mask, generator=generator)[mask] - target[mask].astype(float)).mean()
            for generator in (None, "default")
        )
        assert result < plain
