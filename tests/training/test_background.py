"""Images without objects in every batch: how many, the same after a resume, never those of validation."""

import json
import shutil
from itertools import islice

import pytest
import torch

from detkit.builders import build_run
from detkit.config import load_config
from detkit.errors import ConfigError, DataError


@pytest.fixture
def folder(coco_with_background):
    return coco_with_background


def run_with(tiny_config, folder, *overrides, share=0.25, images="background"):
    background = f"data.background={{images: {images}, state: verified-empty, share: {share}}}"
    return build_run(
        load_config(
            tiny_config, ["data.workers=0", "data.augment=[]", f"data.root={folder}", background, *overrides]
        )
    )


def names(batch):
    return [name.split("/")[-1] for name in batch[0].file_names]


def test_every_batch_has_its_share_and_an_epoch_more_steps(tiny_config, folder):
    run = run_with(tiny_config, folder, share=0.5)
    assert run.plan.steps_per_epoch == 22 // 2
    batches = list(islice(run.batches_from(0), 5))
    for images, targets in batches:
        assert len(images) == 4
        assert ["background" in name for name in images.file_names] == [False, False, True, True]
        assert [len(target["boxes"]) for target in targets[2:]] == [0, 0]
    seen = [name for batch in batches for name in names(batch)[2:]]
    assert sorted(seen) == sorted(f"{number}.png" for number in range(5) for _ in range(2))


def test_a_small_share_is_one_image_and_accumulated_batches_divide_it(tiny_config, folder):
    run = run_with(tiny_config, folder, "training.batch_size=2", "training.accumulate=3", share=0.01)
    sizes = [len(images) for images, _ in islice(run.batches_from(0), 6)]
    assert sizes == [2] * 6


def test_a_resumed_run_sees_the_same_background(tiny_config, folder):
    run = run_with(tiny_config, folder)
    whole = [names(batch) for batch in islice(run.batches_from(0), 6)]
    assert [names(batch) for batch in islice(run.batches_from(4), 2)] == whole[4:]


def test_it_trains(tiny_config, folder):
    run = run_with(tiny_config, folder, "training.steps=4")
    position = run.fit()
    assert position.finished
    assert position.compute == 3 * 4 * 4 * 64 * 64


def test_augmentation_differs_from_time_to_time(tiny_config, folder):
    run = run_with(tiny_config, folder, "data.augment=[{name: RandomBrightnessContrast, p: 1.0}]", share=0.25)
    of_one = [
        images.pixels[index]
        for images, _ in islice(run.batches_from(0), 15)
        for index, name in enumerate(images.file_names)
        if name.endswith("background/2.png")
    ]
    assert len(of_one) == 3
    assert not torch.equal(of_one[0], of_one[1])


def test_a_picture_of_validation_is_refused(tiny_config, folder, tmp_path):
    tree = json.loads((folder / "val.json").read_text())
    other = tmp_path / "data"
    shutil.copytree(folder, other)
    shutil.copy(other / "images" / tree["images"][0]["file_name"], other / "background" / "mine.png")
    with pytest.raises(DataError, match=r"mine\.png is the very same file as"):
        run_with(tiny_config, other)


@pytest.mark.parametrize(
    ("share", "images", "message"),
    [
        (0.99, "background", "leaves 0 of train"),
        (0.25, "nowhere", "nowhere: there is no such file or folder"),
    ],
)
def test_impossible_backgrounds(tiny_config, folder, share, images, message):
    with pytest.raises(ConfigError, match=message):
        run_with(tiny_config, folder, share=share, images=images)


def test_an_empty_folder_is_refused(tiny_config, folder):
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(DataError):
        run_with(tiny_config, folder, images="empty")
