"""The processes of the trials that run at the same time, and what they tell."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from signal import Signals
from typing import Any, Literal

from trainkit.workflows.sweep.worker import Job, work

SETTLE_SECONDS = 0.5
"""Between the death of a trial's process and the record of it: where all processes are killed, this one is too."""
EXIT_SECONDS = 10.0
"""That a process has to exit after it has told its end."""


@dataclass(frozen=True)
class Event:
    """Something that a trial told: its end is complete, stopped or failed."""

    slot: int
    kind: Literal["started", "epoch", "complete", "stopped", "failed"]
    epoch: int = 0
    value: float | None = None
    known: list[str] = field(default_factory=list)
    """The metrics of the epoch."""
    reason: str = ""
    seconds: float = 0.0
    """That a process took to start."""


@dataclass
class Running:
    process: BaseProcess
    pipe: Connection
    begun: float


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a process start without running the caller's script again, of which a trial needs nothing."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


class Slots:
    """Places for trials. Use it as a context manager: at its end no process of a trial is left."""

    def __init__(self, size: int, devices: list[str] | None = None) -> None:
        self.size, self.devices = size, devices
        kind = "forkserver" if sys.platform == "linux" else "spawn"
        self.context: Any = multiprocessing.get_context(kind)
        if kind == "forkserver":
            self.context.set_forkserver_preload(["trainkit.workflows.sweep.fork_server"])
        self.running: dict[int, Running] = {}

    def warm_up(self) -> None:
        """Let the fork server import PyTorch meanwhile."""
        if sys.platform == "linux":
            from multiprocessing.forkserver import ensure_running

            ensure_running()

    def __enter__(self) -> Slots:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.running.values():
            one.pipe.close()  # it saves its state
        for one in self.running.values():
            one.process.join(EXIT_SECONDS)
            if one.process.is_alive():
                one.process.kill()
        self.running.clear()

    @property
    def free(self) -> list[int]:
        return [slot for slot in range(self.size) if slot not in self.running]

    def device_of(self, slot: int) -> str | None:
        return None if not self.devices else self.devices[slot % len(self.devices)]

    def start(self, slot: int, job: Job) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=work, args=(job, theirs), name=job.name)
        begun = time.time()
        with _without_main():
            process.start()
        theirs.close()
        self.running[slot] = Running(process, ours, begun)

    def answer(self, slot: int, *, go_on: bool) -> None:
        """What a trial does after the epoch that it told of."""
        with suppress(OSError):
            self.running[slot].pipe.send("go on" if go_on else "stop")

    def stop(self) -> None:
        """Let all trials save their state and end."""
        for one in self.running.values():
            one.process.terminate()

    def events(self, timeout: float) -> Iterator[Event]:
        """What the trials tell within some seconds; after its end a trial's place is free."""
        pipes = {one.pipe: slot for slot, one in self.running.items()}
        for pipe in multiprocessing.connection.wait(list(pipes), timeout):
            slot = pipes[pipe]  # type: ignore[index]
            yield self._event(slot)

    def _event(self, slot: int) -> Event:
        one = self.running[slot]
        try:
            kind, *rest = one.pipe.recv()
        except (EOFError, OSError):
            return self._end(slot, "failed", None)
        match kind:
            case "started":
                return Event(slot, "started", seconds=rest[0] - one.begun)
            case "epoch":
                return Event(slot, "epoch", epoch=rest[0], value=rest[1], known=rest[2])
            case _:
                return self._end(slot, kind, rest[0] if rest else "")

    def _end(self, slot: int, kind: Any, reason: str | None) -> Event:
        one = self.running.pop(slot)
        one.process.join(EXIT_SECONDS)
        if one.process.is_alive():
            one.process.kill()
        if reason is None:
            time.sleep(SETTLE_SECONDS)
            code = one.process.exitcode
            reason = "its process ended without a word" + ("" if code is None else f", with exit code {code}")
            if code is not None and code < 0:
                name = Signals(-code).name
                hint = " (the system kills processes so when memory runs out)" if name == "SIGKILL" else ""
                reason = f"killed by {name}{hint}"
        one.pipe.close()
        return Event(slot, kind, reason=reason)
