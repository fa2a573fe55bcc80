"""Small detectors for the tests of the models."""

from collections.abc import Callable

import pytest

from detkit.models import AnchorGenerator, PostProcess, PyramidBackbone, RetinaNet, RetinaNetHead


def build_small_detector(
    name: str = "resnet18",
    *,
    levels: tuple[int, ...] = (3, 4, 5, 6, 7),
    channels: int = 32,
    class_names: tuple[str, ...] = ("cat", "dog", "owl"),
    head: dict | None = None,
    postprocess: PostProcess | None = None,
    **backbone,
) -> RetinaNet:
    anchors = AnchorGenerator(
        sizes=[[4 * 2**level, 5 * 2**level] for level in levels],
        ratios=[0.5, 1.0, 2.0],
        strides=[2**level for level in levels],
    )
    return RetinaNet(
        PyramidBackbone(name, levels=levels, channels=channels, **backbone),
        RetinaNetHead(channels, anchors.per_location, len(class_names), **{"depth": 1, **(head or {})}),
        anchors,
        postprocess or PostProcess(score_threshold=0.0),
        class_names=class_names,
    )


@pytest.fixture
def small_detector() -> Callable[..., RetinaNet]:
    """Builds a detector that takes a moment on one core; keywords change its parts."""
    return build_small_detector
