"""Validation: held-out pairs blended as `gpgan.blend` blends them, with the network and without it.

The truth of a pair is its target, another frame of the same camera than the source. PSNR is that of the blend at the
frames' resolution inside the mask's core, so that nobody scores by copying the target at the rim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from gpgan import _core
from gpgan.nn.config import TrainConfig
from gpgan.nn.data import find_images, find_masks, find_scenes, random_mask, read_crops, read_masks

try:
    import cv2
except ImportError as error:
    raise ImportError("gpgan.nn.train needs OpenCV: pip install 'gpgan[train]'") from error

__all__ = ["HeldOut", "Scores"]

Pixels = NDArray[np.uint8]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
_CORE = 4  # pixels by which the mask is eroded for its core
_BATCH = 16
_SHOWN = 4


class _Pair(NamedTuple):
    scene: str
    related: bool
    source: Pixels  # (H, W, 3)
    target: Pixels  # (H, W, 3)
    mask: Pixels  # (H, W), 0 or 255
    inputs: Inputs  # (1, C, S, S), what the generator sees
    plain: Pixels  # (H, W, 3), the blend without a generator


class Scores(NamedTuple):
    """`numbers` by name, and a picture of a few pairs: composite, without the generator, with it, the truth."""

    numbers: dict[str, float]
    samples: Image.Image


class HeldOut:
    """The held-out pairs of a run, a function of its configuration alone.

    Half of them show another place around the source's object than around the target's, as a real source does.

    Parameters
    ----------
    config : TrainConfig
        With at least one camera in `held_out`.
    masks : sequence of paths
        Drawn masks for `gpgan.nn.data.random_mask`.

    Raises
    ------
    ValueError
        If a mask below ``config.held_out_masks`` has not the size of its camera's frames.
    """

    def __init__(self, config: TrainConfig, masks: Sequence[Path] = ()) -> None:
        self._threads = config.threads or 0
        self._image_size = config.image_size
        self._options = _core.options("default" if config.membrane else "paper")
        self._blender: tuple[tuple[int, int], _core.Blender] | None = None

        scenes = find_scenes(config.scenes)
        if missing := sorted(set(config.held_out) - set(scenes)):
            raise ValueError(f"held_out names no camera below {config.scenes!r}: {missing}")
        cameras, rows = sorted(set(config.held_out)), config.validation_rows
        boxes = read_crops(config.crop_file) if config.crop_file is not None else {}
        drawn = {camera: _drawn_masks(config.held_out_masks, camera) for camera in cameras}
        if config.held_out_masks is not None and not any(drawn.values()):
            raise ValueError(f"held_out_masks: no folder of any held-out camera below {config.held_out_masks!r}")
        places = [path for root in config.photos for path in find_images(root)]
        places = places or [path for camera in scenes for path in scenes[camera] if camera not in cameras]

        self._pairs: list[_Pair] = []
        for i in range(config.validation_pairs):
            rng = np.random.default_rng((config.seed + 1, i))
            camera, related = cameras[i % len(cameras)], i // len(cameras) % 2 == 0
            first, second = (scenes[camera][k] for k in rng.choice(len(scenes[camera]), 2, replace=False))
            photos = [_open(path) for path in (first, second)]
            width, height = np.minimum(photos[0].size, photos[1].size).tolist()
            top, left, bottom, right = boxes.get(camera, (0, 0, height, width))
            source, target = (_shrunk(photo.crop((left, top, right, bottom)), rows) for photo in photos)
            if drawn[camera]:
                path, whole = drawn[camera][int(rng.integers(len(drawn[camera])))]
                if whole.size != photos[0].size:
                    raise ValueError(f"held_out_masks: expected {path} to be {photos[0].size} like {first}")
                view = _shrunk(whole.crop((left, top, right, bottom)), rows)
                mask = np.where(view > 127, 255, 0).astype(np.uint8)
            else:
                mask = _object_mask(rng, source, masks)
            if not related:
                rim = cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=2) > 0
                place = _shrunk(_open(places[int(rng.integers(len(places)))]), rows)
                place = np.asarray(cv2.resize(place, mask.shape[::-1], interpolation=cv2.INTER_AREA))
                source = np.where(rim[..., None], source, place).astype(np.uint8)
            core, inputs = self._prepare(source, target, mask)
            self._pairs.append(_Pair(camera, related, source, target, mask, inputs, _finish(core, None, target)))
        self._before = np.array([_psnr(pair.plain, pair) for pair in self._pairs])

    @torch.no_grad()
    def __call__(self, generator: nn.Module, device: torch.device) -> Scores:
        """Blend all pairs.

        Returns
        -------
        Scores
            Numbers in dB, but for the last: ``psnr``, the mean; ``gain``, what the generator adds in the mean, and of
            it ``gain_related``, ``gain_unrelated`` by what surrounds the source, ``worst_tenth`` the mean of the worst
            tenth of the pairs and ``worst_scene`` the worst camera's; ``losing``, the share of pairs with a loss.
        """
        generator.eval()
        colours: list[Tensor] = []
        for start in range(0, len(self._pairs), _BATCH):
            batch = zip(*(pair.inputs for pair in self._pairs[start : start + _BATCH]), strict=True)
            colours += generator(*(torch.cat(images).to(device) for images in batch)).float().cpu()
        results = []
        for pair, colour in zip(self._pairs, colours, strict=True):
            core, _ = self._prepare(pair.source, pair.target, pair.mask)
            results.append(_finish(core, colour, pair.target))
        psnr = np.array([_psnr(result, pair) for result, pair in zip(results, self._pairs, strict=True)])
        gain = psnr - self._before

        def mean_of(chosen: list[bool]) -> float:
            return float(gain[np.array(chosen)].mean())

        numbers = {"psnr": float(psnr.mean()), "gain": float(gain.mean())}
        for name, related in (("gain_related", True), ("gain_unrelated", False)):
            chosen = [pair.related is related for pair in self._pairs]
            numbers |= {name: mean_of(chosen)} if any(chosen) else {}
        numbers["worst_tenth"] = float(np.sort(gain)[: -(-len(gain) // 10)].mean())
        names = {pair.scene for pair in self._pairs}
        numbers["worst_scene"] = min(mean_of([pair.scene == name for pair in self._pairs]) for name in names)
        numbers["losing"] = float((gain < 0).mean())
        return Scores(numbers, _samples(self._pairs[:_SHOWN], results))

    def _prepare(self, source: Pixels, target: Pixels, mask: Pixels) -> tuple[_core.Blender, Inputs]:
        """The core after the blend's first half, and the four images of shape (1, C, S, S) for a generator.

        A prepared core takes 65 bytes a pixel, and preparing less time than finishing: one serves all pairs in turn.
        """
        shape = (mask.shape[0], mask.shape[1])
        if self._blender is None or self._blender[0] != shape:
            core = _core.Blender(*shape, 3, image_size=self._image_size, threads=self._threads, **self._options)
            self._blender = shape, core
        core = self._blender[1]
        composite, soft, harmonized, surroundings = (
            torch.from_numpy(np.array(image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)[None]))
            for image in core.prepare(source, target, mask)
        )
        return core, (composite, soft, harmonized, surroundings)


def _finish(core: _core.Blender, colour: Tensor | None, target: Pixels) -> Pixels:
    """The blend's second half for the colour (3, S, S), or without a generator."""
    result: Pixels = target.copy()
    if not core.unchanged:
        core.finish(None if colour is None else np.ascontiguousarray(colour.permute(1, 2, 0).numpy()), result)
    return result


