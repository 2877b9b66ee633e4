"""Image files for the command line: read as a viewer shows them, written whole or not at all."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from gpgan import _files, _frames, _warnings
from gpgan._arrays import max_pixels

#: Few decoders, so that little code meets files of unknown origin.
READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}
#: Endings of the files that `read` is for.
READABLE_SUFFIXES = frozenset({*SUFFIXES, ".bmp"})
#: The modes that `read` gives, and who can hold them.
HOLDS = {
    "PNG": ("L", "LA", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB"),
    "TIFF": ("L", "LA", "RGB", "RGBA", "I;16", "F"),
    "WEBP": ("L", "LA", "RGB", "RGBA"),
}

_TAG = ExifTags.Base
#: What EXIF says of the picture. The rest says how its file kept the pixels, or is a thumbnail of the old ones.
_KEPT_TAGS = {
    _TAG.ImageDescription, _TAG.Make, _TAG.Model, _TAG.Orientation, _TAG.Software, _TAG.DateTime,
    _TAG.HostComputer, _TAG.Artist, _TAG.Copyright, _TAG.Rating, _TAG.XPTitle, _TAG.XPComment, _TAG.XPAuthor,
    _TAG.XPKeywords, _TAG.XPSubject, _TAG.ExifOffset, _TAG.GPSInfo,
}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """An image file's content, upright.

    Attributes
    ----------
    picture : PIL.Image.Image
        Of mode L, LA, RGB, RGBA, I;16 or F.
    profile : bytes or None
        Its ICC profile; None means sRGB.
    exif : bytes or None
    dpi : (float, float) or None
    """

    picture: Image.Image
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None


def read(path: Path, argument: str) -> Photo:
    """Read the first frame of an image file, turned as its EXIF orientation says.

    Raises
    ------
    ValueError
        If there is no such file, or it is no image of a known kind, damaged or over :func:`gpgan.max_pixels`.
    """
    with _opened(path, f"{argument}: ", os.fspath(path)) as file:
        exif, turned = _exif(file)
        profile = file.info.get("icc_profile") or None
        dpi = _dpi(file.info.get("dpi"))
        picture, profile = _plain(ImageOps.exif_transpose(file), profile)
    return Photo(picture, profile, exif, dpi[::-1] if dpi and turned else dpi)


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width that :func:`read` would give, by the file's header alone.

    Raises
    ------
    ValueError
        As :func:`read` does, but for what only the pixels can tell. It names the file without its folder.

    Notes
    -----
    EXIF behind the pixels of a PNG is not looked for: only :func:`read` turns such a picture.
    """
    with _opened(path, "", path.name) as file:
        if file.format == "TIFF":  # some Pillows have turned `size` by now and some have not
            width, height = (int(file.tag_v2[tag]) for tag in (_TAG.ImageWidth, _TAG.ImageLength))  # type: ignore[attr-defined]
        else:
            width, height = file.size
        # For EXIF behind the pixels of a PNG, Pillow would decode them all.
        here = file.format != "PNG" or not {"exif", "xmp", "XML:com.adobe.xmp"}.isdisjoint(file.info)
        turned = here and file.getexif().get(_TAG.Orientation, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def like(source: Photo, target: Photo, argument: str) -> Image.Image:
    """The source's picture in the target's colours: grey or RGB, and in its ICC profile.

    Raises
    ------
    ValueError
        If one of the profiles cannot be used.
    """
    picture, mode = source.picture, "RGB" if target.picture.mode in ("RGB", "RGBA") else "L"
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    if picture.mode in ("I;16", "F"):
        if mode == "L" and source.profile == target.profile:
            return picture
        values = np.asarray(picture)
        _frames.check_range(values, argument)
        values = values / 257 if picture.mode == "I;16" else values.clip(0, 1) * 255
        picture = Image.fromarray((values + 0.5).astype(np.uint8))
    elif alpha is not None:
        picture = picture.convert(picture.mode[:-1])
    if picture.mode != mode or source.profile != target.profile:
        try:
            picture = _convert(picture, source.profile, target.profile, mode)
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError(f"{argument}: cannot convert its ICC profile to the target's: {error}") from error
    if alpha is not None:
        picture.putalpha(alpha)
    return picture


def output_format(path: Path) -> str:
    """The format that a name asks for.

    Raises
    ------
    ValueError
        If the name's ending is unknown, or no file can be put there.
    """
    name = repr(os.fspath(path))
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"output: expected a name that ends in {', '.join(SUFFIXES)}, got {name}")
    if not path.parent.is_dir():
        raise ValueError(f"output: expected an existing folder, got {os.fspath(path.parent)!r}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"output: no permission to write in {os.fspath(path.parent)!r}")
    if path.exists() and not path.is_file():  # a device or a folder would be replaced
        raise ValueError(f"output: expected a file's name, got {name}, which is something else")
    return SUFFIXES[path.suffix.lower()]


def check_holds(image_format: str, mode: str) -> None:
    """Make sure that a format can hold a picture of this mode.

    Raises
    ------
    ValueError
        If it cannot.
    """
    if mode not in HOLDS[image_format]:
        what = {"LA": "an alpha channel", "RGBA": "an alpha channel", "I;16": "16 bits"}.get(mode, "floats")
        fit = [name for name, modes in HOLDS.items() if mode in modes]
        raise ValueError(f"output: {image_format} cannot hold {what} like the target; use {' or '.join(fit)}")


def write(photo: Photo, path: Path, *, quality: int) -> None:
    """Write an image file atomically: under its name there is the old file or the whole new one, never a part.

    Parameters
    ----------
    photo : Photo
    path : Path
        Its ending says the format. An existing file is replaced; of a link, what it points to.
    quality : int
        1 to 100, for JPEG and WebP.

    Raises
    ------
    ValueError
        If it cannot be written.
    """
    image_format = output_format(path)
    check_holds(image_format, photo.picture.mode)
    options: dict[str, Any] = {"icc_profile": photo.profile, "exif": photo.exif, "dpi": photo.dpi}
    if image_format in ("JPEG", "WEBP"):
        options["quality"] = quality
    options = {key: value for key, value in options.items() if value is not None}
    final = Path(os.path.realpath(path))
    try:
        with _files.replacing(final) as file:
            photo.picture.save(file, image_format, **options)
    except (OSError, ValueError, MemoryError) as error:  # what Pillow's encoders raise
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"output: cannot write {os.fspath(path)!r}: {reason}") from error


