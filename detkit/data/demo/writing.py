"""Write the demo data as an ordinary COCO data set.

::

    OUT/manifest.json                         what was asked for, see DemoSpec
    OUT/annotations/instances_train.json      and _val, _test
    OUT/images/train/0001.png                 and val/, test/; grey, lossless

Manifest, format version 1: ``{"format": "detkit-demo", "version": 1, "complete": true, "spec": {...}}``. It
is written first with ``complete`` false and again at the end, so that a broken-off run is recognised.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detkit.data.demo.scenes import SIDES, Scene, compose_scene
from detkit.data.demo.sources import SPLITS, Sources, load_sources
from detkit.errors import DataError
from detkit.files import write_json

RECIPE = 1
"""Raised whenever the same seed would give other pictures."""
SMALLEST_SCENE = 96


@dataclass(frozen=True)
class DemoSpec:
    """What determines every byte of the data set."""

    train: int = 1600
    """Scenes."""
    val: int = 200
    test: int = 200
    size: int = 192
    """Width and height of a scene, pixels."""
    seed: int = 0
    recipe: int = RECIPE

    def __post_init__(self) -> None:
        if self.size < SMALLEST_SCENE:
            raise DataError(
                f"demo data: size is {self.size}; scenes need at least {SMALLEST_SCENE} pixels "
                f"to hold pieces of up to {SIDES[1]:.0f}"
            )
        for name in ("train", "val", "test", "seed"):
            if getattr(self, name) < 0:
                raise DataError(f"demo data: {name} is {getattr(self, name)}; it must not be negative")


def write_demo(folder: Path, spec: DemoSpec) -> bool:
    """Write the demo data into ``folder``; False where the same data is already there, whole.

    Raises:
        DataError: the folder holds something else, or the source images are not installed.
    """
    manifest = {"format": "detkit-demo", "version": 1, "complete": True, "spec": asdict(spec)}
    if _read_manifest(folder) == manifest and _is_whole(folder, spec):
        return False
    write_json(folder / "manifest.json", {**manifest, "complete": False})
    for split in SPLITS:
        _write_split(folder, split, spec)
    write_json(folder / "manifest.json", manifest)
    return True


def scene_generator(spec: DemoSpec, split: str, index: int) -> np.random.Generator:
    """Randomness of one scene, which depends on no other scene."""
    return np.random.default_rng([spec.seed, list(SPLITS).index(split), index])


def _write_split(folder: Path, split: str, spec: DemoSpec) -> None:
    images = folder / "images" / split
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("*.png"):
        old.unlink()
    names = _file_names(getattr(spec, split))
    scenes = _compose(load_sources(split), split, spec, len(names))
    annotations: list[dict[str, Any]] = []
    for image_id, (name, scene) in enumerate(zip(names, scenes, strict=True), start=1):
        _, encoded = cv2.imencode(".png", scene.image)
        (images / name).write_bytes(encoded.tobytes())
        annotations += _annotations(scene, image_id, first_id=len(annotations) + 1)
    records = [
        {"id": image_id, "file_name": name, "width": spec.size, "height": spec.size}
        for image_id, name in enumerate(names, start=1)
    ]
    tree = {
        "info": {"description": f"detkit demo, {split}: faces among face-like clutter"},
        "images": records,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "face"}],
    }
    write_json(folder / "annotations" / f"instances_{split}.json", tree, indent=None)


def _compose(sources: Sources, split: str, spec: DemoSpec, count: int) -> Iterable[Scene]:
    return (compose_scene(sources, scene_generator(spec, split, index), spec.size) for index in range(count))


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of the faces; the box bounds the visible face (Piece.box)."""
    annotations = []
    for annotation_id, piece in enumerate(scene.faces, start=first_id):
        x0, y0, x1, y1 = (round(value, 2) for value in piece.box)
        width, height = round(x1 - x0, 2), round(y1 - y0, 2)
        annotations.append(
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": 1,
                "bbox": [x0, y0, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
            }
        )
    return annotations


def _file_names(count: int) -> list[str]:
    return [f"{number:04d}.png" for number in range(1, count + 1)]


def _read_manifest(folder: Path) -> Any:
    """The manifest, or None where the folder is empty or absent."""
    path = folder / "manifest.json"
    if not path.exists():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise DataError(f"{folder}: is there and is not demo data; choose another folder")
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the folder or choose another") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "detkit-demo":
        raise DataError(f"{path}: belongs to something other than the demo data; choose another folder")
    return manifest


def _is_whole(folder: Path, spec: DemoSpec) -> bool:
    """Whether every file is there."""
    return all(
        (folder / "annotations" / f"instances_{split}.json").is_file()
        and sorted(path.name for path in (folder / "images" / split).glob("*.png"))
        == _file_names(getattr(spec, split))
        for split in SPLITS
    )
