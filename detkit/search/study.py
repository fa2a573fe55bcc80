"""The trials of a search, in a folder that the processes of one machine may share.

optuna keeps the trials in ``study.db``, and who runs one is known by a lock. optuna's own way, a heartbeat in its
storage, needs a grace period to tell a killed process from a slow one, and then draws the trial again under another
number; a lock ends with its process at once, however that ends, and the trial goes on as it is, from its checkpoint.

The storage is SQLite: a process that is killed in the middle of a write leaves the database as it was before, and its
locks end with it. optuna's journal is a text file, whose last line such a process leaves torn; whoever appends to it
then makes a file that cannot be read, and the journal's lock outlives its process.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detkit.errors import ConfigError, DataError
from detkit.files import locked
from detkit.search.space import Space, Value, draw_values

DATABASE = "study.db"
CURVE, COST, SPENT, REASON = "curve", "cost", "spent", "reason"
"""Names of what is kept with a trial: its validations, what its model costs, what its training has cost, and why it
failed."""
_NAME, _IDENTITY = "search", "identity"
_PATIENCE = 60
"""Seconds to wait for another process to finish its write."""


def import_optuna() -> Any:
    """optuna, which only a search needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "a search needs optuna, which is not installed; pip install 'detkit[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def quiet() -> Iterator[None]:
    """Without optuna's warnings that an argument is experimental or that trials are few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Trial:
    """A trial that this process runs, and no other."""

    def __init__(self, study: Any, trial: Any, values: dict[str, Value]) -> None:
        """``study`` and ``trial`` are optuna's; ``values`` what was drawn, by the names of the ranges."""
        self.number: int = trial.number
        self.values = values
        self.ended = False
        self._study, self._trial = study, trial
        self._reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value with the trial."""
        self._trial.set_user_attr(name, value)

    def report(self, epoch: int, value: float) -> bool:
        """Tell what a validation found; whether the trial is to be pruned.

        A trial that goes on from a checkpoint may tell what it told before.
        """
        if epoch not in self._reported:
            self._reported.add(epoch)
            self._trial.report(value, epoch)
        return bool(self._trial.should_prune())

    def complete(self, value: float) -> None:
        """It came to its end, and this is its best validation."""
        self._study.tell(self.number, value)
        self.ended = True

    def prune(self) -> None:
        """It was ended, for others were better at its age."""
        self._study.tell(self.number, state=import_optuna().trial.TrialState.PRUNED)
        self.ended = True

    def fail(self, reason: str) -> None:
        """It could not come to its end.

        For optuna it is a pruned trial, which the sampler takes for a bad one; it would learn nothing from one of
        the state FAIL, and go on drawing what diverges.
        """
        self.keep(REASON, reason)
        self.prune()


class Study:
    """The trials of a search; see the module."""

    def __init__(
        self,
        folder: Path,
        space: Space,
        *,
        identity: Mapping[str, Any],
        seed: int,
        sampler: Literal["tpe", "random"] = "tpe",
        random_trials: int = 5,
        median_pruning: tuple[int, int] | None = None,
        seal: Path,
    ) -> None:
        """Open a study, or begin it.

        Args:
            folder: where it is, or will be.
            space: what trials are drawn from.
            identity: what the trials' values depend on, as JSON values; a study of another is refused.
            seed: of what is drawn.
            sampler: tpe draws where trials were good, random everywhere.
            random_trials: trials before tpe learns from them.
            median_pruning: trials that must be complete before any is pruned, and epochs that each has; None
                prunes none.
            seal: a file with whose existence the search is over: no trial may begin.

        Raises:
            ConfigError: optuna is not installed.
            DataError: the study was made from something else, or cannot be read.
        """
        self.folder, self.seal = folder, seal
        self._space, self._seed = space, seed
        self._kind, self._random_trials = sampler, random_trials
        self._optuna = import_optuna()
        with self.alone():
            self._study = self._open(median_pruning)
            self._check(dict(identity))

    def _open(self, median_pruning: tuple[int, int] | None) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        optuna, file = self._optuna, self.folder / DATABASE
        pruner = optuna.pruners.NopPruner()
        if median_pruning is not None:
            startup, warmup = median_pruning
            pruner = optuna.pruners.MedianPruner(startup, warmup)
        try:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}}
            )
            return optuna.create_study(
                study_name=_NAME, storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
            )
        except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
            found = str(error).splitlines()[0]
            raise DataError(
                f"{file}: cannot be opened by optuna {optuna.__version__}: {found}; go on with the version that began "
                "the search, or choose another output"
            ) from None

    def _check(self, identity: dict[str, Any]) -> None:
        before = self._study.user_attrs.get(_IDENTITY)
        if before is None:
            self._study.set_user_attr(_IDENTITY, identity)
            return
        changed = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
        if changed:
            named = "; ".join(
                f"{key} was {before.get(key)!r}, is {identity.get(key)!r}" for key in changed[:4]
            )
            raise DataError(
                f"{self.folder / DATABASE}: this search began with another configuration ({named}); go on with the "
                "same, or choose another output"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is in such a block, and keep the others out of it."""
        with locked(self.folder / "study.lock", wait=True):
            yield

    def trials(self) -> list[Any]:
        """optuna's records of all trials, by number."""
        found: list[Any] = self._study.get_trials(deepcopy=False)
        return found

    def running(self) -> list[int]:
        """Numbers of the trials that have begun and not ended, whether a process runs them or not."""
        return [one.number for one in self.trials() if not one.state.is_finished()]

    @contextmanager
    def next_trial(self, limit: int) -> Iterator[Trial | None]:
        """A trial to run, which is this process's until the block ends: one that was left behind, or a new one.

        Args:
            limit: trials of the whole search, however they end.

        Returns:
            None where there is nothing left to begin; other processes may be running trials still.

        Raises:
            DataError: the search is over, but the limit asks for more.
        """
        with ExitStack() as stack:
            with self.alone():
                trial = self._next(stack, limit)
            yield trial

    def _next(self, stack: ExitStack, limit: int) -> Trial | None:
        records = self.trials()
        if self.seal.exists() and limit > len(records):
            raise DataError(
                f"{self.seal}: the winner of {len(records)} trials is scored on test already, so there can be no "
                f"{limit}: a choice made after looking is no test; begin another output"
            )
        for number in self.running():
            # Read again with the lock in hand: the process that held it a moment ago may have ended the trial.
            if self._take(stack, number) and number in self.running():
                self._study.sampler = self._sampler(number)
                # A process may have died between the trial's beginning and the drawing of its last value.
                return self._drawn(self._optuna.trial.Trial(self._study, records[number]._trial_id))
        if len(records) >= limit:
            return None
        self._study.sampler = self._sampler(len(records))
        trial = self._study.ask()
        self._take(stack, trial.number)  # nobody else knows of it yet
        return self._drawn(trial)

    def _drawn(self, trial: Any) -> Trial:
        return Trial(self._study, trial, draw_values(self._space, trial))

    def _take(self, stack: ExitStack, number: int) -> bool:
        """Take a trial's lock until the stack ends; False where another process has it."""
        return stack.enter_context(locked(self.folder / "locks" / f"{number:04d}.lock", wait=False))

    def _sampler(self, number: int) -> Any:
        """A sampler for one trial, whose seed follows from the trial's number.

        One sampler with one seed would draw the same trials in every process, and others after the search was stopped
        and begun again than it would have drawn otherwise.
        """
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._kind == "random":
            return self._optuna.samplers.RandomSampler(seed=seed)
        with quiet():
            # What other processes are running counts as bad, so that no two try the same.
            return self._optuna.samplers.TPESampler(
                n_startup_trials=self._random_trials, seed=seed, constant_liar=True
            )
