"""The paper's Table 2 with confidence intervals that know of items and raters.

Votes on one item are alike, since its results are the same pictures, and so are the votes of one rater. Intervals that
take every vote for an independent one would be too narrow.

References
----------
.. [1] E. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
.. [2] L. Kish, "Survey Sampling", 1965 (the design effect).
.. [3] A. Cameron, J. Gelbach, D. Miller, "Robust Inference With Multiway Clustering", 2011.
.. [4] N. Dean, M. Pagano, "Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys", 2015.
.. [5] C. Field, A. Welsh, "Bootstrapping Clustered Data", 2007.
"""

from __future__ import annotations

import csv
import io
import math
import operator
import os
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass, replace
from numbers import Real
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from gpgan.study._votes import Ballot, read_votes

Interval = tuple[float, float]

#: Below so many raters or items the intervals of the shares say little of others.
FEW = 10


@dataclass(frozen=True)
class MethodResult:
    """What became of one method.

    Attributes
    ----------
    method : str
    total_votes : int
    average_votes : float
        Votes an item.
    average_interval : (float, float) or None
        Of `average_votes`; None where all items have the same number, or there is one only: then they tell nothing.
    std : float or None
        Standard deviation over the items of the votes an item, with n - 1; None where there is one item only.
    shown : int
        In how many votes it was among those shown.
    share : float or None
        Votes divided by `shown`; None where it was never shown.
    share_interval : (float, float) or None
        Of `share`.
    design_effect : float
        How many times the variance of `share` is that of independent votes, 1 at least.
    """

    method: str
    total_votes: int
    average_votes: float
    average_interval: Interval | None
    std: float | None
    shown: int
    share: float | None
    share_interval: Interval | None
    design_effect: float


@dataclass(frozen=True)
class Results:
    """What the votes say.

    Attributes
    ----------
    methods : tuple of MethodResult
        The most preferred one first.
    raters, items : int
        That voted, and that were voted on.
    votes, skips : int
        Skips count in nothing else.
    confidence : float
    """

    methods: tuple[MethodResult, ...]
    raters: int
    items: int
    votes: int
    skips: int
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """All of it for ``json.dumps``."""
        return asdict(self)

    def table(self) -> str:
        """The paper's Table 2 as text, with intervals, and what it counts below."""
        level = f"{100 * self.confidence:g} % interval"
        head = ["Method", "Total votes", "Average votes", level, "Std.", "Shown", "Won when shown", level]
        rows = [head] + [
            [
                one.method, str(one.total_votes), f"{one.average_votes:.3f}", _range(one.average_interval, "{:.3f}"),
                _number(one.std, "{:.3f}"), str(one.shown), _number(one.share, "{:.1%}"),
                _range(one.share_interval, "{:.1%}"),
            ]
            for one in self.methods
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in rows)
        ]
        lines.insert(1, "-" * len(lines[0]))
        cast = f"{_many(self.votes, 'vote')} by {_many(self.raters, 'rater')} on {_many(self.items, 'item')}"
        lines += ["", f"{cast}; {_many(self.skips, 'skip')}"]
        few = [what for count, what in ((self.raters, "raters"), (self.items, "items")) if count < FEW]
        if self.votes and few:
            lines.append(f"With fewer than {FEW} {' and '.join(few)} the intervals say little of others.")
        return "\n".join(line.rstrip() for line in lines)

    def csv(self) -> str:
        """One line a method, names of the columns first; undefined numbers are empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["method", "total_votes", "average_votes", "average_low", "average_high", "std", "shown", "share",
             "share_low", "share_high", "design_effect"]
        )  # fmt: skip
        for one in self.methods:
            average, share = one.average_interval or (None, None), one.share_interval or (None, None)
            writer.writerow(
                [one.method, one.total_votes, one.average_votes, *average, one.std, one.shown, one.share, *share,
                 one.design_effect]
            )  # fmt: skip
        return out.getvalue()


def results(
    votes: str | os.PathLike[str] | Iterable[Ballot],
    *,
    confidence: float = 0.95,
    resamples: int = 10000,
    seed: int = 0,
) -> Results:
    """Count the votes of a study.

    The average and the standard deviation are those of the paper's Table 2: of a method's votes an item, over all
    items that have a vote. The average's interval is a percentile bootstrap that draws whole items [5]_, with their
    votes. The share's is Wilson's [1]_ for as many independent votes as these are worth, their number divided by the
    design effect [2]_ [4]_, whose variance is clustered both by item and by rater [3]_, with Student's t of one
    degree of freedom less than there are items or raters, the fewer of both, in place of the normal quantile [3]_ [4]_.
    Where a share is 0 or 1 and tells nothing of that, the largest design effect of the other methods is used.

    Parameters
    ----------
    votes : path or iterable of Ballot
        A study's SQLite file, or its answers.
    confidence : float
        Of the intervals, between 0 and 1.
    resamples : int
        Of the bootstrap, 100 or more.
    seed : int
        Of the bootstrap: the same votes give the same intervals.

    Returns
    -------
    Results

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used, a file is no study's, or a ballot shows fewer than two methods or chooses what it
        did not show.
    """
    if not isinstance(confidence, Real):
        raise TypeError(f"confidence: expected a number, got {type(confidence).__name__}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    resamples, seed = whole(resamples, "resamples", 100), whole(seed, "seed", 0)
    ballots = read_votes(votes) if isinstance(votes, (str, os.PathLike)) else list(votes)
    for ballot in ballots:
        if not isinstance(ballot, Ballot):
            raise TypeError(f"votes: expected a path or Ballots, got {type(ballot).__name__}")
        if len(set(ballot.shown)) < 2:
            raise ValueError(f"votes: expected two different methods or more in a ballot, got {ballot.shown}")
        if ballot.chosen is not None and ballot.chosen not in ballot.shown:
            raise ValueError(f"votes: expected a choice among {ballot.shown}, got {ballot.chosen!r}")
    cast = [ballot for ballot in ballots if ballot.chosen is not None]
    items = {item: k for k, item in enumerate(dict.fromkeys(ballot.item for ballot in cast))}
    names = sorted({method for ballot in ballots for method in ballot.shown})
    counts = np.zeros((len(items), len(names)))
    for ballot in cast:
        counts[items[ballot.item], names.index(str(ballot.chosen))] += 1
    averages = _bootstrap(counts, confidence, resamples, seed)

    methods, freedoms = [], {}
    for k, name in enumerate(names):
        shown = [ballot for ballot in cast if name in ballot.shown]
        wins = int(counts[:, k].sum())
        clusters = [len({ballot.item for ballot in shown}), len({ballot.rater for ballot in shown})]
        # As in the design effect, one item or rater alone is what the interval is about.
        freedoms[name] = min((count - 1 for count in clusters if count > 1), default=None)
        methods.append(
            MethodResult(
                method=name,
                total_votes=wins,
                average_votes=wins / len(items) if items else 0.0,
                average_interval=averages[k] if averages and np.ptp(counts[:, k]) > 0 else None,
                std=float(counts[:, k].std(ddof=1)) if len(items) > 1 else None,
                shown=len(shown),
                share=wins / len(shown) if shown else None,
                share_interval=None,
                design_effect=_design_effect(shown, name),
            )
        )
    largest = max((one.design_effect for one in methods), default=1.0)
    methods = [_with_interval(one, largest, confidence, freedoms[one.method]) for one in methods]
    methods.sort(key=lambda one: (-(one.share or 0), -one.total_votes, one.method))
    return Results(
        methods=tuple(methods),
        raters=len({ballot.rater for ballot in cast}),
        items=len(items),
        votes=len(cast),
        skips=len(ballots) - len(cast),
        confidence=confidence,
    )


def whole(value: object, argument: str, least: int) -> int:
    """A whole number that is `least` or more.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{argument}: expected a whole number, got {type(value).__name__}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{argument}: expected {least} or more, got {value!r}")
    return number