def _drawn_masks(root: str | None, camera: str) -> list[tuple[Path, Image.Image]]:
    """What is drawn for a camera, of its frames' size, and the file of each."""
    folder = None if root is None else Path(root) / camera
    if folder is None or not folder.is_dir():
        return []
    return [
        (path, Image.fromarray(mask.astype(np.uint8) * 255)) for path in find_masks(folder) for mask in read_masks(path)
    ]


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        photo: Image.Image = image.convert("RGB")
    return photo


def _shrunk(picture: Image.Image, rows: int) -> Pixels:
    """To `rows` rows at most."""
    if picture.height > rows:
        columns = max(round(picture.width * rows / picture.height), 1)
        picture = picture.resize((columns, rows), Image.Resampling.BOX)
    return np.asarray(picture)


def _object_mask(rng: np.random.Generator, frame: Pixels, files: Sequence[Path]) -> Pixels:
    """A mask (H, W), 0 or 255, that does not touch the border, as the outlines in `frame` suggest."""
    height, width = frame.shape[:2]
    guide = frame.astype(np.float32) / 255
    border = np.ones((height, width), bool)
    border[2:-2, 2:-2] = False
    for _ in range(20):
        mask = random_mask(rng, height, width, guide=guide, files=files)
        if not mask[border].any():
            break
    return np.asarray(np.where(border, 0, mask) * 255, np.uint8)


def _psnr(image: Pixels, pair: _Pair) -> float:
    """Inside the core of the pair's mask, or the mask where that has none."""
    size = 2 * _CORE + 1
    core = cv2.erode(pair.mask, np.ones((size, size), np.uint8)) > 0
    inside = core if core.any() else pair.mask > 0
    error = image[inside].astype(np.float64) / 255 - pair.target[inside] / 255.0
    return float(-10 * np.log10(np.mean(error**2) + 1e-8))


def _samples(pairs: Sequence[_Pair], results: Sequence[Pixels], cell: tuple[int, int] = (256, 192)) -> Image.Image:
    sheet = Image.new("RGB", (4 * cell[0], len(pairs) * cell[1]), "white")
    for row, (pair, result) in enumerate(zip(pairs, results, strict=False)):
        composite = np.where(pair.mask[..., None] > 0, pair.source, pair.target)
        for column, pixels in enumerate((composite, pair.plain, result, pair.target)):
            picture = Image.fromarray(pixels)
            picture.thumbnail(cell)
            sheet.paste(picture, (column * cell[0], row * cell[1]))
    return sheet
