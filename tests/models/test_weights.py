"""Weights files: what is loaded, what is not, and what a user is told."""

import hashlib
import pickle

import pytest
import torch
from torchvision.models import WeightsEnum, get_model

from detkit.errors import WeightsError
from detkit.models import load_weights, require_weights, weights
from detkit.structures import ImageBatch


def equal_states(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_whole_detector_and_checkpoint(small_detector, tmp_path) -> None:
    source = small_detector("mobilenet_v3_small")
    torch.save(source.state_dict(), tmp_path / "state.pth")
    torch.save({"model": source.state_dict(), "step": 7}, tmp_path / "checkpoint.pth")
    for name in ("state.pth", "checkpoint.pth"):
        model = small_detector("mobilenet_v3_small")
        assert not equal_states(model.state_dict(), source.state_dict())
        report = load_weights(model, tmp_path / name)
        assert equal_states(model.state_dict(), source.state_dict())
        assert report.part == "detector"
        assert report.loaded == tuple(source.state_dict())
        assert report.missing + report.mismatched + report.unused == ()
        assert str(report) == f"{tmp_path / name}: {len(report.loaded)} tensors loaded into the detector"


def test_classification_network_fills_the_backbone(small_detector, tmp_path) -> None:
    network = get_model("resnet18", weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    for frozen in (False, True):
        model = small_detector(frozen_batch_norm=frozen)
        report = load_weights(model, tmp_path / "resnet18.pth")
        assert report.part == "backbone"
        assert report.missing == ()
        assert report.unused == ("fc.weight", "fc.bias")
        filled = model.state_dict()["backbone.body.layer4.1.conv2.weight"]
        assert torch.equal(filled, network.layer4[1].conv2.weight)
    assert "in the file but not used: fc.weight, fc.bias" in str(report)


def test_trunk_without_its_last_layers(small_detector, tmp_path) -> None:
    state = get_model("shufflenet_v2_x0_5", weights=None).state_dict()
    trunk = {
        name: value for name, value in state.items() if name.startswith(("conv1.", "stage2.", "stage3."))
    }
    torch.save(trunk, tmp_path / "trunk.pth")
    model = small_detector("shufflenet_v2_x0_5")
    report = load_weights(model, tmp_path / "trunk.pth")
    assert report.unused == ()
    assert len(report.loaded) == len(trunk)
    assert report.missing
    assert all(name.startswith("backbone.body.stage4.") for name in report.missing)
    assert "left as initialised, not in the file: backbone.body.stage4.0.branch1.0.weight" in str(report)


def test_published_trunk_fills_the_backbone_whole(small_detector, shared_folder) -> None:
    model = small_detector("shufflenet_v2_x0_5")
    report = load_weights(model, shared_folder / "weights" / "shufflenetv2_x0_5-trunk-imagenet.pth")
    assert report.part == "backbone"
    assert report.missing + report.mismatched + report.unused == ()


def test_other_number_of_classes_leaves_the_classification_layer(small_detector, tmp_path) -> None:
    source = small_detector("mobilenet_v3_small")
    torch.save(source.state_dict(), tmp_path / "three.pth")
    model = small_detector("mobilenet_v3_small", class_names=("cat", "dog"))
    before = model.head.classification_head.cls_logits.weight.clone()
    report = load_weights(model, tmp_path / "three.pth")
    assert torch.equal(model.head.classification_head.cls_logits.weight, before)
    assert report.mismatched == (
        "head.classification_head.cls_logits.weight (file (18, 32, 3, 3), model (12, 32, 3, 3))",
        "head.classification_head.cls_logits.bias (file (18,), model (12,))",
    )
    assert "left as initialised, of another shape: head.classification_head.cls_logits" in str(report)
    assert torch.equal(
        model.head.regression_head.bbox_reg.weight, source.head.regression_head.bbox_reg.weight
    )


def test_known_class_names_are_followed(small_detector, tmp_path) -> None:
    source = small_detector("mobilenet_v3_small").eval()
    with torch.no_grad():
        source.head.classification_head.cls_logits.bias += torch.arange(18.0)
    torch.save({"model": source.state_dict(), "class_names": ["cat", "dog", "owl"]}, tmp_path / "c.pth")
    model = small_detector("mobilenet_v3_small", class_names=("owl", "cat")).eval()
    report = load_weights(model, tmp_path / "c.pth")
    assert report.mismatched == ()
    image = torch.rand(1, 3, 64, 64)
    batch = ImageBatch(image, ((64, 64),), ((64, 64),))
    with torch.no_grad():
        for theirs, ours in zip(source.dense(batch).logits, model.dense(batch).logits, strict=True):
            torch.testing.assert_close(ours, theirs[..., [2, 0]])


def test_other_class_names_leave_the_classification_layer(small_detector, tmp_path) -> None:
    """As many classes as the model has, or more, but not the same."""
    source = small_detector("mobilenet_v3_small")
    torch.save({"model": source.state_dict(), "class_names": ["cat", "dog", "owl"]}, tmp_path / "c.pth")
    for names in (("car", "bus", "cat"), ("cat", "bus")):
        model = small_detector("mobilenet_v3_small", class_names=names)
        before = {
            name: value.clone()
            for name, value in model.head.classification_head.cls_logits.state_dict().items()
        }
        report = load_weights(model, tmp_path / "c.pth")
        assert equal_states(model.head.classification_head.cls_logits.state_dict(), before)
        layer = tuple(f"head.classification_head.cls_logits.{name}" for name in ("weight", "bias"))
        assert report.other_classes == layer
        assert report.missing + report.mismatched + report.unused == ()
        assert set(report.loaded) == set(source.state_dict()) - set(layer)
        assert f"left as initialised, class names differ: {', '.join(layer)}" in str(report)


def test_other_input_normalisation_is_reported(small_detector, tmp_path) -> None:
    source = small_detector("mobilenet_v3_small")
    model = small_detector("mobilenet_v3_small")
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    for stored, differs in (
        (imagenet, False),
        ({**imagenet, "mean": [0.5, 0.5, 0.5]}, True),
        ({**imagenet, "std": [0.229, 0.224, 0.5]}, True),
        ({}, False),
    ):
        content = {"model": source.state_dict(), "config": {"model": {"backbone": "mobilenet", **stored}}}
        torch.save(content, tmp_path / "c.pth")
        report = load_weights(model, tmp_path / "c.pth")
        assert ("input normalisation differs" in str(report)) == differs
        assert len(report.loaded) == len(source.state_dict())
    torch.save(
        {"model": source.state_dict(), "config": {"model": {"mean": [0.5] * 3, "std": [1.0] * 3}}},
        tmp_path / "c.pth",
    )
    assert str(load_weights(model.float(), tmp_path / "c.pth")).splitlines()[1] == (
        "  input normalisation differs: mean [0.5, 0.5, 0.5] and std [1.0, 1.0, 1.0] in the file, "
        "mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225] in the model"
    )
    for strange in ([1], {"model": [1]}, {"model": {"mean": 0.5, "std": 0.5}}):
        torch.save({"model": source.state_dict(), "config": strange}, tmp_path / "c.pth")
        assert load_weights(model, tmp_path / "c.pth").normalisation is None


def test_published_detector_is_recognised_by_its_content(small_detector, tmp_path, monkeypatch) -> None:
    """Its classes are then known by name, and the epsilon of its batch norm."""
    published = weights.RetinaNet_ResNet50_FPN_Weights.COCO_V1
    names = tuple(str(index) for index in range(len(published.meta["categories"])))
    source = small_detector(class_names=names, frozen_batch_norm=True).eval()
    torch.save(source.state_dict(), tmp_path / "renamed.pth")
    digest = hashlib.sha256((tmp_path / "renamed.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "_hash_in_name", lambda url: digest[:8] if url == published.url else "none")
    model = small_detector(class_names=("zebra", "person"), frozen_batch_norm=True).eval()
    report = load_weights(model, tmp_path / "renamed.pth")
    assert report.mismatched == ()
    index = [published.meta["categories"].index(name) for name in ("zebra", "person")]
    theirs = source.head.classification_head.cls_logits.weight.view(6, 91, -1)
    assert torch.equal(model.head.classification_head.cls_logits.weight.view(6, 2, -1), theirs[:, index])
    ratio = model.backbone.body.bn1.weight / source.backbone.body.bn1.weight
    torch.testing.assert_close(ratio, torch.full_like(ratio, (1 + 1e-5) ** 0.5), rtol=1e-7, atol=0)


def test_hashes_of_the_published_detectors() -> None:
    assert [weights._hash_in_name(w.url) for w in weights._PUBLISHED_DETECTORS] == ["eeacb38b", "5905b1c5"]


@pytest.mark.parametrize("name", ["ResNet18_Weights.IMAGENET1K_V1", "IMAGENET1K_V1", "DEFAULT"])
def test_torchvision_names_are_read_from_its_cache(small_detector, tmp_path, monkeypatch, name: str) -> None:
    network = get_model("resnet18", weights=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = small_detector()
    report = load_weights(model, name)
    assert report.source == name
    assert torch.equal(model.backbone.body.conv1.weight, network.conv1.weight)


def test_download_that_fails_says_what_to_fetch(small_detector, tmp_path, monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        WeightsError, match=r"no route to host.*fetch https://.*resnet18-f37072fd\.pth by other"
    ):
        load_weights(small_detector(), "DEFAULT")


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


def write_bad_file(path, kind: str) -> None:
    if kind == "garbage":
        path.write_bytes(b"not a weights file" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"model": Malicious()}, protocol=2))
    else:
        torch.save(
            {"tensor": torch.ones(3), "other": "text", "list": [1, 2], "stranger": {"weight": 1}}[kind], path
        )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("garbage", "not a file of weights"),
        ("empty", "not a file of weights"),
        ("cut", "not a file of weights"),
        ("pickle", "not a file of weights"),
        ("tensor", "holds Tensor, not a state dict"),
        ("other", "holds str, not a state dict"),
        ("list", "holds list, not a state dict"),
        ("stranger", "'weight' is not a tensor"),
    ],
)
def test_unreadable_files_are_refused(small_detector, tmp_path, capsys, kind: str, message: str) -> None:
    write_bad_file(tmp_path / "bad.pth", kind)
    with pytest.raises(WeightsError, match=f"bad.pth: .*{message}"):
        load_weights(small_detector("mobilenet_v3_small"), tmp_path / "bad.pth")
    assert "executed" not in capsys.readouterr().out


def test_other_architecture_is_refused(small_detector, tmp_path) -> None:
    torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), tmp_path / "mobile.pth")
    torch.save(get_model("resnet50", weights=None).state_dict(), tmp_path / "resnet50.pth")
    model = small_detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"none of its \d+ tensors has a place in this model; it holds features"
    ):
        load_weights(model, tmp_path / "mobile.pth")
    with pytest.raises(
        WeightsError, match=r"is not of a resnet18: \d+ shapes differ, first backbone\.body\."
    ):
        load_weights(model, tmp_path / "resnet50.pth")
    assert equal_states(model.state_dict(), before)


def test_unknown_name_lists_the_backbones_weights(small_detector) -> None:
    message = r"nowhere.pth: is neither a file nor .* those of resnet18 are ResNet18_Weights.IMAGENET1K_V1"
    with pytest.raises(WeightsError, match=message):
        load_weights(small_detector(), "nowhere.pth")
    with pytest.raises(WeightsError, match="neither a file nor"):
        load_weights(small_detector(), "ResNet18_Weights.IMAGENET1K_V9")


def test_whether_there_are_such_weights_is_known_without_reading_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(WeightsEnum, "get_state_dict", None)
    (tmp_path / "own.pth").touch()
    for name in (tmp_path / "own.pth", "DEFAULT", "IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"):
        require_weights(name, "resnet18")
    for name in (tmp_path / "nowhere.pth", "IMAGENET1K_V2"):
        with pytest.raises(WeightsError, match=r"neither a file nor .* those of resnet18 are"):
            require_weights(name, "resnet18")
