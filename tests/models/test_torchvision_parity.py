"""With torchvision's weights, ours is torchvision's RetinaNet."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection._utils import BoxCoder, overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead as TorchvisionHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detkit.config import load_config
from detkit.models import (
    AnchorGenerator,
    PostProcess,
    PyramidBackbone,
    RetinaNet,
    RetinaNetHead,
    load_weights,
)
from detkit.models.box_coder import decode
from detkit.structures import DenseOutputs, ImageBatch

CLASSES = 91
SIZES = [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for side in (32, 64, 128, 256, 512)]


def our_retinanet(
    name: str, *, channels: int = 256, classes: int = CLASSES, v2: bool, **backbone
) -> RetinaNet:
    anchors = AnchorGenerator(SIZES, [0.5, 1.0, 2.0], [8, 16, 32, 64, 128])
    return RetinaNet(
        PyramidBackbone(name, channels=channels, extra_from="backbone" if v2 else "pyramid", **backbone),
        RetinaNetHead(channels, anchors.per_location, classes, norm="group" if v2 else "none"),
        anchors,
        PostProcess(score_threshold=0.0, nms_iou=0.5, candidates_per_level=1000, detections_per_image=300),
        class_names=[str(index) for index in range(classes)],
    )


def widen(model: TorchvisionRetinaNet) -> None:
    """Scale the last convolutions so that scores and boxes differ from anchor to anchor, yet none saturates."""
    model.eval()
    classification, regression = model.head.classification_head, model.head.regression_head
    with torch.no_grad():
        classification.cls_logits.bias.zero_()
        # Normalised noise; large enough for the coarsest level, where the extremes are, to see no padding.
        image = (torch.rand(1, 3, 256, 256) - 0.45) / 0.225
        outputs = model.head(list(model.backbone(image).values()))
        classification.cls_logits.weight *= 4 / outputs["cls_logits"].abs().max()
        regression.bbox_reg.weight *= 1 / outputs["bbox_regression"].abs().max()


@torch.no_grad()
def run_torchvision(model: TorchvisionRetinaNet, image: torch.Tensor):
    """(logits [A, K], deltas [A, 4], anchors [A, 4]) and detections of one image."""
    seen = {}
    handles = [
        model.head.register_forward_hook(lambda module, inputs, output: seen.update(head=output)),
        model.anchor_generator.register_forward_hook(
            lambda module, inputs, output: seen.update(anchors=output[0])
        ),
    ]
    detections = model([image])[0]
    for handle in handles:
        handle.remove()
    return seen["head"]["cls_logits"][0], seen["head"]["bbox_regression"][0], seen["anchors"], detections


def check_parity(theirs: TorchvisionRetinaNet, ours: RetinaNet, side: int, dtype: torch.dtype) -> None:
    score_tolerance, box_tolerance = (1e-4, 1e-2) if dtype == torch.float32 else (1e-6, 1e-6)
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)
    logits, deltas, anchors, expected = run_torchvision(theirs.to(dtype).eval(), image)
    # A copy, since float32 rounds the normalisation for good.
    ours = copy.deepcopy(ours).to(dtype).eval()
    with torch.no_grad():
        outputs = ours.dense(ImageBatch(image[None], ((side, side),), ((side, side),)))
        found = ours.postprocess(outputs, ((side, side),), ((side, side),))[0]

    assert torch.equal(torch.cat(list(outputs.anchors)), anchors.float())
    scores = torch.cat(list(outputs.logits), dim=1)[0].sigmoid()
    assert scores.std() > 0.05
    assert scores.max() < 0.9999
    assert (scores - logits.sigmoid()).abs().max() < score_tolerance
    boxes = decode(torch.cat(list(outputs.deltas), dim=1)[0], torch.cat(list(outputs.anchors)))
    expected_boxes = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(deltas, anchors)
    assert (boxes - expected_boxes).abs().max() < box_tolerance
    check_same_detections(found, expected, score_tolerance, box_tolerance)
    check_same_postprocessing(ours, (logits, deltas), outputs.anchors, expected, side)


def check_same_detections(found, expected, score_tolerance: float, box_tolerance: float) -> None:
    assert len(expected["boxes"]) == len(found["boxes"]) == 300
    near = (
        (found["labels"][:, None] == expected["labels"])
        & ((found["scores"][:, None] - expected["scores"]).abs() < score_tolerance)
        & ((found["boxes"][:, None] - expected["boxes"]).abs().amax(-1) < box_tolerance)
    )
    # Where two overlaps or scores tie within rounding, either may go.
    allowed = 3 if found["scores"].dtype == torch.float32 else 0
    assert near.any(0).sum() >= 300 - allowed
    assert near.any(1).sum() >= 300 - allowed


def check_same_postprocessing(ours: RetinaNet, dense, anchors, expected, side: int) -> None:
    """From the very same dense outputs the detections are equal, whatever the networks' rounding."""
    counts = [len(level) for level in anchors]
    logits, deltas = (values[None].split(counts, dim=1) for values in dense)
    same = DenseOutputs(logits, deltas, anchors)
    found = ours.postprocess(same, ((side, side),), ((side, side),))[0]
    assert torch.equal(found["scores"], expected["scores"])
    # Detections of equal scores may come in any order.
    tied = torch.cat([torch.tensor([False]), expected["scores"].diff() == 0])
    alone = ~(tied | tied.roll(-1))
    assert alone.sum() > 250
    assert torch.equal(found["labels"][alone], expected["labels"][alone])
    torch.testing.assert_close(found["boxes"][alone], expected["boxes"][alone], rtol=0, atol=1e-3)


