"""What a check finds."""

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
Section = Literal["images", "annotations", "categories"]
SINGULAR: dict[Section, str] = {"images": "image", "annotations": "annotation", "categories": "category"}


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong with a COCO file or an image, or is handled and worth knowing.

    An error makes training or evaluation wrong, and reading refuses it; a warning is probably a mistake; an info
    is handled and only said.
    """

    kind: str
    severity: Severity
    where: str
    found: str
    remedy: str
    section: Section | None = None
    row: int = -1
    """Position in the file's list of that section; with the section, which item it is about."""
    key: str | None = None
    image_id: int | None = None
    annotation_id: int | None = None
    correction: Any = None
    """The value that mends it, where the check knows it."""

    @property
    def rank(self) -> int:
        """Place among the severities, errors first."""
        return ("error", "warning", "info").index(self.severity)

    @property
    def message(self) -> str:
        """Where, found and remedy on one line."""
        return f"{self.where}: {self.found}; {self.remedy}"
