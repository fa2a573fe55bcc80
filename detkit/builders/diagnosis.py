"""A diagnosis from a run, or from annotations and any program's detections."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from detkit.builders.detector import Detector, detect_coco, files_of, load_detector
from detkit.config import read_tree
from detkit.console import progress
from detkit.data.checks import escapes
from detkit.data.images import read_image
from detkit.devices import Device, Precision
from detkit.errors import ConfigError, DataError
from detkit.evaluation import DetectionTable, GroundTruth, read_ground_truth, read_results, write_results
from detkit.evaluation.detection_errors import classify_detections
from detkit.evaluation.diagnosed import Diagnosed, ReadImages, TrainingLog
from detkit.evaluation.diagnosis import diagnose
from detkit.evaluation.missing_labels import sure_backgrounds, suspected_missing_labels
from detkit.evaluation.results import surest
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks, read_review_marks
from detkit.files import read_json, sha256_of
from detkit.mining.manifest import read_manifest
from detkit.training.loop import BEST, LAST
from detkit.training.resume import ROUNDS
from detkit.training.run_log import read_log

_READ_AHEAD = 4
"""Images that are decoded while others are cut."""
_GROUPS = TypeAdapter(dict[str, list[str]], config=ConfigDict(strict=True))


@dataclass(frozen=True)
class Shown:
    """What a diagnosis is told beside the detections."""

    groups: Path | None = None
    """A YAML file of class names by group; None takes the supercategories of the annotations."""
    marks: Path | None = None
    suspect_score: float | None = None
    """The least of a suspected missing label; None takes what nine in ten correct detections reach."""

    def read(self, source: "_Images", ground_truth: GroundTruth) -> "_Told":
        """What the files say."""
        return _Told(
            groups=_groups(self.groups, source.supercategories, ground_truth),
            marks=read_review_marks(self.marks) if self.marks else NO_MARKS,
            suspect_score=self.suspect_score,
        )


@dataclass(frozen=True)
class _Told:
    groups: dict[str, list[int]]
    """Category ids by name."""
    marks: ReviewMarks
    suspect_score: float | None


@dataclass(frozen=True)
class RunToDiagnose:
    """A run's folder, or a checkpoint alone, and the images to look at."""

    path: Path
    split: str = "val"
    annotations: Path | None = None
    """With ``images`` in place of a split."""
    images: Path | None = None
    device: Device | None = None
    precision: Precision | None = None
    data_root: str | None = None

    @property
    def checkpoint(self) -> Path:
        """What is diagnosed."""
        return self.path / BEST if self.path.is_dir() else self.path

    def load(self, checkpoint: Path) -> Detector:
        """A detector of the run."""
        return load_detector(
            checkpoint, device=self.device, precision=self.precision, data_root=self.data_root
        )


def diagnose_run(run: RunToDiagnose, output: Path, shown: Shown) -> Diagnosed:
    """Detect with the run's best checkpoint, and find what is wrong; detections.json is written to ``output``.

    Of a folder, last.pt, where it differs, and the manifests of mining rounds that went over the same images tell which
    suspected missing labels persist.

    Raises:
        ConfigError, DataError, WeightsError: the checkpoint, the data or what is to be shown cannot be used.
    """
    detector = run.load(run.checkpoint)
    annotations, images = files_of(detector, run.split, run.annotations, run.images)
    source = _Images.read(annotations, images)
    # Mistakes in small files are told before the images are gone over.
    told = shown.read(source, read_ground_truth(annotations, detector.model.class_names))
    log = _log(run, detector)
    ground_truth, table = detect_coco(detector, annotations, images)
    write_results(output / "detections.json", table)
    witnesses = []
    if run.path.is_dir():
        witnesses += _last(run, detector, annotations, images)
        witnesses += _mined(run.path / ROUNDS, source, ground_truth)
    name = annotations.stem if run.annotations else run.split
    title = f"{run.checkpoint.parent.resolve().name}/{run.checkpoint.name} on {name}"
    diagnosed = _diagnosed(title, ground_truth, table, witnesses=witnesses, source=source, told=told)
    return replace(diagnosed, log=log)


