"""What a search found: search.json, best.yaml, and the winner's score on test."""

from detkit.builders.data import split_paths
from detkit.builders.detector import detect_coco, load_detector
from detkit.builders.identity import versions
from detkit.builders.search import SearchedExperiment
from detkit.builders.searched_trial import drop_checkpoints
from detkit.console import say
from detkit.evaluation import evaluate_boxes
from detkit.evaluation.search_results import (
    SEARCH_FILE,
    TEST_FILE,
    Search,
    TestScore,
    best_trial,
    read_test_score,
    write_search,
    write_test_score,
)
from detkit.files import write_text
from detkit.search.sentences import search_sentences
from detkit.search.study import Study
from detkit.search.summary import summarise_parameters, summarise_trials
from detkit.training.loop import BEST

WINNER_FILE = "best.yaml"


def write_found(experiment: SearchedExperiment, study: Study, wanted: int) -> Search:
    """Write search.json and the configuration of the winner so far, and drop checkpoints that nobody can want."""
    with study.alone():
        search = _found(experiment, study, wanted)
        write_search(experiment.folder / SEARCH_FILE, search)
        if search.winner is not None:
            write_text(experiment.folder / WINNER_FILE, search.winner_config)
        drop_checkpoints(experiment, search.trials)
    return search


def score_winner(experiment: SearchedExperiment, study: Study, wanted: int) -> TestScore | None:
    """What the winner scores on test: measured when the search is over, once, and read from then on.

    Returns:
        None where the search is not over, has no winner, or has no test split.

    Raises:
        ConfigError, DataError: the test split cannot be used; nothing of it has been told then.
    """
    file = experiment.folder / TEST_FILE
    # No other process can begin a trial meanwhile, nor score the winner too.
    with study.alone():
        if file.exists():
            return read_test_score(file)
        search = _found(experiment, study, wanted)
        if not search.over or search.winner is None or not search.has_test:
            return None
        say(f"trial {search.winner} is the winner on validation; scoring it on test, once")
        detector = load_detector(
            experiment.trial_folder(search.winner) / BEST, data_root=experiment.shared.data.root
        )
        truth, table = detect_coco(detector, *split_paths(detector.config, detector.config.data.test))
        metrics = evaluate_boxes(truth, table, backend=detector.config.evaluation.backend)
        score = TestScore(search.winner, len(truth.image_ids), dict(metrics.overall))
        write_test_score(file, score)
        return score


def standing(experiment: SearchedExperiment, search: Search) -> list[str]:
    """Where a search stands, in lines for a terminal: the verdict, the score on test, and where to look."""
    running = sum(one.state == "running" for one in search.trials)
    file = experiment.folder / TEST_FILE
    lines = list(search.verdict)
    if file.exists():
        score = read_test_score(file)
        lines.append(f"on test, trial {score.trial} scores {search.metric} {score.metrics[search.metric]}")
    elif not search.has_test:
        lines.append("data.test is not set in this configuration, so the winner is not scored on test")
    elif running:
        lines.append(
            f"{running} trials are not over; where other processes run them, the one that ends last scores the winner"
        )
    return [*lines, f"the report: {experiment.folder / 'report.html'}"]


def _found(experiment: SearchedExperiment, study: Study, wanted: int) -> Search:
    trials = summarise_trials(study)
    parameters = summarise_parameters(experiment.space, study)
    best = best_trial(trials)
    return Search(
        title=experiment.told.title,
        metric=experiment.metric,
        wanted=max(wanted, len(trials)),
        parameters=tuple(parameters),
        trials=tuple(trials),
        winner=None if best is None else best.number,
        winner_config="" if best is None else experiment.winner_text(best.values),
        has_test=experiment.shared.data.test is not None,
        verdict=search_sentences(experiment.metric, trials, parameters, max(wanted, len(trials))),
        versions=versions("optuna"),
    )
