"""Masks: reading drawn ones (images and LabelMe annotations) and drawing random ones.

Mask files are untrusted: what they may cost is capped by `MAX_ANNOTATION_BYTES` and `MAX_MASK_PIXELS`, which a program
may set.
"""

from __future__ import annotations

import base64
import io
import json
import os
import reprlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import cv2
except ImportError as error:
    raise ImportError("gpgan.nn.masks needs OpenCV: pip install 'gpgan[train]'") from error

__all__ = [
    "ANNOTATION_SUFFIXES", "IMAGE_SUFFIXES", "MAX_ANNOTATION_BYTES", "MAX_MASK_PIXELS", "Box", "centred_square",
    "find_masks", "random_mask", "read_masks",
]  # fmt: skip

Mask = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels; bottom and right are exclusive
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
ANNOTATION_SUFFIXES = frozenset({".json", ".xml"})
MAX_ANNOTATION_BYTES = 32 << 20  # a labelme file may carry its whole photo; parsed, it takes some 20 times as much
MAX_MASK_PIXELS = 1 << 26  # of a mask image, of an annotated image, and of all masks stored in one annotation


# --- Drawn masks --------------------------------------------------------------------------------------------

# A piece of an object is its outlines, int32 (N, 2) of x, y each, filled by the even-odd rule so that an outline
# inside another is a hole; or a mask with its top left corner. An object is the union of its pieces.
Outlines = list[NDArray[np.int32]]


class _Stamp(NamedTuple):
    top: int
    left: int
    drawn: NDArray[np.bool_]


class _Annotation(NamedTuple):
    height: int
    width: int
    photo: str  # as the annotation says it
    objects: list[list[Outlines | _Stamp]]


def find_masks(root: str | os.PathLike[str]) -> list[Path]:
    """All mask images and LabelMe annotations (.json, .xml) below `root`, sorted; `ValueError` where there are none.

    Every annotation is read once, so that a broken one is an error now and not within training; a .json or .xml file
    that is none is an error too. Left out are annotations of no object and the annotated photos themselves: images
    that an annotation names as its photo or that have its name up to the suffix, in its own folder or, as on MIT's
    LabelMe server, under ``Images`` where it lies under ``Annotations``.
    """
    files = sorted(
        p for p in Path(root).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES | ANNOTATION_SUFFIXES and p.is_file()
    )
    empty: set[Path] = set()
    photos: set[str] = set()
    for path in files:
        if path.suffix.lower() in ANNOTATION_SUFFIXES:
            annotation = _annotation(path)
            if not annotation.objects:
                empty.add(path)
            for twin in (path, Path(*("Images" if part == "Annotations" else part for part in path.parts))):
                photos.add(_stem(twin))
                if annotation.photo:
                    photos.add(_stem(twin.parent / annotation.photo.replace("\\", "/")))
    found = [p for p in files if p not in empty and (p.suffix.lower() in ANNOTATION_SUFFIXES or _stem(p) not in photos)]
    if not found:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | ANNOTATION_SUFFIXES))
        raise ValueError(f"no masks ({suffixes}) below {os.fspath(root)!r}")
    return found


def _stem(path: Path) -> str:
    return os.path.splitext(os.path.abspath(path))[0]  # noqa: PTH100, PTH122  (".." without asking the disk)


