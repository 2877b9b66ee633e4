"""The programs of examples/cpp, built against this gpgan and this torch: they give what Python gives."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import cmake_build
from PIL import Image

import gpgan
from gpgan.nn.export import export
from gpgan.nn.model import ColorCorrector

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "examples" / "cpp"
SAMPLES = Path(gpgan.__file__).parent / "samples"
SHIPPED = Path(gpgan.__file__).parent / "weights" / "default.pt"


def where_torch_is(folder: Path) -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    # The TorchConfig.cmake of a build for GPUs insists on their toolkit, which nothing here needs.
    root = Path(torch.__file__).parent
    (folder / "TorchConfig.cmake").write_text(
        f"""
        include_directories(SYSTEM "{root}/include" "{root}/include/torch/csrc/api/include")
        set(TORCH_LIBRARIES "{root}/lib/libtorch_cpu.so" "{root}/lib/libc10.so" -Wl,--allow-shlib-undefined)
        set(TORCH_CXX_FLAGS -D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())})
        """
    )
    return f"-DTorch_DIR={folder}"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs."""
    build = tmp_path_factory.mktemp("build")
    cmake_build(EXAMPLE, build, where_torch_is(tmp_path_factory.mktemp("torch")))
    return build


def run(program: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A piece of the sample's target in another light, the target, and a mask of 0 and 1."""
    folder = tmp_path_factory.mktemp("pictures")
    target = Image.open(SAMPLES / "target.jpg").crop((400, 300, 1000, 680))
    target.save(folder / "target.png")
    light = np.asarray(target) * np.array([0.6, 0.5, 0.4]) + 20
    Image.fromarray(light.astype(np.uint8)).save(folder / "source.png")
    mask = np.zeros((target.height, target.width), np.uint8)
    mask[76:304, 150:450] = 1
    Image.fromarray(mask).save(folder / "mask.png")
    return folder / "source.png", folder / "target.png", folder / "mask.png"


def assert_within_a_level(out: Path, expected: Image.Image) -> None:
    given, expected = (np.asarray(image).astype(int) for image in (Image.open(out), expected))
    assert given.shape == expected.shape
    # The same core and the same torch: what may differ is the order in which another build adds.
    assert np.abs(given - expected).max() <= 1


def test_blend_gives_what_python_gives_for_the_samples(programs, tmp_path):
    images = [SAMPLES / name for name in ("source.jpg", "target.jpg", "mask.png")]
    done = run(programs / "blend", SHIPPED, *images, tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert_within_a_level(tmp_path / "out.png", gpgan.blend(*map(Image.open, images)))


def test_blend_reads_the_size_from_the_file(programs, pictures, tmp_path):
    torch.manual_seed(0)
    generator = ColorCorrector(32, 8)
    for parameter in generator.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    export(generator, tmp_path / "small.pt", image_size=32, architecture="x", training_data='"image_size": 7')
    results = [gpgan.blend(*map(Image.open, pictures), generator=None)]
    for model in (SHIPPED, tmp_path / "small.pt"):
        done = run(programs / "blend", model, *pictures, tmp_path / "out.png")
        assert (done.returncode, done.stderr) == (0, "")
        results.append(gpgan.blend(*map(Image.open, pictures), generator=model))
        assert_within_a_level(tmp_path / "out.png", results[-1])
    # What the generators do can be seen: agreeing on nothing would prove nothing.
    none, shipped, small = (np.asarray(result).astype(int) for result in results)
    assert np.abs(shipped - none).max() > 5
    assert np.abs(small - none).max() > 5


def test_blend_without_torch_gives_what_python_gives(programs, pictures, tmp_path):
    done = run(programs / "blend_without_torch", *pictures, tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (0, "")

    def failing_light(composite, mask, harmonized, source):
        return np.clip(harmonized * (1 - np.float32(0.1) * mask[..., None]), 0, 1)

    expected = gpgan.blend(*map(Image.open, pictures), generator=failing_light)
    assert_within_a_level(tmp_path / "out.png", expected)


def test_bad_files_end_in_one_line(programs, pictures, tmp_path):
    source, target, mask = pictures
    (tmp_path / "cut.png").write_bytes(target.read_bytes()[:1000])
    (tmp_path / "cut.jpg").write_bytes((SAMPLES / "target.jpg").read_bytes()[:5000])
    (tmp_path / "text.jpg").write_bytes(b"\xff no photo")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(tmp_path / "nameless.pt"))
    out = tmp_path / "out.png"
    for arguments, message in (
        ([SHIPPED, source, tmp_path / "no.png", mask, out], r"no\.png: cannot read"),
        ([SHIPPED, source, tmp_path / "cut.png", mask, out], r"cut\.png: no sound JPEG or PNG: "),
        ([SHIPPED, source, tmp_path / "cut.jpg", mask, out], r"cut\.jpg: "),
        ([SHIPPED, tmp_path / "text.jpg", target, mask, out], r"text\.jpg: "),
        ([SHIPPED, source, target, SAMPLES / "mask.png", out], r"mask: expected the source's size"),
        ([tmp_path / "nameless.pt", source, target, mask, out], r"has no gpgan\.json with an image_size"),
        ([tmp_path / "no.pt", source, target, mask, out], r"no\.pt"),
        ([SHIPPED, source, target, mask, tmp_path / "no" / "out.png"], r"out\.png: No such file"),
    ):
        done = run(programs / "blend", *arguments)
        assert done.returncode == 2
        assert re.fullmatch(rf"blend: .*{message}.*\n", done.stderr), done.stderr
    assert not out.exists()


def test_readme_shows_the_example():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("\n## C++") :]
    shown = re.search(r"```cpp\n(.*?)```", section, re.DOTALL)[1]
    example = [line.strip() for line in (EXAMPLE / "blend.cpp").read_text(encoding="utf-8").splitlines()]
    for part in shown.strip().split("\n\n"):
        assert "\n".join(line.strip() for line in part.splitlines()) in "\n".join(example)
    assert len(shown.splitlines()) <= 25
