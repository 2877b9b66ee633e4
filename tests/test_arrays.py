"""What goes in and comes out: types, dtypes, layouts, masks, and what is refused."""

import numpy as np
import pytest
import tolerances
import torch
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import gpgan
from gpgan import reference

DTYPES = ["u1", "u2", "f2", "f4", "f8", ">u2", ">f2", ">f4", ">f8"]
H, W = 21, 34

#: Without a generator and without the iterative membrane: what is left is exact to the core's rounding.
EXACT = {"generator": None, "membrane": False}


def as_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    """Values in [0, 1] in a dtype's own scale."""
    kind = np.dtype(dtype)
    if kind.kind == "u":
        x = np.round(x * np.iinfo(kind).max)
    return x.astype(kind)


def as_float(x: np.ndarray) -> np.ndarray:
    return x / np.iinfo(x.dtype).max if x.dtype.kind == "u" else x.astype(np.float64)


@pytest.fixture
def pair(rng):
    return draw_image(rng, H, W, 4), draw_image(rng, H, W, 4)


@pytest.fixture
def mask(rng):
    """Of zeros and ones."""
    return draw_mask(rng, H, W, soft=False)


@pytest.fixture
def blended(pair, mask):
    """A function of a mask alone, the rest fixed."""
    source, target = (as_dtype(x[..., :3], "u1") for x in pair)
    return lambda m: gpgan.blend(source, target, m, generator=None)


