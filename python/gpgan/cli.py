"""The command line: ``gpgan blend`` and ``gpgan info``.

Bad input ends with exit code 2 and one line on stderr, never with a traceback.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import gpgan
from gpgan import _core, _image_files

_FOLDER = Path(__file__).parent
_SAMPLE = tuple(_FOLDER / "samples" / name for name in ("source.jpg", "target.jpg", "mask.png"))


class _OneLineErrors(TyperGroup):
    """Bad input, to a command or on the command line itself, becomes one line."""

    def main(self, *args: Any, **options: Any) -> Any:
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except typer.Abort:
            code = 130
        except Exception as error:
            # Usage errors have this method; their class is typer's or click's, by typer's version.
            message = error.format_message() if hasattr(error, "format_message") else str(error)
            if not (hasattr(error, "format_message") or isinstance(error, (OSError, TypeError, ValueError))):
                raise
            typer.echo(f"gpgan: error: {' '.join(message.split())}", err=True)
            code = 2
        raise SystemExit(code)


app = typer.Typer(
    name="gpgan",
    cls=_OneLineErrors,
    help="Make a pasted photo look like one photograph.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(gpgan.__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(short_help="Paste a part of one photo into another.")
def blend(
    source: Annotated[Path | None, typer.Argument(metavar="SOURCE", help="Photo to paste from.")] = None,
    target: Annotated[Path | None, typer.Argument(metavar="TARGET", help="Photo to paste into.")] = None,
    mask: Annotated[
        Path | None,
        typer.Argument(
            metavar="MASK",
            help="Where the source shows: white, or the alpha of an RGBA image; of the source's size. "
            "May be left out if the source has an alpha channel.",
        ),
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="Result: .png, .jpg, .tif or .webp.", show_default=False),
    ],
    sample: Annotated[
        bool, typer.Option("--sample", help="Blend the photos that come with gpgan: a kite, an evening lake.")
    ] = False,
    offset: Annotated[
        tuple[int, int], typer.Option(metavar="TOP LEFT", help="Where in the target the source's first pixel goes.")
    ] = (0, 0),
    generator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="What gives the colour: a shipped generator, 'default' if not said, or a TorchScript file.",
        ),
    ] = None,
    no_generator: Annotated[
        bool, typer.Option("--no-generator", help="The colour of the downsampled composite instead.")
    ] = False,
    lowres: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Square image that is the colour, in place of a generator's.")
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="default|paper|released", help="What the options down to --inset are if not given.")
    ] = "default",
    color_weight: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Larger follows the colour, smaller the gradients.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(metavar="PIXELS", help="Of the Gaussian on the colour constraint.")
    ] = None,
    equation: Annotated[
        str | None, typer.Option(metavar="gaussian-poisson|screened", help="The paper's, or its program's.")
    ] = None,
    carry: Annotated[
        str | None, typer.Option(metavar="correction|image", help="What a level of the pyramid hands to the next.")
    ] = None,
    pyramid: Annotated[
        str | None, typer.Option(metavar="aspect|square", help="Levels of the image's aspect, or squares.")
    ] = None,
    membrane: Annotated[
        bool | None,
        typer.Option("--membrane/--no-membrane", help="Bring the source to the target's colours at the seam first."),
    ] = None,
    inset: Annotated[int | None, typer.Option(metavar="PIXELS", help="Shrink the mask by so much first.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu", help="Where to compute.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(metavar="COUNT", help="If not said, GPGAN_NUM_THREADS or as many as the machine has.")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help=f"Refuse larger images; {gpgan.max_pixels()} or GPGAN_MAX_PIXELS."),
    ] = None,
    quality: Annotated[int, typer.Option(metavar="1..100", min=1, max=100, help="Of JPEG and WebP.")] = 95,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Paste the masked part of SOURCE into TARGET so that the result looks like one photograph.

    Photos are turned upright as their EXIF orientation says; the source is converted to the target's colour space;
    the result keeps the target's ICC profile, EXIF, resolution and alpha. It has 8 bits a channel, or 16 or floats
    where the target is grey and has them: colour of 16 bits is read as 8. Of animations the first frame counts.
    """
    start = time.perf_counter()
    if max_pixels is not None:
        gpgan.set_max_pixels(max_pixels)
    image_format = _image_files.output_format(output)
    if sample:
        if source or target or mask:
            raise ValueError("--sample: expected no SOURCE, TARGET and MASK beside it")
        source, target, mask = _SAMPLE
    if source is None or target is None:
        raise ValueError("SOURCE, TARGET: expected two image files, or --sample")
    if no_generator and generator is not None:
        raise ValueError(f"--no-generator: expected no --generator beside it, got {generator!r}")
    model = None if no_generator else generator or "default"
    options: dict[str, Any] = {
        "mode": mode, "color_weight": color_weight, "sigma": sigma, "equation": equation, "carry": carry,
        "pyramid": pyramid, "membrane": membrane, "inset": inset,
    }  # fmt: skip

    target_photo = _image_files.read(target, "target")
    _image_files.check_holds(image_format, target_photo.picture.mode)
    result = gpgan.blend(
        _image_files.like(_image_files.read(source, "source"), target_photo, "source"),
        target_photo.picture,
        None if mask is None else _image_files.read(mask, "mask").picture,
        offset=offset,
        generator=model,
        lowres=lowres and _image_files.like(_image_files.read(lowres, "lowres"), target_photo, "lowres"),
        device=device,
        threads=threads,
        **options,
    )
    _image_files.write(_image_files.with_picture(target_photo, result), output, quality=quality)

    seconds = round(time.perf_counter() - start, 3)
    if as_json:
        given = {name: value for name, value in options.items() if value is not None}
        used = _core.options(mode) | given | {"offset": offset, "generator": model, "lowres": lowres}
        report = {
            "output": output, "height": result.height, "width": result.width, "seconds": seconds,
            "options": used | {"device": device, "threads": _core.resolve_threads(threads or 0)},
        }  # fmt: skip
        typer.echo(json.dumps(report, default=os.fspath))
    else:
        name = os.fsencode(output).decode(errors="replace")
        typer.echo(f"{name}: height {result.height}, width {result.width}, {seconds:.2f} s")


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what this installation is and has."""
    try:
        cmake_prefix = gpgan.cmake_prefix()
    except FileNotFoundError:
        cmake_prefix = None
    facts = {
        "version": gpgan.__version__,
        "instruction set": _core.cpu_target(),
        "threads": _core.resolve_threads(),
        "CUDA": "not built: this version has the CPU backend only",
        "Python": platform.python_version(),
        "NumPy": importlib.metadata.version("numpy"),
        "torch": _version("torch"),
        "pixel limit": gpgan.max_pixels(),
        "CMake prefix": cmake_prefix,
    }
    generators = {name: _generator_facts(_FOLDER / "weights" / f"{name}.pt") for name in gpgan.generators()}
    if as_json:
        keys = {name.replace(" ", "_").lower(): value for name, value in facts.items()}
        typer.echo(json.dumps(keys | {"generators": generators}))
        return
    for name, value in facts.items():
        typer.echo(f"{name:<16} {'none' if value is None else value}")
    for name, said in generators.items():
        typer.echo(f"{'generator':<16} {name}")
        for key, value in said.items():
            typer.echo(f"  {key.replace('_', ' '):<14} {value}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _generator_facts(path: Path) -> dict[str, Any]:
    """What a shipped TorchScript file says of itself, without torch, whose import takes seconds."""
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/extra/gpgan.json"))
        said = json.loads(archive.read(member))
    keys = ("image_size", "architecture", "training_data")
    return {key: said[key] for key in keys} | {"bytes": path.stat().st_size}
