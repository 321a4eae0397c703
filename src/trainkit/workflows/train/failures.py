"""Failures of the machine while training, in words: memory that runs out, a data worker that dies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainkit.data.loading import worker_failure
from trainkit.errors import TrainkitError


@contextmanager
def explained(*, batch_size: int) -> Iterator[None]:
    """Turn what PyTorch says of such a failure into a message for the user; other errors pass as they are."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = out_of_memory(error, batch_size=batch_size)
        failure = worker_failure(error) if isinstance(error, RuntimeError) else None
        if message is not None:
            raise TrainkitError(message) from error
        if failure is not None:
            raise failure from error
        raise


def out_of_memory(error: Exception, *, batch_size: int) -> str | None:
    """What ran out, how much was asked for, and what helps; None for any other error."""
    text = str(error)
    on_cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in text
    if not on_cpu and not isinstance(error, torch.OutOfMemoryError):
        return None
    asked = re.search(r"allocate ([\d.]+ \w+)", text)
    return (
        f"out of memory{' of the device' if not on_cpu else ''}: batch_size {batch_size}"
        + (f", {asked[1]} more were asked for" if asked else "")
        + "; set training.accumulation_steps (the same result with less memory), a smaller training.batch_size, "
        "or precision bf16; the checkpoints saved so far are intact"
    )