def read_masks(path: str | os.PathLike[str]) -> Iterator[NDArray[np.bool_]]:
    """The masks (H, W) of one file, one an object, drawn as they are asked for.

    Parameters
    ----------
    path : path
        A mask image (one mask: brighter than half, or not 0 where the image holds only 0 and 1); or an annotation:

        - JSON of the program labelme: polygons, rectangles, circles and masks. Shapes of the same label and
          ``group_id`` are one object. Points and lines have no area and are skipped, ``imageData`` is ignored.
        - XML of MIT's LabelMe web tool. Several polygons of one object are filled by the even-odd rule, so that one
          inside another is a hole. Deleted objects are skipped, and those whose mask is in a file of its own.

        Outlines belong to the mask. What lies outside the image is cut off.

    Raises
    ------
    ValueError
        Where the file is no annotation, is larger than `MAX_ANNOTATION_BYTES` or its image than `MAX_MASK_PIXELS`,
        holds a document type, or a shape with too few points or with one more than an image's size outside the image.
    """
    path = Path(path)
    if path.suffix.lower() not in ANNOTATION_SUFFIXES:
        return iter([_mask_image(path)])
    height, width, _, objects = _annotation(path)
    return (_fill(pieces, (0, 0, height, width)) for pieces in objects)


def _mask_image(path: Path) -> NDArray[np.bool_]:
    with Image.open(path) as image:
        if image.width * image.height > MAX_MASK_PIXELS:
            came = f"{image.width} x {image.height}"
            raise ValueError(f"{os.fspath(path)!r}: expected a mask of at most {MAX_MASK_PIXELS} pixels, got {came}")
        grey = np.asarray(image.convert("L"))
    return grey > (127 if grey.max() > 1 else 0)


