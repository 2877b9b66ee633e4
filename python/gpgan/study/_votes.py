"""The votes in an SQLite file, one transaction each.

The rollback journal with ``synchronous = EXTRA`` keeps what was committed through a kill and a power cut, and all of
it in one file that may be copied at any time between two votes; a write-ahead log would keep part of it in a second.
Each operation has a connection of its own, and those that write take the lock first, so any number of threads and
servers can share a file.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

#: Says that an SQLite file is a study's, in its header; the version of the tables is beside it.
_APPLICATION = 0x67706776
_VERSION = 1
#: A trial that was not answered for so long was left: others need not wait for it.
_OPEN_FOR = timedelta(minutes=30)

_SCHEMA = f"""
CREATE TABLE raters (
    id INTEGER PRIMARY KEY,
    secret_hash TEXT NOT NULL UNIQUE,  -- SHA-256 of what the rater's browser keeps
    name TEXT NOT NULL,                -- as the rater gave it, or empty
    created TEXT NOT NULL              -- UTC, ISO 8601, like all times here
);
CREATE TABLE trials (
    id TEXT PRIMARY KEY,               -- random, what the page and its addresses say
    rater INTEGER NOT NULL REFERENCES raters,
    item TEXT NOT NULL,
    shown TEXT NOT NULL,               -- JSON list of methods, in the order on the page
    subset TEXT NOT NULL,              -- the same, sorted
    created TEXT NOT NULL,
    UNIQUE (rater, item, subset)
);
CREATE TABLE votes (
    trial TEXT PRIMARY KEY REFERENCES trials,  -- so that a vote counts once
    chosen TEXT,                       -- a method; NULL is a skip
    time TEXT NOT NULL,
    response_ms INTEGER                -- from all pictures visible to the choice, as the browser says
);
CREATE VIEW ballots AS
    SELECT rater, item, shown, chosen, time, response_ms, trial
    FROM votes JOIN trials ON trials.id = votes.trial ORDER BY votes.rowid;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""


class UnavailableError(ValueError):
    """The votes or a picture cannot be read or written: a file's fault, which a rater can wait out."""


@dataclass(frozen=True)
class Ballot:
    """One answer.

    Attributes
    ----------
    rater, item : str
    shown : tuple of str
        The methods, in the order in which their results were shown.
    chosen : str or None
        One of `shown`; None is a skip.
    """

    rater: str
    item: str
    shown: tuple[str, ...]
    chosen: str | None


@dataclass(frozen=True)
class Trial:
    """What a rater was shown."""

    id: str
    item: str
    shown: tuple[str, ...]


def read_votes(path: str | os.PathLike[str]) -> list[Ballot]:
    """All answers in a study's SQLite file, the oldest first.

    Raises
    ------
    ValueError
        If there is no such file, or it is no study's.
    """
    with Votes(Path(path), create=False).connect() as connection:
        rows = connection.execute("SELECT rater, item, shown, chosen FROM ballots").fetchall()
    ballots = []
    for rater, item, shown, chosen in rows:
        ballot = Ballot(str(rater), str(item), _methods(shown), chosen)
        if len(set(ballot.shown)) < 2 or ballot.chosen not in (None, *ballot.shown):
            raise ValueError(f"votes: {os.fspath(path)!r} has a vote for {chosen!r} where {shown!r} was shown")
        ballots.append(ballot)
    return ballots


