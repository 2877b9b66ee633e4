"""Synthetic photos for the training tests: smooth scenes with a few edges, each under several lights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def draw_scene(rng: np.random.Generator, height: int = 40, width: int = 56) -> np.ndarray:
    """(H, W, 3) in [0, 1]: sky, ground and some boxes."""
    image = np.linspace(0.8, 0.3, height)[:, None, None] * rng.uniform(0.5, 1, 3) * np.ones((1, width, 1))
    for _ in range(6):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        image[top : top + rng.integers(4, 12), left : left + rng.integers(4, 16)] = rng.uniform(0, 1, 3)
    return image


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``scenes/<camera>/*.jpg`` (three cameras), ``photos/*.png`` and ``masks/*.png``."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for camera in ("harbour", "square", "street"):
        scene = draw_scene(rng)
        for i in range(3):
            save(root / "scenes" / camera / f"{i}.jpg", scene * rng.uniform(0.4, 1, 3))
    for i in range(3):
        save(root / "photos" / f"{i}.png", draw_scene(rng, 48, 48))
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:25] = 255
    (root / "masks").mkdir()
    Image.fromarray(mask).save(root / "masks" / "box.png")
    return root


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny networks run faster on one thread, and bit for bit the same everywhere."""
    torch.set_num_threads(1)
