"""The realism score: its networks, their weights files, the conversion from Caffe, and the training."""

from __future__ import annotations

import csv
import json
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_image
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as nnf

from gpgan.evaluation import draw_pairs, read_item
from gpgan.nn import caffe, realism, realism_train
from gpgan.nn.realism import RealismCNN, RealismScorer, SmallRealism, build, read_weights, write_weights
from gpgan.nn.realism_train import TrainConfig

TINY = 1 / 64  # of VGG's channels: 1, 2, 4, 8, 8 and 64


@pytest.fixture(scope="module")
def scorer() -> RealismScorer:
    return RealismScorer()


@pytest.fixture(scope="module")
def picture() -> NDArray[np.float64]:
    return np.rint(draw_image(np.random.default_rng(5), 150, 211) * 255) / 255


def random_weights(architecture: str, width: float, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = {key: tuple(value.shape) for key, value in build(architecture, width).state_dict().items()}
    return {
        key: (rng.standard_normal(shape) * (2 / max(1, np.prod(shape[1:]))) ** 0.5).astype(np.float32)
        for key, shape in shapes.items()
    }


def tiny_file(path: Path, **changes: str) -> Path:
    metadata = {"architecture": "realism-cnn", "width": repr(TINY), **changes}
    return write_weights(path, random_weights("realism-cnn", TINY), metadata)


# --- The networks -------------------------------------------------------------------------------------------


def test_realism_cnn_has_the_layers_of_vgg_16() -> None:
    network = build("realism-cnn", 1.0)
    assert all(p.is_meta for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 14_714_688 + 102_764_544 + 16_781_312 + 8_194
    with torch.device("meta"):
        assert network(torch.empty(2, 3, 256, 256)).shape == (2, 2, 2, 2)
        assert network(torch.empty(1, 3, 224, 224)).shape == (1, 2, 1, 1)
    assert network.state_dict()["fc6.weight"].shape == (4096, 512, 7, 7)


def test_small_realism_gives_a_score_and_a_map_of_seams() -> None:
    network = build("small-realism", 128)
    with torch.device("meta"):
        score, seam = network(torch.empty(2, 3, 224, 224))
    assert score.shape == (2,)
    assert seam.shape == (2, 14, 14)


@pytest.mark.parametrize(
    ("architecture", "width"),
    [("realism-cnn", 0), ("realism-cnn", 1.5), ("small-realism", 12), ("small-realism", 8.5), ("vgg", 1)],
)
def test_build_refuses_what_there_is_not(architecture: str, width: float) -> None:
    with pytest.raises(ValueError, match=r"(width|architecture): expected .*, got"):
        build(architecture, width)


def test_realism_cnn_takes_blue_green_red_minus_their_means() -> None:
    color = torch.rand(1, 3, 4, 4)
    given = RealismCNN(TINY).prepare(color)
    for k, (channel, mean) in enumerate(((2, 103.939), (1, 116.779), (0, 123.68))):
        torch.testing.assert_close(given[0, k], color[0, channel] * 255 - mean)


def tent_matrix(size: int, side: int) -> NDArray[np.float64]:
    """Bilinear resampling at half-pixel centres; the tent is as wide as the coarser of the two pixels."""
    scale = max(1.0, size / side)
    centre = (np.arange(side)[:, None] + 0.5) * size / side
    weights = np.maximum(0, 1 - np.abs((np.arange(size) + 0.5 - centre) / scale))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(400, 300), (100, 260), (256, 256), (1, 7)])
def test_squares_are_the_bilinear_resize_by_hand(shape: tuple[int, int], tmp_path: Path) -> None:
    image = draw_image(np.random.default_rng(1), *shape)
    scorer = RealismScorer(tiny_file(tmp_path / "w"))
    rows, columns = tent_matrix(shape[0], 256), tent_matrix(shape[1], 256)
    expected = np.einsum("ih,hwc,jw->cij", rows, image, columns, optimize=True)
    given = scorer._squares(image.astype(np.float32))[0].numpy()
    np.testing.assert_allclose(given, expected, atol=2e-5)  # float32 sums of a few hundred terms


# --- The scorer ---------------------------------------------------------------------------------------------


def test_scorer_agrees_over_kinds_and_dtypes(scorer: RealismScorer, picture: NDArray[np.float64]) -> None:
    bytes_ = np.rint(picture * 255).astype(np.uint8)
    planes = bytes_.transpose(2, 0, 1).copy()
    alpha = np.dstack([bytes_, np.full(bytes_.shape[:2], 7, np.uint8)])
    kinds = {
        "uint16": bytes_.astype(np.uint16) * 257,
        "float32": picture.astype(np.float32),
        "float64": picture,
        "big-endian": (bytes_.astype(np.uint16) * 257).astype(">u2"),
        "PIL": Image.fromarray(bytes_),
        "alpha": alpha,
        "PIL alpha": Image.fromarray(alpha),
        "tensor": torch.from_numpy(planes),
        "strided": np.ascontiguousarray(bytes_[::-1, ::-1])[::-1, ::-1],
    }
    expected = scorer(bytes_)
    assert isinstance(expected, float)
    for name, image in kinds.items():
        assert scorer(image) == pytest.approx(expected, abs=1e-4), name
    assert scorer(picture.astype(np.float16)) == pytest.approx(expected, abs=0.05)  # 11 bits


