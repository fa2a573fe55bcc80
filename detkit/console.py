"""Everything that detkit shows on a terminal; the one module that uses rich.

On a terminal: a live progress bar and coloured tables. Elsewhere (a file, a pipe, CI): plain lines.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from detkit.errors import ConfigError, DetkitError

T = TypeVar("T")
ProgressBar = Progress
PLAIN_LINE_SECONDS = 30
_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


def _plain(text: str) -> str:
    """Names are untrusted: no markup, and half a surrogate pair, which JSON can say and no terminal takes, is a "?"."""
    return escape(text.encode("utf-8", "replace").decode())


def say(text: str) -> None:
    """Print a line, as it is (no markup: file and class names are untrusted)."""
    _out.print(_plain(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    _err.print(f"[yellow]warning:[/yellow] {_plain(text)}", soft_wrap=True)


def progress_bar(*, live: bool | None = None) -> Progress:
    """A live bar with count, time taken and time left; shown on a terminal alone."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=_err,
        transient=True,
        disable=not (_err.is_terminal if live is None else live),
    )


def progress(iterable: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Iterate under a progress bar; elsewhere than on a terminal print a line every half minute."""
    if _err.is_terminal:
        with progress_bar() as bar:
            yield from bar.track(
                iterable, total=total, task_id=bar.add_task(description, total=total, status="")
            )
        return
    spoken = time.monotonic()
    for count, item in enumerate(iterable):
        if time.monotonic() - spoken > PLAIN_LINE_SECONDS:
            spoken = time.monotonic()
            say(f"{description}: {count}" + ("" if total is None else f" of {total}"))
        yield item


@contextmanager
def progress_of(description: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with how many parts are done, of how many; shown on a terminal alone."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=None, status="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers are aligned right, None is shown as n/a."""
    rows = [list(row) for row in rows]
    table = Table(title=_plain(title), title_justify="left")
    for index, name in enumerate(columns):
        numeric = all(row[index] is None or isinstance(row[index], (int, float)) for row in rows)
        table.add_column(_plain(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.3f}"
    return _plain(str(value))


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a script's ``main`` and turn what a user can mend into one message and exit status 2."""
    try:
        _refuse_torchrun()
        return main() or 0
    except DetkitError as error:
        _err.print(f"[red]error:[/red] {_plain(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        _err.print("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`tool | head`): nothing is wrong, and nothing more can be said.
        sys.stderr.close()
        return 0
    except OSError as error:
        # A path that cannot be read or written; anything else keeps its traceback.
        if error.filename is None:
            raise
        _err.print(f"[red]error:[/red] {_plain(f'{error.filename}: {error.strerror}')}", soft_wrap=True)
        return 2


def _refuse_torchrun() -> None:
    """Its processes would all do the same.

    Raises:
        ConfigError: torchrun started several. WORLD_SIZE alone says nothing: some clusters set it for every program.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and processes != "1":
        raise ConfigError(
            f"torchrun started {processes} processes, but this script is one process, on one GPU: each would do the "
            "same, in one folder; start it with python (tools/compare.py and tools/search.py several times, each with "
            "a GPU of its own in CUDA_VISIBLE_DEVICES: they share their runs)"
        )
