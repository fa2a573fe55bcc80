"""Measure mining beside the bare forward pass of its detector, by turns in one run.

A RetinaNet (a backbone, its pyramid P3 to P7, heads of four convolutions, nine anchors a cell) with random weights
looks at images: bare, on batches that lie ready in memory; then with all that mining adds, a step at a time. Its
scores are shifted so that a given number of each image pass the threshold of 0.05: about 1,000 in the hard case of a
detector that knows little, about 100 in the usual one of a trained detector.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from op_report import Goal
from ops import BUSY, machine
from step import DTYPES, why_not
from timing import Call, time_by_turns

from detkit.builders import Detector, build_model, mining_source
from detkit.config import load_config
from detkit.console import run_tool, say, warn
from detkit.devices import Placement, choose_device
from detkit.files import write_json
from detkit.mining.negative_set import NegativeSet
from detkit.mining.round import MiningRound, mine
from detkit.mining.settings import MiningSettings
from detkit.mining.source import MiningSource
from detkit.structures import ImageBatch

CONFIG = Path(__file__).parents[1] / "configs/coco-r50.yaml"
FORWARD, DETECTION, FILES, MINING = "forward pass", "with post-processing", "from image files", "mining"
MEASURES, QUICK_MEASURES = (FORWARD, DETECTION, FILES, MINING), (FORWARD, MINING)
HARD, USUAL = 1000, 100
"""Scores of an image above the threshold."""
THRESHOLD = 0.05
ROUNDS, QUICK_ROUNDS = 5, 2
QUICK_IMAGES = 32
GOAL = 0.85
EXAMPLES = """examples:
  python benchmarks/mining.py --quick
  python benchmarks/mining.py --json mining.json
  python benchmarks/mining.py --precision fp32 --scores 1000 --images 256 --workers 2
  python benchmarks/mining.py --arch shufflenet_v2_x1_0 --size 320 --batch 16 --classes 3 --threads 4

What is timed, each with all that comes before it: the forward pass on images that lie in memory in their final size;
post-processing (threshold, best candidates, NMS); reading, decoding and resizing image files in worker processes, which
are started for it; mining: a whole round as tools/mine.py does it, but for the comparison with the images of
validation. It sorts detections into kinds, journals them, cuts the crops and writes them as JPEG, the manifest and the
negative set. The files are JPEGs of soft textures with as many boxes as an image of COCO has. A record of FILE has the
keys:

  measure         one of these
  device, dtype   cpu or cuda; fp32 or bf16 (autocast)
  case            the backbone, height and width, N images in a batch, K classes, scores above the threshold
  images          of one call
  crops           that mining kept of them; null for the other measures
  median_ms       median time of a call, null where it was skipped
  quartiles_ms    a quarter of the calls took less than the first, and a quarter more than the second
  rounds          how many calls were timed
  images_per_second
  of_forward      images per second, as a share of the forward pass's: the median over the rounds
  skipped         why it was skipped; no such key otherwise
"""

Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What is mined, and by what."""

    arch: str = "resnet18"
    size: int = 640
    batch: int = 8
    classes: int = 80
    boxes: int = 7
    """Of each image."""
    scores: int = HARD

    def __str__(self) -> str:
        return f"{self.arch} {self.size}x{self.size} N={self.batch} K={self.classes} scores={self.scores}"


