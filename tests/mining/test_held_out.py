"""Images of validation and test are found among those to be mined, under any name and in any size."""

import shutil

import cv2
import numpy as np
import pytest

from detkit.errors import DataError
from detkit.mining import held_out as module
from detkit.mining.held_out import refuse_held_out


def levels(scale, shift=0.0):
    """What gives a picture another contrast about mid-grey and another brightness."""
    return lambda image: np.clip((image - 128.0) * scale + 128 + shift, 0, 255).astype(np.uint8)


def cropped(left, top, right, bottom):
    """What takes shares off a picture's sides."""

    def crop(image):
        height, width = image.shape[:2]
        return image[
            round(top * height) : round((1 - bottom) * height),
            round(left * width) : round((1 - right) * width),
        ]

    return crop


def resized(scale):
    return lambda image: cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def several(*changes):
    def change(image):
        for one in changes:
            image = one(image)
        return image

    return change


mirrored = np.fliplr
COPIES = {
    "recompressed": np.asarray,
    "half the size": resized(0.5),
    "twice the size": resized(2),
    "4 levels brighter": levels(1, 4),
    "25 levels brighter": levels(1, 25),
    "25 levels darker": levels(1, -25),
    "more contrast": levels(1.1),
    "less contrast": levels(0.9),
    "2 % less at each side": cropped(0.02, 0.02, 0.02, 0.02),
    "3 % less at each side": cropped(0.03, 0.03, 0.03, 0.03),
    "3 % less at the left and the top": cropped(0.03, 0.03, 0, 0),
    "3 % less at the right alone": cropped(0, 0, 0.03, 0),
    "1 % less at the bottom": cropped(0, 0, 0, 0.01),
    "mirrored": mirrored,
    "mirrored and cropped": several(mirrored, cropped(0, 0.03, 0.03, 0)),
    "all at once": several(mirrored, cropped(0.03, 0.03, 0.01, 0), resized(0.7), levels(0.9, 12)),
}