def test_scorer_takes_grey_for_three_equal_channels(scorer: RealismScorer, picture: NDArray[np.float64]) -> None:
    grey = picture[..., 0]
    expected = scorer(np.repeat(grey[..., None], 3, axis=2))
    for image in (grey, grey[..., None], torch.from_numpy(grey), np.dstack([grey, np.zeros_like(grey)])):
        assert scorer(image) == pytest.approx(expected, abs=1e-5)


def test_scorer_gives_a_batch_the_scores_of_its_images(scorer: RealismScorer) -> None:
    images = [draw_image(np.random.default_rng(k), 60, 80).astype(np.float32) for k in range(3)]
    batch = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    scores = scorer(batch)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float64
    assert scores.tolist() == [scorer(image) for image in images]
    assert len(set(scores.tolist())) == 3
    assert np.shape(scorer(batch[:1])) == (1,)


def test_scorer_takes_overshoot_for_black_and_white(scorer: RealismScorer, picture: NDArray[np.float64]) -> None:
    wide = picture * 1.5 - 0.25
    before = wide.copy()
    assert scorer(wide) == scorer(wide.clip(0, 1))
    np.testing.assert_array_equal(wide, before)


def test_scorer_is_deterministic_and_leaves_the_image_alone(picture: NDArray[np.float64]) -> None:
    before = picture.copy()
    assert RealismScorer()(picture) == RealismScorer()(picture)
    np.testing.assert_array_equal(picture, before)


def test_scorer_takes_any_size(scorer: RealismScorer) -> None:
    for shape in ((1, 1), (3, 500), (700, 2)):
        assert np.isfinite(scorer(np.full((*shape, 3), 128, np.uint8)))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.full((4, 4, 3), 255.0), ValueError, r"image: expected finite floats in \[0, 1\], got 255 to 255"),
        (np.full((4, 4, 3), np.nan), ValueError, r"image: expected finite floats"),
        (np.zeros((4, 4, 5)), ValueError, "image: expected an array"),
        (np.zeros((0, 4, 3)), ValueError, "image: expected at least 1 x 1"),
        (np.zeros((4, 4, 3), np.int32), TypeError, "image: expected uint8"),
        ("photo.png", TypeError, "image: expected a NumPy array, a PIL image or a torch tensor, got str"),
    ],
)
def test_scorer_refuses_what_is_no_image(
    scorer: RealismScorer, image: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scorer(image)


def test_scorer_refuses_other_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="weights: expected 'default' or a path, got int"):
        RealismScorer(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="weights: expected 'default' or a file"):
        RealismScorer(tmp_path / "none")
    with pytest.raises(ValueError, match="device: expected 'auto' or a device that torch has, got 'abacus'"):
        RealismScorer(device="abacus")


def test_scorer_computes_where_it_is_told(picture: NDArray[np.float64]) -> None:
    scorer = RealismScorer(device="meta")  # where tensors have shapes, and no numbers to read
    assert scorer._squares(picture).is_meta
    with pytest.raises(RuntimeError, match="meta tensors"):
        scorer(picture)


