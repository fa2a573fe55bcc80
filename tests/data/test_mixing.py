"""Batches of images and background: how many of each, from which set, the same after a resume."""

from collections import Counter

import pytest

from detkit.data.dataset import SampleKey
from detkit.data.loader import BatchOrder
from detkit.data.mixing import JoinedDataset, MixedOrder, Stream


class Named:
    """A set whose samples say where they come from."""

    def __init__(self, name, size):
        self.name, self.size = name, size

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        return self.name, key


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_stream_has_the_same_number_in_every_step_and_each_item_equally_often(size):
    stream = Stream(size, per_step=4, seed=3)
    keys = [key for step in range(5 * size) for key in stream.of(step)]
    assert [len(stream.of(step)) for step in range(5 * size)] == [4] * (5 * size)
    assert Counter(key.image for key in keys) == dict.fromkeys(range(size), 20)
    assert len(set(keys)) == len(keys), (
        "an item never comes twice in the same epoch, or with the same augmentation"
    )


def test_a_stream_follows_its_seed_and_shuffles_every_time():
    first = [key.image for step in range(4) for key in Stream(8, 4, seed=3).of(step)]
    assert first == [key.image for step in range(4) for key in Stream(8, 4, seed=3).of(step)]
    assert first != [key.image for step in range(4) for key in Stream(8, 4, seed=4).of(step)]
    assert first[:8] != first[8:]


def test_what_gives_way_to_something_else_leaves_the_others_what_they_were():
    whole, some = Stream(8, 4, seed=3), Stream(8, 4, seed=3, left_out=3)
    for step in range(5):
        assert some.of(step) == whole.of(step)[:1]


def test_a_joined_set_finds_every_item():
    joined = JoinedDataset([Named("images", 3), Named("none", 0), Named("canvases", 2)])
    assert len(joined) == 5
    found = [joined[SampleKey(7, index)] for index in range(5)]
    assert [name for name, _ in found] == ["images"] * 3 + ["canvases"] * 2
    assert [key.image for _, key in found] == [0, 1, 2, 0, 1]
    assert {key.epoch for _, key in found} == {7}
    with pytest.raises(IndexError):
        joined[SampleKey(0, 5)]
    with pytest.raises(IndexError):
        joined[SampleKey(0, -1)]


def mixed(first=0, last=6, parts=1):
    order = BatchOrder(12, 4, seed=1)
    background = [(12, Stream(5, 2, seed=2)), (17, Stream(3, 1, seed=3))]
    return MixedOrder(order.between(first, last, parts=parts), background, first=first, parts=parts)


def test_every_batch_has_its_images_and_its_background():
    batches = list(mixed())
    assert len(batches) == len(mixed()) == 6
    for batch in batches:
        assert [sum(low <= key.image < high for key in batch) for low, high in ((0, 12), (12, 17), (17, 20))] == [
            4, 2, 1,
        ]  # fmt: skip


def test_a_resumed_run_sees_the_same_batches():
    assert list(mixed(first=4)) == list(mixed())[4:]


def test_the_background_of_a_step_is_divided_among_its_batches():
    whole, halves = list(mixed()), list(mixed(parts=2))
    assert len(halves) == 12
    for step, batch in enumerate(whole):
        assert sorted(halves[2 * step] + halves[2 * step + 1]) == sorted(batch)
        assert {sum(key.image >= 12 for key in half) for half in halves[2 * step : 2 * step + 2]} == {1, 2}
