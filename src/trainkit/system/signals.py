"""Requests to stop: SIGINT, SIGTERM and SIGUSR1 set a flag that long work polls at safe points."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainkit.errors import Interrupted

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Which signal has asked for a stop, if any. Calling it says whether one has: pass it on as ``should_stop``."""

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


@contextmanager
def catch_stop_signals(on_first: Callable[[str], None] | None = None) -> Iterator[StopRequest]:
    """Turn the first stop signal into a flag; a second SIGINT ends the process at once.

    Ending at once does no harm: every file is whole or absent at any instant (``durable``). Outside the main thread,
    where Python allows no handlers, nothing is caught. Deep code that only asks whether to stop raises Interrupted
    without knowing the signal: it gets the signal's exit code here.
    """
    request = StopRequest()

    def handle(signum: int, frame: FrameType | None) -> None:
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
    before = {signum: signal.signal(signum, handle) for signum in STOP_SIGNALS}
    try:
        yield request
    except Interrupted as error:
        if request():
            error.exit_code = request.exit_code
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
