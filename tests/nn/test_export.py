"""TorchScript and ONNX files: parity, metadata, refusals, runs, and the shipped generator."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gpgan.nn import export as exporting
from gpgan.nn.export import INPUTS, METADATA_FILE, OUTPUT, export, export_onnx, export_run, load
from gpgan.nn.model import BlendingGAN, ColorCorrector
from gpgan.nn.train import DEFAULT, PAPER, TrainConfig, load_run, train

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


class Precise(Harmonized):
    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized.double()


class Listing(nn.Module):
    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> list[Tensor]:
        return [harmonized]


class OneInput(nn.Module):
    def forward(self, composite: Tensor) -> Tensor:
        return composite


class FiveInputs(nn.Module):
    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return target


class Transposed(Harmonized):
    """Uses what the ONNX exporter does not know."""

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized.mT


class Decides(Harmonized):
    """Takes one of two ways: scripts well, and traces wrongly."""

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        return harmonized if harmonized.shape[0] == 1 else composite


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
            torch.testing.assert_close(module(*inputs), generator.eval()(*inputs), rtol=0, atol=1e-5)
    assert str(Path(exporting.__file__).parent).encode() not in path.read_bytes()  # whose machine it was
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
    export_onnx(Harmonized(), path, image_size=16, architecture="x", training_data="y")
    with pytest.raises(ValueError, match="is no TorchScript file"):
        load(path)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_load_refuses_cut_off_files(tmp_path: Path, part: float) -> None:
    whole = write(tmp_path / "g.pt", scrambled(32)).read_bytes()
    (tmp_path / "g.pt").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"g\.pt' is no TorchScript"):
        load(tmp_path / "g.pt")


def test_load_names_damaged_files(tmp_path: Path) -> None:
    """Whatever byte is wrong, it is a ValueError with the file's name, or no harm."""
    path = write(tmp_path / "g.pt", BlendingGAN(16, 1, 1))
    whole = path.read_bytes()
    damaged = 0
    for seed in range(60):
        random = torch.Generator().manual_seed(seed)
        content = bytearray(whole)
        for place in torch.randint(len(content), (30,), generator=random).tolist():
            content[place] ^= 0xFF
        path.write_bytes(content)
        try:
            load(path)
        except ValueError as error:
            assert "g.pt" in str(error)
            damaged += 1
    assert damaged > 30


