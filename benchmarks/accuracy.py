"""Train detkit's RetinaNet and torchvision's own side by side, and compare what they score.

Both start from the same weights, see the same augmented images in the same order, and take the same steps with the
same optimiser; anchors, head and backbone are the same. What differs is the code: torchvision matches, weighs and
selects by its own ``RetinaNet.compute_loss`` and ``postprocess_detections``. Both are measured by pycocotools.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detkit.builders import build_evaluation_transform, build_run
from detkit.config import Config, load_config
from detkit.console import print_table, run_tool, say
from detkit.errors import ConfigError
from detkit.evaluation import evaluate_boxes
from detkit.files import write_json
from detkit.inference import detection_table
from detkit.models import RetinaNet
from detkit.structures import ImageBatch, Target
from detkit.training.learner import Learner, on_device
from detkit.training.loop import Run
from detkit.training.optimiser import build_optimiser
from detkit.training.resume import checkpoint_to_resume
from detkit.training.run_log import read_log
from detkit.training.validation import Validator

METRICS = ("AP", "AP50", "AP75")
EXAMPLES = """example:
  python benchmarks/accuracy.py configs/bloodcells.yaml --data-root ~/data --output runs/accuracy --seeds 3 \\
      model.weights=weights/shufflenetv2_x0_5-trunk-imagenet.pth

