"""The user study: what it shows and to whom, what it keeps, what it refuses, and what it makes of the votes."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

import gpgan
from gpgan.cli import app as command_line
from gpgan.study import Ballot, create_app, read_votes, results
from gpgan.study import _items as study_items
from gpgan.study import _pictures as pictures
from gpgan.study import _statistics as study_statistics
from gpgan.study._study import Study
from gpgan.study._votes import Trial, Votes

METHODS = ("alpha-blend", "gp_gan.v2", "multiband", "poisson")
HEIGHT, WIDTH = 48, 64
XSS = "<img src=x onerror=alert(1)>&\"'"


def save(path: Path, seed: int, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> None:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 150, size[1])[None, :, None] + rng.integers(0, 100, 3)
    pixels = np.broadcast_to(ramp, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)


def make_item(root: Path, name: str, methods: tuple[str, ...] = METHODS, seed: int = 0) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for k, stem in enumerate(("composite", *methods)):
        save(folder / f"{stem}.png", 100 * seed + k)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 20:40] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four items, four methods."""
    for k in range(4):
        make_item(tmp_path / "run" / "items", f"item{k}", seed=k)
    return tmp_path / "run"


def make_study(folder: Path, **options: Any) -> Study:
    given: dict[str, Any] = {"methods": None, "show": None, "trials": 60, "votes": None, "max_side": 1600}
    return Study(folder, **given | options)


def add_rater(study: Study, secret: str) -> int:
    study.votes.add_rater(secret, "")
    known = study.votes.rater(secret)
    assert known is not None
    return known[0]


# ----------------------------------------------------------------------------------------------- what is shown


def test_items_are_the_folder_s(folder: Path) -> None:
    for name in ("source", "target", "TRUTH"):
        save(folder / "items" / "item0" / f"{name}.png", 1)
    (folder / "items" / "item0" / "item.json").write_text("{}")
    (folder / "items" / "notes").mkdir()
    study = make_study(folder)
    assert study.methods == METHODS
    assert list(study.items) == ["item0", "item1", "item2", "item3"]
    assert study.left_out == []
    assert set(study.items["item0"].results) == set(METHODS)
    assert study.items["item0"].size == (HEIGHT, WIDTH)
    assert study.votes.path == folder / "votes.sqlite"


def test_items_of_a_plain_folder(folder: Path) -> None:
    assert list(make_study(folder / "items").items) == ["item0", "item1", "item2", "item3"]


def test_items_left_out_say_why(folder: Path) -> None:
    items = folder / "items"
    save(items / "item0" / "poisson.png", 1, (HEIGHT, WIDTH + 1))
    save(items / "item1" / "poisson.jpg", 1)
    (items / "item2" / "multiband.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    make_item(items, "few", METHODS[:2])
    (make_item(items, "headless") / "composite.png").unlink()
    save(make_item(items, "named") / "a b.png", 1)
    Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0)).save(make_item(items, "red") / "mask.png")
    study = make_study(folder)
    assert list(study.items) == ["item3"]
    reasons = dict(study.left_out)
    assert "'poisson.png' is 48x65, its composite 48x64" in reasons["item0"]
    assert "'poisson.jpg' and 'poisson.png'" in reasons["item1"]
    assert "'multiband.png'" in reasons["item2"]
    assert reasons["few"] == "it has results of 2 methods, 3 are shown"
    assert reasons["headless"] == "it has no composite"
    assert "'a b.png'" in reasons["named"]
    assert "mask: expected one channel, or three that are equal" in reasons["red"]


def test_items_that_cannot_be_read_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, question: str) -> None:
        plain = getattr(Path, question)

        def ask(path: Path) -> Any:
            if path.name == name:
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return plain(path)

        monkeypatch.setattr(Path, question, ask)

    refuse("item0", "iterdir")
    refuse("item1", "is_dir")
    study = make_study(folder)
    assert list(study.items) == ["item2", "item3"]
    assert study.left_out == [(name, "cannot read it: Permission denied") for name in ("item0", "item1")]


def test_outline_of_a_mask_that_vanished_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = make_study(folder)
    (folder / "items" / "item0" / "mask.png").unlink()
    assert [study.outline(study.items["item0"]) for _ in range(2)] == ["", ""]
    [said] = caplog.messages
    assert "nothing is circled in item0: mask: cannot read" in said


def test_items_over_the_pixel_limit_are_left_out(folder: Path, small_pixel_limit: int) -> None:
    with pytest.raises(ValueError, match=f"more pixels than the limit of {small_pixel_limit}"):
        make_study(folder)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_items_turn_as_exif_says(tmp_path: Path, orientation: int) -> None:
    item = make_item(tmp_path, "one")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    save(item / "turned.jpg", 1, (WIDTH, HEIGHT), exif=exif)
    found, left_out = study_items.find_items(tmp_path, None)
    assert (found[0].size, left_out) == ((HEIGHT, WIDTH), [])
    with Image.open(io.BytesIO(pictures.encode(item / "turned.jpg", (HEIGHT, WIDTH), 1600))) as shown:
        assert shown.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ["poisson", "nobody"]}, ValueError, "methods: .* has no result of nobody"),
        ({"methods": "poisson"}, TypeError, "methods: expected a sequence"),
        ({"methods": ["poisson"]}, ValueError, "two methods or more"),
        ({"show": 1}, ValueError, "show: expected 2 or more, got 1"),
        ({"show": 5}, ValueError, "show: expected at most 4"),
        ({"show": 2.5}, TypeError, "show: expected a whole number, got float"),
        ({"trials": 0}, ValueError, "trials: expected 1 or more, got 0"),
        ({"max_side": 10}, ValueError, "max_side: expected 64 or more, got 10"),
        ({"votes": "no/such/folder.sqlite"}, ValueError, "votes: expected an existing folder"),
    ],
)
def test_create_app_refuses(folder: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_app(folder, **options)


def test_create_app_refuses_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder: expected an existing folder"):
        create_app(tmp_path / "none")
    with pytest.raises(ValueError, match="no folder with a composite"):
        create_app(tmp_path)


def test_create_app_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(ImportError, match=r"flask: pip install 'gpgan\[evaluate\]'"):
        create_app(folder)


def test_create_app_refuses_too_many_sets_of_methods(tmp_path: Path) -> None:
    item = make_item(tmp_path, "one", ())
    for k in range(16):
        shutil.copy(item / "composite.png", item / f"m{k}.png")
    assert make_study(tmp_path, show=5).trials == 60  # 4368
    with pytest.raises(ValueError, match="show: expected at most 10000 sets of methods, got the 12870 of 8 of 16"):
        make_study(tmp_path, show=8)


def test_show_all_and_two_methods(folder: Path) -> None:
    assert make_study(folder, show="all").show == 4
    assert make_study(folder, methods=METHODS[:2]).show == 2


def test_pictures_say_nothing_but_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "poisson"
    save(tmp_path / "a.tif", 3, exif=exif, dpi=(72, 72))
    save(tmp_path / "b.png", 3)
    encoded = pictures.encode(tmp_path / "a.tif", (HEIGHT, WIDTH), 1600)
    assert encoded == pictures.encode(tmp_path / "b.png", (HEIGHT, WIDTH), 1600)
    assert set(re.findall(rb"IHDR|IDAT|IEND|tEXt|iTXt|eXIf|iCCP|pHYs|tIME", encoded)) == {b"IHDR", b"IDAT", b"IEND"}
    with Image.open(io.BytesIO(encoded)) as shown, Image.open(tmp_path / "b.png") as original:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(original))


