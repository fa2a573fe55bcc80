"""What can become of a false positive."""

from enum import StrEnum


class Decision(StrEnum):
    """The verdict on one false positive, as manifests have it."""

    PENDING = "pending"
    """None yet: it can become a crop."""
    KEPT = "kept"
    """It became a crop."""
    DUPLICATE = "duplicate"
    """A harder one of its image overlaps it, or has it in its crop."""
    NEAR_DUPLICATE = "near-duplicate"
    """Its crop looks like that of a harder one."""
    KNOWN = "known"
    """A crop of an earlier round holds it."""
    OVER_IMAGE_LIMIT = "over image limit"
    OVER_ROUND_LIMIT = "over round limit"
    TOUCHES_OBJECT = "touches object"
    """No crop around it would keep out of an object or ignore region."""
    TOO_SMALL = "too small"
    """Its image is smaller than the smallest crop."""
    BELOW_THRESHOLD = "below threshold"
    QUARANTINED = "quarantined"
    """It may be an object that nobody marked."""
    EVICTED = "evicted"
    """There was no room for it in the negative set."""
