"""Validation: what the numbers mean, that they repeat, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import gpgan
from gpgan import _core
from gpgan.nn._validation import HeldOut
from gpgan.nn.train import DEFAULT, PAPER, TrainConfig

from .test_export import Harmonized
from .test_train import small

CPU = torch.device("cpu")


class Knows(nn.Module):
    """The truth, as far as S x S pixels can tell it."""

    def __init__(self, held_out: HeldOut) -> None:
        super().__init__()
        truths = [_core.area_average(pair.target / np.float32(255), (32, 32)) for pair in held_out._pairs]
        self.truths = torch.from_numpy(np.stack(truths)).permute(0, 3, 1, 2)

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return self.truths


def held_out(photos: Path, **changes: object) -> HeldOut:
    config = small(photos, Path("unused"), held_out=("square", "street"), validation_pairs=8, threads=1)
    return HeldOut(replace(config, **changes))


@pytest.mark.parametrize("recipe", [DEFAULT, PAPER])
def test_validation_blends_as_the_library_does(photos: Path, recipe: TrainConfig) -> None:
    config = small(photos, Path("unused"), membrane=recipe.membrane, image_size=64)
    mode = "default" if recipe.membrane else "paper"
    for pair in HeldOut(config)._pairs:
        images = pair.source, pair.target, pair.mask
        assert np.array_equal(pair.plain, gpgan.blend(*images, generator=None, mode=mode))
        seen = pair.inputs[2][0].permute(1, 2, 0).numpy()
        again = gpgan.blend(*images, lowres=seen, mode=mode)  # no generator: the harmonized composite
        assert np.abs(pair.plain.astype(int) - again).max() <= 1


def test_validation_gains(photos: Path) -> None:
    """The harmonized composite is the pipeline without a generator; the truth is better, for every camera."""
    pairs = held_out(photos)
    nothing = pairs(Harmonized(), CPU).numbers
    assert all(abs(nothing[name]) < 0.01 for name in ("gain", "gain_related", "gain_unrelated", "worst_scene"))
    truth = pairs(Knows(pairs), CPU).numbers
    assert truth["psnr"] == pytest.approx(nothing["psnr"] - nothing["gain"] + truth["gain"])
    assert truth["gain"] > 0.5 and truth["losing"] < 0.5
    assert truth["worst_tenth"] <= truth["worst_scene"] <= truth["gain"]
    assert truth["gain"] == pytest.approx((truth["gain_related"] + truth["gain_unrelated"]) / 2)


def test_validation_repeats_and_leaves_random_states_alone(photos: Path) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (the state that is to be left alone)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (held_out(photos)(Harmonized(), CPU) for _ in range(2))
    assert first.numbers == second.numbers
    assert first.samples.tobytes() == second.samples.tobytes()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert held_out(photos, seed=1)(Harmonized(), CPU).numbers != first.numbers


def test_validation_pairs_are_what_they_should(photos: Path) -> None:
    pairs = held_out(photos, validation_rows=32)._pairs
    assert [pair.scene for pair in pairs] == ["square", "street"] * 4
    assert [pair.related for pair in pairs] == [True, True, False, False] * 2
    for pair in pairs:
        assert pair.source.shape == pair.target.shape == (32, 45, 3)
        assert not np.array_equal(pair.source, pair.target)
        assert set(np.unique(pair.mask)) == {0, 255}
        assert not pair.mask[[0, -1]].any() and not pair.mask[:, [0, -1]].any()
        inside = pair.mask > 0
        # Frames of a camera differ by gains here, so a related source is the target times three numbers.
        ratio = pair.source.astype(float) / np.maximum(pair.target, 1)
        assert (np.median(np.abs(ratio - np.median(ratio[inside], 0))[~inside]) < 0.1) == pair.related


def test_validation_takes_drawn_masks(photos: Path, tmp_path: Path) -> None:
    mask = np.zeros((40, 56), np.uint8)
    mask[10:30, 8:40] = 255
    (tmp_path / "square").mkdir()
    Image.fromarray(mask).save(tmp_path / "square" / "box.png")
    pairs = held_out(photos, held_out_masks=str(tmp_path))._pairs
    for pair in pairs:
        assert np.array_equal(pair.mask, mask) == (pair.scene == "square")
    (tmp_path / "crops.txt").write_text("square:4,8,36,48\n")
    cropped = held_out(photos, held_out_masks=str(tmp_path), crop_file=str(tmp_path / "crops.txt"))._pairs
    assert np.array_equal(cropped[0].mask, mask[4:36, 8:48])
    assert cropped[0].target.shape == (32, 40, 3)

    Image.fromarray(mask[1:]).save(tmp_path / "square" / "box.png")
    with pytest.raises(ValueError, match=r"held_out_masks: expected .*box\.png to be \(56, 40\)"):
        held_out(photos, held_out_masks=str(tmp_path))
    with pytest.raises(ValueError, match="held_out_masks: no folder of any held-out camera"):
        held_out(photos, held_out=("harbour",), held_out_masks=str(tmp_path))
    with pytest.raises(ValueError, match=r"held_out names no camera below .*moon"):
        held_out(photos, held_out=("moon",))
