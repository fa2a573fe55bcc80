"""An exponential moving average of the weights, which usually detects better than the last weights do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """torch's ``AveragedModel`` with an exponential average; buffers are copied from the model.

    The average begins short and grows to ``decay``, so that the first random weights are soon forgotten.
    Call ``update_parameters(model)`` after each step.
    """

    def average(means: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        reached = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(means), list(new), 1 - reached)

    return AveragedModel(model, multi_avg_fn=average)