def test_pictures_are_srgb(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 3, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    save(tmp_path / "b.png", 3)
    shown = [pictures.encode(tmp_path / name, (HEIGHT, WIDTH), 1600) for name in ("a.png", "b.png")]
    with Image.open(io.BytesIO(shown[0])) as first, Image.open(io.BytesIO(shown[1])) as second:
        assert "icc_profile" not in first.info
        np.testing.assert_allclose(np.asarray(first, float), np.asarray(second, float), atol=1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16", "F"])
def test_pictures_of_any_mode_are_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((9, 7), 128 * 257, np.uint16))
    elif mode == "F":
        picture = Image.fromarray(np.full((9, 7), 128 / 255, np.float32))
    else:
        picture = Image.new(mode, (7, 9), {"L": 128, "LA": (0, 0), "RGBA": (255, 0, 0, 0)}[mode])
    picture.save(tmp_path / "a.tif")
    with Image.open(io.BytesIO(pictures.encode(tmp_path / "a.tif", (9, 7), 1600))) as shown:
        assert (shown.mode, shown.size, shown.getpixel((3, 3))) == ("RGB", (7, 9), (128, 128, 128))


def test_pictures_are_scaled_down_and_never_up(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1, (100, 331))
    for max_side, size in ((64, (64, 19)), (331, (331, 100)), (1600, (331, 100))):
        with Image.open(io.BytesIO(pictures.encode(tmp_path / "a.png", (100, 331), max_side))) as shown:
            assert shown.size == size
        assert pictures.shown_size((100, 331), max_side) == size[::-1]


def outline_points(path: str) -> list[np.ndarray]:
    return [
        np.array([[float(n) for n in point.split()] for point in part.rstrip("Z").split("L")])
        for part in path.split("M")[1:]
    ]


@pytest.mark.parametrize("size", [(300, 500), (1000, 1501)])
def test_outline_is_a_closed_line_around_the_object(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = np.zeros(size, np.uint8)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] * (1000 / max(size))
    mask[np.hypot(y - 300, x - 500) < 120] = 1  # 0 and 1, as the authors' own
    Image.fromarray(mask).save(tmp_path / "mask.png")
    [line] = outline_points(pictures.outline(tmp_path / "mask.png"))
    radius = np.hypot(line[:, 0] - 500, line[:, 1] - 300)
    assert radius.min() > 122  # clear of the object
    assert radius.max() < 155
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).max() < 20  # smooth


def test_outline_of_many_parts_and_at_the_border(tmp_path: Path) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[:40, :50] = mask[150:, 250:] = 255
    mask[100, 100] = 255  # one pixel is circled too
    Image.fromarray(mask).save(tmp_path / "mask.png")
    lines = outline_points(pictures.outline(tmp_path / "mask.png"))
    assert len(lines) == 3
    assert min(line.min() for line in lines) < 0  # it closes outside of the picture
    assert max(line[:, 1].max() for line in lines) > 1000 * 200 / 300


def test_outline_of_an_empty_mask_is_none(tmp_path: Path) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "mask.png")
    assert pictures.outline(tmp_path / "mask.png") == ""


# ------------------------------------------------------------------------------------------------------ who and what


def test_trials_cover_items_and_subsets_evenly(folder: Path) -> None:
    study = make_study(folder, trials=10)
    for k in range(4):
        rater = add_rater(study, f"rater{k}")
        while (trial := study.next_trial(rater).trial) is not None:
            study.votes.vote(rater, trial.id, None if k == 3 else k % 3, 1000)
    ballots = read_votes(study.votes.path)
    assert len(ballots) == 40
    assert set(Counter(ballot.item for ballot in ballots).values()) == {10}
    by_pair = Counter((ballot.item, frozenset(ballot.shown)) for ballot in ballots)
    assert len(by_pair) == 16
    assert set(by_pair.values()) <= {2, 3}
    assert set(Counter(frozenset(ballot.shown) for ballot in ballots).values()) <= {9, 10, 11}
    per_rater = Counter((ballot.rater, ballot.item, frozenset(ballot.shown)) for ballot in ballots)
    assert set(per_rater.values()) == {1}
    # Two or three times the same item in ten questions on four.
    assert set(Counter((ballot.rater, ballot.item) for ballot in ballots).values()) == {2, 3}


def test_trials_have_a_random_order(folder: Path) -> None:
    study = make_study(folder, show="all")
    places: Counter[tuple[int, str]] = Counter()
    for k in range(60):
        progress = study.next_trial(add_rater(study, f"rater{k}"))
        for trial in (progress.trial, progress.upcoming):
            assert trial is not None
            places.update(enumerate(trial.shown))
    # 120 orders: each of 16 counts is binomial with mean 30 and standard deviation 4.7; five of those.
    assert len(places) == 16
    assert all(abs(count - 30) < 24 for count in places.values())


