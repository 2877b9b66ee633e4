"""What is evaluated: items found in a CSV file, in a folder of item folders, or drawn from the frames of fixed cameras.

Files are looked for here and read in :func:`read_item`, one item at a time.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpgan import _arrays, _frames, _image_files

Pixels = npt.NDArray[np.uint8]

__all__ = ["Inputs", "Item", "draw_pairs", "find_items", "read_csv", "read_item"]

#: Stems in an item's folder that are no method's.
RESERVED = ("composite", "mask", "source", "target", "truth")
_COLUMNS = ("name", "source", "target", "mask", "truth", "left", "top")
_NAME_LENGTH = 100


@dataclass(frozen=True)
class Item:
    """Files to blend, and what they should give.

    Attributes
    ----------
    name : str
        Of its folder in the run: letters, digits, ``.``, ``_`` and ``-``.
    source, target : Path
    mask : Path or None
        Of the source's size. None: the source's alpha channel, or the square.
    truth : Path or None
        What the result should be, of the target's size.
    offset : (int, int)
        (top, left) of the source in the target.
    square : bool
        The mask is the paper's: centred, of half the height and half the width.
    title : str
        What its name was made of, for people to read.
    """

    name: str
    source: Path
    target: Path
    mask: Path | None = None
    truth: Path | None = None
    offset: tuple[int, int] = (0, 0)
    square: bool = False
    title: str = ""

    @property
    def files(self) -> dict[str, Path]:
        """Those that there are, by what they are."""
        named = {"source": self.source, "target": self.target, "mask": self.mask, "truth": self.truth}
        return {role: path for role, path in named.items() if path is not None}


@dataclass(frozen=True)
class Inputs:
    """An item's pixels: sRGB, 8 bits a channel.

    Attributes
    ----------
    source : ndarray of uint8, shape (h, w, 3) or (h, w, 4)
    target : ndarray of uint8, shape (H, W, 3)
    mask : ndarray of uint8, shape (h, w), or None
    offset : (int, int)
    truth : ndarray of uint8, shape (H, W, 3), or None
    """

    source: Pixels
    target: Pixels
    mask: Pixels | None
    offset: tuple[int, int] = (0, 0)
    truth: Pixels | None = None

    @cached_property
    def framed(self) -> tuple[Pixels, Pixels, Pixels]:
        """(source, target, mask), all of the target's size; what the source does not know is extended from the rest."""
        height, width = self.target.shape[:2]
        own = self.source.shape[:2]
        is_whole = self.source.shape[2] == 3
        if is_whole and self.mask is not None and own == (height, width) and self.offset == (0, 0):
            return self.source, self.target, self.mask
        alpha = np.ones(own) if is_whole else self.source[..., 3] / 255.0
        weight = alpha if self.mask is None else self.mask / 255.0 * alpha
        # The method's own front end places and extends; here for methods that take images of one size only.
        frame = _frames.place_source(self.source[..., :3] / 255.0, alpha, (height, width), self.offset)
        mask = _frames.place(weight, (height, width), self.offset)
        return _frames.from_float(frame, np.uint8), self.target, _unambiguous(_frames.from_float(mask, np.uint8))

    @cached_property
    def composite(self) -> Pixels:
        """The plain copy-and-paste, uint8 (H, W, 3)."""
        source, target, mask = self.framed
        result = np.empty_like(target)
        for start in range(0, len(target), 256):  # in floats a large photo takes 24 times its memory
            rows = slice(start, start + 256)
            weight = mask[rows, :, None] / 255.0
            mixed = weight * (source[rows] / 255.0) + (1 - weight) * (target[rows] / 255.0)
            result[rows] = _frames.from_float(mixed, np.uint8)
        return result


# ------------------------------------------------------------------------------------------------------------- finding


