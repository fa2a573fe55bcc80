"""Weights from a file or from torchvision, fitted to a model, and what became of each tensor.

A file may hold a whole detector (ours, or torchvision's RetinaNet in its old and new key layout), a
checkpoint (a dict whose ``model`` is such a state, with ``class_names`` beside it where known), or a
classification network, complete or without its last layers, that fills the backbone.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights, get_weight
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights
from torchvision.ops import FrozenBatchNorm2d

from detkit.errors import WeightsError
from detkit.models.retinanet import RetinaNet

_BODY = "backbone.body."
_CLASS_LAYER = "head.classification_head.cls_logits."
_PUBLISHED_DETECTORS = (RetinaNet_ResNet50_FPN_Weights.COCO_V1, RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where; ``str(report)`` says it in a few lines."""

    source: str
    part: str
    """``detector`` or ``backbone``: what the file was taken for."""
    loaded: tuple[str, ...]
    """The model's tensors that were filled."""
    missing: tuple[str, ...]
    """Tensors of that part of the model that the file does not have; they stay as they were."""
    mismatched: tuple[str, ...]
    """Tensors whose shape differs, with both shapes; they stay as they were."""
    unused: tuple[str, ...]
    """Tensors of the file that the model has no place for."""
    other_classes: tuple[str, ...] = ()
    """The classification layer's tensors where the file's classes lack one of the model's; they stay too."""
    normalisation: str | None = None
    """The file's and the model's mean and std of the input, where they differ."""

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded into the {self.part}"]
        for title, names in (
            ("left as initialised, not in the file", self.missing),
            ("left as initialised, of another shape", self.mismatched),
            ("left as initialised, class names differ", self.other_classes),
            ("in the file but not used", self.unused),
        ):
            if names:
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"  {title}: {', '.join(names[:6])}{more}")
        if self.normalisation is not None:
            lines.append(f"  input normalisation differs: {self.normalisation}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Stored:
    """What a file or a download holds."""

    state: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    norm_epsilon: float | None = None
    normalisation: tuple[list[float], list[float]] | None = None
    """Mean and std of the input that the weights were trained with."""


def load_weights(model: RetinaNet, source: str | Path, *, norm_epsilon: float | None = None) -> LoadReport:
    """Fill a model, or its backbone, with what fits.

    Where the file's class names are known, the classification layer is filled by them if they include all of
    the model's, and else stays as it was; where they are not, it is filled if it has as many classes.

    Args:
        model: changed in place.
        source: a file; or torchvision's name of weights, as ``ResNet50_Weights.IMAGENET1K_V2`` or, for the
            model's own backbone, ``IMAGENET1K_V2`` or ``DEFAULT``.
        norm_epsilon: of the batch norm the weights were trained with, where it is not the model's. None
            recognises torchvision's published RetinaNet v1, which was trained with 0.

    Raises:
        WeightsError: the source cannot be read, or belongs to another architecture.
    """
    stored = _read(source, model.backbone.name)
    own = model.state_dict()
    prefix = _best_prefix(stored.state, own, source)
    state = _fitted(stored, prefix, model, norm_epsilon)
    other_classes = _drop_other_classes(state, stored.class_names, model.class_names)
    fitting = [name for name in own if name in state and state[name].shape == own[name].shape]
    mismatched = _mismatched(state, own)
    _check_architecture(mismatched, source, model.backbone.name)
    model.load_state_dict({name: state[name] for name in fitting}, strict=False)
    known = {*state, *other_classes}
    return LoadReport(
        source=str(source),
        part="backbone" if prefix else "detector",
        loaded=tuple(fitting),
        missing=tuple(n for n in own if n not in known and n.startswith(prefix) and not _is_counter(n)),
        mismatched=tuple(mismatched),
        unused=tuple(n.removeprefix(prefix) for n in state if n not in own and not _is_counter(n)),
        other_classes=other_classes,
        normalisation=_other_normalisation(stored, model),
    )


def require_weights(source: str | Path, backbone: str) -> None:
    """Make sure that there are such weights: a file, or torchvision's name; nothing is read or fetched.

    Raises:
        WeightsError: there are none.
    """
    if not Path(source).is_file():
        _find_published(str(source), backbone)


def _read(source: str | Path, backbone: str) -> _Stored:
    """Read a file, or fetch weights that torchvision publishes."""
    path = Path(source)
    if not path.is_file():
        weights = _find_published(str(source), backbone)
        try:
            content = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except Exception as error:
            raise WeightsError(
                f"{source}: cannot be fetched ({_first_line(error)}); fetch {weights.url} by other means and "
                "give the file's path"
            ) from None
        return _published(_state_of(content, source), weights)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any layer of the reader
        raise WeightsError(
            f"{source}: is not a file of weights that torch can read safely ({type(error).__name__}: "
            f"{_first_line(error)})"
        ) from None
    stored = _Stored(_state_of(content, source), normalisation=_normalisation_of(content))
    if _CLASS_LAYER + "weight" in stored.state:
        if names := content.get("class_names"):
            return replace(stored, class_names=tuple(names))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for weights in _PUBLISHED_DETECTORS:
            if digest.startswith(_hash_in_name(weights.url)):
                return _published(stored.state, weights)
    return stored


def _published(state: dict[str, Tensor], weights: WeightsEnum) -> _Stored:
    names = tuple(weights.meta["categories"]) if weights in _PUBLISHED_DETECTORS else None
    return _Stored(state, names, 0.0 if weights is RetinaNet_ResNet50_FPN_Weights.COCO_V1 else None)


def _hash_in_name(url: str) -> str:
    """The first digits of a published file's SHA-256, which torchvision puts into its name."""
    return url.rsplit("-", 1)[1].removesuffix(".pth")


def _find_published(name: str, backbone: str) -> WeightsEnum:
    """torchvision's weights by name: ``Family_Weights.MEMBER``, or a member of the backbone's family."""
    family = get_model_weights(backbone)
    if "." not in name and name in family.__members__:
        return family[name]
    try:
        return get_weight(name)
    except (ValueError, KeyError):
        known = [f"{family.__name__}.{member}" for member in family.__members__]
        raise WeightsError(
            f"{name}: is neither a file nor the name of torchvision weights; those of {backbone} are "
            f"{', '.join(known)}"
        ) from None


def _state_of(content: Any, source: str | Path) -> dict[str, Tensor]:
    """The state dict in a file's content, its names in the layout of today's torchvision."""
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{source}: holds {type(content).__name__}, not a state dict or a checkpoint")
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"{source}: holds no state dict: {strange[0]!r} is not a tensor")
    return {_modern_name(name): value for name, value in content.items()}


