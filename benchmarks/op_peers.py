"""detkit's ops, and what else computes the same: torchvision, torch.compile; and a plain copy, the floor.

Each function here takes a case's inputs and returns an :class:`Implementation`, or raises :class:`UnavailableError`.
The losses are sums over all anchors, without a normaliser: the peers are spared that part of their work.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from memory import tensor_bytes
from op_cases import LossCase, LossInputs, MatchingCase, MatchingInputs, level_views
from timing import Call
from torch import Tensor

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import match_anchors, sigmoid_focal_loss

ALPHA = 0.25
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.4
DETKIT, TORCHVISION, COMPILED, COPY = "detkit", "torchvision", "torch.compile", "copy"
FORWARD, BACKWARD, BOTH = "forward", "backward", "forward+backward"


class UnavailableError(Exception):
    """An implementation that cannot run here; the message says why."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op on inputs that it holds."""

    forward: Callable[[], Any]
    leaves: tuple[Tensor, ...] = ()
    """What the result is differentiated by."""
    countable: bool = True
    """Whether its ops can be watched one by one."""

    def call(self, passes: str) -> Call:
        if not self.leaves or passes == FORWARD:
            return Call(self.forward)
        if passes == BACKWARD:
            return Call(self._gradients, prepare=self.forward)
        return Call(lambda: self._gradients(self.forward()))

    def _gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, self.leaves)


def detkit_loss(inputs: LossInputs) -> Implementation:
    """The op on the head's outputs of every level, where they lie."""

    def loss() -> Tensor:
        levels = level_views(inputs.outputs, inputs.case.classes)
        return sigmoid_focal_loss(levels, inputs.labels, alpha=ALPHA, gamma=2.0).sum()

    return Implementation(loss, tuple(inputs.outputs))


def torchvision_loss(inputs: LossInputs) -> Implementation:
    """torchvision's loss as its RetinaNet calls it: per image, on one-hot targets and the anchors that count.

    The concatenation of the levels, which its head does before, is left out.
    """
    focal_loss = _import_torchvision().ops.sigmoid_focal_loss
    logits = inputs.concatenated

    def loss() -> Tensor:
        losses = []
        for image_logits, labels in zip(logits, inputs.labels, strict=True):
            foreground = labels >= 0
            one_hot = torch.zeros_like(image_logits)
            one_hot[foreground, labels[foreground]] = 1.0
            counts = labels != IGNORE
            losses.append(focal_loss(image_logits[counts], one_hot[counts], alpha=ALPHA, reduction="sum"))
        return torch.stack(losses).sum()

    return Implementation(loss, (logits,))


class IntegerLabelLoss(torch.autograd.Function):
    """The focal loss [N, A] for gamma 2 from integer labels, in tensor expressions that a compiler fuses.

    The fastest of those that were tried under torch.compile. Its gradient is written out, which came out ahead
    of what the compiler derives. It reads the logits [N, A, K] in one tensor; making that is left out.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        miss, cross_entropy, factor = _terms(logits, labels)
        return (miss**2 * cross_entropy * factor).sum(dim=2) * (labels != IGNORE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels = ctx.saved_tensors
        miss, cross_entropy, factor = _terms(logits, labels)
        sign = torch.where(_is_class(logits, labels), -1.0, 1.0)
        slope = miss**2 * (miss + 2 * (1 - miss) * cross_entropy) * factor * sign
        return (slope * (grad * (labels != IGNORE))[:, :, None]).to(logits.dtype), None


def _is_class(logits: Tensor, labels: Tensor) -> Tensor:
    return labels[:, :, None] == torch.arange(logits.shape[2], device=logits.device)


def _terms(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1 - p_t, -log(p_t) and alpha_t, with one exponential and one logarithm."""
    is_class = _is_class(logits, labels)
    away = torch.where(is_class, -logits.float(), logits.float())
    exponential = torch.exp(-away.abs())
    larger = 1 / (1 + exponential)
    miss = torch.where(away >= 0, larger, exponential * larger)
    cross_entropy = away.clamp(min=0) + torch.log1p(exponential)
    return miss, cross_entropy, torch.where(is_class, ALPHA, 1 - ALPHA)


