"""The command line: files in, files out, and one line for whatever is wrong with them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

import gpgan
from gpgan import _image_files
from gpgan.cli import _SAMPLE, app

HEIGHT, WIDTH = 60, 90
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`gpgan` with these arguments in this process; what decoders print past Python is seen too."""
    limit = gpgan.max_pixels()

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            app([str(argument) for argument in arguments])
        return Outcome(int(exit_.value.code or 0), *capfd.readouterr())

    yield call
    gpgan.set_max_pixels(limit)


@pytest.fixture
def blend(run: Run) -> Run:
    return lambda *arguments: run("blend", *arguments, "--no-generator")


def picture(mode: str = "RGB", seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    """Something smooth with a little texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    planes = [0.5 + 0.3 * np.sin(a * x + b * y) + 0.02 * rng.random(size) for a, b in rng.uniform(1, 6, (4, 2))]
    if mode in ("F", "I;16"):
        return Image.fromarray(planes[0].astype(np.float32) if mode == "F" else (planes[0] * 65535).astype(np.uint16))
    values = (np.stack(planes, -1) * 255).astype(np.uint8)
    return (
        Image.fromarray(values, "RGBA").convert(mode)
        if mode == "RGBA"
        else Image.fromarray(values[..., :3]).convert(mode)
    )


def square_mask(size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : -(size[0] // 4), size[1] // 4 : -(size[1] // 4)] = 255
    return Image.fromarray(mask)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A source, a target and a mask."""
    paths = tmp_path / "source.png", tmp_path / "target.png", tmp_path / "mask.png"
    for path, image in zip(paths, (picture(seed=1), picture(seed=2), square_mask()), strict=True):
        image.save(path)
    return paths


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int32)


def expected(source: Image.Image, target: Image.Image, mask: Image.Image | None, **options: Any) -> Any:
    return np.asarray(gpgan.blend(source, target, mask, generator=None, **options)).astype(np.int32)


# ---------------------------------------------------------------------------------------------------- what it does