def _normalisation_of(content: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """Mean and std in the configuration that a checkpoint of ours carries."""
    config = content.get("config")
    model = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(model, Mapping):
        return None
    mean, std = model.get("mean"), model.get("std")
    # Another project's file may have such keys too.
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3:
        return mean, std
    return None


def _modern_name(name: str) -> str:
    """torchvision's older files number convolutions and activations of a tower in one row."""
    name = name.removeprefix("module.")
    if old := re.fullmatch(r"(head\.\w+\.conv)\.(\d+)\.(weight|bias)", name):
        return f"{old[1]}.{int(old[2]) // 2}.0.{old[3]}"
    return re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)


def _best_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path) -> str:
    """What the file's names lack: nothing for a detector, or the backbone's place in one."""
    matches = {prefix: sum(prefix + name in own for name in state) for prefix in ("", _BODY)}
    best = max(matches, key=lambda prefix: matches[prefix])
    if not matches[best]:
        raise WeightsError(
            f"{source}: none of its {len(state)} tensors has a place in this model; it holds "
            f"{', '.join(list(state)[:3])} ..., the model {', '.join(list(own)[:3])} ..."
        )
    return best


def _mismatched(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Names, with both shapes, of the tensors that are of another shape in the file."""
    return [
        f"{name} (file {tuple(state[name].shape)}, model {tuple(own[name].shape)})"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]


def _check_architecture(mismatched: Sequence[str], source: str | Path, backbone: str) -> None:
    """A classification layer or a pyramid may be of another size, a backbone may not."""
    body = [name for name in mismatched if name.startswith(_BODY)]
    if body:
        raise WeightsError(f"{source}: is not of a {backbone}: {len(body)} shapes differ, first {body[0]}")


def _fitted(stored: _Stored, prefix: str, model: RetinaNet, norm_epsilon: float | None) -> dict[str, Tensor]:
    """The stored tensors under the model's names, for its batch norm and its classes."""
    state = {prefix + name: value for name, value in stored.state.items()}
    epsilon = norm_epsilon if norm_epsilon is not None else stored.norm_epsilon
    if epsilon is not None:
        _rescale_norms(state, _batch_norms(model), epsilon)
    if stored.class_names is not None and set(model.class_names) <= set(stored.class_names):
        _select_classes(state, stored.class_names, model.class_names)
    return state


def _batch_norms(model: nn.Module) -> dict[str, float]:
    """Name and epsilon of each batch norm."""
    modules = model.named_modules()
    return {name: m.eps for name, m in modules if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)}


