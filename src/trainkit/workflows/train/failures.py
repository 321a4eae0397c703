"""Ends of a run other than the last epoch: a stop, memory that runs out, a data worker that dies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from trainkit.data.loading import worker_failure
from trainkit.errors import Interrupted, TrainkitError
from trainkit.system import Frontend, RunDir, StopRequest
from trainkit.workflows.report import report_failure

_NO_HOST_MEMORY = ("DefaultCPUAllocator", "Cannot allocate memory")
_NO_DEVICE_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED")
"""Words of errors that are no ``torch.OutOfMemoryError``: of MPS, of cuBLAS and cuDNN, of the driver."""


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
    """Write into run.json how the run ended, whichever way."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        with suppress(TrainkitError):
            run.update_info(status="interrupted" if interrupted else f"failed: {error}")
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
    text = str(error)
    on_cpu = isinstance(error, MemoryError) or any(words in text for words in _NO_HOST_MEMORY)
    on_device = isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _NO_DEVICE_MEMORY)
    if not on_cpu and not on_device:
        return None
    request = re.search(r"allocate ([\d.]+ \w+)", text)
    return TrainkitError(
        f"out of memory{'' if on_cpu else ' of the device'}: batch_size {batch_size}"
        + (f", {request[1]} more were asked for" if request else "")
        + ("; keep the samples elsewhere with training.residency: host, or" if data_on_device else ";")
        + " set training.accumulation_steps (the same gradient, computed in pieces; batch norm sees a piece at a "
        "time), a smaller training.batch_size, or precision bf16; the checkpoints saved so far are intact"
    )