def landscape(seed, horizon):
    """A bright sky that darkens upwards over a dark wood whose top and trees the seed makes."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.linspace(120, 200, 240)[:, None], 320, axis=1)
    tops = horizon + cv2.resize(rng.normal(0, 4, (1, 40)), (320, 1), interpolation=cv2.INTER_CUBIC)[0]
    trees = cv2.resize(rng.normal(50, 15, (30, 40)), (320, 240), interpolation=cv2.INTER_CUBIC)
    image = np.where(np.arange(240)[:, None] > tops, trees, image)
    return np.clip(image, 0, 255).astype(np.uint8)


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


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_a_changed_copy_counts_in_a_pool_alone(pictures, change, tmp_path):
    mined, held_out = pictures
    copy = str(tmp_path / "copy.jpg")
    cv2.imwrite(copy, change(cv2.imread(held_out[1])), (cv2.IMWRITE_JPEG_QUALITY, 60))
    with pytest.raises(DataError, match="looks like") as error:
        refuse_held_out([*mined, copy], held_out, near_duplicates=True)
    assert "1 image(s)" in str(error.value)
    assert f"{copy} looks like {held_out[1]}" in str(error.value)
    refuse_held_out([*mined, copy], held_out, near_duplicates=False)


def test_the_image_held_out_may_be_the_copy(pictures, tmp_path):
    mined, held_out = pictures
    copy = str(tmp_path / "copy.jpg")
    cv2.imwrite(copy, COPIES["all at once"](cv2.imread(mined[4])))
    with pytest.raises(DataError, match=r"1 image\(s\)") as error:
        refuse_held_out(mined, [*held_out, copy], near_duplicates=True)
    assert f"{mined[4]} looks like {copy}" in str(error.value)


def test_half_a_picture_is_another(pictures, tmp_path):
    mined, held_out = pictures
    cv2.imwrite(str(tmp_path / "half.png"), cropped(0, 0, 0.5, 0)(cv2.imread(held_out[1])))
    refuse_held_out([*mined, str(tmp_path / "half.png")], held_out, near_duplicates=True)


def test_an_image_with_two_copies_counts_once_and_the_closest_is_named(pictures, tmp_path):
    mined, held_out = pictures
    image = cv2.imread(mined[0])
    far, near = str(tmp_path / "far.png"), str(tmp_path / "near.png")
    cv2.imwrite(far, cropped(0.03, 0, 0, 0.02)(image))
    cv2.imwrite(near, levels(1, 1)(image))
    for others in ([far, near, *held_out], [near, *held_out, far]):
        with pytest.raises(DataError, match=r"1 image\(s\)") as error:
            refuse_held_out(mined, others, near_duplicates=True)
        assert f"{mined[0]} looks like {near}" in str(error.value)


def test_many_are_compared_in_blocks(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 2)
    mined, held_out = pictures
    copies = [str(tmp_path / f"copy {index}.png") for index in range(3)]
    for copy, name in zip(copies, held_out[1:], strict=True):
        cv2.imwrite(copy, mirrored(cv2.imread(name)))
    with pytest.raises(DataError, match=r"3 image\(s\)") as error:
        refuse_held_out([*mined, *copies], held_out, near_duplicates=True)
    for copy, name in zip(copies, held_out[1:], strict=True):
        assert f"{copy} looks like {name}" in str(error.value)


def test_one_horizon_from_several_places(tmp_path):
    names = [str(tmp_path / f"{seed}.png") for seed in range(8)]
    for seed, name in enumerate(names):
        cv2.imwrite(name, landscape(seed, horizon=180))
    refuse_held_out(names[:4], names[4:], near_duplicates=True)
    cv2.imwrite(str(tmp_path / "brighter.png"), levels(1.1, 10)(landscape(6, horizon=180)))
    with pytest.raises(DataError, match=r"brighter\.png looks like .*6\.png"):
        refuse_held_out([str(tmp_path / "brighter.png")], names[4:], near_duplicates=True)


def test_two_skies_are_not_one(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("one", 150), ("two", 190)):
        slope = np.linspace(level, level + 20, 120)[:, None, None]
        sky = np.clip(slope + rng.normal(0, 1, (120, 160, 3)), 0, 255).astype(np.uint8)
        # Dust on the sensor is in every picture.
        sky[60:66, 80:86] -= 30
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.GaussianBlur(sky, (0, 0), 3))
    refuse_held_out([str(tmp_path / "one.png")], [str(tmp_path / "two.png")], near_duplicates=True)
    cv2.imwrite(
        str(tmp_path / "copy.jpg"), cv2.imread(str(tmp_path / "two.png")), (cv2.IMWRITE_JPEG_QUALITY, 60)
    )
    with pytest.raises(DataError, match=r"copy\.jpg looks like"):
        refuse_held_out([str(tmp_path / "copy.jpg")], [str(tmp_path / "two.png")], near_duplicates=True)


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
    photos, cells, drones, dice = (
        sorted(str(path) for path in (shared_folder / "data" / name / "images").iterdir())
        for name in ("photos-background", "bloodcells", "drone-visible", "dice")
    )
    refuse_held_out(photos, cells[:100] + drones[:200] + dice[:50], near_duplicates=True)
    refuse_held_out(photos[:108], photos[108:], near_duplicates=True)


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_copies_of_real_photographs(shared_folder, change, tmp_path):
    photos = sorted(str(path) for path in (shared_folder / "data/photos-background/images").iterdir())[:12]
    copies = [str(tmp_path / f"{index}.jpg") for index in range(12)]
    for photo, copy in zip(photos, copies, strict=True):
        cv2.imwrite(copy, change(cv2.imread(photo)), (cv2.IMWRITE_JPEG_QUALITY, 75))
    with pytest.raises(DataError, match=r"12 image\(s\)"):
        refuse_held_out(copies, photos, near_duplicates=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("BIRD_001_f0228", "BIRD_050_f0075"),
        ("HELICOPTER_004_f0227", "HELICOPTER_012_f0235"),
        ("DRONE_089_f0081", "HELICOPTER_057_f0243"),
    ],
)
def test_real_skies_over_alike_land_are_not_one(shared_folder, first, second):
    images = shared_folder / "data/drone-visible/images"
    refuse_held_out([str(images / f"V_{first}.jpg")], [str(images / f"V_{second}.jpg")], near_duplicates=True)
