"""Training pairs: what blending would hand a generator, determinism, ranges, and what each kind of sample means."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader

import gpgan
from gpgan.nn import data as data_module
from gpgan.nn.data import (
    Batch,
    PairDataset,
    Pool,
    augment,
    build_pool,
    find_images,
    find_masks,
    find_scenes,
    index_batches,
    random_mask,
    read_crops,
    relight,
    unpack,
)


def dataset(photos: Path, **options: object) -> PairDataset:
    paths = find_images(photos / "photos"), find_images(photos / "masks")
    return PairDataset(find_scenes(photos / "scenes"), *paths, **{"image_size": 32, "length": 12, **options})


def only(**probabilities: float) -> dict[str, float]:
    return {"simulated": 0, "unrelated": 0, "cutout": 0, "same": 0, "recoloured": 0, **probabilities}


def test_find_scenes(photos: Path) -> None:
    assert {k: len(v) for k, v in find_scenes(photos / "scenes").items()} == {
        "harbour": 3,
        "square": 3,
        "street": 3,
    }
    assert set(find_scenes(photos / "scenes", exclude=["square"])) == {"harbour", "street"}
    with pytest.raises(ValueError, match=r"exclude names no camera.*moon"):
        find_scenes(photos / "scenes", exclude=["moon"])
    with pytest.raises(ValueError, match="no camera folder"):
        find_scenes(photos / "photos")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_scenes(photos / "nowhere")
    with pytest.raises(ValueError, match="no images"):
        find_images(photos / "nowhere")


def test_dataset_needs_images() -> None:
    with pytest.raises(ValueError, match="scenes and photos are both empty"):
        PairDataset({}, [])
    with pytest.raises(ValueError, match="at least two frames"):
        PairDataset({"lonely": [Path("0.jpg")]})


def everything(photos: Path, tmp_path: Path, **options: object) -> PairDataset:
    """A dataset with every kind of file: crop boxes, mask images and annotations."""
    outline = {"label": "boat", "shape_type": "polygon", "points": [[2, 3], [25, 5], [14, 18]]}
    (tmp_path / "box.json").write_text(json.dumps({"imageHeight": 20, "imageWidth": 30, "shapes": [outline]}))
    masks = [*find_masks(photos / "masks"), *find_masks(tmp_path)]
    scenes, photographs = find_scenes(photos / "scenes"), find_images(photos / "photos")
    boxes = {"harbour": (2, 3, 36, 50)}
    return PairDataset(scenes, photographs, masks, boxes=boxes, **{"image_size": 32, "length": 24, **options})


def test_dataset_samples_depend_on_seed_and_index_alone(photos: Path, tmp_path: Path) -> None:
    data = everything(photos, tmp_path)
    forwards = torch.stack([data[i] for i in range(len(data))])
    backwards = torch.stack([data[i] for i in reversed(range(len(data)))]).flip(0)
    again = torch.stack(list(everything(photos, tmp_path)))
    assert torch.equal(forwards, backwards) and torch.equal(forwards, again)
    for workers in (0, 1, 2):
        loaded = torch.stack(list(DataLoader(data, batch_size=None, num_workers=workers)))
        assert torch.equal(forwards, loaded), f"{workers} workers"
    assert not torch.equal(data[0], data[1])
    assert not torch.equal(data[0], everything(photos, tmp_path, seed=1)[0])
    with pytest.raises(IndexError):
        data[len(data)]


def test_dataset_samples_depend_on_no_thread(photos: Path, tmp_path: Path) -> None:
    data = everything(photos, tmp_path, image_size=64, length=10)
    before, samples = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            with threadpool_limits(threads):
                samples.append(torch.stack(list(data)))
    finally:
        cv2.setNumThreads(before)
    assert torch.equal(samples[0], samples[1]) and torch.equal(samples[0], samples[2])


def test_dataset_draws_scenes_uniformly(tmp_path: Path) -> None:
    """A camera with six times the frames is not seen more often, and a pair is two frames of one camera."""
    frames: dict[str, list[Path]] = {"few": [], "many": []}
    for name, count, channel in (("few", 2, 0), ("many", 12, 2)):
        for i in range(count):
            frames[name].append(tmp_path / f"{name}{i}.png")
            colour = np.zeros(3, np.uint8)
            colour[channel] = 100 + 10 * i
            Image.new("RGB", (16, 16), tuple(colour.tolist())).save(frames[name][-1])
    data = PairDataset(frames, image_size=16, length=120, membrane=False, centred_square=True, **only())
    pairs = unpack(torch.stack(list(data)))
    source, target = (x[:, :, 0, 0] for x in (pairs.source, pairs.target))
    coloured = (source.sum(1) < 1) & ((source > 0).sum(1) == 1)  # the others are turned to grey
    assert coloured.float().mean() > 0.9
    assert torch.equal(source[coloured] > 0, target[coloured] > 0)
    assert not torch.any(torch.all(source == target, 1))
    assert 0.35 < (source[coloured, 0] > 0).float().mean() < 0.65


def test_read_crops(tmp_path: Path) -> None:
    path = tmp_path / "bbox.txt"
    path.write_bytes(b"\xef\xbb\xbf00017658:4,8,473,633\r\n\nharbour north : 0, 0 ,1,1\n")
    assert read_crops(path) == {"00017658": (4, 8, 473, 633), "harbour north": (0, 0, 1, 1)}


@pytest.mark.parametrize(
    "line",
    [
        "square", "square:", "square:1,2,3", "square:1,2,3,4,5", ":1,2,3,4", "square:1,2,three,4", "square:-1,2,3,4",
        "square:1.0,2,3,4", "square:3,2,3,4", "square:1,4,3,2", "a:b:1,2,3,4", "square:1,2,3,9999999999",
        "sq\xff:1,2,3,4", "square:\u0661,2,3,4",
    ],
)  # fmt: skip
def test_read_crops_says_which_line_is_malformed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bbox.txt"
    path.write_text(f"harbour:1,2,3,4\n{line}\n", "latin-1" if "\xff" in line else "utf-8")
    with pytest.raises(ValueError, match=r"bbox.txt', line 2: expected name:top,left,bottom,right .* got '"):
        read_crops(path)


def test_read_crops_wants_a_camera_once(tmp_path: Path) -> None:
    (tmp_path / "bbox.txt").write_text("a:1,2,3,4\nb:1,2,3,4\na:1,2,3,5\n")
    with pytest.raises(ValueError, match=r"line 3: expected every camera once, got 'a' again"):
        read_crops(tmp_path / "bbox.txt")


def test_dataset_boxes_crop_first(tmp_path: Path) -> None:
    """A red banner around every frame is never seen: bottom and right are exclusive, others' boxes do not matter."""
    rng = np.random.default_rng(0)
    scenes: dict[str, list[Path]] = {"harbour": []}
    for i in range(3):
        frame = np.zeros((37, 45, 3), np.uint8)
        frame[...] = (255, 0, 0)
        frame[4:36, 8:40] = rng.integers(0, 120, (32, 32, 1))
        scenes["harbour"].append(tmp_path / f"{i}.png")
        Image.fromarray(frame).save(scenes["harbour"][-1])
    boxes = {"harbour": (4, 8, 36, 40), "elsewhere": (0, 0, 9999, 9999)}
    whole = PairDataset(scenes, image_size=32, length=4, boxes=boxes, crops=False, **only())
    for batch in (unpack(x[None]) for x in whole):
        frames = [np.asarray(Image.open(path))[4:36, 8:40] for path in scenes["harbour"]]
        target = (batch.target[0] * 255).round().numpy().transpose(1, 2, 0)
        assert any(np.array_equal(target, frame) for frame in frames)
    # Also not as another place's surroundings, nor where single photos are drawn from the scenes.
    unrelated = PairDataset(scenes, image_size=32, length=12, boxes=boxes, **only(unrelated=1))
    for image in (image for sample in unrelated for image in unpack(sample[None])[3:]):
        assert image[:, 0].max() < 1
    assert max(float(unpack(x[None]).source[:, 0].max()) for x in PairDataset(scenes, length=4, **only())) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_dataset_boxes_count_the_original_pixels(tmp_path: Path, suffix: str) -> None:
    """Large photos are shrunk, JPEGs already while they are decoded; the box is of the file's own pixels."""
    frame = np.zeros((1400, 1500, 3), np.uint8)
    frame[700:, 800:] = 200
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        Image.fromarray(frame).save(path)
    options = {"image_size": 32, "length": 1, "crops": False, "membrane": False, **only()}
    plain = unpack(PairDataset({"sea": paths}, **options)[0][None])
    assert plain.target.min() < 0.05
    inner = unpack(PairDataset({"sea": paths}, boxes={"sea": (700, 800, 1400, 1500)}, **options)[0][None])
    assert inner.target.min() > 0.75
    outer = unpack(PairDataset({"sea": paths}, boxes={"sea": (0, 0, 700, 1500)}, **options)[0][None])
    assert outer.target.max() < 0.05