def _one_mask(rng: np.random.Generator, path: Path) -> NDArray[np.bool_]:
    """A mask image, or one object of an annotation at random, cut to its bounding box and no larger than need be."""
    if path.suffix.lower() not in ANNOTATION_SUFFIXES:
        return _mask_image(path)
    height, width, _, objects = _annotation(path)
    if not objects:
        return np.zeros((1, 1), np.bool_)
    pieces = objects[int(rng.integers(len(objects)))]
    points = np.concatenate(
        [
            [(p.left, p.top), (p.left + p.drawn.shape[1] - 1, p.top + p.drawn.shape[0] - 1)]
            if isinstance(p, _Stamp)
            else np.concatenate(p)
            for p in pieces
        ]
    )
    left, top = np.clip(points.min(0), 0, (width - 1, height - 1)).tolist()
    right, bottom = np.clip(points.max(0), 0, (width - 1, height - 1)).tolist()
    return _fill(pieces, (top, left, bottom + 1, right + 1), max(1, (max(bottom - top, right - left) + 1) // 1024))


def _fill(pieces: Sequence[Outlines | _Stamp], box: Box, step: int = 1) -> NDArray[np.bool_]:
    """The union of `pieces` within `box`, which holds every stamp of them; one pixel of `step` x `step`."""
    top, left, bottom, right = box
    canvas = np.zeros((-((top - bottom) // step), -((left - right) // step)), np.uint8)
    for piece in pieces:
        if isinstance(piece, _Stamp):
            drawn = piece.drawn[::step, ::step]
            there = canvas[(piece.top - top) // step :, (piece.left - left) // step :][: len(drawn), : drawn.shape[1]]
            there |= drawn[: len(there), : there.shape[1]]
        else:
            cv2.fillPoly(canvas, [(outline - (left, top)) // step for outline in piece], 1)
    return canvas.astype(np.bool_)


@lru_cache(maxsize=1 << 14)  # outlines are small, and the files, with their photos in them, are not
def _annotation(path: Path) -> _Annotation:
    with path.open("rb") as file:
        data = file.read(MAX_ANNOTATION_BYTES + 1)
    try:
        if len(data) > MAX_ANNOTATION_BYTES:
            raise ValueError(f"expected at most {MAX_ANNOTATION_BYTES} bytes")
        return _from_json(data) if path.suffix.lower() == ".json" else _from_xml(data)
    except (ValueError, LookupError, RecursionError, ElementTree.ParseError) as error:
        raise ValueError(f"{os.fspath(path)!r} is no LabelMe annotation to read: {error}") from error


def _from_json(data: bytes) -> _Annotation:
    """The file of wkentaro's labelme."""
    document = json.loads(data)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        raise ValueError("expected an object with a list 'shapes'")
    height, width = _image_size(document.get("imageHeight"), document.get("imageWidth"))
    objects: dict[int | str, list[Outlines | _Stamp]] = {}
    stamped = 0
    for i, shape in enumerate(shapes):
        where = f"shapes[{i}]"
        if not isinstance(shape, dict):
            raise ValueError(f"{where}: expected an object, got {reprlib.repr(shape)}")
        kind, points = shape.get("shape_type") or "polygon", shape.get("points")
        piece: Outlines | _Stamp
        if kind == "polygon":
            piece = [_points(points, height, width, where)]
        elif kind == "rectangle":  # two opposite corners, in some programs all four
            corners = _points(points, height, width, where, (2, 4))
            if len(corners) == 2:
                (x0, y0), (x1, y1) = corners
                corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.int32)
            piece = [corners]
        elif kind == "circle":  # the centre and a point of the circle
            centre, edge = _points(points, height, width, where, (2,)).astype(np.float64)
            angle = np.arange(64) * (2 * np.pi / 64)
            circle = centre + np.hypot(*(edge - centre)) * np.stack([np.cos(angle), np.sin(angle)], 1)
            piece = [np.rint(circle).astype(np.int32)]
        elif kind == "mask":
            corner = _points(points, height, width, where, (2,))[0]
            piece = _stamp(shape.get("mask"), corner, height, width, where)
            stamped += piece.drawn.size
            if stamped > MAX_MASK_PIXELS:
                raise ValueError(f"{where}: expected masks of at most {MAX_MASK_PIXELS} pixels together")
        elif kind in ("point", "points", "line", "linestrip"):
            continue
        else:
            expected = "polygon, rectangle, circle, mask, point, points, line or linestrip"
            raise ValueError(f"{where}: expected shape_type {expected}, got {reprlib.repr(kind)}")
        group = shape.get("group_id")
        objects.setdefault(i if group is None else repr((shape.get("label"), group)), []).append(piece)
    return _Annotation(height, width, str(document.get("imagePath") or ""), list(objects.values()))


def _from_xml(data: bytes) -> _Annotation:
    """The file of MIT's LabelMe web tool."""
    # Entities, which can grow without bound, need a document type. UTF-16 would hide it and is full of zeros.
    if b"<!DOCTYPE" in data or b"\0" in data:
        raise ValueError("expected XML without a document type and without zero bytes")
    root = ElementTree.fromstring(data)
    if root.tag != "annotation":
        raise ValueError(f"expected a root element 'annotation', got {reprlib.repr(root.tag)}")
    height, width = _image_size(root.findtext("imagesize/nrows"), root.findtext("imagesize/ncols"))
    objects: list[list[Outlines | _Stamp]] = []
    for i, item in enumerate(root.findall("object")):
        if (item.findtext("deleted") or "").strip() == "1":
            continue
        rings = [
            [(pt.findtext("x"), pt.findtext("y")) for pt in ring.findall("pt")] for ring in item.findall("polygon")
        ]
        if rings:
            objects.append([[_points(ring, height, width, f"object {i}") for ring in rings]])
    return _Annotation(height, width, (root.findtext("filename") or "").strip(), objects)


def _image_size(*size: object) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if not (0 < height < 1 << 15 and 0 < width < 1 << 15 and height * width <= MAX_MASK_PIXELS):
        raise ValueError(
            f"expected an image's height and width, below {1 << 15} and of at most {MAX_MASK_PIXELS} pixels, "
            f"got {reprlib.repr(size)}"
        )
    return height, width


def _points(value: object, height: int, width: int, where: str, numbers: tuple[int, ...] = ()) -> NDArray[np.int32]:
    """Points (N, 2) of x, y, rounded: N of `numbers`, or three and more."""
    try:
        points = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not (len(points) in numbers if numbers else len(points) > 2):
        expected = " or ".join(map(str, numbers)) if numbers else "3 or more"
        raise ValueError(f"{where}: expected {expected} points (x, y), got {reprlib.repr(value)}")
    near = (points >= (-width, -height)) & (points <= (2 * width, 2 * height))  # not so for NaN
    if not near.all():
        came = tuple(points[~near.all(1)][0].tolist())
        raise ValueError(f"{where}: expected points in or near the image of {width} x {height}, got {came}")
    return np.rint(points).astype(np.int32)


def _stamp(value: object, corner: NDArray[np.int32], height: int, width: int, where: str) -> _Stamp:
    """The part within the image of a mask stored as a PNG in base64, its top left pixel at `corner`."""
    try:
        png = base64.b64decode(value if isinstance(value, str) else "")
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.width > width or image.height > height:
                raise ValueError(f"got {image.width} x {image.height}")
            drawn = np.asarray(image.convert("L")) > 0
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{where}: expected a mask as a PNG in base64, no larger than the image: {error}") from error
    left, top = corner.tolist()
    drawn = drawn[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)].copy()
    return _Stamp(max(0, top), max(0, left), drawn)


# --- Random masks -------------------------------------------------------------------------------------------


def centred_square(height: int, width: int) -> Mask:
    """The paper's training mask (H, W): 1 in the middle half of both sides, rounded up, else 0."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return mask


def random_mask(
    rng: np.random.Generator, height: int, width: int, *, guide: NDArray[np.floating] | None = None,
    files: Sequence[Path] = (),
) -> Mask:  # fmt: skip
    """A mask (H, W) of 0 and 1 as somebody might draw it around an object, of 1 to 40 % of the image.

    Mostly segments of `guide` (H, W, 3), whose outlines follow edges as those of objects do; else a drawn mask from
    `files` (of an annotation, one of its objects), a region of similar colour in `guide`, a polygon, a blob or the
    centred square. The outline is drawn a pixel too tight up to three too wide, and seldom touches the border. An
    image too small for any of them gets the centred square.
    """
    core = np.ones((2 * (max(height, width) // 100) + 1,) * 2, np.uint8)
    margin = min(4, min(height, width) // 8)
    for _ in range(20):
        kind = rng.uniform()
        if guide is not None and kind < 0.72:
            mask = _segments(rng, guide)
        elif files and kind < 0.85:
            mask = _from_file(rng, files[int(rng.integers(len(files)))], height, width)
        elif guide is not None and kind < 0.9:
            mask = _flood(rng, guide)
        elif kind < 0.94:
            mask = _polygon(rng, height, width)
        elif kind < 0.99:
            mask = _blob(rng, height, width)
        else:
            return centred_square(height, width)
        if not 0.012 < mask.mean() < 0.4:
            continue
        if rng.uniform() < 0.7:
            mask = np.pad(mask[margin : height - margin, margin : width - margin], margin)
        growth = int(rng.integers(-1, 4))
        if growth < 0:
            mask = np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)), np.uint8)
        elif growth > 0:
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * growth + 1,) * 2)
            mask = np.asarray(cv2.dilate(mask, disc), np.uint8)
        if rng.uniform() < 0.8:  # one object
            count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
            if count > 1:
                mask = (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
        if 0.01 < mask.mean() < 0.4 and cv2.erode(mask, core).mean() > 5e-4:  # not all of it rim
            return np.asarray(mask, np.uint8)
    return centred_square(height, width)


def _polygon(rng: np.random.Generator, height: int, width: int) -> Mask:
    corners = rng.integers(3, 14)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.1, 0.4) * rng.uniform(0.5, 1.3, corners)
    centre = rng.uniform(0.2, 0.8, 2)
    points = centre + radius[:, None] * np.stack([np.cos(angle) * rng.uniform(0.5, 1.6), np.sin(angle)], 1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [(points * (width, height)).astype(np.int32)], 1)
    return mask


def _blob(rng: np.random.Generator, height: int, width: int) -> Mask:
    coarse = rng.standard_normal((8, 8)).astype(np.float32)
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = (np.arange(height)[:, None] / height, np.arange(width) / width)
    cy, cx = rng.uniform(0.25, 0.75, 2)
    ry, rx = rng.uniform(0.1, 0.4, 2)
    inside = 1 - ((y - cy) / ry) ** 2 - ((x - cx) / rx) ** 2 + 0.5 * noise > 0
    return np.asarray(inside, np.uint8)


def _flood(rng: np.random.Generator, guide: NDArray[np.floating]) -> Mask:
    """A region of similar colour in `guide` (H, W, 3), holes closed: an object's or a part's own outline."""
    smooth = cv2.GaussianBlur(np.asarray(guide, np.float32), (0, 0), guide.shape[0] / 64)
    filled = np.zeros((guide.shape[0] + 2, guide.shape[1] + 2), np.uint8)
    seed = (int(rng.integers(guide.shape[1])), int(rng.integers(guide.shape[0])))
    span = (float(rng.uniform(0.01, 0.04)),) * 3
    cv2.floodFill(smooth, filled, seed, (0.0, 0.0, 0.0), span, span, cv2.FLOODFILL_MASK_ONLY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return np.asarray(cv2.morphologyEx(filled[1:-1, 1:-1], cv2.MORPH_CLOSE, kernel), np.uint8)


def _segments(rng: np.random.Generator, guide: NDArray[np.floating]) -> Mask:
    """A few neighbouring watershed segments of `guide` (H, W, 3): an outline that follows edges, as drawn masks do."""
    height, width = guide.shape[:2]
    scale = min(1, 320 / max(height, width))
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    small = cv2.resize(np.asarray(guide, np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(small, (0, 0), max(rows / 128, 0.5))
    relief = np.rint(np.clip(smooth, 0, 1) * 255).astype(np.uint8)
    markers = np.zeros((rows, columns), np.int32)
    seeds = int(rng.integers(8, 40))
    markers[rng.integers(0, rows, seeds), rng.integers(0, columns, seeds)] = np.arange(1, seeds + 1)
    labels = cv2.watershed(np.ascontiguousarray(relief), markers)
    mask = (labels == int(rng.integers(1, seeds + 1))).astype(np.uint8)
    square = np.ones((5, 5), np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        rim = labels[(cv2.dilate(mask, square) > 0) & (mask == 0) & (labels > 0)]
        if len(rim):
            mask |= (labels == rng.choice(rim)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, square)  # the ridges between joined segments
    if rng.uniform() < 0.7:
        mask = cv2.erode(mask, np.ones((3, 3), np.uint8))
    if scale == 1:
        return np.asarray(mask, np.uint8)
    fine = np.asarray(cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.GaussianBlur(fine, (0, 0), 1.5) > 0.5, np.uint8)  # as smooth as a hand draws


def _from_file(rng: np.random.Generator, path: Path, height: int, width: int) -> Mask:
    """A drawn mask in a random place: stretched, shrunk, flipped."""
    drawn = _one_mask(rng, path)
    rows, columns = np.nonzero(drawn.any(1))[0], np.nonzero(drawn.any(0))[0]
    mask = np.zeros((height, width), np.uint8)
    if len(rows) == 0:
        return mask
    drawn = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][:, :: rng.choice([-1, 1])]
    extent = np.sqrt(height * width) * rng.uniform(0.2, 0.8)
    aspect = np.clip(drawn.shape[0] / drawn.shape[1] * rng.uniform(0.6, 1.6), 0.3, 3)
    h = max(1, int(min(extent * np.sqrt(aspect), 0.9 * height)))
    w = max(1, int(min(extent / np.sqrt(aspect), 0.9 * width)))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    resized = cv2.resize(drawn.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    mask[top : top + h, left : left + w] = resized > 0.5
    return mask
