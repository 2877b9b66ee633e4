"""``gpgan study``: ask people, or count what they said."""

from __future__ import annotations

import json
import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer

import gpgan

#: What may stand beside --results.
_OF_RESULTS = ("folder", "votes", "results", "as_json", "csv")


def study(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="What gpgan evaluate wrote, or a folder of such item folders."),
    ],
    *,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A method to compare; may be repeated. If not said, all that are there."),
    ] = None,
    show: Annotated[
        str | None, typer.Option(metavar="COUNT|all", help="Results at a time; 3 as in the paper if not said.")
    ] = None,
    trials: Annotated[int, typer.Option(metavar="COUNT", help="Questions a person, at most.")] = 60,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="SQLite file of the votes; FOLDER/votes.sqlite if not said.")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="Where to listen; 0.0.0.0 lets the whole network take part.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=65535, help="0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name by which browsers reach this server; may be repeated."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the study in a browser.")] = False,
    max_side: Annotated[
        int, typer.Option(metavar="PIXELS", min=64, help="Show larger pictures scaled down to this.")
    ] = 1600,
    max_pixels: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help=f"Refuse larger images; {gpgan.max_pixels()} or GPGAN_MAX_PIXELS."),
    ] = None,
    results: Annotated[bool, typer.Option("--results", help="Count the votes instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --results: print one JSON object.")] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --results: write the table there as well.")
    ] = None,
) -> None:
    """Ask people which result looks most real, or count their votes.

    Serves a page at the address that it prints: each time the composite with the pasted object circled, and the
    results of three methods in random order, of which one is picked by a click or a key. Methods are never named.
    Votes are saved one by one; Ctrl-C stops it, and the same command goes on. Needs what
    `pip install 'gpgan[evaluate]'` brings.
    """
    if results:
        for parameter in context.command.params:
            source = context.get_parameter_source(parameter.name or "")
            if parameter.name not in _OF_RESULTS and source is not None and source.name == "COMMANDLINE":
                raise ValueError(f"{parameter.opts[0]}: expected none beside --results, which counts all votes")
        _print_results(folder, votes, as_json=as_json, csv=csv)
        return
    if as_json or csv is not None:
        raise ValueError(f"{'--json' if as_json else '--csv'}: expected --results beside it")
    if max_pixels is not None:
        gpgan.set_max_pixels(max_pixels)
    from gpgan.study import LOCAL_HOSTS, create_app
    from gpgan.study._server import serve

    hosts = [*LOCAL_HOSTS, *(allow_host or [])]
    if host not in ("localhost", "127.0.0.1", "::1"):
        hosts += ["*", host, socket.gethostname()]
    app = create_app(
        folder, methods=method, show=_count(show), trials=trials, votes=votes, max_side=max_side, hosts=hosts
    )
    held = app.extensions["gpgan_study"]
    for item, reason in held.left_out:
        typer.echo(f"gpgan: left out {item}: {reason}", err=True)

    def ready(addresses: list[str]) -> None:
        methods = ", ".join(held.methods)
        typer.echo(f"{len(held.items)} items, {held.show} at a time of the methods {methods}; votes: {held.votes.path}")
        typer.echo(f"{addresses[0]}  (Ctrl-C stops)")
        for address in addresses[1:]:
            typer.echo(f"{address}  for others")
        sys.stdout.flush()
        if open_browser:
            webbrowser.open(addresses[0])

    serve(app, host=host, port=port, ready=ready)
    typer.echo(f"gpgan: stopped; {held.votes.count()} answers in {held.votes.path}")


def _print_results(folder: Path, votes: Path | None, *, as_json: bool, csv: Path | None) -> None:
    from gpgan.study import results

    counted = results(folder / "votes.sqlite" if votes is None else votes)
    if csv is not None:
        try:
            csv.write_text(counted.csv(), encoding="utf-8")
        except OSError as error:
            raise ValueError(f"--csv: cannot write {os.fspath(csv)!r}: {error.strerror}") from error
    typer.echo(json.dumps(counted.as_dict()) if as_json else counted.table())


def _count(text: str | None) -> int | Literal["all"] | None:
    if text is None:
        return None
    if text == "all":
        return "all"
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"--show: expected a whole number or all, got {text!r}")
    return int(text)