def write_images(case: Case, images: int, folder: Path) -> Path:
    """Write JPEGs and boxes on them; the COCO file."""
    rng = np.random.default_rng(0)
    tree: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1 + index, "name": f"class {index}"} for index in range(case.classes)],
    }
    for image in range(images):
        name = f"{image:05}.jpg"
        cv2.imwrite(str(folder / name), _texture(rng, case.size), (cv2.IMWRITE_JPEG_QUALITY, 90))
        tree["images"].append({"id": image, "file_name": name, "width": case.size, "height": case.size})
        for _ in range(case.boxes):
            side = int(rng.integers(case.size // 20, case.size // 4))
            x, y = rng.integers(0, case.size - side, 2).tolist()
            tree["annotations"].append(
                {
                    "id": len(tree["annotations"]) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, case.classes + 1)),
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
    path = folder / "annotations.json"
    path.write_text(json.dumps(tree))
    return path


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Blobs of all sizes, uint8 [side, side, 3]: as hard to decode as a photograph, unlike noise."""
    octaves = [2**power for power in range(2, 9) if 2**power <= side]
    picture = np.zeros((side, side, 3), np.float32)
    for octave in octaves:
        coarse = rng.normal(0, 60 / octave**0.5, (octave, octave, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return (picture + 128).clip(0, 255).astype(np.uint8)


class Inputs:
    """A detector on a device, image files and the same images in memory."""

    def __init__(self, case: Case, images: int, device: torch.device, workers: int, folder: Path) -> None:
        self.case, self.images, self.device, self.workers, self.folder = case, images, device, workers, folder
        size = f"data.resize={{shorter: {case.size}, longest: {case.size}}}"
        batch = f"evaluation.batch_size={case.batch}"
        fresh = ["model.weights=null", "model.frozen_batch_norm=false", "model.frozen_stem=false"]
        self.config = load_config(CONFIG, [f"model.backbone={case.arch}", size, batch, *fresh])
        torch.manual_seed(0)
        self.model = build_model(self.config, [f"class {index}" for index in range(case.classes)]).eval()
        self.model.to(device=device, memory_format=torch.channels_last)
        self.annotations = write_images(case, images, folder)
        self.batches = self._batches()
        self.crops = 0

    @torch.inference_mode()
    def spread_scores(self, scores: int) -> None:
        """Scale and shift the class logits so that so many scores of an image pass the threshold."""
        last = self.model.head.classification_head.cls_logits
        logits = torch.cat([level.flatten() for level in self.model.dense(self.batches[0]).logits])
        least = logits.topk(min(len(logits), scores * len(self.batches[0]))).values[-1]
        threshold = torch.tensor(self.model.postprocess.score_threshold).logit()
        deviation = logits.std()
        last.weight.div_(deviation)
        last.bias.copy_((last.bias - least) / deviation + threshold)

    def calls(self, dtype: torch.dtype) -> dict[str, Call]:
        """What is timed, by name; every call goes over all images once."""
        placement = Placement(self.device, dtype)
        source = self._source(placement)

        def forward() -> Any:
            for batch in self.batches:
                with placement.autocast():
                    outputs = self.model.dense(batch)
            return outputs

        def detect() -> None:
            for batch in self.batches:
                with placement.autocast():
                    outputs = self.model.dense(batch)
                self.model.postprocess(outputs, batch.sizes, batch.original_sizes)

        def from_files() -> None:
            for _ in source.detect(range(self.images)):
                pass

        def mining() -> None:
            # A round that is done already would not be done again.
            root = tempfile.mkdtemp(prefix="round-", dir=self.folder)
            self.crops = mine_once(source, Path(root), self.case.size)

        calls: dict[str, Callable[[], Any]] = {
            FORWARD: forward,
            DETECTION: detect,
            FILES: from_files,
            MINING: mining,
        }
        return {name: Call(torch.inference_mode()(run)) for name, run in calls.items()}

    def _source(self, placement: Placement) -> MiningSource:
        detector = Detector(self.model, self.config, tuple(range(1, 1 + self.case.classes)), placement)
        return mining_source(
            detector,
            self.folder,
            self.annotations,
            state="annotated",
            name="random weights",
            workers=self.workers,
        )

    def _batches(self) -> list[ImageBatch]:
        size = (self.case.size, self.case.size)
        names = sorted(self.folder.glob("*.jpg"))
        batches = []
        for start in range(0, len(names), self.case.batch):
            files = names[start : start + self.case.batch]
            pixels = np.stack([cv2.imread(str(file))[..., ::-1].transpose(2, 0, 1) for file in files])
            sizes = (size,) * len(files)
            batches.append(ImageBatch(torch.from_numpy(pixels).to(self.device), sizes, sizes))
        return batches


def mine_once(source: MiningSource, root: Path, side: int) -> int:
    """A first round as tools/mine.py does it; how many crops it kept."""
    told = MiningRound(
        number=1,
        root=root,
        source=source,
        settings=MiningSettings(threshold=THRESHOLD, largest=(side, side)),
        negatives=NegativeSet.empty(),
        file_format="jpg",
    )
    return len(mine(told).negatives.crops)


def measure(inputs: Inputs, scores: int, precision: str, rounds: int, names: Sequence[str]) -> list[Record]:
    """Time these measures at so many scores above the threshold, in one precision."""
    inputs.spread_scores(scores)
    calls = inputs.calls(DTYPES[precision])
    chosen = {name: calls[name] for name in names}
    times = time_by_turns(chosen, inputs.device, rounds=(rounds, rounds), cold=False)
    case = replace(inputs.case, scores=scores)
    return [record(inputs, case, precision, name, times) for name in times]


def record(
    inputs: Inputs, case: Case, precision: str, name: str, all_times: dict[str, list[float]]
) -> Record:
    times = all_times[name]
    median = statistics.median(times)
    first, _, third = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [median] * 3
    # Those of one round ran at the same time, when the machine was as fast for one as for the other.
    shares = [bare / taken for bare, taken in zip(all_times[FORWARD], times, strict=True)]
    return {
        "measure": name,
        "device": inputs.device.type,
        "dtype": precision,
        "case": str(case),
        "images": inputs.images,
        "crops": inputs.crops if name == MINING else None,
        "median_ms": median,
        "quartiles_ms": [first, third],
        "rounds": len(times),
        "images_per_second": 1000 * inputs.images / median,
        "of_forward": statistics.median(shares),
    }


def skipped(case: Case, device: torch.device, precision: str, reason: str) -> Record:
    """The record of a mining round that cannot be measured here."""
    unknown = ("images", "crops", "median_ms", "quartiles_ms", "rounds", "images_per_second", "of_forward")
    what = {"measure": MINING, "device": device.type, "dtype": precision, "case": str(case)}
    return {**what, **dict.fromkeys(unknown), "skipped": reason}


def table(records: Sequence[Record]) -> str:
    """An aligned table: times of an image, images per second, and the share of the forward pass's."""
    lines = [("measure", "ms an image", "quartiles", "images/s", "of the forward pass's")]
    for one in records:
        lines.append(
            (
                one["measure"],
                f"{one['median_ms'] / one['images']:,.1f}",
                " to ".join(f"{value / one['images']:,.1f}" for value in one["quartiles_ms"]),
                f"{one['images_per_second']:,.2f}",
                f"{one['of_forward']:.1%}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            word.rjust(width) if column else word.ljust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def goals(records: Sequence[Record], device: torch.device) -> list[Goal]:
    """One for each number of scores and precision; not measured where the case is another."""
    wanted = [(scores, precision) for scores in (HARD, USUAL) for precision in DTYPES]
    return [
        Goal(
            f"mining {case}, {precision}, {device.type}",
            _share(records, str(case), precision),
            GOAL,
            "of the forward pass's images/s",
            at_least=True,
        )
        for scores, precision in wanted
        for case in [Case(scores=scores)]
    ]


def _share(records: Sequence[Record], case: str, precision: str) -> float | None:
    for one in records:
        if (one["measure"], one["case"], one["dtype"]) == (MINING, case, precision):
            return one["of_forward"]
    return None


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, case = parser.add_argument, Case()
    sizes = {
        "size": "side of the images, in pixels",
        "batch": "images in a batch",
        "classes": "classes",
        "boxes": "objects on each image",
    }
    add("--arch", default=case.arch, metavar="NAME", help=f"torchvision backbone ({case.arch})")
    for name, text in sizes.items():
        usual = getattr(case, name)
        add(f"--{name}", type=_positive, default=usual, metavar="N", help=f"{text} ({usual})")
    add("--scores", nargs="+", type=_positive, default=[HARD, USUAL], metavar="N",
        help=f"scores of an image above the threshold; one case each ({HARD} {USUAL})")  # fmt: skip
    add("--images", type=_positive, metavar="N", help=f"images that are mined (64; quick: {QUICK_IMAGES})")
    add("--workers", type=_count, default=1, metavar="N", help="processes that read images (1)")
    add("--precision", choices=("fp32", "bf16", "both"), default="both", help="(both)")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="(cpu)")
    add("--threads", type=_positive, metavar="T", help="processor threads that PyTorch uses (its own choice)")
    add("--steps", type=_positive, metavar="N", help=f"timed rounds ({ROUNDS}; quick: {QUICK_ROUNDS})")
    add("--quick", action="store_true", help="fewer images and rounds, the forward pass and mining alone "
        "(about five minutes a case on 2 cores)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the records, a list, to FILE")
    return parser.parse_args(words)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError
    return value


def measure_all(arguments: argparse.Namespace, device: torch.device, folder: Path) -> list[Record]:
    """Time every case, say what was found, and write it down as it comes."""
    sizes = {name: getattr(arguments, name) for name in ("arch", "size", "batch", "classes", "boxes")}
    images = arguments.images or (QUICK_IMAGES if arguments.quick else 64)
    inputs = Inputs(Case(**sizes), images, device, arguments.workers, folder)
    rounds = arguments.steps or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    names = QUICK_MEASURES if arguments.quick else MEASURES
    records: list[Record] = []
    for precision in DTYPES if arguments.precision == "both" else (arguments.precision,):
        reason = why_not(precision, device)
        if reason is not None:
            say(f"{precision}: not measurable: {reason}")
            records.append(skipped(inputs.case, device, precision, reason))
            continue
        for scores in arguments.scores:
            measured = measure(inputs, scores, precision, rounds, names)
            say(f"\n{measured[0]['case']}, {precision}, {inputs.crops} crops of {images} images")
            say(table(measured))
            records += measured
            if arguments.json:
                write_json(arguments.json, records)
    return records


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    say(machine(device))
    if os.getloadavg()[0] > BUSY:
        warn("other programs are or were just running; times may be theirs as well")
    with tempfile.TemporaryDirectory(prefix="detkit-mining-") as folder:
        records = measure_all(arguments, device, Path(folder))
    if arguments.json:
        write_json(arguments.json, records)
    say("\nGoals:")
    for goal in goals(records, device):
        say(f"  {goal}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
