"""The criterion against a slow, plain computation, and its laws."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detkit.criterion import DetectionCriterion, DetectorWithLoss, anchor_labels
from detkit.labels import BACKGROUND, IGNORE
from detkit.negative_regions import NegativeRegions
from detkit.selection import HardExamples, HardNegatives, MinedNegatives, RandomNegatives
from detkit.structures import DenseOutputs

GRID = [(x, y, s) for s in (16.0, 32.0) for x in range(0, 64, 8) for y in range(0, 64, 8)]
ANCHORS = torch.tensor([[x, y, x + s, y + s] for x, y, s in GRID])


def outputs_for(images, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    split = len(ANCHORS) // 2

    def levels(width, scale):
        values = torch.randn(images, len(ANCHORS), width, generator=generator) * scale
        return [values[:, :split].clone().requires_grad_(), values[:, split:].clone().requires_grad_()]

    return DenseOutputs(levels(classes, 2.0), levels(4, 0.3), [ANCHORS[:split], ANCHORS[split:]])


def target(boxes, labels, regions=None):
    made = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    if regions is not None:
        made["ignore_regions"] = torch.tensor(regions, dtype=torch.float32).reshape(-1, 4)
    return made


def plain_iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plain_match(boxes):
    """The best box of every anchor by the paper's thresholds, lowest-quality matches kept."""
    table = [[plain_iou(anchor, box) for box in boxes] for anchor in ANCHORS.tolist()]
    best_of_box = [max(row[g] for row in table) for g in range(len(boxes))]
    matches = []
    for row in table:
        best = max(row, default=0.0)
        kept = any(
            best_of_box[g] > 0 and math.isclose(row[g], best_of_box[g], rel_tol=1e-6)
            for g in range(len(boxes))
        )
        match = row.index(best) if boxes and (best >= 0.5 or kept) else BACKGROUND if best < 0.4 else IGNORE
        matches.append(match)
    return matches


def plain_losses(outputs, targets, alpha, gamma):
    logits = torch.cat(list(outputs.logits), 1).tolist()
    deltas = torch.cat(list(outputs.deltas), 1).tolist()
    classification = box_loss = positives = 0.0
    for n, wanted in enumerate(targets):
        boxes = wanted["boxes"].tolist()
        for a, match in enumerate(plain_match(boxes)):
            if match == IGNORE:
                continue
            for k, logit in enumerate(logits[n][a]):
                positive = match >= 0 and wanted["labels"][match] == k
                p = 1 / (1 + math.exp(-logit))
                p_t = p if positive else 1 - p
                weight = 1.0 if alpha is None else alpha if positive else 1 - alpha
                classification -= weight * (1 - p_t) ** gamma * math.log(p_t)
            if match >= 0:
                positives += 1
                box_loss += sum(
                    abs(d - w) for d, w in zip(deltas[n][a], encode(boxes[match], GRID[a]), strict=True)
                )
    return classification / max(1, positives), box_loss / max(1, positives)


def encode(box, place):
    x, y, side = place
    width, height = box[2] - box[0], box[3] - box[1]
    centre = (box[0] + width / 2, box[1] + height / 2)
    return (
        (centre[0] - x - side / 2) / side,
        (centre[1] - y - side / 2) / side,
        math.log(width / side),
        math.log(height / side),
    )


TARGETS = [
    target([[3, 5, 20, 24], [30, 30, 60, 58]], [1, 0]),
    target([], []),
    target([[10, 10, 26, 26]], [2]),
]


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.0), (0.75, 0.0), (0.5, 0.5)])
def test_losses_equal_a_plain_computation(alpha, gamma):
    outputs = outputs_for(3, 3)
    losses = DetectionCriterion(alpha=alpha, gamma=gamma)(outputs, TARGETS)
    classification, box = plain_losses(outputs, TARGETS, alpha, gamma)
    assert losses["classification"].item() == pytest.approx(classification, rel=1e-4)
    assert losses["box"].item() == pytest.approx(box, rel=1e-4)


def test_the_normaliser_is_of_the_batch_so_an_empty_image_weighs_no_more():
    crowded = target([[x, y, x + 16, y + 16] for x in range(0, 48, 16) for y in range(0, 48, 16)], [0] * 9)
    outputs = outputs_for(2, 1)
    criterion = DetectionCriterion()
    with_empty = criterion(outputs, [crowded, target([], [])])["classification"]
    with_empty.backward()
    gradient = outputs.logits[0].grad
    empty_alone = DetectionCriterion()(
        DenseOutputs(
            [level[1:] for level in outputs.logits], [level[1:] for level in outputs.deltas], outputs.anchors
        ),
        [target([], [])],
    )["classification"]
    (alone,) = torch.autograd.grad(empty_alone, [outputs.logits[0]])
    positives = sum(match >= 0 for match in plain_match(crowded["boxes"].tolist()))
    assert torch.allclose(gradient[1] * positives, alone[1], rtol=1e-4)


