"""One page with all the pictures in it, which needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

import gpgan
from gpgan import _files
from gpgan.evaluation import table
from gpgan.evaluation.results import Results
from gpgan.evaluation.run_folder import Record, read_picture

_FOLDER = Path(__file__).parent
#: What a result's caption says, of what there is.
_CAPTION = ("psnr_core", "psnr", "realism")
_WEBP_QUALITY = 80
_GRID_SIDE = 200
#: A line's width is this part of the picture's longer side.
_OUTLINE_SHARE = 200
_OUTLINE, _OUTLINE_EDGE = (255, 221, 0), (0, 0, 0)


def write(results: Results, *, thumbnail: int, grid: int, title: str, progress: bool = False) -> None:
    """Write ``report.html`` into the run's folder, whole or not at all.

    Parameters
    ----------
    results : Results
    thumbnail : int
        The longer side of the pictures, in pixels.
    grid : int
        How many items stand side by side at the beginning.
    title : str
    progress : bool

    Raises
    ------
    ImportError
        If Jinja2 or tqdm is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"gpgan.evaluation needs {error.name}: pip install 'gpgan[evaluate]'") from error
    # Names of files come from strangers: everything that the template shows is escaped.
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        loader=jinja2.FileSystemLoader(_FOLDER),
    )
    style, script = ((_FOLDER / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    summary, metrics, labels = results.summary, results.metrics, list(results.summary)
    bar = tqdm(results.items, disable=not progress, file=sys.stderr, unit="item", desc="report", dynamic_ncols=True)
    stream = environment.get_template("report.html.j2").stream(
        title=title,
        version=gpgan.__version__,
        count=len(results.items),
        methods=labels,
        metrics=[{"key": metric, "header": table.header(metric)} for metric in metrics],
        rows=_rows(summary, metrics),
        any_failed=results.failed > 0,
        gains=table.gain_rows(summary),
        notes=results.notes,
        grid=_grid(results, labels, min(grid, len(results.items))),
        items=_items(results.run, bar, metrics, thumbnail),
        # Only these two run, whatever else should ever get into the page.
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
    )
    with _files.replacing(results.run / "report.html", sync=False) as file:
        for text in stream:
            file.write(text.encode(errors="replace"))


def _rows(summary: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    best = {metric: table.best(summary, metric) for metric in metrics}
    rows = []
    for label, row in summary.items():
        cells = []
        for metric in metrics:
            value = table.mean(row, metric)
            text = table.cell(metric, value)
            is_best = best[metric] is not None and row["complete"] and text == table.cell(metric, best[metric])
            cells.append({"value": "nan" if value is None else repr(value), "text": text, "best": is_best})
        rows.append({"label": label, "cells": cells, "failed": row["failed"]})
    return rows


def _grid(results: Results, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Figure 9 of the paper: items across; mask, composite and methods down."""
    shown = results.items[:count]
    if not shown:
        return []
    truths = any("truth" in record["files"] for record in shown)
    names = ["mask", "composite", *labels, *(["truth"] if truths else [])]
    rows = []
    for i, name in enumerate(names):
        is_method = 2 <= i < 2 + len(labels)
        pictures = []
        for record in shown:
            folder = results.run / "items" / record["item"]
            there = record["error"] is None and not (is_method and record["methods"][name]["error"] is not None)
            picture = _thumbnail(folder, name, _GRID_SIDE) if there else _NO_PICTURE
            pictures.append(picture | {"title": record["title"]})
        rows.append({"label": name, "method": name if is_method else "", "pictures": pictures})
    return rows


def _items(run: Path, records: Iterable[Record], metrics: Sequence[str], side: int) -> Iterator[dict[str, Any]]:
    """One at a time, as the page is written: all pictures together may be too many for the memory."""
    for number, record in enumerate(records, 1):
        folder, pictures = run / "items" / record["item"], []
        if record["error"] is None:
            pictures.append(_picture(folder, "composite", side, label="composite, mask's outline"))
            for label, said in record["methods"].items():
                pictures.append(_of_method(folder, label, said, metrics, side))
            if "truth" in record["files"]:
                pictures.append(_picture(folder, "truth", side))
        yield {
            "number": number, "name": record["item"], "title": record["title"], "error": record["error"],
            "pictures": pictures,
        }  # fmt: skip


def _of_method(folder: Path, label: str, said: Mapping[str, Any], metrics: Sequence[str], side: int) -> dict[str, Any]:
    if said["error"] is not None:
        return _NO_PICTURE | {
            "label": label, "method": label, "error": said["error"], "caption": ["failed"], "hint": "", "full": "",
        }  # fmt: skip
    numbers = table.values(said)
    texts = {metric: f"{table.header(metric)} {table.cell(metric, numbers.get(metric))}" for metric in metrics}
    shown = [metric for metric in _CAPTION if metric in numbers] or ["seconds"]
    return _picture(folder, label, side) | {
        "method": label, "caption": [texts[metric] for metric in shown], "hint": "\n".join(texts.values()),
    }  # fmt: skip


def _picture(folder: Path, stem: str, side: int, label: str | None = None) -> dict[str, Any]:
    return _thumbnail(folder, stem, side) | {
        "label": label or stem, "method": "", "caption": [], "hint": "",
        "full": f"items/{folder.name}/{stem}.png",
    }  # fmt: skip


_NO_PICTURE: dict[str, Any] = {"data": "", "width": 0, "height": 0, "error": "no picture"}


def _thumbnail(folder: Path, stem: str, side: int) -> dict[str, Any]:
    """A picture of an item as a data URI, the composite with the mask's outline on it."""
    try:
        picture = _resized(Image.fromarray(read_picture(folder / f"{stem}.png")), side)
        if stem == "composite":
            picture = _outlined(picture, Image.fromarray(read_picture(folder / "mask.png")))
    except ValueError as error:  # somebody has touched the file since it was written
        return _NO_PICTURE | {"error": str(error)}
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=_WEBP_QUALITY, method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"data": uri, "width": picture.width, "height": picture.height, "error": ""}


def _resized(picture: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _outlined(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A line along the inside of the mask's edge and a dark one along the outside, to be seen on any colour."""
    inside = mask.convert("L").resize(picture.size, Image.Resampling.BOX).point(lambda value: 255 * (value > 127))
    width = max(1, round(max(picture.size) / _OUTLINE_SHARE))
    # Padded: where the mask meets the image's border, the line runs along it.
    padded = Image.fromarray(np.pad(np.asarray(inside), width))
    frame = (width, width, width + picture.width, width + picture.height)
    line = ImageChops.subtract(padded, padded.filter(ImageFilter.MinFilter(2 * width + 1))).crop(frame)
    edge = ImageChops.subtract(padded.filter(ImageFilter.MaxFilter(3)), padded).crop(frame)
    drawn = picture.convert("RGB")
    drawn.paste(_OUTLINE_EDGE, mask=edge)
    drawn.paste(_OUTLINE, mask=line)
    return drawn


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
