"""A negative set's crops for any other framework: a COCO file of images without boxes."""

from collections.abc import Mapping
from pathlib import Path

from detkit.evaluation.ground_truth import coco_categories
from detkit.files import write_json
from detkit.mining.negative_set import MinedCrops


def write_coco_negatives(path: Path, crops: MinedCrops, class_names: Mapping[int, str]) -> None:
    """Write the crops as COCO images with no annotations, whole or not at all, in the order of the set.

    An image also says which file it was cut from (``source``), where (``window``, xyxy in the source's pixels), and the
    score of the false positive. ``class_names`` are by category id.
    """
    columns = zip(
        crops.files.tolist(), crops.sizes.tolist(), crops.sources.tolist(), crops.windows.tolist(),
        crops.scores.tolist(), strict=True,
    )  # fmt: skip
    images = [
        {
            "id": number,
            "file_name": file,
            "width": width,
            "height": height,
            "source": source,
            "window": window,
            "score": score,
        }
        for number, (file, (height, width), source, window, score) in enumerate(columns, start=1)
    ]
    write_json(path, {"images": images, "annotations": [], "categories": coco_categories(class_names)})
