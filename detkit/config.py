"""The schema of an experiment: one complete, flat YAML file, checked whole before anything runs.

Only the tools and ``detkit.build`` read a configuration; everything else receives plain arguments. Every key
has a range, an unknown key is refused, and all mistakes are reported at once with their full names.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from detkit.devices import Device, Precision
from detkit.errors import ConfigError

DATA_ROOT_VARIABLE = "DETKIT_DATA_ROOT"


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[int, Field(ge=0)]
Metric = Literal["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    """Regions that one step may note of an image, the hardest; they count from the end of the round on."""
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
    """Bootstrapping ends when a complete pass over all parts adds fewer crops per image than this."""
    most_compute: Share = 1.0
    """Bootstrapping ends when mining has cost this share of what all steps of the run cost."""
    lost_recall: Share = 1.0
    """A round that loses more recall than this is undone. 1 does not watch recall; to watch it costs a pass over
    ``data.val`` for each round."""
    false_positives: Positive = 1.0
    """Per image, at which recall is watched."""


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
    """Batches per step; a step takes the mean of their gradients."""
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


class Config(Section):
    """A whole experiment."""

    output: str
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Device = "auto"
    precision: Precision = "auto"
    """auto is bf16 on a GPU that has it, and on a CPU with bf16 instructions."""
    channels_last: bool = True
    data: Data
    model: Model
    loss: Loss = Loss()
    selection: Selection = AllAnchors()
    bootstrap: Bootstrap | None = None
    matcher: Matcher = Matcher()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    training: Training = Training()
    postprocess: PostProcess = PostProcess()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _rounds_have_something_to_do(self) -> "Config":
        mined = self.selection.name == "mined"
        if mined and self.bootstrap is None:
            raise ValueError("selection mined needs rounds of bootstrapping; add bootstrap={}")
        if self.bootstrap is not None and not mined and self.bootstrap.crops is None:
            raise ValueError(
                "bootstrap has nothing to mine; take the selection mined, or give bootstrap.crops"
            )
        crops = None if self.bootstrap is None else self.bootstrap.crops
        if crops is not None and "pool" in crops.sources and self.data.background is None:
            raise ValueError("bootstrap.crops.sources has pool, but there is no data.background")
        return self


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a name", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(
    path: str | os.PathLike,
    overrides: Sequence[str] = (),
    *,
    data_root: str | None = None,
    output: str | None = None,
) -> Config:
    """Read and check an experiment.

    Args:
        path: a YAML file.
        overrides: ``section.key=value`` texts, the value written as in YAML; the last one wins.
        data_root: replaces ``data.root``; where that is null, DETKIT_DATA_ROOT does.
        output: replaces ``output``.

    Raises:
        ConfigError: the file cannot be read, or any key is unknown, of a wrong type or out of range; every
            mistake is in the one message.
    """
    tree = _read_yaml(Path(path))
    for override in overrides:
        _apply_override(tree, override)
    if output is not None:
        tree["output"] = output
    return parse_config(with_data_root(tree, data_root), source=str(path))


def with_data_root(tree: dict[str, Any], data_root: str | None) -> dict[str, Any]:
    """The tree with ``data.root`` replaced; without one of its own or given, DETKIT_DATA_ROOT is it."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return tree
    root = data_root or data.get("root") or os.environ.get(DATA_ROOT_VARIABLE)
    return {**tree, "data": {**data, "root": root}}


def parse_config(tree: Any, *, source: str) -> Config:
    """Check an already parsed tree (of a YAML file or a checkpoint); ``source`` names it in errors."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError("\n".join([f"{source}: {len(lines)} mistake(s)", *lines])) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, not the keys of an experiment")
    return tree


def _apply_override(tree: dict, override: str) -> None:
    name, equals, text = override.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not key:
        raise ConfigError(f"{override!r}: an override is written section.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not YAML") from None
    for depth, section in enumerate(sections):
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"{override!r}: {'.'.join(sections[: depth + 1])} has no keys of its own")
    tree[key] = value


def _explain(item: Any) -> str:
    """One line for one of pydantic's errors."""
    where = ".".join(str(part) for part in item["loc"]) or "(the whole)"
    if item["type"] == "extra_forbidden":
        return f"  {where}: there is no such key"
    if item["type"] == "missing":
        return f"  {where}: is missing"
    found = f", found {item['input']!r}" if not isinstance(item["input"], dict) else ""
    message = item["msg"].removeprefix("Value error, ")
    return f"  {where}: {message[0].lower()}{message[1:]}{found}"