def test_scorer_keeps_a_small_network_to_one_thread(
    scorer: RealismScorer, picture: NDArray[np.float64], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for one in (scorer, RealismScorer(tiny_file(tmp_path / "w"))):
            score = one.network.score
            monkeypatch.setattr(
                one.network, "score", lambda x, score=score: seen.append(torch.get_num_threads()) or score(x)
            )
            one(picture)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scorer_follows_a_tensor_to_its_device(scorer: RealismScorer, picture: NDArray[np.float64]) -> None:
    planes = torch.from_numpy(np.rint(picture.transpose(2, 0, 1) * 255).astype(np.uint8))
    assert scorer(planes.cuda()) == pytest.approx(scorer(planes), abs=1e-2)
    assert RealismScorer(device="cuda")(planes) == pytest.approx(scorer(planes), abs=1e-2)


# --- Weights files ------------------------------------------------------------------------------------------


def test_shipped_weights_are_small_and_need_no_pickle(scorer: RealismScorer) -> None:
    assert realism.SHIPPED.stat().st_size < 10_000_000
    content = realism.SHIPPED.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    said = header.pop("__metadata__")
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(content) - 8 - length
    assert scorer.metadata == said
    assert isinstance(scorer.network, SmallRealism)
    assert realism.SHIPPED.with_suffix(".md").is_file()


def test_shipped_weights_prefer_a_photo_to_a_paste(scorer: RealismScorer) -> None:
    """Photos that took no part in the training."""
    from skimage import data

    better = 0
    photos = [data.chelsea(), data.coffee(), data.rocket(), data.astronaut()]
    for photo in photos:
        height, width = photo.shape[:2]
        pasted = photo.copy()
        part = np.s_[height // 4 : height // 2, width // 3 : width * 2 // 3]
        pasted[part] = 255 - photo[part]
        better += scorer(photo) > scorer(pasted)
    assert better >= 3


def test_weights_file_keeps_the_numbers(tmp_path: Path) -> None:
    arrays = random_weights("realism-cnn", TINY)
    metadata = {"architecture": "realism-cnn", "width": repr(TINY), "source": "a test — ∞"}
    network, said = read_weights(write_weights(tmp_path / "w", arrays, metadata))
    assert said == metadata
    assert not network.training
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), arrays[key])
    half, _ = read_weights(write_weights(tmp_path / "h", arrays, metadata, half=True))
    for key, value in half.state_dict().items():
        assert value.dtype == torch.float32
        np.testing.assert_array_equal(value.numpy(), arrays[key].astype(np.float16).astype(np.float32))
    assert (tmp_path / "h").stat().st_size < 0.6 * (tmp_path / "w").stat().st_size