def test_blend_is_the_library_s(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    outcome = blend(*files, "-o", tmp_path / "out.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert "height 60, width 90" in outcome.out
    np.testing.assert_array_equal(
        pixels(tmp_path / "out.png"), expected(picture(seed=1), picture(seed=2), square_mask())
    )


def test_blend_passes_every_option(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    picture(seed=3, size=(32, 32)).save(tmp_path / "lowres.png")
    options: dict[str, Any] = {
        "mode": "paper", "color_weight": 0.5, "sigma": 0.8, "equation": "screened", "carry": "correction",
        "pyramid": "square", "membrane": True, "inset": 1, "device": "cpu", "threads": 1,
    }  # fmt: skip
    arguments = ["--membrane"]
    for name, value in options.items():
        arguments += [] if name == "membrane" else [f"--{name.replace('_', '-')}", str(value)]
    out = tmp_path / "out.png"
    outcome = blend(*files, "-o", out, "--lowres", tmp_path / "lowres.png", "--offset", -3, 5, *arguments, "--json")
    report = json.loads(outcome.out)
    assert report["output"] == str(out)
    assert (report["height"], report["width"]) == (HEIGHT, WIDTH)
    assert report["seconds"] >= 0
    assert report["options"] == options | {
        "offset": [-3, 5], "generator": None, "lowres": str(tmp_path / "lowres.png"),
    }  # fmt: skip
    lowres = picture(seed=3, size=(32, 32))
    np.testing.assert_array_equal(
        pixels(out),
        expected(picture(seed=1), picture(seed=2), square_mask(), offset=(-3, 5), lowres=lowres, **options),
    )


def test_refused_generator(run: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    outcome = run("blend", *files, "-o", tmp_path / "out.png", "--generator", tmp_path / "none.pt")
    assert_refused(outcome, tmp_path, "generator", "none.pt")


def test_blend_small_source_at_offset(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    source, mask = picture(seed=4, size=(20, 24)), square_mask((20, 24))
    source.save(tmp_path / "small.png")
    mask.save(tmp_path / "small_mask.png")
    out = tmp_path / "out.png"
    assert blend(tmp_path / "small.png", files[1], tmp_path / "small_mask.png", "-o", out, "--offset", 30, 50).code == 0
    np.testing.assert_array_equal(pixels(out), expected(source, picture(seed=2), mask, offset=(30, 50)))
    changed = (pixels(out) != pixels(files[1])).any(-1)
    assert changed[30:50, 50:74].any()
    assert not changed[:20].any()


def test_blend_alpha_is_the_mask(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    source = picture(seed=1)
    source.putalpha(square_mask())
    source.save(tmp_path / "cutout.png")
    assert blend(tmp_path / "cutout.png", files[1], "-o", tmp_path / "out.png").code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), expected(source, picture(seed=2), None))


@pytest.mark.parametrize("kind", ["0/255", "0/1", "bool", "palette", "16 bits"])
def test_blend_mask_kinds_agree(blend: Run, files: tuple[Path, ...], tmp_path: Path, kind: str) -> None:
    mask = square_mask()
    inside = np.asarray(mask) > 0
    {
        "0/255": mask,
        "0/1": Image.fromarray(inside.astype(np.uint8)),
        "bool": mask.convert("1"),
        "palette": mask.convert("P"),
        "16 bits": Image.fromarray(inside.astype(np.uint16) * 65535),
    }[kind].save(tmp_path / "other.png")
    assert blend(*files[:2], tmp_path / "other.png", "-o", tmp_path / "out.png").code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), expected(picture(seed=1), picture(seed=2), mask))


def test_blend_sample(run: Run, tmp_path: Path) -> None:
    assert sum(path.stat().st_size for path in _SAMPLE) <= 600_000
    outcome = run("blend", "--sample", "-o", tmp_path / "out.png", "--no-generator", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["options"]["membrane"] is True
    source, target, mask = (pixels(path) for path in _SAMPLE)
    result, inside = pixels(tmp_path / "out.png"), mask > 0
    assert source.shape == target.shape == result.shape
    # The lake stays as it is; the kite's sky takes the lake's colours.
    assert np.abs(result - target)[~inside].max() <= 4
    rim = inside & ~np.asarray(gpgan.ops.inset(inside.astype(float), 4)).astype(bool)
    assert np.abs(result - target)[rim].mean() < 0.2 * np.abs(source - target)[rim].mean()


# ---------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [(mode, suffix) for mode in ("L", "RGB") for suffix in (".png", ".tif", ".TIFF", ".jpg", ".jpeg", ".webp")]
    + [("RGBA", suffix) for suffix in (".png", ".tiff", ".webp")],
)
def test_blend_formats(blend: Run, tmp_path: Path, files: tuple[Path, ...], suffix: str, mode: str) -> None:
    target, out = tmp_path / "t.png", tmp_path / f"out{suffix}"
    picture(mode, 2).save(target)
    assert blend(files[0], target, files[2], "-o", out, "--quality", 100).code == 0
    source = picture(seed=1).convert("L" if mode == "L" else "RGB")
    wanted = expected(source, picture(mode, 2), square_mask())
    with Image.open(out) as image:
        result = np.asarray(image.convert(mode)).astype(np.int32)
    assert np.abs(result - wanted).mean() < (0.001 if suffix.lower() in (".png", ".tif", ".tiff") else 2)


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_blend_deep_grey_stays_deep(blend: Run, tmp_path: Path, files: tuple[Path, ...], mode: str) -> None:
    target, out = tmp_path / "t.tif", tmp_path / "out.tif"
    picture(mode, 2).save(target)
    assert blend(files[0], target, files[2], "-o", out).code == 0
    with Image.open(out) as image:
        assert image.mode == mode
        result = np.asarray(image)
    wanted = gpgan.blend(picture(seed=1).convert("L"), picture(mode, 2), square_mask(), generator=None)
    np.testing.assert_array_equal(result, np.asarray(wanted))
    # And as a source: into a photo of 8 bits it is scaled, not cut off.
    assert blend(target, files[1], files[2], "-o", tmp_path / "out.png").code == 0
    eight = Image.fromarray((np.asarray(picture("F", 2)) * 255 + 0.5).astype(np.uint8)).convert("RGB")
    wanted = expected(eight, picture(seed=2), square_mask())
    assert np.abs(pixels(tmp_path / "out.png") - wanted).max() <= 1


@pytest.mark.parametrize(
    ("mode", "becomes"), [("P", "RGB"), ("P with alpha", "RGBA"), ("LA", "LA"), ("1", "L"), ("CMYK", "RGB")]
)
def test_blend_converts_modes(blend: Run, tmp_path: Path, files: tuple[Path, ...], mode: str, becomes: str) -> None:
    image = picture("RGBA", 2).convert("LA" if mode == "LA" else "RGB").convert(mode.partition(" ")[0])
    if mode == "P with alpha":
        image.info["transparency"] = 0
    target, out = tmp_path / ("t.tif" if mode == "CMYK" else "t.png"), tmp_path / "out.png"
    image.save(target)
    outcome = blend(files[0], target, files[2], "-o", out)
    assert (outcome.code, outcome.err) == (0, "")
    with Image.open(out) as result:
        assert result.mode == becomes
        difference = np.asarray(result.convert("RGB")).astype(int) - np.asarray(image.convert("RGB"))
    outside = np.asarray(square_mask()) == 0
    assert np.abs(difference)[outside].mean() < 1


# --------------------------------------------------------------------------------------------------------- metadata


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Artist] = "someone"
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2020:02:02 02:02:02"}
    return tags.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_blend_keeps_metadata_upright(
    blend: Run, tmp_path: Path, files: tuple[Path, ...], orientation: int, suffix: str
) -> None:
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    target, out = tmp_path / f"turned{suffix}", tmp_path / f"out{suffix}"
    picture(seed=2).transpose(turn).save(
        target, exif=exif(orientation), dpi=(200, 100), icc_profile=SRGB, quality=100, lossless=True
    )
    assert blend(files[0], target, files[2], "-o", out).code == 0
    with Image.open(out) as result:
        assert result.size == (WIDTH, HEIGHT)
        assert result.info["icc_profile"] == SRGB
        if suffix != ".webp":
            np.testing.assert_allclose(
                [float(x) for x in result.info["dpi"]], (200, 100) if orientation == 3 else (100, 200), atol=0.1
            )
        tags = result.getexif()
        assert tags[ExifTags.Base.Orientation] == 1
        assert tags[ExifTags.Base.Artist] == "someone"
        assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2020:02:02 02:02:02"
        difference = np.asarray(result.convert("RGB")).astype(int) - np.asarray(picture(seed=2))
    assert np.abs(difference)[np.asarray(square_mask()) == 0].mean() < 3


def test_blend_turns_source_and_mask(blend: Run, tmp_path: Path, files: tuple[Path, ...]) -> None:
    turned = tmp_path / "s.png", tmp_path / "m.png"
    for path, image in zip(turned, (picture(seed=1), square_mask()), strict=True):
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif(6))
    assert blend(turned[0], files[1], turned[1], "-o", tmp_path / "out.png").code == 0
    np.testing.assert_array_equal(
        pixels(tmp_path / "out.png"), expected(picture(seed=1), picture(seed=2), square_mask())
    )


