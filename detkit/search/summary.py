"""From a study to what search.json says of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from detkit.evaluation.search_results import (
    CurvePoint,
    ModelCost,
    Parameter,
    SearchTrial,
    State,
)
from detkit.search.space import NumberRange, Space
from detkit.search.study import COST, CURVE, REASON, SPENT, Study, import_optuna, quiet

TOP_SHARE = 0.25
"""Importance is of what sets this share of the trials apart from all."""
LEAST_TRIALS = 8
"""With fewer, the best quarter is a trial or two, and says nothing."""


def summarise_trials(study: Study) -> list[SearchTrial]:
    """What is known of each trial, by number."""
    return [_trial(record) for record in study.trials()]


def summarise_parameters(space: Space, study: Study) -> list[Parameter]:
    """The ranges, the most important first."""
    shares = _importances(study)
    found = [_parameter(one, shares.get(one.name)) for one in space]
    return sorted(found, key=lambda one: -(one.importance or 0.0))


def _trial(record: Any) -> SearchTrial:
    kept: Mapping[str, Any] = record.user_attrs
    curve = tuple(CurvePoint(**point) for point in kept.get(CURVE, ()))
    measured = [point.value for point in curve if point.value is not None]
    spent = kept.get(SPENT, {})
    return SearchTrial(
        number=record.number,
        values=dict(record.params),
        state=_state(record),
        value=max(measured, default=None),
        curve=curve,
        cost=ModelCost(**kept[COST]) if COST in kept else None,
        compute=spent.get("compute", 0.0),
        seconds=spent.get("seconds", 0.0),
        reason=kept.get(REASON, ""),
    )


def _state(record: Any) -> State:
    if not record.state.is_finished():
        return "running"
    if REASON in record.user_attrs:
        return "failed"
    return "complete" if record.state.name == "COMPLETE" else "pruned"


def _parameter(one: Any, importance: float | None) -> Parameter:
    if isinstance(one, NumberRange):
        return Parameter(one.name, one.low, one.high, one.log, importance=importance)
    return Parameter(one.name, choices=tuple(one.options), importance=importance)


def _importances(study: Study) -> dict[str, float]:
    """Shares by PED-ANOVA: how far the values of the best trials are from those of all; empty where they are too few.

    Of optuna's ways this one needs no other library. It looks at complete trials alone; here pruned and failed ones
    take part too, with the best that they reached: most of the bad values of what matters are among them.
    """
    optuna = import_optuna()
    records = [one for one in study.trials() if one.state.is_finished()]
    if len(records) < LEAST_TRIALS:
        return {}
    with quiet():
        whole = optuna.create_study(direction="maximize")
        whole.add_trials([_as_complete(optuna, one) for one in records])
        evaluator = optuna.importance.PedAnovaImportanceEvaluator
        # Its name in optuna 5 and in 4.
        known = inspect.signature(evaluator.__init__).parameters
        name = "target_quantile" if "target_quantile" in known else "baseline_quantile"
        found = optuna.importance.get_param_importances(whole, evaluator=evaluator(**{name: TOP_SHARE}))
    return {key: float(value) for key, value in found.items()}


def _as_complete(optuna: Any, record: Any) -> Any:
    summary = _trial(record)
    value = summary.value if summary.value is not None and summary.state != "failed" else 0.0
    return optuna.trial.create_trial(params=record.params, distributions=record.distributions, value=value)
