"""What a folder has to compare: its items, and each one's results by method."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpgan import _files, _image_files
from gpgan.evaluation.items import RESERVED
from gpgan.study import _pictures

_METHOD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Item:
    """One composite and what the methods made of it.

    Attributes
    ----------
    name : str
        The name of its folder.
    composite : Path
    mask : Path or None
    results : dict of str to Path
        By method.
    size : (int, int)
        Height and width that all of them have, upright.
    """

    name: str
    composite: Path
    mask: Path | None
    results: dict[str, Path]
    size: tuple[int, int]


def items_folder(folder: Path) -> Path:
    """Where the item folders lie: in ``items`` of what ``gpgan evaluate`` wrote, or in the folder itself."""
    inner = folder / "items"
    return inner if inner.is_dir() else folder


def find_items(folder: Path, methods: Sequence[str] | None) -> tuple[list[Item], list[tuple[str, str]]]:
    """The items of a folder, sorted by name, and which were left out, with the reason.

    Parameters
    ----------
    folder : Path
        That of the item folders.
    methods : sequence of str or None
        The methods that count; None for all.

    Raises
    ------
    ValueError
        If there is no such folder, or it cannot be read.
    """
    try:
        children = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"folder: cannot read {os.fspath(folder)!r}: {error.strerror}") from error
    items, left_out = [], []
    for path in children:
        try:
            item = _item(path, methods) if path.is_dir() else None
        except (OSError, ValueError) as error:
            reason = f"cannot read it: {error.strerror}" if isinstance(error, OSError) else str(error)
            left_out.append((_files.printable(path.name), reason))
        else:
            if item is not None:
                items.append(item)
    return items, left_out


def _item(folder: Path, methods: Sequence[str] | None) -> Item | None:
    """An item, or None for a folder that is none."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _image_files.READABLE_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        stem = path.stem.lower() if path.stem.lower() in RESERVED else path.stem
        if methods is not None and stem not in (*methods, "composite", "mask"):
            continue
        if stem not in RESERVED and not _METHOD.fullmatch(stem):
            raise ValueError(f"{path.name!r}: a method's name may have letters, digits and ._- only")
        if stem in files:
            raise ValueError(f"{files[stem].name!r} and {path.name!r} are of one method")
        files[stem] = path
    composite, mask = files.get("composite"), files.get("mask")
    if composite is None and mask is None and not (folder / "item.json").exists():
        return None
    if composite is None:
        raise ValueError("it has no composite")
    if not folder.name.isprintable():  # undecodable bytes among them, which SQLite cannot keep
        raise ValueError("the folder's name is not printable text")
    results = {stem: path for stem, path in files.items() if stem not in RESERVED}
    size = _image_files.upright_size(composite)
    for path in [*results.values(), *([mask] if mask else [])]:
        other = _image_files.upright_size(path)
        if other != size:
            raise ValueError(f"{path.name!r} is {other[0]}x{other[1]}, its composite {size[0]}x{size[1]}")
    if mask is not None:
        _pictures.mask(mask)  # raters are told of a circle
    return Item(folder.name, composite, mask, results, size)
