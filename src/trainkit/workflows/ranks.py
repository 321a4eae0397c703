"""The processes that share the work of a command: how they meet, and how they stop together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from trainkit.config import Config
from trainkit.errors import Interrupted, UserError
from trainkit.runtime import Ranks, join, leave, resolve_device
from trainkit.system import Frontend, StopRequest, launched


@contextmanager
def joined(config: Config, *, stop: StopRequest) -> Iterator[Ranks]:
    """The processes that share the run, where torchrun started several; they part at the end of the block."""
    if launched.num_ranks() == 1:
        yield Ranks()
        return
    backend = config.distributed.backend
    if backend == "auto":
        backend = "nccl" if resolve_device(config.device).value.startswith("cuda") else "gloo"
    with joined_by(backend, timeout=config.distributed.timeout, stop=stop) as ranks:
        yield replace(ranks, exact=config.distributed.reduce == "exact")


@contextmanager
def joined_by(backend: str, *, timeout: float, patience: float | None = None, stop: StopRequest) -> Iterator[Ranks]:
    """``joined``, with the arguments of ``join`` in place of a config."""
    if launched.num_ranks() == 1:
        yield Ranks()
        return
    try:
        ranks = join(backend, timeout=timeout, patience=patience, should_stop=stop)
    except Interrupted as error:
        raise stop.error("nothing was written") from error
    try:
        yield ranks
    finally:
        leave(ranks)


def check_devices(device: str, *, size: int) -> None:
    """See that each of ``size`` processes on this machine can have a GPU of its own, where they compute on one.

    Raises:
        UserError: they cannot.
    """
    if not device.startswith("cuda") or size == 1:
        return
    found = torch.cuda.device_count()
    if size > found:
        raise UserError(f"--nproc {size}: each process takes a GPU of its own, and there are {found}; take --nproc gpu")


def stop_together(ranks: Ranks, frontend: Frontend) -> Callable[[], bool]:
    """Whether the run is to stop, the same answer in all processes: asked for by a signal to any of them."""
    ranks.signal = lambda: frontend.stop.signum or (signal.SIGTERM if launched.is_orphan() else 0)
    if ranks.size == 1:
        return frontend.stop

    def should_stop() -> bool:
        if ranks.stopping and frontend.stop.signum is None:
            frontend.stop.signum = ranks.stopping
        return ranks.stopping > 0

    return should_stop