def test_blend_tiff_tags_do_not_leak(blend: Run, tmp_path: Path, files: tuple[Path, ...]) -> None:
    picture(seed=2).save(tmp_path / "t.tif", compression="tiff_lzw", description="a field")
    assert blend(files[0], tmp_path / "t.tif", files[2], "-o", tmp_path / "out.png").code == 0
    with Image.open(tmp_path / "out.png") as result:
        assert dict(result.getexif()) == {ExifTags.Base.ImageDescription: "a field"}


def linear_profile() -> bytes:
    """sRGB's primaries with a straight tone curve: the profile's three curves replaced."""
    data = bytearray(SRGB)
    for i in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * i
        tag, start = bytes(data[entry : entry + 4]), int.from_bytes(data[entry + 4 : entry + 8], "big")
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            data[start : start + 12] = b"curv" + bytes(8)  # no entries: the identity
    return bytes(data)


def test_blend_converts_the_source_to_the_target_s_profile(blend: Run, tmp_path: Path, files: tuple[Path, ...]) -> None:
    linear = linear_profile()
    picture(seed=2).save(tmp_path / "t.png", icc_profile=linear)
    assert blend(files[0], tmp_path / "t.png", files[2], "-o", tmp_path / "out.png").code == 0
    with Image.open(tmp_path / "out.png") as result:
        assert result.info["icc_profile"] == linear
    x = np.asarray(picture(seed=1)) / 255
    source = Image.fromarray(
        (np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) * 255).round().astype("u1")
    )
    difference = pixels(tmp_path / "out.png") - expected(source, picture(seed=2), square_mask())
    assert np.abs(difference).max() <= 2  # the conversion's own rounding


def test_blend_unusable_profile(blend: Run, tmp_path: Path, files: tuple[Path, ...]) -> None:
    picture(seed=1).save(tmp_path / "s.png", icc_profile=b"no profile at all")
    outcome = blend(tmp_path / "s.png", *files[1:], "-o", tmp_path / "out.png")
    assert_refused(outcome, tmp_path, "source", "ICC profile")