def test_dataset_boxes_must_lie_in_every_frame(photos: Path, tmp_path: Path) -> None:
    scenes = find_scenes(photos / "scenes")  # 40 x 56
    PairDataset(scenes, boxes={"square": (0, 0, 40, 56)})
    for box in ((0, 0, 41, 56), (0, 0, 40, 57), (-1, 0, 40, 56), (5, 5, 5, 9), (5, 9, 8, 9)):
        with pytest.raises(
            ValueError, match=r"boxes\['square'\]: expected 0 <= top < bottom <= 40 .* <= 56 as in .*jpg"
        ):
            PairDataset(scenes, boxes={"square": box})
    Image.new("RGB", (50, 40)).save(tmp_path / "narrow.png")
    with pytest.raises(ValueError, match=r"right <= 50 as in .*narrow.png', got \(0, 0, 40, 56\)"):
        PairDataset({"square": [*scenes["square"], tmp_path / "narrow.png"]}, boxes={"square": (0, 0, 40, 56)})


class Recorder:
    """A generator that keeps what it is given and changes nothing."""

    image_size = 32

    def __init__(self) -> None:
        self.inputs: list[NDArray[np.float32]] = []

    def __call__(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        self.inputs = [np.array(x) for x in inputs]
        return inputs[2]


@pytest.mark.parametrize("mode", ["default", "paper"])
@pytest.mark.parametrize("kind", ["simulated", "unrelated", "cutout", "plain"])
def test_dataset_sample_is_what_blend_hands_a_generator(
    photos: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str
) -> None:
    """At the photos' own resolution, which a network never sees."""
    made: list[tuple[NDArray[np.float32], ...]] = []
    pack = PairDataset._pack

    def recorded(self: PairDataset, *full: NDArray[np.float32]) -> NDArray[np.uint8]:
        made.append(full)
        return pack(self, *full)

    monkeypatch.setattr(PairDataset, "_pack", recorded)
    probabilities = only(**({kind: 1} if kind != "plain" else {}))
    data = dataset(photos, length=8, membrane=mode == "default", **probabilities)
    for i, sample in enumerate(unpack(x[None]) for x in data):
        source, target, mask, alpha = made[i]
        assert source.shape == target.shape == (*mask.shape, 3)
        if kind == "plain":  # nothing but the photos' own bytes
            source, target = (np.rint(x * 255).astype(np.uint8) for x in (source, target))
        assert (alpha is not None) == (kind == "cutout")
        generator = Recorder()
        cut = source if alpha is None else np.dstack([source, alpha])
        gpgan.blend(cut, target, mask if alpha is None else None, generator=generator, mode=mode)
        for name, got, expected in zip(Batch._fields, sample.inputs, generator.inputs, strict=False):
            difference = np.abs(got[0].numpy().transpose(1, 2, 0) - expected.reshape(32, 32, -1)).max()
            # Half a level by rounding; the composite is made anew from three that were rounded.
            assert difference < (1.01 if name == "composite" else 0.51) / 255, f"{name}, sample {i}: {255 * difference}"


def smooth(rng: np.random.Generator, count: int, height: int, width: int) -> NDArray[np.float32]:
    """Coloured blobs (N, H, W, 3) of middle brightness."""
    noise = rng.uniform(0.35, 0.6, (count, 5, 6, 3)).astype(np.float32)
    return np.stack([cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR) for x in noise])