@pytest.fixture
def all_threads() -> Iterator[None]:
    """Every core that the process may use, for the large networks."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[False, True], ids=["v1", "v2"])
def published(request, tmp_path_factory) -> tuple[TorchvisionRetinaNet, RetinaNet]:
    """torchvision's detector and ours with its weights."""
    torch.manual_seed(0)
    build = retinanet_resnet50_fpn_v2 if request.param else retinanet_resnet50_fpn
    theirs = build(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=640,
        max_size=640,
        score_thresh=0.0,
    )
    widen(theirs)
    path = tmp_path_factory.mktemp("published") / "weights.pth"
    torch.save(theirs.state_dict(), path)
    ours = our_retinanet("resnet50", v2=request.param)
    report = load_weights(ours, path)
    path.unlink()
    assert report.missing + report.mismatched + report.unused == ()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("name", ["coco-r50", "coco-r50-v2"])
def test_the_shipped_coco_configurations_have_the_published_anchors(name):
    """Octaves truncated to whole pixels, and the sixth level made from the backbone's last."""
    model = load_config(Path(__file__).parents[2] / "configs" / f"{name}.yaml").model
    theirs = retinanet._default_anchorgen()
    assert [tuple(sizes) for sizes in model.anchor_sizes] == list(theirs.sizes)
    assert {tuple(model.anchor_ratios)} == set(theirs.aspect_ratios)
    assert (model.extra_from, model.levels) == ("backbone", [3, 4, 5, 6, 7])


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_published_architectures_agree(published, dtype: torch.dtype) -> None:
    theirs, ours = published
    check_parity(theirs, ours, 640, dtype)


def torchvision_resnet18(*, norm_layer, channels: int, classes: int) -> TorchvisionRetinaNet:
    backbone = BackboneWithFPN(
        resnet18(weights=None, norm_layer=norm_layer),
        {"layer2": "0", "layer3": "1", "layer4": "2"},
        [128, 256, 512],
        channels,
        LastLevelP6P7(channels, channels),
    )
    return TorchvisionRetinaNet(
        backbone,
        classes,
        min_size=256,
        max_size=256,
        score_thresh=0.0,
        head=TorchvisionHead(channels, 9, classes),
    )


def test_frozen_batch_norm_trained_with_epsilon_zero(tmp_path) -> None:
    torch.manual_seed(0)
    theirs = torchvision_resnet18(norm_layer=FrozenBatchNorm2d, channels=32, classes=20)
    overwrite_eps(theirs, 0.0)
    for module in theirs.modules():
        if isinstance(module, FrozenBatchNorm2d):
            # Variances down to the size of the epsilon that the weights were trained without.
            module.running_var.copy_(torch.logspace(-5, 0, len(module.running_var)))
            module.weight.copy_(module.running_var.sqrt())
    widen(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = our_retinanet("resnet18", channels=32, classes=20, v2=False, frozen_batch_norm=True)
    load_weights(ours, tmp_path / "weights.pth")
    with pytest.raises(AssertionError):
        check_parity(theirs, ours, 256, torch.float32)
    load_weights(ours, tmp_path / "weights.pth", norm_epsilon=0.0)
    check_parity(theirs, ours, 256, torch.float32)


def test_old_key_layout_gives_the_same_outputs(tmp_path) -> None:
    """The published v1 file numbers the convolutions of a tower 0, 2, 4, 6 and the pyramid's without an index."""
    torch.manual_seed(0)
    theirs = torchvision_resnet18(norm_layer=nn.BatchNorm2d, channels=32, classes=20)
    widen(theirs)
    old = {}
    for name, value in theirs.state_dict().items():
        parts = name.split(".")
        if "conv" in parts and parts[0] == "head":
            parts = [*parts[:3], str(2 * int(parts[3])), parts[-1]]
        elif "inner_blocks" in parts or "layer_blocks" in parts:
            parts = [*parts[:4], parts[-1]]
        old[".".join(parts)] = value
    assert "head.regression_head.conv.6.weight" in old
    assert "backbone.fpn.inner_blocks.2.bias" in old
    torch.save(old, tmp_path / "old.pth")
    ours = our_retinanet("resnet18", channels=32, classes=20, v2=False)
    report = load_weights(ours, tmp_path / "old.pth")
    assert report.missing + report.mismatched + report.unused == ()
    check_parity(theirs, ours, 256, torch.float32)
