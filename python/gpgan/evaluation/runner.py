"""The evaluation itself: items through methods into a folder that can be left at any moment and gone on with."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gpgan
from gpgan import _core, _files
from gpgan.evaluation import measures, report, table
from gpgan.evaluation.items import Inputs, Item, find_items, read_item
from gpgan.evaluation.methods import Method, as_methods, warm_up
from gpgan.evaluation.results import Results
from gpgan.evaluation.run_folder import (
    FORMAT,
    Record,
    check_run,
    claimed,
    file_digest,
    is_whole,
    read_picture,
    read_record,
    write,
    write_picture,
)

__all__ = ["evaluate"]


def evaluate(
    root: str | os.PathLike[str] | Sequence[Item],
    run: str | os.PathLike[str],
    *,
    methods: Iterable[str | Method] | None = None,
    masks: str | os.PathLike[str] | None = None,
    pairs: int | None = None,
    seed: int = 0,
    realism: str | os.PathLike[str] | None = "default",
    thumbnail: int = 480,
    grid: int = 6,
    redo: bool = False,
    progress: bool = False,
    note: Callable[[str], object] = lambda text: None,
) -> Results:
    """Blend items by several methods, measure the results and write a report.

    Parameters
    ----------
    root : path-like or sequence of Item
        A CSV file, a folder of items, or of frames of fixed cameras: see :func:`find_items`.
    run : path-like
        The folder to write, made where there is none. What an earlier call has left there for the same files, methods
        and options is not computed again; results that are not asked for stay there.
    methods : iterable of str or Method, optional
        Texts as for :func:`parse_method`, or what :func:`method` gives. None: all that come with gpgan and whose
        packages are installed.
    masks, pairs, seed
        See :func:`find_items`.
    realism : {"default", None} or path-like
        The weights of the :class:`gpgan.metrics.RealismScorer`; None: no realism score.
    thumbnail : int, default 480
        The longer side of the pictures in the report, in pixels. Those in ``items/`` have their full size.
    grid : int, default 6
        How many items the table of pictures at the report's beginning shows.
    redo : bool
        Compute everything again.
    progress : bool
        A progress bar on stderr.
    note : callable, optional
        Is told, in one line each, what the caller may want to know.

    Returns
    -------
    Results

    Raises
    ------
    ImportError
        If the packages of ``gpgan[evaluate]`` are not installed.
    ValueError
        If an argument is wrong, no item is found, or another process is writing to the folder. A damaged image and a
        method that fails are no such error: they are in the results.
    """
    if not 32 <= thumbnail <= 4096:
        raise ValueError(f"thumbnail: expected 32 to 4096 pixels, got {thumbnail}")
    if grid < 0:
        raise ValueError(f"grid: expected 0 or more, got {grid}")
    chosen = as_methods(methods)
    if isinstance(root, (str, os.PathLike)):
        items = find_items(root, masks=masks, pairs=pairs, seed=seed, note=note)
    else:
        items = _checked(root)
        if masks is not None or pairs is not None:
            raise ValueError("masks, pairs: expected none beside items")
    folder = check_run(Path(run))
    measure = measures.Measure(realism, note)
    with claimed(folder):
        settings = {
            "format": FORMAT, "gpgan": gpgan.__version__, "root": _text(root), "masks": masks and os.fspath(masks),
            "pairs": pairs, "seed": seed, "items": [item.name for item in items],
            "methods": [{"label": entry.label, **entry.identity()} for entry in chosen],
            "metrics": measure.identity(), "machine": _machine(),
        }  # fmt: skip
        write(folder / "evaluation.json", json.dumps(settings, indent=1))
        records, computed = [], 0
        with _progress(len(items) * len(chosen), progress) as bar:
            ready: set[str] = set()
            for item in items:
                one = _ItemRun(folder / "items" / item.name, item, chosen, measure, redo, ready)
                records.append(one(bar))
                computed += one.computed
        others = len(_folders(folder / "items") - {item.name for item in items})
        if others:
            note(f"{others} more in {folder / 'items'} from other calls, which no table here counts")
        summary = table.summarise(records, [(entry.label, entry.name) for entry in chosen])
        metrics = table.metrics_of(summary)
        notes = [*measure.notes(metrics), *table.notes(summary, metrics, records)]
        results = Results(folder, records, summary, metrics, notes, computed)
        write(folder / "scores.json", json.dumps(results.to_dict(), indent=1, allow_nan=False))
        write(folder / "scores.csv", results.scores_csv())
        write(folder / "table.txt", results.table() + "\n")
        write(folder / "table.csv", table.as_csv(summary, metrics))
        report.write(results, thumbnail=thumbnail, grid=grid, title=_text(root), progress=progress)
    return results


class _ItemRun:
    """One item through all methods; what its item.json says is done is not done again."""

    def __init__(
        self,
        folder: Path,
        item: Item,
        methods: Sequence[Method],
        measure: measures.Measure,
        redo: bool,
        ready: set[str],
    ) -> None:
        self.folder, self.item, self.methods, self.measure = folder, item, methods, measure
        self.redo, self.ready = redo, ready
        self.computed = 0
        self._inputs: Inputs | None = None

    def __call__(self, bar: Any) -> Record:
        end = bar.n + len(self.methods)
        record = self._new()
        try:
            if self.folder.is_symlink():  # pictures are removed here, which must not be another folder's
                raise OSError("expected a folder, got a link")
            if record["error"] is None:
                record = self._run(record, bar)
            elif not (self.folder / "item.json").exists():  # else it stays: the files may be back next time
                self._save(record)
        except OSError as error:  # of its own folder, and other items have theirs
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            record["error"] = f"cannot use {os.fspath(self.folder)!r}: {error.strerror or error}"
        bar.update(end - bar.n)
        return self._asked(record)

    def _run(self, record: Record, bar: Any) -> Record:
        record = self._gone_on(record)
        wanted = {entry.label: _digest(entry.identity()) for entry in self.methods}
        todo = [entry for entry in self.methods if not self._is_done(record, entry, wanted[entry.label])]
        bar.update(len(self.methods) - len(todo))
        try:
            if todo or record["error"] is not None or not self._has_pictures(record):
                self._begin(record)
            for entry in todo:
                bar.set_postfix_str(f"{entry.label}, {self.item.name}"[:40])
                self._compute(record, entry, wanted[entry.label])
                self._save(record)
                bar.update(1)
            self._score(record)
        except _BadItemError as error:
            record["error"] = str(error)
            self._save(record)
        return record

    def _new(self) -> Record:
        """The record of an item of which nothing is known but its files."""
        files: dict[str, dict[str, str | None]] = {
            role: {"path": os.fspath(path), "sha256": None} for role, path in self.item.files.items()
        }
        reason: str | None = None
        try:
            for role, path in self.item.files.items():
                files[role]["sha256"] = file_digest(path)
        except OSError as error:
            reason = f"cannot read {error.filename!r}: {error.strerror}"
        identity = {
            "files": {role: file["sha256"] for role, file in files.items()}, "offset": list(self.item.offset),
            "square": self.item.square, "format": FORMAT,
        }  # fmt: skip
        return {
            "format": FORMAT, "item": self.item.name, "title": self.item.title or self.item.name, "files": files,
            "offset": list(self.item.offset), "square": self.item.square, "fingerprint": _digest(identity),
            "size": None, "error": reason, "methods": {},
        }  # fmt: skip

    def _gone_on(self, record: Record) -> Record:
        """The record with what an earlier call has left of the same files; what it has left of others is removed."""
        old = read_record(self.folder / "item.json")
        if old is not None and old["fingerprint"] == record["fingerprint"]:
            again = {entry.label for entry in self.methods} if self.redo else set()
            methods = {label: said for label, said in old["methods"].items() if label not in again}
            # Paths may have moved; what is known of the pictures has not.
            return record | {"methods": methods, "size": old.get("size"), "error": old["error"]}
        # First, or a kill would leave a record of pictures that the next lines have taken, or new ones have replaced.
        (self.folder / "item.json").unlink(missing_ok=True)
        for path in self.folder.glob("*.png"):  # they must not be taken for this item's
            path.unlink()
        return record

    def _is_done(self, record: Record, entry: Method, fingerprint: str) -> bool:
        said = record["methods"].get(entry.label)
        return (
            said is not None
            and said.get("fingerprint") == fingerprint
            and said.get("error") is None
            and is_whole(self.folder / f"{entry.label}.png")
        )

    def _has_pictures(self, record: Record) -> bool:
        stems = ["composite", "mask", *(["truth"] if "truth" in record["files"] else [])]
        return all(is_whole(self.folder / f"{stem}.png") for stem in stems)

    def inputs(self) -> Inputs:
        if self._inputs is None:
            try:
                self._inputs = read_item(self.item)
            except (OSError, TypeError, ValueError, MemoryError) as error:
                raise _BadItemError(f"{error}" or type(error).__name__) from error
        return self._inputs

    def _begin(self, record: Record) -> None:
        """The pictures that are no method's."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
        for part in self.folder.glob(".*.part"):  # of a run that was killed
            part.unlink(missing_ok=True)
        record["error"] = None
        inputs = self.inputs()
        record["size"] = list(inputs.target.shape[:2])
        if self.redo or not self._has_pictures(record):
            pictures = {"composite": inputs.composite, "mask": inputs.framed[2], "truth": inputs.truth}
            for stem, pixels in pictures.items():
                if pixels is not None:
                    write_picture(pixels, self.folder / f"{stem}.png")
        self._save(record)

    def _compute(self, record: Record, entry: Method, fingerprint: str) -> None:
        self.computed += 1
        path = self.folder / f"{entry.label}.png"
        said: Record = {
            "name": entry.name, "options": entry.identity()["options"], "version": entry.version,
            "fingerprint": fingerprint, "file": path.name, "seconds": None, "scores": None, "measured": None,
            "error": None,
        }  # fmt: skip
        if record["methods"].pop(entry.label, None) is not None:
            self._save(record)  # first, or a kill would leave the old scores beside the new picture
        path.unlink(missing_ok=True)
        if entry.label not in self.ready:
            with suppress(Exception):  # it will say so of the item itself
                warm_up(entry)
            self.ready.add(entry.label)
        inputs = self.inputs()
        try:
            result, seconds = entry.timed(inputs)
            said["seconds"] = round(seconds, 6)
            said["scores"], said["measured"] = self.measure(result, inputs), self.measure.fingerprint
        except measures.MissingPackageError:
            raise
        except Exception as error:  # anybody's method may raise anything
            said["error"], said["seconds"] = _reason(error), None
        else:
            write_picture(result, path)
        record["methods"][entry.label] = said

    def _score(self, record: Record) -> None:
        """Measure results of earlier calls anew where they were measured by other means."""
        changed = False
        for entry in self.methods:
            said = record["methods"][entry.label]
            if said["error"] is None and said["measured"] != self.measure.fingerprint:
                # The numbers by other means, for a call that asks for those again.
                known = said.setdefault("known", {})
                known[said["measured"]] = said["scores"]
                try:
                    if self.measure.fingerprint not in known:
                        result = read_picture(self.folder / f"{entry.label}.png")
                        known[self.measure.fingerprint] = self.measure(result, self.inputs())
                    said["scores"] = known.pop(self.measure.fingerprint)
                    said["measured"] = self.measure.fingerprint
                except (measures.MissingPackageError, _BadItemError):
                    raise
                except Exception as error:
                    said["scores"], said["error"] = None, _reason(error)
                changed = True
        if changed:
            self._save(record)

    def _save(self, record: Record) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "item.json", json.dumps(record, indent=1, allow_nan=False))

    def _asked(self, record: Record) -> Record:
        """The record with the methods that were asked for, in their order."""
        failed = {"seconds": None, "scores": None, "file": None}
        methods = {}
        for entry in self.methods:
            said = record["methods"].get(entry.label)
            if record["error"] is not None or said is None:
                said = {"name": entry.name, **failed, "error": record["error"] or "not computed"}
            methods[entry.label] = {key: value for key, value in said.items() if key != "known"}
        return record | {"methods": methods}