def with_picture(photo: Photo, picture: Image.Image) -> Photo:
    """Another picture with this one's profile, EXIF and resolution."""
    return replace(photo, picture=picture)


@contextmanager
def _opened(path: Path, prefix: str, name: str) -> Iterator[Image.Image]:
    """An image file; whatever goes wrong with it becomes a ValueError that says so of `name`, after `prefix`."""
    Image.MAX_IMAGE_PIXELS = max_pixels()
    try:
        with _quiet(), Image.open(path, formats=READABLE) as file:
            yield file
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{prefix}{name!r} has more pixels than the limit of {max_pixels()} (--max-pixels)") from None
    except UnidentifiedImageError:
        raise ValueError(f"{prefix}{name!r} is no PNG, JPEG, TIFF, WebP or BMP image, or damaged") from None
    except OSError as error:
        raise ValueError(f"{prefix}cannot read {name!r}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f"{prefix}cannot read {name!r}: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No remarks on damaged files: Pillow's are warnings, libtiff's go straight to file descriptor 2."""
    # Both are the process's: a thread that came between would put back what another had put in.
    with _warnings.LOCK, warnings.catch_warnings(), Path(os.devnull).open("wb") as null:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        stderr = os.dup(2)
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _exif(file: Image.Image) -> tuple[bytes | None, bool]:
    """What is kept of a file's EXIF, for an upright picture, and whether height and width change places."""
    exif = file.getexif()
    orientation = exif.get(_TAG.Orientation, 1)
    for tag in list(exif):
        if tag not in _KEPT_TAGS:
            del exif[tag]
    if _TAG.Orientation in exif:
        exif[_TAG.Orientation] = 1
    try:
        kept = exif.tobytes() if len(exif) else None
    except Exception:  # a value of another type than its tag has; the picture is none the worse
        kept = None
    exif[_TAG.Orientation] = orientation  # exif_transpose is yet to come
    return kept, orientation in (5, 6, 7, 8)


def _dpi(dpi: Any) -> tuple[float, float] | None:
    if dpi is None:
        return None
    x, y = (float(value) for value in dpi)
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _plain(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """A picture of any mode in one of the six that the library reads, and the profile that is then right."""
    mode = picture.mode
    if mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"expected grey values of 16 bits, got {values.min()} to {values.max()}")
        picture = Image.fromarray(values.astype(np.uint16))
    elif picture.has_transparency_data:
        picture = picture.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA")
    elif mode == "CMYK":
        picture, profile = _convert(picture, profile, None, "RGB"), None
    elif mode not in ("L", "RGB", "F"):
        picture = picture.convert("L" if mode == "1" else "RGB")
    picture.info = {}
    return picture, profile


def _convert(picture: Image.Image, own: bytes | None, wanted: bytes | None, mode: str) -> Image.Image:
    """A picture of mode L, RGB or CMYK from its own ICC profile to another, and to mode L or RGB."""
    source, target = _profile(own, picture.mode), _profile(wanted, mode)
    if source is None and target is None:
        return picture.convert(mode)
    srgb = ImageCms.createProfile("sRGB")
    if source is None:
        picture = picture.convert("RGB")
    converted = ImageCms.profileToProfile(
        picture,
        source or srgb,
        target or srgb,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB" if target is None else mode,
    )
    assert converted is not None  # it is None only where it converts in place
    return converted.convert(mode)


def _profile(profile: bytes | None, mode: str) -> ImageCms.ImageCmsProfile | None:
    """An ICC profile opened, or None where it is not for pictures of this mode: then they count as sRGB."""
    if profile is None:
        return None
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    fits = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode] == opened.profile.xcolor_space.strip()
    return opened if fits else None
