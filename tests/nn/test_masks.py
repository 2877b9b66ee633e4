"""Drawn masks, of files that nobody vouches for, and random ones."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from gpgan.nn import masks as masks_module
from gpgan.nn.masks import centred_square, find_masks, random_mask, read_masks


def labelme(*shapes: dict[str, Any], height: Any = 20, width: Any = 30, **others: Any) -> str:
    return json.dumps({"imageHeight": height, "imageWidth": width, "shapes": shapes, **others})


def shape(kind: str | None, *points: object, **others: object) -> dict[str, object]:
    return {"label": "boat", "shape_type": kind, "points": points, "group_id": None, **others}


def web(*objects: str, size: str = "<imagesize><nrows>20</nrows><ncols>30</ncols></imagesize>") -> str:
    """MIT's form: objects of ``[deleted] [x,y ...]`` polygons parted by bars."""
    items = []
    for text in objects:
        deleted, _, polygons = text.partition(" ")
        rings = [[point.split(",") for point in ring.split()] for ring in polygons.split("|")]
        drawn = "".join(
            f"<polygon><username>me</username>{''.join(f'<pt><x>{x}</x><y>{y}</y></pt>' for x, y in ring)}</polygon>"
            for ring in rings
        )
        items.append(f"<object><name>boat</name><deleted>{deleted}</deleted><id>0</id>{drawn}</object>")
    return f"<annotation><filename>a.jpg</filename>{size}{''.join(items)}</annotation>"


def box_mask(top: int, left: int, bottom: int, right: int, height: int = 20, width: int = 30) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    masks_module._annotation.cache_clear()


@pytest.mark.parametrize("with_files", [False, True])
@pytest.mark.parametrize("with_guide", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (3, 2), (4, 4), (9, 7), (8, 8), (5, 40), (31, 200), (200, 31), (97, 101), (180, 600)]
)
def test_random_mask_sizes(photos: Path, shape: tuple[int, int], with_guide: bool, with_files: bool) -> None:
    guide = np.random.default_rng(1).uniform(size=(*shape, 3)).astype(np.float32) if with_guide else None
    files = find_masks(photos / "masks") if with_files else []
    drawn = []
    for rng in (np.random.default_rng(0), np.random.default_rng(0)):
        drawn.append([random_mask(rng, *shape, guide=guide, files=files) for _ in range(12)])
    for mask, again in zip(*drawn, strict=True):
        assert mask.shape == shape and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}
        assert np.array_equal(mask, again)
        assert mask.any()
        if min(shape) > 4:  # else there may be no such mask
            assert 0.01 < mask.mean() < 0.4
    if min(shape) > 8:
        assert len({mask.tobytes() for mask in drawn[0]}) > 9


def test_random_mask_seldom_touches_the_border(photos: Path) -> None:
    rng = np.random.default_rng(0)
    guide = cv2.GaussianBlur(rng.uniform(size=(60, 90, 3)).astype(np.float32), (0, 0), 3)
    files = find_masks(photos / "masks")
    masks = [random_mask(rng, 60, 90, guide=guide, files=files) for _ in range(100)]
    inner = [np.pad(mask[1:-1, 1:-1], 1) for mask in masks]
    assert 0.5 < np.mean([np.array_equal(*both) for both in zip(masks, inner, strict=True)]) < 0.99
    assert np.mean([cv2.connectedComponents(mask)[0] == 2 for mask in masks]) > 0.7  # one object, mostly


def test_random_mask_follows_the_edges_of_the_guide() -> None:
    """Two halves of noise in two colours: segments lie in one of them."""
    rng = np.random.default_rng(0)
    guide = rng.uniform(0, 0.1, (120, 160, 3)).astype(np.float32)
    guide[:, 80:] += 0.8
    shares = []
    for _ in range(40):
        mask = random_mask(rng, 120, 160, guide=guide)
        shares.append(mask[:, 80:].sum() / mask.sum())
    assert np.mean([min(share, 1 - share) < 0.08 for share in shares]) > 0.5


def test_centred_square() -> None:
    for height, width in ((1, 1), (7, 5), (8, 16), (40, 56)):
        mask = centred_square(height, width)
        assert mask.shape == (height, width) and mask.dtype == np.uint8
        assert np.array_equal(mask, mask[::-1]) and np.array_equal(mask, mask[:, ::-1])
        if height % 4 == width % 4 == 0:
            assert mask.mean() == 0.25
    assert np.array_equal(np.flatnonzero(mask.any(1)), np.arange(10, 30))
    assert np.array_equal(np.flatnonzero(mask.any(0)), np.arange(14, 42))


