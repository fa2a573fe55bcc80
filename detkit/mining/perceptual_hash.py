"""Pictures that look alike, found by a few bits of each.

The difference hash of a picture is 64 bits: the picture is shrunk to 9 x 8 grey pixels, and each bit says whether a
pixel is brighter than its left neighbour. Recompressing, resizing or brightening a picture changes few bits.
"""

import cv2
import numpy as np

BITS = 64


def difference_hash(image: np.ndarray) -> int:
    """The hash of a picture: uint8 RGB [H, W, 3] or grey [H, W], of any size, to 64 bits."""
    small = cv2.resize(_grey(image), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """A picture as uint8 RGB [H, W, 3] or grey [H, W], shrunk to grey [side, side]."""
    return cv2.resize(_grey(image), (side, side), interpolation=cv2.INTER_AREA)


def hash_signs(hashes: np.ndarray) -> np.ndarray:
    """The bits of hashes, uint64 [N], as -1 and 1, float32 [N, 64].

    In the product of two, bits that are equal add 1 and others take 1 away, so that matrix products compare many.
    """
    octets = np.ascontiguousarray(hashes, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    return np.unpackbits(octets, axis=1).astype(np.float32) * 2 - 1


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
