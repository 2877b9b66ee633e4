"""pytest --require-cuda: where there is no device it fails, and nobody passes by skipping."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def run_pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--require-cuda", *arguments]
    where = os.pathsep.join(map(str, [folder, *filter(None, [os.environ.get("PYTHONPATH")])]))
    environment = os.environ | {"PYTHONPATH": where}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def suite(tmp_path):
    """A folder with this suite's conftest.py, and a plugin that says whether there is a device."""
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "cuda").mkdir()
    for name, status in (("with_device", (True, "a device")), ("without_device", (False, "no CUDA device: because"))):
        (tmp_path / f"{name}.py").write_text(
            f"from gpgan import _cuda_library\n_cuda_library.status = lambda: {status}"
        )
    return tmp_path


def test_fails_where_there_is_no_device(suite):
    (suite / "cuda" / "test_it.py").write_text("def test_passes(): pass\n")
    code, said = run_pytest(suite, "-p", "without_device")
    assert code == 1
    assert "--require-cuda: no CUDA device: because" in said
    assert "passed" not in said
    code, said = run_pytest(suite, "-p", "with_device")
    assert code == 0
    assert "1 passed" in said


@pytest.mark.parametrize(
    "body",
    [
        "def test_it(): pytest.skip('no')",
        "@pytest.mark.skipif(True, reason='no')\ndef test_it(): pass",
        "@pytest.fixture\ndef no(): pytest.skip('no')\ndef test_it(no): pass",
        "pytest.skip('no', allow_module_level=True)",
        "pytest.importorskip('there_is_no_such_module')",
    ],
)
def test_a_skip_is_a_failure(body, suite):
    (suite / "cuda" / "test_skips.py").write_text(f"import pytest\n{body}\n")
    (suite / "test_elsewhere.py").write_text("import pytest\ndef test_it(): pytest.skip('of other reasons')\n")
    code, said = run_pytest(suite, "-p", "with_device", "cuda", "test_elsewhere.py")
    assert code != 0, said
    assert "--require-cuda: cuda/test_skips.py" in said
