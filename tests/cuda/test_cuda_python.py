"""gpgan.blend and gpgan.Blender on CUDA tensors: what goes in and comes out, where it is computed, what is refused."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import tolerances
import torch
from conftest import draw_image, draw_mask
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import gpgan
from gpgan import _cuda_device, _cuda_library, _generator, blender, reference
from gpgan._cuda_arrays import describe

DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]
H, W = 31, 34

#: Without a generator and without the iterative membrane: what is left is exact to the core's rounding.
EXACT = {"generator": None, "membrane": False}


def as_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    return np.round(x * np.iinfo(kind).max).astype(kind) if kind.kind == "u" else x.astype(kind)


def as_float(x: np.ndarray) -> np.ndarray:
    return x / np.iinfo(x.dtype).max if x.dtype.kind == "u" else x.astype(np.float64)


def planar(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, -3))


@pytest.fixture
def pair(rng):
    """(4, H, W)."""
    return planar(draw_image(rng, H, W, 4)), planar(draw_image(rng, H, W, 4))


@pytest.fixture
def mask(rng):
    return draw_mask(rng, H, W, soft=False)


# ------------------------------------------------------------------------------------------- what goes in and out


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blend_gives_a_tensor_of_the_device(dtype, channels, device, pair, mask):
    channels = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    source, target = (as_dtype(x[channels], dtype) for x in pair)
    s, t, m = (device.tensor(x) for x in (source, target, mask))
    result = gpgan.blend(s, t, m, **EXACT)
    assert isinstance(result, torch.Tensor)
    assert device.place_of(result) == "cuda:0"
    assert result.dtype == t.dtype
    assert result.shape == t.shape
    expected = gpgan.blend(torch.from_numpy(source), torch.from_numpy(target), torch.from_numpy(mask), **EXACT).numpy()
    # Float32 on both sides; then each may round to its own side of a step.
    step = 0 if dtype.startswith("float") else 1 / np.iinfo(dtype).max
    atol = step + 2 * tolerances.NATIVE + tolerances.ROUNDING[np.dtype(dtype)]
    assert_allclose(as_float(device.array(result)), as_float(expected), atol=atol, rtol=0)
    assert_array_equal(device.array(t), target)
    assert_array_equal(device.array(s), source)
    if len(channels) in (2, 4):
        assert_array_equal(device.array(result)[-1], target[-1])


@pytest.mark.parametrize("mode", ["default", "paper", "released"])
def test_blend_matches_reference(mode, device, pair, mask):
    source, target = (x[:3] for x in pair)
    lowres = np.full((3, 8, 8), 0.4, np.float32)
    s, t, m, low = (device.tensor(x) for x in (source, target, mask, lowres))
    got = device.array(gpgan.blend(s, t, m, lowres=low, mode=mode))
    hwc = [np.moveaxis(x, 0, -1) for x in (source, target)]
    expected = np.moveaxis(reference.blend(*hwc, mask, lowres=np.moveaxis(lowres, 0, -1), mode=mode), -1, 0)
    assert_allclose(got, expected, rtol=0, atol=tolerances.MEMBRANE_MAX if mode == "default" else tolerances.NATIVE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_mask_gives_the_target_bit_for_bit(dtype, device, pair, mask):
    source, target = (as_dtype(x, dtype) for x in pair)
    if dtype.startswith("float"):
        target[:, 3, 4] = 1 + 0.5e-3  # within what is taken for 1, but not 1
    s, t = device.tensor(source), device.tensor(target)
    nothing = device.tensor(np.zeros((H, W), bool))
    for given, given_mask in ((s, nothing), (device.tensor(np.concatenate([source[:3], 0 * source[3:]])), None)):
        result = gpgan.blend(given, t, given_mask, generator=lambda c, m, h, s: 0 * c)
        assert_array_equal(device.array(result), target)


def test_blend_keeps_the_layout(device, pair, mask):
    s, t = (torch.from_numpy(x[:3].astype(np.float32))[None] for x in pair)
    m = device.tensor(mask)
    expected = device.array(gpgan.blend(device.tensor(s), device.tensor(t), m, **EXACT))
    for change in (
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.mT.contiguous().mT,
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
        lambda x: torch.nn.functional.pad(x, (1, 2, 3, 4))[..., 3:-4, 1:-2],
    ):
        given = device.tensor(change(t))
        result = gpgan.blend(device.tensor(change(s)), given, m, **EXACT)
        assert_array_equal(device.array(result), expected)
        assert result.stride() == torch.empty_like(change(t)).stride()
    grey = gpgan.blend(device.tensor(s[0, 0]), device.tensor(t[0, 0]), m, **EXACT)
    assert grey.shape == (H, W)
    with_grad = gpgan.blend(device.tensor(s), device.tensor(t).requires_grad_(), m, **EXACT)
    assert not with_grad.requires_grad
    assert_array_equal(device.array(with_grad), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_is_filled_and_may_be_the_target(dtype, device, pair, mask):
    source, target = (as_dtype(x, dtype) for x in pair)
    s, t, m = (device.tensor(x) for x in (source, target, mask))
    expected = device.array(gpgan.blend(s, t, m, **EXACT))
    out = device.tensor(np.zeros_like(target))
    assert gpgan.blend(s, t, m, out=out, **EXACT) is out
    assert_array_equal(device.array(out), expected)
    assert_array_equal(device.array(t), target)
    assert gpgan.blend(s, t, m, out=t, **EXACT) is t
    assert_array_equal(device.array(t), expected)
    s2 = device.tensor(source.copy())
    gpgan.blend(s2, device.tensor(target.copy()), m, out=s2, **EXACT)
    assert_array_equal(device.array(s2), expected)
    # One row further in the same memory: neither the same nor apart.
    memory = device.tensor(np.concatenate([target[:, :1], target], axis=1))
    gpgan.blend(device.tensor(source.copy()), memory[:, 1:], m, out=memory[:, :-1], **EXACT)
    assert_array_equal(device.array(memory)[:, :-1], expected)


def test_a_batch_is_blended_at_once(fake, emulated, rng, monkeypatch):
    sources, targets = (planar(np.stack([draw_image(rng, H, W) for _ in "abc"])).astype(np.float32) for _ in "st")
    masks = np.stack([draw_mask(rng, H, W) for _ in "abc"])[:, None]
    lowres = rng.uniform(size=(3, 3, 8, 8)).astype(np.float32)
    s, t, m, low = (fake.tensor(x) for x in (sources, targets, masks, lowres))
    b = gpgan.Blender((H, W, 3), generator=None, device="cuda")
    b(s, t, m, lowres=low)
    emulated.emulation.reset_counts()
    together = fake.array(b(s, t, m, lowres=low))
    launches = emulated.emulation.counts()["launches"]
    emulated.emulation.reset_counts()
    for i in range(3):
        alone = fake.array(gpgan.blend(s[i], t[i], m[i], lowres=low[i]))
        assert_allclose(together[i], alone, rtol=0, atol=tolerances.FLOAT32)
    assert sum(emulated.emulation.counts()["launches"].values()) > 2 * sum(launches.values())
    # What all share is given once.
    shared = fake.array(b(s[0], t, m[0, 0], lowres=low[:1]))
    repeated = fake.array(b(s[[0, 0, 0]], t, m[[0, 0, 0]], lowres=low[[0, 0, 0]]))
    assert_array_equal(shared, repeated)
    with pytest.raises(ValueError, match="source: expected a batch of 1 or 3"):
        b(s[:2], t, m)
    with pytest.raises(ValueError, match=r"mask: expected .* beside a batch"):
        b(s, t, m[:, 0])


MASKS = {
    "bool": lambda x: x == 1,
    "uint8 of 0 and 1": lambda x: x.astype(np.uint8),
    "uint8 of 0 and 255": lambda x: 255 * x.astype(np.uint8),
    "uint16 of 0 and 1": lambda x: x.astype(np.uint16),
    "uint16": lambda x: 65535 * x.astype(np.uint16),
    "int16": lambda x: 32767 * x.astype(np.int16),
    "int64 of 0 and 1": lambda x: x.astype(np.int64),
    "uint32": lambda x: (2**32 - 1) * x.astype(np.uint32),
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x,
    "(1, H, W)": lambda x: x[None],
    "RGB": lambda x: np.stack([255 * x.astype(np.uint8)] * 3),
    "RGBA": lambda x: np.stack([0.3 + 0 * x, 0.1 + 0 * x, 0 * x, x]),
    "LA": lambda x: np.stack([x, x]).astype(np.float32),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind_mean_the_same(kind, device, pair, mask):
    s, t = (device.tensor(x[:3].astype(np.float32)) for x in pair)
    expected = device.array(gpgan.blend(s, t, device.tensor(mask.astype(np.float32)), **EXACT))
    result = gpgan.blend(s, t, device.tensor(np.ascontiguousarray(MASKS[kind](mask))), **EXACT)
    assert_array_equal(device.array(result), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: -x.astype(np.int32),
        lambda x: 255 * x.astype(np.int32),
        lambda x: 255 * x.astype(np.uint16),
        lambda x: 65535 * x.astype(np.int64),
        lambda x: np.stack([x, x, 0 * x]),
        lambda x: np.stack([x, x, x, 0.5 + 0 * x]),
        lambda x: x + np.nan,
        lambda x: 2 * x,
    ],
)
def test_what_is_no_mask_is_told_by_the_device(wrong, device, pair, mask):
    s, t = (device.tensor(x[:3].astype(np.float32)) for x in pair)
    m = device.tensor(wrong(mask))
    with pytest.raises(ValueError, match=r"^mask: expected finite floats in \[0, 1\]"):
        gpgan.blend(s, t, m, **EXACT)
    b = gpgan.Blender((H, W, 3), device="cuda", **EXACT)
    with pytest.raises(ValueError, match=r"^mask: expected finite floats in \[0, 1\]"):
        b(s, t, m)
        b.synchronize()
    b.synchronize()


def test_soft_masks_and_offsets_are_the_cpus(device, rng):
    source, target = (planar(draw_image(rng, *size)).astype(np.float32) for size in ((20, 25), (H, W)))
    soft = draw_mask(rng, 20, 25).astype(np.float32)
    expected = gpgan.blend(*(torch.from_numpy(x) for x in (source, target, soft)), offset=(9, -3), **EXACT)
    result = gpgan.blend(*(device.tensor(x) for x in (source, target, soft)), offset=(9, -3), **EXACT)
    assert_allclose(device.array(result), expected.numpy(), rtol=0, atol=2 * tolerances.NATIVE)


# ------------------------------------------------------------------------------------------- where it is computed


@pytest.mark.parametrize("kind", ["numpy", "strided", "big-endian", "float16", "PIL", "torch"])
def test_device_cuda_takes_images_of_the_host(kind, device, pair, mask):
    source, target = (np.ascontiguousarray(np.moveaxis(as_dtype(x, "uint8"), 0, -1)) for x in pair)
    make = {
        "numpy": lambda x: x,
        "strided": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "big-endian": lambda x: (x * 257.0).astype(">u2"),
        "float16": lambda x: (x / 255).astype(np.float16),
        "PIL": Image.fromarray,
        "torch": lambda x: torch.from_numpy(planar(x)),
    }[kind]
    s, t = make(source), make(target)
    result = gpgan.blend(s, t, mask, device="cuda", **EXACT)
    expected = gpgan.blend(s, t, mask, device="cpu", **EXACT)
    assert type(result) is type(expected)
    if isinstance(t, (np.ndarray, torch.Tensor)):
        assert result.dtype == expected.dtype
    got, expected = (np.asarray(x) for x in (result, expected))
    assert got.shape == expected.shape
    assert_allclose(as_float(got), as_float(expected), rtol=0, atol=1.01 / 255 if kind in ("numpy", "PIL") else 5e-3)
    if isinstance(t, np.ndarray):
        out = np.zeros_like(t)
        assert gpgan.blend(s, t, mask, device="cuda:0", out=out, **EXACT) is out
        assert_array_equal(out, result)
        t = t.copy()
        gpgan.blend(s, t, mask, device="cuda:0", out=t, **EXACT)
        assert_array_equal(t, result)


def test_wrong_values_of_the_host_are_told_at_once(device, pair, mask):
    source, target = (np.moveaxis(x[:3], 0, -1).copy() for x in pair)
    b = gpgan.Blender((H, W, 3), device="cuda", **EXACT)
    source[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"^source: expected finite floats in \[0, 1\]"):
        b(source, target, mask)
    source[3, 4] = 0.5
    b(source, target, mask)


def test_nothing_is_moved_to_another_device(fake, pair, mask):
    s0, t0, m0 = (fake.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    t1 = fake.tensor(pair[1][:3].copy(), "cuda:1")
    host = torch.from_numpy(pair[1][:3].copy())
    low = np.full((8, 8, 3), 0.5)
    for arguments, options, message in (
        ((s0, t1, m0), {}, "source: expected a tensor on cuda:1 like the target, got one on cuda:0"),
        ((s0, t0, mask), {}, "mask: expected a tensor on cuda:0 like the target, got an image in CPU memory"),
        ((s0, t0, m0), {"lowres": low}, "lowres: expected a tensor on cuda:0 .*, got an image in CPU memory"),
        ((s0, t0, m0), {"out": t1}, "out: expected a tensor on cuda:0 .*, got one on cuda:1"),
        ((s0, t0, m0), {"out": host}, "out: expected a tensor on cuda:0 .*, got an image in CPU memory"),
        ((s0, host, mask), {}, "source: expected a tensor in CPU memory like the target, got one on cuda:0"),
        ((host, host, m0), {}, "mask: expected a tensor in CPU memory like the target, got one on cuda:0"),
        ((s0, host, mask), {"device": "cuda"}, "source: expected a tensor on cpu like the target, got one on cuda:0"),
        ((host, host, mask), {"out": t0}, "out: expected a tensor in CPU memory .*, got one on cuda:0"),
        ((s0, t0, m0), {"device": "cpu"}, "target: expected a tensor on cpu, as `device` says, got one on cuda:0"),
        ((s0, t0, m0), {"device": "cuda:1"}, "target: expected a tensor on cuda:1, as `device` says, got .* cuda:0"),
        ((s0, t0, m0), {"device": "cuda:7"}, "target: expected a tensor on cuda:7"),
        ((host, host, mask), {"device": "cuda:7"}, "device: expected a number below 2, that of CUDA devices"),
        ((s0, t0, m0), {"device": "gpu"}, "device: expected 'auto', 'cpu', 'cuda' or 'cuda:' and a number, got 'gpu'"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            gpgan.blend(*arguments, **{"generator": None, **options})
    with pytest.raises(TypeError, match=r"^device: expected str, got int \(0\)"):
        gpgan.blend(s0, t0, m0, device=0)


def test_each_device_computes_its_own(fake, emulated, pair, mask):
    results = []
    b = gpgan.Blender((H, W, 3), **EXACT)
    for place in ("cuda:0", "cuda:1"):
        s, t, m = (fake.tensor(x.copy(), place) for x in (pair[0][:3], pair[1][:3], mask))
        for result in (gpgan.blend(s, t, m, **EXACT), b(s, t, m), gpgan.blend(s, t, m, device=place, **EXACT)):
            assert fake.place_of(result) == place
            results.append(fake.array(result))
    for result in results[1:]:
        assert_array_equal(result, results[0])
    host = [np.moveaxis(x[:3], 0, -1) for x in pair]
    assert_allclose(b(*host, mask), np.moveaxis(results[0], 0, -1), rtol=0, atol=2 * tolerances.NATIVE)
    assert emulated.emulation.current_device() == 0


def test_work_goes_to_torchs_current_stream(fake, emulated, pair, mask):
    s, t, m = (fake.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    b = gpgan.Blender((H, W, 3), device="cuda", **EXACT)
    for stream in (emulated.emulation.make_stream(), emulated.emulation.make_stream()):
        fake.streams["cuda:0"] = stream
        b(s, t, m)
        emulated.emulation.reset_counts()
        b(s, t, m)
        counts = emulated.emulation.counts()
        assert counts["streams"] == {stream}
        assert counts["allocations"] == counts["synchronisations"] == 0


def test_a_blend_of_integers_waits_for_nothing(fake, emulated, pair, mask):
    s, t = (fake.tensor(as_dtype(x[:3], "uint8")) for x in pair)
    m = fake.tensor(mask == 1)
    for generator in (None, "default"):
        gpgan.blend(s, t, m, generator=generator)  # leaves its core
        emulated.emulation.reset_counts()
        gpgan.blend(s, t, m, generator=generator)
        counts = emulated.emulation.counts()
        assert counts["allocations"] == counts["synchronisations"] == 0
    gpgan.blend(s.float() / 255, t, m, generator=None)
    assert emulated.emulation.counts()["synchronisations"] == 1


def test_wrong_values_are_told_later_but_by_their_own_call(fake, pair, mask):
    s, t, m = (fake.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    bad = fake.tensor(np.full_like(pair[0][:3], np.nan))
    with pytest.raises(ValueError, match=r"^source: expected finite floats"):
        gpgan.blend(bad, t, m, generator=None)
    gpgan.blend(s, t, m, generator=None)
    b = gpgan.Blender((H, W, 3), generator=None, device="cuda")
    with pytest.raises(ValueError, match=r"^source: expected finite floats"):
        b(bad, t, m)
        b.synchronize()
    b(s, t, m)
    b.synchronize()
    # A new plan forgets nothing that the old one has not told.
    with pytest.raises(ValueError, match=r"^source: expected finite floats"):
        b(bad, t, m)
        b(s[None].expand(2, -1, -1, -1), t[None].expand(2, -1, -1, -1), m)
    b(s, t, m)
    gpgan.Blender((H, W, 3), generator=None).synchronize()  # the CPU's: nothing


def test_out_of_memory_is_tried_again_with_what_nobody_uses(fake, emulated, pair, mask):
    s, t, m = (fake.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    gpgan.blend(s, t, m, **EXACT)  # leaves its core
    out_of_memory = 2  # cudaErrorMemoryAllocation
    emulated.emulation.fail_next("cudaMalloc", out_of_memory)
    gpgan.Blender((H, W, 3), device="cuda", **EXACT)(s, t, m)
    assert fake.releases == 1
    assert blender._spare_cores._cores == []
    emulated.emulation.fail_next("cufftCreate", 5)
    with pytest.raises(RuntimeError, match="cufftCreate"):
        gpgan.Blender((H, W, 3), device="cuda", **EXACT)
    assert fake.releases == 1


def test_spare_cores_are_kept_by_device_and_batch(fake, emulated, pair, mask):
    kept = blender._spare_cores
    for place in ("cuda:0", "cuda:1"):
        s, t, m = (fake.tensor(x.copy(), place) for x in (pair[0][:3], pair[1][:3], mask))
        for count in (1, 2):
            gpgan.blend(*(x[None].expand(count, -1, -1, -1) for x in (s, t)), m, **EXACT)
            gpgan.blend(*(x[None].expand(count, -1, -1, -1) for x in (s, t)), m, **EXACT)
    assert len(kept._cores) == 4
    assert [pixels for _, pixels, _ in kept._cores] == [H * W, 2 * H * W] * 2
    assert emulated.emulation.allocated_bytes() > 0
    gpgan.clear_cache()
    assert emulated.emulation.allocated_bytes() == 0


# --------------------------------------------------------------------------------------------------- generators


def test_the_shipped_generator_is_the_cpus(device, rng):
    source, target = (planar(draw_image(rng, H, W)).astype(np.float32) for _ in "st")
    mask = draw_mask(rng, H, W).astype(np.float32)
    for channels in (3, 1):
        given = source[:channels], target[:channels], mask
        expected = gpgan.blend(*(torch.from_numpy(x) for x in given)).numpy()
        got = device.array(gpgan.blend(*(device.tensor(x) for x in given)))
        assert_allclose(got, expected, rtol=0, atol=tolerances.MEMBRANE_MAX)
        off = np.abs(got - expected).mean()
        assert off <= tolerances.MEMBRANE_MEAN


def test_a_generator_takes_the_whole_batch(device, rng):
    class Network(torch.nn.Module):
        image_size = 16

        def __init__(self):
            super().__init__()
            self.shapes = []

        def forward(self, composite, mask, harmonized, source):
            assert not self.training
            self.shapes.append([tuple(x.shape) for x in (composite, mask, harmonized, source)])
            return 0.5 * harmonized

    sources, targets = (planar(np.stack([draw_image(rng, H, W) for _ in "ab"])).astype(np.float32) for _ in "st")
    mask = draw_mask(rng, H, W).astype(np.float32)
    network = Network()
    s, t, m = (device.tensor(x) for x in (sources, targets, mask))
    got = device.array(gpgan.blend(s, t, m, generator=network))
    assert network.shapes == [[(2, 3, 16, 16), (2, 1, 16, 16), (2, 3, 16, 16), (2, 3, 16, 16)]]
    assert network.training

    def half(composite, mask, harmonized, source):
        assert composite.shape == harmonized.shape == source.shape == (16, 16, 3)
        assert mask.shape == (16, 16)
        assert {device.place_of(x) for x in (composite, mask, harmonized, source)} == {"cuda:0"}
        assert composite.dtype == torch.float32
        composite += 1  # its own
        return 0.5 * harmonized

    half.image_size = 16
    assert_allclose(device.array(gpgan.blend(s, t, m, generator=half)), got, rtol=0, atol=tolerances.FLOAT32)
    for i in range(2):
        alone = device.array(gpgan.blend(s[i], t[i], m, generator=half))
        assert_allclose(got[i], alone, rtol=0, atol=tolerances.FLOAT32)


def test_a_generator_is_copied_to_a_device_once():
    generator = gpgan.load_generator("default")
    module = generator._module_for(torch.device("cpu"))
    assert module is generator.module
    copy = _generator._copy_to(torch.device("cpu"), module)
    assert copy is not module
    assert not copy.training
    for a, b in zip(copy.parameters(), module.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
    own = _generator.Generator(torch.nn.Conv2d(3, 3, 1), 64)
    with pytest.raises(ValueError, match="generator: expected a network on meta like the images"):
        own._module_for(torch.device("meta"))


@pytest.mark.parametrize(
    ("generator", "error", "message"),
    [
        (lambda c, m, h, s: np.zeros((64, 64, 3)), TypeError, "a tensor of floats on cuda:0, got ndarray"),
        (lambda c, m, h, s: (255 * h).to(torch.uint8), TypeError, "a tensor of floats on cuda:0, got torch.uint8"),
        (lambda c, m, h, s: m, ValueError, r"expected it to return shape \(64, 64, 3\), got \(64, 64\)"),
        (lambda c, m, h, s: torch.zeros(64, 64, 3), ValueError, "a tensor on cuda:0, got one on cpu"),
    ],
)  # fmt: skip
def test_what_a_generator_gives_is_checked(generator, error, message, device, pair, mask):
    s, t, m = (device.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    with pytest.raises(error, match=f"^generator: .*{message}"):
        gpgan.blend(s, t, m, generator=generator)


def test_wrong_values_of_a_generator_are_told(device, pair, mask):
    s, t = (device.tensor(as_dtype(x[:3], "uint8")) for x in pair)
    with pytest.raises(ValueError, match=r"^lowres: expected finite floats"):
        gpgan.blend(s, t, device.tensor(mask == 1), generator=lambda c, m, h, s: h + np.nan)


def test_a_generator_may_blend_but_not_with_its_own_blender(device, pair, mask):
    s, t, m = (device.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    b = gpgan.Blender((H, W, 3), generator=lambda *inputs: b(s, t, m), device="cuda")
    with pytest.raises(RuntimeError, match=r"^generator: expected it not to call the Blender"):
        b(s, t, m)
    b = gpgan.Blender((H, W, 3), generator=lambda *inputs: b.synchronize(), device="cuda")
    with pytest.raises(RuntimeError, match=r"^generator: expected it not to call the Blender"):
        b(s, t, m)

    def outer(composite, mask, harmonized, source):
        gpgan.blend(t, s, m, generator=None)
        return harmonized

    assert_array_equal(
        device.array(gpgan.blend(s, t, m, generator=outer)),
        device.array(gpgan.blend(s, t, m, generator=lambda c, m, h, s: h)),
    )


def test_threads_may_blend_side_by_side(device, pair, mask):
    s, t, m = (device.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    expected = device.array(gpgan.blend(s, t, m, **EXACT))
    b = gpgan.Blender((H, W, 3), device="cuda", **EXACT)
    results = []

    def work():
        results.append(device.array(gpgan.blend(s, t, m, **EXACT)))
        results.append(device.array(b(s, t, m)))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 6
    for result in results:
        assert_array_equal(result, expected)


# ---------------------------------------------------------------------------------- torch's part, as far as it goes


def test_arrays_are_copied_there_and_back():
    # The calls that a device needs work for the CPU as a place, too.
    cuda = _cuda_device.TorchCuda()
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    read_only = values.copy()
    read_only.setflags(write=False)
    for array in (values, read_only, values[::-1], values[:, ::2], np.asfortranarray(values), values.astype(np.uint16)):
        there = cuda.upload(array, "cpu")
        assert_array_equal(there.numpy(), array)
        for dtype in (np.uint8, np.float16, ">u2"):
            out = np.zeros(array.shape, dtype)
            for part in (out, out[::-1], np.zeros(array.shape[::-1], dtype).T):
                cuda.download(there, part)
                assert_array_equal(part, array)


def test_the_cores_memory_is_described_to_torch():
    owner = object()
    memory = _cuda_device._Memory(owner, 4096, (1, 3, 8, 8), 0)
    said = memory.__cuda_array_interface__
    assert said["data"] == (4096, False)
    assert said["shape"] == (1, 3, 8, 8)
    assert said["typestr"] == "<f4"
    assert said["strides"] is None
    assert said["stream"] == 1
    assert memory._owner is owner
    assert _cuda_device._Memory(owner, 4096, (1,), 77).__cuda_array_interface__["stream"] == 77


def test_the_cores_memory_is_not_copied(device, pair):
    """On a device through torch itself."""
    core = device.module().Blender(
        H, W, 3, batch=1, image_size=8, device=0, stream=device.stream("cuda:0"), **gpgan._core.options("default")
    )
    images = [device.tensor(np.ascontiguousarray(x[None].astype(np.float32))) for x in (pair[0], pair[1][:3])]
    described = [describe(x.permute(0, 2, 3, 1), 1) for x in images]
    stream = device.stream("cuda:0")
    inputs = core.prepare(*described, None, (0, 0), stream)
    views = [device.wrap(core, *x, "cuda:0", stream) for x in inputs]
    for (address, shape), view in zip(inputs, views, strict=True):
        assert view.data_ptr() == address
        assert tuple(view.shape) == tuple(shape)
        assert device.place_of(view) == "cuda:0"
    views[0].fill_(0.25)
    again = device.wrap(core, *inputs[0], "cuda:0", stream)
    assert_array_equal(device.array(again), np.full(inputs[0][1], 0.25, np.float32))


# ------------------------------------------------------------------------------------------------ where there is none


def test_no_device_is_said_with_its_reason(fake, monkeypatch, pair, mask):
    monkeypatch.setattr(fake, "why_not", lambda: "no CUDA device: because")
    s, t, m = (fake.tensor(x.copy()) for x in (pair[0][:3], pair[1][:3], mask))
    with pytest.raises(ValueError, match=r"^target: .*as CUDA cannot be used \(no CUDA device: because\), got one on"):
        gpgan.blend(s, t, m)
    for device in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(ValueError, match=r"^device: expected 'auto' or 'cpu', as CUDA cannot be used \(no CUDA"):
            gpgan.Blender((H, W), device=device)


def test_why_not_names_what_is_missing(monkeypatch):
    cuda = _cuda_device.TorchCuda()
    monkeypatch.setattr(_cuda_library, "status", lambda: (False, "no module"))
    assert cuda.why_not() == "no module"
    monkeypatch.setattr(_cuda_library, "status", lambda: (True, "a device"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.why_not() == f"torch {torch.__version__} sees no CUDA device; install one that is built for CUDA"


def test_import_gpgan_loads_neither_torch_nor_cuda():
    code = "import sys, gpgan; assert not {'torch', 'gpgan._cuda'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
