"""The processes that share the work of a command: how they meet, and how they stop together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from trainkit.config import Config
from trainkit.runtime import Ranks, join, leave, resolve_device
from trainkit.system import Frontend, launched


@contextmanager
def joined(config: Config) -> Iterator[Ranks]:
    """The processes that share the run, where torchrun started several; they part at the end of the block."""
    if launched.num_ranks() == 1:
        yield Ranks()
        return
    backend = config.distributed.backend
    if backend == "auto":
        backend = "nccl" if resolve_device(config.device).value.startswith("cuda") else "gloo"
    ranks = replace(join(backend, timeout=config.distributed.timeout), exact=config.distributed.reduce == "exact")
    try:
        yield ranks
    finally:
        leave()


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
