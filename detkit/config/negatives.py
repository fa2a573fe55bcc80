"""Which background counts: the selections, and bootstrapping."""

from typing import Annotated, Literal

from pydantic import Field

from detkit.config.values import Amount, Count, Finite, NotNegative, Positive, Section, Share


class AllAnchors(Section):
    """Every anchor counts: cross entropy, balanced cross entropy and focal loss."""

    name: Literal["all"] = "all"


class RandomNegatives(Section):
    """Every positive counts, and negatives of the batch drawn by chance."""

    name: Literal["random"]
    ratio: Positive
    """Negatives for each positive."""
    minimum: Count
    """The fewest negatives of a batch."""


class HardNegatives(Section):
    """Every positive counts, and the negatives of the batch with the highest loss (SSD's hard negative mining)."""

    name: Literal["hard"]
    ratio: Positive
    """Negatives for each positive."""
    minimum: Count
    """The fewest negatives of a batch."""


class HardExamples(Section):
    """The anchors of each image with the highest loss count, after suppression (OHEM)."""

    name: Literal["ohem"]
    budget: Count
    """Anchors of each image."""
    nms_iou: Share
    shortlist: Count
    """Anchors of each image that suppression is given."""


class MinedNegatives(Section):
    """Every positive counts, and the background that bootstrapping mined (see ``Bootstrap``)."""

    name: Literal["mined"]
    initial: Amount = 16
    """Regions of each training image drawn by chance, which count from the start."""
    per_image: Amount = 64
    """Regions that one step may note of an image, the hardest; from the end of the round on they are remembered."""
    threshold: Share = 0.05
    """The least score of what is noted."""
    iou: Share = 0.5
    """From which overlap on an anchor lies on a region."""
    at_once: bool = True
    """What a step notes counts in that step already."""
    capacity: Count | None = None
    """Regions of all images together; when there are more, the easiest go. Null has no end."""


Selection = Annotated[
    AllAnchors | RandomNegatives | HardNegatives | HardExamples | MinedNegatives, Field(discriminator="name")
]


class Crops(Section):
    """Crops of false positives, which scans find, as canvases to train against."""

    sources: Annotated[list[Literal["pool", "train"]], Field(min_length=1)] = ["pool"]
    """What is scanned: the images of ``data.background``, of ``data.train``, or both."""
    share: Annotated[Finite, Field(gt=0, lt=1)] = 0.125
    """Canvases of every batch: in place of images of ``data.background`` where there are any, else of ``train``."""
    threshold: float | str = 0.1
    """The least score, or as "p50" the percentile of the scores of the scan's true positives."""
    per_image: Count = 8
    """Crops of one image in a round, the hardest."""
    per_round: Count = 2000
    """Crops of one round and source, the hardest."""
    context: Annotated[Finite, Field(ge=1)] = 2.0
    """Sides of a crop, as a multiple of the false positive's."""
    least_side: Count = 32
    """Pixels, at the detector's scale; a crop with a shorter side is dropped."""
    quarantine_score: Finite = 0.9
    """In an unverified pool, what scores this much may be an object: never a negative."""
    capacity: Count | None = 20000
    """Crops of all rounds together; when there are more, the easiest go. Null has no end."""


class Bootstrap(Section):
    """Training and mining in turn. Regions in place come with the selection ``mined``, crops from scans."""

    rounds: Annotated[list[Annotated[Finite, Field(gt=0, lt=1)]], Field(min_length=1)] = [
        *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    ]
    """Shares of the run's steps after which a round ends, ascending."""
    start: Literal["warm", "scratch"] = "warm"
    """What each round trains: the detector of the round before, or a new one."""
    crops: Crops | None = None
    """Null mines no crops."""
    parts: Count = 1
    """Of the pool; each round scans one of them, in turn."""
    least_acceptance: NotNegative = 0.0
    """Bootstrapping ends when a complete pass over all parts adds fewer crops per image than this; 0 never stops."""
    most_compute: Share = 1.0
    """Bootstrapping ends when mining has cost this share of what all steps of the run cost."""
    lost_recall: Share = 1.0
    """A round that loses more recall than this is undone, when the next one would begin; what follows the last round is
    not watched. 1 does not watch recall; to watch it costs a pass over ``data.val`` for each round."""
    false_positives: Positive = 1.0
    """Per image, at which recall is watched."""
