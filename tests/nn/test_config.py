"""Configurations as text: types, files, and settings from the command line."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gpgan.nn.config import DEFAULT, PAPER, TrainConfig, from_json, read_config, with_settings


@pytest.mark.parametrize("config", [PAPER, replace(DEFAULT, photos=("a", "b"), gradient_norm=None, stop=7)])
def test_config_round_trip(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    assert read_config(tmp_path / "config.json") == config
    texts = {
        name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in asdict(config).items()
    }
    assert with_settings(PAPER, texts) == config


def test_config_has_two_names() -> None:
    assert read_config("paper") is PAPER and read_config("default") is DEFAULT
    assert from_json({"run": "x", "scenes": "y"}) == replace(PAPER, run="x", scenes="y")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widht": "3"}, "no such field: widht; there are run, scenes"),
        ({"width": "3.5"}, "width must be an integer, but is '3.5'"),
        ({"width": "none"}, "width must be an integer, but is 'none'"),
        ({"steps": "many"}, "steps must be an integer or none, but is 'many'"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number, but is 'fast'"),
        ({"learning_rate": "nan"}, "learning_rate must be a finite number, but is nan"),
        ({"pool": "1"}, "pool must be true or false, but is '1'"),
        ({"pairs": "0"}, "pairs must be at least 1, but is 0"),
    ],
)
def test_settings_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        with_settings(DEFAULT, settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must hold a JSON object, but holds list"),
        ('{"widht": 3}', "no such field: widht"),
        ('{"width": "3"}', "width must be an integer, but is '3'"),
        ('{"width": true}', "width must be an integer, but is True"),
        ('{"photos": "one"}', "photos must be a list of texts, but is 'one'"),
        ('{"photos": [1]}', r"photos must be a list of texts, but is \(1,\)"),
        ('{"pool": 1}', "pool must be true or false, but is 1"),
        ('{"clip": Infinity}', "clip must be a finite number, but is inf"),
    ],
)
def test_config_file_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((TypeError, ValueError), match=message):
        read_config(tmp_path / "config.json")
    with pytest.raises(FileNotFoundError, match="config must be one of paper, default or a JSON file, but is 'none'"):
        read_config("none")


def test_config_needs_no_torch() -> None:
    code = "import sys, gpgan.nn.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