class Votes:
    """A study's SQLite file.

    Parameters
    ----------
    path : Path
    create : bool
        Make it if it is not there.

    Raises
    ------
    ValueError
        If it cannot be opened, or is something else.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path
        self._mode = "rw"
        if not create and not path.is_file():
            raise ValueError(f"votes: no file at {os.fspath(path)!r}")
        if create:
            self._create()
        with self.connect() as connection:
            self._check(connection)

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; with `write`, in a transaction that is committed at the end and holds the lock from the start.

        Raises
        ------
        UnavailableError
            If the file cannot be opened, read or written.
        """
        address = f"{self.path.absolute().as_uri()}?mode={self._mode}"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=20, isolation_level=None)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA synchronous = EXTRA")
                if not write:
                    yield connection
                    return
                # What is not committed when the connection closes is undone.
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise UnavailableError(f"votes: cannot use {os.fspath(self.path)!r}: {error}") from error

    def add_rater(self, secret_hash: str, name: str) -> None:
        """Note a rater, unless already there."""
        with self.connect(write=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO raters (secret_hash, name, created) VALUES (?, ?, ?)",
                (secret_hash, name, _now()),
            )

    def rater(self, secret_hash: str) -> tuple[int, str] | None:
        """The number and name of a rater, or None for nobody known."""
        with self.connect() as connection:
            row = connection.execute("SELECT id, name FROM raters WHERE secret_hash = ?", (secret_hash,)).fetchone()
        return None if row is None else (row[0], row[1])

    def trial(self, rater: int, trial: str) -> Trial | None:
        """One that this rater was shown, or None."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT id, item, shown FROM trials WHERE id = ? AND rater = ?", (trial, rater)
            ).fetchone()
        return None if row is None else Trial(row[0], row[1], _methods(row[2]))

    def vote(self, rater: int, trial: str, choice: int | None, response_ms: int | None) -> bool:
        """Note an answer: a place on the page from 0 on, or None for a skip.

        Returns
        -------
        bool
            False if this trial has an answer already, which stays as it is.

        Raises
        ------
        LookupError
            If this rater was shown no such trial, or it has no such place.
        """
        with self.connect(write=True) as connection:
            row = connection.execute("SELECT shown FROM trials WHERE id = ? AND rater = ?", (trial, rater)).fetchone()
            if row is None:
                raise LookupError("no such trial")
            chosen = None if choice is None else _methods(row[0])[choice]
            cursor = connection.execute(
                "INSERT OR IGNORE INTO votes (trial, chosen, time, response_ms) VALUES (?, ?, ?, ?)",
                (trial, chosen, _now(), response_ms),
            )
            return cursor.rowcount == 1

    def answered(self, connection: sqlite3.Connection, rater: int) -> int:
        """How many trials this rater has answered."""
        query = "SELECT count(*) FROM trials JOIN votes ON trial = trials.id WHERE rater = ?"
        return int(connection.execute(query, (rater,)).fetchone()[0])

    def count(self) -> int:
        """How many answers there are, skips included."""
        with self.connect() as connection:
            return int(connection.execute("SELECT count(*) FROM votes").fetchone()[0])

    def open_trials(self, connection: sqlite3.Connection, rater: int) -> list[Trial]:
        """What this rater was shown and has not answered, the oldest first."""
        rows = connection.execute(
            "SELECT id, item, shown FROM trials WHERE rater = ? AND id NOT IN (SELECT trial FROM votes) ORDER BY rowid",
            (rater,),
        )
        return [Trial(id_, item, _methods(shown)) for id_, item, shown in rows]

    def seen(self, connection: sqlite3.Connection, rater: int) -> list[tuple[str, tuple[str, ...]]]:
        """The items and subsets that this rater was shown."""
        rows = connection.execute("SELECT item, subset FROM trials WHERE rater = ?", (rater,))
        return [(item, _methods(subset)) for item, subset in rows]

    def coverage(self, connection: sqlite3.Connection) -> list[tuple[str, tuple[str, ...], int]]:
        """How often each item was shown with each subset: answered, or open since a short while."""
        since = _iso(datetime.now(timezone.utc) - _OPEN_FOR)
        rows = connection.execute(
            "SELECT item, subset, count(*) FROM trials LEFT JOIN votes ON trial = trials.id "
            "WHERE trial IS NOT NULL OR created > ? GROUP BY item, subset",
            (since,),
        )
        return [(item, _methods(subset), count) for item, subset, count in rows]

    def add_trial(self, connection: sqlite3.Connection, rater: int, trial: Trial) -> None:
        """Note what a rater is about to be shown."""
        connection.execute(
            "INSERT INTO trials (id, rater, item, shown, subset, created) VALUES (?, ?, ?, ?, ?, ?)",
            (trial.id, rater, trial.item, json.dumps(trial.shown), json.dumps(sorted(trial.shown)), _now()),
        )

    def _create(self) -> None:
        name = os.fspath(self.path)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"votes: expected a file's name, got {name!r}, which is something else")
        if not self.path.parent.is_dir():
            raise ValueError(f"votes: expected an existing folder, got {os.fspath(self.path.parent)!r}")
        self._mode = "rwc"
        with self.connect(write=True) as connection:
            # Of two servers that start together the second finds the tables of the first here.
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
        self._mode = "rw"

    def _check(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION:
            raise ValueError(f"votes: {os.fspath(self.path)!r} is an SQLite file, but none of gpgan study")
        if version != _VERSION:
            raise ValueError(f"votes: {os.fspath(self.path)!r} has version {version}, expected {_VERSION}")


def _methods(text: str) -> tuple[str, ...]:
    try:
        methods = json.loads(text)
    except (TypeError, ValueError):
        methods = None
    if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
        raise ValueError(f"votes: expected a list of methods, got {text!r}")
    return tuple(methods)


def _now() -> str:
    return _iso(datetime.now(timezone.utc))


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