def rewrite(path: Path, changed: str, content: bytes) -> None:
    """The same archive, compressed, with other content under one name."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, old in members.items():
            archive.writestr(name, content if name.endswith(changed) else old)


def test_load_refuses_what_unpacks_to_too_much(tmp_path: Path) -> None:
    path = write(tmp_path / "g.pt", Harmonized())
    rewrite(path, METADATA_FILE, json.dumps(METADATA | {"note": " " * 2**21}).encode())
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"gpgan\.json of '.*g\.pt': expected 1048576 bytes at most"):
        load(path)
    with pytest.raises(ValueError, match=r"g\.pt' unpacks to \d+ bytes, over max_bytes = 1000000"):
        load(path, max_bytes=10**6)
    rewrite(path, METADATA_FILE, json.dumps(METADATA).encode())  # compression alone is no reason
    assert load(path)[1] == METADATA


def test_load_refuses_missing_metadata(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Harmonized()), str(tmp_path / "g.pt"))
    with pytest.raises(ValueError, match=r"g\.pt' has no gpgan\.json"):
        load(tmp_path / "g.pt")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 200_000, "is no JSON"),
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
        (Precise(), r"expected an output of torch\.float32, got torch\.float64"),
        (Listing(), r"expected an output of shape \(1, 3, 16, 16\), got list"),
        (OneInput(), "does not run on four"),
        (FiveInputs(), "does not run on four"),
        (nn.Identity(), "does not run on four"),
        (scrambled(32), "made for image_size 32, not the 16 of its metadata"),
        (BlendingGAN(32, 4, 8), "made for image_size 32, not the 16 of its metadata"),
    ],
)
def test_load_refuses_a_broken_contract(tmp_path: Path, module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(write(tmp_path / "g.pt", module.eval()))
    assert "g.pt" in str(caught.value)


@pytest.mark.parametrize("module", [BlendingGAN(16, 4, 8), scrambled(32)])
def test_load_refuses_a_larger_size_than_the_networks(tmp_path: Path, module: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"made for image_size (16|32), not the 64"):
        load(write(tmp_path / "g.pt", module.eval(), METADATA | {"image_size": 64}))


# --- ONNX ---------------------------------------------------------------------------------------------------


def run_onnx(path: Path, inputs: tuple[Tensor, ...]) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)}
    return torch.from_numpy(session.run([OUTPUT], feed)[0])


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize(
    ("make", "size"), [(lambda: scrambled(64), 64), (lambda: scrambled(32), 32), (lambda: BlendingGAN(32, 4, 8), 32)]
)
def test_export_onnx_parity(make: object, size: int, opset: int, tmp_path: Path) -> None:
    generator = make()
    say = {"image_size": size, "architecture": "x", "training_data": "y", "extras": {"note": [1, "z"]}}
    path = export_onnx(generator, tmp_path / "g.onnx", opset=opset, **say)
    for n in (1, 2, 5):
        inputs = contract_inputs(n, size, seed=n)
        with torch.inference_mode():
            expected = generator.eval()(*inputs)
        torch.testing.assert_close(run_onnx(path, inputs), expected, rtol=0, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["g.onnx"]

    model = onnx.load(path)
    assert model.opset_import[0].version == opset
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "image_size": str(size), "architecture": "x", "version": "1", "training_data": "y", "note": '[1, "z"]'
    }  # fmt: skip
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert list(shapes) == [*INPUTS, OUTPUT]  # all four, though the paper's network ignores three
    assert shapes.pop("mask") == ["batch", 1, size, size]
    assert all(shape == ["batch", 3, size, size] for shape in shapes.values())
    assert str(Path(exporting.__file__).parent).encode() not in path.read_bytes()  # whose machine it was


@pytest.mark.parametrize(
    ("generator", "architecture"),
    [(scrambled(32), "color-corrector"), (BlendingGAN(32, 4, 8), "blending-gan"), (ColorCorrector(64, 16), None)],
)
def test_export_onnx_takes_torchscript_files(generator: nn.Module, architecture: str | None, tmp_path: Path) -> None:
    size = generator.image_size
    file = export(
        generator, tmp_path / "g.pt", image_size=size, architecture=architecture or "color-corrector",
        training_data="y", extras={"note": 1},
    )  # fmt: skip
    path = export_onnx(file, tmp_path / "g.onnx")
    inputs = contract_inputs(2, size)
    with torch.inference_mode():
        torch.testing.assert_close(run_onnx(path, inputs), load(file)[0](*inputs), rtol=0, atol=3e-5)
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert said == {key: str(value) for key, value in load(file)[1].items()}


def test_export_onnx_keeps_the_training_mode(tmp_path: Path) -> None:
    generator = BlendingGAN(16, 4, 8).train()
    export_onnx(generator, tmp_path / "g.onnx", image_size=16, architecture="x", training_data="y")
    assert generator.training


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (Decides(), r"the ONNX file differs by 0\.\d+ from the generator, over 0\.0001"),
        (Transposed(), "the generator does not export to ONNX opset 17: .*aten::mT"),
        (Brighter(), r"the generator: expected colours in \[0, 1\]"),
        (BlendingGAN(32, 4, 8), "the generator: made for image_size 32, not the 16 of its metadata"),
    ],
)
def test_export_onnx_refuses_what_it_does_not_reproduce(generator: nn.Module, message: str, tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(ValueError, match=message):
        export_onnx(generator, path, image_size=16, architecture="x", training_data="y")
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == ["g.onnx"]


def test_export_onnx_refuses_arguments(tmp_path: Path) -> None:
    say = {"image_size": 16, "architecture": "x", "training_data": "y"}
    for opset in (12, 21, 17.0):
        with pytest.raises(ValueError, match=f"opset: expected 13 to 20, got {opset}"):
            export_onnx(Harmonized(), tmp_path / "g.onnx", opset=opset, **say)
    with pytest.raises(ValueError, match="expected image_size of type int, got None"):
        export_onnx(Harmonized(), tmp_path / "g.onnx")
    with pytest.raises(TypeError, match=r"generator: expected an nn\.Module that is not scripted"):
        export_onnx(torch.jit.script(Harmonized()), tmp_path / "g.onnx", **say)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        export_onnx(tmp_path / "nothing.pt", tmp_path / "g.onnx")
    file = write(tmp_path / "g.pt", Harmonized())
    with pytest.raises(ValueError, match="expected none beside a file"):
        export_onnx(file, tmp_path / "g.onnx", image_size=16)
    with pytest.raises(
        ValueError, match=r"g\.pt': expected the architecture color-corrector or blending-gan, got 'a t"
    ):
        export_onnx(file, tmp_path / "g.onnx")
    write(file, Harmonized(), METADATA | {"architecture": "blending-gan"})
    with pytest.raises(ValueError, match=r"g\.pt' does not hold the weights of gpgan's blending-gan"):
        export_onnx(file, tmp_path / "g.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["g.pt"]


# --- Runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corrector_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Two steps of the corrector at S = 32; its last layers start at zero."""
    config = replace(
        DEFAULT, run=str(tmp_path_factory.mktemp("corrector")), scenes=str(photos / "scenes"), pool=False, pairs=8,
        steps=2, stop=None, batch_size=2, image_size=32, width=8, critic_width=2, reconstruction=1.0,
        validate_every=2, validation_pairs=2,
    )  # fmt: skip
    train(config, progress=False)
    return config