def test_ignored_anchors_and_crowds_get_no_gradient():
    region = [0.0, 0.0, 32.0, 32.0]
    wanted = [target([[40, 40, 56, 56]], [0], [region])]
    criterion = DetectionCriterion()
    outputs = outputs_for(1, 2)
    criterion(outputs, wanted)["classification"].backward()
    gradient = torch.cat([level.grad for level in outputs.logits], 1)[0].abs().sum(1)
    matches = criterion.match(ANCHORS, wanted)[0]
    inside = torch.tensor(
        [max(0.0, min(x + s, 32.0) - x) * max(0.0, min(y + s, 32.0) - y) / (s * s) >= 0.5 for x, y, s in GRID]
    )
    plain = torch.tensor(plain_match([[40.0, 40.0, 56.0, 56.0]]))
    inside |= torch.tensor(plain_match([region])) != BACKGROUND
    assert inside.any()
    assert (matches == IGNORE).equal((inside & (plain == BACKGROUND)) | (plain == IGNORE))
    assert gradient[matches == IGNORE].eq(0).all()
    assert gradient[matches != IGNORE].gt(0).all()


@pytest.mark.parametrize("side", [3.0, 6.0, 12.0, 20.0, 40.0])
def test_what_would_be_an_object_of_an_ignore_region_is_ignored(side):
    """An object that nobody labelled, smaller than every anchor or larger, is no background where it would be found."""
    box = [20.0, 20.0, 20.0 + side, 20.0 + side]
    criterion = DetectionCriterion()
    as_object = criterion.match(ANCHORS, [target([box], [0])])[0]
    as_region = criterion.match(ANCHORS, [target([], [], [box])])[0]
    assert (as_object >= 0).any()
    assert (as_region[as_object != BACKGROUND] == IGNORE).all()


def test_giou_is_zero_for_perfect_boxes_and_one_apart():
    box = [8.0, 8.0, 24.0, 24.0]
    outputs = outputs_for(1, 1)
    zero = DenseOutputs(
        outputs.logits, [torch.zeros_like(level) for level in outputs.deltas], outputs.anchors
    )
    exact = DetectionCriterion(box="giou", foreground_iou=0.99, background_iou=0.99)(
        zero, [target([box], [0])]
    )
    assert exact["box"].item() == pytest.approx(0, abs=1e-6)
    wide = DetectionCriterion(box="giou")(zero, [target([[8.0, 8.0, 24.0, 32.0]], [0])])
    assert 0 < wide["box"].item() < 1


def test_labels_keep_sentinels_and_follow_each_image():
    matches = torch.tensor([[0, 1, BACKGROUND], [IGNORE, 0, BACKGROUND]], dtype=torch.int32)
    targets = [target([[0, 0, 1, 1], [0, 0, 2, 2]], [5, 3]), target([[0, 0, 1, 1]], [7])]
    assert anchor_labels(matches, targets).tolist() == [[5, 3, BACKGROUND], [IGNORE, 7, BACKGROUND]]


def test_no_objects_at_all_gives_a_finite_loss_and_no_box_loss():
    outputs = outputs_for(2, 3)
    losses = DetectionCriterion()(outputs, [target([], []), target([], [])])
    assert losses["box"].item() == 0
    assert math.isfinite(losses["classification"].item())
    sum(losses.values()).backward()
    assert all(torch.isfinite(level.grad).all() for level in outputs.logits)


class Fixed(nn.Module):
    def forward(self, images):
        return outputs_for(len(images), 3) if self.training else ["detections"]


def test_torchvisions_call():
    detector = DetectorWithLoss(Fixed(), DetectionCriterion())
    images = torch.zeros(3, 3, 64, 64)
    assert set(detector(images, TARGETS)) == {"classification", "box"}
    with pytest.raises(ValueError, match="targets"):
        detector(images)
    assert detector.eval()(images) == ["detections"]


