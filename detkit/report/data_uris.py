"""Pictures as text, for pages that need no other file."""

import base64

import cv2
import numpy as np


def data_uri(kind: str, content: bytes) -> str:
    """The content of a file of this media type, for the ``src`` of an image."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def jpeg_uri(image: np.ndarray, longest_side: int, quality: int) -> str:
    """An image, RGB uint8 [H, W, 3], as a JPEG; one whose longer side is longer is shrunk to it."""
    small = shrunk(image, longest_side)
    content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return data_uri("image/jpeg", content.tobytes())


def shrunk(image: np.ndarray, longest_side: int) -> np.ndarray:
    """The image, uint8 [H, W, 3], made smaller where its longer side is longer than this."""
    share = longest_side / max(image.shape[:2])
    if share >= 1:
        return image
    size = [max(1, round(side * share)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
