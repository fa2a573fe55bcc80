"""The optimisers, with separate settings for the backbone and for norm layers and biases."""

from typing import Literal

from torch import nn, optim

NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)

OptimiserName = Literal["sgd", "rmsprop", "adam", "adamw"]


def build_optimiser(
    model: nn.Module,
    name: OptimiserName,
    *,
    learning_rate: float,
    backbone_rate: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    norm_weight_decay: float | None = None,
) -> optim.Optimizer:
    """Mini-batch SGD with momentum, RMSprop, Adam or AdamW over the parameters that train.

    Args:
        model: its ``backbone.body`` is the part that ``backbone_rate`` is for.
        learning_rate: of everything else.
        backbone_rate: the backbone's learning rate as a multiple; 0 freezes it, batch norm statistics included.
        momentum: of sgd and rmsprop; the first beta of adam and adamw.
        weight_decay: L2 penalty; decoupled for adamw.
        norm_weight_decay: that of norm layers and biases; None is as ``weight_decay``.
    """
    groups = parameter_groups(
        model, learning_rate, learning_rate * backbone_rate, weight_decay, norm_weight_decay
    )
    # fused: one sweep over weight, gradient and state, which must lie alike in memory, as autograd's gradients do.
    match name:
        case "sgd":
            return optim.SGD(groups, momentum=momentum, fused=True)
        case "rmsprop":
            return optim.RMSprop(groups, momentum=momentum)
        case "adam":
            return optim.Adam(groups, betas=(momentum, 0.999), fused=True)
        case "adamw":
            return optim.AdamW(groups, betas=(momentum, 0.999), fused=True)


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    backbone_rate: float,
    weight_decay: float,
    norm_weight_decay: float | None,
) -> list[dict]:
    """Parameters by learning rate and weight decay; a backbone of rate 0 stops asking for gradients."""
    norm_decay = weight_decay if norm_weight_decay is None else norm_weight_decay
    plain = _norms_and_biases(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in model.named_parameters():
        rate = backbone_rate if parameter_name.startswith("backbone.body.") else learning_rate
        if rate == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        decay = norm_decay if parameter_name in plain else weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _norms_and_biases(model: nn.Module) -> set[str]:
    """Names of the parameters that scale or shift."""
    names = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    for module_name, module in model.named_modules():
        if isinstance(module, NORM_LAYERS):
            names |= {f"{module_name}.{name}" for name, _ in module.named_parameters(recurse=False)}
    return names
