"""Places in training images that the detector took for objects: remembered, so that it keeps learning against them.

The forward pass of a training step scores every anchor of its images. What it scores too high on background is noted
here, at no cost, and when a round ends it joins the regions that count as negatives whenever their image comes again,
wherever augmentation then puts it. A detector forgets what it no longer sees, so a region stays, however easy it has
become, until there is no room.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

from detkit.boxes import through_affine


@dataclass
class Regions:
    """Boxes in one image, and what is known of them."""

    boxes: Tensor
    """xyxy in pixels of the original image, float32 [R, 4]."""
    scores: Tensor
    """The latest, float32 [R]: how hard each still is."""
    rounds: Tensor
    """When it joined, int32 [R]; 0 is by chance, or because a person said so."""

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: Tensor) -> "Regions":
        """These rows: bool [R], or indices."""
        return Regions(self.boxes[rows], self.scores[rows], self.rounds[rows])

    def update(self, matches: Tensor, scores: Tensor) -> None:
        """Take the highest score [A] of the anchors that lie on each region, by the region's index [A] (< 0: none).

        A region that no anchor lies on, for it is out of sight, keeps the score it has.
        """
        on = matches >= 0
        index = matches[on].long()
        seen = torch.zeros(len(self), dtype=torch.bool).index_fill_(0, index, True)
        best = torch.zeros(len(self)).scatter_reduce_(0, index, scores[on], "amax")
        self.scores = torch.where(seen, best, self.scores)

    def followed_by(self, others: "Regions") -> "Regions":
        """These and then the others."""
        return Regions(
            torch.cat([self.boxes, others.boxes]),
            torch.cat([self.scores, others.scores]),
            torch.cat([self.rounds, others.rounds]),
        )


def no_regions() -> Regions:
    """None of them."""
    return Regions(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int32))


@dataclass
class NegativeRegions:
    """The regions of all images: those that count, and those that were noted since the last round ended.

    Args:
        capacity: of all images together; None has no end.
        overlap_iou: of two noted regions that overlap more, the harder one joins.
        accepted: what a person called background, xyxy in pixels of the original image, [R, 4] by image id: they join
            when the image is first seen.
    """

    capacity: int | None = None
    overlap_iou: float = 0.5
    accepted: Mapping[int, Tensor] = field(default_factory=dict)
    joined: int = 0
    """Rounds that have ended."""
    seen: int = 0
    """Images that were looked at since, each as often as it was."""
    closed: bool = False
    """No round follows, so that nothing more has to be noted."""
    _members: dict[int, Regions] = field(default_factory=dict)
    _noted: dict[int, Regions] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self._members.values()))

    @property
    def noted(self) -> int:
        """Regions that wait for the end of the round."""
        return sum(map(len, self._noted.values()))

    def knows(self, image_id: int) -> bool:
        """Whether the image has been seen."""
        return image_id in self._members

    def of(self, image_id: int) -> Regions:
        """The regions of an image that count."""
        return self._members.get(image_id, no_regions())

    def begin(self, image_id: int, boxes: Tensor) -> None:
        """Start the regions of an image that is seen for the first time, with boxes drawn by chance [R, 4]."""
        boxes = torch.cat([boxes, self.accepted.get(image_id, boxes[:0])])
        rounds = torch.zeros(len(boxes), dtype=torch.int32)
        self._members[image_id] = Regions(boxes, torch.zeros(len(boxes)), rounds)

    def note(self, image_id: int, boxes: Tensor, scores: Tensor) -> None:
        """Remember boxes [R, 4] that were taken for objects, and how sure of it the detector was [R]."""
        if self.closed:
            return
        new = Regions(boxes, scores, torch.full((len(boxes),), self.joined + 1, dtype=torch.int32))
        self._noted[image_id] = self._noted.get(image_id, no_regions()).followed_by(new)

    def end_round(self) -> int:
        """Let what was noted join, and make room where there is none; returns how many joined and stayed."""
        for image_id, noted in self._noted.items():
            kept = noted.select(nms(noted.boxes, noted.scores, self.overlap_iou))
            self._members[image_id] = self.of(image_id).followed_by(kept)
        self.forget_noted()
        self.joined += 1
        self._make_room()
        return sum(int((regions.rounds == self.joined).sum()) for regions in self._members.values())

    def forget_noted(self) -> None:
        """Let what waits for the end of the round not join."""
        self._noted = {}
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors."""
        return {
            "joined": self.joined,
            "seen": self.seen,
            "closed": self.closed,
            "members": _flat(self._members),
            "noted": _flat(self._noted),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.joined, self.seen = state["joined"], state["seen"]
        self.closed = state["closed"]
        self._members = dict(_ragged(state["members"]))
        self._noted = dict(_ragged(state["noted"]))

    def _make_room(self) -> None:
        """The easiest go, of equal ones the latest."""
        excess = 0 if self.capacity is None else len(self) - self.capacity
        if excess <= 0:
            return
        scores = torch.cat([regions.scores for regions in self._members.values()])
        stays = torch.ones(len(scores), dtype=torch.bool)
        stays[torch.argsort(scores.flip(0), stable=True)[:excess].neg() + len(scores) - 1] = False
        parts = stays.split([len(regions) for regions in self._members.values()])
        for image_id, rows in zip(self._members, parts, strict=True):
            self._members[image_id] = self._members[image_id].select(rows)


def on_canvas(boxes: Tensor, to_canvas: Tensor) -> Tensor:
    """Boxes [R, 4] of an original image, through an affine map [2, 3]: the boxes around where they are now."""
    return through_affine(boxes, to_canvas)


def on_original(boxes: Tensor, to_canvas: Tensor) -> Tensor:
    """Boxes [R, 4] of a canvas, back to where they were in the original image."""
    square = torch.cat([to_canvas, to_canvas.new_tensor([[0.0, 0.0, 1.0]])])
    return through_affine(boxes, torch.linalg.inv(square)[:2])


def in_sight(boxes: Tensor, size: Tensor) -> Tensor:
    """Which boxes [R, 4] have their centre in an image of ``size``, (height, width) [2]: bool [R]."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= 0) & (centres <= size.flip(0))).all(dim=1)


def _flat(members: dict[int, Regions]) -> dict[str, Tensor]:
    regions = list(members.values()) or [no_regions()]
    return {
        "image_ids": torch.tensor(list(members), dtype=torch.int64),
        "counts": torch.tensor([len(one) for one in members.values()], dtype=torch.int64),
        "boxes": torch.cat([one.boxes for one in regions]),
        "scores": torch.cat([one.scores for one in regions]),
        "rounds": torch.cat([one.rounds for one in regions]),
    }


def _ragged(state: dict[str, Tensor]) -> Iterator[tuple[int, Regions]]:
    counts = state["counts"].tolist()
    columns = (state[name].split(counts) for name in ("boxes", "scores", "rounds"))
    for image_id, *parts in zip(state["image_ids"].tolist(), *columns, strict=True):
        yield image_id, Regions(*(part.clone() for part in parts))