def find_items(
    root: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    pairs: int | None = None,
    seed: int = 0,
    note: Callable[[str], object] = lambda text: None,
) -> list[Item]:
    """The items of `root`, of whichever of three kinds it is.

    1. A CSV file: :func:`read_csv`.
    2. A folder of folders, each with ``source.*``, ``target.*``, ``mask.*`` (or a source with an alpha channel) and,
       where it is known, ``truth.*``; or one such folder.
    3. A folder of frames of one fixed camera, or of one folder a camera: :func:`draw_pairs`.

    Parameters
    ----------
    root : path-like
    masks : path-like, optional
        For frames: a folder of masks of the frames' size, or of one such folder a camera.
    pairs : int, optional
        How many items. From frames so many are drawn, 60 if not said; of listed items so many at random, all if not
        said.
    seed : int, default 0
        Of the generator that draws.
    note : callable, optional
        Is told what was left out.

    Returns
    -------
    list of Item

    Raises
    ------
    ValueError
        Naming the file, the line or the folder and what is wrong with it.
    """
    root = Path(root)
    if pairs is not None and pairs < 1:
        raise ValueError(f"pairs: expected 1 or more, got {pairs}")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    shown = repr(os.fspath(root))
    if not root.exists():
        raise ValueError(f"ROOT: no file or folder at {shown}")
    if not root.is_dir():
        items = read_csv(root)
    else:
        folders = _folders(root)
        if _is_item(root):
            items = [_item_of(root)]
        elif not _images(root) and any(map(_is_item, folders)):
            others = [folder for folder in folders if not _is_item(folder)]
            # A run may lie beside the items that it is of.
            incomplete = [repr(path.name) for path in others if not (path / "evaluation.json").is_file()]
            if incomplete:
                note(f"left out for want of source.* or target.*: {', '.join(incomplete)}")
            items = _unique([_item_of(folder) for folder in folders if folder not in others])
        else:
            return draw_pairs(root, masks=masks, pairs=60 if pairs is None else pairs, seed=seed, note=note)
    if masks is not None:
        raise ValueError(f"masks: expected none, as the items of {shown} name their own")
    if pairs is not None and pairs < len(items):
        chosen = np.random.default_rng(seed).choice(len(items), pairs, replace=False)
        items = [items[i] for i in sorted(chosen)]
    return items


