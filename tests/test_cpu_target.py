"""Every instruction set that this machine can run gives the same results, and GPGAN_CPU_TARGET chooses among them."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image, draw_mask, native_blend
from numpy.testing import assert_allclose
from tolerances import MEMBRANE_MAX, NATIVE

from gpgan import _core

TARGETS = _core.cpu_targets()


def test_baseline_is_there_and_the_best_is_the_default(monkeypatch):
    assert TARGETS[0] == "baseline"
    assert set(TARGETS) <= {"baseline", "x86-64-v3", "x86-64-v4"}
    for empty in ("", None):
        monkeypatch.setenv("GPGAN_CPU_TARGET", "")
        if empty is None:
            monkeypatch.delenv("GPGAN_CPU_TARGET")
        assert _core.cpu_target() == TARGETS[-1]


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="for Linux on x86-64")
def test_targets_are_those_of_the_processor():
    line = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    flags = set(line.split(":")[1].split())
    v3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "abm", "movbe"} <= flags
    v4 = v3 and {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags
    assert ("x86-64-v3" in TARGETS) == v3
    assert ("x86-64-v4" in TARGETS) == v4


@pytest.mark.parametrize("bad", ["x86-64-v5", "BASELINE", "avx2", " baseline", "0"])
def test_unknown_target_is_refused(monkeypatch, bad):
    monkeypatch.setenv("GPGAN_CPU_TARGET", bad)
    available = " ".join(f"'{name}'" for name in TARGETS)
    message = f"^GPGAN_CPU_TARGET: expected one of those that this machine can run, {available}, got '{bad}'$"
    with pytest.raises(ValueError, match=message):
        _core.cpu_target()
    with pytest.raises(ValueError, match=message):
        _core.Blender(8, 8, 1, image_size=64, threads=1, **_core.options("default"))


@pytest.mark.parametrize("target", TARGETS)
def test_target_is_read_whenever_a_blender_is_made(monkeypatch, target):
    monkeypatch.setenv("GPGAN_CPU_TARGET", target)
    assert _core.cpu_target() == target
    monkeypatch.delenv("GPGAN_CPU_TARGET")
    assert _core.cpu_target() == TARGETS[-1]


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
@pytest.mark.parametrize("target", TARGETS[1:])
def test_targets_agree(monkeypatch, rng, target, mode):
    # Odd sizes: the rests of rows behind the last whole vector differ from target to target.
    images = draw_image(rng, 131, 157), draw_image(rng, 131, 157), draw_mask(rng, 131, 157)
    results = []
    for name in ("baseline", target):
        monkeypatch.setenv("GPGAN_CPU_TARGET", name)
        results.append(native_blend(*images, mode=mode))
    # The membrane's iteration may stop a step earlier or later.
    tolerance = MEMBRANE_MAX if mode == "default" else NATIVE
    assert_allclose(results[1], results[0], atol=tolerance, rtol=0)
    assert np.isfinite(results[1]).all()


def test_info_names_the_target(monkeypatch):
    monkeypatch.setenv("GPGAN_CPU_TARGET", "baseline")
    command = [sys.executable, "-m", "gpgan", "info"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "instruction set  baseline\n" in text
    assert ", ".join(TARGETS) in text
    facts = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=60).stdout)
    assert facts["instruction_set"] == "baseline"
    assert facts["instruction_sets"] == TARGETS
    monkeypatch.setenv("GPGAN_CPU_TARGET", "z80")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("gpgan: error: GPGAN_CPU_TARGET: expected one of")
    assert done.stderr.count("\n") == 1
