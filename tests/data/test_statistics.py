"""Counts against hand-made data, and anchor matching against torchvision's matcher."""

import json

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detkit.data.coco import CocoAnnotations, read_coco
from detkit.data.statistics import anchor_statistics, data_statistics


def annotations_of(tmp_path, boxes: list, crowd: set = frozenset()) -> CocoAnnotations:
    """Three images of 200 x 100 (width x height) and the ``boxes`` given as (image, category, xywh)."""
    tree = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 200} for i in (1, 2, 3)],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": category, "bbox": box, "iscrowd": int(i in crowd)}
            for i, (image, category, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(tree))
    return read_coco(path)


def grid(size: tuple[int, int]) -> list[torch.Tensor]:
    """Anchors of 32 x 32 every 16 pixels, and of 64 x 64 every 32."""
    levels = []
    for stride in (16, 32):
        y, x = torch.meshgrid(*(torch.arange(0, side, stride).float() for side in size), indexing="ij")
        centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4)
        levels.append(centres + torch.tensor([-1.0, -1, 1, 1]) * stride)
    return levels


def same_size(size: tuple[int, int]) -> tuple[int, int]:
    return size


def test_counts(tmp_path):
    boxes = [
        (1, 1, [0, 0, 31, 33]),
        (1, 1, [0, 0, 32, 32]),
        (1, 2, [0, 0, 96, 96]),
        (2, 1, [0, 0, 90, 40]),
        (3, 1, [0, 0, 50, 50]),
    ]
    found = data_statistics(annotations_of(tmp_path, boxes, crowd={4}))
    assert (found.images, found.images_without_objects, found.boxes, found.crowds) == (3, 1, 4, 1)
    cat, dog = found.classes
    assert (cat.name, cat.images, cat.boxes, cat.crowds, cat.by_size) == ("cat", 2, 3, 1, (1, 2, 0))
    assert (dog.name, dog.images, dog.boxes, dog.crowds, dog.by_size) == ("dog", 1, 1, 0, (0, 0, 1))
    assert cat.side_quantiles[1] == pytest.approx(32)
    assert dog.side_quantiles == pytest.approx((96, 96, 96))


def test_a_class_without_boxes_has_no_sides(tmp_path):
    found = data_statistics(annotations_of(tmp_path, []))
    assert found.images_without_objects == 3
    assert found.classes[0].side_quantiles is None


@pytest.mark.parametrize("low_quality", [True, False])
def test_matching_equals_torchvision(tmp_path, low_quality):
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 60, (24, 2))
    sides = generator.uniform(6, 40, (24, 2))
    boxes = [
        (int(i % 2) + 1, int(i % 3 == 0) + 1, [*corner.tolist(), *side.tolist()])
        for i, (corner, side) in enumerate(zip(corners, sides, strict=True))
    ]
    annotations = annotations_of(tmp_path, boxes)

    def doubled(size: tuple[int, int]) -> tuple[int, int]:
        return size[0] * 2, size[1] * 2

    found = anchor_statistics(annotations, grid, doubled, low_quality=low_quality)
    anchors = torch.cat(grid((200, 400)))
    expected = np.zeros(3, dtype=int)
    never, below = 0, 0
    for image in (0, 1):
        targets = torch.from_numpy(annotations.boxes[annotations.rows(image)]) * 2
        overlaps = box_iou(targets, anchors)
        matches = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)(overlaps)
        strict = Matcher(0.5, 0.4)(overlaps)
        expected += [int((matches >= 0).sum()), int((matches == -1).sum()), int((matches == -2).sum())]
        never += len(targets) - len(matches[matches >= 0].unique())
        below += len(targets) - len(strict[strict >= 0].unique())
    expected[1] += len(anchors)  # the third image is empty
    assert [found.foreground, found.background, found.ignored] == expected.tolist()
    assert (sum(map(sum, found.never_matched)), sum(map(sum, found.below_threshold))) == (never, below)
    assert below > never or not low_quality
    assert below > 0
    assert found.images == 3


def test_boxes_that_no_anchor_matches_are_told_by_class_and_size(tmp_path):
    boxes = [
        (1, 1, [16, 16, 32, 32]),  # an anchor
        (1, 2, [100, 20, 6, 6]),  # inside an anchor: low quality
        (2, 2, [100, 20, 6, 6]),
        (3, 1, [80, 20, 100, 70]),  # a crowd, which training ignores
    ]
    annotations = annotations_of(tmp_path, boxes, crowd={3})
    found = anchor_statistics(annotations, grid, same_size)
    assert found.boxes == ((0, 1, 0), (2, 0, 0))
    assert found.never_matched == ((0, 0, 0), (0, 0, 0))
    assert found.below_threshold == ((0, 0, 0), (2, 0, 0))
    found = anchor_statistics(annotations, grid, same_size, low_quality=False)
    assert found.never_matched == ((0, 0, 0), (2, 0, 0))

    def left_half(size: tuple[int, int]) -> list[torch.Tensor]:
        return [level[level[:, 2] < 90] for level in grid(size)]

    found = anchor_statistics(annotations, left_half, same_size)
    assert found.never_matched == ((0, 0, 0), (2, 0, 0))


def test_the_resize_decides(tmp_path):
    annotations = annotations_of(tmp_path, [(1, 1, [8, 8, 16, 16])])
    assert sum(map(sum, anchor_statistics(annotations, grid, same_size).below_threshold)) == 1
    doubled = anchor_statistics(annotations, grid, lambda size: (size[0] * 2, size[1] * 2))
    assert sum(map(sum, doubled.below_threshold)) == 0


def test_large_sets_are_sampled_evenly(tmp_path):
    boxes = [(1, 1, [16, 16, 32, 32]), (2, 1, [16, 16, 32, 32]), (3, 1, [16, 16, 32, 32])]
    found = anchor_statistics(annotations_of(tmp_path, boxes), grid, same_size, images=2)
    assert found.images == 2
    assert sum(map(sum, found.boxes)) == 2