def diagnose_results(
    annotations: Path,
    detections: Sequence[Path],
    images: Path | None,
    shown: Shown,
    *,
    classes: Sequence[str] | None = None,
) -> Diagnosed:
    """Find what is wrong with the first file's detections; the others, of other checkpoints, tell what persists.

    Args:
        annotations: COCO annotations.
        detections: COCO results.
        images: the folder of the images; None leaves them out.
        shown: what else is told.
        classes: look at these alone, the others are background; None takes all.

    Raises:
        ConfigError, DataError: a file cannot be used.
    """
    source = _Images.read(annotations, images)
    ground_truth = read_ground_truth(annotations, classes)
    told = shown.read(source, ground_truth)
    first, *others = (surest(read_results(path, ground_truth)) for path in detections)
    witnesses = [
        (name, _backgrounds(ground_truth, table))
        for name, table in zip(_names(detections[1:]), others, strict=True)
    ]
    title = f"{detections[0].name} on {annotations.name}"
    return _diagnosed(title, ground_truth, first, witnesses=witnesses, source=source, told=told)


def _log(run: RunToDiagnose, detector: Detector) -> TrainingLog | None:
    path = run.checkpoint.with_name("metrics.jsonl")
    return TrainingLog(read_log(path), detector.config.training.metric) if path.exists() else None


