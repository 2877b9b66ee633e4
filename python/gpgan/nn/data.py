"""Training pairs: two frames of one scene, or two lights simulated on one photo, and a mask.

Every sample is one uint8 array (10, S, S): source 0:3, target 3:6, mask 6, harmonized 7:10. The target is
also the truth. Sample i of a dataset depends on its seed and i alone, whatever the number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

try:
    import cv2
except ImportError as error:
    raise ImportError("gpgan.nn.data needs OpenCV: pip install 'gpgan[train]'") from error

__all__ = [
    "Batch", "PairDataset", "Pool", "augment", "build_pool", "find_images", "find_scenes", "index_batches",
    "membrane", "random_mask", "relight", "unpack",
]  # fmt: skip

FloatArray = NDArray[np.floating]
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})


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


@lru_cache(maxsize=1024)
def _read(path: Path, longest: int = 640) -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8, shrunk so that no crop pays for more pixels than it can use."""
    with Image.open(path) as image:
        image.draft("RGB", (longest, longest))
        rgb = image.convert("RGB")
    rgb.thumbnail((longest * 4, longest), Image.Resampling.BOX)  # panoramas keep their height
    return np.asarray(rgb)


# --- Masks --------------------------------------------------------------------------------------------------


def _centred_square(size: int) -> FloatArray:
    mask = np.zeros((size, size), np.float32)
    mask[size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    return mask


def _polygon(rng: np.random.Generator, size: int) -> FloatArray:
    corners = rng.integers(3, 14)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = size * rng.uniform(0.1, 0.4) * rng.uniform(0.5, 1.3, corners)
    centre = rng.uniform(0.2, 0.8, 2) * size
    points = centre + radius[:, None] * np.stack([np.cos(angle) * rng.uniform(0.5, 1.6), np.sin(angle)], 1)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask.astype(np.float32)


def _blob(rng: np.random.Generator, size: int) -> FloatArray:
    coarse = rng.standard_normal((8, 8)).astype(np.float32)
    noise = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:size, 0:size] / size
    cy, cx = rng.uniform(0.25, 0.75, 2)
    ry, rx = rng.uniform(0.1, 0.4, 2)
    inside = 1 - ((y - cy) / ry) ** 2 - ((x - cx) / rx) ** 2 + 0.5 * noise > 0
    return np.asarray(inside, np.float32)


