"""Methods compared on pictures: what is found, computed, gone on with, and how it is shown."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

import gpgan
from gpgan import evaluation
from gpgan.cli import app
from gpgan.evaluation import methods as methods_module
from gpgan.evaluation import runner

HEIGHT, WIDTH = 48, 64
#: Two that need no torch and take milliseconds.
QUICK = ("copy_paste", "gpgan-no-generator")


def photo(name: str = "chelsea", size: tuple[int, int] = (HEIGHT, WIDTH), *, light: float = 1.0) -> Image.Image:
    picture = Image.fromarray(getattr(skimage.data, name)()).resize(size[::-1], Image.Resampling.BOX)
    return picture.point(lambda value: int(min(255, value * light)))


def drawn_mask(size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.hypot((y / size[0] - 0.5) / 0.32, (x / size[1] - 0.45) / 0.3) < 1
    return Image.fromarray(inside.astype(np.uint8) * 255)


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Frames of one camera under five lights, in ``frames``, and two masks, in ``masks``."""
    for name in ("frames", "masks"):
        (tmp_path / name).mkdir()
    for i in range(5):
        photo(light=0.5 + 0.15 * i).save(tmp_path / "frames" / f"{i}.png")
    drawn_mask().save(tmp_path / "masks" / "a.png")
    Image.fromarray(np.asarray(drawn_mask())[::-1, ::-1]).save(tmp_path / "masks" / "b.png")
    return tmp_path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A CSV file of three items: with a truth, with an offset, and a source with alpha."""
    photo("chelsea").save(tmp_path / "s.png")
    photo("coffee").save(tmp_path / "t.png")
    drawn_mask().save(tmp_path / "m.png")
    photo("rocket", (24, 30)).save(tmp_path / "small.png")
    drawn_mask((24, 30)).save(tmp_path / "small_m.png")
    cutout = photo("astronaut", (30, 24)).convert("RGBA")
    cutout.putalpha(drawn_mask((30, 24)))
    cutout.save(tmp_path / "cutout.png")
    rows = [
        "source,target,mask,truth,name,top,left", "s.png,t.png,m.png,t.png,whole,,",
        "small.png,t.png,small_m.png,,moved,-5,40", "cutout.png,t.png,,,cutout,10,3",
    ]  # fmt: skip
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


def evaluate(root: Any, run: Path, **options: Any) -> evaluation.Results:
    return evaluation.evaluate(root, run, **{"methods": QUICK, "realism": None, "thumbnail": 32} | options)


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """``gpgan evaluate`` with these arguments in this process."""
    limits = gpgan.max_pixels(), Image.MAX_IMAGE_PIXELS

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            app(["evaluate", *map(str, arguments)])
        return Outcome(int(exit_.value.code or 0), *capfd.readouterr())

    yield call
    gpgan.set_max_pixels(limits[0])
    Image.MAX_IMAGE_PIXELS = limits[1]


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1), outcome.err
    for word in words:
        assert word in outcome.err


# ------------------------------------------------------------------------------------------------------------- items


def test_draw_pairs_are_the_published_ones(tmp_path: Path) -> None:
    """The draws behind the figures in the documentation: two of 40 frames at a time, by seed 0, and masks in turn."""
    for folder, names in (("frames", [f"{i:02d}.jpg" for i in range(40)]), ("masks", ["x.png", "y.png", "z.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    (tmp_path / "frames" / "notes.txt").touch()
    (tmp_path / "frames" / ".05.jpg").touch()
    items = evaluation.draw_pairs(tmp_path / "frames", masks=tmp_path / "masks", pairs=60, seed=0)
    drawn = [(int(item.source.stem), int(item.target.stem)) for item in items]
    assert drawn[:8] == [(33, 25), (12, 10), (0, 2), (31, 25), (19, 24), (28, 25), (37, 21), (26, 31)]
    rng = np.random.default_rng(0)
    assert drawn == [tuple(rng.choice(40, 2, replace=False)) for _ in range(60)]
    assert [item.mask.stem for item in items if item.mask] == ["x", "y", "z"] * 20
    assert all(item.truth == item.target for item in items)
    assert len({item.name for item in items}) == 60
    assert evaluation.draw_pairs(tmp_path / "frames", masks=tmp_path / "masks", pairs=7) == items[:7]
    assert evaluation.draw_pairs(tmp_path / "frames", masks=tmp_path / "masks", pairs=7, seed=1) != items[:7]


def test_draw_pairs_of_cameras_take_their_own_masks(tmp_path: Path) -> None:
    for folder, count in (("cams/a", 5), ("cams/b", 3), ("cams/single", 1), ("cams/unmasked", 4), ("masks/a", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            (tmp_path / folder / f"{i}.png").touch()
    (tmp_path / "masks" / "b").mkdir()
    (tmp_path / "masks" / "b" / "only.png").touch()
    said: list[str] = []
    items = evaluation.draw_pairs(tmp_path / "cams", masks=tmp_path / "masks", pairs=30, note=said.append)
    for item in items:
        assert item.mask is not None
        assert item.source.parent == item.target.parent
        assert item.mask.parent.name == item.source.parent.name
        assert item.source != item.target
    assert {item.source.parent.name for item in items} == {"a", "b"}
    of_a = [item.mask.stem for item in items if item.mask and item.source.parent.name == "a"]
    assert of_a == [str(i % 2) for i in range(len(of_a))]
    assert len(said) == 1
    assert "single, unmasked" in said[0]


def test_draw_pairs_without_masks_use_the_centred_square(camera: Path) -> None:
    [item] = evaluation.draw_pairs(camera / "frames", pairs=1)
    mask = evaluation.read_item(item).mask
    assert mask is not None
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 35, 16, 47)
    assert (mask > 0).sum() == HEIGHT // 2 * WIDTH // 2


def test_find_items_of_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / "items" / name
        folder.mkdir(parents=True)
        photo().save(folder / "source.jpg")
        photo("coffee").save(folder / "target.png")
    drawn_mask().save(tmp_path / "items" / "one" / "mask.png")
    photo("coffee").save(tmp_path / "items" / "one" / "truth.png")
    (tmp_path / "items" / ".hidden").mkdir()
    one, two = evaluation.find_items(tmp_path / "items")
    assert (one.name, set(one.files)) == ("one", {"source", "target", "mask", "truth"})
    assert (two.name, set(two.files)) == ("two", {"source", "target"})
    assert evaluation.find_items(tmp_path / "items" / "one") == [one]
    photo().save(tmp_path / "items" / "two" / "source.png")
    with pytest.raises(ValueError, match=r"two': expected one image source\.\*, got 'source\.jpg', 'source\.png'"):
        evaluation.find_items(tmp_path / "items")


def test_find_items_samples_lists(listed: Path) -> None:
    items = evaluation.find_items(listed)
    assert [item.name for item in items] == ["whole", "moved", "cutout"]
    assert [item.offset for item in items] == [(0, 0), (-5, 40), (10, 3)]
    few = evaluation.find_items(listed, pairs=2, seed=3)
    assert len(few) == 2
    assert set(few) < set(items)
    assert few == evaluation.find_items(listed, pairs=2, seed=3)
    assert evaluation.find_items(listed, pairs=50) == items


def test_read_csv_makes_names_safe_and_different(listed: Path) -> None:
    names = ["../../etc", "a b", "a/b", "A-B", "", "é", "." * 300, "x" * 300]
    with listed.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["Name", "Target", "SOURCE", "mask"])
        writer.writerows([name, "t.png", "s.png", "m.png"] for name in names)
    items = evaluation.read_csv(listed)
    assert len(items) == len(names)
    assert len({item.name.lower() for item in items}) == len(items)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,104}", item.name) for item in items)
    assert items[0].title == "../../etc"


GOOD = "source,target,mask\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["line 1", "nothing"]),
        ("source,mask\ns.png,m.png\n", ["line 1", "source, mask"]),
        ("source,target,ofset\ns.png,t.png,3\n", ["line 1", "ofset"]),
        ("source,target,source\ns.png,t.png,s.png\n", ["line 1"]),
        (GOOD, ["none"]),
        (GOOD + "s.png,t.png\n", ["line 2", "3 cells", "got 2"]),
        (GOOD + "\ns.png,,m.png\n", ["line 3", "target"]),
        (GOOD + "s.png,no.png,m.png\n", ["line 2", "'no.png'", "target"]),
        (GOOD + "s.png,t.png,s\0.png\n", ["line 2", "mask"]),
        ("source,target,mask,top\ns.png,t.png,m.png,1.5\n", ["line 2", "top", "1.5"]),
        ("source,target,mask,left\ns.png,t.png,m.png,9999999999\n", ["line 2", "left"]),
        (GOOD + '"s.png,t.png,m.png\n', ["CSV"]),
        (GOOD + f"s.png,t.png,{'x' * 200_000}\n", ["CSV"]),
        (GOOD + "\udcff,t.png,m.png\n", ["CSV"]),
    ],
)
def test_bad_csv_is_one_line(
    command: Callable[..., Outcome], listed: Path, tmp_path: Path, text: str, words: list[str]
) -> None:
    listed.write_bytes(text.encode(errors="surrogateescape"))
    if "\0" in text and sys.version_info < (3, 11):
        words = ["CSV"]  # its csv module refuses the line itself
    assert_refused(command(listed, "-o", tmp_path / "run"), str(listed), *words)
    assert not (tmp_path / "run").exists()


def test_bad_roots_are_one_line(command: Callable[..., Outcome], camera: Path, listed: Path) -> None:
    run = camera / "run"
    (camera / "empty").mkdir()
    assert_refused(command(camera / "none", "-o", run), "ROOT", "none")
    assert_refused(command(camera / "empty", "-o", run), "ROOT", "frames of a fixed camera")
    assert_refused(command(camera / "frames", "-o", run, "--masks", camera / "none"), "masks", "none")
    assert_refused(command(camera / "frames", "-o", run, "--masks", camera / "empty"), "masks")
    assert_refused(command(listed, "-o", run, "--masks", camera / "masks"), "masks: expected none")
    assert_refused(command(camera / "frames" / "0.png", "-o", run), "CSV")
    assert_refused(command(listed, "-o", run, "--pairs", 0), "--pairs")
    assert_refused(command(listed, "-o", run, "--thumbnail", 3), "--thumbnail")
    assert_refused(command(listed, "-o", run, "--realism", camera / "none.pt"), "realism", "none.pt")
    assert_refused(command(listed, "-o", listed.parent), "run: expected a new or empty folder")
    assert_refused(command(listed, "-o", listed), "run: expected a folder at")
    assert not run.exists()


# ------------------------------------------------------------------------------------------------------------ methods


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "expected one of copy_paste"),
        ("gpgan:insets=3", "gpgan: expected as option one of .*'insets'"),
        ("gpgan-no-generator:generator=none", "got 'generator'"),
        ("gpgan-no-generator:inset=deep", "inset: expected int"),
        ("gpgan-no-generator:inset", "option=value"),
        ("gpgan-no-generator:inset=1,inset=2", "each once"),
        ("gpgan:generator=/no/such.pt", "generator: .*no/such.pt"),
        ("opencv-normal:flags=1", "as option none"),
        ("=gpgan", r"\[LABEL=\]NAME"),
        ("a=", r"\[LABEL=\]NAME"),
        ("a/b=gpgan", "letters, digits"),
        ("truth=gpgan", "none of .*truth"),
        ("", r"\[LABEL=\]NAME"),
    ],
)
def test_bad_methods_are_one_line(
    command: Callable[..., Outcome], listed: Path, tmp_path: Path, text: str, words: str
) -> None:
    outcome = command(listed, "-o", tmp_path / "run", "--method", text)
    assert_refused(outcome)
    assert re.search(words, outcome.err), outcome.err
    assert not (tmp_path / "run").exists()


def test_methods_with_one_label_are_refused() -> None:
    with pytest.raises(ValueError, match="'GPGAN' twice"):
        methods_module.as_methods(["gpgan", "GPGAN=gpgan-paper"])


def test_method_options_and_labels() -> None:
    method = evaluation.parse_method("gpgan-no-generator:inset=3,membrane=false,color_weight=0.5,equation=screened")
    assert method.options == {"inset": 3, "membrane": False, "color_weight": 0.5, "equation": "screened"}
    assert method.label == "gpgan-no-generator-inset-3-membrane-False-color-weight-0.5-equat"
    assert evaluation.parse_method("inset3=gpgan-no-generator:inset=3").label == "inset3"
    assert evaluation.method("copy-paste").name == "copy_paste"


def test_methods_are_the_library_s(camera: Path) -> None:
    photo("coffee").save(camera / "t.png")
    item = evaluation.Item("x", camera / "frames" / "4.png", camera / "t.png", camera / "masks" / "a.png")
    inputs = evaluation.read_item(item)
    source, target, mask = photo(light=1.1), photo("coffee"), drawn_mask()
    for name, options in {
        "gpgan": {}, "gpgan-paper": {"mode": "paper"}, "gpgan-released": {"mode": "released"},
        "gpgan-no-generator": {"generator": None},
    }.items():  # fmt: skip
        wanted = np.asarray(gpgan.blend(source, target, mask, **options))
        np.testing.assert_array_equal(evaluation.method(name)(inputs), wanted)
    wanted = gpgan.blend(source, target, mask, generator=None, inset=4)
    np.testing.assert_array_equal(evaluation.method("gpgan-no-generator", inset=4)(inputs), wanted)
    for name in ("copy_paste", "alpha", "multiband", "poisson", "modified_poisson", "multi_spline"):
        function = getattr(gpgan.baselines, name)
        np.testing.assert_array_equal(evaluation.method(name)(inputs), np.asarray(function(source, target, mask)))
    for mode in ("mixed", "monochrome"):
        wanted = np.asarray(gpgan.baselines.poisson(source, target, mask, mode=mode))
        np.testing.assert_array_equal(evaluation.method(f"poisson-{mode}")(inputs), wanted)


def test_method_opencv_is_opencv_s(camera: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[9:30, 14:41] = 255
    source, target = np.asarray(photo()), np.asarray(photo("coffee"))
    inputs = evaluation.Inputs(source, target, mask)
    for name in ("normal", "mixed", "monochrome"):
        flag = cv2.MONOCHROME_TRANSFER if name == "monochrome" else getattr(cv2, f"{name.upper()}_CLONE")
        middle = (14 + 27 // 2, 9 + 21 // 2)
        wanted = cv2.seamlessClone(source[..., ::-1].copy(), target[..., ::-1].copy(), mask.copy(), middle, flag)
        np.testing.assert_array_equal(evaluation.method(f"opencv-{name}")(inputs), wanted[..., ::-1])
        result = evaluation.method("seamless_clone", flags=name)(inputs).astype(int)
        outside = mask == 0
        np.testing.assert_array_equal(result[outside], target[outside])
        assert np.abs(result - wanted[..., ::-1])[~outside].mean() < 8 < np.abs(result - target)[~outside].mean()
    assert (mask == 255).sum() == 21 * 27


@pytest.mark.parametrize("edge", [np.s_[:24, 10:30], np.s_[20:, 10:30], np.s_[9:30, :25], np.s_[9:30, 40:]])
@pytest.mark.parametrize("name", ["opencv-normal", "seamless_clone"])
def test_methods_clone_in_place_at_the_border(name: str, edge: Any) -> None:
    """A picture cloned into itself stays what it is; a pixel further it does not."""
    if name.startswith("opencv"):
        pytest.importorskip("cv2")
    picture, mask = np.asarray(photo()), np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[edge] = 255
    result = evaluation.method(name)(evaluation.Inputs(picture, picture.copy(), mask))
    assert np.abs(result.astype(int) - picture).max() <= 2


def test_methods_place_small_sources(listed: Path) -> None:
    """What functions of three images get is what gpgan and the baselines make of an offset and an alpha channel."""
    for item in evaluation.find_items(listed):
        inputs = evaluation.read_item(item)
        source, target, mask = inputs.framed
        assert source.shape == target.shape == (*mask.shape, 3)
        wanted = gpgan.baselines.copy_paste(inputs.source, inputs.target, inputs.mask, offset=inputs.offset)
        np.testing.assert_array_equal(inputs.composite, wanted)
        np.testing.assert_array_equal(evaluation.method("copy_paste")(inputs), wanted)
    # Beside the cutout its own colours go on, and not what lies under alpha 0.
    assert np.abs(source[2, 2].astype(int)).sum() > 0


def test_method_identity_is_of_a_file_s_content(tmp_path: Path) -> None:
    shipped = Path(gpgan.__file__).parent / "weights" / "default.pt"
    shutil.copy(shipped, tmp_path / "mine.pt")
    mine = evaluation.method("gpgan", generator=str(tmp_path / "mine.pt"))
    assert mine.label == "gpgan-generator-mine"
    assert mine.identity() == evaluation.method("gpgan", generator="default").identity()
    (tmp_path / "mine.pt").write_bytes(b"another")
    assert evaluation.method("gpgan", generator=tmp_path / "mine.pt").identity() != mine.identity()


def test_registered_version_is_part_of_it(registered: Callable[..., None], listed: Path, tmp_path: Path) -> None:
    [item] = evaluation.find_items(listed)[:1]
    for version, computed in (("1", 1), ("1", 0), ("2", 1)):
        registered("mine", lambda source, target, mask: target, version=version)
        assert evaluate([item], tmp_path / "run", methods=["mine"]).computed == computed


def test_register_takes_options_of_any_name(registered: Callable[..., None], listed: Path, tmp_path: Path) -> None:
    def shaded(source: Any, target: Any, mask: Any, /, **options: float) -> Any:
        return np.full_like(target, round(sum(options.values())))

    registered("shaded", shaded)
    [item] = evaluation.find_items(listed)[:1]
    evaluate([item], tmp_path / "run", methods=["shaded:light=40,shade=2"])
    assert (pixels(tmp_path / "run" / "items" / "whole" / "shaded-light-40-shade-2.png") == 42).all()


def test_method_objects_are_told_apart(registered: Callable[..., None], listed: Path, tmp_path: Path) -> None:
    registered("filled", lambda source, target, mask, *, by, at=(0, 0): np.full_like(target, by()))
    [item] = evaluation.find_items(listed)[:1]
    made = [evaluation.method("filled", by=by) for by in (lambda: 7, lambda: 9)]
    assert [entry.label for entry in made] == ["filled-by-lambda"] * 2
    assert evaluation.method("filled", by=Brightness()).label == "filled-by-Brightness"
    for entry, computed, value in ((made[0], 1, 7), (made[1], 1, 9), (made[1], 0, 9)):
        assert evaluate([item], tmp_path / "run", methods=[entry]).computed == computed
        assert (pixels(tmp_path / "run" / "items" / "whole" / "filled-by-lambda.png") == value).all()
    places = [evaluation.method("filled", at=at).identity() for at in ((1, 2), [1, 2], (1, 3))]
    assert places[0] == places[1] != places[2]


def test_register_refuses_what_it_cannot_use(registered: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="comes with gpgan"):
        registered("copy-paste", lambda source, target, mask: target)
    with pytest.raises(ValueError, match="letters, digits"):
        registered("a b", lambda source, target, mask: target)
    with pytest.raises(TypeError, match="callable"):
        registered("mine", 3)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (np.zeros((3, 3, 3), np.uint8), "target's shape"),
        (np.zeros((HEIGHT, WIDTH, 3), np.int64), "uint8"),
        (np.full((HEIGHT, WIDTH, 3), 200.0), r"\[0, 1\]"),
        (np.full((HEIGHT, WIDTH, 3), np.nan), r"\[0, 1\]"),
        (None, "target's shape"),
    ],
)
def test_results_that_are_no_image_fail_alone(
    registered: Callable[..., None], listed: Path, tmp_path: Path, result: Any, words: str
) -> None:
    registered("odd", lambda source, target, mask: result)
    results = evaluate(listed, tmp_path / "run", methods=["copy_paste", "odd"])
    assert results.failed == 3
    assert all(re.search(words, record["methods"]["odd"]["error"]) for record in results.items)
    assert results.summary["copy_paste"]["items"] == 3


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_evaluate_writes_the_run(registered: Callable[..., None], listed: Path, tmp_path: Path) -> None:
    def half(source: Any, target: Any, mask: Any, *, share: float = 0.5) -> Any:
        source[:], mask[:] = 0, 0  # what it is given is its own
        return target * share / 255

    registered("half", half)
    results = evaluate(listed, tmp_path / "run", methods=[*QUICK, "half", "dark=half:share=0.25"])
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir() if path.name[0] != "."} == {
        "evaluation.json", "items", "report.html", "scores.csv", "scores.json", "table.csv",
        "table.txt",
    }  # fmt: skip
    assert (results.failed, results.computed) == (0, 12)
    folder = run / "items" / "whole"
    assert {path.name for path in folder.iterdir()} == {
        "composite.png", "mask.png", "truth.png", "item.json", "copy_paste.png", "gpgan-no-generator.png",
        "half.png", "dark.png",
    }  # fmt: skip
    target = np.asarray(photo("coffee"))
    np.testing.assert_array_equal(pixels(folder / "truth.png"), target)
    np.testing.assert_array_equal(pixels(folder / "mask.png"), np.asarray(drawn_mask()))
    np.testing.assert_array_equal(pixels(folder / "composite.png"), pixels(folder / "copy_paste.png"))
    wanted = gpgan.blend(photo(), photo("coffee"), drawn_mask(), generator=None)
    np.testing.assert_array_equal(pixels(folder / "gpgan-no-generator.png"), wanted)
    np.testing.assert_array_equal(pixels(folder / "dark.png"), np.rint(target * 0.25))
    assert not (run / "items" / "cutout" / "truth.png").exists()
    said = json.loads((folder / "item.json").read_text())["methods"]["gpgan-no-generator"]
    measured = gpgan.metrics.measure(
        np.asarray(wanted), source=photo(), target=photo("coffee"), mask=drawn_mask(), truth=photo("coffee")
    )
    assert said["scores"]["psnr_core"] == pytest.approx(measured["psnr_core"])
    assert said["scores"]["seam_visibility"] == pytest.approx(measured["seam_visibility"])
    assert said["seconds"] > 0
    settings = json.loads((run / "evaluation.json").read_text())
    assert settings["items"] == ["whole", "moved", "cutout"]
    assert [method["label"] for method in settings["methods"]] == [*QUICK, "half", "dark"]


def test_seconds_are_the_method_s_alone(registered: Callable[..., None], listed: Path, tmp_path: Path) -> None:
    calls = []

    def loads(source: Any, target: Any, mask: Any) -> Any:
        if not calls:
            time.sleep(0.5)
        calls.append(target.shape)
        return target

    registered("loads", loads)
    results = evaluate(listed, tmp_path / "run", methods=["loads"])
    assert all(record["methods"]["loads"]["seconds"] < 0.4 for record in results.items)
    slow = evaluation.Method("slow", "slow", lambda given: given.target, prepare=lambda given: time.sleep(0.2) or given)
    results = evaluate(listed, tmp_path / "run", methods=[slow])
    assert all(record["methods"]["slow"]["seconds"] < 0.1 for record in results.items)
    machine = json.loads((tmp_path / "run" / "evaluation.json").read_text())["machine"]
    assert machine.keys() == {"processor", "cores", "threads", "opencv_threads"}
    assert machine["cores"] == os.cpu_count()
    assert machine["threads"] >= 1


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_tables_agree(listed: Path, tmp_path: Path) -> None:
    results = evaluate(listed, tmp_path / "run")
    scores = strict_json((tmp_path / "run" / "scores.json").read_text())
    assert scores == strict_json(json.dumps(results.to_dict()))
    with (tmp_path / "run" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    with (tmp_path / "run" / "table.csv").open(newline="") as file:
        means = {row["method"]: row for row in csv.DictReader(file)}
    assert list(means) == list(QUICK)
    lines = (tmp_path / "run" / "table.txt").read_text().splitlines()
    assert lines == results.table().splitlines()
    assert lines[0].split()[:4] == ["means", "over", "3", "items"]
    headers = lines[0].split()[4:]
    assert len(headers) == len(scores["metrics"])
    for number, label in enumerate(QUICK, 1):
        cells = lines[number].split()
        assert cells[0] == label
        for metric, shown in zip(scores["metrics"], cells[1:], strict=True):
            column = [float(row[metric]) for row in rows if row["method"] == label and row[metric]]
            summary = scores["summary"][label]["metrics"][metric]
            assert summary["mean"] == pytest.approx(np.mean(column))
            assert summary["median"] == pytest.approx(np.median(column))
            assert float(means[label][metric]) == summary["mean"]
            # Only one of the items has a truth.
            assert summary["count"] == len(column) == (1 if re.search("psnr|mse|ssim", metric) else 3)
            assert float(shown) == pytest.approx(summary["mean"], abs=0.051)
    assert {row["item"] for row in rows} == {"whole", "moved", "cutout"}
    assert rows[0]["source"].endswith("s.png")
    # Copy-and-paste leaves the rest as it is: an infinite PSNR, which no mean could bear.
    assert scores["summary"]["copy_paste"]["metrics"]["psnr_outside"]["mean"] == gpgan.metrics.PSNR_CAP == 99
    assert any("99 dB" in note for note in scores["notes"])


def test_gain_is_over_no_generator(camera: Path, tmp_path: Path) -> None:
    results = evaluate(
        camera / "frames", tmp_path / "run", masks=camera / "masks", pairs=6, methods=[*QUICK, "paper=gpgan-paper"]
    )
    core = {
        label: np.array([record["methods"][label]["scores"]["psnr_core"] for record in results.items])
        for label in results.summary
    }
    for label in ("copy_paste", "paper"):
        gain = core[label] - core["gpgan-no-generator"]
        said = results.summary[label]["gain"]
        assert said["mean"] == pytest.approx(gain.mean())
        assert said["worst"] == pytest.approx(gain.min())
        assert said["losing"] == pytest.approx(np.mean(gain < 0))
    assert "its gradients under the mask" not in results.table()
    assert re.search(r"core PSNR over gpgan-no-generator +gain +worst +losing\ncopy_paste", results.table())


def test_table_says_who_sees_the_truth(camera: Path, listed: Path, tmp_path: Path) -> None:
    methods = ["poisson", "mixed=poisson-mixed"]
    said = "the truth is the target itself, and mixed used its gradients under the mask"
    assert said in evaluate(camera / "frames", tmp_path / "run", pairs=1, methods=methods).notes
    items = [item for item in evaluation.find_items(listed) if item.truth is None]
    assert said not in evaluate(items, tmp_path / "other", methods=methods).notes


def mtimes(run: Path) -> dict[str, int]:
    return {os.fspath(path.relative_to(run)): path.stat().st_mtime_ns for path in run.glob("items/*/*")}


def test_evaluate_again_computes_nothing(listed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "items").mkdir(parents=True)  # as a kill in its first moment leaves it
    first = evaluate(listed, run)
    before = mtimes(run)
    again = evaluate(listed, run)
    assert (first.computed, again.computed) == (6, 0)
    assert mtimes(run) == before
    assert again.summary == first.summary


def test_evaluate_again_adds_what_is_missing(listed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluate(listed, run)
    before = mtimes(run)
    added = evaluate(listed, run, methods=[*QUICK, "deep=gpgan-no-generator:inset=4"])
    assert added.computed == 3
    after = mtimes(run)
    assert all(after[name] == before[name] for name in before if not name.endswith("item.json"))
    # The same label with other options is another method.
    assert evaluate(listed, run, methods=["deep=gpgan-no-generator:inset=5"]).computed == 3
    assert evaluate(listed, run, methods=["deep=gpgan-no-generator:inset=5"]).computed == 0
    # What was not asked for is still there, whatever is computed again beside it.
    assert evaluate(listed, run).computed == 0
    assert evaluate(listed, run, redo=True).computed == 6
    assert evaluate(listed, run, methods=["deep=gpgan-no-generator:inset=5"]).computed == 0


def test_evaluate_again_sees_what_has_changed(listed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluate(listed, run)
    photo("coffee", light=0.9).save(tmp_path / "s.png")
    results = evaluate(listed, run)
    assert results.computed == 2
    np.testing.assert_array_equal(
        pixels(run / "items" / "whole" / "gpgan-no-generator.png"),
        gpgan.blend(photo("coffee", light=0.9), photo("coffee"), drawn_mask(), generator=None),
    )
    (run / "items" / "moved" / "copy_paste.png").unlink()
    whole = (run / "items" / "whole" / "copy_paste.png").read_bytes()
    (run / "items" / "whole" / "copy_paste.png").write_bytes(whole[:-40])
    (run / "items" / "cutout" / "item.json").write_text('{"format": 1, "meth')
    assert evaluate(listed, run).computed == 4
    assert (run / "items" / "whole" / "copy_paste.png").read_bytes() == whole
    (run / "items" / "moved" / "item.json").write_text('{"format": 1, "fingerprint": [], "methods": []}')
    (run / "items" / "whole" / "truth.png").unlink()
    assert evaluate(listed, run).computed == 2
    assert (run / "items" / "whole" / "truth.png").is_file()
    # Moved as a whole, with nothing changed.
    shutil.move(run, tmp_path / "elsewhere")
    assert evaluate(listed, tmp_path / "elsewhere").computed == 0


def test_evaluate_again_removes_results_of_other_files(listed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    [item] = evaluation.find_items(listed)[:1]
    evaluate([item], run)
    moved = evaluate([replace(item, offset=(3, 5))], run, methods=["copy_paste"])
    assert moved.computed == 1
    left = {"item.json", "composite.png", "mask.png", "truth.png", "copy_paste.png"}
    assert {path.name for path in (run / "items" / "whole").iterdir()} == left
    wanted = gpgan.baselines.copy_paste(photo(), photo("coffee"), drawn_mask(), offset=(3, 5))
    for name in ("copy_paste", "composite"):
        np.testing.assert_array_equal(pixels(run / "items" / "whole" / f"{name}.png"), wanted)
    # Of what no record tells, nobody knows what it is of.
    evaluate([item], run)
    (run / "items" / "whole" / "item.json").unlink()
    evaluate([item], run, methods=["copy_paste"])
    assert {path.name for path in (run / "items" / "whole").iterdir()} == left


def test_evaluate_keeps_results_while_files_are_away(listed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    items = evaluation.find_items(listed)
    evaluate(items, run)
    before = mtimes(run)
    for redo in (False, True):
        (tmp_path / "s.png").rename(tmp_path / "away.png")
        results = evaluate(items, run, redo=redo, methods=["copy_paste"])
        assert results.failed == 1
        assert results.items[0]["error"] == f"cannot read '{tmp_path / 's.png'}': No such file or directory"
        evaluate(items[:1], tmp_path / "new")
        assert "s.png" in json.loads((tmp_path / "new" / "items" / "whole" / "item.json").read_text())["error"]
        (tmp_path / "away.png").rename(tmp_path / "s.png")
        after = mtimes(run)
        assert all(after[name] == before[name] for name in before if name.startswith("items/whole/"))
    assert evaluate(items, run).computed == 0


def result_of(path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    record = json.loads(path.read_text())
    change(record["methods"]["copy_paste"])
    return json.dumps(record)


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        (lambda path: "[" * 200_000, 2),
        (lambda path: '{"format": 1, "fingerprint": "", "error": 3, "methods": {}}', 2),
        (lambda path: path.read_text().replace('"error": null', '"error": []', 1), 2),
        (lambda path: result_of(path, lambda said: said.pop("error")), 1),
        (lambda path: result_of(path, lambda said: said.update(error=["x"])), 1),
        (lambda path: result_of(path, lambda said: said.update(seconds=float("nan"))), 1),
        (lambda path: result_of(path, lambda said: said.update(seconds="1")), 1),
        (lambda path: result_of(path, lambda said: said.update(scores=["psnr"])), 1),
        (lambda path: result_of(path, lambda said: said["scores"].update(psnr="99")), 1),
        (lambda path: result_of(path, lambda said: said["scores"].update(psnr=10**400)), 1),
        (lambda path: result_of(path, lambda said: said.update(known={"x": 3})), 1),
        (lambda path: result_of(path, lambda said: said.pop("measured")), 1),
        (lambda path: json.dumps(json.loads(path.read_text()) | {"methods": {"copy_paste": 3}}), 2),
        (lambda path: json.dumps(json.loads(path.read_text()) | {"size": float("inf")}), 0),
    ],
)
def test_damaged_records_are_computed_again(
    listed: Path, tmp_path: Path, change: Callable[[Path], str], computed: int
) -> None:
    run = tmp_path / "run"
    items = evaluation.find_items(listed)[:1]
    first = evaluate(items, run)
    path = run / "items" / "whole" / "item.json"
    path.write_text(change(path))
    again = evaluate(items, run)
    assert (again.computed, again.failed) == (computed, 0)
    numbers = [
        {metric: value for metric, value in row["metrics"].items() if metric != "seconds"}
        for results in (first, again)
        for row in results.summary.values()
    ]
    assert numbers[:2] == numbers[2:]
    assert strict_json((run / "scores.json").read_text())["summary"].keys() == set(QUICK)


def test_folders_that_cannot_be_used_fail_alone(monkeypatch: pytest.MonkeyPatch, listed: Path, tmp_path: Path) -> None:
    items = tmp_path / "run" / "items"
    items.mkdir(parents=True)
    results = evaluate(listed, tmp_path / "run", methods=["copy_paste"])
    shutil.rmtree(items / "whole")
    (items / "whole").touch()
    (tmp_path / "mine").mkdir()
    photo().save(tmp_path / "mine" / "holiday.png")
    shutil.rmtree(items / "moved")
    (items / "moved").symlink_to(tmp_path / "mine")
    results = evaluate(listed, tmp_path / "run", methods=["copy_paste"])
    whole, moved, cutout = (record["error"] for record in results.items)
    assert whole == f"cannot use '{items / 'whole'}': Not a directory"
    assert moved == f"cannot use '{items / 'moved'}': expected a folder, got a link"
    assert cutout is None
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["holiday.png"]

    # Of a full disk the rest would say the same.
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "write_picture", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(listed, tmp_path / "other", methods=["copy_paste"])


SLOW = """
import sys, time
from pathlib import Path
from gpgan import evaluation

