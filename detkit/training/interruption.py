"""Ctrl-C and SIGTERM as a request to finish the step, save and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """``signal`` is the signal that asked the run to stop, or None."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            # Asked a second time: do not wait for the step to end.
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def watch_interruption() -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one stops at once."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