def _flood(rng: np.random.Generator, guide: FloatArray) -> FloatArray:
    """A region of similar colour in `guide` (H, W, 3), holes closed: an object's or a part's own outline."""
    smooth = cv2.GaussianBlur(guide, (0, 0), guide.shape[0] / 64)
    filled = np.zeros((guide.shape[0] + 2, guide.shape[1] + 2), np.uint8)
    seed = (int(rng.integers(guide.shape[1])), int(rng.integers(guide.shape[0])))
    span = (float(rng.uniform(0.01, 0.04)),) * 3
    cv2.floodFill(smooth, filled, seed, (0.0, 0.0, 0.0), span, span, cv2.FLOODFILL_MASK_ONLY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return np.asarray(cv2.morphologyEx(filled[1:-1, 1:-1], cv2.MORPH_CLOSE, kernel), np.float32)


def _segments(rng: np.random.Generator, guide: FloatArray) -> FloatArray:
    """A few neighbouring watershed segments of `guide` (H, W, 3): an outline that follows edges, as drawn masks do."""
    height, width = guide.shape[:2]
    grey = cv2.GaussianBlur(guide, (0, 0), height / 128)
    relief = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    markers = np.zeros((height, width), np.int32)
    seeds = int(rng.integers(8, 40))
    markers[rng.integers(0, height, seeds), rng.integers(0, width, seeds)] = np.arange(1, seeds + 1)
    labels = cv2.watershed(np.ascontiguousarray(relief), markers)
    mask = (labels == int(rng.integers(1, seeds + 1))).astype(np.uint8)
    cross = np.ones((5, 5), np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        rim = labels[(cv2.dilate(mask, cross) > 0) & (mask == 0) & (labels > 0)]
        if len(rim):
            mask |= (labels == rng.choice(rim)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cross)  # the ridges between joined segments
    if rng.uniform() < 0.7:  # the seam of a blend lies a little inside its object
        mask = cv2.erode(mask, np.ones((3, 3), np.uint8))
    return np.asarray(mask, np.float32)


def _from_file(rng: np.random.Generator, path: Path, size: int) -> FloatArray:
    """A drawn mask in a random place: stretched, shrunk, flipped."""
    with Image.open(path) as image:
        drawn = np.asarray(image.convert("L")) > 127
    rows, columns = np.nonzero(drawn.any(1))[0], np.nonzero(drawn.any(0))[0]
    mask = np.zeros((size, size), np.float32)
    if len(rows) == 0:
        return mask
    drawn = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][:, :: rng.choice([-1, 1])]
    extent = size * rng.uniform(0.2, 0.8)
    aspect = np.clip(drawn.shape[0] / drawn.shape[1] * rng.uniform(0.6, 1.6), 0.3, 3)
    height = int(np.clip(extent * np.sqrt(aspect), 4, 0.9 * size))
    width = int(np.clip(extent / np.sqrt(aspect), 4, 0.9 * size))
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    mask[top : top + height, left : left + width] = cv2.resize(
        drawn.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
    )
    return mask


def random_mask(
    rng: np.random.Generator, size: int, *, guide: FloatArray | None = None, files: Sequence[Path] = ()
) -> FloatArray:
    """A soft mask (S, S) in [0, 1] that covers 2 to 50 % of the image.

    Mostly segments of `guide` (H, W, 3), whose outlines follow edges as those of objects do; else a drawn mask from
    `files`, a region of similar colour in `guide`, a polygon, a blob or the centred square.
    """
    fine = 4 * size
    for _ in range(20):
        kind = rng.uniform()
        if guide is not None and kind < 0.5:
            mask = _segments(rng, guide)
        elif files and kind < 0.75:
            mask = _from_file(rng, files[int(rng.integers(len(files)))], fine)
        elif guide is not None and kind < 0.85:
            mask = _flood(rng, guide)
        elif kind < 0.9:
            mask = _polygon(rng, fine)
        elif kind < 0.97:
            mask = _blob(rng, fine)
        else:
            mask = _centred_square(fine)
        if 0.02 < mask.mean() < 0.5:
            return np.asarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA))
    return _centred_square(size)


# --- Light --------------------------------------------------------------------------------------------------


