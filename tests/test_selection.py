"""Every selection lets exactly the anchors count that it says."""

from dataclasses import replace

import pytest
import torch

from detkit.labels import BACKGROUND, IGNORE
from detkit.models import box_coder
from detkit.negative_regions import NegativeRegions
from detkit.selection import (
    Candidates,
    HardExamples,
    HardNegatives,
    MinedNegatives,
    RandomNegatives,
)
from detkit.structures import DenseOutputs

ANCHORS = 40
SIZE = [10.0, 800.0]
"""(height, width) of the image that the anchors lie in."""


def candidates(labels, losses, *, anchors=None, targets=(), boxes=None):
    """A batch whose anchors lie apart from each other, and whose decoded boxes are its anchors but where given."""
    if anchors is None:
        left = torch.arange(labels.shape[1]) * 20.0
        anchors = torch.stack([left, torch.zeros_like(left), left + 10, torch.full_like(left, 10)], dim=1)
    deltas = torch.zeros(*labels.shape, 4) if boxes is None else box_coder.encode(boxes, anchors)
    outputs = DenseOutputs(
        logits=(), deltas=[deltas[:, :7], deltas[:, 7:]], anchors=[anchors[:7], anchors[7:]]
    )
    return Candidates(labels=labels, anchors=anchors, outputs=outputs, targets=targets, loss=lambda: losses)