def test_trial_stays_until_it_is_answered(folder: Path) -> None:
    study = make_study(folder)
    rater = add_rater(study, "a")
    first = study.next_trial(rater)
    assert study.next_trial(rater) == first
    assert make_study(folder).next_trial(rater) == first  # another server
    assert first.trial is not None
    assert study.votes.vote(rater, first.trial.id, 1, 800)
    second = study.next_trial(rater)
    assert second.trial is not None
    assert second.trial == first.upcoming
    assert second.upcoming not in (None, first.trial, second.trial)
    assert (first.answered, second.answered, second.total) == (0, 1, 16)


def test_trials_end_where_the_folder_does(folder: Path) -> None:
    study = make_study(folder, show=2, methods=METHODS[:2])
    rater = add_rater(study, "a")
    for _ in range(4):
        trial = study.next_trial(rater).trial
        assert trial is not None
        study.votes.vote(rater, trial.id, 0, None)
    end = study.next_trial(rater)
    assert (end.trial, end.upcoming, end.answered, end.total) == (None, None, 4, 4)


def test_trials_left_open_count_for_a_while(folder: Path) -> None:
    study = make_study(folder, show="all")
    first = study.next_trial(add_rater(study, "a")).trial
    assert first is not None
    study.votes.vote(1, first.id, 0, None)
    with study.votes.connect(write=True) as connection:
        assert len(study.votes.coverage(connection)) == 2
        connection.execute("UPDATE trials SET created = '2020-01-01T00:00:00.000+00:00'")
        assert study.votes.coverage(connection) == [(first.item, METHODS, 1)]


def test_trial_of_vanished_files_is_replaced(folder: Path) -> None:
    study = make_study(folder)
    rater = add_rater(study, "a")
    before = study.next_trial(rater).trial
    assert before is not None
    shutil.rmtree(folder / "items" / before.item)
    after = make_study(folder).next_trial(rater).trial
    assert after is not None
    assert after.item != before.item


def test_vote_counts_once(folder: Path) -> None:
    study = make_study(folder)
    rater, other = add_rater(study, "a"), add_rater(study, "b")
    trial = study.next_trial(rater).trial
    assert trial is not None
    with pytest.raises(LookupError):
        study.votes.vote(other, trial.id, 0, None)
    assert study.votes.vote(rater, trial.id, 2, 1234)
    assert not study.votes.vote(rater, trial.id, 0, 99)
    assert read_votes(study.votes.path) == [Ballot(str(rater), trial.item, trial.shown, trial.shown[2])]
    with study.votes.connect() as connection:
        row = connection.execute("SELECT time, response_ms FROM votes").fetchone()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row[0])
    assert row[1] == 1234


def test_votes_of_threads_and_servers_all_count(folder: Path) -> None:
    """Six raters in threads of their own, on two servers' objects for one file."""
    studies = [make_study(folder, trials=6), make_study(folder, trials=6)]
    failures: list[Exception] = []

    def work(study: Study, secret: str) -> None:
        try:
            rater = add_rater(study, secret)
            while (trial := study.next_trial(rater).trial) is not None:
                study.votes.vote(rater, trial.id, 0, None)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(studies[k % 2], f"rater{k}")) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ballots = read_votes(folder / "votes.sqlite")
    assert Counter(ballot.rater for ballot in ballots) == {str(k): 6 for k in range(1, 7)}
    with studies[0].votes.connect() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_votes_are_on_the_disk_and_whole(folder: Path) -> None:
    votes = make_study(folder).votes
    with votes.connect() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    with pytest.raises(KeyError), votes.connect(write=True) as connection:
        connection.execute("INSERT INTO raters VALUES (1, 'hash', '', 'now')")
        raise KeyError
    assert votes.rater("hash") is None


