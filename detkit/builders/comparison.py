"""A comparison: from its file to the configuration of every run, at equal compute, and to what makes a run."""

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detkit.builders.compared_run import begin_as, finished_run, train
from detkit.builders.data import split_paths
from detkit.builders.equal_compute import compute_budget, steps_within
from detkit.builders.identity import run_identity
from detkit.comparison.finished import FinishedRun
from detkit.comparison.running import PlannedRun, arm_slug
from detkit.config import (
    ComparedArm,
    ComparisonConfig,
    Config,
    Split,
    parse_config,
    read_tree,
    set_key,
    with_data_root,
)
from detkit.console import say
from detkit.errors import ConfigError, DataError
from detkit.evaluation import read_ground_truth
from detkit.files import read_json
from detkit.training.resume import flat_keys

LEAST_GROUPS = 10
"""Resamples of fewer groups say too little about how far others would be from these: intervals would be too narrow."""
SHARED_KEYS = (
    *("data.", "model.", "matcher.", "postprocess.", "evaluation."),
    *("device", "precision", "training.batch_size", "training.accumulate"),
)
"""What all arms have: an arm with a larger network, other images or another cut of scores would win by that. Compute
counts canvas pixels, which a larger network does not raise."""


@dataclass(frozen=True)
class ComparedArms:
    """The arms of a comparison.

    Raises:
        ConfigError: the experiment of an arm cannot be used; all are checked before anything runs.
    """

    comparison: ComparisonConfig
    source: Path
    """The comparison's file, from which that of the experiment is found."""
    work: Path
    """Where runs are made."""
    data_root: str | None = None

    def __post_init__(self) -> None:
        slugs = [arm_slug(arm.name) for arm in self.comparison.arms]
        for arm, slug in zip(self.comparison.arms, slugs, strict=True):
            if slugs.count(slug) > 1:
                raise ConfigError(
                    f"arms: {arm.name!r}: another arm's files would be called {slug} too; rename one"
                )
            self._refuse(arm, self.config(arm, self.comparison.seeds_of(arm)[0]))

    def _refuse(self, arm: ComparedArm, config: Config) -> None:
        """What would make a comparison unfair."""
        own, shared = (flat_keys(one.model_dump(mode="json")) for one in (config, self.shared))
        changed = [
            key
            for key in sorted({*own, *shared})
            if key.startswith(SHARED_KEYS) and own.get(key) != shared.get(key)
        ]
        if changed:
            raise ConfigError(
                f"arm {arm.name!r}: {', '.join(changed)}: arms are compared on the same detector, data and metrics; "
                "set it for all of them, in the comparison's own overrides"
            )
        if config.training.early_stopping is not None:
            raise ConfigError(
                f"arm {arm.name!r}: training.early_stopping: a run that stops early spends less than the others; "
                "leave it out of a comparison"
            )
        if config.bootstrap and config.bootstrap.lost_recall < 1 and "val" in self.comparison.splits:
            raise ConfigError(
                f"arm {arm.name!r}: bootstrap.lost_recall: rounds would be undone by what the verdict is read on, "
                "data.val; leave it out, or judge on test alone (splits: [test])"
            )

    @property
    def splits(self) -> list[Split | None]:
        """What the verdict is read on."""
        data = self.shared.data
        return [{"val": data.val, "test": data.test}[name] for name in self.comparison.splits]

    @cached_property
    def shared(self) -> Config:
        """What all arms have."""
        return self._parse({}, seed=self.comparison.seeds[0], folder="shared", name="all arms")

    @cached_property
    def groups(self) -> np.ndarray | None:
        """The group of each image that the verdict is read on, counted from 0, int64 [I]; None where each is alone.

        Raises:
            DataError: an image has no group, or there are too few groups to resample.
        """
        key = self.comparison.groups
        if key is None:
            return None
        values = []
        for split in self.splits:
            annotations, _ = split_paths(self.shared, split)
            told = {image["id"]: image.get(key) for image in read_json(annotations)["images"]}
            values += [told[image_id] for image_id in read_ground_truth(annotations).image_ids.tolist()]
            if None in values:
                raise DataError(f"{annotations}: an image has no {key!r}; mend the file, or leave groups out")
        places: dict[str, int] = {}
        groups = np.array([places.setdefault(json.dumps(value), len(places)) for value in values])
        if len(places) < LEAST_GROUPS:
            raise DataError(
                f"groups: {key!r} has {len(places)} values in these splits; intervals from fewer than {LEAST_GROUPS} "
                "groups would be too narrow to believe: judge on more splits, or name another key"
            )
        return groups

    def config(self, arm: ComparedArm, seed: int, *, steps: int | None = None) -> Config:
        """The experiment of an arm; ``steps`` replaces its length."""
        length = {} if steps is None else {"training.steps": steps}
        return self._parse(
            {**arm.overrides, **length},
            seed=seed,
            folder=f"{arm_slug(arm.name)}-{seed}",
            name=f"arm {arm.name!r}",
        )

    def plan(self) -> list[PlannedRun]:
        """All runs, seed after seed, so that a part of them is a comparison already.

        Raises:
            ConfigError: an arm's scans cost more than its budget.
            DataError: the data cannot be used, nor the images' groups.
        """
        _ = self.groups  # days of training are not to end in an error that could be said at once
        say("equal compute: measuring what a step and the scans of each arm cost")
        budget = compute_budget(self.shared)
        steps = {
            arm.name: steps_within(self.config(arm, self.comparison.seeds[0]), budget)
            for arm in self.comparison.arms
        }
        seeds = dict.fromkeys(seed for arm in self.comparison.arms for seed in self.comparison.seeds_of(arm))
        return [
            PlannedRun(arm.name, seed, self._identity(arm, seed, steps[arm.name]))
            for seed in seeds
            for arm in self.comparison.arms
            if seed in self.comparison.seeds_of(arm)
        ]

    def make(self, planned: PlannedRun) -> FinishedRun | None:
        """Train a run of the plan, or go on with it, and let it detect; None where it was asked to stop."""
        arm = next(arm for arm in self.comparison.arms if arm.name == planned.arm)
        config = self.config(arm, planned.seed, steps=planned.identity["training.steps"])
        say(f"{planned.arm}, seed {planned.seed}: {config.training.steps} steps, in {config.output}")
        begin_as(Path(config.output), planned.identity)
        trained = train(config)
        if trained is None:
            return None
        return finished_run(
            config,
            *trained,
            splits=[split_paths(config, split) for split in self.splits],
            folder=Path(self.comparison.output),
            name=planned.slug,
            gallery=self.comparison.gallery,
            show_pool=self.comparison.show_pool,
        )

    def _identity(self, arm: ComparedArm, seed: int, steps: int) -> dict[str, Any]:
        return {
            **run_identity(self.config(arm, seed, steps=steps), self.splits),
            "threads": self.comparison.threads,
            "splits": self.comparison.splits,
        }

    def _parse(self, overrides: dict[str, Any], *, seed: int, folder: str, name: str) -> Config:
        path = self.source.parent / self.comparison.experiment
        tree = deepcopy(self._experiment)
        for key, value in {**self.comparison.overrides, **overrides}.items():
            override_key(tree, key, value)
        tree |= {"seed": seed, "output": str(self.work / folder)}
        return parse_config(
            with_data_root(tree, self.data_root), source=f"{self.source}, {name}, with {path.name}"
        )

    @cached_property
    def _experiment(self) -> dict[str, Any]:
        return read_tree(self.source.parent / self.comparison.experiment)


def override_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; a section's keys are set one by one, but a selection, each of which has its own, as a whole."""
    if isinstance(value, dict) and value and key != "selection":
        for part, inner in value.items():
            override_key(tree, f"{key}.{part}", inner)
    else:
        set_key(tree, key, deepcopy(value))
