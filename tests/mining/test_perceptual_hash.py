"""The difference hash against its definition, and what it is to see through."""

import cv2
import numpy as np

from detkit.mining.perceptual_hash import BITS, difference_hash, hash_signs, thumbnail


def picture(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (90, 120), interpolation=cv2.INTER_CUBIC)


def distances(first, second):
    return (BITS - hash_signs(first) @ hash_signs(second).T) / 2


def test_each_bit_says_whether_a_pixel_is_brighter_than_its_left_neighbour():
    small = np.random.default_rng(0).integers(0, 256, (8, 9), dtype=np.uint8)
    bits = "".join("1" if small[y, x + 1] > small[y, x] else "0" for y in range(8) for x in range(8))
    assert difference_hash(small) == int(bits, 2)


def test_products_of_signs_count_bits():
    rng = np.random.default_rng(1)
    first, second = (rng.integers(0, 2**64, count, dtype=np.uint64) for count in (7, 5))
    expected = [[(int(a) ^ int(b)).bit_count() for b in second] for a in first]
    np.testing.assert_array_equal(distances(first, second), expected)
    assert distances(first, second[:0]).shape == (7, 0)


def test_copies_are_near_and_other_pictures_far():
    pictures = [picture(seed) for seed in range(12)]
    hashes = np.array([difference_hash(image) for image in pictures], dtype=np.uint64)
    copies = []
    for image in pictures:
        smaller = cv2.resize(image, (60, 80), interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", smaller, (cv2.IMWRITE_JPEG_QUALITY, 70))
        copies.append(difference_hash(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    bits = distances(hashes, np.array(copies, dtype=np.uint64))
    assert bits.diagonal().max() <= 4
    assert bits[~np.eye(12, dtype=bool)].min() >= 12


def test_grey_is_as_good_as_colour():
    grey = cv2.cvtColor(picture(3), cv2.COLOR_RGB2GRAY)
    assert difference_hash(grey) == difference_hash(picture(3))
    np.testing.assert_array_equal(thumbnail(grey, 16), thumbnail(picture(3), 16))
