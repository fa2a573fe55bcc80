"""From dense outputs to detections, against a slow and independent account of the same."""

import math

import pytest
import torch

from detkit.models import AnchorGenerator, PostProcess
from detkit.models.postprocess import nms_per_class
from detkit.structures import DenseOutputs

GENERATOR = AnchorGenerator([[24.0], [48.0]], [0.5, 2.0], [16, 32])


def random_outputs(size: tuple[int, int], classes: int, seed: int, images: int = 1) -> DenseOutputs:
    generator = torch.Generator().manual_seed(seed)
    anchors = GENERATOR.anchors_for(size)
    return DenseOutputs(
        [torch.randn(images, len(level), classes, generator=generator) * 2 for level in anchors],
        [torch.randn(images, len(level), 4, generator=generator) * 0.3 for level in anchors],
        anchors,
    )


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_candidates(
    outputs: DenseOutputs, image: int, size: tuple[int, int], settings: PostProcess
) -> list[tuple]:
    candidates = []
    for logits, deltas, anchors in zip(outputs.logits, outputs.deltas, outputs.anchors, strict=True):
        level = []
        for a, (x1, y1, x2, y2) in enumerate(anchors.tolist()):
            dx, dy, dw, dh = deltas[image, a].tolist()
            x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
            w, h = (x2 - x1) * math.exp(dw) / 2, (y2 - y1) * math.exp(dh) / 2
            xs = [min(max(value, 0), size[1]) for value in (x - w, x + w)]
            ys = [min(max(value, 0), size[0]) for value in (y - h, y + h)]
            for k, logit in enumerate(logits[image, a].tolist()):
                score = 1 / (1 + math.exp(-logit))
                if score > settings.score_threshold:
                    level.append((score, k, [xs[0], ys[0], xs[1], ys[1]]))
        level.sort(key=lambda candidate: -candidate[0])
        candidates += level[: settings.candidates_per_level]
    # What lies on the padding alone has no area left.
    within = [one for one in candidates if one[2][2] > one[2][0] and one[2][3] > one[2][1]]
    return sorted(within, key=lambda candidate: -candidate[0])


def slow_detections(outputs, image, size, original, settings: PostProcess) -> list[tuple]:
    kept: list[tuple] = []
    for candidate in slow_candidates(outputs, image, size, settings):
        same_class = [other for other in kept if other[1] == candidate[1]]
        if all(overlap(candidate[2], other[2]) <= settings.nms_iou for other in same_class):
            kept.append(candidate)
    y, x = original[0] / size[0], original[1] / size[1]
    return [
        (score, k, [b[0] * x, b[1] * y, b[2] * x, b[3] * y])
        for score, k, b in kept[: settings.detections_per_image]
    ]


@pytest.mark.parametrize(
    "settings",
    [
        PostProcess(0.5, 0.5, 1000, 100),
        PostProcess(0.05, 0.3, 40, 25),
        PostProcess(0.0, 0.7, 30, 1000),
        PostProcess(0.999, 0.5, 1000, 100),
    ],
)
def test_equals_the_slow_reference(settings: PostProcess) -> None:
    outputs = random_outputs((64, 96), classes=4, seed=3, images=2)
    sizes, originals = [(64, 96), (50, 80)], [(128, 96), (75, 200)]
    found = settings(outputs, sizes, originals)
    for image in range(2):
        expected = slow_detections(outputs, image, sizes[image], originals[image], settings)
        assert found[image]["labels"].tolist() == [k for _, k, _ in expected]
        assert found[image]["labels"].dtype == torch.int64
        scores = torch.tensor([score for score, _, _ in expected], dtype=torch.float32)
        torch.testing.assert_close(found[image]["scores"], scores)
        boxes = torch.tensor([box for _, _, box in expected], dtype=torch.float32).reshape(-1, 4)
        torch.testing.assert_close(found[image]["boxes"], boxes, rtol=0, atol=1e-3)


def test_nothing_above_the_threshold_is_an_empty_result() -> None:
    outputs = random_outputs((64, 64), classes=3, seed=0)
    quiet = DenseOutputs([logits - 50 for logits in outputs.logits], outputs.deltas, outputs.anchors)
    found = PostProcess()(quiet, [(64, 64)], [(640, 640)])[0]
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].shape == found["scores"].shape == (0,)


def test_equal_scores_come_in_the_order_of_anchor_and_class() -> None:
    outputs = random_outputs((64, 64), classes=3, seed=0)
    level = DenseOutputs([torch.zeros_like(outputs.logits[0])], outputs.deltas[:1], outputs.anchors[:1])
    found = PostProcess(0.1, 1.0, 7, 100)(level, [(64, 64)], [(64, 64)])[0]
    assert found["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert torch.equal(found["boxes"][0], found["boxes"][2])
    assert not torch.equal(found["boxes"][2], found["boxes"][3])


def test_half_precision_scores_are_float32() -> None:
    outputs = random_outputs((64, 64), classes=3, seed=0)
    half = DenseOutputs(
        [logits.bfloat16() for logits in outputs.logits],
        [deltas.bfloat16() for deltas in outputs.deltas],
        outputs.anchors,
    )
    found = PostProcess()(half, [(64, 64)], [(64, 64)])[0]
    assert found["scores"].dtype == found["boxes"].dtype == torch.float32
    assert torch.equal(found["scores"], found["scores"].sort(descending=True).values)


def test_nms_keeps_its_precision_over_many_classes_on_a_large_canvas() -> None:
    """Moved to the place of class 999, boxes in float32 would be off by half a pixel, and so their overlap."""
    first = torch.tensor([9000.0, 9000.0, 9003.0, 9010.0])
    second = torch.tensor([9001.0007, 9000.0, 9004.0007, 9010.0])
    exact = overlap(first.tolist(), second.tolist())
    assert 0.49 < exact < 0.5
    rows = [row for _ in range(1000) for row in (first, second)]
    boxes = torch.stack(rows)
    labels = torch.arange(1000).repeat_interleave(2)
    scores = torch.linspace(1, 0.5, 2000)
    assert nms_per_class(boxes, labels, scores, exact + 1e-6).tolist() == list(range(2000))
    assert nms_per_class(boxes, labels, scores, exact - 1e-4).tolist() == list(range(0, 2000, 2))
    shifted = boxes + (labels * 9005.0)[:, None]
    assert not torch.equal(shifted[-2:] - shifted[-2, 0], boxes[-2:] - boxes[-2, 0])


def test_nms_never_lets_one_class_suppress_another() -> None:
    boxes = torch.tensor([[-50.0, -50.0, 10.0, 10.0]]).repeat(30, 1)
    labels = torch.arange(30)
    assert nms_per_class(boxes, labels, torch.ones(30), 0.1).tolist() == list(range(30))


def test_boxes_on_the_padding_alone_are_none():
    """Nor do they take the place of others."""
    anchors = torch.tensor([[0.0, 40.0, 16.0, 60.0], [0.0, 0.0, 16.0, 16.0]])
    outputs = DenseOutputs(
        logits=[torch.tensor([[[5.0], [1.0]]])], deltas=[torch.zeros(1, 2, 4)], anchors=[anchors]
    )
    (found,) = PostProcess(0.05, 0.5, 1000, 1)(outputs, [(32, 64)], [(32, 64)])
    assert found["boxes"].tolist() == [[0, 0, 16, 16]]
