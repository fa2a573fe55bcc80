"""The focal loss of every anchor, read from the head's outputs where they lie."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detkit.ops import _library
from detkit.ops.reference import loss_dtype

FLOAT_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def sigmoid_focal_loss(
    logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss of each anchor, summed over its classes; gamma 0 is the cross entropy.

    -alpha_t (1 - p_t)^gamma log(p_t), p_t being the probability given to the truth of one class of one anchor
    (Lin et al., "Focal Loss for Dense Object Detection", 2017, section 3). It can be differentiated once.

    Args:
        logits: before the sigmoid, [N, A, K], or [N, A_l, K] for each level of a pyramid, of any strides;
            float64, float32, bfloat16 or float16. Read, and their gradients written, as each level lies.
        labels: int32 [N, A], over all levels in order: class index, BACKGROUND or IGNORE.
        weights: floating point [N, A], without gradient; None counts every anchor once. An anchor of weight 0
            or label IGNORE has a loss and a gradient of exactly 0.
        alpha: factor of the positives, from 0 to 1, that of the negatives being 1 - alpha; None for neither.
        gamma: how much easy examples fade, 0 or more.

    Returns:
        Loss [N, A], float32 (float64 for float64 logits).

    Raises:
        TypeError, ValueError: types, shapes, devices or parameters other than these.
        RuntimeError: a label that is none of these; on a GPU, which is not waited for, a loss of NaN instead. On a
            GPU also a level of which one image's part spans 2^31 elements or more.
    """
    levels = [logits] if isinstance(logits, Tensor) else list(logits)
    _check_levels(levels)
    _check_labels(labels, levels)
    _check_parameters(alpha, gamma)
    if weights is not None:
        _check_weights(weights, levels)
        weights = weights.to(loss_dtype(levels[0]))
    return torch.ops.detkit.sigmoid_focal_loss(levels, labels, weights, alpha=alpha, gamma=gamma)


def _check_levels(levels: list[Tensor]) -> None:
    """Refuse levels that do not belong to one pyramid."""
    if not levels:
        raise ValueError("sigmoid_focal_loss: logits are an empty list; expected [N, A_l, K] for each level")
    first = levels[0]
    for index, level in enumerate(levels):
        where = f"sigmoid_focal_loss: logits of level {index}"
        if level.dtype not in FLOAT_TYPES or level.dtype != first.dtype:
            raise TypeError(
                f"{where} are {level.dtype}; expected float64, float32, bfloat16 or float16, one for all levels"
            )
        if level.dim() != 3:
            raise ValueError(f"{where} have shape {list(level.shape)}; expected [N, A, K]")
        if (level.shape[0], level.shape[2]) != (first.shape[0], first.shape[2]):
            raise ValueError(
                f"{where} have shape {list(level.shape)} and those of level 0 {list(first.shape)}; "
                "expected the same number of images and of classes"
            )
        if level.device != first.device:
            raise ValueError(f"{where} are on {level.device} and those of level 0 on {first.device}")


def _check_labels(labels: Tensor, levels: list[Tensor]) -> None:
    _check_per_anchor(labels, "labels", levels)
    if labels.dtype != torch.int32:
        raise TypeError(
            f"sigmoid_focal_loss: labels are {labels.dtype}; expected int32, as labels.int() gives"
        )


def _check_weights(weights: Tensor, levels: list[Tensor]) -> None:
    _check_per_anchor(weights, "weights", levels)
    if not weights.is_floating_point():
        raise TypeError(f"sigmoid_focal_loss: weights are {weights.dtype}; expected floating point")
    if weights.requires_grad:
        raise ValueError("sigmoid_focal_loss: weights require a gradient, which they never get; detach them")


def _check_parameters(alpha: float | None, gamma: float) -> None:
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"sigmoid_focal_loss: alpha is {alpha}; expected a number from 0 to 1, or None")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"sigmoid_focal_loss: gamma is {gamma}; expected a number that is 0 or more")


def _check_per_anchor(tensor: Tensor, name: str, levels: list[Tensor]) -> None:
    """Refuse labels or weights that are not those of the anchors of all levels."""
    expected = [levels[0].shape[0], sum(level.shape[1] for level in levels)]
    if list(tensor.shape) != expected:
        raise ValueError(
            f"sigmoid_focal_loss: {name} have shape {list(tensor.shape)}; expected {expected}, "
            "the images and all anchors of the logits"
        )
    if tensor.device != levels[0].device:
        raise ValueError(
            f"sigmoid_focal_loss: {name} are on {tensor.device} and logits on {levels[0].device}"
        )


def _fake_loss(logits: Sequence[Tensor], labels: Tensor, weights: Tensor | None, **_: float | None) -> Tensor:
    return logits[0].new_empty(labels.shape, dtype=loss_dtype(logits[0]))


def _fake_gradients(
    grad: Tensor, logits: Sequence[Tensor], labels: Tensor, weights: Tensor | None, **_: float | None
) -> list[Tensor]:
    return [torch.empty_like(level) for level in logits]


def _save_inputs(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor
) -> None:
    logits, labels, weights = inputs
    ctx.save_for_backward(*logits, labels, weights)
    ctx.parameters = keyword_only_inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *logits, labels, weights = ctx.saved_tensors
    gradients = torch.ops.detkit.sigmoid_focal_loss_backward(grad, logits, labels, weights, **ctx.parameters)
    return gradients, None, None


def _refuse_second_derivative(ctx: Any, *grads: Any) -> None:
    # As torch's own functions that are once differentiable do.
    raise RuntimeError("sigmoid_focal_loss: it can be differentiated once, not twice (create_graph=True)")


_library.register_fake("sigmoid_focal_loss", _fake_loss)
_library.register_fake("sigmoid_focal_loss_backward", _fake_gradients)
_library.register_autograd("sigmoid_focal_loss", _backward, _save_inputs)
_library.register_autograd("sigmoid_focal_loss_backward", _refuse_second_derivative)