# ------------------------------------------------------------------------------------------------------- bad input


def assert_refused(outcome: Outcome, folder: Path, *words: str) -> None:
    """Exit code 2, one line that has these words, and nothing written."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("gpgan: error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    for word in words:
        assert word in outcome.err
    assert not list(folder.glob("out*"))
    assert not list(folder.glob(".*"))


def damaged(path: Path, image_format: str, keep: float) -> Path:
    """An image file cut off."""
    buffer = io.BytesIO()
    picture(size=(200, 200)).save(
        buffer, image_format, **({"compression": "tiff_lzw"} if image_format == "TIFF" else {})
    )
    path.write_bytes(buffer.getvalue()[: int(keep * len(buffer.getvalue()))])
    return path


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.7])
def test_refused_truncated(blend: Run, files: tuple[Path, ...], tmp_path: Path, image_format: str, keep: float) -> None:
    broken = damaged(tmp_path / "broken", image_format, keep)
    assert_refused(blend(files[0], broken, files[2], "-o", tmp_path / "out.png"), tmp_path, "target", "broken")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp"])
def test_upright_size_is_that_of_the_picture_read(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (9, 6)).save(tmp_path / name, **({} if name == "a.bmp" else {"exif": exif}))
    size = _image_files.upright_size(tmp_path / name)
    assert size == _image_files.read(tmp_path / name, "photo").picture.size[::-1]
    assert size == ((9, 6) if orientation > 4 and name != "a.bmp" else (6, 9))


def test_read_leaves_out_exif_that_cannot_be_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "abcd"
    data = io.BytesIO()
    Image.new("RGB", (9, 6)).save(data, "JPEG", exif=exif)
    as_text, as_float = b"\x01\x0e\x00\x02\x00\x00\x00\x05", b"\x01\x0e\x00\x0b\x00\x00\x00\x01"
    said = data.getvalue().replace(as_text, as_float)
    assert said != data.getvalue()
    (tmp_path / "a.jpg").write_bytes(said)
    photo = _image_files.read(tmp_path / "a.jpg", "photo")
    assert photo.picture.size == (9, 6)
    assert photo.exif is None


def test_float_source_of_another_scale_is_refused(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    with Image.open(files[0]) as source:
        Image.fromarray(np.asarray(source.convert("L"), np.float32)).save(tmp_path / "s.tif")
    outcome = blend(tmp_path / "s.tif", *files[1:], "-o", tmp_path / "out.png")
    assert_refused(outcome, tmp_path, "source", "expected finite floats in [0, 1]")


def test_files_read_by_threads_leave_stderr_as_it_was(tmp_path: Path) -> None:
    # Reading silences the whole process for a moment: what one thread put there, another must not keep.
    path = tmp_path / "photo.png"
    Image.new("RGB", (4, 3)).save(path)
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: _image_files.read(path, "photo").picture.size, range(400)))
    assert set(sizes) == {(4, 3)}
    assert os.path.samestat(os.fstat(2), before)


def test_refused_damaged_in_many_places(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    """Whatever a decoder makes of it: a picture, or one line that says no."""
    rng = np.random.default_rng(0)
    out = tmp_path / "out.png"
    for image_format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
        data = np.frombuffer(damaged(tmp_path / "whole", image_format, 1).read_bytes(), np.uint8)
        for _ in range(20):
            broken = data.copy()
            broken[rng.integers(0, min(len(data), rng.choice([60, 600])), 4)] = rng.integers(0, 256, 4)
            (tmp_path / "broken").write_bytes(broken.tobytes())
            outcome = blend(files[0], files[1], tmp_path / "broken", "-o", out)
            if outcome.code == 0:
                out.unlink()
            else:
                assert_refused(outcome, tmp_path, "mask")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_refused_missing_or_no_image(blend: Run, files: tuple[Path, ...], tmp_path: Path, which: int) -> None:
    argument = ("source", "target", "mask")[which]
    given: list[Path] = list(files)
    given[which] = tmp_path / "no such\nfile.png"
    assert_refused(blend(*given, "-o", tmp_path / "out.png"), tmp_path, argument, "No such file")
    given[which] = tmp_path
    assert_refused(blend(*given, "-o", tmp_path / "out.png"), tmp_path, argument)
    given[which] = tmp_path / "notes.png"
    given[which].write_text("not an image")
    assert_refused(blend(*given, "-o", tmp_path / "out.png"), tmp_path, argument, "no PNG, JPEG, TIFF, WebP or BMP")
    picture().save(given[which], "GIF")
    assert_refused(blend(*given, "-o", tmp_path / "out.png"), tmp_path, argument, "no PNG, JPEG, TIFF, WebP or BMP")


@pytest.mark.parametrize("limit", [HEIGHT * WIDTH - 1, 100])
def test_refused_over_the_pixel_limit(blend: Run, files: tuple[Path, ...], tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out.png"
    assert_refused(blend(*files, "-o", out, "--max-pixels", limit), tmp_path, "target", str(limit), "--max-pixels")
    assert blend(*files, "-o", out, "--max-pixels", HEIGHT * WIDTH).code == 0


def test_refused_usage(run: Run, blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    for words, arguments in {
        ("source", "60", "30"): [files[0], files[1], tmp_path / "half.png", "-o", out],
        ("mask", "None"): [*files[:2], "-o", out],
        ("SOURCE, TARGET",): [files[0], "-o", out],
        ("--sample",): [*files, "--sample", "-o", out],
        ("--no-generator", "'default'"): [*files, "-o", out, "--generator", "default"],
        ("mode", "'nicest'"): [*files, "-o", out, "--mode", "nicest"],
        ("color_weight",): [*files, "-o", out, "--color-weight", "-1"],
        ("sigma",): [*files, "-o", out, "--sigma", "nan"],
        ("--inset", "integer"): [*files, "-o", out, "--inset", "two"],
        ("device",): [*files, "-o", out, "--device", "tpu"],
        ("--quality", "100"): [*files, "-o", out, "--quality", "101"],
        ("pixels", "0"): [*files, "-o", out, "--max-pixels", "0"],
        ("--no-such-option",): [*files, "-o", out, "--no-such-option"],
        ("lowres", "square"): [*files, "-o", out, "--lowres", files[1]],
        ("--output",): [*files],
    }.items():
        square_mask((30, 45)).save(tmp_path / "half.png")
        assert_refused(blend(*arguments), tmp_path, *words)
    assert_refused(run("mend"), tmp_path, "mend")


def test_refused_outputs(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    for name, words in {
        "out.gif": ("output", ".gif"),
        "out": ("output", ".png"),
        "nowhere/out.png": ("output", "nowhere", "folder"),
    }.items():
        assert_refused(blend(*files, "-o", tmp_path / name), tmp_path, *words)
    os.mkfifo(tmp_path / "pipe.png")
    assert_refused(blend(*files, "-o", tmp_path / "pipe.png"), tmp_path, "output", "pipe.png")
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)
    (tmp_path / "folder.png").mkdir()
    assert_refused(blend(*files, "-o", tmp_path / "folder.png"), tmp_path, "output", "folder.png")


def test_refused_read_only_folder(
    blend: Run, files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert_refused(blend(*files, "-o", tmp_path / "out.png"), tmp_path, "output", "permission")


@pytest.mark.parametrize(("mode", "suffix", "word"), [
    ("RGBA", ".jpg", "alpha"), ("I;16", ".jpg", "16 bits"), ("I;16", ".webp", "16 bits"), ("F", ".png", "floats"),
])  # fmt: skip
def test_refused_what_a_format_cannot_hold(
    blend: Run, files: tuple[Path, ...], tmp_path: Path, mode: str, suffix: str, word: str
) -> None:
    picture(mode, 2).save(tmp_path / "t.tif")
    outcome = blend(files[0], tmp_path / "t.tif", files[2], "-o", tmp_path / f"out{suffix}")
    assert_refused(outcome, tmp_path, "output", word, "TIFF")


# ------------------------------------------------------------------------------------------------------------ writes


def test_write_over_an_input(blend: Run, files: tuple[Path, ...]) -> None:
    for path in files[:2]:
        source, target, mask = (Image.open(file).copy() for file in files)
        assert blend(*files, "-o", path).code == 0
        np.testing.assert_array_equal(pixels(path), expected(source, target, mask))


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MemoryError("too large"), KeyboardInterrupt()]
)
def test_write_that_fails_leaves_the_old_file(
    blend: Run, files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = tmp_path / "result.png"
    out.write_bytes(b"the old file")
    before = set(tmp_path.iterdir())

    def fail(self: Image.Image, file: Any, *_: object, **__: object) -> None:
        file.write(b"\x89PNG half of it")
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    outcome = blend(*files, "-o", out)
    assert outcome.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    if outcome.code == 2:
        assert "output" in outcome.err
        assert str(error.args[-1]) in outcome.err
    assert out.read_bytes() == b"the old file"
    assert set(tmp_path.iterdir()) == before


def test_write_respects_umask_and_links(blend: Run, files: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    old = os.umask(0o027)
    try:
        assert blend(*files, "-o", tmp_path / "link.png").code == 0
    finally:
        os.umask(old)
    assert (tmp_path / "link.png").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.png").stat().st_mode) == 0o640


# ----------------------------------------------------------------------------------------------------- info, process


def test_info(run: Run) -> None:
    facts = json.loads(run("info", "--json").out)
    assert facts["version"] == gpgan.__version__
    assert facts["threads"] >= 1
    assert facts["pixel_limit"] == gpgan.max_pixels()
    assert isinstance(facts["cuda"]["available"], bool)
    assert facts["cuda"]["detail"]
    assert sorted(facts["generators"]) == gpgan.generators()
    for said in facts["generators"].values():
        assert said["image_size"] >= 1
        assert said["architecture"]
        assert said["training_data"]
        assert said["bytes"] > 0
    text = run("info")
    assert text.code == 0
    assert gpgan.__version__ in text.out
    for name in gpgan.generators():
        assert name in text.out


def test_help_and_version(run: Run) -> None:
    assert run("--version").out == f"{gpgan.__version__}\n"
    assert "blend" in run().out
    text = run("blend", "--help").out
    for option in ("offset", "generator", "no-generator", "lowres", "mode", "color-weight", "sigma", "equation",
                   "carry", "pyramid", "membrane", "no-membrane", "inset", "device", "threads", "max-pixels",
                   "quality", "json", "sample"):  # fmt: skip
        assert f"--{option}" in text


def test_help_of_training(run: Run) -> None:
    text = run("train", "--help").out
    for option in ("run", "scenes", "config", "photos", "masks", "held-out", "held-out-masks", "exclude", "set",
                   "tensorboard", "json"):  # fmt: skip
        assert f"--{option}" in text
    text = run("export", "--help").out
    for option in ("output", "which", "image-size", "training-data", "opset", "json"):
        assert f"--{option}" in text


def test_info_of_a_file(run: Run, tmp_path: Path) -> None:
    shipped = Path(gpgan.__file__).parent / "weights" / "default.pt"
    said = json.loads(run("info", shipped, "--json").out)
    assert said == gpgan.load_generator("default").metadata | {"bytes": shipped.stat().st_size}
    (tmp_path / "none.pt").write_bytes(b"PK\x03\x04 no archive")
    assert_refused(run("info", tmp_path / "none.pt"), tmp_path, "GENERATOR", "none.pt")
    assert_refused(run("info", tmp_path / "nowhere.pt"), tmp_path, "nowhere.pt")


def process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; from gpgan.cli import app; {code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_process(files: tuple[Path, ...], tmp_path: Path) -> None:
    done = process("app()", "blend", *files, "-o", tmp_path / "out.png", "--no-generator")
    assert (done.returncode, done.stderr) == (0, "")
    refused = process("app()", "blend", *files[:2], tmp_path / "none", "-o", tmp_path / "no.png")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"gpgan: error: mask: cannot read {str(tmp_path / 'none')!r}: No such file or directory\n"


def test_process_sample_with_the_shipped_generator(tmp_path: Path) -> None:
    done = process("app()", "blend", "--sample", "-o", tmp_path / "blended.png")
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(_SAMPLE[1]) as target, Image.open(tmp_path / "blended.png") as result:
        assert result.size == target.size


def test_process_blends_where_warnings_are_errors(tmp_path: Path) -> None:
    arguments = ["blend", "--sample", "-o", str(tmp_path / "blended.png")]
    done = process(f"import warnings; warnings.simplefilter('error'); app({arguments})")
    assert (done.returncode, done.stderr) == (0, "")


def test_process_without_torch() -> None:
    shipped = Path(gpgan.__file__).parent / "weights" / "default.pt"
    for arguments in (["info"], ["info", str(shipped)], ["train", "--help"], ["export", "--help"]):
        code = f"app({arguments}, standalone_mode=False); assert 'torch' not in sys.modules"
        done = process(code)
        assert (done.returncode, done.stderr) == (0, "")


def test_process_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "gpgan", "mend"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gpgan: error: ")
    assert done.stderr.count("\n") == 1