def test_find_masks(tmp_path: Path) -> None:
    """Masks and annotations, but neither the annotated photos nor what has no object."""
    tree = {
        "masks/cat.png": None, "masks/dog.PNG": None,
        "labelme/boat.json": labelme(shape("polygon", [1, 1], [9, 1], [9, 9]), imagePath="boat.jpg"),
        "labelme/boat.jpg": None,
        "labelme/out/ship.json": labelme(shape("polygon", [1, 1], [9, 1], [9, 9]), imagePath="..\\in\\vessel.jpg"),
        "labelme/in/vessel.jpg": None,
        "labelme/empty.json": labelme(shape("point", [1, 1])), "labelme/empty.png": None,
        "web/Annotations/port/a.xml": web("0 1,1 9,1 9,9"), "web/Images/port/a.jpg": None,
        "web/Annotations/port/gone.xml": web("1 1,1 9,1 9,9"), "web/Images/port/gone.jpg": None,
        "web/notes.txt": "neither",
    }  # fmt: skip
    for name, text in tree.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("L", (4, 4)).save(path)
        else:
            path.write_text(text)
    (tmp_path / "folder.json").mkdir()
    found = [p.relative_to(tmp_path).as_posix() for p in find_masks(tmp_path)]
    assert found == [
        "labelme/boat.json", "labelme/out/ship.json", "masks/cat.png", "masks/dog.PNG", "web/Annotations/port/a.xml",
    ]  # fmt: skip
    (tmp_path / "masks" / "package.json").write_text('{"name": "gpgan"}')
    with pytest.raises(
        ValueError, match=r"package.json' is no LabelMe annotation to read: expected an object with a l"
    ):
        find_masks(tmp_path)
    with pytest.raises(ValueError, match=r"no masks .*xml"):
        find_masks(tmp_path / "web" / "Images" / "nowhere")


def test_read_masks_of_labelme(tmp_path: Path) -> None:
    stamp = np.random.default_rng(0).uniform(size=(5, 7)) < 0.5
    png = io.BytesIO()
    Image.fromarray(stamp.astype(np.uint8)).save(png, "png")  # labelme stores 0 and 1
    shapes = [
        shape("polygon", [2, 3], [9, 3], [9, 8], [2, 8]),
        shape(None, [2, 3], [9, 3], [9, 8], [2, 8]),
        shape("rectangle", [9.2, 8.4], [1.8, 3]),
        shape("rectangle", [2, 3], [9, 3], [9, 8], [2, 8]),
        shape("circle", [15, 10], [15, 4]),
        shape("mask", [-2, 3], [4, 7], mask=base64.b64encode(png.getvalue()).decode()),
        shape("polygon", [-9, -9], [60, -9], [60, 4], [-9, 4]),  # beyond the image on three sides
        *(shape(kind, [1, 1], [2, 2]) for kind in ("line", "linestrip", "points")),
        shape("rectangle", [0, 0], [3, 3], group_id=7),
        shape("point", [1, 1]),
        shape("rectangle", [2, 2], [5, 5], group_id=7),
        shape("rectangle", [2, 2], [5, 5], group_id=7, label="sail"),
    ]
    path = tmp_path / "a.JSON"
    path.write_text(labelme(*shapes, imagePath="a.jpg", imageData="ignored", flags={}, version="5.5.0"))
    masks = list(read_masks(path))
    assert all(m.dtype == np.bool_ and m.shape == (20, 30) for m in masks) and len(masks) == 9
    for mask in masks[:4]:
        assert np.array_equal(mask, box_mask(3, 2, 9, 10))
    y, x = np.mgrid[:20, :30]
    radius = np.hypot(y - 10, x - 15)
    assert masks[4][radius < 5.5].all() and not masks[4][radius > 6.8].any()
    expected = np.zeros((20, 30), bool)
    expected[3:8, :5] = stamp[:, 2:]
    assert np.array_equal(masks[5], expected)
    assert np.array_equal(masks[6], box_mask(0, 0, 5, 30))
    assert np.array_equal(masks[7], box_mask(0, 0, 4, 4) | box_mask(2, 2, 6, 6))
    assert np.array_equal(masks[8], box_mask(2, 2, 6, 6))