def slow(source, target, mask):
    time.sleep(float(sys.argv[4]))
    return target

evaluation.register("slow", slow)
results = evaluation.evaluate(
    sys.argv[1], sys.argv[3], masks=sys.argv[2], pairs=8, methods=["slow", "copy_paste"], realism=None, thumbnail=32)
print(results.computed)
"""


class Killed(BaseException):
    """As a kill: nothing is written after it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, stem: str) -> None:
    write = runner.write_picture

    def write_and_die(pixels: Any, path: Path) -> None:
        write(pixels, path)
        if path.stem == stem:
            raise Killed

    monkeypatch.setattr(runner, "write_picture", write_and_die)


def test_kill_before_the_record_leaves_no_picture_of_other_options(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    asked, other = ["x=alpha:sigma=1"], ["x=alpha:sigma=20"]
    evaluate(listed, run, methods=asked)
    before = {path: path.read_bytes() for path in run.glob("items/*/x.png")}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, "x")
        evaluate(listed, run, methods=other)
    assert any(path.read_bytes() != content for path, content in before.items())
    evaluate(listed, run, methods=asked)
    assert {path: path.read_bytes() for path in run.glob("items/*/x.png")} == before


def test_kill_before_the_record_leaves_no_picture_of_other_files(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, target = tmp_path / "run", tmp_path / "t.png"
    evaluate(listed, run)
    before = {path: path.read_bytes() for path in run.glob("items/*/*.png")}
    content = target.read_bytes()
    photo("rocket").save(target)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, "truth")
        evaluate(listed, run)
    target.write_bytes(content)
    evaluate(listed, run)
    assert {path: path.read_bytes() for path in run.glob("items/*/*.png")} == before


