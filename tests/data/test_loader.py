"""The order of batches, their canvas, and that neither workers nor a restart change anything."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detkit.data.coco import CocoAnnotations
from detkit.data.dataset import DetectionDataset, ImageFolderDataset, Sample, SampleKey
from detkit.data.loader import BatchOrder, collate, evaluation_loader, training_loader
from detkit.data.transforms import EvaluationTransform, TrainingTransform
from detkit.errors import ConfigError, DataError

SIZE = 11
AUGMENT = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "RandomBrightnessContrast", "p": 0.5},
    {"name": "RandomCrop", "height": 40, "width": 44, "p": 0.5},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(SIZE):
        image = generator.integers(0, 256, (48 + index, 64 + 2 * index, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def dataset_in(folder, *, broken: int | None = None, augment=AUGMENT) -> DetectionDataset:
    """One box in every image but those whose number divides by 3; image ``broken`` has no file."""
    counts = np.array([index % 3 > 0 for index in range(SIZE)], int)
    names = ["missing.png" if index == broken else f"{index}.png" for index in range(SIZE)]
    annotations = CocoAnnotations(
        image_ids=np.arange(SIZE) + 100,
        sizes=np.array([(48 + index, 64 + 2 * index) for index in range(SIZE)], np.int32),
        file_names=np.array(names),
        offsets=np.concatenate([[0], counts.cumsum()]),
        boxes=np.array([[index, 5, 40, 36] for index in range(counts.sum())], np.float32).reshape(-1, 4),
        labels=np.arange(counts.sum(), dtype=np.int32),
        crowd=np.zeros(counts.sum(), bool),
        annotation_ids=np.arange(counts.sum()) + 1,
        class_names=tuple("abcdefghijk"),
        category_ids=tuple(range(1, 12)),
    )
    return DetectionDataset(annotations, folder, TrainingTransform([40, 48], 1000, augment), seed=3)


def flattened(batches) -> list:
    """All that batches hold, as bytes and numbers that can be compared exactly."""
    return [
        (
            images.pixels.shape,
            images.pixels.numpy().tobytes(),
            images.sizes,
            images.original_sizes,
            images.image_ids,
            images.file_names,
            [{key: value.numpy().tobytes() for key, value in target.items()} for target in targets],
        )
        for images, targets in batches
    ]


def keys(order: BatchOrder, first: int, last: int, **keywords) -> list[list[SampleKey]]:
    return list(order.between(first, last, **keywords))


ORDERS = st.fixed_dictionaries(
    {"size": st.integers(1, 60), "batch_size": st.integers(1, 12), "seed": st.integers(0, 5)}
)


@settings(deadline=None)
@given(ORDERS)
def test_an_epoch_holds_every_image_once_but_the_left_over(chosen):
    order = BatchOrder(**chosen)
    size, batch_size = chosen["size"], chosen["batch_size"]
    for epoch in range(3):
        first = epoch * order.steps_per_epoch
        batches = keys(order, first, first + order.steps_per_epoch)
        assert all(key.epoch == epoch for batch in batches for key in batch)
        counts = Counter(key.image for batch in batches for key in batch)
        assert set(counts) <= set(range(size))
        assert set(counts.values()) == {1}
        if size < batch_size:
            assert (len(batches), len(counts)) == (1, size)
        else:
            assert {len(batch) for batch in batches} == {batch_size}
            assert size - len(counts) == size % batch_size


@settings(deadline=None)
@given(ORDERS, st.integers(0, 40), st.integers(0, 40))
def test_a_resumed_order_goes_on_where_it_was(chosen, first, more):
    order = BatchOrder(**chosen)
    assert keys(order, first, first + more) == keys(order, 0, first + more)[first:]
    assert len(order.between(first, first + more)) == more


@settings(deadline=None)
@given(ORDERS, st.integers(1, 4), st.integers(1, 3))
def test_ranks_and_parts_divide_the_global_batch(chosen, world_size, parts):
    size, batch_size, seed = chosen["size"], chosen["batch_size"], chosen["seed"]
    assume(size >= world_size * parts)
    batch_size *= parts
    whole = keys(BatchOrder(size, batch_size * world_size, seed=seed), 0, 7)
    ranks = [
        keys(BatchOrder(size, batch_size, seed=seed, rank=rank, world_size=world_size), 0, 7, parts=parts)
        for rank in range(world_size)
    ]
    assert {len(rank) for rank in ranks} == {7 * parts}
    assert all(batch for rank in ranks for batch in rank)
    for step, expected in enumerate(whole):
        dealt = [key for rank in ranks for part in range(parts) for key in rank[step * parts + part]]
        assert sorted(dealt) == sorted(expected)


def test_epochs_and_seeds_differ():
    orders = [BatchOrder(40, 40, seed=seed) for seed in range(3)]
    epochs = {tuple(key.image for key in batch) for order in orders for batch in keys(order, 0, 4)}
    assert len(epochs) == 12


def test_shuffling_is_fair():
    """Each of 6 images comes first about equally often over 600 epochs."""
    order = BatchOrder(6, 6, seed=0)
    counts = Counter(batch[0].image for batch in order.between(0, 600))
    assert min(counts.values()) > 65
    assert len(counts) == 6


def test_unshuffled_order():
    order = BatchOrder(5, 2, seed=0, shuffle=False)
    assert [[key.image for key in batch] for batch in order.between(0, 3)] == [[0, 1], [2, 3], [0, 1]]


def test_fewer_images_than_processes():
    with pytest.raises(DataError, match=r"has 3 image\(s\), and every step needs 4.*add images"):
        BatchOrder(3, 2, seed=0, world_size=4)


def test_fewer_images_than_accumulated_batches():
    with pytest.raises(DataError, match=r"has 3 image\(s\), and every step needs 4"):
        BatchOrder(3, 8, seed=0).between(0, 1, parts=4)


def test_no_images():
    with pytest.raises(DataError, match=r"has 0 image\(s\)"):
        BatchOrder(0, 2, seed=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(folder, workers):
    dataset, order = dataset_in(folder), BatchOrder(SIZE, 3, seed=1).between(0, 8)
    alone = training_loader(dataset, order, workers=0, stride=16)
    helped = training_loader(dataset, order, workers=workers, stride=16)
    assert len(alone) == len(helped) == 8
    assert flattened(alone) == flattened(helped)


def test_a_resumed_run_sees_what_it_would_have_seen(folder):
    order = BatchOrder(SIZE, 3, seed=1)
    whole = flattened(training_loader(dataset_in(folder), order.between(0, 8), workers=0, stride=16))
    rest = flattened(training_loader(dataset_in(folder), order.between(4, 8), workers=2, stride=16))
    assert rest == whole[4:]


def test_an_image_looks_different_in_every_epoch(folder):
    dataset, order = dataset_in(folder), BatchOrder(SIZE, SIZE, seed=1)
    seen = set()
    for images, _ in training_loader(dataset, order.between(0, 6), workers=0, stride=1):
        place = images.image_ids.index(105)
        height, width = images.sizes[place]
        seen.add(images.pixels[place, :, :height, :width].numpy().tobytes())
    assert len(seen) >= 4


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_left_alone(folder, workers):
    def state():
        return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()

    before = state()
    order = BatchOrder(SIZE, 3, seed=1).between(0, 4)
    assert len(list(training_loader(dataset_in(folder), order, workers=workers, stride=8))) == 4
    assert state() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_arrive_as_they_were(folder, workers):
    order = BatchOrder(SIZE, 4, seed=1, shuffle=False).between(0, 2)
    batches = iter(training_loader(dataset_in(folder, broken=5), order, workers=workers, stride=8))
    next(batches)
    with pytest.raises(DataError, match=r"missing\.png") as caught:
        next(batches)
    assert "Traceback" not in str(caught.value)
    assert "worker" not in str(caught.value)


def test_config_errors_of_workers_arrive_too(folder):
    dataset = dataset_in(folder, augment=[{"name": "Crop", "x_max": 4000, "y_max": 40, "p": 1.0}])
    order = BatchOrder(SIZE, 4, seed=1).between(0, 2)
    with pytest.raises(ConfigError, match=r"data\.augment: failed"):
        next(iter(training_loader(dataset, order, workers=1, stride=8)))


def test_workers_are_out_of_reach_of_a_terminals_signals(folder):
    """Ctrl-C goes to a whole process group; the main process may want to finish its step and save."""
    before = set(multiprocessing.active_children())
    order = BatchOrder(SIZE, 3, seed=1).between(0, 12)
    batches = iter(training_loader(dataset_in(folder), order, workers=1, stride=16))
    collected = [next(batches)]
    (worker,) = set(multiprocessing.active_children()) - before
    assert os.getpgid(worker.pid) != os.getpgid(0)
    collected.extend(batches)
    expected = training_loader(dataset_in(folder), order, workers=0, stride=16)
    assert flattened(collected) == flattened(expected)


STUCK = """
import multiprocessing, os, signal, sys, time
import torch
from torch.utils.data import Dataset
from detkit.data.dataset import Sample
from detkit.data.loader import BatchOrder, training_loader