def test_read_masks_of_the_web_tool(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    elsewhere = "<object><deleted>0</deleted><segm><mask>../../secret.png</mask></segm></object>"
    hole = "0 2,3 12,3 12,13 2,13|5,6 9,6 9,10 5,10"
    path.write_text(web("0 2,3 9,3 9,8 2,8", "1 nan,0", hole).replace("</annotation>", f"{elsewhere}</annotation>"))
    square, ring = read_masks(path)
    assert np.array_equal(square, box_mask(3, 2, 9, 10))
    assert np.array_equal(ring, box_mask(3, 2, 14, 13) & ~box_mask(7, 6, 10, 9))  # the hole's outline is the mask's


def test_read_masks_of_images(photos: Path, tmp_path: Path) -> None:
    (mask,) = read_masks(photos / "masks" / "box.png")
    assert np.array_equal(mask, box_mask(5, 10, 20, 25, 30, 40))
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "zero_one.png")  # as the authors' own test mask
    assert np.array_equal(next(read_masks(tmp_path / "zero_one.png")), mask)


CORNERS = ([1, 1], [9, 1], [9, 9])
BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + web("0 1,1 9,1 &b;,9")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "Expecting value"),
        ("a.json", b"\xff\xfe\x00", "codec can't decode"),
        ("a.json", "[" * 100_000, "while decoding a JSON array"),  # nested too deeply
        ("a.json", "[1, 2]", "a list 'shapes'"),
        ("a.json", '{"images": [], "annotations": []}', "a list 'shapes'"),
        ("a.json", labelme(height=None), "an image's height and width"),
        ("a.json", labelme(height=0), "an image's height and width"),
        ("a.json", labelme(height=30_000, width=30_000), "of at most 67108864 pixels"),
        ("a.json", labelme(height=1, width=10**6), "below 32768"),
        ("a.json", labelme(height=float("inf")), "an image's height and width"),
        ("a.json", '{"shapes": [7], "imageHeight": 9, "imageWidth": 9}', r"shapes\[0\]: expected an object, got 7"),
        ("a.json", labelme(shape("ellipse", *CORNERS)), "expected shape_type polygon, .* got 'ellipse'"),
        ("a.json", labelme(shape("polygon", *CORNERS[:2])), "expected 3 or more points"),
        ("a.json", labelme(shape("polygon", *CORNERS[:2], [9])), "expected 3 or more points"),
        ("a.json", labelme(shape("polygon", *CORNERS[:2], [9, "y"])), "expected 3 or more points"),
        ("a.json", labelme(shape("polygon", *CORNERS[:2], [9, 10**400])), "expected 3 or more points"),
        ("a.json", labelme(shape("polygon", *CORNERS, [1, None])), "points in or near the image of 30 x 20"),
        ("a.json", labelme(shape("polygon", *CORNERS, [1, float("nan")])), r"in or near .* got \(1.0, nan\)"),
        ("a.json", labelme(shape("polygon", *CORNERS, [float("inf"), 1])), r"in or near .* got \(inf, 1.0\)"),
        ("a.json", labelme(shape("polygon", *CORNERS, [1e9, 1])), r"in or near .* got \(1000000000.0, 1.0\)"),
        ("a.json", labelme(shape("polygon", *CORNERS, [1, -21])), "in or near"),
        ("a.json", labelme({"label": "no points"}), "expected 3 or more points .* got None"),
        ("a.json", labelme(shape("rectangle", *CORNERS)), "expected 2 or 4 points"),
        ("a.json", labelme(shape("circle", *CORNERS)), "expected 2 points"),
        ("a.json", labelme(shape("mask", *CORNERS[:2])), "expected a mask as a PNG in base64"),
        ("a.json", labelme(shape("mask", *CORNERS[:2], mask="AAAA")), "expected a mask as a PNG in base64"),
        ("a.xml", "", "no element found"),
        ("a.xml", "<html><body/></html>", "expected a root element 'annotation', got 'html'"),
        ("a.xml", "<annotation><size><width>9</width></size></annotation>", "image's height and width"),  # Pascal VOC
        ("a.xml", web(size="<imagesize><nrows>-4</nrows><ncols>5</ncols></imagesize>"), "an image's height and width"),
        ("a.xml", web("0 1,1 9,1"), "object 0: expected 3 or more points"),
        ("a.xml", web("1 ", "0 1,1 9,1 ,9"), "object 1: expected 3 or more points"),
        ("a.xml", web("0 1,1 9,1 nan,9"), "in or near"),
        ("a.xml", web("0 1,1 9,1 1e300,9"), "in or near"),
        ("a.xml", web("0 1,1 9,1 &b;,9"), "undefined entity"),
        ("a.xml", BILLION_LAUGHS, "without a document type"),
        ("a.xml", f'<?xml version="1.0" encoding="utf-16"?>{BILLION_LAUGHS}'.encode("utf-16"), "without zero bytes"),
        ("a.xml", '<?xml version="1.0" encoding="nonsense"?><annotation/>', "unknown encoding"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_read_masks_refuses(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=f"{name}' is no LabelMe annotation to read: .*{message}") as caught:
        read_masks(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))
    with pytest.raises(ValueError, match=message):
        find_masks(tmp_path)


