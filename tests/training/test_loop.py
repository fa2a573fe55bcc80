"""The loop through real runs of the smallest detector: resume, early stopping, what a checkpoint holds."""

import signal
from dataclasses import replace
from itertools import islice

import pytest
import torch

from detkit.builders import build_run, load_detector
from detkit.config import load_config
from detkit.errors import ConfigError, TrainingError, WeightsError
from detkit.training.checkpoint import FORMAT_VERSION, load_checkpoint, save_checkpoint
from detkit.training.loop import BEST, LAST
from detkit.training.resume import checkpoint_to_resume
from detkit.training.run_log import read_log

TIMES = ("seconds", "images_per_second")


def log_without_times(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_log(folder / "metrics.jsonl")]


def run_for(tiny_config, *overrides, **given):
    return build_run(load_config(tiny_config, ["data.workers=0", *overrides]), **given)


def same_weights(first, second):
    a, b = (load_checkpoint(folder / LAST) for folder in (first, second))
    models = (a["model"], b["model"])
    learners = (a["training"]["learner"]["model"], b["training"]["learner"]["model"])
    return (
        all(torch.equal(one[key], other[key]) for one, other in (models, learners) for key in one)
        and models[0].keys() == models[1].keys()
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, write_tiny_config):
    """A run left alone, to compare with."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_tiny_config(folder)
    position = run_for(config).fit()
    assert position.finished
    return folder / "run"


def test_log_and_checkpoints_of_a_whole_run(whole_run):
    rows = read_log(whole_run / "metrics.jsonl")
    train = [row for row in rows if row["event"] == "train"]
    assert [row["step"] for row in train] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert [row["epoch"] for row in rows if row["event"] == "validate"] == [1, 2, 3]
    for row in train:
        assert row["loss"] == pytest.approx(row["classification"] + row["box"])
    assert train[-1]["loss"] < train[0]["loss"]
    validations = {row["step"]: row["AP50"] for row in rows if row["event"] == "validate"}
    best = load_checkpoint(whole_run / BEST)
    assert best["metrics"]["AP50"] == max(validations.values()) == validations[best["step"]]
    assert "training" not in best


def test_a_checkpoint_alone_is_enough_to_predict(whole_run):
    detector = load_detector(whole_run / BEST, device="cpu", precision="fp32")
    assert detector.model.class_names == ("bright", "dark")
    assert detector.category_ids == (3, 5)
    found = detector.model([torch.rand(3, 48, 64)])
    assert set(found[0]) == {"boxes", "labels", "scores"}


@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_a_run_stopped_by_a_signal_and_resumed_ends_the_same(tiny_config, whole_run, stop_after):
    run = run_for(tiny_config)
    take_step = run.learner.step

    def step_then_signal(batches, step, observe=None):
        if step == stop_after - 1:
            signal.raise_signal(signal.SIGTERM)
        return take_step(batches, step, observe)

    object.__setattr__(run.learner, "step", step_then_signal)
    stopped = run.fit()
    assert (stopped.finished, stopped.step) == (False, stop_after)
    torch.rand(5)
    config = load_config(tiny_config, ["data.workers=0"])
    checkpoint = checkpoint_to_resume(
        run.folder, config.model_dump(mode="json"), resume=True, overwrite=False
    )
    assert build_run(config).fit(checkpoint).finished
    assert same_weights(run.folder, whole_run)
    assert log_without_times(run.folder) == log_without_times(whole_run)


def test_the_first_step_and_those_with_a_row_are_looked_at(whole_run):
    rows = read_log(whole_run / "metrics.jsonl")
    looks = [row for row in rows if row["event"] == "look"]
    assert [row["step"] for row in looks] == [1, *(row["step"] for row in rows if row["event"] == "train")]
    assert all(0 < row["positive_gradient"] <= 1 and row["seconds"] > 0 for row in looks)


def test_what_is_called_after_a_validation_may_end_the_run_there(tiny_config, whole_run):
    seen = []

    def ask(position):
        seen.append((position.ended_epochs, position.metrics["AP50"]))
        return len(seen) == 2

    run = run_for(tiny_config, after_validation=ask)
    position = run.fit()
    assert (position.finished, position.step, position.ended_epochs) == (True, 10, 2)
    rows = [row for row in log_without_times(whole_run) if row["event"] == "validate"]
    assert seen == [(row["epoch"], row["AP50"]) for row in rows[:2]]
    last = load_checkpoint(run.folder / LAST)
    again = run_for(tiny_config, after_validation=lambda position: pytest.fail("it had ended"))
    assert again.fit(last).step == 10


def test_a_run_killed_after_a_validation_asks_again_with_the_same_values(tiny_config):
    seen = []
    run = run_for(tiny_config)
    save = run._save_last

    def killed(position, log):
        if len(seen) == 2:
            raise SystemError("killed")
        save(position, log)

    run._save_last = killed
    run.after_validation = lambda position: seen.append((position.step, position.best)) or False
    with pytest.raises(SystemError):
        run.fit()
    again = run_for(tiny_config)
    again.after_validation = lambda position: (
        seen.append((position.step, position.best)) or position.step == 10
    )
    assert again.fit(load_checkpoint(run.folder / LAST)).step == 10
    assert seen[1] == seen[2]
    assert len(seen) == 3


def test_a_finished_run_is_not_trained_again(whole_run, tiny_config):
    before = (whole_run / LAST).stat().st_mtime_ns
    run = run_for(tiny_config, f"output={whole_run}")
    assert run.fit(load_checkpoint(whole_run / LAST)).finished
    assert (whole_run / LAST).stat().st_mtime_ns == before


def test_workers_do_not_change_the_result(tiny_config, whole_run):
    run = build_run(load_config(tiny_config, ["data.workers=2"]))
    run.fit()
    assert same_weights(run.folder, whole_run)


def test_a_signal_at_the_end_of_an_epoch_leaves_its_validation_to_the_resumed_run(tiny_config, whole_run):
    run = run_for(tiny_config)
    save = run._save_last

    def save_then_signal(position, log):
        save(position, log)
        if position.step == 5 and position.ended_epochs == 0:
            signal.raise_signal(signal.SIGINT)

    run._save_last = save_then_signal
    stopped = run.fit()
    assert (stopped.step, stopped.ended_epochs, stopped.metrics) == (5, 0, None)
    assert run_for(tiny_config).fit(load_checkpoint(run.folder / LAST)).finished
    assert same_weights(run.folder, whole_run)
    assert log_without_times(run.folder) == log_without_times(whole_run)


def test_small_gains_do_not_add_up_to_patience(tiny_config):
    run = run_for(tiny_config, "training.epochs=6", "training.early_stopping={patience: 3, min_gain: 0.01}")
    values = iter([0.300, 0.308, 0.316, 0.324, 0.332, 0.340])
    run.validate = lambda model: {"loss": 1.0, "AP": 0.0, "AP75": 0.0, "AR100": 0.0, "AP50": next(values)}
    position = run.fit()
    assert (position.step, position.best, position.stale) == (30, 0.340, 1)


def test_batches_that_share_a_step_are_divided_by_the_positives_of_all_of_them(tiny_config):
    run = run_for(tiny_config, "training.clip_norm=null", "optimiser={name: sgd, learning_rate: 1.0, momentum: 0.0, "
                  "weight_decay: 0.0}", "schedule={name: constant, warmup_steps: 0}", "model.dropout=0")  # fmt: skip
    learner = run.learner
    (crowded, targets), (other, emptied), (third, third_targets) = islice(run.batches_from(0), 3)
    emptied = [{**target, "boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()} for target in emptied]
    # The first has no positives, and is what the others' losses are divided by on the way.
    batches = [(other, emptied), (crowded, targets), (third, third_targets)]
    name, weight = next(iter(learner.model.head.named_parameters()))
    state = {key: value.clone() for key, value in learner.model.state_dict().items()}
    learner.model.train()
    total, losses, positives = 0, 0, []
    for batch in batches:
        learner.model.load_state_dict(state)
        sums, count = learner.sums(*batch)
        (gradient,) = torch.autograd.grad(sum(sums.values()), weight)
        total, losses = total + gradient, losses + sum(sums.values()).item()
        positives.append(count.item())
    assert positives[0] == 0 < min(positives[1:])
    learner.model.load_state_dict(state)
    row = learner.step(batches, 0)
    assert torch.allclose(weight, state[f"head.{name}"] - total / sum(positives), rtol=1e-4, atol=1e-6)
    assert row["loss"] == pytest.approx(losses / sum(positives), rel=1e-4)


def test_a_warmup_that_leaves_nothing_of_the_run_is_refused(tiny_config):
    with pytest.raises(ConfigError, match=r"schedule\.warmup_steps: 15 steps.*a run of 15"):
        run_for(tiny_config, "schedule.warmup_steps=15")


def test_accumulation_takes_one_step_for_its_batches(tiny_config):
    run = run_for(tiny_config, "training.batch_size=2", "training.accumulate=2", "training.epochs=1")
    seen = []
    take_step = run.learner.step

    def watched(batches, step, observe=None):
        seen.append([len(images) for images, _ in batches])
        return take_step(batches, step, observe)

    object.__setattr__(run.learner, "step", watched)
    assert run.fit().step == 5
    assert seen == [[2, 2]] * 5


def test_early_stopping_waits_its_patience(tiny_config):
    run = run_for(tiny_config, "training.epochs=9", "training.early_stopping={patience: 2}")
    values = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    metrics = {"loss": 1.0, "AP": 0.0, "AP75": 0.0, "AR100": 0.0}
    run.validate = lambda model: {**metrics, "AP50": next(values)}
    position = run.fit()
    assert (position.finished, position.step, position.best, position.best_step) == (True, 20, 0.3, 10)
    assert load_checkpoint(run.folder / BEST)["step"] == 10


def test_where_the_metric_cannot_be_measured_the_latest_is_kept(tiny_config):
    run = run_for(tiny_config, "training.epochs=2")
    run.validate = lambda model: {"loss": 1.0, "AP": None, "AP50": None, "AP75": None, "AR100": None}
    position = run.fit()
    assert (position.best, position.best_step) == (None, 10)
    assert (run.folder / BEST).exists()


def test_a_loss_that_is_not_finite_names_the_images_and_keeps_the_last_good_state(tiny_config):
    run = run_for(tiny_config)
    sums = run.learner.criterion.sums
    count = iter(range(100))

    def poisoned(outputs, targets, observe=None):
        losses, positives = sums(outputs, targets, observe)
        return (losses if next(count) < 4 else {**losses, "box": losses["box"] * float("nan")}), positives

    run.learner.criterion.sums = poisoned
    with pytest.raises(
        TrainingError, match=r"step 4: the loss is not finite.*box nan.*\d{3}\.png.*learning_rate"
    ):
        run.fit()
    last = load_checkpoint(run.folder / LAST)
    assert last["step"] == 4
    assert all(torch.isfinite(value).all() for value in last["model"].values())


def test_a_folder_with_a_run_is_not_overwritten_by_accident(whole_run, tiny_config, tmp_path):
    config = load_config(tiny_config).model_dump(mode="json")
    with pytest.raises(TrainingError, match=r"--resume.*--overwrite"):
        checkpoint_to_resume(whole_run, config, resume=False, overwrite=False)
    changed = {**config, "seed": 8, "output": str(whole_run)}
    with pytest.raises(TrainingError, match="seed was 7, is 8"):
        checkpoint_to_resume(whole_run, changed, resume=True, overwrite=False)
    assert checkpoint_to_resume(tmp_path / "none", config, resume=True, overwrite=False) is None


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(WeightsError, match="no such file"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="EOFError"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="is not a checkpoint that torch can read"):
        load_checkpoint(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"model\.weights"):
        load_checkpoint(path)
    save_checkpoint(path, {})
    assert load_checkpoint(path)["format_version"] == FORMAT_VERSION
    torch.save({"format": "detkit checkpoint", "format_version": 99}, path)
    with pytest.raises(WeightsError, match="update detkit"):
        load_checkpoint(path)


def test_a_pause_between_steps_and_what_it_changes_goes_on(tiny_config):
    run = run_for(tiny_config, "training.steps=7")
    run = replace(run, plan=replace(run.plan, pauses=(2, 5)), folder=run.folder.with_name("paused"))
    seen, begun = [], []
    batches_from = run.batches_from

    def pause(position):
        seen.append((position.step, position.ended_pauses, position.ended_epochs))
        position.compute += 1000

    def batches(step):
        begun.append(step)
        return batches_from(step)

    position = replace(run, at_pause=pause, batches_from=batches, pauses_change_batches=True).fit()
    # Five steps are an epoch: its validation comes before the pause.
    assert seen == [(2, 0, 0), (5, 1, 1)]
    assert begun == [0, 2, 5]
    assert (position.step, position.ended_epochs, position.ended_pauses) == (7, 2, 2)
    rows = read_log(run.folder / "metrics.jsonl")
    assert [row["step"] for row in rows if row["event"] == "validate"] == [5, 7]
    pixels = next(iter(batches_from(0)))[0].canvas_pixels
    assert position.compute == 3 * 7 * pixels + 2000
    assert rows[-1]["compute"] == position.compute


def test_a_run_killed_in_a_pause_pauses_again_and_ends_the_same(tiny_config):
    def paused(name, at_pause):
        run = run_for(tiny_config, "training.steps=7")
        folder = run.folder.with_name(name)
        return replace(run, plan=replace(run.plan, pauses=(3,)), folder=folder, at_pause=at_pause)

    def killed(position):
        raise KeyboardInterrupt

    def shrink(position):
        position.compute += 5

    whole = paused("whole", shrink)
    whole.fit()
    first = paused("killed", killed)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    checkpoint = load_checkpoint(first.folder / LAST)
    assert (checkpoint["step"], checkpoint["training"]["position"]["ended_pauses"]) == (3, 0)
    paused("killed", shrink).fit(checkpoint)
    assert same_weights(whole.folder, first.folder)
    assert log_without_times(whole.folder) == log_without_times(first.folder)
