"""A negative set's crops for any other framework: a COCO file of images without boxes."""

from collections.abc import Sequence
from pathlib import Path

from detkit.files import write_json
from detkit.mining.negative_set import MinedCrops


def write_coco_negatives(
    path: Path, crops: MinedCrops, class_names: Sequence[str], category_ids: Sequence[int]
) -> None:
    """Write the crops as COCO images with no annotations, whole or not at all, in the order of the set.

    An image also says which file it was cut from (``source``), where (``window``, xyxy in the source's pixels), and the
    score of the false positive.
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
    categories = [{"id": id_, "name": name} for id_, name in zip(category_ids, class_names, strict=True)]
    write_json(path, {"images": images, "annotations": [], "categories": categories})