def batch(positives=3, ignored=5, images=2, seed=0):
    """Labels with positives and IGNORE in the first image alone, and losses that are all different."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((images, ANCHORS), BACKGROUND, dtype=torch.int32)
    labels[0, :positives] = 1
    labels[0, positives : positives + ignored] = IGNORE
    losses = torch.rand(images, ANCHORS, generator=generator) + 0.01
    return labels, losses.masked_fill(labels == IGNORE, 0)


@pytest.mark.parametrize(
    "selection", [RandomNegatives(ratio=4, minimum=2), HardNegatives(ratio=4, minimum=2)]
)
def test_every_positive_and_a_quota_of_negatives(selection):
    labels, losses = batch()
    weights = selection(candidates(labels, losses))
    assert weights[labels >= 0].tolist() == [1.0] * 3
    assert weights[labels == IGNORE].sum() == 0
    assert weights[labels == BACKGROUND].sum() == 12
    assert set(weights.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "selection", [RandomNegatives(ratio=4, minimum=6), HardNegatives(ratio=4, minimum=6)]
)
def test_a_batch_without_objects_has_the_minimum(selection):
    weights = selection(candidates(*batch(positives=0)))
    assert weights.sum() == 6


@pytest.mark.parametrize(
    "selection", [RandomNegatives(ratio=999, minimum=6), HardNegatives(ratio=999, minimum=6)]
)
def test_a_quota_beyond_what_is_there_takes_all(selection):
    labels, losses = batch()
    assert torch.equal(selection(candidates(labels, losses)), (labels != IGNORE).float())


def test_the_quota_belongs_to_the_batch():
    """Trap 3: an image without objects is not left out."""
    labels, losses = batch()
    losses[1] += 1
    weights = HardNegatives(ratio=4, minimum=1)(candidates(labels, losses))
    assert weights[1].sum() == 12
    assert weights[0][labels[0] == BACKGROUND].sum() == 0


def test_hard_negatives_are_those_with_the_highest_loss():
    labels, losses = batch()
    weights = HardNegatives(ratio=2, minimum=0)(candidates(labels, losses))
    negatives = labels == BACKGROUND
    chosen = negatives & (weights > 0)
    assert losses[chosen].min() > losses[negatives & (weights == 0)].max()


def test_random_negatives_follow_their_generator_and_no_loss():
    labels, losses = batch()
    first, again, other = (
        RandomNegatives(1, 8, torch.Generator().manual_seed(seed))(candidates(labels, losses))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_negatives_are_drawn_evenly():
    labels, losses = batch()
    generator = torch.Generator().manual_seed(0)
    drawn = sum(RandomNegatives(1, 16, generator)(candidates(labels, losses)) for _ in range(400))
    negatives = labels == BACKGROUND
    expected = 400 * 16 / negatives.sum()
    assert drawn[negatives].min() > 0.6 * expected
    assert drawn[negatives].max() < 1.4 * expected


def test_hard_examples_are_the_hardest_of_each_image_positive_or_not():
    labels, losses = batch()
    weights = HardExamples(budget=5)(candidates(labels, losses))
    for image in range(2):
        assert set(weights[image].nonzero()[:, 0].tolist()) == set(losses[image].topk(5).indices.tolist())
    assert weights[labels == IGNORE].sum() == 0


def test_hard_examples_do_not_overlap():
    labels, losses = batch(positives=0, ignored=0, images=1)
    plain = candidates(labels, losses)
    boxes = plain.anchors.clone()
    hardest, second = losses[0].topk(2).indices.tolist()
    boxes[second] = boxes[hardest]
    weights = HardExamples(budget=3, nms_iou=0.5)(candidates(labels, losses, boxes=boxes[None]))
    third, fourth = losses[0].topk(4).indices.tolist()[2:]
    assert set(weights[0].nonzero()[:, 0].tolist()) == {hardest, third, fourth}


def test_hard_examples_look_at_the_shortlist_alone():
    labels, losses = batch()
    weights = HardExamples(budget=30, shortlist=4)(candidates(labels, losses))
    assert weights.sum(dim=1).tolist() == [4, 4]


def test_hard_examples_never_take_ignored_anchors_to_fill_their_budget():
    labels, losses = batch(positives=1, ignored=38, images=1)
    assert HardExamples(budget=20)(candidates(labels, losses)).sum() == 2


def mined_negatives(**changes):
    told = {"regions": NegativeRegions(), "initial": 0, "per_image": 4, "threshold": 0.3, "at_once": False}
    return MinedNegatives(**{**told, **changes})


def scored(labels, scores, to_canvas=None, other=None):
    """One batch whose only class has these scores; image 0 is tracked as image 7, image 1 is not."""
    target = {
        "image_id": torch.tensor(7),
        "to_canvas": torch.eye(3, dtype=torch.float64)[:2],
        "size": torch.tensor(SIZE),
        "original_size": torch.tensor(SIZE),
    }
    if to_canvas is not None:
        target["to_canvas"] = torch.tensor(to_canvas, dtype=torch.float64)
    batch = candidates(labels, torch.zeros(labels.shape), targets=[target, other or {}])
    levels = scores.logit()[:, :, None]
    outputs = replace(batch.outputs, logits=[levels[:, :7], levels[:, 7:]])
    return replace(batch, outputs=outputs)


def test_of_an_image_that_is_not_tracked_all_background_counts_and_of_others_what_was_mined():
    labels, _ = batch()
    selection = mined_negatives()
    selection.regions.begin(7, torch.tensor([[200.0, 0, 210, 10], [402, 1, 411, 9]]))
    weights = selection(scored(labels, torch.full(labels.shape, 0.1)))
    assert weights[1].tolist() == [1.0] * ANCHORS
    assert weights[0].nonzero()[:, 0].tolist() == [0, 1, 2, 10, 20]


def test_of_a_canvas_its_false_positives_count_and_what_fires_and_a_few_by_chance():
    labels, _ = batch()
    canvas = {"false_positives": torch.tensor([[200.0, 0, 210, 10], [402, 1, 411, 9]])}
    scores = torch.full(labels.shape, 0.1)
    scores[1, [30, 31]] = 0.5
    batched = scored(labels, scores, other=canvas)
    quiet = mined_negatives()
    assert quiet(batched)[1].nonzero()[:, 0].tolist() == [10, 20]
    assert mined_negatives(at_once=True)(batched)[1].nonzero()[:, 0].tolist() == [10, 20, 30, 31]
    drawn = mined_negatives(initial=5, generator=torch.Generator().manual_seed(0))
    rows = [set(drawn(batched)[1].nonzero()[:, 0].tolist()) for _ in range(4)]
    assert all({10, 20} <= some and len(some) in (5, 6, 7) for some in rows)
    assert len(set(map(frozenset, rows))) == 4, "other anchors at each step"
    quiet.regions.end_round()
    assert len(quiet.regions.of(7).boxes) == 0, "what fires on a canvas is no region of an image"


def test_an_image_begins_with_a_few_negatives_by_chance():
    labels, _ = batch()
    selection = mined_negatives(initial=6)
    first = selection(scored(labels, torch.full(labels.shape, 0.1)))
    assert first[0].sum() == 3 + 6
    assert first[0][labels[0] == IGNORE].sum() == 0
    again = selection(scored(labels, torch.full(labels.shape, 0.1)))
    assert torch.equal(first, again)


def test_what_fires_on_background_counts_from_the_next_round_on_wherever_the_image_lies():
    labels, _ = batch()
    scores = torch.full(labels.shape, 0.1)
    scores[0, [1, 4, 15, 25, 30]] = torch.tensor([0.99, 0.98, 0.5, 0.7, 0.2])
    selection = mined_negatives()
    weights = selection(scored(labels, scores))
    assert weights[0].nonzero()[:, 0].tolist() == [0, 1, 2], "nothing was mined yet"
    assert selection.regions.end_round() == 2, (
        "0.2 is below the threshold, and the rest is an object or ignored"
    )
    assert selection(scored(labels, scores * 0.01))[0].nonzero()[:, 0].tolist() == [0, 1, 2, 15, 25]
    # The image now lies 100 pixels further left: five anchors, for they are 20 apart.
    moved = scored(labels, scores * 0.01, to_canvas=[[1, 0, -100], [0, 1, 0]])
    assert selection(moved)[0].nonzero()[:, 0].tolist() == [0, 1, 2, 10, 20]


def test_at_once_what_fires_counts_in_its_own_step():
    labels, _ = batch()
    scores = torch.full(labels.shape, 0.1)
    scores[0, [15, 25]] = 0.5
    weights = mined_negatives(at_once=True)(scored(labels, scores))
    assert weights[0].nonzero()[:, 0].tolist() == [0, 1, 2, 15, 25]


def test_a_step_notes_the_hardest_of_an_image_and_none_twice():
    labels, _ = batch()
    scores = torch.linspace(0.35, 0.9, ANCHORS).expand(labels.shape).clone()
    selection = mined_negatives()
    selection(scored(labels, scores))
    selection.regions.end_round()
    boxes = selection.regions.of(7).boxes
    assert sorted((boxes[:, 0] / 20).tolist()) == [36, 37, 38, 39]
    selection(scored(labels, scores))
    selection.regions.end_round()
    assert sorted((selection.regions.of(7).boxes[:, 0] / 20).tolist()) == list(range(32, 40))


def test_regions_learn_how_hard_they_still_are():
    labels, _ = batch()
    scores = torch.full(labels.shape, 0.1)
    scores[0, 15] = 0.5
    selection = mined_negatives()
    selection(scored(labels, scores))
    selection.regions.end_round()
    scores[0, 15] = 0.05
    selection(scored(labels, scores))
    assert selection.regions.of(7).scores.tolist() == pytest.approx([0.05])


def with_target(batch, **changes):
    target = batch.targets[0] | {name: torch.tensor(value) for name, value in changes.items()}
    return replace(batch, targets=[target, {}])


def test_neither_padding_nor_what_augmentation_filled_is_noted():
    labels, _ = batch()
    scores = torch.full(labels.shape, 0.1)
    scores[0, [15, 35, 38]] = 0.5
    padded = with_target(scored(labels, scores), size=[10.0, 690.0])
    filled = with_target(scored(labels, scores), original_size=[10.0, 690.0])
    moved = scored(labels, scores, to_canvas=[[1, 0, 310], [0, 1, 0]])  # the image begins at anchor 16
    for seen, noted in ((padded, [15]), (filled, [15]), (moved, [35 - 15.5, 38 - 15.5])):
        selection = mined_negatives()
        selection(seen)
        selection.regions.end_round()
        assert sorted((selection.regions.of(7).boxes[:, 0] / 20).tolist()) == noted


def test_what_fires_in_padding_counts_while_it_does():
    """It is no place to remember, but a detector that never learns of padding fires there when it is used."""
    labels, _ = batch()
    scores = torch.full(labels.shape, 0.1)
    scores[0, [15, 35]] = 0.5
    selection = mined_negatives(at_once=True)
    weights = selection(with_target(scored(labels, scores), size=[10.0, 690.0]))
    assert weights[0].nonzero()[:, 0].tolist() == [0, 1, 2, 15, 35]
    selection.regions.end_round()
    calm = selection(with_target(scored(labels, scores * 0.01), size=[10.0, 690.0]))
    assert calm[0].nonzero()[:, 0].tolist() == [0, 1, 2, 15]


def test_a_large_anchor_at_the_border_is_remembered_though_most_of_it_shows_no_image():
    labels, _ = batch()
    batched = scored(labels, torch.full(labels.shape, 0.1).index_fill(1, torch.tensor([34]), 0.5))
    anchors = batched.anchors.clone()
    anchors[34] = torch.tensor([-90.0, -90, 100, 100])  # its centre is at (5, 5)
    selection = mined_negatives()
    selection(with_target(replace(batched, anchors=anchors), size=[10.0, 20.0], original_size=[10.0, 20.0]))
    selection.regions.end_round()
    assert selection.regions.of(7).boxes.tolist() == [[-90, -90, 100, 100]]


def test_an_image_does_not_begin_with_padding():
    labels, _ = batch()
    selection = mined_negatives(initial=ANCHORS)
    weights = selection(with_target(scored(labels, torch.full(labels.shape, 0.1)), size=[10.0, 400.0]))
    assert weights[0].nonzero()[:, 0].tolist() == [0, 1, 2, *range(8, 20)]


@pytest.mark.parametrize(("region", "width"), [([-14.0, 0, 6, 10], 800.0), ([779.0, 0, 795, 10], 780.0)])
def test_a_region_out_of_sight_counts_no_anchor_at_the_border_and_keeps_its_score(region, width):
    """Anchors reach past the canvas, and so might lie on what is out of sight on either side."""
    labels, _ = batch(positives=0, ignored=0)
    selection = mined_negatives(iou=0.1)
    selection.regions.begin(7, torch.tensor([region]))
    selection.regions.of(7).scores.fill_(0.9)
    scores = torch.full(labels.shape, 0.1)
    weights = selection(with_target(scored(labels, scores), size=[10.0, width]))
    assert weights[0].sum() == 0
    assert selection.regions.of(7).scores.tolist() == pytest.approx([0.9])


def test_losses_are_computed_once_and_without_gradient():
    calls = []
    logits = torch.zeros(2, ANCHORS, requires_grad=True)

    def loss():
        calls.append(1)
        return logits.sigmoid()

    labels, _ = batch()
    scored = Candidates(labels, torch.zeros(ANCHORS, 4), DenseOutputs((), (), ()), (), loss)
    assert not scored.losses.requires_grad
    assert scored.losses is scored.losses
    assert len(calls) == 1
