"""What is evaluated, pixel by pixel, and what the tables and the outline say of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

import gpgan
from gpgan import evaluation
from gpgan.evaluation import measures, report, table

HEIGHT, WIDTH = 40, 56


def photo(name: str = "chelsea", size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).resize(size[::-1], Image.Resampling.BOX)


def square_mask(size: tuple[int, int] = (HEIGHT, WIDTH), value: int = 255) -> Image.Image:
    levels = np.zeros(size, np.uint8)
    levels[size[0] // 4 : size[0] * 3 // 4, size[1] // 4 : size[1] * 3 // 4] = value
    return Image.fromarray(levels)


@pytest.fixture
def pair(tmp_path: Path) -> evaluation.Item:
    """Two photos and a mask, the target being the truth."""
    photo().save(tmp_path / "s.png")
    photo("coffee").save(tmp_path / "t.png")
    square_mask().save(tmp_path / "m.png")
    source, target, mask = (tmp_path / f"{name}.png" for name in "stm")
    return evaluation.Item("pair", source, target, mask, target)


def evaluate(root: Any, run: Path, *methods: str) -> evaluation.Results:
    return evaluation.evaluate(root, run, methods=methods, realism=None, thumbnail=32)


def records_of(scores: dict[str, list[float | None]], **said: Any) -> list[dict[str, Any]]:
    """Records of items with a core PSNR for each method, None where it failed."""
    items = []
    for row in zip(*scores.values(), strict=True):
        methods = {
            label: {"error": "no", "scores": None} if core is None else {"error": None, "scores": {"psnr_core": core}}
            for label, core in zip(scores, row, strict=True)
        }
        items.append({"files": {}, "methods": {label: entry | said for label, entry in methods.items()}})
    return items


# ------------------------------------------------------------------------------------------------------------- finding


def make_item(folder: Path, *stems: str) -> None:
    folder.mkdir(parents=True)
    for stem in stems:
        (square_mask() if stem == "mask" else photo()).save(folder / f"{stem}.png")


def test_find_items_takes_a_folder_that_holds_a_run(tmp_path: Path) -> None:
    root = tmp_path / "its"
    make_item(root / "one", "source", "target", "mask")
    first = evaluate(root, root / "run", "copy_paste")
    said: list[str] = []
    assert evaluation.find_items(root, note=said.append) == evaluation.find_items(root)
    assert said == []
    assert evaluate(root, root / "run", "copy_paste").computed == 0
    assert [record["item"] for record in first.items] == ["one"]


def test_find_items_leaves_incomplete_folders_out(tmp_path: Path) -> None:
    make_item(tmp_path / "whole", "source", "target", "mask")
    make_item(tmp_path / "half\x1b[2J", "source", "mask")
    said: list[str] = []
    assert [item.name for item in evaluation.find_items(tmp_path, note=said.append)] == ["whole"]
    assert said == [r"left out for want of source.* or target.*: 'half\x1b[2J'"]


def test_messages_show_no_control_characters(tmp_path: Path) -> None:
    said: list[str] = []
    for name, count in (("fine", 2), ("a\x1b[2J", 1)):
        (tmp_path / "cams" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "cams" / name / f"{i}.png").touch()
    evaluation.draw_pairs(tmp_path / "cams", pairs=1, note=said.append)
    assert said == [r"left out for want of masks or of a second frame: 'a\x1b[2J'"]
    path = tmp_path / "\x1b[2J.csv"
    for text in ("source,target,\x1b[3J\n", "source,target\n", "source,target\nx\n", 'source,target\n"x'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"x1b\[2J\.csv'") as caught:
            evaluation.read_csv(path)
        assert str(caught.value).isprintable()
    make_item(tmp_path / "\x1b[4J", "source", "target")
    photo().save(tmp_path / "\x1b[4J" / "source.jpg")
    with pytest.raises(ValueError, match=r"x1b\[4J': expected one image source") as caught:
        evaluation.find_items(tmp_path / "\x1b[4J")
    assert str(caught.value).isprintable()


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(("dtype", "faint"), [(np.float32, 0.004), (np.uint16, 300)])
def test_read_item_makes_no_faint_mask_full(
    pair: evaluation.Item, tmp_path: Path, dtype: type[Any], faint: float
) -> None:
    levels = np.asarray(square_mask(value=1)).astype(dtype) * dtype(faint)
    item = replace(pair, mask=tmp_path / "m.tif")
    for extra in (False, True):
        if extra:  # one pixel more that tells the scale
            levels[20, 28] = 1 if dtype == np.float32 else 0xFFFF
        Image.fromarray(levels).save(tmp_path / "m.tif")
        if not extra:
            with pytest.raises(ValueError, match="mask: expected values above 0"):
                evaluation.read_item(item)
    inputs = evaluation.read_item(item)
    assert inputs.mask is not None
    assert sorted(np.unique(inputs.mask)) == [0, 1, 255]
    change = np.abs(inputs.composite.astype(int) - inputs.target).max(-1)
    assert change[20, 28] > 1 >= np.delete(change, 20, axis=0).max()


def test_read_item_places_no_faint_part_as_full(pair: evaluation.Item) -> None:
    assert pair.mask is not None
    levels = np.full((HEIGHT, WIDTH), 255, np.uint8)
    levels[:, 40:] = 1
    Image.fromarray(levels).save(pair.mask)
    with pytest.raises(ValueError, match="mask: expected values above 0 within the target"):
        evaluation.read_item(replace(pair, offset=(0, -42)))
    shown = evaluation.read_item(replace(pair, offset=(0, -39))).framed[2]
    assert sorted(np.unique(shown)) == [0, 1, 255]


def test_read_item_takes_masks_of_0_and_1_as_full(pair: evaluation.Item, tmp_path: Path) -> None:
    square_mask(value=1).save(tmp_path / "m.png")
    inputs = evaluation.read_item(pair)
    np.testing.assert_array_equal(inputs.framed[2], np.asarray(square_mask()))


def test_read_item_keeps_the_alpha_of_a_file_that_is_both(tmp_path: Path) -> None:
    picture = photo().convert("RGBA")
    picture.putalpha(square_mask())
    picture.save(tmp_path / "both.png")
    path = tmp_path / "both.png"
    inputs = evaluation.read_item(evaluation.Item("x", path, path, truth=path, offset=(3, 5)))
    assert inputs.source.shape == (HEIGHT, WIDTH, 4)
    assert inputs.truth is not None
    assert inputs.target.shape == inputs.truth.shape == (HEIGHT, WIDTH, 3)
    wanted = gpgan.baselines.copy_paste(picture, photo(), offset=(3, 5))
    np.testing.assert_array_equal(inputs.composite, np.asarray(wanted))


# ------------------------------------------------------------------------------------------------------- in the runner


def test_moved_source_is_another_item(pair: evaluation.Item, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for offset in ((0, 0), (4, -7)):
        assert evaluate([replace(pair, offset=offset)], run, "copy_paste").computed == 1
        wanted = gpgan.baselines.copy_paste(photo(), photo("coffee"), square_mask(), offset=offset)
        for stem in ("copy_paste", "composite"):
            with Image.open(run / "items" / "pair" / f"{stem}.png") as picture:
                np.testing.assert_array_equal(np.asarray(picture), np.asarray(wanted))


def test_results_of_another_pair_are_removed(pair: evaluation.Item, tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluate([pair], run, "copy_paste", "poisson")
    evaluate([pair], run, "copy_paste")
    assert (run / "items" / "pair" / "poisson.png").is_file()
    photo("rocket").save(pair.source)
    evaluate([pair], run, "copy_paste")
    there = {path.name for path in (run / "items" / "pair").glob("*.png")}
    assert there == {"composite.png", "mask.png", "truth.png", "copy_paste.png"}


def test_methods_warm_up_before_the_clock(
    registered: Callable[..., None], pair: evaluation.Item, tmp_path: Path
) -> None:
    calls = []

    def paste(source: Any, target: Any, mask: Any) -> Any:
        calls.append(target.shape)
        return target

    registered("paste", paste)
    items = [replace(pair, name=name) for name in ("a", "b")]
    evaluate(items, tmp_path / "run", "paste")
    assert len(calls) == 3
    assert calls[0] != calls[1] == calls[2] == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["opencv-normal", "seamless_clone"])
def test_cloned_masks_at_the_border_are_not_moved(name: str) -> None:
    """Cloned to where it was, a picture stays: pixels of the mask on the border do not count for where it goes."""
    if name.startswith("opencv"):
        pytest.importorskip("cv2")
    image = np.asarray(photo("coffee", (96, 120)))
    for rows, columns in (
        (slice(0, 50), slice(40, 81)),
        (slice(30, 96), slice(0, 61)),
        (slice(41, 96), slice(70, 120)),
    ):
        mask = np.zeros((96, 120), np.uint8)
        mask[rows, columns] = 255
        result = evaluation.method(name)(evaluation.Inputs(image, image, mask)).astype(int)
        assert np.abs(result - image).mean() < 0.5


def test_tables_hold_no_formulas(pair: evaluation.Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1", "+s", "-t", "@m"):
        photo().save(f"{name}.png")
    Path("pairs.csv").write_text("source,target,mask\n=1+1.png,+s.png,m.png\n-t.png,@m.png,m.png\n")
    results = evaluate("pairs.csv", tmp_path / "run", "copy_paste")
    with (results.run / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [(row["source"], row["target"], row["mask"]) for row in rows]
    assert shown == [("'=1+1.png", "'+s.png", "m.png"), ("'-t.png", "'@m.png", "m.png")]
    assert [table.harmless(cell) for cell in ("\tx", "\rx", "x=", "", -1.5)] == ["'\tx", "'\rx", "x=", "", -1.5]


# -------------------------------------------------------------------------------------------------------------- tables


def test_as_csv_has_the_means_of_each_method() -> None:
    records = records_of({"copy_paste": [10.0, 11.0, 13.0], "=x": [-20.0, None, -30.125]})
    summary = table.summarise(records, [("copy_paste", "copy_paste"), ("=x", "alpha")])
    text = table.as_csv(summary, ["psnr_core", "@ssim"])
    assert text.splitlines()[0] == "method,items,failed,psnr_core,'@ssim"
    rows = list(csv.reader(io.StringIO(text)))[1:]
    assert rows == [["copy_paste", "3", "0", repr(34 / 3), ""], ["'=x", "2", "1", "-25.0625", ""]]


def test_gain_is_over_the_row_without_options() -> None:
    cores: dict[str, list[float | None]] = {"deep": [5.0, 5.0], "gpgan-no-generator": [1.0, 2.0], "ours": [3.0, 5.0]}
    names = {"deep": "gpgan-no-generator", "gpgan-no-generator": "gpgan-no-generator", "ours": "gpgan"}
    summary = table.summarise(records_of(cores), list(names.items()))
    assert "gain" not in summary["gpgan-no-generator"]
    assert summary["deep"]["gain"]["mean"] == 3.5
    assert table.gain_rows(summary) == [
        ["core PSNR over gpgan-no-generator", "gain", "worst", "losing"],
        ["deep", "+3.50", "+3.00", "0%"],
        ["ours", "+2.50", "+2.00", "0%"],
    ]
    # Where there is none, the first will do, and is named.
    del cores["gpgan-no-generator"], names["gpgan-no-generator"]
    summary = table.summarise(records_of(cores), list(names.items()))
    assert table.gain_rows(summary) == [
        ["core PSNR over deep", "gain", "worst", "losing"], ["ours", "-1.00", "-2.00", "50%"],
    ]  # fmt: skip
    assert table.gain_rows(table.summarise(records_of({"a": [1.0]}), [("a", "gpgan")])) == []


def test_gain_that_is_none_loses_nothing() -> None:
    cores: dict[str, list[float | None]] = {"gpgan-no-generator": [1.0] * 4, "gpgan": [1.0, 1.0, 0.5, 2.0]}
    summary = table.summarise(records_of(cores), [(label, label) for label in cores])
    assert summary["gpgan"]["gain"]["losing"] == 0.25


def test_best_is_of_methods_that_never_failed() -> None:
    cores: dict[str, list[float | None]] = {"a": [1.0, 2.0], "b": [9.0, None], "c": [1.0, 1.0], "d": [1.5, None]}
    summary = table.summarise(records_of(cores), [(label, label) for label in cores])
    assert table.best(summary, "psnr_core") == 1.5
    marked = {row["label"] for row in report._rows(summary, ["psnr_core"]) if row["cells"][0]["best"]}
    assert marked == {"a"}


def test_notes_name_all_who_see_the_truth(pair: evaluation.Item, tmp_path: Path) -> None:
    methods = [
        "poisson",
        "a=poisson:mode=mixed",
        "b=seamless_clone:flags=mixed",
        "c=poisson-mixed",
        "alpha",
        "multiband",
    ]
    notes = evaluate([pair], tmp_path / "run", *methods).notes
    assert "the truth is the target itself, and a, b, c used its gradients under the mask" in notes
    assert "the truth is the target itself, which alpha, multiband blended in along the seam" in notes
    notes = evaluate([replace(pair, truth=pair.source)], tmp_path / "other", *methods).notes
    assert not [note for note in notes if "the target itself" in note]


@pytest.mark.parametrize(
    ("architecture", "said"),
    [("realism-cnn", "by realism-cnn, as in the paper;"), ("small-realism", "by small-realism, not the paper's")],
)
def test_notes_say_whose_realism_it_is(monkeypatch: pytest.MonkeyPatch, architecture: str, said: str) -> None:
    class Scorer:
        def __init__(self, weights: Any) -> None:
            self.architecture = architecture

        def __call__(self, image: Any) -> float:
            return 0.0

    monkeypatch.setattr(gpgan.metrics, "RealismScorer", Scorer, raising=False)
    measure = measures.Measure("default", lambda text: None)
    [note] = measure.notes(["realism"])
    assert said in note
    summary = {
        label: {"name": label, "failed": 0, "metrics": {"realism": {"mean": -0.5}}} for label in ("copy_paste", "gpgan")
    }
    assert table.notes(summary, ["realism"], []) == [
        "realism in the order of the paper's Table 1: Input -0.500, Ours -0.500"
    ]


def test_notes_explain_the_seam() -> None:
    [note] = measures.Measure(None, lambda text: None).notes(["gradient_kept"])
    assert "per pixel of its length; lower is better" in note


# ------------------------------------------------------------------------------------------------------------- outline


def test_outline_runs_along_the_border_and_grows_with_the_picture() -> None:
    for side, width in ((100, 1), (800, 4)):
        mask = Image.fromarray(np.zeros((side, side), np.uint8))
        mask.paste(255, (side // 2, 0, side, side))
        drawn = np.asarray(report._outlined(Image.new("RGB", (side, side), "white"), mask))
        yellow = (drawn == report._OUTLINE).all(-1)
        wanted = np.zeros((side, side), bool)
        wanted[:, side // 2 :] = True
        wanted[width:-width, side // 2 + width : -width] = False
        np.testing.assert_array_equal(yellow, wanted)
        assert (drawn[:, side // 2 - 1] == report._OUTLINE_EDGE).all()
