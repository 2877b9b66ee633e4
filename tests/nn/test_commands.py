"""``gpgan train`` and ``gpgan export``: from photos to a generator that ``gpgan blend`` takes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import gpgan.nn
from gpgan.cli import app
from gpgan.nn import train as training
from gpgan.nn.train import train

from .test_train import checkpoint, states_equal

TINY = {
    "pairs": 16, "image_size": 32, "width": 8, "critic_width": 4, "batch_size": 4, "steps": 6, "validate_every": 3,
    "validation_pairs": 4, "threads": 1,
}  # fmt: skip
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`gpgan` with these arguments in this process: its exit code, what it said, and its errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            app([str(argument) for argument in arguments])
        return int(exit_.value.code or 0), *capfd.readouterr()

    return call


def command(photos: Path, folder: Path, **settings: object) -> list[str]:
    places = {"run": folder, "scenes": photos / "scenes", "photos": photos / "photos", "masks": photos / "masks"}
    arguments = [f"--{name}={path}" for name, path in places.items()] + ["--held-out=square", "--json"]
    return ["train", *arguments, *(f"--set={name}={value}" for name, value in (TINY | settings).items())]


def test_train_then_export_then_blend(run: Run, photos: Path, tmp_path: Path) -> None:
    half = run(*command(photos, tmp_path / "run", stop=3))
    assert half[0] == 0 and json.loads(half[1])["step"] == 3
    code, out, err = run(*command(photos, tmp_path / "run"))
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["step"] == 6 and said["best"] == str(tmp_path / "run" / "best.pt") and "psnr" in said
    assert run("train", "--config", tmp_path / "run" / "config.json")[1].startswith(
        f"{said['best']}: the best of 6 steps; "
    )

    generator = tmp_path / "g.pt"
    code, out, err = run("export", tmp_path / "run", "-o", generator, "--training-data", "boxes", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"output": str(generator), "bytes": generator.stat().st_size}
    facts = json.loads(run("info", generator, "--json")[1])
    assert (facts["image_size"], facts["training_data"], facts["bytes"]) == (32, "boxes", generator.stat().st_size)
    assert "boxes" in run("info", generator)[1]
    larger = run("export", tmp_path / "run", "-o", tmp_path / "h.pt", "--image-size", 64, "--which", "last")
    assert larger[1] == f"{tmp_path / 'h.pt'}: {(tmp_path / 'h.pt').stat().st_size} bytes\n"
    frames = photos / "scenes" / "street"
    images = frames / "0.jpg", frames / "1.jpg", tmp_path / "mask.png"
    Image.new("L", (56, 40), 255).save(images[2])
    assert run("blend", *images, "-o", tmp_path / "out.png", "--generator", generator)[0] == 0


def test_train_options_win_over_settings(run: Run, photos: Path, tmp_path: Path) -> None:
    arguments = [
        *command(photos, tmp_path / "run", held_out="moon", steps=1),
        "--exclude",
        "street",
        "--config=default",
    ]
    assert run(*arguments)[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["held_out"], config["exclude"]) == (["square"], ["street"])


def test_commands_refuse(run: Run, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (tmp_path / "notes.pt").write_text("no generator")
    for words, arguments in {
        ("--run", "folder"): ["train", "--scenes", photos],
        ("--scenes", "folder"): ["train", "--run", folder],
        ("config", "'papper'"): ["train", "--run", folder, "--scenes", photos, "--config", "papper"],
        ("--set", "FIELD=VALUE", "'width'"): [*command(photos, folder), "--set", "width"],
        ("no such field: widht",): command(photos, folder, widht=3),
        ("width", "integer", "'wide'"): command(photos, folder, width="wide"),
        ("loss", "l2", "'l3'"): command(photos, folder, loss="l3"),
        ("exclude", "moon"): [*command(photos, folder), "--exclude", "moon"],
        ("batch_size must be at most pairs, 16, but is 40",): command(photos, folder, batch_size=40),
        ("device", "GPU"): command(photos, folder, device="cuda:7"),
        ("RUN", "nowhere"): ["export", tmp_path / "nowhere", "-o", tmp_path / "g.pt"],
        ("no checkpoint",): ["export", tmp_path, "-o", tmp_path / "g.pt"],
        ("GENERATOR", "notes.pt"): ["info", tmp_path / "notes.pt"],
        ("nowhere.pt",): ["info", tmp_path / "nowhere.pt"],
    }.items():
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        for word in words:
            assert word in err


def test_train_without_the_extra(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "_run_folder"):
        monkeypatch.delitem(sys.modules, f"gpgan.nn.{name}")
        monkeypatch.delattr(gpgan.nn, name)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run(*command(photos, tmp_path / "run"))
    assert code == 2
    assert err == "gpgan: error: gpgan.nn.train needs matplotlib: pip install 'gpgan[train]'\n"


def test_train_ctrl_c(photos: Path, tmp_path: Path) -> None:
    """One line, exit code 130, and the same command ends where an uninterrupted run does."""
    arguments = command(photos, tmp_path / "run", steps=12)
    process = subprocess.Popen([sys.executable, "-m", "gpgan", *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert err.strip() == f"gpgan: stopped; the same command continues {tmp_path / 'run'} from its last checkpoint"
    config = training.from_json(json.loads((tmp_path / "run" / "config.json").read_text()))
    for name in ("run", "whole"):
        train(training.from_json(json.loads(json.dumps(vars(config) | {"run": str(tmp_path / name)}))), progress=False)
    assert states_equal(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole"))
