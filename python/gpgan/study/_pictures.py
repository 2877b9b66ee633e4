"""What the browser is sent: pixels and nothing else, and the outline of what was pasted."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
from PIL import Image

from gpgan import _arrays, _image_files

#: The mask's outline is drawn on a copy with this many pixels at its longer side.
_OUTLINE_SIDE = 320
#: Space between the object and the line, and how round the line is, as parts of the picture's longer side.
_MARGIN, _ROUNDNESS = 0.02, 0.012


def shown_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side has `max_side` pixels at most."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def encode(path: Path, size: tuple[int, int], max_side: int) -> bytes:
    """An image file as a PNG of 8-bit sRGB without metadata, so that its bytes tell nothing of who made them.

    Parameters
    ----------
    path : Path
    size : (int, int)
        Height and width that it must have.
    max_side : int
        If its longer side has more pixels, it is scaled down.

    Raises
    ------
    ValueError
        If the file cannot be read, or has another size.
    """
    photo = _image_files.read(path, "picture")
    mode, found = photo.picture.mode, (photo.picture.height, photo.picture.width)
    if found != size:
        raise ValueError(f"picture: expected {size[0]}x{size[1]}, got {found[0]}x{found[1]} in {path.name!r}")
    srgb = _image_files.Photo(Image.new("RGB", (1, 1)))
    picture = _image_files.like(photo, srgb, "picture")
    if mode in ("LA", "RGBA"):  # what is transparent shows the same in every method's result
        grey = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(grey, picture.convert("RGBA")).convert("RGB")
    height, width = shown_size(size, max_side)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture.info = {}  # the encoder would write a profile and more from there
    out = io.BytesIO()
    # It travels within the machine, where time counts more than bytes.
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def mask(path: Path) -> npt.NDArray[Any]:
    """What an image file says of where something was pasted, as (H, W) numbers, 0 where nothing was.

    Raises
    ------
    ValueError
        If the file cannot be read, or is no mask.
    """
    try:
        values: npt.NDArray[Any] = _arrays.mask(_image_files.read(path, "mask").picture)[0]
    except TypeError as error:
        raise ValueError(str(error)) from error
    return values


def outline(path: Path) -> str:
    """A line around a mask's objects, at some distance and with the corners rounded off.

    Returns
    -------
    str
        The path data of an SVG whose coordinates go from 0 to the picture's width and height divided by the longer
        of both, times 1000. Empty for an empty mask.

    Raises
    ------
    ValueError
        If the file cannot be read, or is no mask.
    """
    import skimage.measure

    find_contours: Any = skimage.measure.find_contours  # some of its versions are typed, others are not

    values = mask(path)
    if not values.any():
        return ""
    inside = values > values.max() / 2
    step = max(1, math.ceil(max(inside.shape) / _OUTLINE_SIDE))
    height, width = (math.ceil(n / step) * step for n in inside.shape)
    padded = np.pad(inside, ((0, height - inside.shape[0]), (0, width - inside.shape[1])))
    # Any pixel of a cell counts: a line thinner than the step is circled too.
    small = padded.reshape(height // step, step, width // step, step).any((1, 3))
    side = max(small.shape)
    # A frame around it, so that the line closes outside of the picture where the object leaves it.
    frame = math.ceil((_MARGIN + 3 * _ROUNDNESS) * side) + 2
    distance = scipy.ndimage.distance_transform_edt(~np.pad(small, frame))
    near = (distance <= max(1.5, _MARGIN * side)).astype(np.float64)
    smooth = scipy.ndimage.gaussian_filter(near, _ROUNDNESS * side)
    scale = 1000 * step / max(inside.shape)
    lines = []
    for contour in find_contours(smooth, 0.5):
        points = (contour[:-1] - frame + 0.5) * scale
        # Every second one is enough for a line this smooth.
        lines.append("M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in points[:: 2 if len(points) > 24 else 1]) + "Z")
    return "".join(lines)
