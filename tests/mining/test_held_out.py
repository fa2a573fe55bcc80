"""Images of validation and test are found among those to be mined, under any name and in any size."""

import shutil

import cv2
import numpy as np
import pytest

from detkit.errors import DataError
from detkit.mining.held_out import refuse_held_out


@pytest.fixture
def pictures(tmp_path, write_picture):
    """Six pictures to mine and four to validate with, all different."""
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for number, file in enumerate(files):
        write_picture(file, number, (160, 240))
    names = [str(file) for file in files]
    return names[:6], names[6:]


def test_different_pictures_are_fine(pictures):
    refuse_held_out(*pictures, near_duplicates=True)
    refuse_held_out(*pictures, near_duplicates=False)


def test_with_no_picture_to_compare_with(pictures):
    refuse_held_out(pictures[0], [], near_duplicates=True)


@pytest.mark.parametrize("near", [True, False])
def test_the_same_file_under_another_name(pictures, near, tmp_path):
    mined, held_out = pictures
    copy = shutil.copy(held_out[2], tmp_path / "renamed.png")
    with pytest.raises(DataError) as error:
        refuse_held_out([*mined, str(copy)], held_out, near_duplicates=near)
    assert f"{copy} is the very same file as {held_out[2]}" in str(error.value)
    assert "1 image(s)" in str(error.value)


@pytest.mark.parametrize("scale", [1, 0.5, 2])
def test_a_recompressed_or_resized_copy_counts_in_a_pool_alone(pictures, scale, tmp_path):
    mined, held_out = pictures
    copy = str(tmp_path / "copy.jpg")
    image = cv2.resize(cv2.imread(held_out[0]), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(copy, image, (cv2.IMWRITE_JPEG_QUALITY, 80))
    with pytest.raises(DataError, match="looks like") as error:
        refuse_held_out([copy, *mined], held_out, near_duplicates=True)
    assert copy in str(error.value)
    assert held_out[0] in str(error.value)
    refuse_held_out([copy, *mined], held_out, near_duplicates=False)


def test_two_skies_are_not_one(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("one", 150), ("two", 190)):
        slope = np.linspace(level, level + 20, 120)[:, None, None]
        sky = np.clip(slope + rng.normal(0, 1, (120, 160, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.GaussianBlur(sky, (0, 0), 3))
    refuse_held_out([str(tmp_path / "one.png")], [str(tmp_path / "two.png")], near_duplicates=True)


def test_many_are_counted(pictures):
    mined, _ = pictures
    with pytest.raises(DataError, match=r"6 image\(s\)") as error:
        refuse_held_out(mined, mined, near_duplicates=True)
    assert "and 3 more" in str(error.value)


def test_a_file_that_is_not_there_is_named(pictures):
    mined, held_out = pictures
    with pytest.raises(DataError, match=r"absent\.png: cannot be read"):
        refuse_held_out(mined, [*held_out, "absent.png"], near_duplicates=True)


def test_real_sets_are_disjoint(shared_folder):
    photos = sorted(str(path) for path in (shared_folder / "data/photos-background/images").iterdir())
    cells = sorted(str(path) for path in (shared_folder / "data/bloodcells/images").iterdir())
    drones = sorted(str(path) for path in (shared_folder / "data/drone-visible/images").iterdir())
    refuse_held_out(photos, cells[:100] + drones[:200], near_duplicates=True)
