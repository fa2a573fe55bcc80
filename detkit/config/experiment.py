"""A whole experiment."""

from typing import Annotated

from pydantic import Field, model_validator

from detkit.config.negatives import AllAnchors, Bootstrap, Selection
from detkit.config.sections import (
    Data,
    Evaluation,
    Loss,
    Matcher,
    Model,
    Optimiser,
    PostProcess,
    Schedule,
    Training,
)
from detkit.config.values import Section
from detkit.devices import Device, Precision


class Config(Section):
    """A whole experiment."""

    output: str
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Device = "auto"
    precision: Precision = "auto"
    """auto is bf16 on a GPU that has it, and on a CPU with bf16 instructions."""
    channels_last: bool = True
    data: Data
    model: Model
    loss: Loss = Loss()
    selection: Selection = AllAnchors()
    bootstrap: Bootstrap | None = None
    matcher: Matcher = Matcher()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    training: Training = Training()
    postprocess: PostProcess = PostProcess()
    evaluation: Evaluation = Evaluation()

    @property
    def unverified_and_unscanned(self) -> bool:
        """Whether objects that nobody marked may be trained as background: no scan sets aside what may be one."""
        background, crops = self.data.background, self.bootstrap.crops if self.bootstrap else None
        scanned = crops is not None and "pool" in crops.sources
        return background is not None and background.state == "unverified" and not scanned

    @model_validator(mode="after")
    def _rounds_have_something_to_do(self) -> "Config":
        mined = self.selection.name == "mined"
        if mined and self.bootstrap is None:
            raise ValueError("selection mined needs rounds of bootstrapping; add bootstrap={}")
        if self.bootstrap is not None and not mined and self.bootstrap.crops is None:
            raise ValueError(
                "bootstrap has nothing to mine; take the selection mined, or give bootstrap.crops"
            )
        crops = None if self.bootstrap is None else self.bootstrap.crops
        if crops is None and self.bootstrap is not None and self.bootstrap.least_acceptance:
            raise ValueError(
                "bootstrap.least_acceptance counts crops; without bootstrap.crops there are none"
            )
        if crops is not None and "pool" in crops.sources and self.data.background is None:
            raise ValueError("bootstrap.crops.sources has pool, but there is no data.background")
        if crops is not None and isinstance(crops.threshold, str) and "pool" in crops.sources:
            raise ValueError(
                f"bootstrap.crops.threshold: {crops.threshold} is a percentile of the scores of true positives, which "
                "a pool has none of; give a score such as 0.1"
            )
        return self
