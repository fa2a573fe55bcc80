"""The sections of an experiment: data, model, losses, optimiser, loop, measuring."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from detkit.config.values import Count, Finite, Metric, NotNegative, Positive, Section, Share


class Split(Section):
    """One COCO file and the folder its file names start from, both relative to ``data.root``."""

    annotations: str
    images: str


class Resize(Section):
    """Resize to a shorter side, without letting the longer side pass its limit (torchvision's rule)."""

    shorter: int | list[int]
    """Pixels; of a list, training draws one per image and evaluation takes the last."""
    longest: int

    @field_validator("shorter", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        for size in value if isinstance(value, list) and value else [value]:
            if not isinstance(size, int) or isinstance(size, bool) or size < 16:
                raise ValueError("must be a whole number of at least 16, or a list of them")
        return value

    @model_validator(mode="after")
    def _shorter_is_not_longer(self) -> "Resize":
        largest = self.shorter if isinstance(self.shorter, int) else max(self.shorter)
        if largest > self.longest:
            raise ValueError(f"shorter ({largest}) must not exceed longest ({self.longest})")
        return self


class Background(Section):
    """Images without objects, which take part of every batch, whatever the strategy."""

    images: str
    """Folder, relative to ``data.root``."""
    state: Literal["verified-empty", "unverified"]
    """Whether somebody looked and found no object there."""
    share: Annotated[Finite, Field(gt=0, lt=1)]
    """Of every batch, at least one image; the others are those of ``train``."""


class Data(Section):
    """Where images and annotations come from, and what happens to them on the way to the model."""

    root: str | None = None
    """Folder that the splits are relative to; null takes it from --data-root or DETKIT_DATA_ROOT."""
    train: Split
    val: Split
    test: Split | None = None
    background: Background | None = None
    marks: str | None = None
    """A file of review marks, saved from diagnosis.html: what was rejected there is never a negative."""
    classes: list[str] | None = None
    """Narrow the set to these classes; the others become background. Null keeps all."""
    resize: Resize
    augment: list[dict[str, Any]] = []
    """albumentations by name, e.g. ``{name: HorizontalFlip, p: 0.5}``; training only, after the resize."""
    min_visible: Share = 0.1
    """A box of which augmentation leaves less than this share is dropped."""
    workers: Annotated[int, Field(ge=0)] = 2


class Model(Section):
    """RetinaNet over a torchvision backbone."""

    backbone: str = "resnet50"
    nodes: list[str] | None = None
    """Backbone modules to tap, finest first; null finds the last of each stride."""
    weights: str | None = None
    """Null, a torchvision weights name (``ResNet50_Weights.IMAGENET1K_V2``) or a file."""
    frozen_batch_norm: bool = False
    frozen_stem: bool = False
    """What comes before the first tapped module neither trains nor updates its batch norm statistics."""
    levels: Annotated[list[Annotated[int, Field(ge=2, le=7)]], Field(min_length=1)] = [3, 4, 5, 6, 7]
    """Pyramid levels; level l has stride 2**l. Those past the backbone's last are made by strided convs."""
    extra_from: Literal["pyramid", "backbone"] = "pyramid"
    """What level 6 reads: P5 (torchvision's v1) or C5 (the paper, torchvision's v2)."""
    pyramid_channels: Count = 256
    head_depth: Annotated[int, Field(ge=0, le=16)] = 4
    head_norm: Literal["none", "group"] = "none"
    head_activation: Literal["relu", "silu", "gelu", "leaky_relu", "hardswish"] = "relu"
    dropout: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    anchor_sizes: list[Annotated[list[Positive], Field(min_length=1)]]
    """Anchor sides in pixels, one list per level."""
    anchor_ratios: Annotated[list[Positive], Field(min_length=1)] = [0.5, 1.0, 2.0]
    """Height over width."""
    prior: Annotated[Finite, Field(gt=0, lt=1)] = 0.01
    """Foreground probability of every anchor before training (focal loss paper, section 4.1)."""
    mean: Annotated[list[Finite], Field(min_length=3, max_length=3)] = [0.485, 0.456, 0.406]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)] = [0.229, 0.224, 0.225]

    @model_validator(mode="after")
    def _levels_and_sizes_agree(self) -> "Model":
        if self.levels != list(range(self.levels[0], self.levels[0] + len(self.levels))):
            raise ValueError(f"levels must be consecutive and ascending, found {self.levels}")
        if len(self.anchor_sizes) != len(self.levels):
            raise ValueError(
                f"anchor_sizes has {len(self.anchor_sizes)} lists for {len(self.levels)} levels; give one per level"
            )
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError(
                "anchor_sizes must have the same number of sizes on every level: the head is shared"
            )
        return self


