"""The whole detector: what goes in, what comes out."""

import copy

import pytest
import torch
import torch.nn.functional as F

from detkit.errors import ConfigError
from detkit.models import AnchorGenerator, PostProcess, PyramidBackbone, RetinaNet, RetinaNetHead
from detkit.structures import DenseOutputs, ImageBatch


def normalised_by(model: RetinaNet, batch: ImageBatch) -> torch.Tensor:
    """What the backbone is given."""
    seen = {}
    handle = model.backbone.register_forward_pre_hook(lambda module, inputs: seen.update(pixels=inputs[0]))
    with torch.no_grad():
        model.dense(batch)
    handle.remove()
    return seen["pixels"]


def test_training_gives_dense_outputs_and_evaluation_detections(small_detector) -> None:
    model = small_detector()
    outputs = model(torch.rand(2, 3, 96, 64))
    assert isinstance(outputs, DenseOutputs)
    for logits, deltas, anchors in zip(outputs.logits, outputs.deltas, outputs.anchors, strict=True):
        assert logits.shape == (2, len(anchors), 3)
        assert deltas.shape == (2, len(anchors), 4)
    detections = model.eval()(torch.rand(2, 3, 96, 64))
    assert [set(one) for one in detections] == [{"boxes", "labels", "scores"}] * 2
    batch = ImageBatch(torch.rand(1, 3, 96, 64), ((96, 64),), ((96, 64),))
    assert isinstance(model.dense(batch), DenseOutputs)


def test_pixels_are_normalised_and_the_padding_is_zero(small_detector) -> None:
    model = small_detector()
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = ImageBatch(pixels, ((40, 64), (64, 50)), ((40, 64), (64, 50)))
    seen = normalised_by(model, batch)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((pixels / 255).permute(0, 2, 3, 1) - mean) / std
    torch.testing.assert_close(seen[0, :, :40], expected[0, :40].permute(2, 0, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[1, :, :, :50], expected[1, :, :50].permute(2, 0, 1), rtol=1e-5, atol=1e-5)
    assert not seen[0, :, 40:].any()
    assert not seen[1, :, :, 50:].any()
    floats = ImageBatch(pixels / 255, batch.sizes, batch.original_sizes)
    torch.testing.assert_close(normalised_by(model, floats), seen, rtol=1e-5, atol=1e-5)
    assert torch.equal(floats.pixels, pixels / 255)


def test_what_lies_in_the_padding_does_not_matter(small_detector) -> None:
    model = small_detector().eval()
    image = torch.rand(3, 40, 50)
    clean = F.pad(image, (0, 14, 0, 24))[None]
    dirty = clean.clone()
    dirty[:, :, 40:] = 0.7
    dirty[:, :, :, 50:] = 0.3
    results = [model(ImageBatch(p, ((40, 50),), ((40, 50),)))[0] for p in (clean, dirty)]
    alone = model([image])[0]
    for name in ("boxes", "labels", "scores"):
        assert torch.equal(results[0][name], results[1][name])
        assert torch.equal(results[0][name], alone[name])


def test_images_of_different_sizes_are_padded_to_the_stride(small_detector) -> None:
    model = small_detector()
    outputs = model([torch.rand(3, 33, 70), torch.rand(3, 65, 20)])
    cells = [(96 // 8) * (96 // 8), (96 // 16) ** 2, (96 // 32) ** 2, 2 * 2, 1]
    assert [len(anchors) for anchors in outputs.anchors] == [6 * count for count in cells]
    assert [logits.shape[1] for logits in outputs.logits] == [6 * count for count in cells]


def test_boxes_are_in_pixels_of_the_original_image(small_detector) -> None:
    model = small_detector().eval()
    pixels = torch.rand(1, 3, 64, 96)
    plain = model(ImageBatch(pixels, ((60, 90),), ((60, 90),)))[0]
    scaled = model(ImageBatch(pixels, ((60, 90),), ((240, 45),)))[0]
    assert len(plain["boxes"]) > 10
    torch.testing.assert_close(scaled["boxes"], plain["boxes"] * torch.tensor([0.5, 4.0, 0.5, 4.0]))
    assert plain["boxes"][:, 2].max() <= 90
    assert scaled["boxes"][:, 3].max() <= 240


def test_channels_last_gives_the_same(small_detector) -> None:
    torch.manual_seed(0)
    model = small_detector().eval()
    batch = ImageBatch(torch.rand(2, 3, 64, 96), ((64, 96),) * 2, ((64, 96),) * 2)
    plain = model.dense(batch)
    fast = model.to(memory_format=torch.channels_last).dense(batch.to(memory_format=torch.channels_last))
    for one, other in zip(plain.logits, fast.logits, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    for one, other in zip(plain.deltas, fast.deltas, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_bfloat16_autocast_trains_and_detects(small_detector) -> None:
    model = small_detector().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(1, 3, 64, 64))
        sum(level.float().sum() for level in [*outputs.logits, *outputs.deltas]).backward()
        found = model.eval()(torch.rand(1, 3, 64, 64))[0]
    assert outputs.logits[0].dtype == torch.bfloat16
    assert outputs.anchors[0].dtype == torch.float32
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_copies_are_independent(small_detector) -> None:
    """An average of the weights is kept in a copy of the model."""
    model = small_detector().eval()
    twin = copy.deepcopy(model)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(twin(image)[0]["scores"], model(image)[0]["scores"])
    with torch.no_grad():
        model.head.classification_head.cls_logits.bias += 1
    assert not torch.equal(twin(image)[0]["scores"], model(image)[0]["scores"])
    assert twin.train()(image).logits[0].requires_grad


def test_parts_that_do_not_agree_are_refused() -> None:
    backbone = PyramidBackbone("mobilenet_v3_small", levels=(3, 4, 5), channels=8)
    anchors = AnchorGenerator([[32], [64], [128]], [1.0], [8, 16, 32])
    head = RetinaNetHead(8, 1, 2, depth=0)

    def build(head=head, anchors=anchors, class_names=("a", "b")):
        return RetinaNet(backbone, head, anchors, PostProcess(), class_names=class_names)

    assert build().stride == 32
    with pytest.raises(ConfigError, match=r"strides \(8, 16, 32\), the anchors \(4, 8, 16\)"):
        build(anchors=AnchorGenerator([[32], [64], [128]], [1.0], [4, 8, 16]))
    with pytest.raises(ConfigError, match="1 anchors per location"):
        build(anchors=AnchorGenerator([[32], [64], [128]], [1.0, 2.0], [8, 16, 32]))
    with pytest.raises(ConfigError, match="2 classes, but 3 have names"):
        build(class_names=("a", "b", "c"))
