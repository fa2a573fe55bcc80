"""Every family of torchvision's classification networks that can give a pyramid gives one."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from detkit.errors import ConfigError
from detkit.models import PyramidBackbone
from detkit.models.backbone import build_body, freeze_batch_norm
from detkit.models.pyramid import ExtraLevels
from detkit.training.optimiser import build_optimiser

FAMILIES = {
    "resnet18": (128, 256, 512),
    "resnext50_32x4d": (512, 1024, 2048),
    "mobilenet_v2": (32, 96, 320),
    "mobilenet_v3_small": (24, 48, 96),
    "mobilenet_v3_large": (40, 112, 160),
    "regnet_y_400mf": (104, 208, 440),
    "convnext_tiny": (192, 384, 768),
    "efficientnet_b0": (40, 112, 320),
    "shufflenet_v2_x0_5": (48, 96, 192),
    "mnasnet0_5": (24, 48, 160),
    "densenet121": (512, 1024, 1024),
    "googlenet": (480, 832, 1024),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # googlenet's own, about its initialisation
@pytest.mark.parametrize("name", FAMILIES)
def test_family_gives_strides_8_16_32(name: str) -> None:
    body, taps = build_body(name, (3, 4, 5))
    assert tuple(tap.channels for tap in taps) == FAMILIES[name]
    for module in (body.train(), body.eval()):
        with torch.no_grad():
            features = module(torch.rand(2, 3, 64, 96))
        shapes = [tuple(level.shape) for level in features.values()]
        assert shapes == [(2, c, 64 // s, 96 // s) for c, s in zip(FAMILIES[name], (8, 16, 32), strict=True)]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_parameters_keep_their_torchvision_names_and_the_classifier_is_gone(name: str) -> None:
    whole = get_model(name, weights=None).state_dict()
    body, _ = build_body(name, (3, 4, 5))
    own = body.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: whole[key].shape for key in own}
    assert not any(key.startswith(("fc.", "classifier.", "conv5.")) for key in own)


def test_taps_equal_the_network_run_by_hand() -> None:
    torch.manual_seed(0)
    body, _ = build_body("resnet18", (2, 3, 4, 5))
    network = get_model("resnet18", weights=None)
    network.load_state_dict(body.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    network.eval()
    x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
    for stage, level in zip((network.layer1, network.layer2, network.layer3), "234", strict=True):
        x = stage(x)
        torch.testing.assert_close(body.eval()(image)[level], x)


def test_frozen_batch_norm_does_not_move_in_training() -> None:
    body, _ = build_body("resnet18", (3, 4, 5), frozen_batch_norm=True)
    body.train()
    before = {name: value.clone() for name, value in body.named_buffers()}
    body(torch.rand(2, 3, 64, 64))
    assert before
    assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in body.modules()) == 20
    assert all(torch.equal(value, before[name]) for name, value in body.named_buffers())
    assert not any("bn" in name for name, _ in body.named_parameters())


def test_frozen_batch_norm_is_torchvisions_and_keeps_half_precision() -> None:
    trained = nn.Sequential(nn.BatchNorm2d(4, eps=1e-3))
    for tensor in (*trained.parameters(), trained[0].running_mean, trained[0].running_var):
        nn.init.uniform_(tensor, 0.5, 2.0)
    theirs = copy.deepcopy(trained)
    freeze_batch_norm(trained)
    freeze_batch_norm(theirs, FrozenBatchNorm2d)
    assert type(theirs[0]) is FrozenBatchNorm2d
    images = torch.randn(2, 4, 8, 8, requires_grad=True)
    ours = trained.train()(images)
    torch.testing.assert_close(ours, theirs(images))
    gradient = torch.randn_like(images)
    (mine,) = torch.autograd.grad(ours, images, gradient)
    torch.testing.assert_close(mine, torch.autograd.grad(theirs(images), images, gradient)[0])
    body, _ = build_body("resnet18", (3, 4, 5), frozen_batch_norm=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {features.dtype for features in body(torch.rand(1, 3, 64, 64)).values()} == {torch.bfloat16}


def moved_by_training_forward(backbone: PyramidBackbone) -> set[str]:
    """Stages of the body, such as ``layer2``, whose running statistics one forward in training changes."""
    before = {name: value.clone() for name, value in backbone.body.named_buffers()}
    backbone(torch.rand(2, 3, 64, 64))
    buffers: dict[str, Tensor] = dict(backbone.body.named_buffers())
    return {name.split(".")[0] for name in buffers if not torch.equal(buffers[name], before[name])}


def test_frozen_stem_neither_trains_nor_moves() -> None:
    backbone = PyramidBackbone("resnet18", channels=16, frozen_stem=True)
    frozen = {name.split(".")[0] for name, p in backbone.body.named_parameters() if not p.requires_grad}
    trained = {name.split(".")[0] for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert trained == {"layer2", "layer3", "layer4"}
    assert all(parameter.requires_grad for parameter in backbone.fpn.parameters())
    for model in (
        backbone,
        copy.deepcopy(backbone),
        backbone.eval().train(),
        nn.Sequential(backbone)[0].train(),
    ):
        assert moved_by_training_forward(model) == trained
    assert moved_by_training_forward(backbone.eval()) == set()


@pytest.mark.parametrize(
    ("name", "nodes", "stem"),
    [
        ("resnet18", ["layer2.0", "layer3", "layer4"], {"conv1", "bn1", "layer1"}),
        ("resnet18", ["layer2.1", "layer3", "layer4"], {"conv1", "bn1", "layer1", "layer2.0"}),
        ("shufflenet_v2_x0_5", None, {"conv1"}),
        ("mobilenet_v3_small", None, {"features.0", "features.1", "features.2"}),
    ],
)
def test_stem_ends_before_the_first_tap(name: str, nodes: list[str] | None, stem: set[str]) -> None:
    backbone = PyramidBackbone(name, channels=16, nodes=nodes, frozen_stem=True)
    for key, parameter in backbone.body.named_parameters():
        assert parameter.requires_grad != any(key.startswith(f"{part}.") for part in stem), key


def test_norms_of_a_body_without_learning_rate_do_not_move(small_detector) -> None:
    model = small_detector()
    build_optimiser(model, "sgd", learning_rate=0.1, backbone_rate=0.0)
    model.train()
    assert model.backbone.body.training
    assert moved_by_training_forward(model.backbone) == set()
    assert moved_by_training_forward(small_detector().train().backbone) > {"bn1", "layer1", "layer4"}


def test_nodes_can_be_named() -> None:
    _, taps = build_body("shufflenet_v2_x0_5", (3, 4, 5), nodes=["stage2", "stage3", "conv5"])
    assert [tap.channels for tap in taps] == [48, 96, 1024]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, r"no classification network 'resnet5'; did you mean .*resnet50"),
        ({"name": "retinanet_resnet50_fpn"}, "no classification network"),
        ({"name": "vit_b_16"}, "vit_b_16 does not take images of any size"),
        ({"name": "squeezenet1_1"}, "no stage of stride 8"),
        (
            {"name": "resnet18", "nodes": ["layer2", "layer3", "layer9"]},
            r"no module 'layer9'.*did you mean layer",
        ),
        (
            {"name": "resnet18", "nodes": ["layer1", "layer3", "layer4"]},
            "layer1 of resnet18 has stride 4.* needs 8",
        ),
    ],
)
def test_what_cannot_give_the_pyramid_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_body(**{"levels": (3, 4, 5), **arguments})


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        ((3, 4, 5), []),
        ((4, 5), []),
        ((5, 6), ["p6"]),
        ((3, 4, 5, 6, 7), ["p6", "p7"]),
        ((2, 3, 4, 5, 6), ["p6"]),
    ],
)
def test_pyramid_has_the_levels_asked_for(levels: tuple[int, ...], names: list[str]) -> None:
    backbone = PyramidBackbone("resnet18", levels=levels, channels=16).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 96, 160))
    rounded_up = [(1, 16, -(-96 // 2**level), -(-160 // 2**level)) for level in levels]
    assert [tuple(level.shape) for level in features] == rounded_up
    extra = {key.split(".")[2] for key in backbone.state_dict() if key.startswith("fpn.extra_blocks.")}
    assert sorted(extra) == names
    assert backbone.stride == 32


def test_levels_past_the_last_node_are_made_by_convolutions() -> None:
    backbone = PyramidBackbone("resnet18", levels=(3, 4, 5), channels=16, nodes=["layer2", "layer3"])
    assert "fpn.extra_blocks.p5.weight" in backbone.state_dict()
    assert backbone.stride == 16
    assert not any(key.startswith("body.layer4") for key in backbone.state_dict())


def test_extra_level_reads_what_is_asked_even_where_channels_agree() -> None:
    """torchvision's block guesses its source from the channels."""
    for source in ("pyramid", "backbone"):
        torch.manual_seed(0)
        backbone = PyramidBackbone("resnet18", levels=(4, 5, 6), channels=512, extra_from=source).eval()
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            features = backbone(image)
            read = features[1] if source == "pyramid" else backbone.body(image)["5"]
            expected = backbone.fpn.extra_blocks.p6(read)
        torch.testing.assert_close(features[2], expected)


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.levels: found \[6, 7\]; the first must be 5 or lower"):
        PyramidBackbone("resnet18", levels=(6, 7))
    with pytest.raises(ConfigError, match=r"model\.nodes: found 2 for 1 levels"):
        PyramidBackbone("resnet18", levels=(3,), nodes=["layer2", "layer3"])


@pytest.mark.parametrize("width", [1, 2])
def test_extra_levels_have_their_gradients_in_bfloat16_on_narrow_maps(width: int) -> None:
    """Of a map one column wide oneDNN leaves the weight's gradient unwritten, where the processor has bfloat16."""
    torch.manual_seed(0)
    extra = ExtraLevels((6, 7), 64, 64, "pyramid").to(memory_format=torch.channels_last)
    features = torch.randn(2, 64, 6, width).to(memory_format=torch.channels_last)
    gradients = []
    for half in (False, True, True, True):  # what lies in memory is different each time
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            levels, _ = extra([features], [], [])
        loss = sum(level.float().square().mean() for level in levels)
        gradients.append(torch.autograd.grad(loss, list(extra.parameters())))
    for found in gradients[1:]:
        for half, exact in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(half, exact, rtol=0.05, atol=0.02 * exact.abs().max().item())
