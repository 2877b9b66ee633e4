"""How the CUDA backend is built, found and told of. Nothing here needs a device.

What was built is tested where it is there; with GPGAN_REQUIRE_CUDA_BUILD=1 it has to be.
"""

import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import cmake_build

import gpgan
from gpgan import _core, _cuda_library

ROOT = Path(__file__).parent.parent
CHECK = ROOT / "cmake" / "check_resource_usage.py"
NOT_FOUND = "libcufft.so.12: cannot open shared object file: No such file or directory"

BUILT = importlib.util.find_spec("gpgan._cuda")
needs_build = pytest.mark.skipif(
    BUILT is None and os.environ.get("GPGAN_REQUIRE_CUDA_BUILD") != "1", reason="built without the CUDA backend"
)
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | environment
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, env=settings)


# ---------------------------------------------------------------------------------------------------------- loading


class Importer:
    """Stands for importlib.import_module: gives or raises what it was told, one a call, then the last for ever."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.calls = 0

    def __call__(self, name: str) -> object:
        assert name == "gpgan._cuda"
        result = self.results[min(self.calls, len(self.results) - 1)]
        self.calls += 1
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def imported(monkeypatch):
    def install(*results):
        importer = Importer(*results)
        monkeypatch.setattr(_cuda_library.importlib, "import_module", importer)
        return importer

    return install


def no_device() -> int:
    raise RuntimeError("no CUDA-capable device is detected")


def module(*names: str) -> SimpleNamespace:
    return SimpleNamespace(
        device_count=lambda: len(names), device_name=names.__getitem__, cufft_version=lambda: "12.0.0"
    )


def test_status_names_the_devices(imported):
    imported(module("NVIDIA H100"))
    assert _cuda_library.status() == (True, "NVIDIA H100 (cuFFT 12.0.0)")
    imported(module("NVIDIA H100", "NVIDIA A10"))
    assert _cuda_library.status() == (True, "NVIDIA H100, NVIDIA A10 (cuFFT 12.0.0)")


def test_status_without_a_device_passes_the_reason_on(imported):
    imported(SimpleNamespace(device_count=no_device))
    assert _cuda_library.status() == (False, "no CUDA device: no CUDA-capable device is detected")
    imported(module())
    assert _cuda_library.status() == (False, "no CUDA device: the runtime finds none")


def test_status_of_a_build_without_the_backend(imported):
    imported(ModuleNotFoundError("No module named 'gpgan._cuda'", name="gpgan._cuda"))
    assert _cuda_library.status() == (False, "this build of gpgan has no CUDA backend")
    with pytest.raises(ImportError, match=r"^this build of gpgan has no CUDA backend$"):
        _cuda_library.load()


@pytest.mark.parametrize(
    "message", ["libstdc++.so.6: cannot open shared object file", "_cuda.so: undefined symbol: cufftExecR2C"]
)
def test_load_passes_other_reasons_on_and_tries_once(imported, message):
    importer = imported(ImportError(message))
    assert _cuda_library.status() == (False, f"the CUDA backend cannot be loaded: {message}")
    assert importer.calls == 1


@pytest.mark.parametrize(("major", "package"), [(12, "nvidia-cufft"), (11, "nvidia-cufft-cu12")])
def test_load_says_how_to_get_cufft(imported, monkeypatch, major, package):
    importer = imported(ImportError(NOT_FOUND.replace("12", str(major))))
    monkeypatch.setattr(_cuda_library, "_copies", lambda library: iter(()))
    expected = f"cuFFT (libcufft.so.{major}) was not found: pip install {package}"
    assert _cuda_library.status() == (False, expected)
    assert importer.calls == 1


def test_load_brings_cufft_and_tries_again_once(imported, monkeypatch, tmp_path):
    # NVIDIA's packages: a namespace with parts in two places, the library in the second.
    (tmp_path / "a/nvidia/cublas/lib").mkdir(parents=True)
    library = tmp_path / "b/nvidia/cu13/lib/libcufft.so.12"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), *sys.path])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append((path, mode)))

    importer = imported(ImportError(NOT_FOUND), module("NVIDIA H100"))
    assert _cuda_library.load().device_count() == 1
    assert loaded == [(str(library), ctypes.RTLD_GLOBAL)]
    assert importer.calls == 2

    importer = imported(ImportError(NOT_FOUND))
    assert _cuda_library.status() == (False, f"the CUDA backend cannot be loaded: {NOT_FOUND}")
    assert importer.calls == 2


def test_load_says_what_is_wrong_with_the_library(imported, monkeypatch, tmp_path):
    broken = tmp_path / "libcufft.so.12"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(_cuda_library, "_copies", lambda library: iter([broken]))
    imported(ImportError(NOT_FOUND))
    available, reason = _cuda_library.status()
    assert not available
    assert reason.startswith(f"cuFFT cannot be loaded: {broken}: ")


def test_import_loads_no_cuda():
    code = "import sys, gpgan; print('gpgan._cuda' in sys.modules)"
    assert run(sys.executable, "-c", code).stdout == "False\n"


def test_info_says_what_status_says():
    available, detail = _cuda_library.status()
    facts = json.loads(run(sys.executable, "-m", "gpgan", "info", "--json").stdout)
    assert facts["cuda"] == {"available": available, "detail": detail}
    shown = detail if available else f"unavailable: {detail}"
    assert f"CUDA             {shown}\n" in run(sys.executable, "-m", "gpgan", "info").stdout


# ---------------------------------------------------------------------------------------------------- what was built


def test_status_here():
    available, detail = _cuda_library.status()
    if BUILT is None:
        assert (available, detail) == (False, "this build of gpgan has no CUDA backend")
    elif available:
        assert re.search(r" \(cuFFT \d+\.\d+\.\d+\)$", detail)
    else:
        # With the runtime's own words.
        assert re.match("no CUDA device: .*(driver|device)", detail)


@needs_build
def test_module_is_of_this_version():
    assert BUILT is not None, "GPGAN_REQUIRE_CUDA_BUILD=1, and no module gpgan._cuda"
    assert _cuda_library.load().version() == _core.version()


@needs_build
def test_module_needs_cufft_and_holds_no_cpu_kernels():
    assert BUILT is not None
    dynamic = run("readelf", "-d", BUILT.origin).stdout
    assert re.search(r"NEEDED.*libcufft\.so", dynamic)
    assert not re.search(r"NEEDED.*(cudart|libcuda)", dynamic)
    assert re.search(r"RUNPATH.*\$ORIGIN/\.\./nvidia/cu13/lib\b", dynamic)
    # The names of its types: virtual ones bring them along.
    assert b"gpgan3cpu" in Path(_core.__file__).read_bytes()
    assert b"gpgan3cpu" not in Path(BUILT.origin).read_bytes()


@pytest.fixture
def apart(tmp_path):
    """The package in a folder that has no cuFFT beside it."""
    assert BUILT is not None
    (tmp_path / "gpgan").mkdir()
    places = [*map(Path, gpgan.__path__), Path(BUILT.origin).parent]
    for path in {path.name: path for place in places for path in place.iterdir()}.values():
        # The loader takes a link for the place that it is in, but not so Python's own files.
        (tmp_path / "gpgan" / path.name).symlink_to(path)
    link = tmp_path / "gpgan" / Path(BUILT.origin).name
    link.unlink()
    shutil.copy(BUILT.origin, link)
    return tmp_path


@needs_build
def test_module_apart_from_cufft_is_loaded_with_it(apart):
    code = "import gpgan; print(gpgan.__file__); {}; from gpgan import _cuda_library as c; print(c.load().version())"
    alone = run(sys.executable, "-c", code.format("import gpgan._cuda"), PYTHONPATH=str(apart))
    assert NOT_FOUND in alone.stderr
    helped = run(sys.executable, "-c", code.format("pass"), PYTHONPATH=str(apart))
    assert helped.stdout.split() == [str(apart / "gpgan/__init__.py"), _core.version()], helped.stderr


@needs_build
def test_module_without_cufft_says_how_to_get_it(apart):
    code = "from gpgan import _cuda_library as c; c._copies = lambda name: iter(()); print(*c.status())"
    done = run(sys.executable, "-c", code, PYTHONPATH=str(apart))
    assert re.fullmatch(r"False cuFFT \(libcufft\.so\.\d+\) was not found: pip install nvidia-cufft\S*\n", done.stdout)


@needs_build
def test_cpp_project_links_the_library(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(consume LANGUAGES CXX)\n"
        "find_package(gpgan REQUIRED COMPONENTS cuda)\n"
        "add_executable(consume main.cpp)\n"
        "target_link_libraries(consume PRIVATE gpgan::cuda)\n"
    )
    (tmp_path / "main.cpp").write_text(
        "#include <iostream>\n"
        '#include "gpgan/cuda.hpp"\n'
        "int main() try {\n"
        "  gpgan::cuda::make_blender({}, 64, 64, 3);\n"
        '  std::cout << "made";\n'
        "} catch (const gpgan::DeviceError& error) {\n"
        "  std::cout << error.what();\n"
        "}\n"
    )
    cmake_build(tmp_path, tmp_path / "build")
    done = run(tmp_path / "build" / "consume")
    assert done.returncode == 0, done.stderr
    assert re.search("made" if _cuda_library.status()[0] else "driver|device", done.stdout)


# ------------------------------------------------------------------------------------------------------- configuring


def configure(build: Path, *definitions: object, **environment: str) -> tuple[int, str]:
    tools = {"PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]} | environment
    command = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DGPGAN_CPU_DISPATCH=OFF", *definitions]
    done = run(*command, **tools)
    # CMake breaks messages into lines.
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def fake_cufft(tmp_path):
    for file in ("include/cufft.h", "lib/libcufft.so.12"):
        (tmp_path / "root" / file).parent.mkdir(parents=True)
        (tmp_path / "root" / file).touch()
    return tmp_path / "root"


WITHOUT_CUFFT = "-DCMAKE_DISABLE_FIND_PACKAGE_GpganCufft=ON"


@pytest.mark.parametrize("value", ["maybe", ""])
def test_configure_refuses_other_values(tmp_path, value):
    code, said = configure(tmp_path, f"-DGPGAN_CUDA={value}")
    assert code != 0
    assert f"GPGAN_CUDA: expected AUTO, ON or OFF, got '{value}'" in said


def test_configure_off_says_so(tmp_path):
    assert configure(tmp_path, "-DGPGAN_CUDA=OFF")[0] == 0
    assert "-- CUDA backend: off, as GPGAN_CUDA says --" in configure(tmp_path)[1]


def test_configure_by_itself_is_off_without_cufft(tmp_path):
    code, said = configure(tmp_path, WITHOUT_CUFFT)
    assert code == 0
    assert re.search("-- CUDA backend: off, not found: .*cuFFT", said)
    assert "CUDA compiler" not in said


def test_configure_on_says_what_is_missing_and_how_to_get_it(tmp_path):
    code, said = configure(tmp_path, WITHOUT_CUFFT, "-DGPGAN_CUDA=ON")
    assert code != 0
    assert "GPGAN_CUDA=ON: not found: " in said
    assert "pip install nvidia-cufft==12.0.0.61" in said
    assert "-DGPGAN_CUFFT_ROOT=" in said


@pytest.mark.parametrize("value", ["ON", "AUTO"])
def test_configure_tells_of_an_nvcc_that_does_not_work(tmp_path, fake_cufft, value):
    code, said = configure(
        tmp_path / "build", f"-DGPGAN_CUFFT_ROOT={fake_cufft}", "-DGPGAN_NVCC=/bin/false", f"-DGPGAN_CUDA={value}",
        CUDACXX="",
    )  # fmt: skip
    assert "not found: an nvcc that works with this C++ compiler (/bin/false does not)" in said
    assert (code == 0) == (value == "AUTO")


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_configure_by_itself_is_on_with_nvcc_and_cufft(tmp_path, fake_cufft):
    code, said = configure(
        tmp_path / "build", f"-DGPGAN_CUFFT_ROOT={fake_cufft}", "-DCMAKE_CUDA_ARCHITECTURES=80;90", CUDACXX=str(NVCC)
    )
    assert code == 0, said
    assert re.search(r"-- CUDA backend: on, nvcc \d+\.\d+\.\d+ for 80;90, cuFFT (\S+) ", said)[1] == str(
        fake_cufft / "lib/libcufft.so.12"
    )


# ---------------------------------------------------------------------------------- the check of the kernels' resources


def entry(name: str = "some_kernel", spills: tuple[int, int] = (0, 0), used: str = "Used 40 registers, 512 bytes smem"):
    return (
        f"ptxas info    : Compiling entry function '{name}' for 'sm_90'\n"
        f"ptxas info    : Function properties for {name}\n"
        f"    16 bytes stack frame, {spills[0]} bytes spill stores, {spills[1]} bytes spill loads\n"
        f"ptxas info    : {used}\n"
    )


def called(spills: int) -> str:
    return (
        "ptxas info    : Function properties for helper\n"
        f"    0 bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads\n"
    )


def check(tmp_path: Path, log: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "log").write_text(log, encoding="utf-8")
    return run(sys.executable, CHECK, tmp_path / "log")


def test_check_shows_what_kernels_take(tmp_path):
    log = "[1/2] Building CUDA object\nptxas info    : 0 bytes gmem\n" + entry() + called(0) + entry("other_kernel")
    done = check(tmp_path, log)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +40 +512 +16 +0  some_kernel \(sm_90\)$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("\n2 kernels\n")
    # Registers, but no shared memory.
    assert " 24       0     16      0  " in check(tmp_path, entry(used="Used 24 registers, used 1 barriers")).stdout


@pytest.mark.parametrize(
    "spilling", [entry("bad_kernel", (4, 0)), entry("bad_kernel", (0, 8)), entry("bad_kernel") + called(12)]
)
def test_check_refuses_spills(tmp_path, spilling):
    done = check(tmp_path, entry() + spilling + entry())
    assert done.returncode == 1
    assert re.fullmatch(r"bad_kernel \(sm_90\): \d+ bytes of spills\n", done.stderr)


@pytest.mark.parametrize("log", ["", "[1/1] Linking\nptxas info    : 0 bytes gmem\n" + called(0)])
def test_check_refuses_a_log_without_kernels(tmp_path, log):
    done = check(tmp_path, log)
    assert done.returncode == 1
    assert done.stderr.startswith("no kernel in the log")


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_check_refuses_half_a_log(tmp_path, lines):
    done = check(tmp_path, entry() + "".join(entry("half_kernel").splitlines(keepends=True)[:lines]))
    assert done.returncode == 1
    assert done.stderr == "half_kernel (sm_90): the log does not say everything\n"


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("registers", [24, 255])
def test_check_catches_a_planted_spill(tmp_path, registers):
    # 48 values that are all there at once.
    (tmp_path / "spill.cu").write_text(
        "__global__ void spill_kernel(float* x) {\n"
        "  float y[48];\n"
        "#pragma unroll\n  for (int i = 0; i < 48; ++i) y[i] = x[64 * i + threadIdx.x];\n"
        "  __syncthreads();\n"
        "#pragma unroll\n  for (int i = 0; i < 48; ++i) x[64 * i + threadIdx.x] = y[i] * y[47 - i];\n"
        "}\n",
        encoding="utf-8",
    )
    flags = ["-arch=sm_90", "-Xptxas=-v", f"-maxrregcount={registers}"]
    built = run(NVCC, *flags, "-cubin", "-o", tmp_path / "spill.cubin", tmp_path / "spill.cu")
    assert built.returncode == 0, built.stderr
    done = check(tmp_path, built.stdout + built.stderr)
    assert done.returncode == (1 if registers == 24 else 0), done.stdout
    assert ("bytes of spills" in done.stderr) == (registers == 24)
