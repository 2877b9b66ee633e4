"""Who is shown what next."""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Literal

from gpgan.study import _pictures
from gpgan.study._items import Item, find_items, items_folder
from gpgan.study._statistics import whole
from gpgan.study._votes import Trial, UnavailableError, Votes

#: Encoded pictures that are kept at hand, in bytes.
_CACHE_BYTES = 128 << 20
#: The sets of methods of an item that are gone through, with the votes locked, to find the next question.
_MOST_SUBSETS = 10_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """What to show a rater, `trial` None at the end; `upcoming` is what follows, for the browser to load meanwhile."""

    trial: Trial | None
    upcoming: Trial | None
    answered: int
    total: int


class Study:
    """A folder's items, the methods to compare and the votes.

    Parameters and errors are those of :func:`gpgan.study.create_app`.

    Attributes
    ----------
    items : dict of str to Item
    methods : tuple of str
    show, trials : int
    votes : Votes
    left_out : list of (str, str)
        Items that cannot be shown, with the reason.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        methods: Sequence[str] | None,
        show: int | Literal["all"] | None,
        trials: int,
        votes: str | os.PathLike[str] | None,
        max_side: int,
    ) -> None:
        root = Path(folder)
        name = repr(os.fspath(root))
        if not root.is_dir():
            raise ValueError(f"folder: expected an existing folder, got {name}")
        if isinstance(methods, str):
            raise TypeError(f"methods: expected a sequence of names, got {methods!r}")
        trials = whole(trials, "trials", 1)
        self.max_side = whole(max_side, "max_side", 64)
        items, self.left_out = find_items(items_folder(root), methods)
        if not items and not self.left_out:
            raise ValueError(f"folder: no folder with a composite and results in {os.fspath(items_folder(root))!r}")
        there = {method for item in items for method in item.results}
        wanted = there if methods is None else set(methods)
        if wanted - there:
            raise ValueError(f"methods: {name} has no result of {', '.join(sorted(wanted - there))}")
        self.methods = tuple(sorted(wanted))
        if len(self.methods) < 2:
            said = ", ".join(self.methods) or "; ".join(f"{item}: {why}" for item, why in self.left_out[:3]) or "none"
            raise ValueError(f"folder: expected results of two methods or more in {name}, got {said}")
        everything = len(self.methods)
        self.show = min(3, everything) if show is None else everything if show == "all" else whole(show, "show", 2)
        if self.show > len(self.methods):
            raise ValueError(f"show: expected at most {len(self.methods)} as there are so many methods, got {show}")
        self.items: dict[str, Item] = {}
        for item in items:
            if len(item.results) < self.show:
                self.left_out.append(
                    (item.name, f"it has results of {len(item.results)} methods, {self.show} are shown")
                )
            else:
                self.items[item.name] = item
        if not self.items:
            raise ValueError(f"folder: no item in {name} has results of {self.show} methods")
        most = max(len(item.results) for item in self.items.values())
        if comb(most, self.show) > _MOST_SUBSETS:
            raise ValueError(
                f"show: expected at most {_MOST_SUBSETS} sets of methods, got the {comb(most, self.show)} of "
                f"{self.show} of {most}; compare fewer methods, or show another number at a time"
            )
        self.trials = min(trials, sum(comb(len(item.results), self.show) for item in self.items.values()))
        self.votes = Votes(root / "votes.sqlite" if votes is None else Path(votes), create=True)
        self._cache = _Cache(_CACHE_BYTES)
        self._outlines: dict[str, str] = {}

    def next_trial(self, rater: int) -> Progress:
        """What a rater is to be shown now: the same again until it is answered.

        Items that the rater has seen least come first, then those that were shown least to all, then the item's
        subset of methods that was shown least, in this item and in all; ties are broken at random, and so is the
        order on the page.
        """
        with self.votes.connect(write=True) as connection:
            answered = self.votes.answered(connection, rater)
            open_ = [trial for trial in self.votes.open_trials(connection, rater) if self.can_show(trial)]
            wanted = min(2, self.trials - answered)
            while len(open_) < wanted:
                chosen = self._choose(self.votes.seen(connection, rater), self.votes.coverage(connection))
                if chosen is None:
                    break
                item, subset = chosen
                trial = Trial(secrets.token_urlsafe(16), item, tuple(random.sample(subset, len(subset))))
                self.votes.add_trial(connection, rater, trial)
                open_.append(trial)
        if wanted <= 0 or not open_:
            return Progress(None, None, answered, answered)
        return Progress(open_[0], open_[1] if wanted > 1 and len(open_) > 1 else None, answered, self.trials)

    def can_show(self, trial: Trial) -> bool:
        """Whether this folder has what a trial shows, which may be of an earlier start with other files."""
        return trial.item in self.items and all(method in self.items[trial.item].results for method in trial.shown)

    def picture(self, trial: Trial, place: int) -> bytes:
        """The PNG at a place of a trial's page: 0 is the composite, 1 and more are the results.

        Raises
        ------
        UnavailableError
            If the file cannot be read.
        """
        item = self.items[trial.item]
        path = item.composite if place == 0 else item.results[trial.shown[place - 1]]
        try:
            return self._cache.get(path, lambda: _pictures.encode(path, item.size, self.max_side))
        except ValueError as error:
            raise UnavailableError(str(error)) from error

    def outline(self, item: Item) -> str:
        """The line around what was pasted, as SVG path data; empty where that is not known."""
        if item.name not in self._outlines:
            try:
                self._outlines[item.name] = "" if item.mask is None else _pictures.outline(item.mask)
            except ValueError as error:  # it was a mask when the study started
                _log.warning("nothing is circled in %s: %s", item.name, error)
                self._outlines[item.name] = ""
        return self._outlines[item.name]

    def _choose(
        self, seen: list[tuple[str, tuple[str, ...]]], coverage: list[tuple[str, tuple[str, ...], int]]
    ) -> tuple[str, tuple[str, ...]] | None:
        done = set(seen)
        by_rater = Counter(item for item, _ in seen)
        by_item: Counter[str] = Counter()
        by_subset: Counter[tuple[str, ...]] = Counter()
        by_pair: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for item, subset, count in coverage:
            by_item[item] += count
            by_subset[subset] += count
            by_pair[item, subset] += count
        order = [((by_rater[item], by_item[item], random.random()), item) for item in self.items]
        for _, item in sorted(order):
            free = [
                subset
                for subset in combinations(sorted(self.items[item].results), self.show)
                if (item, subset) not in done
            ]
            if free:
                return item, min(free, key=lambda s: (by_pair[item, s], by_subset[s], random.random()))
        return None


class _Cache:
    """Encoded pictures, the least recently used thrown away first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Path, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, encode: Callable[[], bytes]) -> bytes:
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        data = encode()
        with self._lock:
            if path not in self._kept and len(data) <= self._limit:
                self._kept[path] = data
                self._size += len(data)
            while self._size > self._limit:
                self._size -= len(self._kept.popitem(last=False)[1])
        return data
