"""What everything that writes files or names them to people shares."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` in the end: under that name there is never a part of one.

    Parameters
    ----------
    path : Path
    sync : bool
        Wait until it is on the disk, so that a power cut leaves it whole too, and not only a kill.
    """
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        # Exclusive, and with the permissions that the umask gives to any new file.
        with part.open("x+b") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def printable(path: str | os.PathLike[str]) -> str:
    """A path for people: what is no text in it becomes a mark."""
    return os.fsencode(path).decode(errors="replace")