class _BadItemError(Exception):
    """An item whose images cannot be read: no method can do anything with it."""


def _folders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def _machine() -> dict[str, Any]:
    """What the seconds depend on."""
    try:
        model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    cv2 = sys.modules.get("cv2")
    return {
        "processor": model[1] if model else platform.processor(), "cores": os.cpu_count(),
        "threads": _core.resolve_threads(), "opencv_threads": cv2.getNumThreads() if cv2 else None,
    }  # fmt: skip


def _checked(items: Sequence[Item]) -> list[Item]:
    for item in items:
        if not isinstance(item, Item):
            raise TypeError(f"root: expected a path or items, got a sequence with {type(item).__name__}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", item.name):
            raise ValueError(f"root: expected an item's name of letters, digits, '.', '_' and '-', got {item.name!r}")
    if not items or len({item.name.lower() for item in items}) != len(items):
        raise ValueError("root: expected one item at least, and names that differ")
    return list(items)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _reason(error: BaseException) -> str:
    lines = " ".join(str(error).split())[:500]
    known = isinstance(error, (ValueError, TypeError)) and lines
    return lines if known else f"{type(error).__name__}: {lines}".rstrip(": ")


def _text(root: Any) -> str:
    return _files.printable(root) if isinstance(root, (str, os.PathLike)) else f"{len(root)} items"


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Any]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("gpgan.evaluation needs tqdm: pip install 'gpgan[evaluate]'") from error
    with tqdm(total=total, disable=not shown, file=sys.stderr, unit="blend", dynamic_ncols=True) as bar:
        yield bar