class Loss(Section):
    """Weighting of the classification loss, and the box loss.

    gamma 0 with alpha null is cross entropy, gamma 0 with an alpha balanced cross entropy, else focal loss.
    """

    alpha: Share | None = 0.25
    gamma: NotNegative = 2.0
    box: Literal["smooth_l1", "giou"] = "smooth_l1"
    box_beta: NotNegative = 0.0
    """Where smooth L1 turns from square to straight, in encoded units; 0 is plain L1."""
    box_weight: NotNegative = 1.0


class Matcher(Section):
    """Which anchors are an object, background or neither (focal loss paper, section 4)."""

    foreground_iou: Share = 0.5
    background_iou: Annotated[Finite, Field(gt=0, le=1)] = 0.4
    low_quality: bool = True
    """An object keeps its best anchors even below ``foreground_iou``."""

    @model_validator(mode="after")
    def _thresholds_in_order(self) -> "Matcher":
        if self.background_iou > self.foreground_iou:
            raise ValueError(
                f"background_iou ({self.background_iou}) must not exceed foreground_iou ({self.foreground_iou})"
            )
        return self


class Optimiser(Section):
    """Mini-batch gradient descent."""

    name: Literal["sgd", "rmsprop", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.01
    backbone_rate: NotNegative = 1.0
    """The backbone's learning rate as a multiple; 0 freezes it."""
    momentum: Annotated[Finite, Field(ge=0, lt=1)] = 0.9
    """Of sgd and rmsprop; the first beta of adam and adamw."""
    weight_decay: NotNegative = 1e-4
    """L2; decoupled for adamw."""
    norm_weight_decay: NotNegative | None = None
    """Of norm layers and biases; null is as ``weight_decay``."""


class Schedule(Section):
    """The learning rate over the steps of a run, as a multiple of ``optimiser.learning_rate``."""

    name: Literal["constant", "step", "cosine", "one_cycle"] = "step"
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Linear; for one_cycle the rising part of its cycle."""
    warmup_factor: Share = 0.001
    milestones: list[Share] = [0.667, 0.889]
    """Of step: shares of the run after which the rate is multiplied by ``decay``."""
    decay: Positive = 0.1
    final_factor: NotNegative = 0.0
    """Of cosine and one_cycle: the multiple reached at the end."""


class EarlyStopping(Section):
    """Stop when a metric has not improved for a number of validations."""

    patience: Count
    min_gain: NotNegative = 0.0


class Training(Section):
    """The loop."""

    epochs: Count = 12
    steps: Count | None = None
    """The run's length in steps, in place of epochs; null takes the epochs."""
    batch_size: Count = 16
    """Images per step and process."""
    accumulate: Count = 1
    """Batches per step, which count as one: losses are divided by the positives of all of them."""
    clip_norm: Positive | None = None
    ema_decay: Annotated[Finite, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the weights and evaluate that."""
    validate_every: Count = 1
    """Epochs."""
    metric: Metric = "AP"
    """Chooses the best checkpoint, and early stopping watches it."""
    early_stopping: EarlyStopping | None = None
    checkpoint_every: Count | None = None
    """Steps between checkpoints inside an epoch; null saves at the end of each epoch."""
    log_every: Count = 20
    """Steps."""
    tensorboard: bool = False


class PostProcess(Section):
    """From dense outputs to detections."""

    score_threshold: Annotated[Finite, Field(ge=0, lt=1)] = 0.05
    nms_iou: Share = 0.5
    candidates_per_level: Count = 1000
    detections_per_image: Count = 100


class Evaluation(Section):
    """Measuring."""

    backend: Literal["pycocotools", "fast"] = "pycocotools"
    batch_size: Count = 16
    score: Share = 0.5
    """Score at which precision, recall and F1 are reported."""
