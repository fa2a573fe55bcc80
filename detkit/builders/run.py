"""A training run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detkit.builders.background import background_counts
from detkit.builders.batches import TrainingBatches
from detkit.builders.data import build_evaluation_loader, build_evaluation_transform, split_paths
from detkit.builders.learner import build_learner
from detkit.builders.rounds import bootstrap_settings, build_bootstrapping
from detkit.builders.training_images import training_images
from detkit.config import Config, dump_config
from detkit.console import warn
from detkit.data.coco import read_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.loader import BatchOrder
from detkit.devices import place
from detkit.errors import ConfigError
from detkit.evaluation import read_ground_truth
from detkit.evaluation.compared_metrics import FALSE_POSITIVE_LEVELS
from detkit.files import write_text
from detkit.training.laziness import StepLook
from detkit.training.learner import Learner
from detkit.training.loop import Plan, Position, Run
from detkit.training.resume import checkpoint_to_resume, clear
from detkit.training.validation import Validator


def begin_run(
    config: Config,
    *,
    resume: bool,
    overwrite: bool = False,
    after_validation: Callable[[Position], bool] | None = None,
) -> tuple[Run, dict[str, Any] | None]:
    """A run in its folder, and the checkpoint that it goes on from; None where it begins.

    What an earlier run left is removed only when everything else has been checked.

    Raises:
        TrainingError: the folder holds a run and neither flag is given, or the run has another configuration.
    """
    folder = Path(config.output)
    told = config.model_dump(mode="json")
    if config.unverified_and_unscanned:
        warn(
            "data.background: the pool is unverified, and nothing here looks for objects in it: what it shows of them "
            "is trained as background; look through it, or scan it (bootstrap.crops)"
        )
    checkpoint = checkpoint_to_resume(folder, told, resume=resume, overwrite=overwrite)
    run = build_run(config, resumed=checkpoint is not None, after_validation=after_validation)
    if checkpoint is None:
        clear(folder)
    write_text(folder / "config.yaml", dump_config(config))
    return run, checkpoint


def build_run(
    config: Config, *, resumed: bool = False, after_validation: Callable[[Position], bool] | None = None
) -> Run:
    """Everything of a training run, from its configuration.

    A ``resumed`` run does not read ``model.weights``: a checkpoint follows. The hook is the run's.
    """
    placement = place(config.device, config.precision)
    images = training_images(config)
    annotations = images.annotations
    order = BatchOrder(len(annotations), background_counts(config).images, seed=config.seed)
    plan = build_plan(config, order.steps_per_epoch)
    new_learner = partial(
        build_learner, config, annotations.class_names, plan, placement, accepted=images.accepted()
    )
    learner = new_learner(read_weights=not resumed)
    validate = _validator(config, learner)
    bootstrapping = build_bootstrapping(
        config,
        learner,
        validate,
        images,
        steps=plan.steps,
        fresh=lambda: new_learner(read_weights=True).state_dict(),
    )
    batches = TrainingBatches(config, images, order, plan, learner, bootstrapping)
    return Run(
        folder=Path(config.output),
        plan=plan,
        learner=learner,
        batches_from=batches,
        validate=validate,
        identity={"config": config.model_dump(mode="json"), **images.identity},
        tensorboard=config.training.tensorboard,
        at_pause=bootstrapping,
        pauses_change_batches=batches.change_at_pauses,
        look=partial(StepLook, config.postprocess.score_threshold, config.matcher.foreground_iou),
        after_validation=after_validation,
    )


def build_plan(config: Config, steps_per_epoch: int) -> Plan:
    """How long to train, and what to do on the way.

    Raises:
        ConfigError: the keys do not go together.
    """
    training = config.training
    stopping = training.early_stopping
    steps = training.steps or training.epochs * steps_per_epoch
    if config.schedule.name != "constant" and config.schedule.warmup_steps >= steps:
        raise ConfigError(
            f"schedule.warmup_steps: {config.schedule.warmup_steps} steps of warm-up leave nothing of a run of "
            f"{steps}; warm up for less, or train for more epochs"
        )
    settings = bootstrap_settings(config)
    return Plan(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        accumulate=training.accumulate,
        validate_every=training.validate_every,
        metric=training.metric,
        patience=stopping.patience if stopping else None,
        min_gain=stopping.min_gain if stopping else 0.0,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
        pauses=settings.pauses(steps) if settings else (),
    )


def _validator(config: Config, learner: Learner) -> Validator:
    # In the order of the training classes; a class that validation does not know is refused by name.
    names = learner.model.class_names
    file, images = split_paths(config, config.data.val)
    annotations = read_coco(file, names)
    dataset = DetectionDataset(annotations, images, build_evaluation_transform(config))
    settings = bootstrap_settings(config)
    watched = {settings.false_positives} if settings else set()
    return Validator(
        loader=build_evaluation_loader(
            config, dataset, learner.model, learner.placement, config.data.workers
        ),
        ground_truth=read_ground_truth(file, names),
        criterion=learner.criterion,
        category_ids=annotations.category_ids,
        placement=learner.placement,
        backend=config.evaluation.backend,
        false_positives=sorted({*FALSE_POSITIVE_LEVELS, *watched}),
    )
