"""What a look at a step says, against counting anchor by anchor."""

import math

import pytest
import torch
from torch import Tensor

from detkit.criterion import DetectionCriterion
from detkit.labels import BACKGROUND, IGNORE
from detkit.selection import RandomNegatives
from detkit.structures import DenseOutputs, Target
from detkit.training.laziness import StepLook

ANCHORS = torch.tensor(
    [[x, y, x + 16, y + 16] for y in range(0, 64, 8) for x in range(0, 64, 8)], dtype=torch.float32
)
COARSE = torch.tensor([[x, y, x + 32, y + 32] for y in range(0, 64, 16) for x in range(0, 64, 16)]).float()


def target(boxes: list[list[float]], labels: list[int]) -> Target:
    return {
        "boxes": torch.tensor(boxes).float().view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


TARGETS = [target([[8, 8, 24, 24], [30, 30, 60, 60]], [1, 0]), target([[1, 0, 17, 16]], [2]), target([], [])]


def random_outputs(seed: int, shift: float = -3.0) -> DenseOutputs:
    generator = torch.Generator().manual_seed(seed)
    logits = [
        (torch.randn(3, len(anchors), 3, generator=generator) + shift).requires_grad_()
        for anchors in (ANCHORS, COARSE)
    ]
    deltas = [torch.zeros(3, len(anchors), 4) for anchors in (ANCHORS, COARSE)]
    return DenseOutputs(logits, deltas, [ANCHORS, COARSE])


def looked(criterion: DetectionCriterion, outputs: DenseOutputs, targets=TARGETS, **settings):
    """The values, and each anchor's label, loss and size of gradient as the criterion has them."""
    seen: dict[str, Tensor] = {}
    look = StepLook(**settings)

    def observe(candidates, losses):
        seen.update(labels=candidates.labels, losses=losses.detach())
        look(candidates, losses)

    sum(criterion(outputs, targets, observe).values()).backward()
    slopes = torch.cat([level.grad.abs().sum(dim=2) for level in outputs.logits], dim=1)
    return look.values(), (seen["labels"], seen["losses"], slopes), look


@pytest.mark.parametrize("selection", [None, RandomNegatives(ratio=3.0, minimum=4)])
@pytest.mark.parametrize(("alpha", "gamma"), [(None, 0.0), (0.25, 2.0)])
def test_shares_are_those_of_a_plain_count(selection, alpha, gamma):
    torch.manual_seed(0)
    criterion = DetectionCriterion(alpha=alpha, gamma=gamma, selection=selection)
    values, (labels, losses, slopes), _ = looked(criterion, random_outputs(1))
    rows = sorted(
        zip(losses.flatten().tolist(), labels.flatten().tolist(), slopes.flatten().tolist(), strict=True)
    )
    total, total_slope = sum(row[0] for row in rows), sum(row[2] for row in rows)
    positives = [row for row in rows if row[1] >= 0]
    assert values["positive_loss"] == pytest.approx(sum(row[0] for row in positives) / total, abs=1e-5)
    assert values["positive_gradient"] == pytest.approx(
        sum(row[2] for row in positives) / total_slope, abs=1e-5
    )
    counting = [row for row in rows if row[0] > 0]
    for share, name in ((0.01, "hardest_1"), (0.1, "hardest_10")):
        hardest = counting[-max(1, round(share * len(counting))) :]
        assert values[f"{name}_loss"] == pytest.approx(sum(row[0] for row in hardest) / total, abs=1e-5)
        assert values[f"{name}_gradient"] == pytest.approx(
            sum(row[2] for row in hardest) / total_slope, abs=1e-5
        )


def test_scores_are_those_of_a_plain_count():
    outputs = random_outputs(2)
    values, (labels, _, _), _ = looked(DetectionCriterion(background_iou=0.2), outputs)
    scores = torch.cat(list(outputs.logits), dim=1).detach().sigmoid()
    places = [(n, a) for n in range(3) for a in range(labels.shape[1])]
    foreground = [float(scores[n, a, labels[n, a]]) for n, a in places if labels[n, a] >= 0]
    background = [float(scores[n, a].max()) for n, a in places if labels[n, a] == BACKGROUND]
    assert (labels == IGNORE).any()
    assert values["foreground_score"] == pytest.approx(sum(foreground) / len(foreground), abs=1e-5)
    assert values["background_score"] == pytest.approx(sum(background) / len(background), abs=1e-5)
    assert values["highest_score"] == pytest.approx(float(scores.max()), abs=1e-5)


@pytest.mark.parametrize(("threshold", "silent"), [(0.05, 0.0), (0.6, 0.5), (0.95, 1.0)])
def test_silent_are_images_with_objects_in_which_nothing_is_detected(threshold, silent):
    outputs = random_outputs(3, shift=-9.0)
    with torch.no_grad():
        outputs.logits[0][0, 0, 1], outputs.logits[1][1, 3, 2] = 2.0, 0.0  # scores of .88 and .5
    values, _, _ = looked(DetectionCriterion(), outputs, score_threshold=threshold)
    assert values["silent_images"] == silent


def test_objects_that_no_anchor_overlaps_enough():
    # Of the three boxes one lies on an anchor, one is an eighth of the smallest anchor, one overlaps one by .88.
    targets = [
        target([[8, 8, 24, 24], [40, 40, 44, 48]], [1, 0]),
        target([[1, 0, 17, 16]], [2]),
        target([], []),
    ]
    values, _, _ = looked(DetectionCriterion(), random_outputs(4), targets)
    assert values["unmatched_objects"] == pytest.approx(1 / 3, abs=1e-6)
    values, _, _ = looked(DetectionCriterion(), random_outputs(4), targets, foreground_iou=0.95)
    assert values["unmatched_objects"] == pytest.approx(2 / 3, abs=1e-6)


def test_without_objects_there_is_little_to_see():
    values, _, look = looked(DetectionCriterion(), random_outputs(5), [target([], [])] * 3)
    nothing = {name for name, value in values.items() if value is None}
    assert nothing == {"foreground_score", "silent_images", "unmatched_objects"}
    assert (values["positive_loss"], values["positive_gradient"]) == (0, 0)
    assert look.seconds > 0


def test_without_a_backward_pass_there_is_no_gradient_to_see():
    look = StepLook()
    with torch.no_grad():
        DetectionCriterion()(random_outputs(6), TARGETS, look)
    assert not any(name.endswith("gradient") for name in look.values())


def test_looking_changes_no_gradient():
    plain, watched = random_outputs(7), random_outputs(7)
    sum(DetectionCriterion()(plain, TARGETS).values()).backward()
    values, _, _ = looked(DetectionCriterion(), watched)
    for left, right in zip(plain.logits, watched.logits, strict=True):
        assert torch.equal(left.grad, right.grad)
    assert all(value is None or math.isfinite(value) for value in values.values())
