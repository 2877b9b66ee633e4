"""Training pairs: two frames of one scene, or two lights simulated on one photo, and a mask.

A sample is what `gpgan.blend` would hand a generator for such a source, target and mask, made by the library's own
core at the photos' resolution: one uint8 array (10, S, S) with source 0:3, target 3:6, mask 6, harmonized 7:10. The
target is also the truth. Sample i of a dataset depends on its seed and i alone, whatever the number of workers or
threads.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gpgan import _core

try:
    import cv2
except ImportError as error:
    raise ImportError("gpgan.nn.data needs OpenCV: pip install 'gpgan[train]'") from error

from gpgan.nn.masks import IMAGE_SUFFIXES, Box, centred_square, find_masks, random_mask, read_masks

__all__ = [
    "Batch", "Box", "PairDataset", "Pool", "augment", "build_pool", "find_images", "find_masks", "find_scenes",
    "index_batches", "random_mask", "read_crops", "read_masks", "relight", "unpack",
]  # fmt: skip

FloatArray = NDArray[np.floating]


class Batch(NamedTuple):
    """Float tensors in [0, 1]: mask (N, 1, S, S), all others (N, 3, S, S)."""

    composite: Tensor
    mask: Tensor
    harmonized: Tensor
    source: Tensor
    target: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a generator sees: composite, mask, harmonized, source."""
        return self[:4]


# --- Files --------------------------------------------------------------------------------------------------


def find_images(root: str | os.PathLike[str]) -> list[Path]:
    """All images below `root`, sorted; `ValueError` where there are none."""
    found = sorted(p for p in Path(root).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise ValueError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) below {os.fspath(root)!r}")
    return found


