"""A detector, images, and files made by hand, for the tests of tools/mine.py."""

import json

import pytest
from mining_script import write_noise
from scripts import printed_by


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, write_tiny_config):
    """Of a detector that has hardly learned, so that it fires on background."""
    folder = tmp_path_factory.mktemp("trained")
    printed_by("train.py", write_tiny_config(folder, epochs=6))
    return folder / "run" / "best.pt"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures that are not in ``tiny_coco``; its name has spaces."""
    folder = tmp_path_factory.mktemp("pool") / "my web photos"
    folder.mkdir()
    for seed in range(12):
        write_noise(folder / f"photo {seed}.png", seed)
    return folder


@pytest.fixture
def hand_made(tmp_path):
    """Write pictures, a COCO file and results by hand; the arguments that mine them.

    ``detections``: (image id, xywh box, score).
    """

    def make(detections, sizes=((120, 160),), objects=()):
        for image, size in enumerate(sizes, start=1):
            write_noise(tmp_path / f"{image}.png", image, size)
        images = [
            {"id": image, "file_name": f"{image}.png", "width": width, "height": height}
            for image, (height, width) in enumerate(sizes, start=1)
        ]
        annotations = [
            {"id": row, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for row, (image, box) in enumerate(objects, start=1)
        ]  # fmt: skip
        tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        results = [
            {"image_id": image, "category_id": 1, "bbox": box, "score": score}
            for image, box, score in detections
        ]
        (tmp_path / "gt.json").write_text(json.dumps(tree))
        (tmp_path / "dt.json").write_text(json.dumps(results))
        files = ("--detections", tmp_path / "dt.json", "--annotations", tmp_path / "gt.json")
        return *files, "--images", tmp_path, "--output", tmp_path / "negatives"

    return make