def wilson(share: float, count: float, confidence: float, freedom: int | None = None) -> Interval:
    """Wilson's score interval [1]_ of a share of `count` votes, which need not be whole.

    With `freedom`, the quantile is that of Student's t with so many degrees of it, for a variance that is estimated.
    """
    level = (1 + confidence) / 2
    z = NormalDist().inv_cdf(level) if freedom is None else float(scipy.special.stdtrit(freedom, level))
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At a share of 0 or 1 the bound is that share, which rounding would miss.
    low = 0.0 if share == 0 else max(0.0, (middle - half) / scale)
    return low, 1.0 if share == 1 else min(1.0, (middle + half) / scale)


def _with_interval(one: MethodResult, largest: float, confidence: float, freedom: int | None) -> MethodResult:
    if one.share is None:
        return one
    effect = largest if one.share in (0.0, 1.0) else one.design_effect
    interval = wilson(one.share, one.shown / effect, confidence, freedom)
    return replace(one, share_interval=interval, design_effect=effect)


def _design_effect(ballots: list[Ballot], method: str) -> float:
    """The variance of a method's share, clustered both ways [3]_, by that of as many independent votes."""
    if not ballots:
        return 1.0
    won = np.array([ballot.chosen == method for ballot in ballots], dtype=np.float64)
    share, count = won.mean(), len(won)
    independent = share * (1 - share) / count
    if independent == 0:
        return 1.0
    apart = won - share
    by_item = _clustered([ballot.item for ballot in ballots], apart)
    by_rater = _clustered([ballot.rater for ballot in ballots], apart)
    if by_item is None or by_rater is None:
        # One item, or one rater: the interval is about that one.
        variance = by_item or by_rater or 0.0
    else:
        by_both = _clustered([(ballot.item, ballot.rater) for ballot in ballots], apart) or 0.0
        variance = by_item + by_rater - by_both
        if variance <= 0:  # the estimate may be, where there are few clusters
            variance = max(by_item, by_rater)
    return max(1.0, float(variance / independent))


def _clustered(labels: list[Any], apart: npt.NDArray[np.float64]) -> float | None:
    """Variance of a mean whose deviations are correlated within clusters; None for one cluster."""
    clusters: dict[Hashable, float] = {}
    for label, value in zip(labels, apart, strict=True):
        clusters[label] = clusters.get(label, 0.0) + float(value)
    count = len(clusters)
    if count < 2:
        return None
    return count / (count - 1) * sum(value * value for value in clusters.values()) / len(apart) ** 2


def _bootstrap(counts: npt.NDArray[np.float64], confidence: float, resamples: int, seed: int) -> list[Interval] | None:
    """Percentile intervals of the columns' means over resampled rows."""
    rows = len(counts)
    if rows < 2:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, counts.shape[1]))
    # As many at a time as keep the memory small, whatever the number of items.
    step = max(1, 2_000_000 // rows)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = rng.multinomial(rows, np.full(rows, 1 / rows), stop - start) @ counts / rows
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _range(interval: Interval | None, form: str) -> str:
    return "-" if interval is None else f"{form.format(interval[0])} to {form.format(interval[1])}"