def find_scenes(root: str | os.PathLike[str], exclude: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Scenes of ``root/<camera>/*.jpg`` with at least two frames: {camera: sorted paths}.

    Parameters
    ----------
    root : path
        The folder of camera folders, as in the Transient Attributes Database.
    exclude : sequence of str
        Cameras to leave out; each must be there.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of camera folders at {os.fspath(root)!r}")
    frames = {
        camera.name: sorted(p for p in camera.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        for camera in sorted(folder.iterdir())
        if camera.is_dir()
    }
    if missing := set(exclude) - set(frames):
        raise ValueError(f"exclude names no camera below {os.fspath(root)!r}: {sorted(missing)}")
    scenes = {name: paths for name, paths in frames.items() if len(paths) > 1 and name not in exclude}
    if not scenes:
        raise ValueError(f"no camera folder with at least two images below {os.fspath(root)!r}")
    return scenes


_CROP_LINE = re.compile(r"([^:\ufffd]+):" + ",".join([r"\s*(\d{1,9})\s*"] * 4), re.ASCII)


def read_crops(path: str | os.PathLike[str]) -> dict[str, Box]:
    """The boxes to which the frames of each camera are cropped: {camera: (top, left, bottom, right)}.

    The form of the GP-GAN authors' ``bbox.txt`` for the Transient Attributes Database: one line
    ``name:top,left,bottom,right`` a camera, in pixels of the original frames. Their ``crop_aligned_images.py`` keeps
    the rows top:bottom and the columns left:right of Python's slices, so bottom and right are exclusive. Empty lines
    are skipped.

    Parameters
    ----------
    path : path
        A UTF-8 text file.

    Raises
    ------
    ValueError
        At a line of another form, an empty box or a camera that came before, with the line's number.
    """
    boxes: dict[str, Box] = {}
    for number, line in enumerate(Path(path).read_bytes().decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip():
            continue
        form = _CROP_LINE.fullmatch(line)
        top, left, bottom, right = map(int, form.groups()[1:]) if form else (0, 0, 0, 0)
        if form is None or not (top < bottom and left < right):
            raise ValueError(
                f"{os.fspath(path)!r}, line {number}: expected name:top,left,bottom,right with top < bottom and "
                f"left < right, got {reprlib.repr(line)}"
            )
        name = form[1].strip()
        if name in boxes:
            raise ValueError(f"{os.fspath(path)!r}, line {number}: expected every camera once, got {name!r} again")
        boxes[name] = (top, left, bottom, right)
    return boxes


@lru_cache(maxsize=1024)
def _read(path: Path, box: Box | None = None, longest: int = 640) -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8, `box` of the original, shrunk so that no crop pays for more pixels than it can use."""
    with Image.open(path) as image:
        if box is None:
            image.draft("RGB", (longest, longest))  # decodes fewer pixels, which a box does not count in
        rgb = image.convert("RGB")
    if box is not None:
        top, left, bottom, right = box
        rgb = rgb.crop((left, top, right, bottom))
    rgb.thumbnail((longest * 4, longest), Image.Resampling.BOX)  # panoramas keep their height
    return np.asarray(rgb)


# --- Light --------------------------------------------------------------------------------------------------


def _smooth_field(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Smooth noise (H, W, 1) of about unit deviation, a ramp or a few bumps across the image."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.float32)[..., None]


def _gain(value: object) -> NDArray[np.float32]:
    """As float32, lest a drawn double makes doubles of an image."""
    return np.asarray(value, np.float32)


def relight(rng: np.random.Generator, image: FloatArray, reference: FloatArray | None = None) -> FloatArray:
    """The same place under another light: a random chain of what weather, hour and camera do to colours.

    Exposure and white balance (gains), spatially smooth gains, tone curve, contrast, saturation, haze, night
    grading, and the colour statistics of `reference`, another photo. At times two such chains are mixed by a
    spatially smooth share, so that each of these also varies across the image.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : ndarray
        (H, W, 3) in [0, 1].
    reference : ndarray, optional
        (H, W, 3) in [0, 1].

    Returns
    -------
    ndarray
        (H, W, 3) in [0, 1].
    """
    x = _grade(rng, image, reference)
    if rng.uniform() < 0.2:
        share = 1 / (1 + np.exp(-2 * _smooth_field(rng, *image.shape[:2])))
        x = np.clip(x + share * (_grade(rng, image, reference) - x), 0, 1)
    return x


def _grade(rng: np.random.Generator, image: FloatArray, reference: FloatArray | None) -> FloatArray:
    """One chain of `relight`."""
    height, width = image.shape[:2]
    strength = float(rng.choice([0.3, 0.7, 1.0]))
    x = np.asarray(image, np.float32)
    if reference is not None and rng.uniform() < 0.25:
        (mean, deviation), (mean_then, deviation_then) = (cv2.meanStdDev(y) for y in (x, reference))
        gain = np.clip((deviation_then + 0.02) / (deviation + 0.02), 0.5, 2)
        x = np.clip((x - _gain(mean[:, 0])) * _gain(gain[:, 0]) + _gain(mean_then[:, 0]), 0, 1)
    linear = x**2.2
    if rng.uniform() < 0.8:
        linear *= _gain(np.exp2(strength * rng.normal(0, 0.7)))
    if rng.uniform() < 0.7:
        linear *= _gain(np.exp(strength * rng.normal(0, [0.25, 0.08, 0.3])))
    if rng.uniform() < 0.4:
        linear *= np.exp(strength * 0.35 * _smooth_field(rng, height, width))
    if rng.uniform() < 0.15:  # sun or lamp light on some parts only, of another colour than the shade
        lit = 1 / (1 + np.exp(-4 * _smooth_field(rng, height, width)))
        brightness = strength * rng.uniform(0.3, 2)
        linear *= 1 + brightness * lit * _gain([1.0, rng.uniform(0.7, 1), 0.5])
    if rng.uniform() < 0.25:
        air = _gain(rng.uniform(0.2, 0.8) + rng.normal(0, 0.05, 3))
        ramp = _gain(np.linspace(1, rng.uniform(0, 1), height))[:, None, None]
        veil = np.clip(rng.uniform(0.1, 0.8) * ramp + 0.15 * _smooth_field(rng, height, width), 0, 0.9)
        linear = linear * (1 - veil) + air * veil
    if rng.uniform() < 0.15:  # night: dark, blue, and what is bright stays lit
        lamps = np.clip(linear - rng.uniform(0.5, 0.9), 0, 1)
        dark = (linear @ _gain([1 / 3] * 3))[..., None] * _gain([0.42, 0.51, 0.72]) + linear * 0.4
        linear = dark * rng.uniform(0.03, 0.25) + lamps * _gain([1.0, 0.8, 0.5])
    x = np.clip(linear, 0, 1) ** (1 / 2.2)
    if rng.uniform() < 0.5:
        x = x ** _gain(np.exp(strength * rng.normal(0, 0.35)))
    if rng.uniform() < 0.4:
        bend = strength * rng.uniform(-0.6, 0.8)
        x = (1 - bend) * x + bend * x * x * (3 - 2 * x)
    if rng.uniform() < 0.5:
        grey = x @ _gain([0.299, 0.587, 0.114])
        x = grey[..., None] + (x - grey[..., None]) * _gain(np.exp(strength * rng.normal(-0.1, 0.5)))
    return np.asarray(np.clip(x, 0, 1), np.float32)


# --- Samples ------------------------------------------------------------------------------------------------


class PairDataset(Dataset[Tensor]):
    """What a generator sees and the truth, drawn from scenes and single photos.

    Parameters
    ----------
    scenes : mapping of str to sequence of paths
        Aligned frames, as from `find_scenes`. A scene is drawn uniformly, then two of its frames.
    photos : sequence of paths
        Single photos; a pair is one crop under two simulated lights. Also the unrelated surroundings.
    masks : sequence of paths
        Drawn masks whose shapes are used, as from `find_masks`: mask images, and annotations of which one object
        is drawn at random; none: the other kinds alone.
    image_size : int
        S.
    length : int
        Number of samples.
    seed : int
    boxes : mapping of str to box, optional
        (top, left, bottom, right) of a camera's frames, as from `read_crops`: they are cropped to it before anything
        else. In pixels of the original files; bottom and right are exclusive. Cameras that are not in `scenes` may
        have one.
    simulated, unrelated, cutout, same, recoloured : float
        Probabilities: of a pair simulated on a photo (forced where only one kind is given); of source
        surroundings from another place; of a source cut out along the mask by an alpha channel; of source = target;
        of one random light change applied to both frames of an aligned pair.
    crops : bool
        Random crops of random aspect, mostly a close look at the mask, and flips; otherwise the whole frame.
    centred_square : bool
        The paper's only training mask.
    membrane : bool
        Whether samples are those of ``mode="default"``, with the membrane in `harmonized` and the mask inset;
        otherwise of ``mode="paper"``.
    """

    def __init__(
        self,
        scenes: Mapping[str, Sequence[Path]],
        photos: Sequence[Path] = (),
        masks: Sequence[Path] = (),
        *,
        image_size: int = 64,
        length: int = 150_000,
        seed: int = 0,
        boxes: Mapping[str, Box] | None = None,
        simulated: float = 0.4,
        unrelated: float = 0.2,
        cutout: float = 0.08,
        same: float = 0.02,
        recoloured: float = 0.3,
        crops: bool = True,
        centred_square: bool = False,
        membrane: bool = True,
    ) -> None:
        if not scenes and not photos:
            raise ValueError("scenes and photos are both empty: expected at least one image source")
        if any(len(paths) < 2 for paths in scenes.values()):
            raise ValueError("every scene needs at least two frames")
        self.scenes = {name: list(paths) for name, paths in scenes.items()}
        self.boxes = {name: box for name, box in (boxes or {}).items() if name in scenes}
        for name, (top, left, bottom, right) in self.boxes.items():
            for path in self.scenes[name]:
                with Image.open(path) as image:  # the header alone
                    width, height = image.size
                if not (0 <= top < bottom <= height and 0 <= left < right <= width):
                    raise ValueError(
                        f"boxes[{name!r}]: expected 0 <= top < bottom <= {height} and 0 <= left < right <= {width} "
                        f"as in {os.fspath(path)!r}, got {(top, left, bottom, right)}"
                    )
        self.photos, self.masks = list(photos), list(masks)
        self.image_size, self.length, self.seed = image_size, length, seed
        self.simulated = 1.0 if not scenes else 0.0 if not photos else simulated
        self.unrelated, self.cutout = unrelated, cutout
        self.same, self.recoloured = same, recoloured
        self.crops, self.centred_square, self.membrane = crops, centred_square, membrane

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} is not in [0, {self.length})")
        return torch.from_numpy(self.sample(np.random.default_rng((self.seed, index))))

    def sample(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """One sample (10, S, S) uint8, decided by the state of `rng`."""
        source, target, mask = self._masked_pair(rng)
        height, width = mask.shape
        alpha = None
        surroundings = rng.uniform()
        if surroundings < self.same:
            source = target
        elif surroundings < self.same + self.unrelated:
            source = np.where(_grown(rng, mask)[..., None] > 0, source, self._place(rng, height, width))
        elif surroundings < self.same + self.unrelated + self.cutout:
            alpha = mask.astype(np.float32)
            if rng.uniform() < 0.5:
                alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 1.0), np.float32)
        if rng.uniform() < 0.03:
            source, target = (np.repeat(x.mean(2, keepdims=True), 3, 2) for x in (source, target))
        if self.crops and rng.uniform() < 0.7:  # a close look, as much of S x S pixels as large photos give an object
            view = _around(rng, mask)
            source, target, mask = source[view], target[view], mask[view]
            alpha = None if alpha is None else alpha[view]
        return self._pack(source, target, np.ascontiguousarray(mask), alpha)

    def _masked_pair(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, NDArray[np.uint8]]:
        """Source and target (H, W, 3) in [0, 1], and a mask on something that both show, if some tries find it."""
        for _ in range(5):
            source, target, guide = self._pair(rng)
            height, width = guide.shape[:2]
            if self.centred_square:
                return source, target, centred_square(height, width)
            edges = _edges(source), _edges(target)
            for _ in range(3):
                mask = random_mask(rng, height, width, guide=guide, files=self.masks)
                if _edge_agreement(*edges, mask) > 0.15:
                    return source, target, mask
        return source, target, mask

    def _pair(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Source and target (H, W, 3) in [0, 1], and the one whose edges a mask may follow."""
        if rng.uniform() < self.simulated:
            photo, other = (self._photo(rng) for _ in range(2))
            guide = _floats(photo[self._crop(rng, photo.shape)])
            reference = _floats(np.asarray(cv2.resize(other, (32, 32), interpolation=cv2.INTER_AREA)))
            source = relight(rng, guide, reference)
            target = guide if rng.uniform() < 0.3 else relight(rng, guide, reference)
        else:
            name = list(self.scenes)[int(rng.integers(len(self.scenes)))]
            frames, box = self.scenes[name], self.boxes.get(name)
            first, second = (_read(frames[i], box) for i in rng.choice(len(frames), 2, replace=False))
            view = self._crop(rng, np.minimum(first.shape, second.shape).tolist())
            source, target = _floats(first[view]), _floats(second[view])
            guide = source if rng.uniform() < 0.5 else target
            if rng.uniform() < self.recoloured:  # as if by another camera: the same chain on both frames
                chain = int(rng.integers(2**32))
                source, target = (relight(np.random.default_rng(chain), x) for x in (source, target))
        if self.crops and rng.uniform() < 0.5:
            source, target, guide = (np.ascontiguousarray(x[:, ::-1]) for x in (source, target, guide))
        return source, target, guide

    def _place(self, rng: np.random.Generator, height: int, width: int) -> FloatArray:
        """Another place (H, W, 3), at times under another light."""
        photo = self._photo(rng)
        view = photo[self._crop(rng, photo.shape)]
        place = _floats(np.asarray(cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA)))
        return relight(rng, place) if rng.uniform() < 0.5 else place

    def _pack(
        self, source: FloatArray, target: FloatArray, mask: NDArray[np.uint8], alpha: FloatArray | None
    ) -> NDArray[np.uint8]:
        size = self.image_size
        said = _core.options("default" if self.membrane else "paper")
        height, width = mask.shape
        core = _core.Blender(height, width, 3, image_size=size, threads=1, **said)
        target = np.ascontiguousarray(target, np.float32)
        source = np.ascontiguousarray(source if alpha is None else np.dstack([source, alpha]))
        _, soft, harmonized, whole = core.prepare(source, target, mask if alpha is None else None)
        truth = _core.area_average(target, (size, size), threads=1)
        packed = np.concatenate([whole, truth, soft.reshape(size, size, 1), harmonized], 2).transpose(2, 0, 1)
        return np.ascontiguousarray(np.rint(np.clip(packed, 0, 1) * 255).astype(np.uint8))

    def _photo(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        if self.photos:
            return _read(self.photos[int(rng.integers(len(self.photos)))])
        name = list(self.scenes)[int(rng.integers(len(self.scenes)))]
        frames = self.scenes[name]
        return _read(frames[int(rng.integers(len(frames)))], self.boxes.get(name))

    def _crop(self, rng: np.random.Generator, shape: Sequence[int]) -> tuple[slice, slice]:
        """A window that covers much of the photo, of an aspect between 1:2 and 3:1."""
        height, width = shape[:2]
        if not self.crops:
            return slice(0, height), slice(0, width)
        scale = rng.uniform(0.4 if min(height, width) > 180 else 0.75, 1)
        h, w = int(height * scale), int(width * min(1, scale * rng.uniform(0.75, 1.33)))
        h, w = min(h, 2 * w), min(w, 3 * h)
        h, w = max(h, min(128, height)), max(w, min(128, width))
        top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        return slice(top, top + h), slice(left, left + w)


def _floats(image: NDArray[np.uint8]) -> FloatArray:
    return image.astype(np.float32) / 255


def _edges(image: FloatArray) -> FloatArray:
    """What is fine in the brightness of `image` (H, W, 3), at most 160 pixels long: (h, w)."""
    height, width = image.shape[:2]
    scale = min(1, 160 / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32).mean(2)
    return np.asarray(small - cv2.GaussianBlur(small, (0, 0), 1.5))


def _edge_agreement(source: FloatArray, target: FloatArray, mask: NDArray[np.uint8]) -> float:
    """Correlation of the two `_edges` inside the mask: near 0 for clouds and water, whose truth no source can tell."""
    inside = cv2.resize(mask, source.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    a, b = source[inside], target[inside]
    noise = 5e-4 * inside.sum() + 1e-9  # what is flat agrees with nothing
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + noise**2))


def _around(rng: np.random.Generator, mask: NDArray[np.uint8]) -> tuple[slice, slice]:
    """A window with all of `mask`, some two to nine times as large."""
    window = []
    closeness = rng.uniform(0.8, 3)
    for profile in (mask.sum(1, dtype=np.int64), mask.sum(0, dtype=np.int64)):
        size, at = len(profile), np.arange(len(profile))
        centre = np.average(at, weights=profile)
        deviation = np.sqrt(np.average((at - centre) ** 2, weights=profile))
        length = min(size, (10 * deviation + 0.1 * size) * closeness)
        start = int(np.clip(centre - length / 2, 0, size - length))
        covered = np.nonzero(profile)[0]
        window.append(slice(max(min(start, covered[0] - 4), 0), max(start + int(length), covered[-1] + 5)))
    return window[0], window[1]


def _grown(rng: np.random.Generator, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`mask` and up to three pixels around it: how much of its own surroundings an object brings along."""
    width = 2 * int(rng.integers(0, 4)) + 1
    return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))), np.uint8)


# --- Pools and batches --------------------------------------------------------------------------------------


class Pool(Dataset[Tensor]):
    """Samples computed once and kept in a memory-mapped ``.npy`` of shape (N, 10, S, S), uint8."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        samples = np.load(path, mmap_mode="r", allow_pickle=False)
        if samples.dtype != np.uint8 or samples.ndim != 4 or samples.shape[1] != 10:
            came = f"{samples.dtype} {samples.shape}"
            raise ValueError(f"{os.fspath(path)!r} is no pool: expected uint8 (N, 10, S, S), got {came}")
        self.samples = samples
        self.image_size = int(samples.shape[3])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.samples[index]))


def build_pool(
    dataset: PairDataset,
    path: str | os.PathLike[str],
    *,
    workers: int = 0,
    watch: Callable[[Iterable[Tensor]], Iterable[Tensor]] = iter,
) -> Pool:
    """Compute every sample of `dataset` and write them to `path` (``.npy``), atomically; `watch` may show progress."""
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    part = Path(f"{os.fspath(path)}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(dataset), 10, dataset.image_size, dataset.image_size)
    samples = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    for i, sample in enumerate(watch(loader)):
        samples[i] = sample.numpy()
    samples.flush()
    del samples
    part.replace(path)
    return Pool(path)


def index_batches(length: int, batch_size: int, seed: int, start: int = 0) -> Iterator[list[int]]:
    """Endless batches of indices, a new permutation each epoch; `start` skips that many batches.

    Batch k depends on the arguments and k alone, so a resumed run sees what an uninterrupted one would have.
    """
    if length < batch_size:
        raise ValueError(f"batch_size {batch_size} exceeds the {length} samples")
    per_epoch = length // batch_size
    batch = start
    while True:
        order = np.random.default_rng((seed, batch // per_epoch)).permutation(length)
        for k in range(batch % per_epoch, per_epoch):
            yield order[k * batch_size : (k + 1) * batch_size].tolist()
            batch += 1


def unpack(samples: Tensor) -> Batch:
    """A `Batch` from packed samples (N, 10, S, S), uint8."""
    x = samples.float() / 255
    source, target, mask, harmonized = x[:, 0:3], x[:, 3:6], x[:, 6:7], x[:, 7:10]
    return Batch(target + mask * (source - target), mask, harmonized, source, target)


def augment(batch: Batch, rng: np.random.Generator) -> Batch:
    """Flips, channel permutations and channel gains, the same on every image of a sample.

    All of them commute with the membrane, so that a pool need not be computed again.
    """
    n = batch.mask.shape[0]
    gain = torch.from_numpy(rng.uniform(0.75, 1.0, (n, 3, 1, 1)).astype(np.float32))
    gain = torch.where(torch.from_numpy(rng.uniform(size=(n, 1, 1, 1)) < 0.5), gain, torch.ones(1))
    permuted = rng.uniform(size=(n, 1)) < 0.25
    order = np.where(permuted, rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1), np.arange(3))
    channels = torch.from_numpy(order)[:, :, None, None]
    mirrored = torch.from_numpy(rng.uniform(size=(n, 1, 1, 1)) < 0.5)

    def change(image: Tensor) -> Tensor:
        if image.shape[1] == 3:
            image = torch.gather(image, 1, channels.expand_as(image)) * gain
        return torch.where(mirrored, image.flip(3), image)

    return Batch(*(change(image) for image in batch))