def test_votes_refuse_what_is_no_study(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="votes: no file at"):
        read_votes(tmp_path / "none.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("x" * 5000)
    with pytest.raises(ValueError, match="file is not a database"):
        create_app(folder, votes=text)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE votes (x)")
    connection.commit()
    connection.close()
    before = other.read_bytes()
    with pytest.raises(ValueError, match="none of gpgan study"):
        create_app(folder, votes=other)
    assert other.read_bytes() == before
    with pytest.raises(ValueError, match="which is something else"):
        create_app(folder, votes=tmp_path)


def test_votes_refuse_a_newer_version_and_a_forged_vote(folder: Path) -> None:
    study = make_study(folder)
    rater = add_rater(study, "a")
    with study.votes.connect(write=True) as connection:
        study.votes.add_trial(connection, rater, Trial("t", "item0", ("alpha-blend", "poisson")))
        connection.execute("INSERT INTO votes VALUES ('t', 'multiband', 'now', NULL)")
    with pytest.raises(ValueError, match="a vote for 'multiband'"):
        read_votes(study.votes.path)
    with study.votes.connect() as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(ValueError, match="has version 2, expected 1"):
        Votes(study.votes.path, create=True)


def test_votes_file_of_any_name(folder: Path) -> None:
    odd = folder / "a?b#c%20 d.sqlite"
    create_app(folder, votes=odd)
    assert odd.is_file()
    assert not (folder / "votes.sqlite").exists()


# ---------------------------------------------------------------------------------------------------------- pages


class Rater:
    """A browser without a screen."""

    def __init__(self, app: Any, name: str = "") -> None:
        self.client = app.test_client()
        page = self.get("/").get_data(as_text=True)
        assert self.post("/start", token=hidden(page, "token"), name=name).status_code == 303

    def get(self, address: str, **options: Any) -> Any:
        return self.client.get(address, **{"base_url": "http://localhost:8000"} | options)

    def post(self, address: str, *, headers: dict[str, str] | None = None, **fields: str) -> Any:
        return self.client.post(address, data=fields, headers=headers, base_url="http://localhost:8000")

    def page(self) -> str:
        text: str = self.get("/").get_data(as_text=True)
        return text

    def vote(self, choice: str = "1", **changes: Any) -> Any:
        page = self.page()
        fields = {"token": hidden(page, "token"), "trial": hidden(page, "trial"), "response_ms": "1500"}
        headers = changes.pop("headers", None)
        fields = {k: v for k, v in (fields | {"choice": choice} | changes).items() if v is not None}
        return self.post("/vote", headers=headers, **fields)


def hidden(page: str, name: str) -> str:
    match = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert match is not None, page
    return match[1]


def test_pages_lead_from_welcome_to_thanks(folder: Path) -> None:
    app = create_app(folder, trials=3)
    rater = Rater(app, "Ada")
    for k, choice in enumerate(("1", "skip", "3")):
        assert f"{k + 1} of 3" in rater.page()
        answer = rater.vote(choice)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert "Thank you, Ada!" in rater.page()
    ballots = read_votes(folder / "votes.sqlite")
    assert [ballot.shown.index(ballot.chosen) if ballot.chosen else None for ballot in ballots] == [0, None, 2]
    token = hidden(rater.page(), "token")
    assert rater.post("/leave", token=token).status_code == 303
    assert "Start" in rater.page()


def test_pages_never_name_a_method_or_an_item(folder: Path) -> None:
    rater = Rater(create_app(folder))
    sizes = set()
    for _ in range(6):
        answer = rater.get("/")
        page = answer.get_data(as_text=True)
        pictures_ = re.findall(r'<img src="([^"]+)"', page)
        assert len(pictures_) == 4
        seen = [page, str(answer.headers)]
        for address in pictures_:
            picture = rater.get(address)
            assert picture.status_code == 200
            assert not {"ETag", "Last-Modified", "Content-Disposition"} & set(picture.headers.keys())
            assert "private" in picture.headers["Cache-Control"]
            with Image.open(io.BytesIO(picture.data)) as image:
                sizes.add((image.size, image.mode, tuple(image.info)))
            seen += [address, str(picture.headers), picture.data.decode("latin-1")]
        said = "\n".join(seen).lower()
        for word in (*METHODS, "item0", "item1", "item2", "item3", ".png", os.fspath(folder).lower()):
            assert word not in said
        rater.vote("2")
    assert sizes == {((WIDTH, HEIGHT), "RGB", ())}


def test_pictures_are_those_of_the_trial(folder: Path) -> None:
    app = create_app(folder)
    rater = Rater(app)
    trial = hidden(rater.page(), "trial")
    study: Study = app.extensions["gpgan_study"]
    known = study.votes.trial(1, trial)
    assert known is not None
    for place, stem in enumerate(("composite", *known.shown)):
        expected = pictures.encode(folder / "items" / known.item / f"{stem}.png", (HEIGHT, WIDTH), 1600)
        assert rater.get(f"/picture/{trial}/{place}").data == expected
    assert rater.get(f"/picture/{trial}/4").status_code == 404
    assert Rater(app).get(f"/picture/{trial}/0").status_code == 404
    assert app.test_client().get(f"/picture/{trial}/0", base_url="http://localhost").status_code == 403


def test_pages_have_safe_headers(folder: Path) -> None:
    rater = Rater(create_app(folder))
    for address in ("/", "/static/study.js", "/none", f"/picture/{hidden(rater.page(), 'trial')}/0"):
        answer = rater.get(address)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        answer.close()
    assert rater.get("/").headers["Cache-Control"] == "no-store"
    cookie = rater.get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert not re.search(r"""\bon\w+=|style=|https?://|javascript:""", rater.page())


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8000", "8.8.8.8", "", "a b"]
)
def test_pages_refuse_other_hosts(folder: Path, host: str) -> None:
    client = create_app(folder).test_client()
    assert client.get("/", headers={"Host": host}).status_code in (400, 421)


