"""Pictures as text."""

import base64

import cv2
import numpy as np
import pytest

from detkit.report.data_uris import data_uri, jpeg_uri, shrunk


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 600), (50, 100)), ((600, 300), (100, 50)), ((100, 40), (100, 40)), ((2, 1000), (1, 100))],
)
def test_the_longer_side_is_shrunk_and_never_enlarged(size, expected):
    assert shrunk(np.zeros((*size, 3), np.uint8), 100).shape == (*expected, 3)


def test_a_jpeg_keeps_its_colours():
    red = np.full((120, 60, 3), (200, 30, 60), np.uint8)
    head, _, content = jpeg_uri(red, 40, 90).partition(",")
    assert head == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert picture.shape == (40, 20, 3)
    np.testing.assert_allclose(picture, np.broadcast_to(red[0, 0], picture.shape), atol=4)


def test_a_files_content_keeps_its_media_type():
    assert data_uri("image/png", b"abc") == "data:image/png;base64,YWJj"