# ------------------------------------------------------------------------------------------------------ NumPy


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blend_keeps_dtype_and_layout(dtype, channels, pair, mask):
    cut = (lambda x: x[..., 0]) if channels is None else (lambda x: x[..., :channels])
    source, target = (as_dtype(cut(x), dtype) for x in pair)
    source_before, target_before, mask_before = source.copy(), target.copy(), mask.copy()
    result = gpgan.blend(source, target, mask, **EXACT)
    assert type(result) is np.ndarray
    assert result.dtype == target.dtype
    assert result.shape == target.shape
    expected = reference.blend(*(as_float(x).reshape(H, W, -1) for x in (source, target)), mask, membrane=False)
    assert_allclose(as_float(result), expected.reshape(target.shape), rtol=0, atol=tolerances.result(dtype))
    assert_array_equal(source, source_before)
    assert_array_equal(target, target_before)
    assert_array_equal(mask, mask_before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blend_takes_source_alpha_and_passes_the_targets_on(dtype, pair, mask):
    source, target = (as_dtype(x, dtype) for x in pair)
    result = gpgan.blend(source, target, mask, **EXACT)
    assert result.dtype == target.dtype
    assert_array_equal(result[..., 3], target[..., 3])
    s, t = as_float(source), as_float(target)
    expected = reference.blend(s[..., :3], t[..., :3], mask, alpha=s[..., 3], membrane=False)
    assert_allclose(as_float(result)[..., :3], expected, rtol=0, atol=tolerances.result(dtype))


@pytest.mark.parametrize("source_dtype", ["u1", ">u2", "f2", "f8"])
@pytest.mark.parametrize("target_dtype", ["u1", "u2", "f2", ">f4"])
def test_blend_mixes_dtypes(source_dtype, target_dtype, pair, mask):
    source, target = as_dtype(pair[0][..., :3], source_dtype), as_dtype(pair[1][..., :3], target_dtype)
    result = gpgan.blend(source, target, mask, **EXACT)
    assert result.dtype == np.dtype(target_dtype)
    expected = reference.blend(as_float(source), as_float(target), mask, membrane=False)
    assert_allclose(as_float(result), expected, rtol=0, atol=tolerances.result(target_dtype))


def test_blend_reads_grey_with_alpha(pair, mask):
    source, target = pair[0][..., [0, 3]], pair[1][..., [0, 3]]
    result = gpgan.blend(source, target, mask, **EXACT)
    assert result.shape == (H, W, 2)
    assert_array_equal(result[..., 1], target[..., 1])
    expected = reference.blend(source[..., :1], target[..., :1], mask, alpha=source[..., 1], membrane=False)
    assert_allclose(result[..., :1], expected, rtol=0, atol=tolerances.NATIVE)


def test_blend_takes_read_only_arrays(pair, mask):
    source, target = (as_dtype(x, "u1") for x in pair)
    expected = gpgan.blend(source, target, mask, **EXACT)
    for x in (source, target, mask):
        x.setflags(write=False)
    result = gpgan.blend(source, target, mask, **EXACT)
    assert_array_equal(result, expected)
    assert result.flags.writeable
    assert not np.shares_memory(result, target)


@pytest.mark.parametrize("dtype", ["u1", "f4", "f2"])
def test_blend_takes_any_memory_layout(dtype, pair, mask):
    source, target = (as_dtype(x, dtype) for x in pair)
    expected = gpgan.blend(source, target, mask, **EXACT)
    for change in (
        np.asfortranarray,
        lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        lambda x: np.repeat(x, 3, axis=1)[:, ::3],
        lambda x: np.pad(x, [(1, 2), (3, 4)] + [(0, 0)] * (x.ndim - 2))[1:-2, 3:-4],
    ):
        assert_array_equal(gpgan.blend(change(source), change(target), change(mask), **EXACT), expected)
    unaligned = np.ndarray(target.shape, target.dtype, buffer=np.zeros(target.nbytes + 1, np.uint8), offset=1)
    unaligned[...] = target
    assert_array_equal(gpgan.blend(source, unaligned, mask, **EXACT), expected)
    planar = np.ascontiguousarray(source.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert_array_equal(gpgan.blend(planar, target, mask, **EXACT), expected)


# -------------------------------------------------------------------------------------------------------- PIL

PIL_KINDS = {"L": (0,), "LA": (0, 3), "RGB": (0, 1, 2), "RGBA": (0, 1, 2, 3)}


@pytest.mark.parametrize("mode", PIL_KINDS)
def test_blend_gives_a_pil_image_for_one(mode, pair, mask):
    source, target = (as_dtype(x[..., list(PIL_KINDS[mode])], "u1") for x in pair)
    expected = gpgan.blend(source, target, mask, **EXACT)
    squeeze = (lambda x: x[..., 0]) if mode == "L" else (lambda x: x)
    picture = Image.fromarray(squeeze(target))
    picture.info["icc_profile"] = b"a profile"
    result = gpgan.blend(Image.fromarray(squeeze(source)), picture, mask, **EXACT)
    assert isinstance(result, Image.Image)
    assert result.mode == mode
    assert result.size == (W, H)
    assert result.info["icc_profile"] == b"a profile"
    assert_array_equal(np.asarray(result), squeeze(expected))
    assert_array_equal(np.asarray(picture), squeeze(target))


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", "u2"), ("F", "f4")])
def test_blend_gives_a_deep_pil_image_for_one(mode, dtype, pair, mask):
    source, target = (as_dtype(x[..., 0], dtype) for x in pair)
    picture = Image.fromarray(target)
    assert picture.mode == mode
    result = gpgan.blend(source, picture, mask, **EXACT)
    assert result.mode == mode
    assert_array_equal(np.asarray(result), gpgan.blend(source, target, mask, **EXACT))


def test_blend_unfolds_a_palette_source(pair, mask):
    target = as_dtype(pair[1][..., :3], "u1")
    palette = Image.fromarray(as_dtype(pair[0][..., :3], "u1")).quantize(16)
    assert palette.mode == "P"
    expected = gpgan.blend(np.asarray(palette.convert("RGB")), target, mask, **EXACT)
    assert_array_equal(gpgan.blend(palette, target, mask, **EXACT), expected)
    palette.info["transparency"] = 0
    expected = gpgan.blend(np.asarray(palette.convert("RGBA")), target, mask, **EXACT)
    assert_array_equal(gpgan.blend(palette, target, mask, **EXACT), expected)


# ------------------------------------------------------------------------------------------------------ torch


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64], ids=str)
def test_blend_gives_a_tensor_for_one(dtype, channels, pair, mask):
    name = str(dtype).removeprefix("torch.")
    source, target = (as_dtype(x[..., :channels], name) for x in pair)
    expected = gpgan.blend(source, target, mask, **EXACT)
    s, t = (torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))) for x in (source, target))
    before = t.clone()
    result = gpgan.blend(s, t, torch.from_numpy(mask), **EXACT)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == dtype
    assert result.shape == t.shape
    assert_array_equal(result.numpy().transpose(1, 2, 0), expected)
    assert torch.equal(t, before)