def integer_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of :class:`IntegerLabelLoss` over all anchors."""
    return IntegerLabelLoss.apply(logits, labels).sum()


def compiled_loss(inputs: LossInputs) -> Implementation:
    """The integer-label formulation through torch.compile, for this very shape."""
    logits = inputs.concatenated
    torch.compiler.reset()
    mode = "max-autotune-no-cudagraphs" if logits.is_cuda else None
    compiled = torch.compile(integer_label_loss, dynamic=False, fullgraph=True, mode=mode)
    implementation = Implementation(lambda: compiled(logits, inputs.labels), (logits,), countable=False)
    try:
        implementation.call(BOTH).run()
    except torch.OutOfMemoryError:
        raise
    # A compiler fails in many ways, and none of them is this benchmark's.
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "no message")
        raise UnavailableError(f"torch.compile failed: {type(error).__name__}: {reason}") from error
    return implementation


def copied_logits(inputs: LossInputs) -> Implementation:
    """A copy of the logits into memory that is already there."""
    target = torch.empty_like(inputs.memory)
    return Implementation(lambda: target.copy_(inputs.memory))


def detkit_matching(inputs: MatchingInputs) -> Implementation:
    """The op on all images at once."""
    thresholds = {"foreground_iou": FOREGROUND_IOU, "background_iou": BACKGROUND_IOU}
    return Implementation(lambda: match_anchors(inputs.anchors, inputs.boxes, low_quality=True, **thresholds))


def torchvision_matching(inputs: MatchingInputs) -> Implementation:
    """torchvision's box_iou and Matcher as its RetinaNet calls them: per image, and not without boxes."""
    torchvision = _import_torchvision()
    from torchvision.models.detection._utils import Matcher

    matcher = Matcher(FOREGROUND_IOU, BACKGROUND_IOU, allow_low_quality_matches=True)
    anchors = inputs.anchors

    def match(boxes: Tensor) -> Tensor:
        if len(boxes) == 0:
            return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
        return matcher(torchvision.ops.box_iou(boxes, anchors))

    return Implementation(lambda: [match(boxes) for boxes in inputs.boxes])


def copied_anchors(inputs: MatchingInputs) -> Implementation:
    """A copy of the anchors, once for all images, into memory that is already there."""
    target = torch.empty_like(inputs.anchors)
    return Implementation(lambda: target.copy_(inputs.anchors))


def _import_torchvision() -> Any:
    try:
        import torchvision
        import torchvision.models.detection
    # A torchvision of another torch fails with a RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(f"torchvision cannot be imported: {error}") from error
    return torchvision


LOSSES: dict[str, Callable[[LossInputs], Implementation]] = {
    DETKIT: detkit_loss,
    TORCHVISION: torchvision_loss,
    COMPILED: compiled_loss,
    COPY: copied_logits,
}
MATCHINGS: dict[str, Callable[[MatchingInputs], Implementation]] = {
    DETKIT: detkit_matching,
    TORCHVISION: torchvision_matching,
    COPY: copied_anchors,
}
TORCHVISION_LOSS_COPIES = (13, 7)
"""Tensors at the peak of torchvision's loss, as measured: of the size of all logits, and of one image's."""
TORCHVISION_BYTES_PER_PAIR = 45
"""Memory of one anchor and one box at the peak of torchvision's matching, as measured from 100 boxes on."""


def needed_bytes(case: LossCase | MatchingCase, name: str) -> int:
    """Memory that an implementation takes beside the inputs that all of them share."""
    if isinstance(case, MatchingCase):
        pairs = case.anchors * case.boxes if name == TORCHVISION else 0
        return TORCHVISION_BYTES_PER_PAIR * pairs + 24 * case.images * case.anchors
    of_all, of_one_image = TORCHVISION_LOSS_COPIES
    copies = {DETKIT: 1, TORCHVISION: 1 + of_all + of_one_image / case.images, COMPILED: 3, COPY: 1}
    return math.ceil(copies[name] * case.logit_bytes)


def least_bytes(inputs: LossInputs | MatchingInputs, passes: str) -> int:
    """The fewest bytes that a pass can move: each input read once and each output written once.

    Forward reads the logits and labels; backward reads both again and writes the gradients.
    """
    if isinstance(inputs, MatchingInputs):
        matches = 4 * inputs.case.images * inputs.case.anchors
        return tensor_bytes([inputs.anchors, inputs.boxes]) + matches
    forward = inputs.case.logit_bytes + tensor_bytes(inputs.labels)
    backward = forward + inputs.case.logit_bytes
    return {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}[passes]
