"""A search: from its file to the configuration of every trial, and to the study that its trials are drawn from."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from detkit.builders.background import background_counts
from detkit.builders.comparison import override_key
from detkit.builders.data import build_training_transform, split_paths
from detkit.builders.identity import run_identity
from detkit.builders.model_cost import ModelCosts
from detkit.builders.run import build_plan
from detkit.config import (
    Choices,
    Config,
    Metric,
    SearchConfig,
    dump_config,
    parse_config,
    read_tree,
    with_data_root,
)
from detkit.config.search import Range
from detkit.data.coco import read_coco
from detkit.data.loader import BatchOrder
from detkit.errors import ConfigError, DataError, WeightsError
from detkit.evaluation.search_results import TEST_FILE, ModelCost
from detkit.models import require_weights
from detkit.search.space import ChoiceRange, NumberRange, Space, Value, label, overrides_of
from detkit.search.study import DATABASE, Study

SAME_FOR_ALL = ("output", "data.root", "data.val", "data.test", "data.classes", "training.metric")
"""Keys that can have no range: trials must be judged alike, and each has its own folder."""
FREE_TO_CHANGE = ("title", "output", "experiment", "trials")
"""Keys of a search that may change between two processes of it; the experiment is known by its content."""


@dataclass(frozen=True)
class SearchedExperiment:
    """An experiment with ranges.

    Raises:
        ConfigError: a range names no key, its ends or a choice give what cannot be trained, or there are no such
            weights; all are checked before anything runs. Values that only together are impossible are found when they
            are drawn.
        DataError: the data cannot be used.
    """

    told: SearchConfig
    source: Path
    """The search's file, from which that of the experiment is found."""
    data_root: str | None = None

    def __post_init__(self) -> None:
        _refuse_keys(self.space)
        self.require_data()
        if not any(_sets_weights(one) for one in self.space):
            _require_weights(self.shared, self._shared_source)
        for one in self.space:
            for value in one.ends:
                where = f"{self.source}, ranges: {one.name} = {value}"
                config = self._parse(one.overrides(value), output="trial", source=where)
                try:
                    self.cost_of(config)
                except ConfigError as error:
                    raise ConfigError(f"{where}: {error}") from None
                if _sets_weights(one):
                    _require_weights(config, where)

    @property
    def folder(self) -> Path:
        return Path(self.told.output)

    @cached_property
    def metric(self) -> Metric:
        """Of validation, which chooses."""
        return self.told.metric or parse_config(self._experiment, source=self._shared_source).training.metric

    @cached_property
    def shared(self) -> Config:
        """What all trials have."""
        return self._parse({}, output="shared", source=self._shared_source)

    @cached_property
    def space(self) -> Space:
        """What trials are drawn from."""
        return [_range(name, told) for name, told in self.told.ranges.items()]

    @cached_property
    def costs(self) -> ModelCosts:
        """What models cost to use."""
        return ModelCosts(split_paths(self.shared, self.shared.data.val)[0])

    def cost_of(self, config: Config) -> ModelCost:
        """What the model of a trial costs to use, once it is known that its values go together.

        Raises:
            ConfigError: they do not.
        """
        build_training_transform(config)
        images = self._image_count(split_paths(config, config.data.train)[0])
        order = BatchOrder(images, background_counts(config).images, seed=config.seed)
        build_plan(config, order.steps_per_epoch)
        return self.costs.of(config)

    @cached_property
    def _image_count(self) -> Callable[[Path], int]:
        """Images of a COCO file, which is read once."""
        return cache(lambda file: len(read_coco(file, self.shared.data.classes)))

    def config(self, values: Mapping[str, Value], number: int) -> Config:
        """The experiment of a trial.

        Raises:
            ConfigError: its values do not go together.
        """
        folder = self.trial_folder(number)
        return self._parse(
            overrides_of(self.space, values), output=str(folder), source=f"{self.source}, trial {number}"
        )

    def trial_folder(self, number: int) -> Path:
        """Where a trial is trained."""
        return self.folder / "trials" / f"{number:04d}"

    def winner_text(self, values: Mapping[str, Value]) -> str:
        """A trial's whole configuration, to train it again: without --data-root or DETKIT_DATA_ROOT of this search."""
        config = self.config(values, 0)
        root = (self._experiment.get("data") or {}).get("root")
        data = config.data.model_copy(update={"root": root})
        return dump_config(config.model_copy(update={"output": str(self.folder / "winner"), "data": data}))

    def require_data(self) -> None:
        """Make sure that the data of all splits is there; of test, no file is read.

        Raises:
            ConfigError: it is not.
        """
        data = self.shared.data
        for split in (data.train, data.val, data.test):
            if split is not None:
                split_paths(self.shared, split)

    def open_study(self, *, begin: bool = True) -> Study:
        """The study of the output folder; where it is not there, it begins if it may.

        Raises:
            DataError: it is not there, or was made from something else.
        """
        told = self.told
        if not begin and not (self.folder / DATABASE).exists():
            raise DataError(f"{self.folder}: no trial has begun yet; begin without --report")
        pruning = told.pruning
        return Study(
            self.folder,
            self.space,
            identity=self._identity(),
            seed=told.seed,
            sampler=told.sampler,
            random_trials=told.random_trials,
            median_pruning=None if pruning is None else (pruning.startup_trials, pruning.warmup_epochs),
            seal=self.folder / TEST_FILE,
        )

    def _identity(self) -> dict[str, Any]:
        told = self.told.model_dump(mode="json", exclude={*FREE_TO_CHANGE, "overrides"})
        return {
            **run_identity(self.shared, [self.shared.data.val]),
            **{f"search.{key}": told[key] for key in told},
        }

    @property
    def _shared_source(self) -> str:
        return f"{self.source}, with {Path(self.told.experiment).name}"

    @cached_property
    def _experiment(self) -> dict[str, Any]:
        """The experiment's tree, with what all trials have otherwise."""
        tree = read_tree(self.source.parent / self.told.experiment)
        for key, value in self.told.overrides.items():
            override_key(tree, key, value)
        return tree

    def _parse(self, overrides: Mapping[str, Any], *, output: str, source: str) -> Config:
        tree = deepcopy(self._experiment)
        for key, value in {**overrides, "training.metric": self.metric, "output": output}.items():
            override_key(tree, key, value)
        return parse_config(with_data_root(tree, self.data_root), source=source)


