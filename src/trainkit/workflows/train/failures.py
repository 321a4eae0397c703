"""Ends of a run other than the last epoch: a stop, memory that runs out, a data worker that dies."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trainkit.data.loading import worker_failure
from trainkit.errors import Interrupted, TrainkitError
from trainkit.runtime import memory_that_ran_out
from trainkit.system import Frontend, RunDir, StopRequest
from trainkit.workflows.report import report_failure


@contextmanager
def preparing(stop: StopRequest) -> Iterator[None]:
    """A stop before the first step ends with the exit code of its signal; nothing was written but the cache."""
    try:
        yield
    except Interrupted as error:
        if not stop():
            raise
        raise stop.error(f"{str(error).removeprefix('stopped ')}; no step was taken") from error
    if stop():
        raise stop.error("before the first step; nothing was written")


@contextmanager
def recorded(run: RunDir, frontend: Frontend) -> Iterator[None]:
    """Write into run.json how the run ended, whichever way, and after how long."""
    started = time.monotonic()
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        with suppress(TrainkitError):
            seconds = round(run.seconds + time.monotonic() - started, 2)
            run.update_info(status="interrupted" if interrupted else f"failed: {error}", seconds=seconds)
        if not interrupted:
            report = report_failure(run, frontend=frontend)
            for finding in () if report is None else report.findings:
                frontend.say(f"finding: {finding.title}. {finding.evidence}")
        raise


@contextmanager
def explained(*, batch_size: int, data_on_device: bool = False) -> Iterator[None]:
    """Turn PyTorch's errors about memory and data workers into messages for the user; others pass as they are."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        failure = out_of_memory(error, batch_size=batch_size, data_on_device=data_on_device)
        if failure is None and isinstance(error, RuntimeError):
            failure = worker_failure(error)
        if failure is None:
            raise
        raise failure from error


def out_of_memory(error: Exception, *, batch_size: int, data_on_device: bool = False) -> TrainkitError | None:
    """The memory that ran out, the size of the request, and advice; None for any other error."""
    whose = memory_that_ran_out(error)
    if whose is None:
        return None
    request = re.search(r"allocate ([\d.]+ \w+)", str(error))
    return TrainkitError(
        f"out of memory{' of the device' if whose == 'device' else ''}: batch_size {batch_size}"
        + (f", {request[1]} more were asked for" if request else "")
        + ("; keep the samples elsewhere with training.residency: host, or" if data_on_device else ";")
        + " set training.accumulation_steps (the same gradient, computed in pieces; batch norm sees a piece at a "
        "time), a smaller training.batch_size, or precision bf16; the checkpoints saved so far are intact"
    )