def read_csv(path: str | os.PathLike[str]) -> list[Item]:
    """Items of a CSV file in UTF-8.

    The first line names the columns: ``source`` and ``target``, and of the others those that there are: ``mask``,
    ``truth``, ``name``, ``top`` and ``left``. Paths are relative to the file. An empty cell is one that is not there.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    list of Item

    Raises
    ------
    ValueError
        Naming the file, the line and what is wrong with it.
    """
    path = Path(path)
    where = repr(os.fspath(path))
    items: list[Item] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip().lower() for cell in next(reader, [])]
            unknown = [repr(name) for name in header if name not in _COLUMNS]
            if "source" not in header or "target" not in header or unknown or len(set(header)) != len(header):
                raise ValueError(
                    f"{where}, line 1: expected the columns source, target and of mask, truth, name, top, left what "
                    f"there is, each once, got {repr(', '.join(header)[:200]) if any(header) else 'nothing'}"
                )
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                line = f"{where}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise ValueError(f"{line}: expected {len(header)} cells like the first line, got {len(cells)}")
                row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
                items.append(_item_of_row(row, path.parent, line, len(items)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"ROOT: cannot read {where} as CSV: {reason}") from None
    if not items:
        raise ValueError(f"{where}: expected a line for each item below the columns' names, got none")
    return _unique(items)


def _item_of_row(row: dict[str, str], folder: Path, line: str, number: int) -> Item:
    files: dict[str, Path | None] = {}
    for role in ("source", "target", "mask", "truth"):
        said = row.get(role, "")
        if not said and role in ("source", "target"):
            raise ValueError(f"{line}: expected a file as {role}, got nothing")
        files[role] = folder / said if said else None
        if said and ("\0" in said or not (folder / said).is_file()):
            raise ValueError(f"{line}: no file at {said!r}, the {role}")
    offset = []
    for name in ("top", "left"):
        said = row.get(name, "") or "0"
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", said):
            raise ValueError(f"{line}: expected a whole number of pixels as {name}, got {said!r}")
        offset.append(int(said))
    assert files["source"] is not None and files["target"] is not None
    title = row.get("name", "") or f"{number:04d} {files['source'].stem} {files['target'].stem}"
    return Item(
        _name(title), files["source"], files["target"], files["mask"], files["truth"], (offset[0], offset[1]),
        title=title,
    )  # fmt: skip


def draw_pairs(
    root: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    pairs: int = 60,
    seed: int = 0,
    note: Callable[[str], object] = lambda text: None,
) -> list[Item]:
    """Pairs of frames of a fixed camera: what the mask shows of the first goes into the second, which is the truth.

    This is the experiment of the paper's section 4.1. A pair is two frames at random and the next mask in turn; of
    several cameras, one at random comes first. Fewer pairs of the same seed are the first of more.

    Parameters
    ----------
    root : path-like
        A folder of frames, or of one folder a camera.
    masks : path-like, optional
        A folder of masks of the frames' size, for all cameras or with a folder for each; then cameras without one are
        left out. None: the paper's mask, a centred square of half the side.
    pairs, seed : int
    note : callable, optional
        Is told what was left out.

    Returns
    -------
    list of Item

    Raises
    ------
    ValueError
        If there are no two frames of a camera, or no masks.
    """
    root, shown = Path(root), repr(os.fspath(root))
    frames = {root: _images(root)}
    several = not frames[root]
    if several:
        frames = {folder: found for folder in _folders(root) if (found := _images(folder))}
    alone = [folder.name for folder, found in frames.items() if len(found) < 2]
    frames = {folder: found for folder, found in frames.items() if len(found) > 1}
    if not frames:
        raise ValueError(
            f"ROOT: expected a CSV file, a folder of folders with source.* and target.*, or of frames of a fixed "
            f"camera (two at least; or a folder of them for each camera), got {shown}"
        )
    drawn: dict[Path, list[Path] | None] = dict.fromkeys(frames)
    if masks is not None:
        masks = Path(masks)
        if not masks.is_dir():
            raise ValueError(f"masks: no folder at {os.fspath(masks)!r}")
        for folder in frames:
            own = masks / folder.resolve().name
            drawn[folder] = (_images(own) if own.is_dir() else []) or _images(masks)
        alone += [folder.name for folder, found in drawn.items() if not found]
        frames = {folder: found for folder, found in frames.items() if drawn[folder]}
        if not frames:
            raise ValueError(f"masks: expected images, or folders of them by camera, got none in {os.fspath(masks)!r}")
    if alone:
        note(f"left out for want of masks or of a second frame: {', '.join(alone)!r}")

    rng, cameras, items = np.random.default_rng(seed), list(frames), []
    used = dict.fromkeys(cameras, 0)
    for number in range(pairs):
        camera = cameras[int(rng.integers(len(cameras)))] if len(cameras) > 1 else cameras[0]
        source, target = (frames[camera][i] for i in rng.choice(len(frames[camera]), 2, replace=False))
        choice = drawn[camera]
        mask = choice[used[camera] % len(choice)] if choice else None
        used[camera] += 1
        parts = [f"{number:04d}", *([camera.name] if several else []), source.stem, target.stem]
        title = " ".join([*parts, mask.stem if mask else "square"])
        items.append(Item(_name(title), source, target, mask, target, square=mask is None, title=title))
    return _unique(items)


def _is_item(folder: Path) -> bool:
    stems = {path.stem for path in _images(folder)}
    return {"source", "target"} <= stems


def _item_of(folder: Path) -> Item:
    """The item of a folder with source.*, target.* and what else there is."""
    files: dict[str, list[Path]] = {role: [] for role in ("source", "target", "mask", "truth")}
    for path in _images(folder):
        if path.stem in files:
            files[path.stem].append(path)
    for role, found in files.items():
        if len(found) > 1 or (not found and role in ("source", "target")):
            got = ", ".join(repr(path.name) for path in found) or "none"
            raise ValueError(f"{os.fspath(folder)!r}: expected one image {role}.*, got {got}")
    first = {role: (found[0] if found else None) for role, found in files.items()}
    assert first["source"] is not None and first["target"] is not None
    title = folder.resolve().name
    return Item(_name(title), first["source"], first["target"], first["mask"], first["truth"], title=title)


def _images(folder: Path) -> list[Path]:
    """By name. Hidden files are none: some systems keep a picture's notes under its name there."""
    return [
        path for path in _listing(folder) if path.suffix.lower() in _image_files.READABLE_SUFFIXES and path.is_file()
    ]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _listing(folder) if path.is_dir()]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"ROOT: cannot read the folder {os.fspath(folder)!r}: {error.strerror}") from None


