"""Times named calls by turns, so that a machine that slows down slows all of them alike."""

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)
CPU_CACHE_BYTES = 128 << 20
"""Several times the last-level cache that two cores share."""
CUDA_CACHE_BYTES = 256 << 20
CUDA_ADDITIONS = 16
"""So many sweeps over the buffer keep even a fast GPU busy for two milliseconds, while the host queues the call."""


@dataclass(frozen=True)
class Call:
    """What is timed: ``run()``, or ``run(prepare())`` of which the preparation is not timed."""

    run: Callable[..., Any]
    prepare: Callable[[], Any] | None = None

    def ready(self) -> Callable[[], Any]:
        """The part to be timed, with its preparation done."""
        return self.run if self.prepare is None else partial(self.run, self.prepare())


def time_by_turns(
    calls: Mapping[Name, Call],
    device: torch.device,
    *,
    seconds: float = 2.0,
    rounds: tuple[int, int] = (3, 50),
    cold: bool = True,
) -> dict[Name, list[float]]:
    """Run each call once a round, and return the milliseconds that each took in every round.

    One more round goes before and does not count. What a call returns is freed after the clock has stopped.

    Args:
        calls: what to time, by name.
        device: where they run. On a CPU the clock is the host's. On a GPU it is the device's own (events).
        seconds: no further round starts after so long.
        rounds: the least and the most rounds.
        cold: push the inputs out of the caches before each call. On a GPU that keeps the device busy as well
            while the host queues the call, so that what is timed is the device's work and not the host's.
    """
    clear = _cache_clearer(device) if cold else _nothing
    times: dict[Name, list[float]] = {name: [] for name in calls}
    least, most = rounds
    gc.collect()
    gc.disable()
    try:
        for call in calls.values():
            milliseconds(call, device, clear)
        deadline = time.monotonic() + seconds
        for count in range(most):
            if count >= least and time.monotonic() > deadline:
                break
            for name, call in calls.items():
                times[name].append(milliseconds(call, device, clear))
    finally:
        gc.enable()
    return times


def milliseconds(call: Call, device: torch.device, clear: Callable[[], None]) -> float:
    """The time of one call, after its preparation and after ``clear``."""
    run = call.ready()
    clear()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = run()
        end.record()
        end.synchronize()
        taken = begin.elapsed_time(end)
    else:
        started = time.perf_counter()
        result = run()
        taken = 1000 * (time.perf_counter() - started)
    del result
    return taken


def _cache_clearer(device: torch.device) -> Callable[[], None]:
    """A function that fills the caches of the device with something else."""
    on_gpu = device.type == "cuda"
    buffer = torch.zeros((CUDA_CACHE_BYTES if on_gpu else CPU_CACHE_BYTES) // 4, device=device)

    def clear() -> None:
        # Adding reads what it writes; a large fill may write past the caches and leave them as they are.
        for _ in range(CUDA_ADDITIONS if on_gpu else 1):
            buffer.add_(1)
        if on_gpu:
            buffer.sum()  # leaves nothing to write back, which would slow down what comes next

    return clear


def _nothing() -> None:
    pass