def noise(rng: np.random.Generator, height: int = 90, width: int = 120) -> NDArray[np.float32]:
    """Texture (H, W, 3) around 0.5."""
    return (0.5 + 0.15 * rng.uniform(-1, 1, (height, width, 1)) * np.ones(3)).astype(np.float32)


def test_edge_agreement_knows_the_same_place() -> None:
    rng = np.random.default_rng(0)
    first, second = noise(rng, 240, 320), noise(rng, 240, 320)
    flat = np.full_like(first, 0.5) + 0.5 / 255 * rng.uniform(-1, 1, first.shape).astype(np.float32)
    ramp = np.linspace(0, 1, 320, dtype=np.float32)[:, None] * np.ones_like(first)
    mask = np.zeros((240, 320), np.uint8)
    mask[30:130, 40:200] = 1

    def agreement(source: NDArray[np.float32], target: NDArray[np.float32]) -> float:
        edges = (data_module._edges(x) for x in (source, target))
        return data_module._edge_agreement(*edges, mask)

    assert agreement(first, first) > 0.9
    assert agreement(first, 0.6 * first + 0.1) > 0.85
    assert agreement(first, 1 - first) < -0.9
    assert abs(agreement(first, second)) < 0.1
    assert abs(agreement(flat, flat)) < 0.05 and abs(agreement(ramp, ramp)) < 0.05
    assert abs(agreement(first, flat)) < 0.1
    mask[:] = 0
    assert agreement(first, first) == 0
    other = first.copy()
    other[:, 200:] = second[:, 200:]
    mask[:, :180] = 1
    assert agreement(first, other) > 0.9  # only what is inside counts
    mask[:] = 0
    mask[:, 210:] = 1
    assert abs(agreement(first, other)) < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 3), (300, 2)])
