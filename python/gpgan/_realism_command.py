"""The command line: ``gpgan convert-realism``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def convert_realism(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The published .caffemodel.")],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Weights file, by custom .safetensors.", show_default=False
        ),
    ],
    max_bytes: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, help="Refuse a larger model; 1 GiB if not said.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the weights of the RealismCNN of Zhu et al. 2015 as a file for the realism score.

    MODEL is what its authors published for Caffe. The file is for `gpgan.metrics.RealismScorer`.
    """
    from gpgan.nn import caffe

    path = caffe.convert(model, output, max_bytes=max_bytes or caffe.MAX_BYTES)
    size = path.stat().st_size
    if as_json:
        typer.echo(json.dumps({"output": os.fspath(path), "bytes": size}))
    else:
        # The terminal of another encoding cannot show every name.
        typer.echo(f"{os.fspath(path).encode(errors='backslashreplace').decode()}: {size} bytes")
