"""Where the loss and the gradient of a step come from, and how sure the detector is: what shows that it gets lazy.

A detector that answers "background" everywhere has a small loss. What gives it away is that the objects' share of the
gradient and the scores on them go down together. One step in a while is looked at, which costs next to nothing.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import match_anchors
from detkit.selection import Candidates

HARDEST = (0.01, 0.1)
"""Shares of the anchors that count, those with the highest loss."""


@dataclass
class StepLook:
    """Looks at one step: hand it to the criterion as ``observe``, and ask for ``values`` after the backward pass.

    Where a step has several batches, the last is looked at.

    Args:
        score_threshold: the least score of a detection.
        foreground_iou: the overlap with an object from which on an anchor is positive by itself.
    """

    score_threshold: float = 0.05
    foreground_iou: float = 0.5
    seconds: float = 0.0
    """What looking has taken by now, waiting for the GPU included; it is part of the step's time."""
    _seen: dict[str, Tensor] = field(default_factory=dict)
    _slopes: dict[int, Tensor] = field(default_factory=dict)
    _labels: Tensor | None = None
    _losses: Tensor | None = None

    def __call__(self, candidates: Candidates, losses: Tensor) -> None:
        """Take what a criterion computes from.

        Args:
            candidates: the anchors of the batch; the logits' gradients are listened for.
            losses: of each anchor after selection, [N, A].
        """
        started = time.perf_counter()
        with torch.no_grad():
            self._labels, self._losses = candidates.labels, losses.detach().float()
            self._seen = {**_scores(candidates, self.score_threshold), **self._unmatched(candidates)}
        for index, level in enumerate(candidates.outputs.logits):
            if level.requires_grad:
                level.register_hook(partial(self._take_slopes, index))
        self.seconds += time.perf_counter() - started

    def values(self) -> dict[str, float | None]:
        """What was seen, as fractions; None where there was nothing to see.

        - ``positive_loss``, ``positive_gradient``: the positive anchors' share in the classification loss, and in the
          sum of the gradient's sizes by the logits; the rest is the negatives'.
        - ``hardest_1_loss``, ``hardest_10_loss``, ``hardest_1_gradient``, ``hardest_10_gradient``: the shares of the
          1 % and 10 % of the anchors that count with the highest loss.
        - ``foreground_score``: the mean score that positive anchors give to their class; ``highest_score``: of all.
        - ``background_score``: the mean over the negative anchors of their highest score.
        - ``silent_images``: the share of the images with objects in which no score reaches the threshold.
        - ``unmatched_objects``: the share of the objects that no anchor overlaps enough.
        """
        started = time.perf_counter()
        values = {name: _number(value) for name, value in {**self._seen, **self._shares()}.items()}
        self.seconds += time.perf_counter() - started
        return values

    def _take_slopes(self, index: int, gradient: Tensor) -> None:
        started = time.perf_counter()
        self._slopes[index] = gradient.detach().abs().sum(dim=2, dtype=torch.float32)
        self.seconds += time.perf_counter() - started

    def _unmatched(self, candidates: Candidates) -> dict[str, Tensor]:
        boxes = [target["boxes"] for target in candidates.targets]
        matches = match_anchors(
            candidates.anchors,
            boxes,
            foreground_iou=self.foreground_iou,
            background_iou=self.foreground_iou,
            low_quality=False,
        )
        matched = sum(len(row[row >= 0].unique()) for row in matches)
        objects = sum(map(len, boxes))
        return {"unmatched_objects": torch.tensor(1 - matched / objects if objects else torch.nan)}

    def _shares(self) -> Mapping[str, Tensor]:
        if self._labels is None or self._losses is None:
            return {}
        parts = {"loss": self._losses}
        if self._slopes:
            parts["gradient"] = torch.cat([self._slopes[index] for index in sorted(self._slopes)], dim=1)
        positive, counts = self._labels >= 0, self._losses > 0
        shares = {f"positive_{name}": _share(values, positive) for name, values in parts.items()}
        for share in HARDEST:
            hardest = _hardest(self._losses, counts, share)
            for name, values in parts.items():
                shares[f"hardest_{share * 100:g}_{name}"] = _share(values.flatten(), hardest)
        return shares


def _scores(candidates: Candidates, threshold: float) -> dict[str, Tensor]:
    """How sure the detector is of objects and of background."""
    labels, highest = candidates.labels, candidates.scores()
    of_class = torch.cat(
        [
            level.gather(2, part.clamp(min=0).long()[..., None])[..., 0].float()
            for level, part in zip(
                candidates.outputs.logits,
                labels.split([level.shape[1] for level in candidates.outputs.logits], dim=1),
                strict=True,
            )
        ],
        dim=1,
    ).sigmoid()
    with_objects = torch.tensor(
        [len(target["boxes"]) > 0 for target in candidates.targets], device=labels.device
    )
    silent = (highest.masked_fill(labels == IGNORE, 0).amax(dim=1) < threshold).float()
    return {
        "foreground_score": of_class[labels >= 0].mean(),
        "highest_score": highest.amax(),
        "background_score": highest[labels == BACKGROUND].mean(),
        "silent_images": silent[with_objects].mean(),
    }


def _share(values: Tensor, part: Tensor) -> Tensor:
    """What a part has of the sum; the part is bool of the same shape, or indices of flat values."""
    return values[part].sum() / values.sum()


def _hardest(losses: Tensor, counts: Tensor, share: float) -> Tensor:
    """Indices of this share of the anchors that count, at least one, with the highest loss."""
    wanted = max(1, round(share * int(counts.sum())))
    return losses.flatten().topk(min(wanted, losses.numel())).indices


def _number(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else round(number, 6)
