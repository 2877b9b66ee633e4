"""People say which result looks most realistic: the user study of the paper's section 4.4, on one's own machine.

``gpgan study FOLDER`` serves it; :func:`create_app` is the same for another server. :func:`results` counts the votes
as the paper's Table 2 does, with confidence intervals, and needs neither Flask nor the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gpgan.study._statistics import MethodResult, Results, results
from gpgan.study._votes import Ballot, read_votes

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["Ballot", "MethodResult", "Results", "create_app", "read_votes", "results"]

#: The names of the own machine that never leave it, so that no other site can pass for it.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def create_app(
    folder: str | os.PathLike[str],
    *,
    methods: Sequence[str] | None = None,
    show: int | Literal["all"] | None = None,
    trials: int = 60,
    votes: str | os.PathLike[str] | None = None,
    max_side: int = 1600,
    hosts: Sequence[str] = LOCAL_HOSTS,
) -> Flask:
    """The study as a WSGI application, for any server that can run several threads.

    Parameters
    ----------
    folder : path
        What ``gpgan evaluate`` wrote, or any folder of item folders that each hold ``composite``, ``mask`` and one
        image a method (``mask`` may be missing: then nothing is circled).
    methods : sequence of str, optional
        The methods to compare; if not given, every one that the folder has a result of.
    show : int or "all", optional
        How many results are shown at a time, 2 or more. If not given, 3 as in the paper, or 2 where there are but two.
    trials : int
        How many choices a person is asked for, 1 or more; fewer where the folder has no more.
    votes : path, optional
        The SQLite file that the votes go to; ``votes.sqlite`` in `folder` if not given.
    max_side : int
        Pictures whose longer side has more pixels are shown smaller.
    hosts : sequence of str
        The host names that requests may be for. ``"*"`` stands for every IP address.

    Returns
    -------
    flask.Flask
        Its ``extensions["gpgan_study"]`` is the study: its ``items``, ``methods``, ``votes`` and ``left_out``.

    Raises
    ------
    ImportError
        If Flask or scikit-image is missing.
    TypeError, ValueError
        If an argument cannot be used, or the folder has nothing to compare.
    """
    try:
        import flask  # noqa: F401
        import skimage.measure  # noqa: F401
    except ImportError as error:
        raise ImportError(f"the study needs {error.name}: pip install 'gpgan[evaluate]'") from error
    from gpgan.study._app import make_app
    from gpgan.study._study import Study

    study = Study(folder, methods=methods, show=show, trials=trials, votes=votes, max_side=max_side)
    return make_app(study, tuple(hosts))
