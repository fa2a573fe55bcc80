"""Trials through a real storage: several processes, processes that are killed, pruning, failing, and the seal."""

import math
import multiprocessing
import os
import random
import signal
import time

import pytest

from detkit.errors import ConfigError, DataError
from detkit.search.running import TrialError, run_trials
from detkit.search.summary import summarise_parameters, summarise_trials

FORK = multiprocessing.get_context("fork")


def planted(trial):
    """Best at a rate of 1e-3, and nearly nothing a decade beside it."""
    return math.exp(-((2 * (math.log10(trial.values["rate"]) + 3)) ** 2))


def values_of(study):
    return [one.values for one in summarise_trials(study)]


@pytest.mark.parametrize("seed", [2, 3, 10])
def test_it_finds_a_planted_rate_that_random_trials_miss(open_study, seed):
    study = open_study(seed=seed)
    assert run_trials(study, 25, planted)
    first = [abs(math.log10(one["rate"]) + 3) for one in values_of(study)[:5]]
    assert min(first) > 0.6
    best = max(summarise_trials(study), key=lambda one: study.trials()[one.number].value)
    assert abs(math.log10(best.values["rate"]) + 3) < 0.2
    assert len(study.trials()) == 25


def test_a_search_that_is_stopped_after_each_trial_draws_what_one_left_alone_draws(open_study, tmp_path):
    whole = open_study(tmp_path / "whole")
    assert run_trials(whole, 9, planted)
    for limit in range(1, 10):
        assert run_trials(open_study(tmp_path / "parts"), limit, planted)
    assert values_of(open_study(tmp_path / "parts")) == values_of(whole)
    assert len({one["rate"] for one in values_of(whole)}) == 9


def test_a_trial_that_was_asked_to_stop_goes_on_with_its_values(open_study):
    study = open_study()
    assert not run_trials(study, 3, lambda trial: None)
    begun = values_of(study)
    assert len(begun) == 1
    numbers = []
    assert run_trials(open_study(), 3, lambda trial: numbers.append(trial.number) or planted(trial))
    assert numbers == [0, 1, 2]
    assert values_of(study)[:1] == begun


def _work(open_study, folder, moment=0.0, barrier=None):
    """Runs twelve trials of a few slow epochs, as a process of its own, and writes down what it does."""

    def run(trial):
        file = folder / f"{trial.number}.epochs"
        done = len(file.read_text().split()) if file.exists() else 0
        with (folder / "begun.txt").open("a") as stream:
            stream.write(f"{os.getpid()} {trial.number} {trial.values['rate']} {done}\n")
        for epoch in range(done + 1, 6):
            time.sleep(moment)
            trial.report(epoch, 0.1 * epoch)
            with file.open("a") as stream:
                stream.write(f"{epoch}\n")
        return planted(trial)

    if barrier:
        barrier.wait()
    run_trials(open_study(folder), 12, run)