def test_blend_takes_tensors_of_any_kind(pair, mask):
    source, target = (x[..., :3].astype(np.float32) for x in pair)
    expected = gpgan.blend(source, target, mask, **EXACT)
    s, t = (torch.from_numpy(x.transpose(2, 0, 1)) for x in (source, target))  # channels last in memory
    assert not t.is_contiguous()
    result = gpgan.blend(s, t, torch.from_numpy(mask)[None], **EXACT)
    assert_array_equal(result.permute(1, 2, 0).numpy(), expected)
    result = gpgan.blend(s, t.clone().requires_grad_(), torch.from_numpy(mask == 1), **EXACT)
    assert not result.requires_grad
    assert_array_equal(result.permute(1, 2, 0).numpy(), expected)
    grey = gpgan.blend(s[0], t[0], torch.from_numpy(mask), **EXACT)
    assert grey.shape == (H, W)
    assert_array_equal(grey.numpy(), gpgan.blend(source[..., 0], target[..., 0], mask, **EXACT))
    # The target's kind counts, whatever the others are.
    assert_array_equal(gpgan.blend(source, t, mask, **EXACT).permute(1, 2, 0).numpy(), expected)
    assert_array_equal(gpgan.blend(s, target, Image.fromarray(mask == 1), **EXACT), expected)


def test_blend_of_a_batch_is_that_of_its_images(rng):
    sources, targets = rng.uniform(size=(2, 3, 3, 20, 25)).astype(np.float32)
    masks = np.stack([draw_mask(rng, 20, 25) for _ in range(3)])[:, None].astype(np.float32)
    lowres = rng.uniform(size=(3, 3, 8, 8)).astype(np.float32)
    s, t, m, low = (torch.from_numpy(x) for x in (sources, targets, masks, lowres))
    together = gpgan.blend(s, t, m, generator=None)
    assert together.shape == t.shape
    with_lowres = gpgan.blend(s, t, m, lowres=low)
    one_source = gpgan.blend(s[:1], t, m[:1], generator=None)
    for i in range(3):
        assert torch.equal(together[i], gpgan.blend(s[i], t[i], m[i], generator=None))
        assert torch.equal(with_lowres[i], gpgan.blend(s[i], t[i], m[i], lowres=low[i]))
        assert torch.equal(one_source[i], gpgan.blend(s[0], t[i], m[0], generator=None))


# ------------------------------------------------------------------------------------------------------ masks

