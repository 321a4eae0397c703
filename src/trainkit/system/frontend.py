"""The connection of a workflow to its caller: messages, progress, and requests to stop.

SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 set a flag that long work polls at safe points.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from trainkit.errors import Interrupted

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # Windows has the first two

_ctrl_c: list[int] = []


class StopRequest:
    """The signal that requested a stop, if any. A call returns whether one did: pass it on as ``should_stop``."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self) -> bool:
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signum or 0)

    def error(self, message: str) -> Interrupted:
        name = signal.Signals(self.signum).name if self.signum else "a request"
        return Interrupted(f"stopped by {name}: {message}", self.exit_code)


@dataclass(frozen=True)
class Frontend:
    """Callbacks of a command line, a notebook or a test; the default prints nothing and never stops."""

    say: Callable[[str], None] = lambda message: None
    """Called with each message for the user."""
    progress: Callable[[int, int], None] | None = None
    """Called with (done, total) while images are decoded or samples are predicted."""
    make_display: Callable[[Any, int], Any] | None = None
    """For training: given the setup and the batches of an epoch, a recorder that shows the run while it goes on.

    Where it has ``show_batches``, that is called with ("train" or "val", epochs completed, batches done, batches of the
    epoch) at the start of each epoch and after each batch.
    """
    show_stage: Callable[[str | None], None] | None = None
    """For training: called with the name of what is done after the last epoch, and with None when that is done."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Polled after every step; a run saves its state before it ends."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """How long the stages of the last run took."""

    def check(self, what: str) -> None:
        """Raise Interrupted where a stop was requested; ``what`` is the message."""
        if self.stop():
            raise self.stop.error(what)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show and time a stage of the work after the last epoch."""
        started = time.monotonic()
        if self.show_stage is not None:
            self.show_stage(name)
        try:
            yield
        finally:
            self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + time.monotonic() - started
            if self.show_stage is not None:
                self.show_stage(None)


def remember_ctrl_c() -> list[int]:
    """Raise KeyboardInterrupt at a Ctrl-C, as Python does, and fill the list that is returned.

    Code that runs before a command listens for signals can lose it, or make another error of it: Python 3.11 does in
    the body of a class, and what is left of an ``import numpy`` that it cut short. That shells ignore SIGINT for a job
    is overruled here too.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        _ctrl_c.append(signum)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN):
        signal.signal(signal.SIGINT, handle)
    return _ctrl_c


def leave_signals_to_parent(worker: int = 0) -> None:
    """For a worker process: a terminal sends SIGINT and SIGHUP to all processes, and the parent ends its workers."""
    for signum in STOP_SIGNALS:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)


@contextmanager
def catch_stop_signals(on_first: Callable[[str], None] | None = None) -> Iterator[StopRequest]:
    """Turn the first stop signal into a flag; a second SIGINT ends the process at once.

    Ending at once does no harm: every file is whole or absent at any instant (``durable``). Outside the main thread,
    where Python allows no handlers, nothing is caught. An Interrupted that deep code raises without knowing the signal
    gets the exit code of the signal here.

    A signal that was ignored at the start stays ignored, as ``nohup`` wants it for SIGHUP. Not SIGINT: shells ignore it
    for every job that they start with ``&``, where ``kill -INT`` is meant.
    """
    request = StopRequest()
    process = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker, which its parent ends
            return
        if request.signum is not None:
            if signum == signal.SIGINT:
                os._exit(130)
            return
        request.signum = signum
        if on_first is not None:
            on_first(signal.Signals(signum).name)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    caught = [one for one in STOP_SIGNALS if one == signal.SIGINT or signal.getsignal(one) != signal.SIG_IGN]
    before = {signum: signal.signal(signum, handle) for signum in caught}
    if _ctrl_c:
        handle(signal.SIGINT, None)
    try:
        yield request
    except Interrupted as error:
        if request():
            error.exit_code = request.exit_code
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