def test_weights_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tiny_file(tmp_path / "w")
    before = path.read_bytes()

    class Broken(dict[str, Any]):
        def values(self) -> Any:
            yield from list(super().values())[:3]
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_weights(path, Broken(random_weights("realism-cnn", TINY)), {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any], cut: int | None = None) -> Path:
    """The file with another header before its numbers, and perhaps fewer of those."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    said = json.dumps(header).encode()
    path.write_bytes(len(said).to_bytes(8, "little") + said + content[8 + length :][:cut])
    return path


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a missing array": (lambda h: h.pop("fc7.bias"), r"lacks 'fc7.bias'"),
    "an unknown array": (lambda h: h.update(spy=h["fc7.bias"]), r"has an unknown 'spy'"),
    "another shape": (
        lambda h: h["fc7.bias"].update(shape=[1 << 40]),
        r"expected 'fc7.bias' of shape \[64\], got \[1099511627776\]",
    ),
    "another dtype": (lambda h: h["fc7.bias"].update(dtype="I64"), r"of dtype F16 or F32, got I64"),
    "no offsets": (
        lambda h: h["fc7.bias"].pop("data_offsets"),
        r"expected 256 bytes of 'fc7.bias' within \d+, got None",
    ),
    "offsets behind the end": (
        lambda h: h["fc7.bias"].update(data_offsets=[1 << 50, (1 << 50) + 256]),
        r"expected 256 bytes of 'fc7.bias'",
    ),
    "negative offsets": (lambda h: h["fc7.bias"].update(data_offsets=[-256, 0]), r"expected 256 bytes"),
    "fractions for offsets": (lambda h: h["fc7.bias"].update(data_offsets=[0.0, 256.0]), r"expected 256 bytes"),
    "no array at all": (lambda h: h.update({"fc7.bias": 3}), r"expected 'fc7.bias' of shape \[64\], got None"),
    "no metadata": (lambda h: h.pop("__metadata__"), r"expected __metadata__ of texts, got NoneType"),
    "another architecture": (
        lambda h: h["__metadata__"].update(architecture="resnet"),
        r"architecture: expected 'realism-cnn' or 'small-realism', got 'resnet'",
    ),
    "no width": (lambda h: h["__metadata__"].pop("width"), r"expected width in its metadata, got architecture"),
    "a width that is none": (lambda h: h["__metadata__"].update(width="nan"), r"expected width to be a number"),
    "a huge width": (lambda h: h["__metadata__"].update(width="1e9"), r"width: expected a number in \(0, 1\]"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_weights_file_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    change, message = HOSTILE[case]
    path = rewritten(tiny_file(tmp_path / "w"), change)
    with pytest.raises(ValueError, match=message):
        read_weights(path)


FOREIGN = {
    "empty": b"", "noise": np.random.default_rng(0).bytes(500), "a huge header": struct.pack("<Q", 1 << 62) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"nope", "a list": struct.pack("<Q", 2) + b"[]",
    "deep": struct.pack("<Q", 200_000) + b"[" * 200_000, "zip": b"PK\x03\x04" + bytes(300),
}  # fmt: skip


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_weights_file_of_another_format_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no weights file: expected one written by"):
        read_weights(path)


def test_weights_file_that_is_cut_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tiny_file(tmp_path / "w")
    with pytest.raises(ValueError, match=r"has \d+ bytes, over max_bytes = 100"):
        RealismScorer(path, max_bytes=100)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"expected 8 bytes of 'fc8.bias' within \d+, got"):
        read_weights(path)


def test_weights_file_with_nan_is_refused(tmp_path: Path) -> None:
    arrays = random_weights("realism-cnn", TINY)
    arrays["fc7.bias"][3] = np.nan
    path = write_weights(tmp_path / "w", arrays, {"architecture": "realism-cnn", "width": repr(TINY)})
    with pytest.raises(ValueError, match=r"expected finite numbers in 'fc7.bias', got NaN or infinity"):
        read_weights(path)


# --- From Caffe ---------------------------------------------------------------------------------------------
# A writer of the wire format of its own, so that reader and test do not share a mistake.


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number: int, payload: bytes | int) -> bytes:
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob(array: NDArray[Any], *, legacy: bool = False, double: bool = False, loose: bool = False) -> bytes:
    shape = array.shape
    if legacy:
        said = b"".join(field(k + 1, n) for k, n in enumerate((1,) * (4 - len(shape)) + shape))
    else:
        said = field(7, field(1, b"".join(map(varint, shape))))
    if double:
        return said + field(8, array.astype("<f8").tobytes())
    if loose:  # the dimensions one by one, and the numbers in two parts
        said = field(7, b"".join(field(1, n) for n in shape))
        numbers = array.astype("<f4").tobytes()
        return field(5, numbers[:4]) + said + field(5, numbers[4:])
    return said + field(5, array.astype("<f4").tobytes())


def layer(name: str, blobs: list[bytes], *, v1: bool = False) -> bytes:
    if v1:  # bottom, top, name, type, blobs
        return field(2, field(2, b"in") + field(3, b"out") + field(4, name.encode()) + field(5, 4) + b"".join(
            field(6, b) for b in blobs
        ))  # fmt: skip
    return field(100, field(1, name.encode()) + field(2, b"Convolution") + b"".join(field(7, b) for b in blobs))


def caffemodel(
    weights: dict[str, NDArray[np.float32]], *, v1: bool = False, matrices: bool = True, **how: bool
) -> bytes:
    parts = [field(1, "réalisme".encode()), layer("data", [], v1=v1)]
    for name in [key.removesuffix(".weight") for key in weights if key.endswith("weight")]:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if name.startswith("fc") and matrices:
            weight = weight.reshape(len(weight), -1)
        parts.append(layer("fc8_realism" if name == "fc8" else name, [blob(x, **how) for x in (weight, bias)], v1=v1))
        parts.append(layer(name.replace("conv", "relu"), [], v1=v1))
    return b"".join(parts)


def by_hand(weights: dict[str, NDArray[np.float32]], image: NDArray[np.float32]) -> float:
    """The published evaluation, from the raw blobs: a 256 x 256 image, red, green, blue in [0, 1]."""
    x = torch.from_numpy(image[..., ::-1].copy() * 255 - np.array([103.939, 116.779, 123.68], np.float32))
    x = x.permute(2, 0, 1)[None].float()

    def convolved(x: torch.Tensor, name: str, padding: int) -> torch.Tensor:
        weight, bias = torch.from_numpy(weights[f"{name}.weight"]), torch.from_numpy(weights[f"{name}.bias"])
        return nnf.conv2d(x, weight, bias, padding=padding)

    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for k in range(count):
            x = convolved(x, f"conv{stage}_{k + 1}", 1).clamp(min=0)
        x = nnf.max_pool2d(x, 2)
    columns = nnf.unfold(x, 7)[0].T  # the fully connected layer at each place where 7 x 7 fit
    matrix = torch.from_numpy(weights["fc6.weight"].reshape(len(weights["fc6.weight"]), -1))
    x = (columns @ matrix.T + torch.from_numpy(weights["fc6.bias"])).clamp(min=0)
    assert len(x) == 4
    x = (x @ torch.from_numpy(weights["fc7.weight"][:, :, 0, 0]).T + torch.from_numpy(weights["fc7.bias"])).clamp(min=0)
    x = x @ torch.from_numpy(weights["fc8.weight"][:, :, 0, 0]).T + torch.from_numpy(weights["fc8.bias"])
    return float(x[:, 1].mean())


@pytest.mark.parametrize(
    "how",
    [{}, {"v1": True, "legacy": True}, {"matrices": False}, {"double": True}, {"legacy": True}, {"loose": True}],
    ids=lambda how: " ".join(how) or "plain",
)
def test_converted_model_scores_as_by_hand(how: dict[str, bool], tmp_path: Path) -> None:
    weights = random_weights("realism-cnn", TINY, seed=3)
    model, output = tmp_path / "tiny.caffemodel", tmp_path / "tiny.safetensors"
    model.write_bytes(caffemodel(weights, **how))
    assert caffe.convert(model, output, width=TINY) == output
    network, metadata = read_weights(output)
    assert metadata["source"] == "converted from the Caffe model tiny.caffemodel"
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[key])
    image = draw_image(np.random.default_rng(2), 256, 256).astype(np.float32)
    score = RealismScorer(output)(image)
    expected = by_hand(weights, image)
    assert abs(expected) > 1
    assert score == pytest.approx(expected, rel=1e-4)


def converted(tmp_path: Path, content: bytes, **options: Any) -> None:
    model = tmp_path / "bad.caffemodel"
    model.write_bytes(content)
    before = sorted(p.name for p in tmp_path.iterdir())
    try:
        caffe.convert(model, tmp_path / "out", **{"width": TINY} | options)
    finally:
        assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_convert_refuses_models_of_another_shape(tmp_path: Path) -> None:
    weights = random_weights("realism-cnn", TINY)
    wrong = weights | {"conv3_2.weight": np.zeros((4, 4, 5, 5), np.float32)}
    with pytest.raises(ValueError, match=r"weight of layer conv3_2: expected shape \[4, 4, 3, 3\], got \[4, 4, 5, 5\]"):
        converted(tmp_path, caffemodel(wrong))
    with pytest.raises(ValueError, match=r"weight of layer conv1_1: expected shape \[64, 3, 3, 3\]"):
        converted(tmp_path, caffemodel(weights), width=1.0)
    wrong = {("fc9" if key.startswith("fc7") else "") + key: value for key, value in weights.items()}
    with pytest.raises(ValueError, match=r"expected the layers conv1_1, .*, fc8, got 'fc9fc7' too"):
        converted(tmp_path, caffemodel(wrong))
    wrong = {key: value for key, value in weights.items() if not key.startswith("conv5_2")}
    with pytest.raises(ValueError, match=r"expected a layer conv5_2, got none of that name"):
        converted(tmp_path, caffemodel(wrong))
    with pytest.raises(ValueError, match=r"expected one layer fc8, got 'fc8_realism' too"):
        again = layer("fc8_realism", [blob(weights["fc8.weight"]), blob(weights["fc8.bias"])])
        converted(tmp_path, caffemodel(weights) + again)
    with pytest.raises(ValueError, match=r"expected layer conv1_1 with weight and bias, got 1 blobs"):
        converted(tmp_path, layer("conv1_1", [blob(weights["conv1_1.weight"])]))


def test_convert_refuses_damaged_models(tmp_path: Path) -> None:
    weights = random_weights("realism-cnn", TINY)
    good = caffemodel(weights)
    for cut in (len(good) // 2, len(good) - 1):
        with pytest.raises(ValueError, match="is damaged, or no Caffe model at all"):
            converted(tmp_path, good[:cut])
    for content in (b"", b"\xff" * 300, Image.new("RGB", (9, 9)).tobytes(), bytes(range(256)) * 4):
        with pytest.raises(ValueError, match="no Caffe model"):
            converted(tmp_path, content)
    shape = weights["conv1_1.weight"].shape
    said = field(7, field(1, b"".join(map(varint, shape))))
    few = np.zeros(5, "<f4").tobytes()
    for body, message in (
        (said + field(5, few), r"expected 27 numbers of float32, got 20 bytes"),
        (said, r"expected 27 numbers of float32, got 0 bytes"),
        (said + field(5, bytes(107)) + field(5, b"1"), r"expected 27 numbers of float32, got 108 bytes"),
        (said + field(8, few * 4000), r"expected 27 numbers of float64, got 80000 bytes"),
        (field(7, field(1, varint(1 << 60) * 2)) + field(5, few), r"expected shape \[1, 3, 3, 3\], got \["),
        (field(7, field(1, varint(-1) * 4)), r"expected shape"),
        (blob(np.full(shape, np.inf)), r"expected finite numbers, got NaN or infinity"),
        (blob(np.full(shape, 1e300), double=True), r"expected finite numbers"),
        (said[:-1], r"is damaged"),
    ):
        with pytest.raises(ValueError, match=f"weight of layer conv1_1:? ?.*{message}"):
            converted(tmp_path, layer("conv1_1", [body, blob(weights["conv1_1.bias"])]))


def test_convert_keeps_to_its_limits(tmp_path: Path) -> None:
    good = caffemodel(random_weights("realism-cnn", TINY))
    with pytest.raises(ValueError, match=rf"has {len(good)} bytes, over max_bytes = 1000"):
        converted(tmp_path, good, max_bytes=1000)
    for unknown in (field(100, b""), field(3, 1), varint(3 << 3 | 5) + b"1234", varint(3 << 3 | 1) + b"12345678"):
        with pytest.raises(ValueError, match=r"bad.caffemodel': expected at most 1000 fields, got more"):
            converted(tmp_path, unknown * 50_000)
        with pytest.raises(ValueError, match="layer 1: expected at most 1000 fields, got more"):
            converted(tmp_path, layer("conv1_1", []) + field(100, unknown * 1001))
    with pytest.raises(FileNotFoundError, match="model: no file at"):
        caffe.convert(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="output: expected a file in an existing folder"):
        caffe.convert(tmp_path / "bad.caffemodel", tmp_path / "no" / "out")


@pytest.mark.parametrize(
    "content",
    [
        layer("fc6", [field(7, field(1, b"\1" * 4_000_000)), b""]),
        layer("fc6", [b"\x08\1" * 2_000_000, b""]),
        layer("fc6", [field(7, b"\x08\1" * 2_000_000), b""]),
        layer("fc6", [b""] * 2_000_000),
        field(100, b"") * 2_000_000,
        field(3, 1) * 2_000_000,
        field(100, field(1, b"n" * 4_000_000) + field(7, b"")),
    ],
    ids=["packed shape", "old shape", "shape", "blobs", "layers", "unknown", "name"],
)
def test_convert_takes_no_more_memory_than_the_file(content: bytes, tmp_path: Path) -> None:
    model = tmp_path / "bad.caffemodel"
    model.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bad\.caffemodel.*: expected (at most|the layers)"):
            caffe.read_caffemodel(model, {"fc6": {"weight": (1 << 30,), "bias": (1 << 15,)}})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(content) + (1 << 20)


def test_convert_says_what_there_is_no_memory_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = caffemodel(random_weights("realism-cnn", TINY))

    def exhausted(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "concatenate", exhausted)
    with pytest.raises(ValueError, match=rf"bad.caffemodel' has {len(content)} bytes, more than there is memory for"):
        converted(tmp_path, content)


def test_convert_gives_numbers_or_says_what_is_wrong(tmp_path: Path) -> None:
    """A model of one layer with bytes changed at random."""
    expected = {"fc6": {"weight": (2, 3), "bias": (2,)}}
    good = np.frombuffer(layer("fc6", [blob(np.ones((2, 3))), blob(np.ones(2))]), np.uint8)
    model, rng, refused = tmp_path / "m.caffemodel", np.random.default_rng(0), 0
    for _ in range(1000):
        content = good.copy()
        content[rng.integers(len(good), size=rng.integers(1, 4))] = rng.integers(256)
        model.write_bytes(content.tobytes())
        try:
            given = caffe.read_caffemodel(model, expected)
        except ValueError as error:
            assert "m.caffemodel" in str(error)
            refused += 1
        else:
            assert {key: value.shape for key, value in given.items()} == {"fc6.weight": (2, 3), "fc6.bias": (2,)}
    assert 200 < refused < 1000


def test_convert_realism_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer
    from typer.testing import CliRunner

    from gpgan._realism_command import convert_realism

    app = typer.Typer()
    app.command()(convert_realism)
    original = caffe.build
    monkeypatch.setattr(caffe, "build", lambda architecture, width: original(architecture, TINY))
    model, output = tmp_path / "m.caffemodel", tmp_path / "w.safetensors"
    model.write_bytes(caffemodel(random_weights("realism-cnn", TINY)))
    result = CliRunner().invoke(app, [str(model), "-o", str(output), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"output": str(output), "bytes": output.stat().st_size}
    result = CliRunner().invoke(app, [str(model), "-o", str(output), "--max-bytes", "10"])
    assert isinstance(result.exception, ValueError)


# --- Training -----------------------------------------------------------------------------------------------


def test_split_keeps_photos_on_one_side() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"name": str(k), "kind": "composite", "bg_source": f"{rng.integers(60)}.jpg", "obj_source": f"B{k // 2}.JPG"}
        for k in range(300)
    ]
    rows += [{"name": f"r{k}", "kind": "real", "bg_source": f"b{k}.jpg", "obj_source": f"b{k}.jpg"} for k in range(200)]
    parts = realism_train.split(rows)
    assert sum(map(len, parts.values())) == len(rows)
    sides = [{row[key].lower() for row in part for key in ("bg_source", "obj_source")} for part in parts.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert {row["name"]: part for part, found in parts.items() for row in found} == {
        row["name"]: part for part, found in realism_train.split(rows[::-1]).items() for row in found
    }
    loose = realism_train.split([row for row in rows if row["kind"] == "real"])
    assert all(len(part) > 10 for part in loose.values())


def test_area_under_curve_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    is_real, score = rng.random(60) < 0.4, rng.integers(0, 9, 60).astype(float)
    difference = score[is_real][:, None] - score[~is_real]
    expected = (difference > 0).mean() + (difference == 0).mean() / 2
    assert realism_train.area_under_curve(is_real, score) == pytest.approx(expected)
    low, high = realism_train._interval(is_real, score, 200)
    assert low < expected < high


def test_logistic_finds_a_direction() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) * (1, 20, 0.1) + 5
    is_real = (x[:, 0] - 5) * 2 + (x[:, 2] - 5) * 20 + rng.standard_normal(400) > 0
    guess = realism_train._logistic(x[:300], is_real[:300])
    assert realism_train.area_under_curve(is_real[300:], guess(x[300:])) > 0.9


def test_augment_treats_a_pair_alike() -> None:
    picture = Image.fromarray(np.rint(draw_image(np.random.default_rng(0), 80, 80) * 255).astype(np.uint8))
    mask = Image.new("L", (80, 80))
    mask.paste(255, (30, 30, 50, 60))
    for seed in range(5):
        a, none = realism_train.augment(picture, None, np.random.default_rng(seed), 64)
        b, seam = realism_train.augment(picture, mask, np.random.default_rng(seed), 64)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert a.size == (64, 64)
        assert none.shape == seam.shape == (4, 4)
        assert not none.any()
        assert seam.any()
        assert seam.mean() < 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the one that the shipped weights were trained on, of noise."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)

    def save(path: Path, size: tuple[int, int] = (48, 40)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(draw_image(rng, *size) * 255).astype(np.uint8)).save(path)

    rows = []
    for k in range(24):
        kind = "real" if k % 2 else "composite"
        save(root / "realism" / kind / f"{k}.jpg")
        rows.append({"name": k, "kind": kind, "bg_source": f"{k}.jpg", "obj_source": f"{k}{'' if k % 2 else 'x'}.jpg"})
        if kind == "composite":
            mask = Image.new("L", (40, 48))
            mask.paste(255, (10, 12, 28, 30))
            (root / "realism" / "mask").mkdir(exist_ok=True)
            mask.save(root / "realism" / "mask" / f"{k}.png")
    with (root / "realism" / "index.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    for k in range(3):
        save(root / "photos" / "town" / f"{k}.jpg")
        save(root / "aligned" / "train" / "harbour" / f"{k}.jpg")
        save(root / "aligned" / "train" / "chamonix" / f"{k}.jpg")
    save(root / "masks" / "chamonix" / "0.png")
    mask = Image.new("L", (40, 48))
    mask.paste(255, (10, 12, 28, 30))
    mask.save(root / "masks" / "chamonix" / "0.png")
    return root


@pytest.fixture
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallRealism, "image_size", 32)


QUICK = TrainConfig(
    steps=3, pairs=2, decay=1, warmup=1, size=32, frozen=0, load_size=40, validate_every=2, kinds=(0.2, 0.4, 0.4)
)


@pytest.mark.usefixtures("_small_pictures")
def test_training_gives_weights_that_score(photos: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    output = tmp_path / "w.safetensors"
    figures = realism_train.train(photos, output, config=QUICK, report=lines.append)
    assert 0 <= figures["auc"] <= 1
    assert figures["interval"][0] <= figures["auc"] <= figures["interval"][1]
    assert set(figures["cameras"]) == {"chamonix"}
    assert "3 photos, [3] frames" in lines[0]
    scorer = RealismScorer(output)
    assert json.loads(scorer.metadata["config"])["steps"] == 3
    assert np.isfinite(scorer(draw_image(np.random.default_rng(0), 30, 30)))
    torch.manual_seed(QUICK.seed)
    trained, fresh = scorer.network.state_dict(), SmallRealism().state_dict()
    assert [key for key in fresh if torch.equal(trained[key], fresh[key].half().float())] == []


def test_rank_compares_with_copy_and_paste(photos: Path, scorer: RealismScorer) -> None:
    folders = photos / "aligned" / "train" / "chamonix", photos / "masks" / "chamonix"
    given = realism_train.rank(scorer, *folders, pairs=4)
    assert given["copy_paste"]["above"] == 0
    assert given["copy_paste"]["p"] == 1
    assert {"gpgan", "gpgan-no-generator", "truth"} < given.keys()
    assert all(0 <= row["above"] <= 1 and 0 < row["p"] <= 1 for row in given.values())
    items = [read_item(item) for item in draw_pairs(folders[0], masks=folders[1], pairs=4)]
    assert given["truth"]["mean"] == pytest.approx(np.mean([scorer(item.target) for item in items]))
    pasted = [np.where(item.framed[2][..., None] > 0, item.source, item.target) for item in items]
    assert given["copy_paste"]["mean"] == pytest.approx(np.mean([scorer(image) for image in pasted]))
    with pytest.raises(ValueError, match="masks: no folder"):
        realism_train.rank(scorer, folders[0], photos / "none")
    paste = np.array([1.0, 2, 3, 4, 5, 6])
    assert realism_train._ranked(paste + 1, paste) == {"mean": 4.5, "above": 1.0, "p": 2 / 64}
    assert realism_train._ranked(paste, paste)["p"] == 1


@pytest.mark.usefixtures("_small_pictures")
def test_training_continues_where_it_stopped(photos: Path, tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"report": lambda line: None}
    straight = tmp_path / "a"
    realism_train.train(photos, straight, config=QUICK, **kwargs)
    # Two of three steps, the rate level as it would have been, and then the rest.
    first = replace(QUICK, steps=2, decay=0)
    realism_train.train(photos, tmp_path / "b", config=first, checkpoint=tmp_path / "c", **kwargs)
    realism_train.train(photos, tmp_path / "b", config=QUICK, checkpoint=tmp_path / "c", **kwargs)
    expected, given = (read_weights(path)[0].state_dict() for path in (straight, tmp_path / "b"))
    for key, one in expected.items():
        torch.testing.assert_close(given[key], one)
    with pytest.raises(ValueError, match="checkpoint: expected one of this configuration"):
        realism_train.train(photos, tmp_path / "b", config=replace(QUICK, seed=1), checkpoint=tmp_path / "c", **kwargs)


def random_backbone() -> dict[str, torch.Tensor]:
    """A state dict with the names that EfficientNet-Lite0's has."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def add(convolution: str, norm: str, shape: tuple[int, ...]) -> None:
        state[f"{convolution}.weight"] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(shape[0]) + 0.5

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    into = 32
    for k, (kernel, _, expansion, out) in enumerate(SmallRealism.BLOCKS):
        middle = into * expansion
        if expansion > 1:
            add(f"_blocks.{k}._expand_conv", f"_blocks.{k}._bn0", (middle, into, 1, 1))
        add(f"_blocks.{k}._depthwise_conv", f"_blocks.{k}._bn1", (middle, 1, kernel, kernel))
        add(f"_blocks.{k}._project_conv", f"_blocks.{k}._bn2", (out, middle, 1, 1))
        into = out
    return state