def _rescale_norms(state: dict[str, Tensor], own_norms: Mapping[str, float], epsilon: float) -> None:
    """Make batch norm trained with ``epsilon`` give the same under the model's own.

    Weight / sqrt(variance + epsilon) is all that matters, so that the weight can take up the difference, and
    a checkpoint of the model needs no note of it.
    """
    for norm, own_epsilon in own_norms.items():
        if f"{norm}.running_var" in state and f"{norm}.weight" in state:
            variance, weight = state[f"{norm}.running_var"].double(), state[f"{norm}.weight"]
            ratio = ((variance + own_epsilon) / (variance + epsilon)).sqrt()
            state[f"{norm}.weight"] = (weight * ratio).to(weight.dtype)


def _select_classes(state: dict[str, Tensor], stored: Sequence[str], wanted: Sequence[str]) -> None:
    """Reduce the classification layer to the classes that are wanted, in their order."""
    rows = torch.tensor([stored.index(name) for name in wanted])
    for key in (_CLASS_LAYER + "weight", _CLASS_LAYER + "bias"):
        if key in state and len(state[key]) % len(stored) == 0:
            per_class = state[key].unflatten(0, (-1, len(stored)))
            state[key] = per_class[:, rows].flatten(0, 1)


def _drop_other_classes(
    state: dict[str, Tensor], stored: Sequence[str] | None, wanted: Sequence[str]
) -> tuple[str, ...]:
    """Take a classification layer that lacks a wanted class out of the state; returns its tensors' names."""
    if stored is None or set(wanted) <= set(stored):
        return ()
    layer = tuple(name for name in state if name.startswith(_CLASS_LAYER))
    for name in layer:
        del state[name]
    return layer


def _other_normalisation(stored: _Stored, model: RetinaNet) -> str | None:
    """Both normalisations in words, where they differ."""
    if stored.normalisation is None:
        return None
    own = [[round(value, 6) for value in buffer.flatten().tolist()] for buffer in (model.mean, model.std)]
    if torch.allclose(torch.tensor(own), torch.tensor(stored.normalisation)):
        return None
    theirs = stored.normalisation
    return f"mean {theirs[0]} and std {theirs[1]} in the file, mean {own[0]} and std {own[1]} in the model"


def _is_counter(name: str) -> bool:
    """Batch norm counts its batches, frozen batch norm does not."""
    return name.endswith(".num_batches_tracked")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