class Endless(Dataset):
    def __getitem__(self, key):
        if sys.argv[1] == "stuck" and key.image >= 8:
            time.sleep(1000)
        boxes = torch.zeros(int(sys.argv[2]), 4)
        target = {"boxes": boxes, "labels": boxes[:, 0].long()}
        return Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), target, key.image, "x", (8, 8))

order = BatchOrder(1000, 4, seed=0, shuffle=False).between(0, 250)
batches = iter(training_loader(Endless(), order, workers=2, stride=8))
next(batches)
print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
time.sleep(0.5)
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
raise RuntimeError("not caught")
"""


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="workers obey any SIGTERM here")
def test_workers_survive_signals_from_outside(folder):
    """systemd and Slurm send SIGTERM to every process of a job."""
    before = set(multiprocessing.active_children())
    order = BatchOrder(SIZE, 3, seed=1).between(0, 12)
    batches = iter(training_loader(dataset_in(folder), order, workers=1, stride=16))
    collected = [next(batches)]
    (worker,) = set(multiprocessing.active_children()) - before
    subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}; kill -INT {worker.pid}"], check=True)
    os.kill(worker.pid, signal.SIGINT)
    time.sleep(0.3)
    assert worker.is_alive()
    collected.extend(batches)
    expected = training_loader(dataset_in(folder), order, workers=0, stride=16)
    assert flattened(collected) == flattened(expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize(
    ("work", "boxes", "end"),  # 3000 boxes fill the pipe to the main process
    [("stuck", 1, "raised"), ("busy", 3000, "raised"), ("busy", 3000, "killed")],
)
def test_workers_end_with_an_abandoned_loader(tmp_path, work, boxes, end):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STUCK, work, str(boxes), end]
    with (tmp_path / "out").open("w") as stream:  # a pipe would be held open by a worker that goes on
        done = subprocess.run(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, timeout=60, check=False
        )
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 1)
    workers = [int(pid) for pid in (tmp_path / "out").read_text().splitlines()[0].split()]
    assert len(workers) == 2
    limit = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < limit:
        time.sleep(0.1)
    left = [pid for pid in workers if is_running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_the_canvas(folder):
    def sample(height: int, width: int, image_id: int) -> Sample:
        image = torch.full((3, height, width), image_id, dtype=torch.uint8)
        target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return Sample(image, target, image_id, f"{image_id}.png", (2 * height, 2 * width))

    batch, targets = collate([sample(30, 65, 1), sample(40, 20, 2)], stride=32)
    assert tuple(batch.pixels.shape) == (2, 3, 64, 96)
    assert batch.pixels.dtype == torch.uint8
    assert batch.sizes == ((30, 65), (40, 20))
    assert batch.original_sizes == ((60, 130), (80, 40))
    assert batch.image_ids == (1, 2)
    assert batch.file_names == ("1.png", "2.png")
    assert (batch.pixels[0, :, :30, :65] == 1).all()
    assert (batch.pixels[1, :, :40, :20] == 2).all()
    assert batch.pixels[0].sum() == 3 * 30 * 65
    assert batch.pixels[1].sum() == 2 * 3 * 40 * 20
    assert len(targets) == 2
    exact, _ = collate([sample(64, 32, 3)], stride=32)
    assert tuple(exact.pixels.shape) == (1, 3, 64, 32)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_keeps_every_image_in_order(folder, workers):
    dataset = dataset_in(folder)
    dataset.transform = EvaluationTransform([24, 48], 1000)
    loader = evaluation_loader(dataset, batch_size=4, workers=workers, stride=16)
    batches = list(loader)
    assert len(loader) == 3
    assert [len(images) for images, _ in batches] == [4, 4, 3]
    assert [key for images, _ in batches for key in images.image_ids] == list(range(100, 100 + SIZE))
    assert [tuple(size) for images, _ in batches for size in images.original_sizes] == [
        (48 + index, 64 + 2 * index) for index in range(SIZE)
    ]
    assert all(images.pixels.shape[2] == 48 for images, _ in batches)
    assert flattened(loader) == flattened(batches)


def test_prediction_on_plain_files(folder):
    paths = [folder / f"{index}.png" for index in (4, 2, 9)]
    loader = evaluation_loader(
        ImageFolderDataset(paths, EvaluationTransform(48, 1000)), batch_size=2, workers=0, stride=16
    )
    batches = list(loader)
    assert [name for images, _ in batches for name in images.file_names] == [str(path) for path in paths]
    assert [len(targets) for _, targets in batches] == [2, 1]


def test_targets_hold_no_file_descriptors(folder):
    """Whoever keeps the targets of a whole set must not run out of open files."""
    targets = []
    for _, more in evaluation_loader(dataset_in(folder), batch_size=2, workers=1, stride=16):
        targets.extend(more)
    assert len(targets) == SIZE
    assert not any(value.is_shared() for target in targets for value in target.values())
