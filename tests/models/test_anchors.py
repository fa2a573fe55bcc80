"""Anchors and the encoding of boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionGenerator
from torchvision.models.detection.image_list import ImageList

from detkit.errors import ConfigError
from detkit.models import AnchorGenerator
from detkit.models.box_coder import decode, encode

STRIDES = [8, 16, 32, 64, 128]
SIZES = [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for side in (32, 64, 128, 256, 512)]
RATIOS = [0.5, 1.0, 2.0]


def torchvision_anchors(height: int, width: int) -> torch.Tensor:
    generator = TorchvisionGenerator(tuple(map(tuple, SIZES)), (tuple(RATIOS),) * 5)
    features = [torch.zeros(1, 1, -(-height // stride), -(-width // stride)) for stride in STRIDES]
    return generator(ImageList(torch.zeros(1, 3, height, width), [(height, width)]), features)[0]


@pytest.mark.parametrize("size", [(640, 640), (384, 896)])
def test_equal_torchvisions_where_sides_divide_by_128(size: tuple[int, int]) -> None:
    anchors = AnchorGenerator(SIZES, RATIOS, STRIDES).anchors_for(size)
    assert torch.equal(torch.cat(anchors), torchvision_anchors(*size))


def test_strides_are_true_where_sides_do_not_divide_by_128() -> None:
    anchors = AnchorGenerator(SIZES, RATIOS, STRIDES).anchors_for((800, 1088))
    assert sum(map(len, anchors)) == 163_206
    assert [len(level) for level in anchors] == [
        9 * h * w for h, w in [(100, 136), (50, 68), (25, 34), (13, 17), (7, 9)]
    ]
    for level, stride in zip(anchors, STRIDES, strict=True):
        centres = (level[::9, :2] + level[::9, 2:]) / 2
        assert torch.equal(centres % stride, torch.zeros_like(centres))
    assert not torch.equal(torch.cat(anchors), torchvision_anchors(800, 1088))


def test_cached_by_size_and_fit_for_training_after_inference_mode() -> None:
    generator = AnchorGenerator([[16]], [1.0], [8])
    with torch.inference_mode():
        first = generator.anchors_for((88, 72))
    assert generator.anchors_for((88, 72))[0] is first[0]
    assert AnchorGenerator([[16]], [1.0], [8]).anchors_for((72, 88))[0].shape == first[0].shape
    assert not first[0].is_inference()
    deltas = torch.zeros(len(first[0]), 4, requires_grad=True)
    decode(deltas, first[0]).sum().backward()


def test_sizes_that_do_not_fit_the_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"found \[1, 2\] sizes for 2 levels"):
        AnchorGenerator([[8], [16, 20]], RATIOS, [8, 16])
    with pytest.raises(ConfigError, match="for 2 levels"):
        AnchorGenerator([[8]], RATIOS, [8, 16])


box = st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(1, 800)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(box, box), min_size=1, max_size=5))
def test_decode_is_the_inverse_of_encode_and_both_are_torchvisions(pairs: list) -> None:
    # A side grows at most 62.5 times, which these stay below by construction of the anchors.
    boxes = torch.tensor([pair[0] for pair in pairs], dtype=torch.float64)
    anchors = torch.tensor([pair[1] for pair in pairs], dtype=torch.float64)
    anchors[:, 2:] = torch.maximum(anchors[:, 2:], anchors[:, :2] + (boxes[:, 2:] - boxes[:, :2]) / 60)
    deltas = encode(boxes, anchors)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(decode(deltas, anchors), boxes, rtol=0, atol=1e-9)
    torch.testing.assert_close(deltas, coder.encode_single(boxes, anchors))
    torch.testing.assert_close(decode(deltas, anchors), coder.decode_single(deltas, anchors))


def test_decoding_is_in_float32_and_bounded() -> None:
    anchors = torch.tensor([[1000.0, 1000.0, 1016.0, 1016.0]])
    deltas = torch.tensor([[0.0, 0.0, 50.0, 50.0]], dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        boxes = decode(deltas, anchors)
    assert boxes.dtype == torch.float32
    torch.testing.assert_close(boxes, torch.tensor([[508.0, 508.0, 1508.0, 1508.0]]))