def test_edge_agreement_of_any_size(shape: tuple[int, int]) -> None:
    edges = data_module._edges(noise(np.random.default_rng(0), *shape))
    assert np.isfinite(data_module._edge_agreement(edges, edges, np.ones(shape, np.uint8)))


def test_dataset_masks_lie_where_the_frames_agree(tmp_path: Path) -> None:
    """The left half is one place twice, the right half is moving water."""
    rng = np.random.default_rng(0)
    place = noise(rng)
    frames = []
    for i, gain in enumerate((0.9, 0.7)):
        frame = gain * place
        frame[:, 60:] = 0.5 + 3 * (noise(rng)[:, 60:] - 0.5)
        frames.append(tmp_path / f"{i}.png")
        Image.fromarray(np.rint(frame * 255).astype(np.uint8)).save(frames[-1])
    data = PairDataset({"sea": frames}, image_size=32, length=40, crops=False, **only())
    masks = unpack(torch.stack(list(data))).mask
    share = masks[..., :16].sum((1, 2, 3)) / masks.sum((1, 2, 3))
    assert (share > 0.5).float().mean() > 0.85


def test_dataset_composite_is_the_target_outside(photos: Path) -> None:
    batch = unpack(torch.stack(list(dataset(photos, length=30))))
    for image in batch:
        assert image.min() >= 0 and image.max() <= 1
    outside = (batch.mask == 0).expand_as(batch.target)
    assert torch.equal(batch.composite[outside], batch.target[outside])
    assert torch.equal(batch.harmonized[outside], batch.target[outside])
    cover = batch.mask.mean((1, 2, 3))
    assert cover.median() > 0.04 and cover.max() < 0.4
    assert [x.shape[1] for x in batch.inputs] == [3, 1, 3, 3]


