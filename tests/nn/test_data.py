"""Training pairs: determinism, ranges, what each kind of sample means."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gpgan import reference
from gpgan.nn.data import (
    PairDataset,
    Pool,
    augment,
    build_pool,
    find_images,
    find_scenes,
    index_batches,
    membrane,
    random_mask,
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


def test_dataset_samples_depend_on_seed_and_index_alone(photos: Path) -> None:
    data = dataset(photos)
    forwards = [data[i] for i in range(len(data))]
    workers = list(DataLoader(data, batch_size=None, num_workers=2))
    backwards = [data[i] for i in reversed(range(len(data)))][::-1]
    for a, b, c in zip(forwards, workers, backwards, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert not torch.equal(data[0], data[1])
    assert not torch.equal(data[0], dataset(photos, seed=1)[0])
    with pytest.raises(IndexError):
        data[len(data)]


def test_dataset_composite_is_the_target_outside(photos: Path) -> None:
    data = dataset(photos, length=30)
    batch = unpack(torch.stack([data[i] for i in range(30)]))
    for image in batch:
        assert image.min() >= 0 and image.max() <= 1
    outside = (batch.mask == 0).expand_as(batch.target)
    assert torch.equal(batch.composite[outside], batch.target[outside])
    assert torch.equal(batch.harmonized[outside], batch.target[outside])
    cover = batch.mask.mean((1, 2, 3))
    assert cover.min() > 0.015 and cover.max() < 0.51
    assert [x.shape[1] for x in batch.inputs] == [3, 1, 3, 3]


def test_dataset_centred_square_is_the_papers(photos: Path) -> None:
    data = dataset(photos, centred_square=True, crops=False, membrane=False, **only())
    batch = unpack(data[0][None])
    assert batch.mask.sum() == 16 * 16 and batch.mask[0, 0, 8:24, 8:24].min() == 1
    torch.testing.assert_close(batch.harmonized, batch.composite, rtol=0, atol=1 / 254)


def test_dataset_same_and_unrelated(photos: Path) -> None:
    same = unpack(dataset(photos, **only(same=1))[0][None])
    assert torch.equal(same.source, same.target)
    assert torch.equal(same.harmonized, same.target)
    plain, other, cut = (
        unpack(dataset(photos, **only(**kind))[0][None]) for kind in ({}, {"unrelated": 1}, {"cutout": 1})
    )
    inside = (plain.mask > 0).expand_as(plain.source)
    for changed in (other, cut):  # the same draw up to there: the object stays, its surroundings do not
        assert torch.equal(changed.mask, plain.mask)
        assert torch.equal(changed.source[inside], plain.source[inside])
        assert not torch.equal(changed.source, plain.source)


def test_dataset_simulated_keeps_the_place(photos: Path) -> None:
    batch = unpack(dataset(photos, **only(simulated=1))[3][None])
    assert not torch.equal(batch.source, batch.target)
    assert np.corrcoef(batch.source.flatten(), batch.target.flatten())[0, 1] > 0.2


def test_random_mask_kinds(photos: Path) -> None:
    rng = np.random.default_rng(0)
    files = find_images(photos / "masks")
    guide = np.linspace(0, 1, 128 * 128 * 3, dtype=np.float32).reshape(128, 128, 3)
    for _ in range(40):
        mask = random_mask(rng, 32, guide=guide, files=files)
        assert mask.shape == (32, 32) and mask.dtype == np.float32
        assert mask.min() >= 0 and mask.max() <= 1 and 0.015 < mask.mean() < 0.51
    assert ((mask > 0) & (mask < 1)).any() or mask.mean() == 0.25  # edges are soft


def test_relight_range_and_determinism() -> None:
    image = np.random.default_rng(0).uniform(size=(16, 16, 3)).astype(np.float32)
    kept = image.copy()
    for seed in range(60):
        lit = relight(np.random.default_rng(seed), image, image[::-1])
        assert lit.shape == image.shape and lit.dtype == np.float32
        assert np.isfinite(lit).all() and lit.min() >= 0 and lit.max() <= 1
        assert np.array_equal(lit, relight(np.random.default_rng(seed), image, image[::-1]))
    assert np.array_equal(image, kept)


def test_membrane_is_harmonic_and_meets_the_target() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.uniform(size=(2, 21, 18, 3))
    mask = np.zeros((21, 18))
    mask[4:15, 5:18] = 1  # touches the right border, whose neighbours are dropped
    mask[10, 9] = 0.5
    w = membrane(source, target, mask)
    assert np.allclose(w, reference.membrane(source, target, mask), atol=1e-6)
    assert np.allclose(w[mask == 0], (target - source)[mask == 0], atol=1e-6)
    padded = np.pad(w.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    laplacian = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * w
    assert np.abs(laplacian[mask > 0]).max() < 1e-5
    assert np.array_equal(membrane(source, target, np.ones((21, 18))), np.zeros((21, 18, 3)))
    assert np.allclose(membrane(source, target, np.zeros((21, 18))), target - source, atol=1e-6)


def test_pool_holds_the_dataset(photos: Path, tmp_path: Path) -> None:
    data = dataset(photos, length=6)
    pool = build_pool(data, tmp_path / "new" / "pool.npy")
    assert len(pool) == 6 and pool.image_size == 32
    assert all(torch.equal(pool[i], data[i]) for i in range(6))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["pool.npy"]
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


def test_augment_commutes_with_the_membrane(photos: Path) -> None:
    """What makes one pool serve for ever: augmenting and harmonizing may trade places."""
    data = dataset(photos, **only())
    batch = augment(unpack(torch.stack([data[i] for i in range(12)])), np.random.default_rng(0))
    for source, target, mask, harmonized in zip(batch.source, batch.target, batch.mask, batch.harmonized, strict=True):
        s, t = (x.numpy().transpose(1, 2, 0) for x in (source, target))
        m = mask[0].numpy()
        again = t + m[..., None] * (s + membrane(s, t, m) - t)
        # Samples are stored as bytes, and stored clamped.
        assert np.median(np.abs(np.clip(again, 0, 1) - harmonized.numpy().transpose(1, 2, 0))) < 2 / 255


def test_read_shrinks_large_photos(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1500), (200, 10, 10)).save(tmp_path / "large.png")
    batch = unpack(PairDataset({}, find_images(tmp_path), image_size=32, length=1, **only())[0][None])
    assert batch.target.shape == (1, 3, 32, 32)