#: Ways to say the same mask of zeros and ones.
SAME_MASKS = {
    "bool": lambda m: m == 1,
    "bool (H, W, 1)": lambda m: (m == 1)[..., None],
    **{f"{t} of 0 and 1": lambda m, t=t: m.astype(t) for t in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")},
    ">u2 of 0 and 1": lambda m: m.astype(">u2"),
    ">i4 of 0 and 1": lambda m: m.astype(">i4"),
    "uint8 of 0 and 255": lambda m: (m * 255).astype("u1"),
    "uint16 of 0 and 65535": lambda m: (m * 65535).astype("u2"),
    ">u2 of 0 and 65535": lambda m: (m * 65535).astype(">u2"),
    "int16 of 0 and 32767": lambda m: (m * 32767).astype("i2"),
    "int32 of 0 and its largest": lambda m: np.where(m == 1, 2**31 - 1, 0).astype("i4"),
    **{f"float {t}": lambda m, t=t: m.astype(t) for t in ("f2", "f4", "f8", ">f4", ">f8")},
    "grey RGB": lambda m: np.repeat((m * 255).astype("u1")[..., None], 3, axis=2),
    "grey RGB of 0 and 1": lambda m: np.repeat(m.astype("u1")[..., None], 3, axis=2),
    "bool RGBA": lambda m: np.dstack([m == 2, m == 1, m == 0, m == 1]),
    "RGBA": lambda m: np.dstack([np.random.default_rng(0).integers(0, 256, (H, W, 3)), m * 255]).astype("u1"),
    "grey with alpha": lambda m: np.dstack([1 - m, m * 255]).astype("u1"),
    "PIL 1": lambda m: Image.fromarray(m == 1),
    "PIL L": lambda m: Image.fromarray((m * 255).astype("u1")),
    "PIL P": lambda m: Image.fromarray((m * 255).astype("u1")).convert("P"),
    "PIL RGBA": lambda m: Image.merge("RGBA", [Image.new("L", (W, H))] * 3 + [Image.fromarray((m * 255).astype("u1"))]),
    "tensor bool": lambda m: torch.from_numpy(m == 1),
    "tensor uint8 (1, H, W)": lambda m: torch.from_numpy(m.astype("u1"))[None],
    "tensor int64 (1, 1, H, W)": lambda m: torch.from_numpy(m.astype("i8"))[None, None],
    "Fortran order": lambda m: np.asfortranarray(m.astype("u1")),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME_MASKS)
def test_masks_of_every_kind_are_the_same_bit_for_bit(kind, blended, mask):
    expected = blended(mask == 1)
    assert 0 < np.mean(mask) < 1
    assert not np.array_equal(expected, blended(mask == 2))
    assert_array_equal(blended(SAME_MASKS[kind](mask)), expected)


def test_masks_with_an_opaque_alpha_are_no_masks(blended):
    # Drawn as white on black and saved with an alpha channel that says nothing: taking it would paste everything.
    for layers, full in ((3, 255), (1, 255), (3, 1.0)):
        rgba = np.full((H, W, layers + 1), full, np.asarray(full).dtype if isinstance(full, float) else np.uint8)
        everything = blended(np.ones((H, W)))
        assert_array_equal(blended(rgba), everything)
        rgba[5:9, 5:9, :layers] = 0
        with pytest.raises(
            ValueError, match=r"^mask: expected an alpha channel that tells .*, got the same everywhere"
        ):
            blended(rgba)
        rgba[0, 0, -1] = 0
        assert not np.array_equal(blended(rgba), everything)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f2", "f4", "f8"])
def test_masks_may_be_soft(dtype, pair, rng):
    kind = np.dtype(dtype)
    soft = draw_mask(rng, H, W)
    scale = 1 if kind.kind == "f" else np.iinfo(kind).max
    given = (np.round(soft * scale) if scale > 1 else soft).astype(kind)
    source, target = (x[..., :3] for x in pair)
    result = gpgan.blend(source, target, given, **EXACT)
    expected = reference.blend(source, target, given.astype(np.float64) / scale, membrane=False)
    assert_allclose(result, expected, rtol=0, atol=tolerances.NATIVE)


# ----------------------------------------------------------------------------------------------------- errors


def images(dtype="f4") -> dict:
    return {
        "source": np.full((8, 9, 3), 0, dtype),
        "target": np.full((8, 9, 3), 0, dtype),
        "mask": np.ones((8, 9)),
    }


def with_value(value, shape=(8, 9, 3)) -> np.ndarray:
    x = np.zeros(shape)
    x[5, 7] = value
    return x


IMAGE = "uint8, uint16, float16, float32 or float64"
BAD_VALUES = [
    # (arguments, message as a regular expression from its start)
    ({"source": with_value(np.nan)}, r"source: expected finite floats in \[0, 1\], got nan at row 5, column 7"),
    ({"source": with_value(np.inf)}, r"source: expected finite floats in \[0, 1\], got inf"),
    ({"source": with_value(1.5)}, r"source: expected finite floats in \[0, 1\], got 1.5"),
    ({"target": with_value(np.nan)}, r"target: expected finite floats in \[0, 1\], got -?nan at row 5, column 7"),
    ({"target": with_value(-np.inf).astype("f2")}, r"target: expected finite floats in \[0, 1\], got -inf"),
    ({"target": with_value(255.0)}, r"target: expected finite floats in \[0, 1\], got 255"),
    ({"mask": with_value(np.nan, (8, 9))}, r"mask: expected finite floats in \[0, 1\], got nan"),
    ({"mask": with_value(-0.5, (8, 9))}, r"mask: expected finite floats in \[0, 1\], got -0.5"),
    ({"mask": with_value(-1, (8, 9)).astype("i4")}, "mask: expected integers from 0 to 2147483647, got -1"),
    ({"mask": with_value(255, (8, 9)).astype("i4")}, "mask: expected 0 and 1, or 0 to .* got at most 255; convert it"),
    ({"mask": np.dstack([np.ones((8, 9, 2)), np.zeros((8, 9))])}, "mask: expected one channel, or three .* got three"),
    ({"mask": None}, "mask: expected a mask, as the source has no alpha channel, got None"),
    ({"mask": np.ones((9, 8))}, r"mask: expected the source's size, \(8, 9\), got \(9, 8\)"),
    ({"mask": np.ones((8, 0))}, "mask: expected at least 1 x 1 pixels, got 8 x 0"),
    ({"source": np.zeros((8, 9))}, r"source: expected 3 colour channel\(s\) like the target, got 1"),
    ({"source": np.zeros((8, 9, 5))}, r"source: expected an array .* got shape \(8, 9, 5\)"),
    ({"source": np.zeros(9)}, r"source: expected an array .* got shape \(9,\)"),
    ({"source": np.zeros((0, 9, 3)), "mask": None}, "source: expected at least 1 x 1 pixels, got 0 x 9"),
    ({"target": np.zeros((1, 8, 9, 3))}, r"target: expected an array .* got shape \(1, 8, 9, 3\)"),
    ({"target": np.zeros((8, 0, 3))}, "target: expected at least 1 x 1 pixels, got 8 x 0"),
    ({"target": torch.zeros(5, 8, 9)}, r"target: expected a tensor .* got shape \(5, 8, 9\)"),
    ({"target": torch.zeros(3, 8, 9, device="meta")}, "target: expected a tensor in CPU .* got one on meta"),
    ({"target": Image.new("P", (9, 8))}, "target: expected a PIL image of mode .* got P; convert it"),
    ({"target": Image.new("CMYK", (9, 8))}, "target: expected a PIL image of mode .* got CMYK"),
    ({"source": Image.new("1", (9, 8))}, "source: expected a PIL image of mode .* got 1"),
    ({"lowres": np.zeros((4, 5, 3))}, "lowres: expected a square image of .*, got 4 x 5 of 3"),
    ({"lowres": np.zeros((4, 4))}, r"lowres: expected a square image of 3 colour channel\(s\), got 4 x 4 of 1"),
    ({"lowres": np.zeros((4, 4, 4))}, "lowres: expected a square image of .*, got 4 x 4 of 4"),
    ({"lowres": np.full((4, 4, 3), np.nan)}, r"lowres: expected finite floats in \[0, 1\], got nan"),
    ({"lowres": np.full((4, 4, 3), 2.0)}, r"lowres: expected finite floats in \[0, 1\], got 2"),
    ({"source": torch.zeros(2, 3, 8, 9)}, "source: expected a batch of 1 or 1 like the target's, got 2"),
    ({"mask": torch.ones(2, 1, 8, 9)}, "mask: expected a batch of 1 or 1 like the target's, got 2"),
    ({"mode": "best"}, "mode: expected one of 'default', 'paper', 'released', got 'best'"),
    ({"equation": "poisson"}, "equation: expected one of 'gaussian-poisson', 'screened', got 'poisson'"),
    ({"carry": "x"}, "carry: expected one of 'image', 'correction', got 'x'"),
    ({"pyramid": ""}, "pyramid: expected one of 'aspect', 'square', got ''"),
    ({"color_weight": 0}, "color_weight: expected a number above 0, from 1e-30 to 1e30, got 0"),
    ({"color_weight": np.inf}, "color_weight: expected a number above 0, from 1e-30 to 1e30, got inf"),
    ({"sigma": -1.0}, "sigma: expected a number above 0 and up to 1000 px, got -1"),
    ({"sigma": np.nan}, "sigma: expected a number above 0 and up to 1000 px, got -?nan"),
    ({"sigma": 1e9}, "sigma: expected a number above 0 and up to 1000 px, got 1e\\+09"),
    ({"inset": -1}, "inset: expected 0 to 1048576 px, got -1"),
    ({"inset": 2**40}, "inset: expected an integer of 32 bits, got"),
    ({"threads": -1}, "threads: expected 0 to 4096, got -1"),
    ({"device": "tpu"}, "device: expected 'auto', 'cpu', 'cuda' or .*, got 'tpu'"),
    ({"offset": (2**60, 0)}, r"offset: expected values within 2\*\*40 pixels, got"),
    ({"out": np.zeros((8, 8, 3), "f4")}, r"out: expected the target's shape and dtype, .* got \(8, 8, 3\) float32"),
    ({"out": np.zeros((8, 9, 3))}, r"out: expected the target's shape and dtype, .* got \(8, 9, 3\) float64"),
]  # fmt: skip
BAD_TYPES = [
    ({"source": [[0.0]]}, "source: expected a NumPy array, a PIL image or a torch tensor, got list"),
    ({"target": "photo.png"}, "target: expected a NumPy array, a PIL image or a torch tensor, got str"),
    ({"mask": 1}, "mask: expected a NumPy array, a PIL image or a torch tensor, got int"),
    ({"source": np.zeros((8, 9, 3), "i4")}, f"source: expected {IMAGE}, got int32"),
    ({"source": np.zeros((8, 9, 3), bool)}, f"source: expected {IMAGE}, got bool"),
    ({"target": np.zeros((8, 9, 3), "c8")}, f"target: expected {IMAGE}, got complex64"),
    ({"target": np.zeros((8, 9, 3), "O")}, f"target: expected {IMAGE}, got object"),
    ({"target": np.zeros((8, 9, 3), "g")}, f"target: expected {IMAGE}, got float128|longdouble"),
    ({"target": torch.zeros(3, 8, 9, dtype=torch.bfloat16)}, f"target: expected {IMAGE}, got torch.bfloat16"),
    ({"mask": np.ones((8, 9), "c8")}, "mask: expected bool, integers or uint8, .* or float64, got complex64"),
    ({"mask": np.full((8, 9), "1")}, "mask: expected bool, integers or uint8, .* or float64, got <U1"),
    ({"mask": np.ones((8, 9), "g")}, "mask: expected .*, got (float128|longdouble)"),
    ({"lowres": np.zeros((4, 4, 3), "i8")}, f"lowres: expected {IMAGE}, got int64"),
    ({"offset": 3}, r"offset: expected two integers \(top, left\), got 3"),
    ({"offset": (1.5, 2)}, r"offset: expected two integers \(top, left\), got \(1.5, 2\)"),
    ({"offset": (1, 2, 3)}, r"offset: expected two integers \(top, left\), got \(1, 2, 3\)"),
    ({"mode": None}, r"mode: expected str, got NoneType \(None\)"),
    ({"equation": 1}, r"equation: expected str, got int \(1\)"),
    ({"color_weight": "1"}, r"color_weight: expected float, got str \('1'\)"),
    ({"color_weight": True}, r"color_weight: expected float, got bool \(True\)"),
    ({"sigma": 1j}, r"sigma: expected float, got complex"),
    ({"membrane": 1}, r"membrane: expected bool, got int \(1\)"),
    ({"inset": 1.0}, r"inset: expected int, got float \(1.0\)"),
    ({"inset": True}, r"inset: expected int, got bool \(True\)"),
    ({"threads": "2"}, r"threads: expected int, got str \('2'\)"),
    ({"generator": 3}, "generator: expected a name, a path, a callable or None, got int"),
    ({"out": torch.zeros(3, 8, 9)}, r"out: expected the target's type \(numpy\), got torch"),
    ({"out": "x.png"}, "out: expected a NumPy array, a PIL image or a torch tensor, got str"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_VALUES, ids=lambda x: x[:40] if isinstance(x, str) else "")
def test_blend_refuses_bad_values(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        gpgan.blend(**{"generator": None, **images(), **arguments})


@pytest.mark.parametrize(("arguments", "message"), BAD_TYPES, ids=lambda x: x[:40] if isinstance(x, str) else "")
def test_blend_refuses_bad_types(arguments, message):
    with pytest.raises(TypeError, match=f"^({message})"):
        gpgan.blend(**{"generator": None, **images(), **arguments})


def test_blend_refuses_unknown_arguments():
    with pytest.raises(TypeError, match=r"lambda_"):
        gpgan.blend(**images(), lambda_=1)


def test_blend_checks_what_an_offset_cuts_off():
    # Whether input is good must not depend on where it is put.
    with pytest.raises(ValueError, match=r"^source: expected finite floats"):
        gpgan.blend(**{**images(), "source": with_value(np.nan)}, offset=(-6, 0), generator=None)


def test_blend_refuses_out_for_pil_and_read_only_out():
    target = Image.new("RGB", (9, 8))
    with pytest.raises(TypeError, match=r"^out: expected None as the target is a PIL image"):
        gpgan.blend(**{**images("u1"), "target": target}, generator=None, out=Image.new("RGB", (9, 8)))
    out = np.zeros((8, 9, 3), "f4")
    out.setflags(write=False)
    with pytest.raises(ValueError, match=r"^out: expected a writable array, got a read-only one"):
        gpgan.blend(**images(), generator=None, out=out)


@pytest.mark.parametrize("argument", ["source", "target", "mask", "lowres"])
def test_blend_refuses_more_pixels_than_the_limit(argument, small_pixel_limit):
    sizes = {"source": (8, 9), "target": (8, 9), "mask": (8, 9), "lowres": (4, 4), argument: (11, 10)}
    if argument == "lowres":
        sizes["lowres"] = (11, 11)
    arrays = {name: np.zeros(size if name == "mask" else (*size, 3)) for name, size in sizes.items()}
    height, width = sizes[argument]
    with pytest.raises(
        ValueError,
        match=rf"^{argument}: expected at most 100 pixels \(gpgan.set_max_pixels\), got {height} x {width}",
    ):
        gpgan.blend(**arrays)


def test_set_max_pixels_is_exact(small_pixel_limit):
    exact = {k: v[:, :8] for k, v in images().items()}
    gpgan.set_max_pixels(64)
    assert gpgan.max_pixels() == 64
    gpgan.blend(**exact, generator=None)
    gpgan.set_max_pixels(63)
    with pytest.raises(ValueError, match=r"^target: expected at most 63 pixels"):
        gpgan.blend(**exact, generator=None)
    with pytest.raises(ValueError, match=r"^pixels: expected 1 or more, got 0"):
        gpgan.set_max_pixels(0)
    assert gpgan.max_pixels() == 63


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8,), r"shape: expected \(H, W\) or \(H, W, C\) of 1 to 4 channels, got \(8,\)"),
        ((8, 9, 5), r"shape: expected \(H, W\) or \(H, W, C\) of 1 to 4 channels, got \(8, 9, 5\)"),
        ((8, 9, 0), r"shape: expected \(H, W\) or \(H, W, C\) of 1 to 4 channels, got \(8, 9, 0\)"),
        ((0, 9), "shape: expected at least 1 x 1 pixels, got 0 x 9"),
        ((8, -1, 3), "shape: expected at least 1 x 1 pixels, got 8 x -1"),
        ((2**40, 2**40), r"shape: expected at most \d+ pixels \(gpgan.set_max_pixels\), got 1099511627776 x"),
    ],
)
def test_blender_refuses_bad_shapes(shape, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        gpgan.Blender(shape, generator=None)


@pytest.mark.parametrize("shape", [8, None, (8.0, 9), ("8", "9"), np.zeros((8, 9))])
def test_blender_refuses_shapes_of_other_types(shape):
    with pytest.raises(
        TypeError, match=r"^shape: expected \(H, W\) or \(H, W, C\) of 1 to 4 channels of integers, got"
    ):
        gpgan.Blender(shape, generator=None)


def test_blender_refuses_other_targets_than_planned(rng):
    blender = gpgan.Blender((8, 9, 3), generator=None)
    for bad, got in (((9, 8, 3), "9 x 8 of 3"), ((8, 9), "8 x 9 of 1")):
        with pytest.raises(ValueError, match=f"^target: expected 8 x 9 pixels of 3 colours as planned, got {got}"):
            blender(np.zeros(bad), np.zeros(bad), np.ones(bad[:2]))


# ------------------------------------------------------------------- what memory and scales can do to an honest caller


def test_masks_beside_a_batch_are_no_stack_of_channels(pair, mask):
    source, target = (torch.from_numpy(x[..., :3].transpose(2, 0, 1).copy()) for x in pair)
    batch = torch.stack([target, target.flip(2)])
    masks = torch.from_numpy(np.stack([mask, 1 - mask]))
    with pytest.raises(ValueError, match=r"^mask: expected .*\(N, 1, H, W\) beside a batch, got shape \(2, 21, 34\)"):
        gpgan.blend(source, batch, masks, **EXACT)
    both = gpgan.blend(source, batch, masks[:, None], **EXACT)
    for i in range(2):
        assert_array_equal(both[i].numpy(), gpgan.blend(source, batch[i], masks[i], **EXACT).numpy())


def test_masks_of_one_batch_share_one_scale(pair, mask):
    source, target = (torch.from_numpy(x[..., :3].transpose(2, 0, 1).copy()) for x in pair)
    faint = np.stack([mask * 255, mask]).astype(np.uint8)[:, None]  # the second is 1 of 255 nearly everywhere
    result = gpgan.blend(source, torch.stack([target, target]), torch.from_numpy(faint), **EXACT)
    assert (result[1] - target).abs().max() < 0.02
    assert_allclose(result[0].numpy(), gpgan.blend(source, target, mask_tensor(mask), **EXACT).numpy(), atol=1e-6)


def mask_tensor(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4"])
def test_masks_of_a_byte_in_a_wider_dtype_are_refused(dtype, mask, blended):
    with pytest.raises(ValueError, match=r"^mask: expected 0 and 1, or 0 to \d+ .*, got at most 255"):
        blended((mask * 255).astype(dtype))


def test_out_may_overlap_every_input(pair, mask):
    source, target = (x.astype(np.float32) for x in pair)
    expected = gpgan.blend(source, target, mask, **EXACT)
    for moved in (0, 1, 4 * W):  # floats by which out lies behind the target in the same memory
        memory = np.zeros(target.size + moved, np.float32)
        shifted_target = memory[: target.size].reshape(target.shape)
        shifted_target[...] = target
        out = memory[moved:].reshape(target.shape)
        assert_array_equal(gpgan.blend(source, shifted_target, mask, out=out, **EXACT), expected)
    memory = source.copy()
    assert_array_equal(gpgan.blend(memory, target, mask, out=memory, **EXACT), expected)
    batch = np.stack([target[..., :3], target[::-1, :, :3]]).transpose(0, 3, 1, 2).copy()
    tensors = torch.from_numpy(batch)
    apart = gpgan.blend(tensors[0].clone(), tensors.clone(), torch.from_numpy(mask), **EXACT)
    assert_array_equal(gpgan.blend(tensors[0], tensors, torch.from_numpy(mask), out=tensors, **EXACT), apart)


def test_out_needs_memory_of_its_own(pair, mask):
    source, target = (torch.from_numpy(x[..., :3].transpose(2, 0, 1).copy()) for x in pair)
    with pytest.raises(ValueError, match=r"^out: expected memory of its own .*, got an expanded array"):
        gpgan.blend(source, target, mask_tensor(mask), out=torch.zeros(1, 1, 1).double().expand(3, H, W), **EXACT)
    with pytest.raises(ValueError, match=r"^out: expected a tensor that does not require grad"):
        gpgan.blend(source, target, mask_tensor(mask), out=torch.zeros_like(target, requires_grad=True), **EXACT)


def test_tensors_keep_their_memory_format(pair, mask):
    source, target = (torch.from_numpy(x[..., :3].transpose(2, 0, 1).copy()[None]) for x in pair)
    result = gpgan.blend(source, target.contiguous(memory_format=torch.channels_last), mask_tensor(mask), **EXACT)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert_array_equal(result.numpy(), gpgan.blend(source, target, mask_tensor(mask), **EXACT).numpy())


def test_fields_of_packed_records_are_images_too(pair, mask):
    source, target = (x[..., :3].astype(np.float32) for x in pair)
    record = np.zeros((H, W), [("before", "u1"), ("pixel", "<f4", 3)])
    record["pixel"] = target
    assert not record["pixel"].flags.aligned
    expected = gpgan.blend(source, target, mask, **EXACT)
    assert_array_equal(gpgan.blend(source, record["pixel"], mask, **EXACT), expected)
    gpgan.blend(source, target, mask, out=record["pixel"], **EXACT)
    assert_array_equal(record["pixel"], expected)


def test_floats_a_little_out_of_range_count_as_its_ends(pair, mask):
    source, target = (x[..., :3] for x in pair)
    assert_array_equal(
        gpgan.blend(source, target, np.where(mask > 0, 1.0009, -0.0009), **EXACT),
        gpgan.blend(source, target, mask, **EXACT),
    )


def test_an_alpha_that_passes_through_is_finite(pair, mask):
    source, target = pair
    target[3, 4, 3] = np.nan
    with pytest.raises(ValueError, match=r"^target: expected finite floats in \[0, 1\], got NaN"):
        gpgan.blend(source, target, mask, **EXACT)


def test_a_transparent_colour_of_a_png_is_alpha(pair, tmp_path):
    source, target = (as_dtype(x[..., :3], "u1") for x in pair)
    source[2:9, 3:20] = (1, 2, 3)
    Image.fromarray(source).save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    alpha = np.where((source == (1, 2, 3)).all(axis=-1), 0, 255).astype(np.uint8)
    with Image.open(tmp_path / "keyed.png") as keyed:
        result = gpgan.blend(keyed, Image.fromarray(target), generator=None)
    assert_array_equal(result, gpgan.blend(np.dstack([source, alpha]), target, generator=None))


def test_pictures_over_the_limit_are_not_even_decoded(small_pixel_limit, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as large:
        with pytest.raises(ValueError, match=r"^target: expected at most 100 pixels"):
            gpgan.blend(np.zeros((8, 9, 3)), large, np.ones((8, 9)))
        assert not getattr(large, "_im", None)  # what Image.load fills in


def test_damaged_pictures_are_named(tmp_path, pair):
    path = tmp_path / "cut.png"
    Image.fromarray(as_dtype(pair[0][..., :3], "u1")).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with Image.open(path) as cut, pytest.raises(ValueError, match=r"^source: expected an image that can be read"):
        gpgan.blend(cut, pair[1][..., :3], np.ones((H, W)))


def test_extreme_color_weights_stay_finite_and_right(pair, mask):
    source, target = (x[..., :3] for x in pair)
    for equation in ("gaussian-poisson", "screened"):
        for weight in (1e-30, 1e-10, 1e-6, 1e-3, 1e3, 1e6):
            options = {"color_weight": weight, "equation": equation}
            exact = reference.blend(source, target, mask, membrane=False, **options)
            # Ever smaller weights leave the mean alone undetermined in float64 too.
            bound = 2e-5 if weight >= 1e-10 else 1e-3
            assert_allclose(gpgan.blend(source, target, mask, **EXACT, **options), exact, atol=bound)