def test_dataset_centred_square_is_the_papers(photos: Path) -> None:
    data = dataset(photos, centred_square=True, crops=False, membrane=False, **only())
    batch = unpack(data[0][None])
    assert batch.mask.sum() == 16 * 16 and batch.mask[0, 0, 8:24, 8:24].min() == 1
    torch.testing.assert_close(batch.harmonized, batch.composite, rtol=0, atol=1 / 254)


def test_dataset_looks_closely_at_the_whole_mask() -> None:
    rng = np.random.default_rng(0)
    for shape in ((90, 160), (160, 90), (31, 400), (9, 7)) * 10:
        mask = random_mask(rng, *shape)
        rows, columns = view = data_module._around(rng, mask)
        seen = mask[view]
        assert seen.sum() == mask.sum() and seen.mean() >= mask.mean()
        assert 0 <= rows.start < rows.stop and 0 <= columns.start < columns.stop
        for window, profile in ((rows, seen.any(1)), (columns, seen.any(0))):  # with something to blend it into
            assert window.start == 0 or not profile[:4].any()
            assert window.start + len(profile) == mask.shape[window is columns] or not profile[-4:].any()
    square = np.zeros((300, 400), np.uint8)
    square[130:170, 180:220] = 1
    views = [square[data_module._around(rng, square)].shape for _ in range(50)]
    assert 100 < np.min(views) < 150 and np.max(views) > 280  # from two to nine times as large


def test_dataset_same_and_unrelated(photos: Path) -> None:
    same = unpack(dataset(photos, **only(same=1))[0][None])
    assert torch.equal(same.source, same.target)
    assert torch.equal(same.harmonized, same.target)
    # The same draw up to there: the object stays, its surroundings do not.
    plain, other, cut = (
        unpack(torch.stack(list(dataset(photos, crops=False, **only(**kind)))))
        for kind in ({}, {"unrelated": 1}, {"cutout": 1})
    )
    assert torch.equal(other.mask, plain.mask)
    assert (cut.mask >= plain.mask - 0.1).all()  # an alpha channel is not inset, at times it is soft
    for changed in (other, cut):
        alike = (changed.target == plain.target).all((1, 2, 3))  # turning to grey is drawn later
        assert alike.sum() > 9
        difference = (changed.source - plain.source).abs()[alike]
        assert difference[(changed.mask == 1)[alike].expand_as(difference)].max() == 0
        assert difference[(changed.mask == 0)[alike].expand_as(difference)].mean() > 0.02


def test_dataset_simulated_keeps_the_place(photos: Path) -> None:
    batch = unpack(dataset(photos, **only(simulated=1))[3][None])
    assert not torch.equal(batch.source, batch.target)
    assert np.corrcoef(batch.source.flatten(), batch.target.flatten())[0, 1] > 0.2


