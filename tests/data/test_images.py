"""read_image against pixels made independently, for every kind of file that a camera or a tool writes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detkit.data.images import find_images, inspect_image, read_image
from detkit.errors import DataError

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    # How a viewer brings the stored pixels upright, from the EXIF standard's description of rows and columns.
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(np.swapaxes(pixels, 0, 1), 2),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour picture without symmetry, 40 high and 64 wide."""
    y, x = np.mgrid[0:40, 0:64]
    return np.stack([x * 4, y * 6, 255 - x - 2 * y], axis=2).clip(0, 255).astype(np.uint8)


def write_jpeg(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(pixels).save(path, quality=98, subsampling=0, exif=exif)
    return path


def difference(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    assert first.dtype == np.uint8
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("square", [False, True])
def test_exif_turns_upright(tmp_path, picture, orientation, square):
    pixels = picture[:, :40] if square else picture
    path = write_jpeg(tmp_path / "photo.jpg", pixels, orientation)
    upright = UPRIGHT[orientation](pixels)
    assert difference(read_image(path, upright.shape[:2]), upright) < 2
    assert difference(read_image(path), upright) < 2
    facts = inspect_image(path)
    assert (facts.upright_size, facts.stored_size) == (upright.shape[:2], pixels.shape[:2])
    assert facts.oriented == (orientation > 1)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_stays_as_stored_where_the_annotations_have_that_size(tmp_path, picture, orientation):
    path = write_jpeg(tmp_path / "photo.jpg", picture, orientation)
    assert difference(read_image(path, (40, 64)), picture) < 2


def test_exif_in_png(tmp_path, picture):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", (64, 40)), np.rot90(picture, -1))
    assert np.array_equal(read_image(tmp_path / "a.png", (40, 64)), picture)
    assert inspect_image(tmp_path / "a.png").oriented


def test_other_size_names_both(tmp_path, picture):
    path = write_jpeg(tmp_path / "photo.jpg", picture, 6)
    with pytest.raises(
        DataError, match=r"photo\.jpg: is 40 x 64, but its annotations say 100 x 50; use the files"
    ):
        read_image(path, (50, 100))


def test_rgb_order_grey_alpha_palette_and_16_bit(tmp_path, picture):
    grey = picture[..., 0]
    alpha = np.dstack([picture, np.zeros((40, 64), np.uint8)])
    files = {
        "colour.png": (Image.fromarray(picture), picture),
        "grey.png": (Image.fromarray(grey), np.dstack([grey] * 3)),
        "alpha.png": (Image.fromarray(alpha), picture),
        "grey_alpha.png": (Image.fromarray(np.dstack([grey, grey])), np.dstack([grey] * 3)),
        "16_bit.png": (Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3)),
        "16_bit.tif": (Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3)),
    }
    quantised = Image.fromarray(picture).quantize(16)
    files["palette.png"] = (quantised, np.asarray(quantised.convert("RGB")))
    for name, (image, expected) in files.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name, (40, 64)), expected), name
    facts = {name: inspect_image(tmp_path / name) for name in files}
    assert [facts[name].channels for name in ("grey.png", "colour.png", "alpha.png")] == [1, 3, 4]
    assert [facts[name].bits for name in ("grey.png", "16_bit.png", "16_bit.tif")] == [8, 16, 16]


def test_cmyk_jpeg_and_names_beyond_ascii(tmp_path, picture):
    path = tmp_path / "größe 猫.jpg"
    Image.fromarray(picture).convert("CMYK").save(path, quality=98)
    assert difference(read_image(path, (40, 64)), picture) < 8


def test_trailing_bytes_and_thumbnails_are_no_truncation(tmp_path, picture):
    thumbnail = io.BytesIO()
    Image.fromarray(picture[:8, :8]).save(thumbnail, "JPEG")
    path = tmp_path / "photo.jpg"
    Image.fromarray(picture).save(path, quality=98, subsampling=0, comment=thumbnail.getvalue())
    path.write_bytes(path.read_bytes() + b"maker notes")
    assert difference(read_image(path, (40, 64)), picture) < 2


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.bmp", "a.tif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated(tmp_path, picture, name, share):
    path = tmp_path / name
    options = {"progressive": True} if name.startswith("progressive") else {}
    Image.fromarray(picture).save(path, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        DataError, match=r"is truncated, broken or no image with 8 or 16 bits; copy the file again or remove"
    ):
        read_image(path)


def test_missing_empty_text_and_folder(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such file; check the image folder"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"empty\.jpg: is empty; copy the file again"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(DataError, match=r"page\.jpg: is truncated, broken or no image"):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        read_image(tmp_path)


def test_floating_point_pixels_are_refused_by_both(tmp_path):
    path = tmp_path / "depth.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(DataError, match="no image with 8 or 16 bits"):
        read_image(path)
    with pytest.raises(DataError, match=r"has 32 bits per channel; convert it to 8 or 16"):
        inspect_image(path)


def test_find_images(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("b.JPG", "a.png", "below/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images([tmp_path])] == ["a.png", "b.JPG", "c.webp"]
    assert find_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(DataError, match="there is no such file or folder"):
        find_images([tmp_path / "gone"])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no image found"):
        find_images([tmp_path / "none"])
