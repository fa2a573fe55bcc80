"""What tests of tools/mine.py share."""

import cv2
import numpy as np
import scripts

SMALL = ("--threshold", 0.05, "--least-side", 8)
"""For pictures of 64 pixels and a detector that has hardly learned."""


def mine(*arguments):
    return scripts.printed_by("mine.py", *arguments)


def refused(*arguments):
    return scripts.refused("mine.py", *arguments)


def write_noise(path, seed, size=(64, 64)):
    """A picture (height, width) of soft blobs and a bright and a dark square; another seed gives another one."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(
        rng.integers(60, 200, (8, 8, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC
    )
    for value in (250, 5):
        x, y = rng.integers(0, max(1, min(size) - 16), 2).tolist()
        picture[y : y + 16, x : x + 16] = value
    cv2.imwrite(str(path), picture)
