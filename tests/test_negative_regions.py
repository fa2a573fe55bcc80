"""The memory of places in training images: what joins, what makes room, what a checkpoint keeps."""

import pytest
import torch

from detkit.negative_regions import NegativeRegions, on_canvas, on_original

BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 70]])


def with_scores(capacity=None, *, scores=((7, (0.9, 0.8, 0.3)), (8, (0.6, 0.7, 0.2)))):
    regions = NegativeRegions(capacity)
    for image_id, values in scores:
        regions.begin(image_id, torch.zeros(0, 4))
        regions.note(image_id, BOXES, torch.tensor(values))
    return regions


def scores_of(regions):
    return {image_id: regions.of(image_id).scores.tolist() for image_id in (7, 8)}


def test_what_was_noted_joins_at_the_end_of_the_round_and_of_overlapping_ones_the_harder():
    regions = with_scores()
    assert (len(regions), regions.noted) == (0, 6)
    assert regions.end_round() == 4
    assert (len(regions), regions.noted) == (4, 0)
    assert scores_of(regions) == {7: pytest.approx([0.9, 0.3]), 8: pytest.approx([0.7, 0.2])}
    assert regions.of(8).boxes.tolist() == BOXES[[1, 2]].tolist()
    assert regions.of(8).rounds.tolist() == [1, 1]


def test_the_easiest_make_room_only_where_there_is_none():
    roomy = with_scores(4)
    roomy.end_round()
    assert len(roomy) == 4
    full = with_scores(3)
    assert full.end_round() == 3
    assert scores_of(full) == {7: pytest.approx([0.9, 0.3]), 8: pytest.approx([0.7])}


@pytest.mark.parametrize("capacity", [None, 2])
def test_what_became_easy_stays_and_so_does_what_was_drawn_by_chance(capacity):
    regions = NegativeRegions(capacity)
    regions.begin(7, BOXES[:1])
    regions.note(7, BOXES[2:], torch.tensor([0.9]))
    regions.end_round()
    regions.of(7).scores[:] = 0.001
    regions.end_round()
    assert regions.of(7).boxes.tolist() == BOXES[[0, 2]].tolist()
    assert regions.of(7).rounds.tolist() == [0, 1]


def test_of_equally_easy_ones_the_latest_go():
    regions = with_scores(2, scores=((7, (0.5, 0.1, 0.5)), (8, (0.5, 0.1, 0.5))))
    regions.end_round()
    assert (len(regions.of(7)), len(regions.of(8))) == (2, 0)


def test_nothing_noted_is_a_round_too():
    regions = NegativeRegions(5)
    assert regions.end_round() == 0
    assert regions.joined == 1


def test_a_checkpoint_keeps_everything(tmp_path):
    regions = with_scores(3)
    regions.end_round()
    regions.note(9, BOXES, torch.tensor([0.1, 0.2, 0.3]))
    torch.save(regions.state_dict(), tmp_path / "state.pt")
    other = NegativeRegions(3)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (other.joined, len(other), other.noted) == (1, 3, 3)
    assert other.knows(7)
    assert not other.knows(9)
    assert other.end_round() == regions.end_round()
    assert scores_of(other) == scores_of(regions)
    assert other.of(9).boxes.tolist() == regions.of(9).boxes.tolist()


def test_an_empty_memory_can_be_kept():
    regions = NegativeRegions()
    regions.load_state_dict(NegativeRegions().state_dict())
    assert len(regions) == 0


@pytest.mark.parametrize(
    "affine",
    [
        [[1.0, 0, 0], [0, 1, 0]],
        [[-0.5, 0, 120], [0, 0.5, -8]],
        [[0.0, -2, 90], [2, 0, 5]],
    ],
    ids=["as it is", "mirrored, smaller and cropped", "turned"],
)
def test_to_the_canvas_and_back(affine):
    to_canvas = torch.tensor(affine, dtype=torch.float64)
    torch.testing.assert_close(on_original(on_canvas(BOXES, to_canvas), to_canvas), BOXES)


def test_a_mirrored_box():
    mirrored = torch.tensor([[-1.0, 0, 100], [0, 1, 0]], dtype=torch.float64)
    assert on_canvas(BOXES[:1], mirrored).tolist() == [[90, 0, 100, 10]]