def _smooth_field(rng: np.random.Generator, size: int, channels: int = 1) -> FloatArray:
    """Smooth noise (S, S, channels) of about unit deviation, a ramp or a few bumps across the image."""
    height, width = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    coarse = rng.standard_normal((height, width, channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.float32).reshape(size, size, channels)


def relight(rng: np.random.Generator, image: FloatArray, reference: FloatArray | None = None) -> FloatArray:
    """The same place under another light: a random chain of what weather, hour and camera do to colours.

    Exposure and white balance (gains), spatially smooth gains, tone curve, contrast, saturation, haze, night
    grading, and the colour statistics of `reference`, another photo.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : ndarray
        (S, S, 3) in [0, 1].
    reference : ndarray, optional
        (H, W, 3) in [0, 1].

    Returns
    -------
    ndarray
        (S, S, 3) in [0, 1].
    """
    size = image.shape[0]
    strength = rng.choice([0.3, 0.7, 1.0])
    x = image
    if reference is not None and rng.uniform() < 0.25:
        mean, deviation = x.mean((0, 1)), x.std((0, 1)) + 0.02
        gain = np.clip((reference.std((0, 1)) + 0.02) / deviation, 0.5, 2)
        x = np.clip((x - mean) * gain + reference.mean((0, 1)), 0, 1)
    linear = x**2.2
    if rng.uniform() < 0.8:
        linear = linear * np.exp2(strength * rng.normal(0, 0.7))
    if rng.uniform() < 0.7:
        linear = linear * np.exp(strength * rng.normal(0, [0.25, 0.08, 0.3]))
    if rng.uniform() < 0.4:
        linear = linear * np.exp(strength * 0.35 * _smooth_field(rng, size))
    if rng.uniform() < 0.15:  # sun or lamp light on some parts only, of another colour than the shade
        lit = 1 / (1 + np.exp(-4 * _smooth_field(rng, size)))
        brightness = strength * rng.uniform(0.3, 2)
        linear = linear * (1 + brightness * lit * np.array([1.0, rng.uniform(0.7, 1), 0.5]))
    if rng.uniform() < 0.25:
        air = rng.uniform(0.2, 0.8) + rng.normal(0, 0.05, 3)
        ramp = np.linspace(1, rng.uniform(0, 1), size).reshape(size, 1, 1)
        veil = np.clip(rng.uniform(0.1, 0.8) * ramp + 0.15 * _smooth_field(rng, size), 0, 0.9)
        linear = linear * (1 - veil) + air * veil
    if rng.uniform() < 0.15:  # night: dark, blue, and what is bright stays lit
        lamps = np.clip(linear - rng.uniform(0.5, 0.9), 0, 1)
        dark = linear.mean(2, keepdims=True) * np.array([0.7, 0.85, 1.2]) * 0.6 + linear * 0.4
        linear = dark * rng.uniform(0.03, 0.25) + lamps * np.array([1.0, 0.8, 0.5])
    x = np.clip(linear, 0, 1) ** (1 / 2.2)
    if rng.uniform() < 0.5:
        x = x ** np.exp(strength * rng.normal(0, 0.35))
    if rng.uniform() < 0.4:
        bend = strength * rng.uniform(-0.6, 0.8)
        x = (1 - bend) * x + bend * x * x * (3 - 2 * x)
    if rng.uniform() < 0.5:
        grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
        x = grey[..., None] + (x - grey[..., None]) * np.exp(strength * rng.normal(-0.1, 0.5))
    return np.asarray(np.clip(x, 0, 1), np.float32)


# --- The membrane -------------------------------------------------------------------------------------------


def membrane(source: FloatArray, target: FloatArray, mask: FloatArray) -> FloatArray:
    """The harmonic membrane w (S, S, 3): Laplacian(w) = 0 where mask > 0, target - source elsewhere.

    Neighbours beyond the border are dropped; w = 0 where a region has no boundary. One factorisation serves
    all channels. float32, for training samples; `gpgan.reference.membrane` is the one to compare with.
    """
    w = np.array(target - source, np.float64)
    inside = mask > 0
    if inside.all():
        return np.zeros_like(source)
    if not inside.any():
        return w.astype(np.float32)
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    n = int(inside.sum())
    degree, boundary = np.zeros(n), np.zeros((n, 3))
    edges = []
    for here, there in (
        (np.s_[:-1, :], np.s_[1:, :]), (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, 1:], np.s_[:, :-1]),
    ):  # fmt: skip
        i, j = number[here][inside[here]], number[there][inside[here]]
        degree[i] += 1
        known = j < 0
        boundary[i[known]] += w[there][inside[here]][known]
        edges.append(np.stack([i[~known], j[~known]]))
    rows, columns = np.concatenate(edges, 1)
    laplacian = sparse.coo_matrix((-np.ones(len(rows)), (rows, columns)), (n, n)) + sparse.diags(degree)
    factors = splu(laplacian.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    w[inside] = factors.solve(boundary)
    return w.astype(np.float32)


# --- Samples ------------------------------------------------------------------------------------------------


def _resize(image: NDArray[np.uint8], size: int) -> FloatArray:
    """(size, size, 3) in [0, 1], by area averages."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.float32) / 255


def _extend(image: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Unknown pixels from the known ones by push-pull: averages of ever larger blocks, coarse to fine."""
    weight: FloatArray = known.astype(np.float32)
    colour: FloatArray = image * weight[..., None]
    levels: list[tuple[FloatArray, FloatArray]] = [(colour, weight)]
    while levels[-1][1].shape[0] > 1:
        half = levels[-1][1].shape[0] // 2
        colour, weight = (
            np.asarray(cv2.resize(x, (half, half), interpolation=cv2.INTER_AREA), np.float32) for x in levels[-1]
        )
        levels.append((colour.reshape(half, half, 3), weight.reshape(half, half)))
    filled = levels[-1][0] / np.maximum(levels[-1][1][..., None], 1e-6)
    for colour, weight in levels[-2::-1]:
        up = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        w = weight[..., None]
        filled = np.where(w > 0, colour / np.maximum(w, 1e-6), up) * w + up * (1 - w)
    return np.where(known[..., None], image, filled).astype(np.float32)


class PairDataset(Dataset[Tensor]):
    """Source, target, mask and harmonized composite, drawn from scenes and single photos.

    Parameters
    ----------
    scenes : mapping of str to sequence of paths
        Aligned frames, as from `find_scenes`. A scene is drawn uniformly, then two of its frames.
    photos : sequence of paths
        Single photos; a pair is one crop under two simulated lights. Also the unrelated surroundings.
    masks : sequence of paths
        Drawn masks whose shapes are used; none: the other kinds alone.
    image_size : int
        S.
    length : int
        Number of samples.
    seed : int
    simulated, unrelated, cutout, same, recoloured : float
        Probabilities: of a pair simulated on a photo (forced where only one kind is given); of source
        surroundings from another place; of surroundings extended from the object, as with an alpha channel;
        of source = target; of one random light change applied to both frames of an aligned pair.
    crops : bool
        Random crops of random aspect and flips; otherwise the whole frame.
    centred_square : bool
        The paper's only training mask.
    membrane : bool
        Whether `harmonized` carries the membrane; otherwise it is the plain composite.
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
        size = self.image_size
        if rng.uniform() < self.simulated:
            photo, other = (self._photo(rng) for _ in range(2))
            view = self._crop(rng, photo.shape)
            image = _resize(photo[view], size)
            reference = _resize(other, 32)
            source = relight(rng, image, reference)
            target = image if rng.uniform() < 0.3 else relight(rng, image, reference)
            guided = photo[view]
        else:
            names = list(self.scenes)
            frames = self.scenes[names[int(rng.integers(len(names)))]]
            first, second = (_read(frames[i]) for i in rng.choice(len(frames), 2, replace=False))
            view = self._crop(rng, np.minimum(first.shape, second.shape).tolist())
            source, target = _resize(first[view], size), _resize(second[view], size)
            guided = first[view]
            if rng.uniform() < self.recoloured:  # as if by another camera: the same chain on both frames
                chain = int(rng.integers(2**32))
                source, target = (relight(np.random.default_rng(chain), x) for x in (source, target))
        if self.crops and rng.uniform() < 0.5:
            source, target = np.ascontiguousarray(source[:, ::-1]), np.ascontiguousarray(target[:, ::-1])
            guided = np.ascontiguousarray(guided[:, ::-1])
        if self.centred_square:
            mask = _centred_square(size)
        else:
            guide = np.asarray(cv2.resize(guided, (2 * size, 2 * size)), np.float32) / 255
            mask = random_mask(rng, size, guide=guide, files=self.masks)

        surroundings = rng.uniform()
        if surroundings < self.same:
            source = target
        elif surroundings < self.same + self.unrelated + self.cutout:
            # The seam stays inside the object, so its own rim is still source.
            rim = cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=int(rng.integers(1, 3))) > 0
            if surroundings < self.same + self.unrelated:
                place = self._photo(rng)
                place_small = _resize(place[self._crop(rng, place.shape)], size)
                if rng.uniform() < 0.5:
                    place_small = relight(rng, place_small)
                source = np.where(rim[..., None], source, place_small)
            else:
                source = _extend(source, rim)
        if rng.uniform() < 0.03:
            source, target = (np.repeat(x.mean(2, keepdims=True), 3, 2) for x in (source, target))

        joined = source + membrane(source, target, mask) if self.membrane else source
        harmonized = target + mask[..., None] * (joined - target)
        packed = np.concatenate([source, target, mask[..., None], harmonized], 2).transpose(2, 0, 1)
        return np.ascontiguousarray(np.rint(np.clip(packed, 0, 1) * 255).astype(np.uint8))

    def _photo(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        if self.photos:
            return _read(self.photos[int(rng.integers(len(self.photos)))])
        names = list(self.scenes)
        frames = self.scenes[names[int(rng.integers(len(names)))]]
        return _read(frames[int(rng.integers(len(frames)))])

    def _crop(self, rng: np.random.Generator, shape: Sequence[int]) -> tuple[slice, slice]:
        """A window that covers most of the photo, of an aspect between 1:2 and 3:1."""
        height, width = shape[:2]
        if not self.crops:
            return slice(0, height), slice(0, width)
        scale = rng.uniform(0.55, 1)
        h, w = max(int(height * scale), 1), max(int(width * min(1, scale * rng.uniform(0.8, 1.25))), 1)
        h, w = min(h, 2 * w), min(w, 3 * h)
        top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        return slice(top, top + h), slice(left, left + w)


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


def build_pool(dataset: PairDataset, path: str | os.PathLike[str], *, workers: int = 0) -> Pool:
    """Compute every sample of `dataset` and write them to `path` (``.npy``), atomically."""
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    part = Path(f"{os.fspath(path)}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(dataset), 10, dataset.image_size, dataset.image_size)
    samples = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    for i, sample in enumerate(loader):
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
