"""Every defect that image files have been seen with: the message a user reads, and its repair."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sound_file import changed, sound_tree

from detkit.data.image_checks import check_images
from detkit.data.repair import repair
from detkit.errors import DataError


def image_messages(tree: dict, folder: Path) -> list[str]:
    return [f"{defect.severity}: {defect.message}" for defect in check_images(tree, folder)]


def test_missing_broken_and_empty_files_do_not_stop_the_report(tree, folder):
    (folder / "a.png").unlink()
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    missing, broken = image_messages(tree, folder)
    assert missing.startswith(
        f"error: image 5: {folder}/a.png: there is no such file; check the image folder"
    )
    assert broken.startswith(
        f"error: image 6: {folder}/b.png: is truncated, broken or no image with 8 or 16 bits; copy the file"
    )
    fixed, _ = repair(changed("images", 0, file_name="b.png"), check_images(tree, folder)[1:])
    assert [record["id"] for record in fixed["images"]] == [5]
    with pytest.raises(DataError, match="no image would be left; is the image folder the right one"):
        repair(tree, check_images(tree, folder))
    with pytest.raises(DataError, match="there is no such folder"):
        check_images(tree, folder / "elsewhere")


def test_files_outside_the_folder_are_not_opened(folder):
    assert image_messages(changed("images", 0, file_name="../images/a.png"), folder) == []


def test_pixels_that_are_handled(tree, folder):
    Image.fromarray(np.zeros((50, 100), np.uint16)).save(folder / "a.png")
    Image.fromarray(np.zeros((50, 100, 4), np.uint8)).save(folder / "b.png")
    assert image_messages(tree, folder) == [
        "info: image 5: a.png is grey; read as three equal channels: handled, nothing to mend",
        "info: image 5: a.png has 16 bits per channel; scaled to 8: handled, nothing to mend",
        "info: image 6: b.png has alpha; read without it: handled, nothing to mend",
    ]


def save_oriented(path: Path, height: int, width: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.tile(np.arange(width, dtype=np.uint8), (height, 1))
    Image.fromarray(np.dstack([pixels] * 3)).save(path, exif=exif)


def test_exif(folder):
    tree = changed("images", 0, file_name="turned.jpg")
    save_oriented(folder / "turned.jpg", 100, 50)
    assert image_messages(tree, folder) == [
        "info: image 5: turned.jpg has EXIF orientation; turned upright: handled, nothing to mend"
    ]
    save_oriented(folder / "turned.jpg", 50, 100)
    assert image_messages(tree, folder) == [
        "warning: image 5: turned.jpg has EXIF orientation, but the annotations give its size before the turn; "
        "not turned; see that the boxes fit"
    ]


def test_sizes_that_differ_from_the_file(tree, folder):
    tree["images"][0].update(height=100, width=50)
    tree["annotations"][1]["bbox"] = [20, 5, 20, 30]
    defects = check_images(tree, folder)
    assert [f"{defect.severity}: {defect.message}" for defect in defects] == [
        "error: image 5: a.png is 100 x 50, but its annotations say 50 x 100; "
        "use the files that were annotated, or correct width and height"
    ]
    fixed, changes = repair(tree, defects)
    assert changes[0].done == "the size is now 100 x 50"
    assert fixed["images"] == sound_tree()["images"]
    # Boxes drawn on another picture: nobody knows how to bring them here.
    tree["images"][0].update(height=500, width=1000)
    fixed, changes = repair(tree, check_images(tree, folder))
    assert changes[0].done == "dropped, with its boxes: nobody knows which picture they were drawn on"
    assert [record["id"] for record in fixed["annotations"]] == [13]


def test_a_missing_size_is_taken_from_the_file(folder):
    tree = changed("images", 0, width=..., height=...)
    with pytest.raises(DataError, match=r"sizes can be read from the images"):
        repair(tree)
    fixed, _ = repair(tree, check_images(tree, folder))
    assert fixed["images"][0]["width"] == 100
    assert fixed["images"][0]["height"] == 50
    assert len(fixed["annotations"]) == 3