def _range(name: str, told: Range) -> NumberRange | ChoiceRange:
    if not isinstance(told, Choices):
        return NumberRange(name, told.low, told.high, told.log, told.step)
    if isinstance(told.choices, dict):
        return ChoiceRange(name, told.choices)
    labels = [label(value) for value in told.choices]
    for one in labels:
        if labels.count(one) > 1:
            raise ConfigError(f"ranges: {name}: the choice {one} is there more than once, or two read alike")
    return ChoiceRange(name, {one: {name: value} for one, value in zip(labels, told.choices, strict=True)})


def _keys(one: NumberRange | ChoiceRange) -> set[str]:
    """What a range sets, by full key."""
    return {key for end in one.ends for key in one.overrides(end)}


def _sets_weights(one: NumberRange | ChoiceRange) -> bool:
    return any(_overlap(key, "model.weights") for key in _keys(one))


def _require_weights(config: Config, where: str) -> None:
    if config.model.weights is None:
        return
    try:
        require_weights(config.model.weights, config.model.backbone)
    except WeightsError as error:
        raise ConfigError(f"{where}: model.weights: {error}") from None


def _refuse_keys(space: Space) -> None:
    """No key that must be the same for all, and none that two ranges set."""
    keys = {one.name: _keys(one) for one in space}
    for name, own in keys.items():
        for key in own:
            fixed = next((other for other in SAME_FOR_ALL if _overlap(key, other)), None)
            if fixed:
                raise ConfigError(f"ranges: {name}: {fixed} must be the same for all trials; leave {key} out")
            twice = next(
                (one for one in keys if one != name for other in keys[one] if _overlap(key, other)), None
            )
            if twice:
                raise ConfigError(f"ranges: {name} and {twice} both set {key}; let one of them do it")


def _overlap(first: str, second: str) -> bool:
    """Whether two full names are one key, or one is a section that holds the other."""
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")