def _names(paths: Sequence[Path]) -> list[str]:
    """Of files, as short as tells them apart."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    files = [os.path.realpath(path) for path in paths]
    return [os.path.relpath(file, os.path.commonpath(list(map(os.path.dirname, files)))) for file in files]


def _diagnosed(
    title: str,
    ground_truth: GroundTruth,
    table: DetectionTable,
    *,
    witnesses: Sequence[tuple[str, DetectionTable]],
    source: "_Images",
    told: "_Told",
) -> Diagnosed:
    table = surest(table)
    diagnosis, classified = diagnose(ground_truth, table, groups=told.groups)
    suspects = suspected_missing_labels(table, classified, witnesses, score=told.suspect_score)
    return Diagnosed(
        title=title,
        diagnosis=diagnosis,
        ground_truth=ground_truth,
        table=table,
        classified=classified,
        suspects=suspects,
        image_names=source.names,
        image_sizes=source.sizes,
        read_images=source.reader(),
        marks=told.marks,
        image_digests=source.digests(np.unique(table.image_ids[suspects.rows]).tolist()),
    )


def _last(
    run: RunToDiagnose, best: Detector, annotations: Path, images: Path
) -> list[tuple[str, DetectionTable]]:
    """What last.pt takes for objects, where it is there and another model than the best."""
    path = run.path / LAST
    if not path.exists():
        return []
    last = run.load(path)
    other = last.model.state_dict()
    if all(torch.equal(value, other[name]) for name, value in best.model.state_dict().items()):
        return []
    return [(LAST, _backgrounds(*detect_coco(last, annotations, images)))]


def _backgrounds(ground_truth: GroundTruth, table: DetectionTable) -> DetectionTable:
    table = surest(table)
    return table.select(sure_backgrounds(table, classify_detections(ground_truth, table)))


def _mined(folder: Path, source: "_Images", ground_truth: GroundTruth) -> list[tuple[str, DetectionTable]]:
    """The false positives of the mining rounds that went over images of the source."""
    paths = {
        os.path.realpath(source.folder / name): id_ for id_, name in source.names.items() if source.folder
    }
    found = []
    for path in sorted(folder.rglob("manifest.jsonl")):
        _, rows = read_manifest(path)
        # Crops of earlier rounds that made room have no digest: this round did not see them.
        mine = [
            (paths[name], row)
            for row in rows
            if row["sha256"] is not None
            and row["category_id"] in ground_truth.category_ids
            and (name := os.path.realpath(row["file"])) in paths
        ]
        if mine:
            found.append((str(path.parent.relative_to(folder)), _table_of(mine)))
    return found


def _table_of(rows: Sequence[tuple[int, dict[str, Any]]]) -> DetectionTable:
    return DetectionTable(
        image_ids=np.array([image_id for image_id, _ in rows], dtype=np.int64),
        boxes=np.array([row["box"] for _, row in rows], dtype=np.float64).reshape(-1, 4),
        scores=np.array([row["score"] for _, row in rows], dtype=np.float64),
        category_ids=np.array([row["category_id"] for _, row in rows], dtype=np.int64),
    )


def _groups(
    path: Path | None, supercategories: Mapping[int, str], ground_truth: GroundTruth
) -> dict[str, list[int]]:
    """Category ids by group."""
    if path is None:
        groups: dict[str, list[int]] = {}
        for category_id in ground_truth.category_ids:
            if category_id in supercategories:
                groups.setdefault(supercategories[category_id], []).append(category_id)
        return groups if 1 < len(groups) < len(ground_truth.category_ids) else {}
    try:
        named = _GROUPS.validate_python(read_tree(path))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(f"{path}: {place}: write each group as name: [class, ...]") from None
    ids = dict(zip(ground_truth.class_names, ground_truth.category_ids, strict=True))
    unknown = [name for names in named.values() for name in names if name not in ids]
    if unknown:
        raise ConfigError(f"{path}: there is no class {unknown[0]!r}; the classes are {', '.join(ids)}")
    return {group: [ids[name] for name in names] for group, names in named.items()}


@dataclass(frozen=True)
class _Images:
    """The images of a COCO file."""

    folder: Path | None
    names: Mapping[int, str]
    sizes: Mapping[int, tuple[int, int]]
    supercategories: Mapping[int, str]

    @staticmethod
    def read(annotations: Path, folder: Path | None) -> "_Images":
        """Names and sizes where the file has them; what else it says is checked by ``read_ground_truth``."""
        tree = read_json(annotations)
        rows, categories = (
            [row for row in tree.get(key) or [] if isinstance(row, dict) and isinstance(row.get("id"), int)]
            if isinstance(tree, dict)
            else []
            for key in ("images", "categories")
        )
        names = {row["id"]: row["file_name"] for row in rows if isinstance(row.get("file_name"), str)}
        nameless = next((row["id"] for row in rows if row["id"] not in names), None)
        if folder is not None:
            if nameless is not None:
                raise DataError(f"{annotations}: image {nameless}: has no 'file_name'; leave --images out")
            _check_folder(annotations, folder, names.values())
        sizes = {
            row["id"]: (row["height"], row["width"])
            for row in rows
            if all(isinstance(row.get(side), int) and row[side] > 0 for side in ("height", "width"))
        }
        above = {
            row["id"]: row["supercategory"] for row in categories if isinstance(row.get("supercategory"), str)
        }
        return _Images(folder, names, sizes, above)

    def reader(self) -> ReadImages | None:
        """Decodes images ahead of their being asked for; None without a folder."""
        return None if self.folder is None else self._read_in_order

    def digests(self, image_ids: Sequence[int]) -> dict[int, str]:
        """The first 16 digits of the SHA-256 of each file that is there; none without a folder."""
        if self.folder is None:
            return {}
        files = ((image_id, self.folder / self.names[image_id]) for image_id in image_ids)
        # One that is not there is told of where it is to be shown.
        return {image_id: sha256_of(file)[:16] for image_id, file in files if file.is_file()}

    def _read_in_order(self, image_ids: Sequence[int]) -> Iterator[np.ndarray]:
        assert self.folder is not None
        folder = self.folder
        left = iter(image_ids)
        with ThreadPoolExecutor(2) as threads:

            def begin(image_id: int) -> Any:
                return threads.submit(read_image, folder / self.names[image_id], self.sizes.get(image_id))

            waiting = [begin(image_id) for image_id in islice(left, _READ_AHEAD)]
            for _ in progress(image_ids, len(image_ids), "cutting patches"):
                pixels = waiting.pop(0).result()
                waiting += [begin(image_id) for image_id in islice(left, 1)]
                yield pixels


def _check_folder(annotations: Path, folder: Path, names: Iterable[str]) -> None:
    outside = next(filter(escapes, names), None)
    if outside is not None:
        raise DataError(
            f"{annotations}: {outside!r} lies outside the image folder; write it as a path in there"
        )
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder; name the one that the annotations' file names start from"
        )
