"""Where the demo's faces, non-faces and photographs come from, and which split each belongs to.

Every source is inside scikit-image's wheel, so nothing is downloaded.

- ``lfw_subset.npy``: 200 grey patches of 25 x 25 pixels from Labeled Faces in the Wild (Huang, Mattar, Lee,
  Learned-Miller, 2012), press photographs collected for research: 100 faces, then 100 pieces of background.
- Photographs, as scikit-image documents them: CC0 or public domain are brick, cell, chelsea, clock_motion,
  coffee, grass, gravel, hubble_deep_field, retina, rocket and text; ihc has no known copyright restrictions;
  the motorcycle is of the Middlebury 2014 stereo benchmark; of moon and page nothing is said, so they come
  under scikit-image's own licence (BSD-3-Clause).

Not used as photographs: astronaut and camera (people), coins (heads), color, horse, logo and phantom
(drawings), and microaneurysms (102 pixels).

No face, non-face or photograph is in two splits; nor are faces that may show the same person, or the two views
of the motorcycle. Most of the non-faces are of no use as clutter: flat, cut by a black wedge where the
original picture ended, or near-equal to another; some hold part of a face. Twenty remain.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detkit.errors import DataError

PATCH = 25
"""Side of a source patch, pixels."""


@dataclass(frozen=True)
class SplitNames:
    """The sources of one split: positions among the 100 faces and the 100 non-faces, and photograph files."""

    faces: tuple[int, ...]
    non_faces: tuple[int, ...]
    photographs: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """The loaded sources of one split; grey values from 0 to 1, float64."""

    faces: np.ndarray
    """[F, 25, 25]."""
    non_faces: np.ndarray
    """[B, 25, 25]."""
    photographs: tuple[np.ndarray, ...]
    """[H, W] each."""


LOOKALIKES = (
    (0, 36, 73, 90), (3, 92, 97), (5, 71), (6, 43, 77, 79), (10, 61, 81, 89), (18, 91, 93), (20, 58, 78),
    (25, 34, 35), (33, 41, 44), (40, 99), (42, 63), (48, 51, 54), (62, 72),
)  # fmt: skip
"""Faces that may show the same person, as far as 25 pixels tell; each group is in one split."""

# Drawn at random, group by group.
_VAL_FACES = (7, 18, 30, 33, 38, 41, 44, 50, 53, 69, 75, 82, 88, 91, 93)
_TEST_FACES = (10, 11, 12, 15, 21, 24, 46, 47, 57, 61, 76, 81, 87, 89, 94)

_HELD_OUT = frozenset(_VAL_FACES + _TEST_FACES)

SPLITS: dict[str, SplitNames] = {
    "train": SplitNames(
        faces=tuple(face for face in range(100) if face not in _HELD_OUT),
        non_faces=(2, 9, 10, 14, 21, 33, 35, 55, 59, 75, 89, 92),
        photographs=(
            "brick.png",
            "cell.png",
            "chelsea.png",
            "grass.png",
            "hubble_deep_field.jpg",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "page.png",
            "retina.jpg",
        ),
    ),
    "val": SplitNames(
        faces=_VAL_FACES,
        non_faces=(19, 61, 87, 94),
        photographs=("coffee.png", "gravel.png", "moon.png"),
    ),
    "test": SplitNames(
        faces=_TEST_FACES,
        non_faces=(27, 64, 95, 96),
        photographs=("clock_motion.png", "ihc.png", "rocket.jpg", "text.png"),
    ),
}


def load_sources(split: str) -> Sources:
    """Load the sources of "train", "val" or "test".

    Raises:
        DataError: scikit-image is not installed, or its folder of images is not the known one.
    """
    names = SPLITS[split]
    folder = _image_folder()
    patches = _load_patches(folder / "lfw_subset.npy")
    return Sources(
        faces=patches[list(names.faces)],
        non_faces=patches[[100 + index for index in names.non_faces]],
        photographs=tuple(_load_photograph(folder / name) for name in names.photographs),
    )


def _image_folder() -> Path:
    try:
        import skimage
    except ImportError:
        raise DataError(
            "the demo data is made from the images of scikit-image, which is not installed: "
            "pip install scikit-image"
        ) from None
    return Path(skimage.__file__).parent / "data"


def _load_patches(path: Path) -> np.ndarray:
    """[200, 25, 25]."""
    if not path.is_file():
        raise _missing(path)
    patches = np.load(path)
    if patches.shape != (200, PATCH, PATCH):
        raise DataError(
            f"{path}: expected 200 patches of {PATCH} x {PATCH}, found {patches.shape}; "
            "install another release of scikit-image (0.24 to 0.26 are known to do)"
        )
    return patches.astype(np.float64)


def _load_photograph(path: Path) -> np.ndarray:
    """[H, W]."""
    from skimage import io, util

    if not path.is_file():
        raise _missing(path)
    return util.img_as_float64(io.imread(path, as_gray=True))


def _missing(path: Path) -> DataError:
    return DataError(
        f"{path}: not there; the demo needs the images of scikit-image's wheel: "
        "pip install --force-reinstall --no-deps scikit-image"
    )
