"""The result of checking one COCO file, as tables for a person and as JSON for a program."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from detkit.console import print_table, say
from detkit.data.defects import Defect
from detkit.data.repair import Change
from detkit.data.statistics import SIZES, AnchorStatistics, ClassStatistics, DataStatistics

EXAMPLES = 3
"""Defects of one kind that are printed; the JSON has them all."""


@dataclass(frozen=True)
class Report:
    """Everything that was found in one file."""

    path: str
    defects: Sequence[Defect]
    """Of the file as it is, not of its repaired copy."""
    data: DataStatistics | None = None
    """Of the repaired copy where there is one; a file with errors has none."""
    anchors: AnchorStatistics | None = None
    repaired: str | None = None
    """Path of the repaired copy."""
    changes: Sequence[Change] = ()
    not_repaired: str | None = None
    """Why there is no repaired copy, though one was asked for."""

    @property
    def errors_left(self) -> int:
        """Number of errors; none are left in a repaired copy."""
        return 0 if self.repaired else sum(defect.severity == "error" for defect in self.defects)

    def as_json(self) -> dict[str, Any]:
        """The whole report, in JSON's types."""
        return {
            "path": self.path,
            "errors_left": self.errors_left,
            "defects": [asdict(defect) | {"message": defect.message} for defect in self.defects],
            "repaired": self.repaired,
            "not_repaired": self.not_repaired,
            "changes": [change.message for change in self.changes],
            "statistics": None if self.data is None else asdict(self.data),
            "anchors": None if self.anchors is None else asdict(self.anchors),
        }

    def show(self) -> None:
        """Print the report."""
        self._show_defects()
        if self.data is not None:
            self._show_data(self.data)
        if self.data is not None and self.anchors is not None:
            self._show_anchors(self.data, self.anchors)

    def _show_defects(self) -> None:
        kinds: dict[str, list[Defect]] = {}
        for defect in self.defects:
            kinds.setdefault(defect.kind, []).append(defect)
        counts = Counter(defect.severity for defect in self.defects)
        say(
            f"{self.path}: {counts['error']} error(s), {counts['warning']} warning(s), {counts['info']} info(s)"
        )
        for kind, defects in kinds.items():
            say(f"  {defects[0].severity}: {kind}: {len(defects)}")
            for defect in defects[:EXAMPLES]:
                say(f"    {defect.message}")
            if len(defects) > EXAMPLES:
                say(f"    ... and {len(defects) - EXAMPLES} more")
        if self.not_repaired:
            say(f"  not repaired: {self.not_repaired}")
        if self.repaired:
            say(f"  repaired copy: {self.repaired}, {len(self.changes)} change(s)")
            for change in self.changes:
                say(f"    {change.message}")

    def _show_data(self, data: DataStatistics) -> None:
        empty = data.images_without_objects
        share = f"{empty / data.images:.1%}"
        say(
            f"{data.images} images, {empty} ({share}) without objects; {data.boxes} boxes, {data.crowds} crowds"
        )
        print_table(
            "Boxes by class",
            ["class", "images", "boxes", "crowds", *SIZES, "side"],
            [
                [item.name, item.images, item.boxes, item.crowds, *item.by_size, _sides(item)]
                for item in data.classes
                if item.boxes or item.crowds
            ],
        )
        say("sizes are COCO's; side: 5 %, 50 % and 95 % of sqrt(width x height), in pixels")

    def _show_anchors(self, data: DataStatistics, anchors: AnchorStatistics) -> None:
        total = anchors.foreground + anchors.background + anchors.ignored
        ratio = f"1 to {anchors.background / anchors.foreground:.0f}" if anchors.foreground else "none to all"
        say(
            f"anchors over {anchors.images} images: {total / max(1, anchors.images):.0f} per image; "
            f"foreground to background {anchors.foreground} to {anchors.background} ({ratio}), "
            f"{anchors.ignored} ignored"
        )
        lost, weak = sum(map(sum, anchors.never_matched)), sum(map(sum, anchors.below_threshold))
        say(
            f"boxes without any anchor at the foreground IoU: {weak} of {sum(map(sum, anchors.boxes))}; "
            f"low-quality matches save {weak - lost}, and {lost} will never be learned"
        )
        tables = zip(data.classes, anchors.never_matched, anchors.below_threshold, anchors.boxes, strict=True)
        rows = [
            [item.name, *(f"{n} + {b - n} of {a}" for n, b, a in zip(never, below, boxes, strict=True))]
            for item, never, below, boxes in tables
            if sum(below)
        ]
        if rows:
            print_table("Boxes never learned + saved by low-quality matches", ["class", *SIZES], rows)


def _sides(item: ClassStatistics) -> str | None:
    return None if item.side_quantiles is None else " ".join(f"{side:.0f}" for side in item.side_quantiles)
