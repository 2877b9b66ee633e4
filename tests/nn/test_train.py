"""The loop: the paper's figures, resuming bit for bit, the critic's clip and schedule."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpgan.nn import train as training
from gpgan.nn.train import DEFAULT, PAPER, TrainConfig, build_generator, critic_steps_at, load_run, train


def small(photos: Path, run: Path, **changes: object) -> TrainConfig:
    """The default recipe on the synthetic scenes, a few steps of it."""
    tiny = replace(
        DEFAULT,
        run=str(run),
        scenes=str(photos / "scenes"),
        photos=(str(photos / "photos"),),
        held_out=("square",),
        pairs=16,
        image_size=32,
        width=8,
        critic_width=4,
        batch_size=4,
        steps=6,
        validate_every=3,
        validation_pairs=4,
    )
    return replace(tiny, **changes)


def paper(photos: Path, run: Path, **changes: object) -> TrainConfig:
    tiny = {"width": 4, "bottleneck": 8, "critic_width": 4, "image_size": 32, "pairs": 16, "batch_size": 4}
    schedule = {"boost_first": 1, "critic_boost": 3, "critic_steps": 2, "steps": 4, "validate_every": 2}
    places = {"run": str(run), "scenes": str(photos / "scenes")}
    return replace(PAPER, **(tiny | schedule | places | changes))


def states_equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(states_equal(a[k], b[k]) for k in a if k != "config")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(states_equal, a, b))
    return a == b


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def test_paper_config_is_the_papers() -> None:
    """Every figure of the paper's section 4 and of the authors' program."""
    assert (PAPER.architecture, PAPER.image_size, PAPER.width, PAPER.bottleneck) == (
        "blending-gan",
        64,
        64,
        4000,
    )
    assert (PAPER.loss, PAPER.reconstruction, PAPER.clip) == ("l2", 0.999, 0.01)
    assert (PAPER.learning_rate, PAPER.critic_learning_rate, PAPER.beta1) == (0.002, 0.0002, 0.5)
    assert (PAPER.batch_size, PAPER.pairs, PAPER.epochs) == (64, 150_000, 25)
    assert PAPER.last_step == 25 * 150_000 // 64
    assert PAPER.centred_square and not PAPER.membrane and not PAPER.crops and not PAPER.augment
    steps = [critic_steps_at(PAPER, step) for step in range(1002)]
    assert steps[:25] == [100] * 25 and steps[500] == steps[1000] == 100
    assert steps[25:500] == [5] * 475 and steps[501] == 5


def test_critic_steps_without_a_critic() -> None:
    assert critic_steps_at(replace(PAPER, reconstruction=1.0), 0) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "unet"},
            "architecture must be one of blending-gan, color-corrector, but is 'unet'",
        ),
        ({"loss": "l1"}, "loss must be one of"),
        ({"schedule": "step"}, "schedule must be one of"),
        ({"pairs": 0}, "pairs must be at least 1, but is 0"),
        ({"reconstruction": 2.0}, r"reconstruction must lie in \[0, 1\], but is 2.0"),
    ],
)
def test_config_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PAPER, **change)


@pytest.mark.parametrize("recipe", [small, paper])
def test_train_resumes_bit_for_bit(photos: Path, tmp_path: Path, recipe: object) -> None:
    """2n steps are n steps, a stop and n steps more."""
    whole = recipe(photos, tmp_path / "whole")
    half = recipe(photos, tmp_path / "half", stop=whole.steps // 2)
    train(whole, progress=False)
    train(half, progress=False)
    assert checkpoint(tmp_path / "half")["step"] == whole.steps // 2
    train(replace(half, stop=None), progress=False)
    assert states_equal(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "half"))


def test_train_survives_a_kill(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between checkpoints, a run goes on from the last one and ends as if nothing had happened."""
    config = small(photos, tmp_path / "run")
    other = small(photos, tmp_path / "other")
    train(other, progress=False)

    validate, calls = training._validate, []

    def killed(*args: object) -> dict:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*args)

    monkeypatch.setattr(training, "_validate", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=False)
    assert checkpoint(tmp_path / "run")["step"] == 3
    train(config, progress=False)
    assert states_equal(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "other"))
    assert not list((tmp_path / "run").glob("*.part"))


def test_train_finished_does_nothing(photos: Path, tmp_path: Path) -> None:
    config = small(photos, tmp_path)
    best = train(config, progress=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert train(config, progress=False) == best == tmp_path / "best.pt"
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_train_refuses_another_configuration(photos: Path, tmp_path: Path) -> None:
    train(small(photos, tmp_path), progress=False)
    with pytest.raises(ValueError, match="another learning_rate"):
        train(small(photos, tmp_path, learning_rate=0.5), progress=False)


def test_train_refuses_another_pool(photos: Path, tmp_path: Path) -> None:
    train(small(photos, tmp_path), progress=False)
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match=r"expected \(pairs, image_size\) = \(20, 32\), got \(16, 32\)"):
        train(small(photos, tmp_path, pairs=20), progress=False)


def test_train_clips_the_critic(photos: Path, tmp_path: Path) -> None:
    train(paper(photos, tmp_path), progress=False)
    state = checkpoint(tmp_path)
    names = {name for name, _ in training.Critic(32, 4).named_parameters()}
    assert all(state["critic"][name].abs().max() <= 0.01 for name in names)
    # 3 critic steps in step 0, 2 in each of the others (step 0 alone is boosted here), a batch each.
    assert state["batches_seen"] == 3 + 3 * 2


def test_train_logs_and_keeps_the_best(photos: Path, tmp_path: Path) -> None:
    train(small(photos, tmp_path, steps=9), progress=False)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [3, 6, 9]
    assert {"loss", "critic", "psnr", "gain_related", "gain_unrelated", "worst_tenth"} <= log[0].keys()
    generator, config = load_run(tmp_path)
    assert config == small(photos, tmp_path, steps=9)
    assert not generator.training
    best = max(log, key=lambda entry: entry["psnr"])
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == best["step"]
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="which must be 'best' or 'last', but is 'first'"):
        load_run(tmp_path, "first")
    last, _ = load_run(tmp_path, "last")
    assert states_equal(last.state_dict(), checkpoint(tmp_path)["average"])


def test_train_without_critic_learns(photos: Path, tmp_path: Path) -> None:
    """A few steps on a handful of samples lower their own error."""
    config = small(photos, tmp_path, reconstruction=1.0, steps=40, validate_every=40, learning_rate=0.003)
    train(config, progress=False)
    assert "critic" not in json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    samples, _ = training._datasets(config, tmp_path)
    batch = training.unpack(torch.stack([samples[i] for i in range(16)]))
    generator, _ = load_run(tmp_path)
    with torch.no_grad():
        errors = [
            training._reconstruction(config, image, batch) for image in (generator(*batch.inputs), batch.harmonized)
        ]
    assert errors[0] < errors[1]


def test_train_tensorboard_and_progress(photos: Path, tmp_path: Path) -> None:
    train(small(photos, tmp_path, steps=3), tensorboard=True)
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_build_generator_follows_the_config() -> None:
    with torch.device("meta"):
        assert type(build_generator(PAPER)).__name__ == "BlendingGAN"
        assert type(build_generator(DEFAULT)).__name__ == "ColorCorrector"
