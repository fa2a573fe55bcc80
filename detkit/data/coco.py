"""COCO ground truth as flat arrays."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detkit.data.checks import find_errors, float32_corners, rows_of_ids
from detkit.data.columns import Columns, read_coco_tree, read_columns
from detkit.data.defects import Defect
from detkit.errors import DataError

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """The images and boxes of a COCO file, with no Python object per image or box.

    Objects would be copied into every worker of a loader by reference counting; arrays are shared.
    Boxes of image i are rows ``offsets[i]`` to ``offsets[i + 1]``.
    """

    image_ids: np.ndarray
    """int64 [I], in the file's order."""
    sizes: np.ndarray
    """(height, width) in pixels, int32 [I, 2]."""
    file_names: np.ndarray
    """Relative to the image folder, str [I]."""
    offsets: np.ndarray
    """int64 [I + 1]."""
    boxes: np.ndarray
    """xyxy in pixels, float32 [B, 4]; a box may reach out of its image, as in the file."""
    labels: np.ndarray
    """Class index, int32 [B]."""
    crowd: np.ndarray
    """bool [B]; a crowd is a region with many objects, not an object."""
    annotation_ids: np.ndarray
    """int64 [B]."""
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    """COCO's category id of each class index."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, index: int) -> slice:
        """The rows of the boxes of image ``index``."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


def read_coco(path: str | os.PathLike, classes: Sequence[str] | None = None) -> CocoAnnotations:
    """Read a COCO file, strictly: a defect that would make training or evaluation wrong is refused.

    Harmless omissions are tolerated: a missing iscrowd is 0, a missing area is not needed. Images without boxes
    stay.

    Args:
        path: COCO ground truth (instances, bounding boxes).
        classes: keep these classes only, in this order; boxes of the others become background. None keeps
            all, in the file's order.

    Raises:
        DataError: the file cannot be read, has defects (the first are listed, the rest counted), or lacks a
            class.
    """
    columns, defects = read_columns(read_coco_tree(path))
    _refuse(path, [defect for defect in [*defects, *find_errors(columns)] if defect.severity == "error"])
    return _arrange(columns, _class_rows(columns, classes, path))


def with_ignore_regions(annotations: CocoAnnotations, regions: Mapping[str, np.ndarray]) -> CocoAnnotations:
    """The annotations with more crowds, which count neither as object nor as background.

    Args:
        annotations: what there is.
        regions: xyxy in pixels, [R, 4] by the name of their image; those of unknown images are left out.
    """
    names = annotations.file_names.tolist()
    added = [(index, regions[name]) for index, name in enumerate(names) if name in regions]
    counts = np.diff(annotations.offsets)
    images = np.concatenate(
        [np.repeat(np.arange(len(counts)), counts), *(np.full(len(boxes), index) for index, boxes in added)]
    )
    more = len(images) - len(annotations.boxes)
    order = np.argsort(images, kind="stable")

    def joined(column: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.concatenate([column, values.astype(column.dtype)])[order]

    return replace(
        annotations,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(images, minlength=len(counts)))]).astype(np.int64),
        boxes=joined(annotations.boxes, np.concatenate([np.zeros((0, 4)), *(boxes for _, boxes in added)])),
        labels=joined(annotations.labels, np.zeros(more)),
        crowd=joined(annotations.crowd, np.ones(more)),
        annotation_ids=joined(annotations.annotation_ids, np.zeros(more)),
    )


def _refuse(path: str | os.PathLike, errors: Sequence[Defect]) -> None:
    if not errors:
        return
    lines = [f"{path}: {len(errors)} defect(s) that would make training or evaluation wrong"]
    lines += [f"  {defect.message}" for defect in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        lines.append(f"  ... and {len(errors) - _SHOWN} more")
    lines.append(
        f"  to see all: python tools/check_data.py {path}; with --fix OUT.json it writes a repaired file"
    )
    raise DataError("\n".join(lines))


def _class_rows(columns: Columns, classes: Sequence[str] | None, path: str | os.PathLike) -> list[int]:
    """Rows of the file's categories that become classes, in the order of the class indices."""
    names = columns.category_name.values.tolist()
    if classes is None:
        return list(range(len(names)))
    unknown = [repr(name) for name in classes if name not in names]
    if unknown:
        raise DataError(f"{path}: has no class {', '.join(unknown)}; its classes are {', '.join(names)}")
    if not classes or len(set(classes)) < len(classes):
        found = "is empty" if not classes else "names a class twice"
        raise DataError(f"{path}: the list of classes {found}; choose from {', '.join(names)}")
    return [names.index(name) for name in classes]


def _arrange(columns: Columns, class_rows: list[int]) -> CocoAnnotations:
    """Sort the boxes of sound columns by image, and keep those of the classes wanted."""
    label_of_row = np.full(len(columns.category_id.values), -1, dtype=np.int32)
    label_of_row[class_rows] = np.arange(len(class_rows), dtype=np.int32)
    labels = label_of_row[rows_of_ids(columns.category_id, columns.annotation_category)]
    images = rows_of_ids(columns.image_id, columns.annotation_image)
    order = np.argsort(images, kind="stable")
    order = order[labels[order] >= 0]
    counts = np.bincount(images[order], minlength=len(columns.image_id.values))
    return CocoAnnotations(
        image_ids=columns.image_id.values,
        sizes=np.stack([columns.height.values, columns.width.values], axis=1).astype(np.int32),
        file_names=columns.file_name.values,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=float32_corners(columns.box.values[order]),
        labels=labels[order],
        crowd=columns.crowd.values[order],
        annotation_ids=columns.annotation_id.values[order],
        class_names=tuple(columns.category_name.values[class_rows].tolist()),
        category_ids=tuple(columns.category_id.values[class_rows].tolist()),
    )