def test_pages_answer_to_their_hosts(folder: Path) -> None:
    client = create_app(folder).test_client()
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
        assert client.get("/", headers={"Host": host}).status_code == 200
    client = create_app(folder, hosts=["*", "lab.example"]).test_client()
    for host, code in (("192.168.1.5:8000", 200), ("[fe80::1]", 200), ("lab.example", 200), ("evil.example", 421)):
        assert client.get("/", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": None}, 403),
        ({"token": "0" * 64}, 403),
        ({"token": "é"}, 403),
        ({"trial": None}, 400),
        ({"trial": "A" * 22}, 400),
        ({"trial": "../../etc/passwd"}, 400),
        ({"trial": "\x00"}, 400),
        ({"choice": "0"}, 400),
        ({"choice": "4"}, 400),
        ({"choice": "-1"}, 400),
        ({"choice": "poisson"}, 400),
        ({"choice": None}, 400),
        ({"choice": "1" * 20000}, 413),
        ({"headers": {"Origin": "http://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"headers": {"Origin": "http://localhost:9999"}}, 403),
        ({"headers": {"Origin": "http://["}}, 403),
        ({"headers": {"Origin": "localhost:8000"}}, 403),
        ({"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
        ({"headers": {"Sec-Fetch-Site": "same-site"}}, 403),
    ],
)
def test_vote_refuses_what_no_page_sends(folder: Path, changes: dict[str, Any], code: int) -> None:
    rater = Rater(create_app(folder))
    assert rater.vote(**changes).status_code == code
    assert read_votes(folder / "votes.sqlite") == []
    assert rater.vote(headers={"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_vote_of_somebody_else_s_trial_is_refused(folder: Path) -> None:
    app = create_app(folder)
    first, second = Rater(app), Rater(app)
    assert second.vote(trial=hidden(first.page(), "trial")).status_code == 400
    assert second.vote(token=hidden(first.page(), "token")).status_code == 403
    assert read_votes(folder / "votes.sqlite") == []


def test_vote_without_a_cookie_is_refused(folder: Path) -> None:
    app = create_app(folder)
    page = Rater(app).page()
    fields = {"token": hidden(page, "token"), "trial": hidden(page, "trial"), "choice": "1"}
    assert app.test_client().post("/vote", data=fields, base_url="http://localhost").status_code == 403


def test_vote_resent_counts_once(folder: Path) -> None:
    rater = Rater(create_app(folder))
    trial = hidden(rater.page(), "trial")
    for choice in ("3", "3", "1"):
        assert rater.vote(choice, trial=trial).status_code == 303
    [ballot] = read_votes(folder / "votes.sqlite")
    assert ballot.chosen == ballot.shown[2]


@pytest.mark.parametrize(
    ("sent", "kept"), [("1500", 1500), ("", None), ("-1", None), ("1e9", None), ("99999999", None)]
)
def test_vote_keeps_a_plausible_response_time(folder: Path, sent: str, kept: int | None) -> None:
    app = create_app(folder)
    Rater(app).vote(response_ms=sent)
    with app.extensions["gpgan_study"].votes.connect() as connection:
        assert connection.execute("SELECT response_ms FROM ballots").fetchall() == [(kept,)]


def test_vote_that_cannot_be_saved_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(folder)
    rater = Rater(app)
    failures = [sqlite3.OperationalError("database or disk is full"), ValueError("a mistake of ours")]
    votes = app.extensions["gpgan_study"].votes

    def fail(*_: object) -> None:
        with votes.connect():
            raise failures.pop(0)

    monkeypatch.setattr(votes, "vote", fail)
    for code, traceback in ((503, False), (500, True)):
        caplog.clear()
        answer = rater.vote()
        assert answer.status_code == code
        assert "disk" not in answer.get_data(as_text=True)
        [record] = caplog.records
        assert bool(record.exc_info) is traceback


def test_pages_escape_hostile_names(tmp_path: Path) -> None:
    root = tmp_path / XSS.replace("/", "")
    make_item(root, XSS)
    make_item(root, "'; DROP TABLE votes; --")
    app = create_app(root, trials=2)
    rater = Rater(app, XSS)
    for _ in range(2):
        assert "onerror" not in rater.page()
        rater.vote()
    page = rater.page()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert {ballot.item for ballot in read_votes(root / "votes.sqlite")} == {XSS, "'; DROP TABLE votes; --"}


@pytest.mark.parametrize(
    "address",
    ["/static/../_app.py", "/static/%2e%2e/_app.py", "/picture/../0", "/picture/%2e%2e%2fx/0", "/picture/x/-1"],
)
def test_pages_give_no_other_files(folder: Path, address: str) -> None:
    assert Rater(create_app(folder)).get(address).status_code in (400, 404)


def test_damaged_picture_says_so(folder: Path) -> None:
    for item in (folder / "items").iterdir():
        data = (item / "composite.png").read_bytes()
        (item / "composite.png").write_bytes(data[:60])  # its header is whole
    rater = Rater(create_app(folder))
    assert rater.get(f"/picture/{hidden(rater.page(), 'trial')}/0").status_code == 503


# ---------------------------------------------------------------------------------------------------- real browsers


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. GPGAN_REQUIRE_BROWSER=1 makes its absence a failure."""

    def missing(what: str) -> None:
        if os.environ.get("GPGAN_REQUIRE_BROWSER") == "1":
            pytest.fail(f"GPGAN_REQUIRE_BROWSER: {what}")
        pytest.skip(what)

    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing(f"none of {', '.join(names)}")
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, as whom containers run.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


class Server:
    """`gpgan study` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        source = os.fspath(Path(gpgan.__file__).parents[1])
        path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpgan", "study", os.fspath(folder), "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        match = re.match(r"http://\S+/", self.process.stdout.readline())
        if match is None:
            raise AssertionError(self.process.communicate())
        self.address = match[0]

    def stop(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Server]]:
    servers = []

    def start(*arguments: str, at: Path = folder) -> Server:
        servers.append(Server(at, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page as a new person and start; what the console says is an error."""
    contexts, problems = [], []

    def open_(server: Server, *, start: bool = True, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 720}} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(server.address)
        if start:
            page.click("text=Start")
            ready(page, 1)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def ready(page: Any, number: int) -> None:
    """Wait for the question of this number, with its choices enabled."""
    page.wait_for_selector(f".progress:has-text('{number} of ')")
    page.wait_for_selector(".option:enabled")


def choices(folder: Path) -> list[int | None]:
    return [
        ballot.shown.index(ballot.chosen) if ballot.chosen else None for ballot in read_votes(folder / "votes.sqlite")
    ]


def test_browser_votes_by_click_and_key(folder: Path, serve: Callable[..., Server], tab: Callable[..., Any]) -> None:
    page = tab(serve("--trials", "5"))
    page.click(".option >> nth=1")
    ready(page, 2)
    page.keyboard.press("3")
    ready(page, 3)
    page.keyboard.press("s")
    ready(page, 4)
    page.keyboard.press("4")  # no such picture
    page.keyboard.press("Control+1")
    page.keyboard.press("Tab")
    page.focus(".option >> nth=0")
    page.keyboard.press("Enter")
    ready(page, 5)
    page.click(".skip")
    page.wait_for_selector("text=Thank you")
    assert choices(folder) == [1, 2, None, 0, None]
    with Votes(folder / "votes.sqlite", create=False).connect() as connection:
        times = [row[0] for row in connection.execute("SELECT response_ms FROM ballots")]
    assert all(0 <= time < 30000 for time in times)


def test_browser_reload_and_back_show_the_same(
    folder: Path, serve: Callable[..., Server], tab: Callable[..., Any]
) -> None:
    page = tab(serve())
    trial, source = "[name=trial]", "img >> nth=2"
    before = page.input_value(trial), page.get_attribute(source, "src")
    page.reload()
    ready(page, 1)
    assert (page.input_value(trial), page.get_attribute(source, "src")) == before
    page.keyboard.press("1")
    ready(page, 2)
    now = page.input_value(trial)
    page.go_back()
    ready(page, 2)
    assert page.input_value(trial) == now
    assert choices(folder) == [0]


def test_browser_link_from_another_site_keeps_the_person(
    folder: Path, serve: Callable[..., Server], tab: Callable[..., Any]
) -> None:
    server = serve()
    page = tab(server)
    page.keyboard.press("1")
    ready(page, 2)
    trial = page.input_value("[name=trial]")
    link = f"<a href='{server.address}'>The study</a>"
    page.route("http://localhost:8080/", lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto("http://localhost:8080/")  # the study is at 127.0.0.1
    page.click("text=The study")
    ready(page, 2)
    assert page.input_value("[name=trial]") == trial
    page.keyboard.press("2")
    ready(page, 3)
    assert choices(folder) == [0, 1]


def test_browser_double_click_votes_once(folder: Path, serve: Callable[..., Server], tab: Callable[..., Any]) -> None:
    page = tab(serve())
    # Both in one's own time, which browsers round.
    pause = page.evaluate("shownAt - performance.getEntriesByType('navigation')[0].domInteractive")
    assert pause > 395
    page.dblclick(".option >> nth=0")
    ready(page, 2)
    page.keyboard.press("2")
    page.keyboard.press("2")
    ready(page, 3)
    assert choices(folder) == [0, 1]


def test_browser_waits_for_all_pictures(serve: Callable[..., Server], tab: Callable[..., Any]) -> None:
    page = tab(serve(), start=False)
    held = []
    page.route("**/picture/*/2", lambda route: held.append(route))
    page.click("text=Start", no_wait_after=True)
    page.wait_for_selector(".stage.placed", state="attached")
    places = page.evaluate("[...document.querySelectorAll('.picture')].map((p) => p.getBoundingClientRect().toJSON())")
    page.wait_for_timeout(800)
    assert page.locator(".option:enabled").count() == 0
    page.keyboard.press("1")
    assert "1 of" in page.inner_text(".progress")
    held[0].continue_()
    ready(page, 1)
    after = page.evaluate("[...document.querySelectorAll('.picture')].map((p) => p.getBoundingClientRect().toJSON())")
    assert after == places  # nothing moved


def test_browser_skips_what_cannot_be_shown(
    folder: Path, browser: Any, serve: Callable[..., Server], tab: Callable[..., Any]
) -> None:
    page = browser.new_page()
    page.goto(serve().address)
    page.route("**/picture/*/3", lambda route: route.abort())
    page.click("text=Start")
    page.wait_for_selector("text=cannot be shown")
    assert page.locator(".option:enabled").count() == 0
    page.keyboard.press("1")
    page.keyboard.press("s")
    page.wait_for_selector(".progress:has-text('2 of ')")
    page.context.close()
    assert choices(folder) == [None]


def test_browser_shows_all_at_equal_size(serve: Callable[..., Server], tab: Callable[..., Any], tmp_path: Path) -> None:
    """On one screen, but for phones, where pictures that fit would be too small."""
    item = make_item(tmp_path / "large", "one", ())
    for stem in ("composite", *METHODS):
        save(item / f"{stem}.png", 1, (600, 900))
    Image.fromarray(np.pad(np.full((200, 200), 255, np.uint8), ((100, 300), (300, 400)))).save(item / "mask.png")
    server = serve(at=tmp_path / "large")
    for width, height in ((1280, 720), (1920, 1080), (390, 844)):
        page = tab(server, viewport={"width": width, "height": height})
        boxes = page.evaluate(
            "[...document.querySelectorAll('.picture')].map((p) => [p.getBoundingClientRect().width, p.offsetHeight])"
        )
        assert len(boxes) == 4
        assert np.ptp(np.array(boxes), axis=0).max() < 1
        assert boxes[0][0] == pytest.approx(1.5 * boxes[0][1], rel=0.01)
        scrolls = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert scrolls[0] == width
        if width > 600:
            assert scrolls[1] == height
            assert boxes[0][0] > 0.29 * width
            tops = page.evaluate("[...document.querySelectorAll('.option')].map((p) => p.getBoundingClientRect().top)")
            assert len(set(tops)) == 1  # side by side
        line = page.locator("svg path").first.bounding_box()
        assert line["width"] == pytest.approx(boxes[0][0] * (200 / 900 + 2 * 0.02), rel=0.1)


def test_browser_enlarges_and_hides_the_line(
    folder: Path, serve: Callable[..., Server], tab: Callable[..., Any]
) -> None:
    page = tab(serve())
    page.keyboard.press("o")
    assert not page.is_visible("svg")
    page.click("#line")
    assert page.is_visible("svg")
    page.click("[aria-label='Enlarge picture 2']")
    assert "Picture 2" in page.inner_text("dialog")
    page.keyboard.press("ArrowRight")
    assert "Picture 3" in page.inner_text("dialog")
    assert page.get_attribute("dialog img", "src").endswith(page.get_attribute(".option img >> nth=2", "src"))
    page.keyboard.press("Escape")
    assert not page.is_visible("dialog")
    page.click("[aria-label='Enlarge picture 1']")
    page.keyboard.press("2")
    ready(page, 2)
    assert choices(folder) == [1]


def test_browser_votes_survive_a_kill(folder: Path, serve: Callable[..., Server], tab: Callable[..., Any]) -> None:
    server = serve()
    page = tab(server)
    for number in (2, 3, 4):
        page.keyboard.press("2")
        ready(page, number)
    trial = page.input_value("[name=trial]")
    assert server.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    assert choices(folder) == [1, 1, 1]
    again = serve("--port", server.address.rstrip("/").rpartition(":")[2])
    assert again.address == server.address
    page.reload()
    ready(page, 4)
    assert page.input_value("[name=trial]") == trial
    page.keyboard.press("1")
    ready(page, 5)
    assert choices(folder) == [1, 1, 1, 0]


def test_server_at_all_addresses_says_two_that_open(serve: Callable[..., Server]) -> None:
    server = serve("--host", "0.0.0.0")
    assert server.address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(server.address, timeout=10) as answer:
        assert answer.status == 200
    port = server.address.rpartition(":")[2]
    assert server.process.stdout is not None
    assert server.process.stdout.readline() == f"http://{socket.gethostname()}:{port}  for others\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_stops_with_one_line(folder: Path, serve: Callable[..., Server], number: int) -> None:
    code, out, err = serve().stop(number)
    assert (code, err) == (0, "")
    assert out == f"gpgan: stopped; 0 answers in {folder / 'votes.sqlite'}\n"


# ------------------------------------------------------------------------------------------------------- statistics


def counts_with(total: int, squares: int, items: int) -> list[int]:
    """Votes an item, six at most, that have this sum and this sum of squares."""
    counts = [total // items + (k < total % items) for k in range(items)]
    while (missing := squares - sum(count * count for count in counts)) > 0:
        # One vote moved from a to b adds 2 (b - a) + 2: as much as is missing, and no more.
        few, many = sorted(set(counts) - {0}), sorted(set(counts) - {6})
        moves = [(b - a, a, b) for a in few for b in many if b >= a and 2 * (b - a) + 2 <= missing]
        _, a, b = max(move for move in moves if move[0] or counts.count(move[1]) > 1)
        counts[counts.index(a)] -= 1
        counts[counts.index(b)] += 1
    return counts


def test_results_are_the_paper_s_table() -> None:
    """500 images, of each method as many votes, as spread over the images, as Table 2 says."""
    table = {
        "PB": (527, 1.054, 1.065),
        "MPB": (735, 1.470, 1.173),
        "MSB": (770, 1.540, 1.271),
        "GP-GAN": (947, 1.894, 1.311),
    }
    rng = np.random.default_rng(0)
    ballots = []
    for method, (total, average, std) in table.items():
        squares = round(std * std * 499 + total * average)
        squares += (squares - total) % 2  # both are odd or both even
        others = [name for name in table if name != method]
        counts = counts_with(total, squares, 500)
        # Against each other, so that every image has a vote.
        counts.sort(reverse=method in ("MPB", "GP-GAN"))
        for item, count in enumerate(counts):
            for k in range(count):
                shown = (method, *rng.permutation(others)[:2])
                ballots.append(Ballot(f"rater{(item + k) % 97}", str(item), tuple(map(str, shown)), method))
    found = results(ballots)
    assert (found.votes, found.items, found.raters, found.skips) == (2979, 500, 97, 0)
    assert [one.method for one in found.methods] == ["GP-GAN", "MSB", "MPB", "PB"]
    lines = found.table().splitlines()
    for one, line in zip(found.methods, lines[2:], strict=False):
        total, average, std = table[one.method]
        assert (one.total_votes, round(one.average_votes, 3)) == (total, average)
        assert one.std == pytest.approx(std, abs=1e-3)
        assert one.average_interval is not None
        # The mean of 500 is all but normal.
        half = 1.96 * std / math.sqrt(500)
        np.testing.assert_allclose(one.average_interval, (average - half, average + half), atol=0.02)
        assert re.match(rf"{one.method} +{total} +{average:.3f} ", line)
    assert sum(one.shown for one in found.methods) == 3 * 2979


def test_wilson_interval_of_few_degrees_of_freedom() -> None:
    # Student's t of 0.975: 2.262157 for 9, by any table.
    z = 2.262157
    low, high = study_statistics.wilson(0.3, 50, 0.95, 9)
    for bound in (low, high):  # where the score is z standard errors
        assert abs(0.3 - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 50), rel=1e-6)
    assert low < 0.3 < high


def test_wilson_interval_by_hand() -> None:
    # Newcombe 1998, Table I: 81 of 263, 15 of 148, 0 of 20, 29 of 29.
    for wins, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (29, 29, 0.8830, 1),
    ):
        found = study_statistics.wilson(wins / count, count, 0.95)
        np.testing.assert_allclose(found, (low, high), atol=5e-5)


def ballot(rater: str, item: str, won: bool | None) -> Ballot:
    return Ballot(rater, item, ("a", "b"), None if won is None else "a" if won else "b")


def test_results_by_hand() -> None:
    """Two raters, three items: a wins 1 1 / 1 0 / 0 0."""
    ballots = [ballot("r", "x", True), ballot("s", "x", True), ballot("r", "y", True), ballot("s", "y", False)]
    ballots += [ballot("r", "z", False), ballot("s", "z", False), ballot("s", "w", None)]
    found = results(ballots)
    a, b = sorted(found.methods, key=lambda one: one.method)
    assert (found.votes, found.skips, found.items, found.raters) == (6, 1, 3, 2)
    assert (a.total_votes, a.average_votes, a.std, a.shown, a.share) == (3, 1, 1, 6, 0.5)
    assert (b.total_votes, b.std, b.share) == (3, 1, 0.5)
    # Deviations are 1/2 in size. By item they sum to 1, 0, -1: 3/2 * 2 / 36. By rater to 1/2, -1/2: 2 * 1/2 / 36. Both
    # ways each stands alone: 6/5 * 6/4 / 36. Independent votes: 1/4 / 6.
    effect = (3 + 1 - 1.8) / 36 / (1 / 24)
    assert a.design_effect == b.design_effect == pytest.approx(effect)
    assert a.share_interval == study_statistics.wilson(0.5, 6 / effect, 0.95, 1)
    assert a.average_interval == (0, 2)


def test_results_know_of_clusters() -> None:
    """Ten items on which twenty raters agree are worth ten votes; the same votes of one per item are worth all."""
    agreed = [ballot(f"r{r}", f"i{i}", i < 5) for i in range(10) for r in range(20)]
    alone = [ballot(f"r{k}", f"i{k}", k < 100) for k in range(200)]
    found, independent = results(agreed).methods[0], results(alone).methods[0]
    assert found.design_effect == pytest.approx(20 * 10 / 9 - 200 / 199)  # the raters' sums are zero
    assert independent.design_effect == pytest.approx(200 / 199)
    assert found.share_interval is not None
    assert independent.share_interval is not None
    assert np.ptp(found.share_interval) > 3.5 * np.ptp(independent.share_interval)


def test_results_of_a_method_that_always_wins_know_of_clusters() -> None:
    """Its own votes tell no design effect, so the others' largest is taken."""
    agreed = [Ballot(f"r{r}", f"i{i}", ("b", "c"), "b" if i < 5 else "c") for i in range(10) for r in range(20)]
    found = {one.method: one for one in results([*agreed, *(ballot(f"r{r}", "i0", True) for r in range(5))]).methods}
    best = found["a"]
    assert (best.shown, best.share) == (5, 1)
    assert best.design_effect == max(found["b"].design_effect, found["c"].design_effect) > 10
    assert best.share_interval == study_statistics.wilson(1, 5 / best.design_effect, 0.95, 4)


def test_results_of_a_negative_variance_are_those_of_one_way() -> None:
    """Items 4/3 and raters 1/3 of independent votes' variance, both at once 7/4: their sum would be below 0."""
    places = zip("xxxyyx", "srssss", (0, 0, 1, 0, 0, 1), strict=True)
    found = results([ballot(rater, item, bool(won)) for item, rater, won in places])
    assert [one.design_effect for one in found.methods] == pytest.approx([4 / 3, 4 / 3])


@pytest.mark.parametrize(("items", "raters"), [(40, 15), (40, 5), (12, 30)])
def test_results_intervals_cover(items: int, raters: int) -> None:
    """95 % intervals of votes that depend on item and rater hold the true share about as often as they say."""
    rng = np.random.default_rng(5)
    hits = naive = 0
    runs = 150
    for _ in range(runs):
        item, rater = rng.normal(0, 1, items), rng.normal(0, 0.7, raters)
        won = item[:, None] + rater[None] + rng.normal(size=(items, raters)) > 0
        ballots = [ballot(str(r), str(i), bool(won[i, r])) for i in range(items) for r in range(raters)]
        one = results(ballots, resamples=100).methods[0]
        assert one.share is not None
        assert one.share_interval is not None
        hits += one.share_interval[0] <= 0.5 <= one.share_interval[1]
        low, high = study_statistics.wilson(one.share, one.shown, 0.95)
        naive += low <= 0.5 <= high
    assert hits / runs > 0.90
    assert naive / runs < 0.70  # what taking votes for independent would give


def test_results_of_nothing_and_little() -> None:
    assert results([]).methods == ()
    assert "0 votes by 0 raters on 0 items; 0 skips" in results([]).table()
    skipped = results([ballot("r", "x", None)])
    assert [(one.shown, one.share, one.share_interval) for one in skipped.methods] == [(0, None, None)] * 2
    one = results([ballot("r", "x", True)]).methods[0]
    assert (one.share, one.std, one.average_interval) == (1, None, None)
    assert one.share_interval == study_statistics.wilson(1, 1, 0.95)
    assert "1 vote by 1 rater on 1 item; 0 skips" in results([ballot("r", "x", True)]).table()


def test_table_warns_of_few_raters_and_items() -> None:
    for raters, items, said in ((10, 10, None), (9, 10, "10 raters the"), (10, 9, "10 items the")):
        table = results([ballot(f"r{r}", f"i{i}", r < i) for r in range(raters) for i in range(items)]).table()
        assert ("say little of others" in table) is (said is not None)
        assert said is None or f"With fewer than {said}" in table


def test_results_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(1)
    ballots = [ballot(f"r{r}", f"i{i}", bool(rng.random() < 0.6)) for i in range(12) for r in range(5)]
    shuffled = [ballots[k] for k in sorted(range(60), key=lambda k: (k % 12, k))]
    first, second = results(ballots), results(shuffled)
    assert first.methods[0].share_interval == pytest.approx(second.methods[0].share_interval)
    assert results(ballots) == first
    counts = Counter(b.item for b in ballots if b.chosen == first.methods[0].method)
    assert first.methods[0].std == pytest.approx(statistics.stdev(counts[f"i{i}"] for i in range(12)))


@pytest.mark.parametrize(
    ("votes", "options", "error", "message"),
    [
        ([ballot("r", "x", True)], {"confidence": 1.0}, ValueError, "confidence"),
        ([ballot("r", "x", True)], {"confidence": "0.9"}, TypeError, "confidence: expected a number, got str"),
        ([ballot("r", "x", True)], {"resamples": 10}, ValueError, "resamples"),
        ([ballot("r", "x", True)], {"seed": -1}, ValueError, "seed: expected 0 or more, got -1"),
        ([Ballot("r", "x", ("a", "a"), "a")], {}, ValueError, "votes: expected two different methods or more"),
        ([("r", "x")], {}, TypeError, "votes: expected a path or Ballots, got tuple"),
        ([Ballot("r", "x", ("a", "b"), "c")], {}, ValueError, "expected a choice among"),
    ],
)
def test_results_refuse(votes: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        results(votes, **options)


# ----------------------------------------------------------------------------------------------------- command line


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            command_line([str(argument) for argument in arguments])
        return Outcome(int(exit_.value.code or 0), *capfd.readouterr())

    return call


def test_command_prints_results(folder: Path, run: Callable[..., Outcome], tmp_path: Path) -> None:
    rater = Rater(create_app(folder))
    for choice in ("1", "2", "skip", "3"):
        rater.vote(choice)
    expected = results(folder / "votes.sqlite")
    text = run("study", folder, "--results", "--csv", tmp_path / "table.csv")
    assert (text.code, text.out.rstrip("\n"), text.err) == (0, expected.table(), "")
    assert "3 votes by 1 rater on 3 items; 1 skip" in text.out
    said = json.loads(run("study", folder, "--results", "--json", "--votes", folder / "votes.sqlite").out)
    assert said == json.loads(json.dumps(expected.as_dict()))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(row["method"], int(row["total_votes"])) for row in rows] == [
        (one.method, one.total_votes) for one in expected.methods
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--results"], "votes: no file at"),
        (["--json"], "--json: expected --results"),
        (["--csv", "x.csv"], "--csv: expected --results"),
        (["--results", "--method", "poisson"], "--method: expected none"),
        (["--results", "--show", "all"], "--show: expected none"),
        (["--results", "--trials", "60"], "--trials: expected none"),
        (["--results", "--host", "127.0.0.1"], "--host: expected none"),
        (["--results", "--port", "8000"], "--port: expected none"),
        (["--results", "--open"], "--open: expected none"),
        (["--show", "many"], "--show: expected a whole number or all, got 'many'"),
        (["--show", "9"], "show: expected at most 4"),
        (["--method", "poison"], "has no result of poison"),
        (["--host", "no.such.host.invalid"], "cannot listen at 'no.such.host.invalid'"),
    ],
)
def test_command_refuses(folder: Path, run: Callable[..., Outcome], arguments: list[str], said: str) -> None:
    outcome = run("study", folder, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert len(outcome.err.splitlines()) == 1
    assert said in outcome.err


def test_results_load_no_web_framework(folder: Path) -> None:
    make_study(folder)
    code = (
        f"import sys, gpgan; gpgan.study.results({os.fspath(folder / 'votes.sqlite')!r}); print('flask' in sys.modules)"
    )
    path = os.fspath(Path(gpgan.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=True
    )
    assert done.stdout == "False\n"
