"""Measures the implementations of an op on one case, by turns, and says what was measured in records."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import torch
from memory import available_bytes, bytes_moved, peak_extra_bytes
from op_cases import LossCase, LossInputs, MatchingCase, MatchingInputs
from op_peers import COPY, LOSSES, MATCHINGS, Implementation, UnavailableError, least_bytes, needed_bytes
from timing import time_by_turns

LOSS, MATCHING = "sigmoid_focal_loss", "match_anchors"
SHARE_OF_MEMORY = 0.8
"""Of the memory that is free, what a case may take."""

Record = dict[str, Any]
Inputs = LossInputs | MatchingInputs


@dataclass(frozen=True)
class Job:
    """One case, and what of it is measured."""

    case: LossCase | MatchingCase
    passes: tuple[str, ...]
    implementations: tuple[str, ...]

    @property
    def op(self) -> str:
        return LOSS if isinstance(self.case, LossCase) else MATCHING

    def inputs(self, device: torch.device) -> Inputs:
        return (LossInputs if isinstance(self.case, LossCase) else MatchingInputs)(self.case, device)

    def record(self, implementation: str, passes: str, device: torch.device) -> Record:
        """The record of an implementation that has not been measured."""
        return {
            "op": self.op,
            "implementation": implementation,
            "device": device.type,
            "dtype": self.case.dtype,
            "case": str(self.case),
            "pass": passes,
            "median_ms": None,
            "quartiles_ms": None,
            "rounds": None,
            "extra_bytes": None,
            "bytes_moved": None,
            "least_bytes": None,
        }


@dataclass(frozen=True)
class Prepared:
    """A job whose implementations have their inputs."""

    job: Job
    inputs: Inputs | None
    """None where no implementation can run."""
    ready: dict[str, Implementation]
    skipped: dict[str, str]
    """The implementations that cannot run, with the reason."""


def measure(group: Sequence[Job], device: torch.device, seconds: float) -> list[list[Record]]:
    """For each job a record of each pass and implementation.

    Args:
        group: jobs with the same passes, all of which take turns, so that their times can be compared.
        device: where they run.
        seconds: time to spend on the timing of each pass.
    """
    gc.collect()
    prepared = [prepare(job, device) for job in group]
    records: list[list[Record]] = [[] for _ in group]
    for passes in group[0].passes:
        found = measure_pass(prepared, passes, device, seconds)
        for index, (item, of_job) in enumerate(zip(prepared, records, strict=True)):
            for name in item.job.implementations:
                record = item.job.record(name, passes, device)
                if (index, name) in found:
                    record |= {**found[index, name], "least_bytes": least_bytes(item.inputs, passes)}
                else:
                    record["skipped"] = item.skipped[name]
                of_job.append(record)
    return records


def prepare(job: Job, device: torch.device) -> Prepared:
    """Make the inputs of a job, and of its implementations those that can run and have the memory."""
    skipped = too_large(job, device)
    if len(skipped) == len(job.implementations):
        return Prepared(job, None, {}, skipped)
    inputs = job.inputs(device)
    builders: dict[str, Callable[[Any], Implementation]] = LOSSES if job.op == LOSS else MATCHINGS
    ready = {}
    for name in job.implementations:
        if name in skipped:
            continue
        try:
            ready[name] = builders[name](inputs)
        except (UnavailableError, torch.OutOfMemoryError) as error:
            skipped[name] = first_line(error)
    return Prepared(job, inputs, ready, skipped)


def too_large(job: Job, device: torch.device) -> dict[str, str]:
    """The implementations that would not fit into memory, with the reason."""
    available = available_bytes(device)
    shared = job.case.logit_bytes + needed_bytes(job.case, COPY) if isinstance(job.case, LossCase) else 0
    needs = {name: shared + needed_bytes(job.case, name) for name in job.implementations}
    return {
        name: f"needs about {need / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free"
        for name, need in needs.items()
        if need > SHARE_OF_MEMORY * available
    }


def measure_pass(
    prepared: Sequence[Prepared], passes: str, device: torch.device, seconds: float
) -> dict[tuple[int, str], Record]:
    """Memory, traffic and times by job and implementation; what runs out of memory moves to ``skipped``."""
    found: dict[tuple[int, str], Record] = {}
    calls = {}
    for index, item in enumerate(prepared):
        for name in list(item.ready):
            implementation = item.ready[name]
            call = implementation.call(passes)
            try:
                # The first run warms the call up for the second, and both for the clock.
                moved = bytes_moved(call, watch=implementation.countable)
                extra = peak_extra_bytes(call, device)
            except torch.OutOfMemoryError as error:
                item.skipped[name] = first_line(error)
                del item.ready[name]
                continue
            found[index, name] = {"extra_bytes": extra, "bytes_moved": moved}
            calls[index, name] = call
    for key, times in time_by_turns(calls, device, seconds=seconds).items():
        low, middle, high = quantiles(times, n=4, method="inclusive")
        found[key].update(median_ms=middle, quartiles_ms=[low, high], rounds=len(times))
    return found


def first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