def _name(title: str) -> str:
    """A folder's name out of anything: it must not lead elsewhere, nor mean something to a shell or a browser."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip(".-_")[:_NAME_LENGTH] or "item"


def _unique(items: Iterable[Item]) -> list[Item]:
    """Names that differ even where case does not count."""
    taken: set[str] = set()
    found = []
    for item in items:
        name, count = item.name, 1
        while name.lower() in taken:
            count += 1
            name = f"{item.name}-{count}"
        taken.add(name.lower())
        found.append(replace(item, name=name))
    return found


# ------------------------------------------------------------------------------------------------------------- reading


def read_item(item: Item) -> Inputs:
    """An item's pixels, turned upright, in sRGB, 8 bits a channel; the target without its alpha.

    Parameters
    ----------
    item : Item

    Returns
    -------
    Inputs

    Raises
    ------
    ValueError
        Naming source, target, mask or truth and what is wrong with it.
    """
    whole = _rgb(item.target, "target")
    target = whole[..., :3]
    source = whole if item.source == item.target else _rgb(item.source, "source")
    truth = None
    if item.truth is not None:
        truth = target if item.truth == item.target else _rgb(item.truth, "truth")[..., :3]
        if truth.shape != target.shape:
            raise ValueError(f"truth: expected the target's size {_text(target)}, got {_text(truth)}")
    mask = None
    if item.mask is not None:
        mask = _mask(item.mask)
        if mask.shape != source.shape[:2]:
            raise ValueError(f"mask: expected the source's size {_text(source)}, got {_text(mask)}")
    elif item.square:
        height, width = source.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 4 + (height + 1) // 2, width // 4 : width // 4 + (width + 1) // 2] = 255
    elif source.shape[2] == 3:
        raise ValueError(f"mask: expected one, as {os.fspath(item.source)!r} has no alpha channel")
    inputs = Inputs(source, target, mask, item.offset, truth)
    if not inputs.framed[2].any():
        raise ValueError("mask: expected values above 0 within the target, got none")
    return inputs


def _rgb(path: Path, argument: str) -> Pixels:
    """Uint8 (H, W, 3), or with alpha (H, W, 4)."""
    from PIL import Image

    photo = _image_files.read(path, argument)
    picture = _image_files.like(photo, _image_files.Photo(Image.new("RGB", (1, 1))), argument)
    return np.asarray(picture, np.uint8)


def _mask(path: Path) -> Pixels:
    """Uint8 (H, W), 255 where the source shows."""
    pixels: npt.NDArray[Any] = _arrays.mask(_image_files.read(path, "mask").picture)[0]
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):  # nor is NaN
        raise ValueError("mask: expected floats in [0, 1]")
    levels: Pixels = np.rint(_frames.to_float(pixels, is_mask=True) * 255).astype(np.uint8)
    return _unambiguous(levels)


def _unambiguous(mask: Pixels) -> Pixels:
    """A mask whose 255 is full: of levels 0 and 1 alone, who reads it would take the 1 for full, so that becomes 0."""
    return np.zeros_like(mask) if mask.max() == 1 else mask


def _text(pixels: npt.NDArray[Any] | Sequence[int]) -> str:
    height, width = np.shape(pixels)[:2]
    return f"{height} x {width}"
