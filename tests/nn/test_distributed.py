"""Several processes do what one does: two on this machine, over gloo."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from gpgan.nn._distributed import Processes
from gpgan.nn.train import TrainConfig, train

from .test_train import checkpoint, small


def be_one_of_two(rank: int, port: int, config: TrainConfig) -> None:
    """What torchrun tells a process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train(config, progress=False)


def train_in_two(config: TrainConfig) -> None:
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["gpgan.nn.train"])  # torch is imported once
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start.Process(target=be_one_of_two, args=(rank, port, config)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


def test_two_processes_do_what_one_does(photos: Path, tmp_path: Path) -> None:
    """One step's gradient, then a few steps' weights; and one process can go on with what two began."""
    # Without the critic, whose batch norm sees a process's share; in float32, where only the order of sums differs.
    config = small(photos, tmp_path / "one", reconstruction=1.0, precision="float32", gradient_norm=None, threads=1)
    two = replace(config, run=str(tmp_path / "two"))
    train(replace(config, stop=1), progress=False)
    train_in_two(replace(two, stop=1))
    moments = [checkpoint(tmp_path / name)["adam"]["state"] for name in ("one", "two")]
    assert len(moments[0]) > 20
    for i in moments[0]:  # Adam's first moment after one step is a tenth of the gradient
        one, other = (state[i]["exp_avg"] for state in moments)
        assert (one - other).norm() <= 1e-6 * one.norm()

    train(replace(config, stop=4), progress=False)
    train_in_two(replace(two, stop=4))
    states = [checkpoint(tmp_path / name) for name in ("one", "two")]
    assert states[0]["step"] == states[1]["step"] == 4
    for name, weights in states[0]["generator"].items():
        torch.testing.assert_close(states[1]["generator"][name], weights, rtol=0, atol=1e-5)
    logs = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], abs=1e-5)
    assert logs[0]["psnr"] == pytest.approx(logs[1]["psnr"], abs=0.01)

    train(two, progress=False)
    assert checkpoint(tmp_path / "two")["step"] == 6
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(p.name for p in (tmp_path / "two").iterdir())


def test_torchrun_trains_the_critic(photos: Path, tmp_path: Path) -> None:
    """The real command, which says its result once."""
    config = small(photos, tmp_path / "unused", critic_steps=2, critic_boost=3, boost_first=1, stop=2)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(config)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "gpgan", "train", "--config", str(path), "-o", str(tmp_path / "run"), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    state = checkpoint(tmp_path / "run")
    assert state["batches_seen"] == 3 + 2
    weights = state["critic"]["layers.0.weight"]
    assert 0 < weights.abs().max() <= config.clip


def test_shares_are_the_batch() -> None:
    shares = [Processes(rank, 3, torch.device("cpu")).share(12) for rank in range(3)]
    assert [i for share in shares for i in range(12)[share]] == list(range(12))
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, but is 32"):
        Processes(0, 3, torch.device("cpu")).share(32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_train_refuses_a_missing_gpu(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device must be cpu where torch finds no GPU, but is 'cuda'"):
        train(small(photos, tmp_path / "run", device="cuda"))