DIR/accuracy.json holds every run's metrics on the validation images. A stopped benchmark goes on where it was.
"""


@dataclass(frozen=True)
class TorchvisionLearner(Learner):
    """Steps of torchvision's detector, which computes its losses itself."""

    def sums(
        self, images: ImageBatch, targets: Sequence[Target], observe: Callable[..., None] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        device = self.placement.device
        boxes_and_labels = [{"boxes": t["boxes"], "labels": t["labels"]} for t in on_device(targets, device)]
        with self.placement.autocast():
            losses = self.model(as_list(images.to(device)), boxes_and_labels)
        # They are divided already: batches that share a step are averaged.
        divided = {"classification": losses["classification"], "box": losses["bbox_regression"]}
        return divided, torch.ones((), device=device)


@dataclass(frozen=True)
class TorchvisionValidator(Validator):
    """Metrics of torchvision's detector; its losses in evaluation are not to be had."""

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> dict[str, Any]:
        model.eval()
        ids: list[int] = []
        found = []
        for images, _ in self.loader:
            with self.placement.autocast():
                detections = model(as_list(images.to(self.placement.device)))
            for one, size, original in zip(detections, images.sizes, images.original_sizes, strict=True):
                ratio = [original[1] / size[1], original[0] / size[0]] * 2
                found.append({**one, "boxes": one["boxes"] * torch.tensor(ratio, device=one["boxes"].device)})
            ids += images.image_ids
        table = detection_table(ids, found, self.category_ids)
        return {"loss": None, **evaluate_boxes(self.ground_truth, table, backend=self.backend).overall}


def as_list(images: ImageBatch) -> list[Tensor]:
    """Each image without its padding, from 0 to 1: what torchvision's detectors take."""
    pairs = zip(images.pixels, images.sizes, strict=True)
    return [pixels[:, :height, :width].float() / 255 for pixels, (height, width) in pairs]


def torchvision_twin(config: Config, ours: RetinaNet) -> TorchvisionRetinaNet:
    """torchvision's RetinaNet with the parts, sizes and weights of ours."""
    model, limits = config.model, config.postprocess
    refuse_what_differs(config)
    sizes, ratios = tuple(map(tuple, model.anchor_sizes)), tuple(model.anchor_ratios)
    anchors = AnchorGenerator(sizes, (ratios,) * len(sizes))
    classes = len(ours.class_names)
    twin = TorchvisionRetinaNet(
        torchvision_backbone(config, ours),
        classes,
        # Images arrive resized: training skips torchvision's own resize, and in evaluation it has nothing to do.
        min_size=build_evaluation_transform(config).shorter,
        max_size=config.data.resize.longest,
        _skip_resize=True,
        anchor_generator=anchors,
        head=RetinaNetHead(model.pyramid_channels, anchors.num_anchors_per_location()[0], classes),
        score_thresh=limits.score_threshold,
        nms_thresh=limits.nms_iou,
        detections_per_img=limits.detections_per_image,
        topk_candidates=limits.candidates_per_level,
        fg_iou_thresh=config.matcher.foreground_iou,
        bg_iou_thresh=config.matcher.background_iou,
        image_mean=model.mean,
        image_std=model.std,
    )
    twin.load_state_dict(ours.state_dict())
    return twin


def refuse_what_differs(config: Config) -> None:
    """Raise ConfigError where torchvision's RetinaNet cannot do what the configuration asks of ours."""
    model, loss = config.model, config.loss
    wanted = {
        "model.head_depth": (model.head_depth, 4),
        "model.head_norm": (model.head_norm, "none"),
        "model.head_activation": (model.head_activation, "relu"),
        "model.dropout": (model.dropout, 0.0),
        "model.frozen_batch_norm": (model.frozen_batch_norm, False),
        "loss.alpha": (loss.alpha, 0.25),
        "loss.gamma": (loss.gamma, 2.0),
        "loss.box": (loss.box, "smooth_l1"),
        "loss.box_beta": (loss.box_beta, 0.0),
        "loss.box_weight": (loss.box_weight, 1.0),
        "matcher.low_quality": (config.matcher.low_quality, True),
        "training.ema_decay": (config.training.ema_decay, None),
    }
    wrong = [
        f"{key} is {found}, must be {needed}" for key, (found, needed) in wanted.items() if found != needed
    ]
    if wrong:
        raise ConfigError(f"torchvision's RetinaNet has no such settings: {'; '.join(wrong)}")


def torchvision_backbone(config: Config, ours: RetinaNet) -> BackboneWithFPN:
    """torchvision's pyramid over the same modules of the same network."""
    model, nodes = config.model, ours.backbone.nodes
    if any("." in node for node in nodes):
        raise ConfigError(
            f"model.nodes: torchvision can tap top-level modules alone, found {', '.join(nodes)}"
        )
    channels = [block[0].in_channels for block in ours.backbone.fpn.inner_blocks]
    extra = None
    if len(model.levels) == len(nodes) + 2:
        read = model.pyramid_channels if model.extra_from == "pyramid" else channels[-1]
        extra = LastLevelP6P7(read, model.pyramid_channels)
    elif len(model.levels) != len(nodes):
        raise ConfigError("model.levels: torchvision adds both levels 6 and 7, or none")
    returned = {node: str(index) for index, node in enumerate(nodes)}
    backbone = BackboneWithFPN(get_model(model.backbone), returned, channels, model.pyramid_channels, extra)
    if extra is None:
        # Left to itself, torchvision adds a pooled level, which has no anchors here.
        backbone.fpn.extra_blocks = None
    return backbone


def as_torchvision(run: Run, config: Config) -> Run:
    """The same run, with torchvision's detector in place of ours."""
    learner = run.learner
    twin = torchvision_twin(config, learner.model)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    twin.to(device=learner.placement.device, memory_format=layout)
    validator = run.validate
    assert isinstance(validator, Validator)
    theirs = TorchvisionLearner(
        model=twin,
        criterion=nn.Identity(),
        optimiser=build_optimiser(twin, **config.optimiser.model_dump()),
        schedule=learner.schedule,
        placement=learner.placement,
        clip_norm=learner.clip_norm,
    )
    fields = {name: getattr(validator, name) for name in validator.__dataclass_fields__}
    return replace(run, learner=theirs, validate=TorchvisionValidator(**fields), look=None)


def train(config: Config, kind: str) -> dict[str, Any]:
    """One run to its end; the metrics of its last validation."""
    folder = Path(config.output)
    run = build_run(config)
    if kind == "torchvision":
        run = as_torchvision(run, config)
    checkpoint = checkpoint_to_resume(folder, config.model_dump(mode="json"), resume=True, overwrite=False)
    position = run.fit(checkpoint)
    if not position.finished or position.metrics is None:
        raise KeyboardInterrupt
    rows = [row for row in read_log(folder / "metrics.jsonl") if row["event"] == "train"]
    result = {name: position.metrics[name] for name in METRICS}
    return {
        "kind": kind,
        "seed": config.seed,
        **result,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }


def summary(results: list[dict[str, Any]], kind: str) -> list[Any]:
    """Mean and spread of each metric, in points."""
    row: list[Any] = [kind, sum(result["kind"] == kind for result in results)]
    for name in METRICS:
        values = [100 * result[name] for result in results if result["kind"] == kind]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        row.append(f"{statistics.mean(values):.1f}{spread} ({min(values):.1f} to {max(values):.1f})")
    seconds = [result["seconds"] for result in results if result["kind"] == kind]
    return [*row, round(statistics.median(seconds))]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the config")
    parser.add_argument("--data-root", metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each detector (3)")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    results: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        # Alternating, so that a machine that slows down slows both.
        for kind in ("detkit", "torchvision"):
            # torchvision's losses know no head of depth other than 4, and its box loss is plain L1.
            fixed = [f"seed={seed}", f"output={arguments.output / f'{kind}-{seed}'}", "precision=fp32"]
            overrides = ["model.head_depth=4", "loss.box_beta=0.0", *arguments.overrides, *fixed]
            config = load_config(arguments.config, overrides, data_root=arguments.data_root)
            results.append(train(config, kind))
            write_json(arguments.output / "accuracy.json", results)
            say(str(results[-1]))
    columns = ["detector", "runs", *METRICS, "training seconds"]
    print_table("Validation, points", columns, [summary(results, kind) for kind in ("detkit", "torchvision")])


if __name__ == "__main__":
    sys.exit(run_tool(main))
