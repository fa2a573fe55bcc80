"""From a configuration to objects, by explicit calls: the one place where keys meet constructors."""

from detkit.builders.criterion import build_criterion, build_selection
from detkit.builders.data import (
    build_evaluation_transform,
    build_training_transform,
    held_out_images,
    in_data_root,
    split_paths,
)
from detkit.builders.detector import Detector, detect_coco, detect_images, files_of, load_detector
from detkit.builders.mining import mining_source
from detkit.builders.model import build_anchors, build_model
from detkit.builders.run import begin_run, build_run

__all__ = [
    "Detector",
    "begin_run",
    "build_anchors",
    "build_criterion",
    "build_evaluation_transform",
    "build_model",
    "build_run",
    "build_selection",
    "build_training_transform",
    "detect_coco",
    "detect_images",
    "files_of",
    "held_out_images",
    "in_data_root",
    "load_detector",
    "mining_source",
    "split_paths",
]
