"""The loop: the paper's figures, resuming bit for bit, the critic's clip and schedule."""

import json
import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from gpgan.nn import model
from gpgan.nn import train as training
from gpgan.nn._precision import layers_in, resolve
from gpgan.nn._run_folder import read_log, shorten_log
from gpgan.nn.model import BlendingGAN, Critic
from gpgan.nn.train import DEFAULT, PAPER, TrainConfig, build_generator, critic_steps_at, load_run, train

from .test_model import contract_inputs, scrambled


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
        ({"beta1": 1.0}, r"beta1 must lie in \[0, 1\), but is 1.0"),
        ({"clip": 0.0}, "clip must be above 0, but is 0.0"),
        ({"seed": -1}, "seed must be at least 0, but is -1"),
        ({"device": "tpu"}, "device must be cpu or cuda, but is 'tpu'"),
        ({"validation_rows": 8}, "validation_rows must be at least 32, but is 8"),
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


def contents(run: Path) -> dict[str, tuple[int, int]]:
    """What is in the folder, to see it change."""
    found = {}
    for path in run.rglob("*"):
        with suppress(FileNotFoundError):  # renamed in the meantime
            found[path.name] = (path.stat().st_mtime_ns, path.stat().st_size)
    return found


def test_train_survives_kills(photos: Path, tmp_path: Path) -> None:
    """SIGKILL after the 2nd, 7th, 12th ... change to the folder; each start goes on, and the end is the same."""
    whole, killed = (
        small(photos, tmp_path / name, steps=3, validate_every=1, threads=1) for name in ("whole", "killed")
    )
    train(whole, progress=False)

    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["gpgan.nn.train"])  # torch is imported once
    run, kills = tmp_path / "killed", 0
    while True:
        process = start.Process(target=train, args=(killed,), kwargs={"progress": False})
        process.start()
        seen, changes = contents(run), 0
        while process.is_alive() and changes < 2 + 5 * kills:
            now = contents(run)
            changes += now != seen
            seen = now
            time.sleep(0.001)
        process.kill()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert states_equal(checkpoint(tmp_path / "whole"), checkpoint(run))
    names = {str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*")}
    assert names == {str(path.relative_to(run)) for path in run.rglob("*")}
    assert states_equal(*(torch.load(tmp_path / name / "best.pt") for name in ("whole", "killed")))
    for name in ("pool.npy", "samples/000003.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (run / name).read_bytes()
    logs = [read_log(tmp_path / name) for name in ("whole", "killed")]
    for entries in logs:
        assert [entry["step"] for entry in entries] == [1, 2, 3]
        for entry in entries:
            del entry["seconds"], entry["validation_seconds"]
    assert logs[0] == logs[1]


def test_log_after_a_kill(tmp_path: Path) -> None:
    """What was logged after the checkpoint goes, and so does half a line."""
    (tmp_path / "log.jsonl").write_text('{"step": 3}\n{"step": 6}\n{"step": 9}\n{"st')
    shorten_log(tmp_path, 6)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 3}\n{"step": 6}\n'
    shorten_log(tmp_path, 0)
    assert read_log(tmp_path) == []


def test_train_finished_does_nothing(photos: Path, tmp_path: Path) -> None:
    config = small(photos, tmp_path)
    best = train(config, progress=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert train(config, progress=False) == best == tmp_path / "best.pt"
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_train_refuses_another_configuration(photos: Path, tmp_path: Path) -> None:
    config = small(photos, tmp_path)
    train(config, progress=False)
    for missing in ("", "checkpoint.pt"):  # its pool alone is another's as well
        (tmp_path / missing).unlink() if missing else None
        with pytest.raises(ValueError, match=r"holds a run with another held_out, learning_rate; expected an empty"):
            train(replace(config, learning_rate=0.5, held_out=()), progress=False)
    assert train(replace(config, threads=1, steps=4), progress=False).exists()


def test_train_refuses_another_pool(photos: Path, tmp_path: Path) -> None:
    train(small(photos, tmp_path / "other"), progress=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "other" / "pool.npy").rename(tmp_path / "run" / "pool.npy")
    with pytest.raises(ValueError, match=r"expected \(pairs, image_size\) = \(20, 32\), got \(16, 32\)"):
        train(small(photos, tmp_path / "run", pairs=20), progress=False)


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


def test_train_shows_its_progress(photos: Path, tmp_path: Path) -> None:
    train(small(photos, tmp_path, steps=6), tensorboard=True)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("psnr")] == [3, 6]
    assert [event.step for event in events.Images("held out")] == [3, 6]
    with Image.open(tmp_path / "samples" / "000006.png") as samples, Image.open(tmp_path / "loss.png") as plot:
        assert samples.size == (4 * 256, 4 * 192)
        assert len(plot.getcolors(10**6)) > 10


def test_train_without_held_out_scenes(photos: Path, tmp_path: Path) -> None:
    """The best is then the one of the lowest loss."""
    train(small(photos, tmp_path, held_out=(), pool=False, workers=1), progress=False)
    log = read_log(tmp_path)
    assert all("psnr" not in entry for entry in log)
    best = min(log, key=lambda entry: entry["loss"])
    assert torch.load(tmp_path / "best.pt")["step"] == best["step"]
    assert (tmp_path / "loss.png").exists() and not (tmp_path / "samples").exists()


@pytest.mark.parametrize("inputs", ["harmonized", "composite"])
def test_inputs_ablation_sees_one_image(photos: Path, tmp_path: Path, inputs: str) -> None:
    train(small(photos, tmp_path, inputs=inputs), progress=False)
    generator, config = load_run(tmp_path)
    assert config.inputs == inputs
    composite, mask, harmonized, source = contract_inputs(2, 32)
    shown = composite if inputs == "composite" else harmonized
    with torch.no_grad():
        colour = generator(composite, mask, harmonized, source)
        assert torch.equal(build_generator(config)(composite, mask, harmonized, source), shown)
        other = torch.rand_like(source)
        seen = (composite, mask, other, other) if inputs == "composite" else (other, mask, harmonized, other)
        assert torch.equal(generator(*seen), colour)
        assert not torch.equal(generator(other, mask, other, source), colour)
        torch.testing.assert_close(torch.jit.script(generator)(composite, mask, harmonized, source), colour)


@pytest.mark.parametrize("network", [lambda: scrambled(32), lambda: BlendingGAN(32, 4, 8), lambda: Critic(32, 4)])
def test_bfloat16_is_for_layers_alone(network: Callable[[], nn.Module]) -> None:
    """Close to float32, float32 outside the layers, and the same weights under the same names."""
    plain, layers = network(), network()
    layers.load_state_dict(plain.state_dict())
    layers_in(torch.bfloat16, layers)
    inputs = contract_inputs(4, 32)
    inputs = inputs[:1] if isinstance(plain, Critic) else inputs
    a, b = plain(*inputs), layers(*inputs)
    assert b.dtype == torch.float32 and not torch.equal(a, b)
    assert (a - b).abs().max() < 0.1
    b.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in layers.parameters())
    assert layers.state_dict().keys() == plain.state_dict().keys()


def test_bfloat16_leaves_the_regression_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, seen = scrambled(32), []
    solve = model.ridge_solve
    monkeypatch.setattr(model, "ridge_solve", lambda *args: seen.append({x.dtype for x in args}) or solve(*args))
    layers_in(torch.bfloat16, generator)
    generator(*contract_inputs(1, 32))
    assert seen == [{torch.float32}] * 2


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert [resolve(name, cpu) for name in ("float32", "bfloat16")] == [torch.float32, torch.bfloat16]
    for words, expected in {"flags : avx512f": torch.float32, "flags : fpu avx512_bf16 sse": torch.bfloat16}.items():
        monkeypatch.setattr(Path, "read_text", lambda _, words=words: words)
        assert resolve("auto", cpu) == expected

    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert resolve("auto", cpu) == torch.float32


def test_build_generator_follows_the_config() -> None:
    with torch.device("meta"):
        assert type(build_generator(PAPER)).__name__ == "BlendingGAN"
        assert type(build_generator(DEFAULT)).__name__ == "ColorCorrector"