def test_read_masks_caps_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png = io.BytesIO()
    Image.new("1", (30, 20), 1).save(png, "png")
    stamp = shape("mask", [0, 0], [29, 19], mask=base64.b64encode(png.getvalue()).decode())
    path = tmp_path / "a.json"
    path.write_text(labelme(stamp, imageData="A" * 5000))
    image = tmp_path / "a.png"
    Image.new("L", (30, 20), 255).save(image)

    def refusal(path: Path) -> str:
        masks_module._annotation.cache_clear()
        with pytest.raises(ValueError) as caught:
            next(read_masks(path))
        return str(caught.value)

    monkeypatch.setattr(masks_module, "MAX_ANNOTATION_BYTES", 5000)
    assert "expected at most 5000 bytes" in refusal(path)
    monkeypatch.undo()
    assert next(read_masks(path)).all() and next(read_masks(image)).all()
    monkeypatch.setattr(masks_module, "MAX_MASK_PIXELS", 599)
    assert "of at most 599 pixels, got (20, 30)" in refusal(path)
    assert "a.png': expected a mask of at most 599 pixels, got 30 x 20" in refusal(image)
    path.write_text(labelme(stamp, height=20, width=29))
    assert "no larger than the image: got 30 x 20" in refusal(path)
    monkeypatch.setattr(masks_module, "MAX_MASK_PIXELS", 1199)
    path.write_text(labelme(stamp, stamp))
    assert "shapes[1]: expected masks of at most 1199 pixels together" in refusal(path)


def test_random_mask_draws_one_object_of_an_annotation(tmp_path: Path) -> None:
    """Every object comes, alone and cut to its own bounds, and the file is read once."""
    stamp = np.ones((5, 7), bool)
    stamp[1, 2] = False
    png = io.BytesIO()
    Image.fromarray(stamp).save(png, "png")
    shapes = [
        shape("rectangle", [2, 3], [21, 12]),
        shape("circle", [28, 10], [28, 5]),  # cut off by the border
        shape("mask", [9, 11], [15, 15], mask=base64.b64encode(png.getvalue()).decode()),
    ]
    path = tmp_path / "a.json"
    path.write_text(labelme(*shapes))
    rng = np.random.default_rng(0)
    masks = {mask.shape: mask for mask in (masks_module._one_mask(rng, path) for _ in range(30))}
    assert set(masks) == {(10, 20), (11, 7), (5, 7)}
    assert masks[10, 20].all() and np.array_equal(masks[5, 7], stamp)
    assert masks[11, 7].any(0).all() and not masks[11, 7].all()
    path.unlink()  # the parsed outlines are kept
    for _ in range(10):
        mask = random_mask(rng, 32, 32, files=[path])
        assert mask.shape == (32, 32) and 0.01 < mask.mean() < 0.4


def test_random_mask_draws_large_objects_smaller(tmp_path: Path) -> None:
    """No training mask is larger than about a thousand pixels, so nobody pays for those of a large photo."""
    png = io.BytesIO()
    Image.fromarray(np.tri(2999, dtype=bool)).save(png, "png")
    shapes = [
        shape("rectangle", [7, 9], [7, 9], group_id=1),
        shape("mask", [8, 10], [3006, 3008], group_id=1, mask=base64.b64encode(png.getvalue()).decode()),
        shape("polygon", [0, 0], [0, 2999], [2999, 2999]),
    ]
    path = tmp_path / "a.json"
    path.write_text(labelme(*shapes, height=4000, width=4000))
    rng = np.random.default_rng(0)
    for mask in (masks_module._one_mask(rng, path) for _ in range(6)):
        assert mask.shape == (1500, 1500)
        assert mask[np.tri(1500, k=-2, dtype=bool)].all() and not mask[~np.tri(1500, k=2, dtype=bool)].any()


def test_random_mask_survives_empty_files(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "black.png")
    (tmp_path / "none.json").write_text(labelme())
    (tmp_path / "outside.xml").write_text(web("0 40,30 50,30 50,39"))
    rng = np.random.default_rng(0)
    for name in ("black.png", "none.json", "outside.xml"):
        assert masks_module._from_file(rng, tmp_path / name, 32, 32).max() == 0
        assert random_mask(rng, 32, 32, files=[tmp_path / name]).mean() > 0.01
