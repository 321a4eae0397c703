"""The callbacks of a Python program, as workflows want them; and what a call owes to its caller."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from trainkit.errors import Interrupted
from trainkit.plugins import Plugin, using
from trainkit.runtime import own_settings
from trainkit.system import Frontend, StopRequest

if TYPE_CHECKING:
    from trainkit.builders import Setup

_training = threading.RLock()
"""The generators belong to the process: trainings in two threads would draw each other's numbers."""


@dataclass(frozen=True)
class Progress:
    """How far a call is."""

    stage: str
    """``training``, ``images`` (they are decoded), ``predictions`` or ``learning rates`` (they rise); after the last
    epoch ``scores``, ``export`` and what else is done then, each once when it begins."""
    done: int
    """Steps, images or samples; 0 of 1 after the last epoch."""
    total: int
    record: Mapping[str, Any] = field(default_factory=dict)
    """While training: the line of ``metrics.jsonl``; ``type`` is ``step`` or ``epoch``, both have a ``step`` and an
    ``epoch``, counted from 1. {} in the other stages."""


Plugins = Sequence[Plugin | str]
"""Plug-ins whose parts a config or a checkpoint may name, or the names of their modules."""
Log = Callable[[str], object]
OnProgress = Callable[[Progress], object]
ShouldStop = Callable[[], bool]


class Callbacks(StopRequest):
    """The callbacks of a call. The first exception that one raises asks for a stop; then none is called any more."""

    def __init__(self, log: Log | None, progress: OnProgress | None, should_stop: ShouldStop | None) -> None:
        super().__init__()
        self.log, self.progress, self.should_stop = log or to_logger, progress, should_stop
        self.asked = False
        self.raised: BaseException | None = None

    def __call__(self) -> bool:
        if self.should_stop is not None and not self.asked:
            self.asked = bool(self._run(self.should_stop))
        return self.asked or self.raised is not None or super().__call__()

    def say(self, message: str) -> None:
        self._run(self.log, message)

    def show(self, progress: Progress) -> None:
        if self.progress is not None:
            self._run(self.progress, progress)

    def show_stage(self, name: str | None) -> None:
        if name is not None:
            self.show(Progress(name, 0, 1))

    def _run(self, callback: Callable[..., Any], *given: Any) -> Any:
        if self.raised is not None:
            return None
        try:
            return callback(*given)
        except BaseException as error:  # noqa: BLE001  (raised again at the end of the call)
            self.raised = error
            return None


def to_logger(message: str) -> None:
    """To the logger ``trainkit``. Python shows warnings on stderr, and the rest where logging is set up."""
    logging.getLogger("trainkit").log(logging.WARNING if message.startswith("warning: ") else logging.INFO, message)


@contextmanager
def calling(
    plugins: Plugins,
    log: Log | None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    *,
    stage: str = "images",
) -> Iterator[Frontend]:
    """A frontend of these callbacks, with the plug-ins, and the settings of PyTorch kept for the caller.

    Args:
        stage: what the frontend's progress counts.
    """
    callbacks = Callbacks(log, progress, should_stop)
    frontend = Frontend(
        say=callbacks.say,
        progress=None if progress is None else lambda done, total: callbacks.show(Progress(stage, done, total)),
        show_stage=callbacks.show_stage,
        make_display=None if progress is None else lambda setup, batches: _Display(callbacks, setup, batches),
        stop=callbacks,
    )
    try:
        with using(plugins), own_settings():
            yield frontend
    except Interrupted:
        if callbacks.raised is None:
            raise
    if callbacks.raised is not None:
        raise callbacks.raised


class _Display:
    """A recorder that passes the lines of the log on."""

    def __init__(self, callbacks: Callbacks, setup: Setup, batches_per_epoch: int) -> None:
        self.callbacks, self.total = callbacks, setup.config.training.epochs * batches_per_epoch

    def log(self, record: Mapping[str, Any]) -> None:
        if record["type"] in ("step", "epoch"):
            self.callbacks.show(Progress("training", record["step"], self.total, dict(record)))

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def training_call(
    plugins: Plugins,
    log: Log | None,
    progress: OnProgress | None,
    should_stop: ShouldStop | None,
    *,
    stage: str = "images",
) -> Iterator[Frontend]:
    """``calling``, one at a time; Ctrl-C stops it."""
    with (
        _one_training(log),
        calling(plugins, log, progress, should_stop, stage=stage) as frontend,
        stopped_by_ctrl_c(frontend),
    ):
        yield frontend


@contextmanager
def _one_training(log: Log | None) -> Iterator[None]:
    """Wait for a training in another thread."""
    if not _training.acquire(blocking=False):
        (log or to_logger)("note: waiting for the training in another thread: one runs at a time")
        _training.acquire()
    try:
        yield
    finally:
        _training.release()


@contextmanager
def stopped_by_ctrl_c(frontend: Frontend) -> Iterator[None]:
    """Let the first Ctrl-C stop the work at a point where its state can be saved; the second one is Python's own.

    Only where Python itself would raise KeyboardInterrupt: in the main thread, without a handler of the program.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if frontend.stop.signum is not None:
            raise KeyboardInterrupt
        frontend.stop.signum = signum
        frontend.say("warning: Ctrl-C: stopping as soon as the state is saved; once more stops at once")

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Interrupted as error:
        if frontend.stop.signum is None:
            raise
        raise KeyboardInterrupt(str(error)) from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if frontend.stop.signum is not None:
        raise KeyboardInterrupt("stopped by SIGINT: the work was done already")
