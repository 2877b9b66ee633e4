"""The command ``gpgan evaluate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

import gpgan
from gpgan import _files


def _list_methods(wanted: bool) -> None:
    if wanted:
        from gpgan import evaluation

        typer.echo("\n".join(evaluation.method_names()))
        raise typer.Exit


def evaluate(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="ROOT",
            help="A CSV file, a folder of items, or of frames of a fixed camera (or of a folder of them by camera).",
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="RUN", help="Folder for results; one that is there is gone on with."),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]NAME[:option=value,...]",
            help="A method, such as poisson or inset3=gpgan:inset=3; may be repeated; all if not said.",
        ),
    ] = None,
    list_methods: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_list_methods, help="Print the methods' names and exit.")
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For frames: masks of their size, or a folder of them by camera."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=1, help="Pairs of frames, 60; or of a list so many at random, all."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Of what is drawn at random.")] = 0,
    realism: Annotated[
        str, typer.Option(metavar="default|none|FILE", help="Weights of the realism score.")
    ] = "default",
    thumbnail: Annotated[
        int, typer.Option(metavar="PIXELS", min=32, max=4096, help="Longer side of the report's pictures.")
    ] = 480,
    grid: Annotated[int, typer.Option(metavar="COUNT", min=0, help="Items side by side in the report.")] = 6,
    max_pixels: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help=f"Refuse larger images; {gpgan.max_pixels()} or GPGAN_MAX_PIXELS."),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Compute again what is there already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no remarks.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print scores.json in place of the table.")] = False,
) -> None:
    """Blend the items of ROOT by several methods, measure the results, and write tables and a page to look through.

    ROOT is (1) a CSV file with the columns source and target, and mask, truth, name, top, left where there are any,
    paths relative to it; (2) a folder of folders with source.*, target.*, mask.* (or a source with alpha) and, where it
    is known, truth.*; or (3) a folder of frames of a fixed camera, or of such folders: then pairs of frames are drawn,
    what a mask (without --masks a centred square of half the side) shows of the first goes into the second, and the
    second is the truth.

    RUN gets report.html, the means in table.txt and table.csv, the numbers of every blend in scores.csv and
    scores.json, and items/<item>/<method>.png. The same command again goes on where it was stopped, and other methods
    are added to what is there. The exit code is 1 where a method failed on an item, and 2 where nothing could be done.
    Needs what `pip install 'gpgan[evaluate]'` brings.
    """
    from gpgan import evaluation

    if max_pixels is not None:
        gpgan.set_max_pixels(max_pixels)
    try:
        results = evaluation.evaluate(
            root,
            output,
            methods=method or None,
            masks=masks,
            pairs=pairs,
            seed=seed,
            realism=None if realism.lower() == "none" else realism,
            thumbnail=thumbnail,
            grid=grid,
            redo=redo,
            progress=not quiet and sys.stderr.isatty(),
            note=lambda text: None if quiet else typer.echo(f"gpgan: {text}", err=True),
        )
    except KeyboardInterrupt:
        typer.echo(f"\ngpgan: stopped; the same command goes on in {_files.printable(output)}", err=True)
        raise typer.Exit(130) from None
    typer.echo(json.dumps(results.to_dict(), indent=1) if as_json else results.table())
    if results.failed:
        total = len(results.items) * len(results.summary)
        typer.echo(
            f"gpgan: {results.failed} of {total} blends failed; see {_files.printable(output / 'report.html')}",
            err=True,
        )
        raise typer.Exit(1)