@pytest.mark.usefixtures("_small_pictures")
def test_training_leaves_frozen_blocks_alone(photos: Path, tmp_path: Path) -> None:
    backbone, output = tmp_path / "lite0.pth", tmp_path / "w"
    torch.save(random_backbone(), backbone)
    config = replace(QUICK, steps=2, frozen=3)
    realism_train.train(photos, output, config=config, backbone=backbone, report=lambda line: None)
    before = SmallRealism()
    realism_train.load_backbone(before, backbone)
    trained = read_weights(output)[0].state_dict()
    same = {key for key, value in before.state_dict().items() if torch.equal(trained[key], value.half().float())}
    assert same == {key for key in trained if key.startswith(("stem.", "blocks.0.", "blocks.1.", "blocks.2."))}


def test_backbone_is_folded_into_the_convolutions(tmp_path: Path) -> None:
    """Its first two blocks, evaluated with batch normalisation as it stands."""
    state = random_backbone()
    torch.save(state, tmp_path / "lite0.pth")
    network = SmallRealism().eval()
    realism_train.load_backbone(network, tmp_path / "lite0.pth")

    def normed(x: torch.Tensor, norm: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return nnf.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    x = torch.rand(1, 3, 32, 32)
    y = normed(nnf.conv2d(nnf.pad(x, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2), "_bn0").clamp(0, 6)
    y = nnf.conv2d(y, state["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    y = nnf.conv2d(normed(y, "_blocks.0._bn1").clamp(0, 6), state["_blocks.0._project_conv.weight"])
    y = normed(y, "_blocks.0._bn2")
    z = normed(nnf.conv2d(y, state["_blocks.1._expand_conv.weight"]), "_blocks.1._bn0").clamp(0, 6)
    z = nnf.conv2d(nnf.pad(z, (0, 1, 0, 1)), state["_blocks.1._depthwise_conv.weight"], stride=2, groups=96)
    z = nnf.conv2d(normed(z, "_blocks.1._bn1").clamp(0, 6), state["_blocks.1._project_conv.weight"])
    z = normed(z, "_blocks.1._bn2")
    given = network.blocks[1](network.blocks[0](nnf.relu6(network.stem(nnf.pad(x, (0, 1, 0, 1))))))
    torch.testing.assert_close(given, z, rtol=1e-4, atol=1e-4)

    del state["_blocks.7._bn1.bias"]
    torch.save(state, tmp_path / "lite0.pth")
    with pytest.raises(ValueError, match="backbone: expected the weights of EfficientNet-Lite0"):
        realism_train.load_backbone(network, tmp_path / "lite0.pth")


def test_training_refuses_what_it_cannot_use(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen: expected 0 without a backbone, got 5"):
        realism_train.train(photos, tmp_path / "w", config=TrainConfig())
    with pytest.raises(SystemExit, match=r"realism_train: error: .*index\.tsv"):
        realism_train.main(["--data", str(tmp_path), "-o", str(tmp_path / "w"), "--frozen", "0"])