def test_relight_varies_smoothly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two whole chains are mixed by a smooth share, so whatever a chain does varies over the image."""
    image = np.zeros((32, 32, 3), np.float32)
    mixed = 0
    for seed in range(60):
        chains = [np.zeros_like(image), np.ones_like(image)]
        monkeypatch.setattr(data_module, "_grade", lambda *_, chains=chains: chains.pop())
        lit = relight(np.random.default_rng(seed), image)
        assert lit.dtype == np.float32 and lit.min() >= 0 and lit.max() <= 1
        assert np.array_equal(lit[..., 0], lit[..., 2])  # one share for all channels: no colours of its own
        assert max(np.abs(np.diff(lit, axis=axis)).max() for axis in (0, 1)) < 0.3
        mixed += bool(lit.max() - lit.min() > 0.1)
    assert 4 < mixed < 24


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (1, 9), (5, 33), (41, 12)])
def test_relight_range_and_determinism(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).uniform(size=(*shape, 3)).astype(np.float32)
    kept = image.copy()
    for seed in range(60):
        lit = relight(np.random.default_rng(seed), image, image[::-1])
        assert lit.shape == image.shape and lit.dtype == np.float32
        assert np.isfinite(lit).all() and lit.min() >= 0 and lit.max() <= 1
        assert np.array_equal(lit, relight(np.random.default_rng(seed), image, image[::-1]))
    assert np.array_equal(image, kept)


def test_relight_depends_on_no_thread() -> None:
    image = np.random.default_rng(0).uniform(size=(400, 533, 3)).astype(np.float32)
    reference = image[:32, :32]
    before, lit = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            with threadpool_limits(threads):
                lit.append(np.stack([relight(np.random.default_rng(seed), image, reference) for seed in range(9)]))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(lit[0], lit[1]) and np.array_equal(lit[0], lit[2])


def test_pool_holds_the_dataset(photos: Path, tmp_path: Path) -> None:
    data = dataset(photos, length=6)
    pool = build_pool(data, tmp_path / "new" / "pool.npy")
    assert len(pool) == 6 and pool.image_size == 32
    assert all(torch.equal(pool[i], data[i]) for i in range(6))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["pool.npy"]
    workers = [build_pool(data, tmp_path / f"{n}.npy", workers=n).samples for n in (1, 2)]
    assert all(np.array_equal(pool.samples, samples) for samples in workers)
    np.save(tmp_path / "other.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"no pool: expected uint8 \(N, 10, S, S\), got float64 \(3, 4\)"):
        Pool(tmp_path / "other.npy")


def test_index_batches_can_start_anywhere() -> None:
    batches = index_batches(10, 3, seed=5)
    whole = [next(batches) for _ in range(9)]
    for start in range(9):
        assert next(index_batches(10, 3, seed=5, start=start)) == whole[start]
    for epoch in range(3):  # within an epoch nothing comes twice
        assert len({i for batch in whole[3 * epoch : 3 * epoch + 3] for i in batch}) == 9
    with pytest.raises(ValueError, match="batch_size 11 exceeds the 10 samples"):
        next(index_batches(10, 11, seed=0))


def test_augment_commutes_with_making_the_sample() -> None:
    """What makes one pool serve for ever: augmenting the photos and augmenting their samples are the same."""
    rng = np.random.default_rng(0)
    data = PairDataset({}, [Path("unused")], image_size=16)
    source, target = smooth(rng, 8, 50, 70), smooth(rng, 8, 50, 70)
    masks = np.stack([random_mask(rng, 50, 70) for _ in range(8)])

    def samples(sources: NDArray[np.float32], targets: NDArray[np.float32], masks: NDArray[np.uint8]) -> Batch:
        packed = [data._pack(*each, None) for each in zip(sources, targets, masks, strict=True)]
        return unpack(torch.from_numpy(np.stack(packed)))

    s, t = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in (source, target))
    m = torch.from_numpy(masks)[:, None].float()
    photos = augment(Batch(t, m, t, s, t), np.random.default_rng(5))
    images = (x.permute(0, 2, 3, 1).contiguous().numpy() for x in (photos.source, photos.target))
    after = samples(*images, photos.mask[:, 0].numpy().astype(np.uint8))
    before = samples(source, target, masks)
    assert before.harmonized.min() > 0 and before.harmonized.max() < 1  # the one thing that does not commute: clamping
    changed = augment(before, np.random.default_rng(5))
    assert not torch.equal(changed.target, before.target)
    for name, one, other in zip(Batch._fields, after, changed, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2.5 / 255, msg=lambda text, name=name: f"{name}: {text}")


def test_read_shrinks_large_photos(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1500), (200, 10, 10)).save(tmp_path / "large.png")
    batch = unpack(PairDataset({}, find_images(tmp_path), image_size=32, length=1, **only())[0][None])
    assert batch.target.shape == (1, 3, 32, 32)
