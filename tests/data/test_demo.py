"""The demo data: disjoint sources, boxes that fit, a seam that gives nothing away, and files that repeat."""

import hashlib
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.data.demo import DemoSpec, scenes, sources, write_demo
from detkit.data.demo.scenes import CLUTTER, Piece, compose_scene, resample
from detkit.data.demo.sources import LOOKALIKES, SPLITS, load_sources
from detkit.data.demo.writing import scene_generator
from detkit.errors import DataError

SMALL = DemoSpec(train=6, val=3, test=2, size=160, seed=5)


@pytest.fixture(scope="module")
def composed() -> list[scenes.Scene]:
    loaded = load_sources("train")
    return [compose_scene(loaded, np.random.default_rng([11, index]), 192) for index in range(300)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    assert write_demo(folder, SMALL)
    return folder


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_made_of_its_own_sources(written, split):
    scene = compose_scene(load_sources(split), scene_generator(SMALL, split, 0), SMALL.size)
    picture = cv2.imread(str(written / "images" / split / "0001.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(picture, scene.image)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counting half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


# Sources


@pytest.mark.parametrize("kind", ["faces", "non_faces", "photographs"])
def test_no_source_is_in_two_splits(kind: str):
    names = Counter(name for split in SPLITS.values() for name in getattr(split, kind))
    assert names
    assert max(names.values()) == 1


def test_every_face_is_used_and_both_motorcycles_are_in_one_split():
    assert sorted(face for split in SPLITS.values() for face in split.faces) == list(range(100))
    for split in SPLITS.values():
        views = {"motorcycle_left.png", "motorcycle_right.png"} & set(split.photographs)
        assert len(views) in (0, 2)


def test_lookalikes_are_in_one_split():
    for group in LOOKALIKES:
        assert sum(bool(set(group) & set(split.faces)) for split in SPLITS.values()) == 1


def test_people_and_heads_are_no_background():
    used = {Path(name).stem for split in SPLITS.values() for name in split.photographs}
    assert not used & {"astronaut", "camera", "coins", "microaneurysms"}


@pytest.mark.parametrize("kind", ["faces", "non_faces"])
def test_no_near_equal_patches_in_different_splits(kind: str):
    def normal(patches: np.ndarray) -> np.ndarray:
        flat = patches.reshape(len(patches), -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    loaded = {split: getattr(load_sources(split), kind) for split in SPLITS}
    for one, other in combinations(loaded.values(), 2):
        for mirrored in (other, other[:, :, ::-1]):
            assert (normal(one) @ normal(mirrored).T).max() < 0.85


def test_non_faces_are_neither_flat_nor_cut_by_black():
    for split in SPLITS:
        for patch in load_sources(split).non_faces:
            assert patch.std() > 0.03
            edge = np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]])
            assert (edge == 0).mean() < 0.3


def test_missing_sources_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sources, "_image_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"lfw_subset\.npy: not there.*pip install"):
        load_sources("val")


# Scenes


def test_resampling_keeps_a_constant_and_a_slope():
    assert resample(np.full((25, 25), 0.3), 61, 17) == pytest.approx(0.3)
    slope = np.tile(np.arange(40.0), (40, 1))
    doubled = resample(slope, 80, 80)
    expected = (np.arange(80) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(doubled[40, 8:-8], expected[8:-8], atol=1e-9)


def test_a_box_bounds_the_half_faded_ellipse():
    piece = Piece(x=30, y=20, width=60, height=60)
    canvas = np.zeros((160, 160))
    canvas[20:80, 30:90] = scenes._mask(piece)
    rows, columns = np.nonzero(canvas >= 0.5)
    x0, y0, x1, y1 = piece.box
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx((x0, y0, x1, y1), abs=1.0)


def test_scenes_are_imbalanced_and_pieces_lie_apart(composed: list[scenes.Scene]):
    faces = Counter(len(scene.faces) for scene in composed)
    assert set(faces) == {0, 1, 2, 3}
    assert 0.13 < faces[0] / len(composed) < 0.27
    kinds = Counter(kind for scene in composed for kind, _ in scene.clutter)
    assert {kind: kinds[kind] / kinds.total() for kind in CLUTTER} == pytest.approx(
        {kind: share for kind, (share, _) in CLUTTER.items()}, abs=0.03
    )
    assert sum(kinds.values()) > 4 * sum(len(scene.faces) for scene in composed)
    for scene in composed:
        assert scene.image.shape == (192, 192)
        assert scene.image.dtype == np.uint8
        pieces = [*scene.faces, *(piece for _, piece in scene.clutter)]
        assert not any(one.meets(other) for one, other in combinations(pieces, 2))
        for piece in scene.faces:
            x0, y0, x1, y1 = piece.box
            assert min(x0, y0) >= 0
            assert max(x1, y1) <= 192
            assert x1 - x0 > 15.5
            assert y1 - y0 < 56


def rim(scene: scenes.Scene, piece: Piece) -> dict[str, float]:
    """What a seam shows itself by, measured from just inside the box's ellipse to just outside the patch."""
    y, x = np.mgrid[0.5:192, 0.5:192]
    across = (x - piece.x - piece.width / 2) / (piece.width * scenes.RADII[0])
    down = (y - piece.y - piece.height / 2) / (piece.height * scenes.RADII[1])
    radius = np.hypot(across, down)
    grey = scene.image.astype(float)
    skirt, outside = (radius > 0.86) & (radius < 1), (radius >= 1) & (radius < 1.15)
    slope = np.hypot(*np.gradient(grey))
    grain = np.abs(4 * grey - sum(np.roll(grey, shift, axis) for axis in (0, 1) for shift in (1, -1)))
    return {
        "brightness": grey[skirt].mean(),
        "step": abs(grey[skirt].mean() - grey[outside].mean()),
        "variety": grey[skirt].std(),
        "slope": slope[skirt].mean(),
        "grain": grain[skirt].mean() / (grain[outside].mean() + 1),
        "surroundings": grey[outside].std(),
        "size": piece.height,
        "place": float(np.hypot(piece.x + piece.width / 2 - 96, piece.y + piece.height / 2 - 96)),
    }


def test_the_seam_gives_nothing_away(composed: list[scenes.Scene]):
    faces = [rim(scene, piece) for scene in composed for piece in scene.faces]
    clutter = [rim(scene, piece) for scene in composed for _, piece in scene.clutter[:2]]
    for name in faces[0]:
        area = area_under_curve(*(np.array([each[name] for each in group]) for group in (faces, clutter)))
        assert 0.41 < area < 0.59, f"{name} tells faces from clutter: {area:.2f}"


def test_the_face_itself_is_told_from_an_upside_down_one(composed: list[scenes.Scene]):
    """The guard of the test above: a template inside the mask does see the difference."""
    template = load_sources("train").faces.mean(axis=0)
    template = (template - template[::-1])[4:-4, 5:-5]

    def score(scene: scenes.Scene, piece: Piece) -> float:
        cut = scene.image[piece.y : piece.y + piece.height, piece.x : piece.x + piece.width]
        patch = resample(cut.astype(float), 25, 25)[4:-4, 5:-5]
        return float(np.corrcoef(patch.ravel(), template.ravel())[0, 1])

    upright = [score(scene, piece) for scene in composed for piece in scene.faces]
    turned = [score(s, piece) for s in composed for kind, piece in s.clutter if kind == "upside-down face"]
    assert area_under_curve(np.array(upright), np.array(turned)) > 0.85


# Files


def test_the_files_are_an_ordinary_coco_set(written: Path):
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        tree = json.loads((written / "annotations" / f"instances_{split}.json").read_text())
        assert tree["categories"] == [{"id": 1, "name": "face"}]
        assert [image["id"] for image in tree["images"]] == list(range(1, count + 1))
        ids = [annotation["id"] for annotation in tree["annotations"]]
        assert ids == list(range(1, len(ids) + 1))
        for image in tree["images"]:
            picture = cv2.imread(str(written / "images" / split / image["file_name"]), cv2.IMREAD_UNCHANGED)
            assert picture.shape == (image["height"], image["width"]) == (160, 160)
        for annotation in tree["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= 160
            assert annotation["area"] == pytest.approx(width * height, abs=0.01)
            assert annotation["iscrowd"] == 0


def test_a_seed_gives_the_same_bytes_and_another_seed_others(written: Path, tmp_path: Path):
    write_demo(tmp_path / "again", SMALL)
    assert digest(tmp_path / "again") == digest(written)
    write_demo(tmp_path / "other", DemoSpec(train=6, val=3, test=2, size=160, seed=6))
    first = "images/train/0001.png"
    assert digest(tmp_path / "other")[first] != digest(written)[first]


def test_a_scene_depends_on_no_other(written: Path, tmp_path: Path):
    write_demo(tmp_path / "fewer", DemoSpec(train=2, val=3, test=0, size=160, seed=5))
    whole = digest(written)
    fewer = {name: value for name, value in digest(tmp_path / "fewer").items() if name.endswith(".png")}
    assert len(fewer) == 5
    assert all(whole[name] == value for name, value in fewer.items())


def test_the_same_data_is_left_alone_and_a_gap_is_filled(tmp_path: Path):
    spec = DemoSpec(train=3, val=1, test=1, size=160)
    assert write_demo(tmp_path, spec)
    before = digest(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert not write_demo(tmp_path, spec)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    (tmp_path / "images" / "train" / "0002.png").unlink()
    assert write_demo(tmp_path, spec)
    assert digest(tmp_path) == before


def test_other_arguments_replace_the_old_scenes(tmp_path: Path):
    write_demo(tmp_path, DemoSpec(train=3, val=1, test=1, size=160))
    assert write_demo(tmp_path, DemoSpec(train=1, val=1, test=1, size=160))
    assert [path.name for path in (tmp_path / "images" / "train").iterdir()] == ["0001.png"]


def test_a_broken_off_run_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = DemoSpec(train=3, val=1, test=1, size=160)

    def interrupted(*_: object, **__: object) -> list:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("detkit.data.demo.writing._annotations", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_demo(tmp_path, spec)
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False
    assert write_demo(tmp_path, spec)
    assert not write_demo(tmp_path, spec)


def test_foreign_folders_are_refused(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("five years of work")
    with pytest.raises(DataError, match="not demo data; choose another folder"):
        write_demo(tmp_path, SMALL)
    (tmp_path / "manifest.json").write_text('{"format": "something else"}')
    with pytest.raises(DataError, match="something other than the demo data"):
        write_demo(tmp_path, SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "five years of work"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": 95}, "size is 95.*at least 96"), ({"val": -1}, "val is -1"), ({"seed": -3}, "seed is -3")],
)
def test_impossible_arguments(wrong: dict, message: str):
    with pytest.raises(DataError, match=message):
        DemoSpec(**wrong)
