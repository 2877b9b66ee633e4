"""The folder that an evaluation writes: one process at a time, files whole or not at all, and what is read back."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpgan import _files, _image_files

#: Of what is in item.json; another number is another program's.
FORMAT = 1

#: A PNG file's last chunk.
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

#: What an item.json holds.
Record = dict[str, Any]


def check_run(run: Path) -> Path:
    """Refuse a folder that is something else's."""
    shown = repr(os.fspath(run))
    try:
        names = {path.name for path in run.iterdir() if not path.name.startswith(".")} if run.exists() else set()
    except OSError as error:
        raise ValueError(f"run: expected a folder at {shown}: {error.strerror}") from None
    begun = names == {"items"} and not any((run / "items").iterdir())
    if names and "evaluation.json" not in names and not begun:
        raise ValueError(f"run: expected a new or empty folder, or one of an evaluation, got {shown} with other files")
    return run


def _make(run: Path) -> None:
    try:
        (run / "items").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"run: cannot make the folder {os.fspath(run)!r}: {error.strerror}") from None


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """This process alone writes to the folder; a killed one's claim ends with it."""
    import fcntl

    _make(run)
    try:
        # A folder that somebody else has made may hold a link there, to a file that must not be touched.
        lock = os.open(run / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ValueError(f"run: cannot write in {os.fspath(run)!r}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"run: another process is writing to {os.fspath(run)!r}") from None
        for part in run.glob(".*.part"):
            part.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def read_record(path: Path) -> Record | None:
    """What an item.json says, without the methods' entries that are not as they should be; None if it is none."""
    try:
        record = json.loads(path.read_bytes(), parse_float=_finite, parse_constant=lambda name: None)
    except (FileNotFoundError, RecursionError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    if not isinstance(record.get("methods"), dict) or not {"fingerprint", "error"} <= set(record):
        return None
    if not isinstance(record["error"], (str, type(None))):
        return None
    record["methods"] = {label: said for label, said in record["methods"].items() if _is_entry(said)}
    return record


def _finite(text: str) -> float | None:
    return number if math.isfinite(number := float(text)) else None


def _is_entry(said: Any) -> bool:
    """Whether it is a method's in an item.json, of a failure or of a result with all its numbers."""
    if not isinstance(said, dict) or not {"error", "seconds", "scores", "measured"} <= set(said):
        return False
    if said["error"] is not None:
        return isinstance(said["error"], str)
    known = said.get("known", {})
    return (
        _is_number(said["seconds"])
        and isinstance(said["measured"], str)
        and isinstance(known, dict)
        and all(
            isinstance(scores, dict) and all(value is None or _is_number(value) for value in scores.values())
            for scores in (said["scores"], *known.values())
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e300


def read_picture(path: Path) -> Any:
    """A picture of a run's folder, uint8 (H, W, 3), or (H, W) of a mask.

    Raises
    ------
    ValueError
        If it is none, or damaged.
    """
    import numpy as np

    picture = _image_files.read(path, "result").picture
    return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))


def write_picture(pixels: Any, path: Path) -> None:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    write(path, data.getvalue())


def is_whole(path: Path) -> bool:
    """Whether a picture is there to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:
        return False


def write(path: Path, content: str | bytes) -> None:
    """A file, whole or not at all if the process is killed.

    There is no fsync, which would take longer than the blends: what a power cut may leave without its end is found by
    :func:`is_whole`, or is no JSON, and is computed again.
    """
    data = content if isinstance(content, bytes) else content.encode(errors="replace")
    with _files.replacing(path, sync=False) as file:
        file.write(data)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        shutil.copyfileobj(file, _Sink(digest.update), 1 << 20)
    return digest.hexdigest()


class _Sink:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