def test_killed_run_goes_on(camera: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", SLOW, str(camera / "frames"), str(camera / "masks"), str(run)]
    killed = subprocess.Popen([*command, "0.4"])
    try:
        until = time.monotonic() + 60
        while len(list(run.glob("items/*/slow.png"))) < 3:
            assert time.monotonic() < until
            assert killed.poll() is None
            time.sleep(0.02)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not (run / "scores.json").exists()
    for path in run.glob("items/*/*.png"):
        pixels(path)  # whole, each of them
    done = sum(
        entry["error"] is None
        for path in run.glob("items/*/item.json")
        for entry in json.loads(path.read_text())["methods"].values()
    )
    assert done >= 4
    # What a kill in the middle of writing leaves.
    first = next(run.glob("items/*"))
    (first / ".slow.png.0123abcd.part").write_bytes(b"half")
    (first / "item.json").unlink()
    gone_on = subprocess.run([*command, "0"], check=True, capture_output=True, text=True, timeout=60)
    assert 16 - done <= int(gone_on.stdout) <= 16 - done + 2
    assert len(strict_json((run / "scores.json").read_text())["items"]) == 8
    assert not list(run.glob("**/*.part"))


def test_interrupted_command_says_how_to_go_on(camera: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "gpgan", "evaluate", camera / "frames", "-o", run, "--pairs", "2000",
               "--realism", "none", "--method", "copy_paste"]  # fmt: skip
    stopped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(list(run.glob("items/*/item.json"))) < 2:  # the first is done
        assert time.monotonic() < until
        assert stopped.poll() is None
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, out) == (130, "")
    assert err.strip() == f"gpgan: stopped; the same command goes on in {run}"
    assert evaluate(camera / "frames", run, pairs=1, methods=["copy_paste"]).computed == 0


