"""Running the trials of a search, one after another or by several processes."""

from collections.abc import Callable

from detkit.console import say, warn
from detkit.errors import DetkitError
from detkit.search.study import Study, Trial


class TrialError(DetkitError):
    """A trial that cannot come to its end because of its values: a loss that is not finite, no such model."""


Run = Callable[[Trial], float | None]
"""Runs a trial, or goes on with one that was stopped, and returns its best validation; None where it was asked to stop,
and where it has ended the trial itself. It may raise TrialError, and the search goes on with another."""


def run_trials(study: Study, limit: int, run: Run, after: Callable[[], None] = lambda: None) -> bool:
    """Run trials until the search has as many as it may.

    Args:
        study: whose trials they are.
        limit: of the whole search, whichever process runs them.
        run: runs one.
        after: called after each that ended.

    Returns:
        Whether nothing is left to begin; False where a run was asked to stop. Its trial is then left as it is, and the
        next to ask for a trial goes on with it.
    """
    while True:
        with study.next_trial(limit) as trial:
            if trial is None:
                return True
            values = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in trial.values.items()
            )
            say(f"trial {trial.number}: {values}")
            try:
                value = run(trial)
            except TrialError as error:
                trial.fail(str(error))
                warn(f"trial {trial.number} failed: {error}")
            else:
                if trial.ended:
                    say(f"trial {trial.number}: pruned")
                elif value is None:
                    return False
                else:
                    trial.complete(value)
                    say(f"trial {trial.number}: {value:.4f}")
        after()
