"""The command line: ``gpgan blend``, ``train``, ``export``, ``evaluate``, ``study``, ``convert-realism`` and ``info``.

Bad input ends with exit code 2 and one line on stderr, never with a traceback.
"""

from __future__ import annotations

import dataclasses
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
from gpgan import _core, _cuda_library, _evaluate_command, _files, _image_files, _realism_command, _study_command

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
            expected = (ImportError, OSError, TypeError, ValueError)
            if not (hasattr(error, "format_message") or isinstance(error, expected)):
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
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
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
        typer.echo(f"{_files.printable(output)}: height {result.height}, width {result.width}, {seconds:.2f} s")


@app.command(short_help="Train a generator, or continue a run.")
def train(
    *,
    run: Annotated[
        Path | None,
        # Some versions of torchrun take --run for an abbreviation of their own --run-path.
        typer.Option("--run", "-o", metavar="DIR", help="Folder of the run; one that is there is continued."),
    ] = None,
    scenes: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Aligned photos: ROOT/<camera>/*.jpg.", show_default=False)
    ] = None,
    config: Annotated[
        str, typer.Option(metavar="default|paper|FILE.json", help="The recipe; a run's own is in its config.json.")
    ] = "default",
    photos: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Single photos, to simulate other lights on; may be repeated."),
    ] = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Drawn masks, as images or LabelMe annotations; may be repeated."),
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(metavar="CAMERA", help="A camera for validation only; may be repeated.")
    ] = None,
    held_out_masks: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="ROOT/<camera>/*: drawn masks for the held-out cameras.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="CAMERA", help="A camera to leave alone; may be repeated.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field of gpgan.nn.config.TrainConfig."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars and pictures for TensorBoard to the run's folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="No progress bar; print one JSON object.")] = False,
) -> None:
    """Train a generator on aligned photos and simulated pairs, or continue a run.

    The same command again continues a run that was stopped. `torchrun --nproc-per-node N -m gpgan train -o DIR ...`
    trains in N processes that share each batch. Needs what `pip install 'gpgan[train]'` brings.
    """
    from gpgan.nn.config import RECIPES, read_config, with_settings

    settings = dict(_setting(text) for text in set_ or [])
    recipe = with_settings(read_config(config), settings)
    given: dict[str, Any] = {
        "run": run and os.fspath(run), "scenes": scenes and os.fspath(scenes), "photos": _texts(photos),
        "masks": _texts(masks), "held_out": _texts(held_out), "exclude": _texts(exclude),
        "held_out_masks": held_out_masks and os.fspath(held_out_masks),
    }  # fmt: skip
    for name in ("run", "scenes"):
        if config in RECIPES and given[name] is None and name not in settings:
            raise ValueError(f"--{name}: expected a folder")
    recipe = dataclasses.replace(recipe, **{name: value for name, value in given.items() if value is not None})
    best = _trained(recipe, tensorboard=tensorboard, progress=not as_json)
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes says it
    log = (Path(recipe.run) / "log.jsonl").read_text().splitlines()
    last: dict[str, Any] = json.loads(log[-1]) if log else {"step": 0}
    if as_json:
        typer.echo(json.dumps({"run": recipe.run, "best": os.fspath(best)} | last))
    else:
        numbers = "".join(f", {key} {last[key]:.4g}" for key in ("loss", "psnr", "gain") if key in last)
        typer.echo(f"{_files.printable(best)}: the best of {last['step']} steps; the last:{numbers[1:]}")


@app.command(short_help="Write a run's generator to a file.")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="TorchScript, or ONNX where it ends in .onnx."),
    ],
    which: Annotated[
        str, typer.Option(metavar="best|last", help="The best on the held-out cameras, or the last.")
    ] = "best",
    image_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="S, where it is not the one that was trained.")
    ] = None,
    training_data: Annotated[str, typer.Option(metavar="TEXT", help="What the file is to say of it.")] = "not stated",
    opset: Annotated[int | None, typer.Option(metavar="NUMBER", help="Of ONNX.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the generator of RUN as a file for `gpgan blend --generator`, or as ONNX."""
    if not run.is_dir():
        raise FileNotFoundError(f"RUN: no folder of a run at {os.fspath(run)!r}")
    from gpgan.nn.export import export_run

    path = export_run(run, output, which=which, image_size=image_size, training_data=training_data, opset=opset)
    size = path.stat().st_size
    if as_json:
        typer.echo(json.dumps({"output": os.fspath(path), "bytes": size}))
    else:
        typer.echo(f"{_files.printable(path)}: {size} bytes")


app.command(short_help="Compare methods on pictures.")(_evaluate_command.evaluate)
app.command(short_help="Ask people which result looks most real.")(_study_command.study)
app.command("convert-realism", short_help="Convert the published RealismCNN for the realism score.")(
    _realism_command.convert_realism
)


@app.command()
def info(
    file: Annotated[Path | None, typer.Argument(metavar="[GENERATOR]", help="A TorchScript file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what this installation is and has, or what a generator's file says of itself."""
    if file is not None:
        said = _generator_facts(file)
        lines = [f"{key.replace('_', ' '):<16} {value}" for key, value in said.items()]
        typer.echo(json.dumps(said) if as_json else "\n".join(lines))
        return
    try:
        cmake_prefix = gpgan.cmake_prefix()
    except FileNotFoundError:
        cmake_prefix = None
    available, detail = _cuda_library.status()
    facts = {
        "version": gpgan.__version__,
        "instruction set": _core.cpu_target(),
        "instruction sets": _core.cpu_targets(),
        "threads": _core.resolve_threads(),
        "CUDA": {"available": available, "detail": detail},
        "Python": platform.python_version(),
        "NumPy": importlib.metadata.version("numpy"),
        "torch": _version("torch"),
        "pixel limit": gpgan.max_pixels(),
        "CMake prefix": cmake_prefix,
    }
    shown = ("image_size", "architecture", "training_data", "bytes")
    generators = {}
    for name in gpgan.generators():
        said = _generator_facts(_FOLDER / "weights" / f"{name}.pt")
        generators[name] = {key: said[key] for key in shown}
    if as_json:
        keys = {name.replace(" ", "_").lower(): value for name, value in facts.items()}
        typer.echo(json.dumps(keys | {"generators": generators}))
        return
    facts["CUDA"] = detail if available else f"unavailable: {detail}"
    for name, value in facts.items():
        shown_value = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{name:<16} {'none' if shown_value is None else shown_value}")
    for name, said in generators.items():
        typer.echo(f"{'generator':<16} {name}")
        for key, value in said.items():
            typer.echo(f"  {key.replace('_', ' '):<14} {value}")


def _trained(recipe: Any, *, tensorboard: bool, progress: bool) -> Path:
    """Train; Ctrl-C becomes one line."""
    try:
        from gpgan.nn.train import train

        return train(recipe, progress=progress, tensorboard=tensorboard)
    except KeyboardInterrupt:
        run = _files.printable(Path(recipe.run))
        typer.echo(f"\ngpgan: stopped; the same command continues {run} from its last checkpoint", err=True)
        raise typer.Exit(130) from None


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set: expected FIELD=VALUE, got {text!r}")
    return name.strip().replace("-", "_"), value.strip()


def _texts(values: list[Any] | None) -> tuple[str, ...] | None:
    """What was given, or None where nothing was."""
    return tuple(os.fspath(value) for value in values) if values else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _generator_facts(path: Path) -> dict[str, Any]:
    """What a TorchScript file says of itself, without torch, whose import takes seconds."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/extra/gpgan.json"))
            said: dict[str, Any] = json.loads(archive.read(member))
    except (zipfile.BadZipFile, StopIteration, ValueError):
        raise ValueError(f"GENERATOR: expected a TorchScript file by gpgan export, got {os.fspath(path)!r}") from None
    return said | {"bytes": path.stat().st_size}