class Chosen:
    """A selection that a test has made itself."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, candidates):
        return self.weights


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_only_selected_anchors_get_gradient_and_as_much_as_their_weight(gamma):
    targets = [target([[3, 3, 20, 20], [30, 30, 62, 62]], [1, 0]), target([], [])]
    outputs = outputs_for(2, 3)
    weights = (torch.rand(2, len(ANCHORS), generator=torch.Generator().manual_seed(1)) < 0.4).float()
    whole = DetectionCriterion(gamma=gamma)
    matches = whole.match(torch.cat(list(outputs.anchors)), targets)
    assert (weights[matches >= 0] > 0).any()
    assert (weights[matches >= 0] == 0).any()

    def gradients(criterion):
        losses = criterion(outputs, targets)
        found = torch.autograd.grad(sum(losses.values()), [*outputs.logits, *outputs.deltas])
        return torch.cat(found[:2], dim=1), torch.cat(found[2:], dim=1)

    of_all, of_selected = (
        gradients(whole),
        gradients(DetectionCriterion(gamma=gamma, selection=Chosen(weights))),
    )
    for every, selected in zip(of_all, of_selected, strict=True):
        torch.testing.assert_close(selected, every * weights[..., None])


@pytest.mark.parametrize(
    ("selection", "negatives_with_gradient"),
    [(RandomNegatives(ratio=3, minimum=1), 3), (HardNegatives(ratio=3, minimum=1), 3)],
)
def test_a_selection_by_ratio_is_in_use(selection, negatives_with_gradient):
    targets = [target([[3, 3, 20, 20]], [1]), target([], [])]
    outputs = outputs_for(2, 3)
    criterion = DetectionCriterion(selection=selection)
    labels = anchor_labels(criterion.match(torch.cat(list(outputs.anchors)), targets), targets)
    loss = criterion(outputs, targets)["classification"]
    gradient = torch.cat(torch.autograd.grad(loss, outputs.logits), dim=1)
    counted = (gradient != 0).any(dim=2)
    positives = int((labels >= 0).sum())
    assert counted[labels >= 0].all()
    assert counted[labels == BACKGROUND].sum() == negatives_with_gradient * positives
    if isinstance(selection, HardNegatives):
        every = DetectionCriterion()(outputs, targets)["classification"]
        of_every = torch.cat(torch.autograd.grad(every, outputs.logits), dim=1)
        torch.testing.assert_close(gradient[counted], of_every[counted])


def test_the_normaliser_is_of_all_processes(monkeypatch):
    """Another process has three times the positives: both divide by the mean, which is twice one's own."""
    alone = DetectionCriterion()(outputs_for(3, 3), TARGETS)
    others = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: 2,
        all_reduce=lambda positives: positives.mul_(4),
    )
    monkeypatch.setattr("detkit.criterion.dist", others)
    together = DetectionCriterion()(outputs_for(3, 3), TARGETS)
    for name, loss in alone.items():
        assert together[name].item() == pytest.approx(loss.item() / 2, rel=1e-6)


def test_hard_examples_alone_get_gradient():
    targets = [target([[3, 3, 20, 20]], [1]), target([], [])]
    outputs = outputs_for(2, 3)
    loss = DetectionCriterion(selection=HardExamples(budget=6))(outputs, targets)["classification"]
    gradient = torch.cat(torch.autograd.grad(loss, outputs.logits), dim=1)
    assert (gradient != 0).any(dim=2).sum(dim=1).tolist() == [6, 6]


@pytest.mark.parametrize(("alpha", "gamma"), [(None, 0.0), (0.25, 2.0)])
def test_mined_background_alone_gets_gradient_and_as_much_as_without_selection(alpha, gamma):
    """Objects, what was mined in a tracked image, and all of an image that is background as a whole."""
    tracked = {
        "image_id": torch.tensor(7),
        "to_canvas": torch.eye(3, dtype=torch.float64)[:2],
        "size": torch.tensor([64.0, 64.0]),
        "original_size": torch.tensor([64.0, 64.0]),
    }
    targets = [target([[3, 3, 20, 20]], [1]) | tracked, target([], [])]
    outputs = outputs_for(2, 3)
    regions = NegativeRegions()
    regions.begin(7, ANCHORS[[60, 100]])
    selection = MinedNegatives(regions, initial=0, per_image=0, threshold=0.05, iou=0.9)
    weighting = {"alpha": alpha, "gamma": gamma}
    criterion = DetectionCriterion(selection=selection, **weighting)
    labels = anchor_labels(criterion.match(ANCHORS, targets), targets)
    gradients = [
        torch.cat(torch.autograd.grad(one(outputs, targets)["classification"], outputs.logits), dim=1)
        for one in (criterion, DetectionCriterion(**weighting))
    ]
    counted = (gradients[0] != 0).any(dim=2)
    expected = labels >= 0
    expected[0, [60, 100]] = True
    expected[1] = True
    assert labels[0, [60, 100]].tolist() == [BACKGROUND] * 2
    assert torch.equal(counted, expected)
    torch.testing.assert_close(gradients[0][counted], gradients[1][counted])
