"""TorchScript files: parity, metadata, refusals, and the shipped generator."""

import io
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gpgan.nn import export as exporting
from gpgan.nn.export import METADATA_FILE, export, load
from gpgan.nn.model import BlendingGAN, ColorCorrector

from .test_model import contract_inputs, scrambled

WEIGHTS = Path(exporting.__file__).parents[1] / "weights"
METADATA = {"image_size": 16, "architecture": "a test", "version": 1, "training_data": "none"}


class Harmonized(nn.Module):
    """The smallest generator there is."""

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized


class Brighter(Harmonized):
    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized + 1


class Undefined(Harmonized):
    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized / (0 * harmonized)


class Sized(Harmonized):
    """Works at 32 x 32 alone."""

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized.view(-1, 3, 32, 32)


class Larger(Harmonized):
    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return nn.functional.interpolate(harmonized, scale_factor=2.0)


def write(path: Path, module: nn.Module, metadata: object = METADATA) -> Path:
    """A TorchScript file without any of export's checks."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    torch.jit.save(torch.jit.script(module), str(path), _extra_files={METADATA_FILE: text})
    return path


@pytest.mark.parametrize("make", [lambda: scrambled(32), lambda: BlendingGAN(32, 4, 8)])
def test_export_parity(make: object, tmp_path: Path) -> None:
    generator = make()
    path = export(
        generator,
        tmp_path / "g.pt",
        image_size=32,
        architecture="x",
        training_data="y",
        extras={"note": [1, "z"]},
    )
    module, metadata = load(path)
    assert metadata == {
        "image_size": 32, "architecture": "x", "version": 1, "training_data": "y", "note": [1, "z"]
    }  # fmt: skip
    assert not module.training
    for n in (1, 3):
        inputs = contract_inputs(n, 32, seed=n)
        with torch.inference_mode():
            torch.testing.assert_close(module(*inputs), generator.eval()(*inputs), rtol=0, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["g.pt"]


def test_export_keeps_the_training_mode(tmp_path: Path) -> None:
    generator = BlendingGAN(16, 4, 8).train()
    export(generator, tmp_path / "g.pt", image_size=16, architecture="x", training_data="y")
    assert generator.training


def test_export_refuses_broken_generators(tmp_path: Path) -> None:
    say = {"image_size": 16, "architecture": "x", "training_data": "y"}
    with pytest.raises(ValueError, match=r"the generator: expected colours in \[0, 1\]"):
        export(Brighter(), tmp_path / "g.pt", **say)
    with pytest.raises(ValueError, match="expected architecture of type str, got 3"):
        export(Harmonized(), tmp_path / "g.pt", **say | {"architecture": 3})
    assert not list(tmp_path.iterdir())


def test_load_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load(tmp_path / "nothing.pt")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        load(tmp_path)


def test_load_refuses_large_files(tmp_path: Path) -> None:
    path = write(tmp_path / "g.pt", Harmonized())
    with pytest.raises(ValueError, match=r"over max_bytes = 100"):
        load(path, max_bytes=100)


def test_load_refuses_what_is_no_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    for content in (b"", b"not a model", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"g\.pt' is no TorchScript file"):
            load(path)
    torch.save(ColorCorrector(32, 8).state_dict(), path)  # a zip archive as well
    with pytest.raises(ValueError, match="is no TorchScript file"):
        load(path)


def test_load_refuses_damaged_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "g.pt", scrambled(32)).read_bytes()
    (tmp_path / "g.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"g\.pt' is (no TorchScript|a damaged)"):
        load(tmp_path / "g.pt")


def test_load_refuses_missing_metadata(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Harmonized()), str(tmp_path / "g.pt"))
    with pytest.raises(ValueError, match=r"g\.pt' has no gpgan\.json"):
        load(tmp_path / "g.pt")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "is no JSON"),
        ([], "expected a JSON object, got list"),
        ({}, "expected image_size of type int, got None"),
        (METADATA | {"image_size": "64"}, "expected image_size of type int, got '64'"),
        (METADATA | {"image_size": True}, "expected image_size of type int, got True"),
        (METADATA | {"image_size": 0}, r"expected image_size in 1\.\.1024, got 0"),
        (METADATA | {"image_size": 10**9}, r"expected image_size in 1\.\.1024"),
        (METADATA | {"version": 2}, "expected version 1, got 2"),
        (METADATA | {"training_data": None}, "expected training_data of type str, got None"),
    ],
)
def test_load_refuses_metadata(tmp_path: Path, metadata: object, message: str) -> None:
    path = write(tmp_path / "g.pt", Harmonized(), metadata)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "g.pt" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Sized(), "does not run on four 16 x 16 images"),
        (Larger(), r"expected an output of shape \(1, 3, 16, 16\), got \(1, 3, 32, 32\)"),
        (Brighter(), r"expected colours in \[0, 1\], got \[1\."),
        (Undefined(), "expected finite colours"),
        (nn.Identity(), "does not run on four"),
    ],
)
def test_load_refuses_a_broken_contract(tmp_path: Path, module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "g.pt", module))


# --- The shipped generator ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> tuple[torch.jit.ScriptModule, dict]:
    return load(WEIGHTS / "default.pt")


def test_shipped_is_small(shipped: tuple[torch.jit.ScriptModule, dict]) -> None:
    assert (WEIGHTS / "default.pt").stat().st_size <= 15e6
    assert sum(p.numel() for p in shipped[0].parameters()) <= 5_000_000
    assert (WEIGHTS / "default.md").read_text().startswith("# ")


def test_shipped_leaves_the_outside_and_equals_alone(shipped: tuple[torch.jit.ScriptModule, dict]) -> None:
    module, metadata = shipped
    composite, mask, harmonized, source = contract_inputs(1, metadata["image_size"])
    outside = (mask == 0).expand_as(source)
    with torch.inference_mode():
        colour = module(composite, mask, harmonized, source)
        same = module(source, mask, source, source)
    assert torch.equal(colour[outside], composite[outside])
    assert (same - source).abs().max() < 1 / 255


def test_shipped_is_what_the_code_says(shipped: tuple[torch.jit.ScriptModule, dict]) -> None:
    """The file's weights fit the class in this package, and give the same through it."""
    module, metadata = shipped
    generator = ColorCorrector(metadata["image_size"], metadata["width"]).eval()
    generator.load_state_dict(module.state_dict())
    inputs = contract_inputs(2, metadata["image_size"])
    with torch.inference_mode():
        torch.testing.assert_close(module(*inputs), generator(*inputs), rtol=0, atol=1e-5)


def test_shipped_loads_from_memory(shipped: tuple[torch.jit.ScriptModule, dict]) -> None:
    """Nothing in the file depends on its path: C++ applications may embed it."""
    buffer = io.BytesIO((WEIGHTS / "default.pt").read_bytes())
    assert torch.jit.load(buffer)(*contract_inputs(1, shipped[1]["image_size"])).shape[1] == 3