@pytest.mark.parametrize("name", ["g.pt", "g.PTS"])
def test_export_run_writes_torchscript(corrector_run: TrainConfig, name: str, tmp_path: Path) -> None:
    path = export_run(corrector_run.run, tmp_path / name, training_data="boxes")
    assert path == tmp_path / name
    module, metadata = load(path)
    assert metadata == {
        "image_size": 32, "architecture": "color-corrector", "version": 1, "training_data": "boxes", "width": 8
    }  # fmt: skip
    inputs = contract_inputs(2, 32)
    with torch.inference_mode():
        expected = load_run(corrector_run.run)[0](*inputs)
        torch.testing.assert_close(module(*inputs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["g.pt", "g.onnx"])
def test_export_run_changes_the_correctors_size(corrector_run: TrainConfig, name: str, tmp_path: Path) -> None:
    path = export_run(corrector_run.run, tmp_path / name, which="last", image_size=64)
    finer = ColorCorrector(64, 8).eval()
    finer.load_state_dict(load_run(corrector_run.run, "last")[0].state_dict())
    inputs = contract_inputs(2, 64)
    with torch.inference_mode():
        given = run_onnx(path, inputs) if name.endswith("onnx") else load(path)[0](*inputs)
        torch.testing.assert_close(given, finer(*inputs), rtol=0, atol=3e-5)


def test_export_run_takes_the_papers_network(photos: Path, tmp_path: Path) -> None:
    config = replace(
        PAPER, run=str(tmp_path / "run"), scenes=str(photos / "scenes"), pairs=8, steps=2, batch_size=2,
        image_size=16, width=4, bottleneck=8, critic_width=2, critic_steps=1, critic_boost=1, validate_every=2,
        validation_pairs=2,
    )  # fmt: skip
    train(config, progress=False)
    path = export_run(config.run, tmp_path / "g.onnx", opset=18)
    model = onnx.load(path)
    assert model.opset_import[0].version == 18
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said == {
        "image_size": "16", "architecture": "blending-gan", "version": "1", "training_data": "not stated", "width": "4"
    }  # fmt: skip
    export_run(config.run, tmp_path / "g.pt", image_size=16)
    with pytest.raises(ValueError, match="image_size: expected 16, the run's own, got 32"):
        export_run(config.run, tmp_path / "g.pt", image_size=32)


def test_export_run_refuses_arguments(corrector_run: TrainConfig, tmp_path: Path) -> None:
    run = corrector_run.run
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.pt, \.pts or \.onnx, got '.*g\.zip'"):
        export_run(run, tmp_path / "g.zip")
    with pytest.raises(ValueError, match="opset: expected none for a TorchScript file, got 17"):
        export_run(run, tmp_path / "g.pt", opset=17)
    with pytest.raises(ValueError, match="which must be 'best' or 'last', but is 'first'"):
        export_run(run, tmp_path / "g.pt", which="first")
    with pytest.raises(ValueError, match="image_size must be a power of two, 32 at least, but is 48"):
        export_run(run, tmp_path / "g.pt", image_size=48)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export_run(tmp_path / "nowhere", tmp_path / "g.pt")
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("box", [(40, 77, 5, 125), (48, 80, 50, 82)])
def test_shipped_agrees_with_float64(
    shipped: tuple[torch.jit.ScriptModule, dict], box: tuple[int, int, int, int]
) -> None:
    """A wide mask whose cells at the rim have just a quarter of source, where rounding must not decide; a small one."""
    module, metadata = shipped
    exact = ColorCorrector(metadata["image_size"], metadata["width"]).double().eval()
    exact.load_state_dict(module.state_dict())
    target, _, harmonized, source = contract_inputs(1, 128)
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., box[0] : box[1], box[2] : box[3]] = 1
    inputs = [target + mask * (source - target), mask, target + mask * (harmonized - target), source]
    with torch.inference_mode():
        expected = exact(*(x.double() for x in inputs))
        assert (expected - inputs[2]).abs().max() > 0.01  # or nothing was tested
        torch.testing.assert_close(module(*inputs).double(), expected, rtol=0, atol=4e-5)


def test_shipped_loads_from_memory(shipped: tuple[torch.jit.ScriptModule, dict]) -> None:
    """Nothing in the file depends on its path: C++ applications may embed it."""
    buffer = io.BytesIO((WEIGHTS / "default.pt").read_bytes())
    assert torch.jit.load(buffer)(*contract_inputs(1, shipped[1]["image_size"])).shape[1] == 3


def test_shipped_exports_to_onnx(shipped: tuple[torch.jit.ScriptModule, dict], tmp_path: Path) -> None:
    path = export_onnx(WEIGHTS / "default.pt", tmp_path / "g.onnx", tolerance=1e-5)
    inputs = contract_inputs(2, shipped[1]["image_size"])
    with torch.inference_mode():
        torch.testing.assert_close(run_onnx(path, inputs), shipped[0](*inputs), rtol=0, atol=3e-5)