def test_processes_share_the_trials_and_run_each_once(open_study, tmp_path):
    barrier = FORK.Barrier(3)
    workers = [FORK.Process(target=_work, args=(open_study, tmp_path, 0.002, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    begun = [line.split() for line in (tmp_path / "begun.txt").read_text().splitlines()]
    assert sorted(int(number) for _, number, _, _ in begun) == list(range(12))
    assert len({rate for _, _, rate, _ in begun}) == 12, "processes drew the same trials"
    assert len({process for process, *_ in begun}) > 1
    assert {one.state for one in summarise_trials(open_study())} == {"complete"}


def test_killed_workers_lose_no_trial_and_count_none_twice(open_study, tmp_path):
    log = tmp_path / "begun.txt"
    log.touch()
    for trials in (1, 3, 2):
        wanted = len(log.read_text().splitlines()) + trials
        worker = FORK.Process(target=_work, args=(open_study, tmp_path, 0.1))
        worker.start()
        while len(log.read_text().splitlines()) < wanted:
            assert worker.is_alive()
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.3))  # in the middle of its five epochs of a tenth of a second
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(60)
    assert open_study().running()
    _work(open_study, tmp_path)
    study = open_study()
    assert [one.state for one in summarise_trials(study)] == ["complete"] * 12
    begun = [line.split() for line in log.read_text().splitlines()]
    again = [line for line in begun if sum(line[1] == other[1] for other in begun) > 1]
    assert again
    for _, number, rate, _ in begun:
        assert {other[2] for other in begun if other[1] == number} == {rate}, "it was drawn anew"
    for number in range(12):
        assert (tmp_path / f"{number}.epochs").read_text().split() == ["1", "2", "3", "4", "5"]
        assert sorted(study.trials()[number].intermediate_values) == [1, 2, 3, 4, 5]


def test_a_trial_that_another_process_runs_is_left_to_it(open_study, tmp_path):
    ready, done = FORK.Event(), FORK.Event()

    def hold():
        def run(trial):
            ready.set()
            done.wait(60)
            os._exit(0)

        run_trials(open_study(tmp_path), 1, run)

    worker = FORK.Process(target=hold)
    worker.start()
    assert ready.wait(60)
    study = open_study()
    with study.next_trial(1) as trial:
        assert trial is None
    assert study.running() == [0]
    done.set()
    worker.join(60)
    with study.next_trial(1) as trial:
        assert trial.number == 0


def test_a_trial_below_the_median_is_pruned_where_it_may_be(open_study):
    study = open_study(median_pruning=(2, 2))
    ages = {}

    def run(trial):
        for epoch in range(1, 5):
            ages[trial.number] = epoch
            value = 0.1 * epoch * (1 if trial.number < 3 else 0.1)
            trial.keep("curve", [{"epoch": epoch, "compute": 0.0, "value": value}])
            if trial.report(epoch, value):
                trial.prune()
                return None
        return 0.4

    assert run_trials(study, 5, run)
    assert ages == {0: 4, 1: 4, 2: 4, 3: 2, 4: 2}
    assert [one.state for one in summarise_trials(study)] == ["complete"] * 3 + ["pruned"] * 2


def test_a_trial_that_fails_is_told_and_counted_and_the_next_begins(open_study, capsys):
    study = open_study()

    def run(trial):
        if trial.number == 1:
            raise TrialError("the loss is nan at step 3")
        return planted(trial)

    ended = []
    assert run_trials(study, 3, run, lambda: ended.append(1))
    found = summarise_trials(study)
    assert [one.state for one in found] == ["complete", "failed", "complete"]
    assert found[1].reason == "the loss is nan at step 3"
    assert "trial 1 failed: the loss is nan" in capsys.readouterr().err
    assert len(ended) == 3


def test_what_matters_is_found_to_matter(open_study):
    study = open_study(sampler="random")
    run_trials(
        study,
        30,
        lambda trial: (
            trial.keep("curve", [{"epoch": 1, "compute": 0.0, "value": planted(trial)}]) or planted(trial)
        ),
    )
    found = summarise_parameters(study._space, study)
    assert found[0].name == "rate"
    assert found[0].importance > 0.5
    assert sum(one.importance for one in found) == pytest.approx(1)
    assert (found[0].low, found[0].high, found[0].log) == (1e-6, 1.0, True)


def test_with_few_trials_nothing_is_said_to_matter(open_study):
    study = open_study()
    run_trials(study, 5, planted)
    assert [one.importance for one in summarise_parameters(study._space, study)] == [None] * 3


def test_a_sealed_search_begins_no_trial(open_study, tmp_path):
    study = open_study()
    run_trials(study, 2, planted)
    (tmp_path / "test.json").write_text("{}")
    assert run_trials(study, 2, planted)
    with pytest.raises(
        DataError, match=r"winner of 2 trials is scored on test already.*begin another output"
    ):
        run_trials(study, 3, planted)
    assert len(study.trials()) == 2


def test_a_search_of_another_configuration_is_refused(open_study):
    open_study()
    with pytest.raises(DataError, match=r"began with another configuration \(loss.gamma was 2.0, is 3.0\)"):
        open_study(identity={"loss.gamma": 3.0})


def test_a_database_of_something_else_is_one_message(open_study, tmp_path):
    (tmp_path / "study.db").write_text("no database " * 200)
    with pytest.raises(DataError, match=r"study.db: cannot be opened by optuna"):
        open_study()


def test_without_optuna_the_message_says_how_to_get_it(open_study, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'detkit\[search\]'"):
        open_study()