def test_two_processes_do_not_share_a_run(listed: Path, tmp_path: Path) -> None:
    import fcntl

    run = tmp_path / "run"
    evaluate(listed, run)
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing"):
            evaluate(listed, run)
    evaluate(listed, run)


def test_run_s_lock_leads_nowhere_else(command: Callable[..., Outcome], listed: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    arguments = (listed, "-o", tmp_path / "run", "--realism", "none", "--method", "copy_paste")
    assert_refused(command(*arguments), "run: cannot write in", "symbolic link")
    assert (tmp_path / "precious").read_text() == "precious"


def test_failures_do_not_lose_the_rest(
    registered: Callable[..., None], command: Callable[..., Outcome], listed: Path, tmp_path: Path
) -> None:
    def picky(source: Any, target: Any, mask: Any) -> Any:
        if mask.mean() < 20:
            raise RuntimeError("too small\n<script>alert(1)</script>")
        return target

    registered("picky", picky)
    (tmp_path / "m2.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with listed.open("a") as file:
        file.write("s.png,t.png,m2.png,,damaged,,\n")
    run = tmp_path / "run"
    arguments = (listed, "-o", run, "--realism", "none", "--method", "picky", "--method", "copy_paste")
    outcome = command(*arguments)
    assert outcome.code == 1
    results = strict_json((run / "scores.json").read_text())
    assert results["summary"]["picky"]["items"] == 1
    assert results["summary"]["picky"]["failed"] == 3
    assert results["summary"]["copy_paste"]["failed"] == 1
    assert "4 of 8 blends failed" in outcome.err
    assert "picky 3, copy_paste 1" in outcome.out
    assert outcome.out.splitlines()[0].endswith("failed")
    errors = {record["item"]: record["methods"]["picky"]["error"] for record in results["items"]}
    assert errors["whole"] is None
    assert errors["moved"] == "RuntimeError: too small <script>alert(1)</script>"
    assert "m2.png" in errors["damaged"]
    assert not (run / "items" / "moved" / "picky.png").exists()
    page = (run / "report.html").read_text()
    assert "too small &lt;script&gt;alert(1)" in page
    # Nobody is best where one row alone has all that could be made; an item that nobody could read takes no part in it.
    assert [row["complete"] for row in results["summary"].values()] == [False, True]
    assert 'class="best"' not in page
    page = evaluate(listed, tmp_path / "both", methods=QUICK).run.joinpath("report.html").read_text()
    assert 'class="best"' in page
    # A failure is tried again; once it is no longer one, so is the exit code.
    registered("picky", lambda source, target, mask: target)
    drawn_mask().save(tmp_path / "m2.png")
    again = command(*arguments)
    assert (again.code, again.err) == (0, "")
    assert strict_json((run / "scores.json").read_text())["summary"]["picky"]["items"] == 4


def test_items_that_do_not_fit_fail_alone(tmp_path: Path, listed: Path) -> None:
    photo(size=(10, 12)).save(tmp_path / "tiny.png")
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "black.png")
    rows = [
        "s.png,t.png,m.png,tiny.png,truth,,", "tiny.png,t.png,m.png,,mask,,", "s.png,t.png,,,none,,",
        "s.png,t.png,black.png,,black,,", "s.png,t.png,m.png,,away,500,0",
    ]  # fmt: skip
    with listed.open("a") as file:
        file.write("\n".join(rows) + "\n")
    results = evaluate(listed, tmp_path / "run", methods=["copy_paste"])
    errors = {record["item"]: record["error"] for record in results.items}
    assert [name for name, error in errors.items() if error is None] == ["whole", "moved", "cutout"]
    assert errors["truth"].startswith("truth: expected the target's size 48 x 64, got 10 x 12")
    assert errors["mask"].startswith("mask: expected the source's size 10 x 12")
    assert "no alpha channel" in errors["none"]
    assert errors["black"] == errors["away"] == "mask: expected values above 0 within the target, got none"


def test_command_prints_the_table_or_json(command: Callable[..., Outcome], camera: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = (
        camera / "frames", "--masks", camera / "masks", "--pairs", 3, "-o", run, "--realism", "none",
        "--method", "copy_paste", "--method", "dark=gpgan-no-generator:inset=0",
    )  # fmt: skip
    outcome = command(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (run / "table.txt").read_text()
    as_json = command(*arguments, "--json")
    assert (as_json.code, as_json.err) == (0, "")
    assert strict_json(as_json.out) == strict_json((run / "scores.json").read_text())
    few = command(*arguments[:3], "--pairs", 2, *arguments[5:])
    assert few.code == 0
    assert "1 more in" in few.err
    assert command(*arguments[:3], "--pairs", 2, *arguments[5:], "--quiet").err == ""
    assert "gpgan-no-generator" in command("--list").out.splitlines()


def test_progress_is_shown_on_request(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(listed, tmp_path / "run")
    assert capsys.readouterr().err == ""
    evaluate(listed, tmp_path / "run", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err  # blends, those that were there among them
    assert "3/3" in err  # items of the report


def test_command_respects_the_pixel_limit(command: Callable[..., Outcome], listed: Path, tmp_path: Path) -> None:
    outcome = command(
        listed, "-o", tmp_path / "run", "--realism", "none", "--method", "copy_paste", "--max-pixels", 1000
    )
    assert outcome.code == 1
    assert "more pixels than the limit of 1000" in (tmp_path / "run" / "scores.json").read_text()


class Brightness:
    """Stands in for the realism score."""

    def __init__(self, weights: Any = "default") -> None:
        if weights != "default" and not Path(weights).is_file():
            raise FileNotFoundError(f"weights: no {weights}")

    def __call__(self, image: Any) -> float:
        return float(np.mean(image) / 255)


def test_realism_is_measured_of_what_is_there(monkeypatch: pytest.MonkeyPatch, listed: Path, tmp_path: Path) -> None:
    run, said = tmp_path / "run", []
    evaluate(listed, run, methods=["copy_paste", "poisson"])
    monkeypatch.setattr(gpgan.metrics, "RealismScorer", Brightness, raising=False)
    results = evaluate(listed, run, methods=["copy_paste", "poisson"], realism="default")
    assert results.computed == 0
    for label in ("copy_paste", "poisson"):
        wanted = [pixels(run / "items" / name / f"{label}.png").mean() / 255 for name in ("whole", "moved", "cutout")]
        assert results.summary[label]["metrics"]["realism"]["mean"] == pytest.approx(np.mean(wanted))
    assert re.search(r"in the order of the paper's Table 1: Input 0\.\d+, PB 0\.\d+", results.table())
    assert "realism" not in evaluate(listed, run, realism=None, methods=["copy_paste"]).metrics
    # What was measured once is not lost by that.
    monkeypatch.setattr(Brightness, "__call__", None)
    assert evaluate(listed, run, methods=["copy_paste", "poisson"], realism="default").summary == results.summary
    assert not re.search('"known"', (run / "scores.json").read_text())

    def broken(weights: Any = "default") -> Any:
        raise FileNotFoundError("weights: none here")

    monkeypatch.setattr(gpgan.metrics, "RealismScorer", broken, raising=False)
    assert "realism" not in evaluate(listed, run, realism="default", note=said.append).metrics
    assert said == ["no realism score: weights: none here"]
    with pytest.raises(ValueError, match=r"realism: cannot use .*none here"):
        evaluate(listed, run, realism=listed)


# -------------------------------------------------------------------------------------------------------------- report


class Page(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script>"


@pytest.fixture
def hostile(camera: Path) -> Path:
    """Items whose names and files are not what they should be."""
    name = HOSTILE.replace("/", "∕")
    photo().save(camera / f"{name}.png")
    (camera / os.fsdecode(b"\xff\xfe.png")).write_bytes((camera / f"{name}.png").read_bytes())
    photo("coffee").save(camera / "t.png")
    with (camera / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([
            ["source", "target", "mask", "truth", "name"],
            [f"{name}.png", "t.png", "masks/a.png", "t.png", HOSTILE],
            [f"{name}.png", "t.png", "masks/b.png", "", ""],
            [f"{name}.png", "t.png", "t.png", "", "=1+1"],
        ])  # fmt: skip
    return camera / "pairs.csv"


def test_report_is_escaped_and_self_contained(hostile: Path, tmp_path: Path) -> None:
    results = evaluate(hostile, tmp_path / "run")
    assert (results.failed, len(results.items)) == (2, 3)
    page = Page((tmp_path / "run" / "report.html").read_text())
    assert HOSTILE in page.text
    assert {tag for tag, _ in page.tags} <= {
        "a", "article", "b", "body", "button", "dialog", "div", "figcaption", "figure", "h1", "h2", "h3", "head",
        "header", "html", "img", "input", "label", "li", "meta", "nav", "p", "script", "section", "span", "style",
        "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
    }  # fmt: skip
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    pictures = 0
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")]
        if "src" in attributes:
            assert str(attributes["src"]).startswith("data:image/webp;base64,")
            pictures += 1
        assert "href" not in attributes
    # In the list a composite, two results and one truth; side by side a mask besides; nothing of the damaged item.
    assert pictures == (3 + 1) + 3 + (4 + 1) + 4
    whole = (tmp_path / "run" / "report.html").read_text()
    assert not re.search(r"""(?:src|href|url|import)\s*[=(]\s*["']?\s*(?:https?:|//)""", whole)
    assert "default-src 'none'" in whole


def test_report_of_files_without_valid_names(camera: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted((camera / "frames").iterdir())):
        path.rename(path.with_name(os.fsdecode(b"\xff%d.png" % i)))
    results = evaluate(camera / "frames", tmp_path / "run", pairs=2)
    assert results.failed == 0
    strict_json((tmp_path / "run" / "scores.json").read_text())
    (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_report_outlines_the_mask(camera: Path, tmp_path: Path) -> None:
    import base64
    import io

    results = evaluate(camera / "frames", tmp_path / "run", masks=camera / "masks", pairs=1, thumbnail=WIDTH, grid=0)
    page = Page((tmp_path / "run" / "report.html").read_text())
    sources = [str(attributes["src"]) for tag, attributes in page.tags if tag == "img" and "src" in attributes]
    assert len(sources) == 4
    shown = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))).convert("RGB")
    plain = Image.open(io.BytesIO(base64.b64decode(sources[1].partition(",")[2]))).convert("RGB")
    difference = np.abs(np.asarray(shown).astype(int) - np.asarray(plain)).sum(-1)
    inside = pixels(results.run / "items" / results.items[0]["item"] / "mask.png") > 0
    near = np.zeros_like(inside)
    for axis in (0, 1):
        near |= (np.roll(inside, 1, axis) != inside) | (np.roll(inside, -1, axis) != inside)
    assert difference[near].mean() > 100 > 30 > difference[~near].mean()


def chromium() -> str | None:
    return next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


@pytest.mark.skipif(chromium() is None, reason="needs chromium (apt-get install chromium)")
def test_report_in_a_browser(hostile: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    results = evaluate(hostile, tmp_path / "run", methods=["copy_paste", "poisson", "gpgan-no-generator"])
    means = {label: row["metrics"]["psnr"]["mean"] for label, row in results.summary.items()}
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            said: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            page.on("request", lambda request: asked.append(request.url))
            page.goto((tmp_path / "run" / "report.html").as_uri())

            def order() -> list[str]:
                return page.locator("#scores table").first.locator("tbody th").all_inner_texts()

            column = page.locator("#scores table").first.locator("th button", has_text="PSNR")
            column.click()
            assert order() == sorted(means, key=lambda label: -means[label])
            column.click()
            assert order() == sorted(means, key=lambda label: means[label])

            page.locator("article figure[data-method=poisson] button").first.click()
            shown = page.locator("dialog figcaption span")
            assert "poisson" in shown.inner_text()
            assert page.locator("dialog img").evaluate("image => image.complete && image.naturalWidth > 0")
            page.keyboard.press("ArrowRight")
            assert "gpgan-no-generator" in shown.inner_text()
            page.keyboard.press("ArrowDown")
            assert shown.inner_text().startswith("2. ")
            assert "gpgan-no-generator" in shown.inner_text()
            full = page.locator("dialog a").get_attribute("href")
            assert full is not None
            assert (tmp_path / "run" / full).is_file()
            page.keyboard.press("Escape")
            assert not page.locator("dialog").is_visible()

            page.locator("input[name=method][value=poisson]").uncheck()
            assert not page.locator("[data-method=poisson]").first.is_visible()
            assert not said
            # Nothing but itself and, when a picture is enlarged, the run's own.
            assert all(url.startswith(("data:", (tmp_path / "run").as_uri())) for url in asked)
            assert page.locator("dialog img").evaluate("image => image.src").endswith(full)
        finally:
            browser.close()


def test_report_stays_small_enough_to_open(camera: Path, tmp_path: Path) -> None:
    """60 items with 14 methods, at the default size of the pictures, stay below 60 MB."""
    rng, size = np.random.default_rng(0), (640, 960)
    for i in range(2):
        grainy = np.asarray(photo("astronaut", size)).astype(int) + rng.normal(0, 6, (*size, 3))
        Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(camera / "frames" / f"large{i}.png")
    drawn_mask(size).save(camera / "large.png")
    item = evaluation.Item("x", *(camera / "frames" / f"large{i}.png" for i in (0, 1)), camera / "large.png")
    evaluate([item], tmp_path / "run", methods=["copy_paste"], thumbnail=480, grid=0)
    report = tmp_path / "run" / "report.html"
    page = Page(report.read_text())
    widths = [attributes["width"] for tag, attributes in page.tags if tag == "img" and "src" in attributes]
    assert widths == ["480", "480"]
    assert report.stat().st_size / 2 * 60 * (14 + 2) < 60e6
