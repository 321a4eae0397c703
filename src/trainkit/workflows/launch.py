"""``--nproc N``: the same command in N processes on this machine, by torchrun's elastic agent.

The agent starts the processes, gives them an address to meet at, watches them, and starts them again after one died.
It runs in a thread of its own. This thread passes signals on, so that all processes stop after the same step.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.errors import Interrupted, TrainkitError
from trainkit.system import STOP_SIGNALS, launched

_POLL = 0.1
"""Seconds between two looks at the processes."""
_GRACE = 5
"""Seconds that the others have to end after one has died."""
_LAST_LINES = 5


@dataclass
class Ranks:
    """The processes that the agent has started, by their folders."""

    root: Path
    told: set[tuple[int, int]] = field(default_factory=set)
    """Which process was told of which signal."""
    since: float | None = None
    """When the first process ended because another one did not answer."""
    silent: set[int] = field(default_factory=set)
    """Ranks that were ended because they did not answer."""

    def folders(self) -> list[Path]:
        """Of the last start, by rank."""
        attempts = sorted(self.root.glob("*/attempt_*"), key=lambda path: int(path.name.partition("_")[2]))
        return sorted(attempts[-1].glob("[0-9]*"), key=lambda path: int(path.name)) if attempts else []

    def pass_on(self, signum: int) -> None:
        """Send a signal to each process once, also to those that start later."""
        for folder in self.folders():
            pid = launched.read_pid(folder)
            if pid is not None and (pid, signum) not in self.told and launched.read_end(folder) is None:
                self.told.add((pid, signum))
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)

    def ends(self) -> list[launched.End | None]:
        """How each process has ended, by rank; None where it has not said so."""
        return [launched.read_end(folder) for folder in self.folders()]

    def end_silent(self) -> None:
        """End the processes that the others have waited for in vain, and those that wait for one with a wrong input."""
        ends = self.ends()
        if not any(end is not None and (end.lost or end.exit_code == 2) for end in ends):
            self.since = None
            return
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since < _GRACE:
            return
        for rank, (folder, end) in enumerate(zip(self.folders(), ends, strict=True)):
            pid = launched.read_pid(folder)
            if end is None and pid is not None:
                self.silent.add(rank)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def last_lines(self, rank: int) -> str:
        """What a process printed last."""
        folders = self.folders()
        path = folders[rank] / "stderr.log" if rank < len(folders) else None
        if path is None or not path.is_file():
            return ""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return "".join(f"\n  {line}" for line in lines) + ("\n" if lines else "")

    @property
    def run(self) -> str | None:
        """The folder of the run, if it has one yet."""
        return next((run for folder in reversed(self.folders()) if (run := launched.read_run(folder))), None)


def launch(arguments: Sequence[str], *, nproc: int, max_restarts: int = 0, unsaved: str) -> int:
    """Run ``trainkit ARGUMENTS`` in processes that share the work. Returns the exit code of the first of them.

    What the first one prints is printed; what the others print is kept, and its last lines are shown if one dies.

    Args:
        unsaved: what is said of the work where one of them dies and there is no run folder.

    Raises:
        TrainkitError: a process died, and was not to be started again.
        Interrupted: a signal ended them.
    """
    with tempfile.TemporaryDirectory(prefix="trainkit-ranks-") as folder, _caught_signals() as signals:
        ranks = Ranks(Path(folder))
        with ThreadPoolExecutor(1) as pool:
            agent = pool.submit(_run_agent, list(arguments), nproc, max_restarts, ranks.root)
            while not agent.done():
                wait([agent], timeout=_POLL)
                for signum in signals:
                    ranks.pass_on(signum)
                ranks.end_silent()
        ends, error = ranks.ends(), agent.exception()
        first = ends[0] if ends else None
        if first is not None and ((error is None and not first.lost) or _is_said(first, ends)):
            return first.exit_code
        if signals and -signals[0] in (failure.exitcode for failure in getattr(error, "failures", {}).values()):
            # It came before they had begun to listen.
            how = f"stopped by {signal.Signals(signals[0]).name}"
            raise Interrupted(f"{how}: {_saved(ranks, nproc=nproc, unsaved=unsaved)}", 128 + signals[0])
        raise TrainkitError(_what_failed(ranks, error, nproc=nproc, unsaved=unsaved))


def _run_agent(arguments: list[str], nproc: int, max_restarts: int, folder: Path) -> None:
    """Start the processes and wait for them. Raises ChildFailedError."""
    hushed = {"LOGLEVEL": "CRITICAL", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_GRACE)}
    given = {name: os.environ.get(name) for name in hushed}
    os.environ.update(hushed)  # read by the agent when it is imported; what it has to say is said here
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id="trainkit",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=_POLL,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder), redirects=dict.fromkeys(range(1, nproc), Std.ALL)),
    )
    # In a thread it catches no signals, and warns of that.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    for name, value in given.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value
    os.environ[launched.LAUNCHED] = str(os.getpid())
    elastic_launch(config, sys.executable)("-m", "trainkit", *arguments)


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """The signals that arrive, in order; a second SIGINT ends the processes at once, as each of them has it."""
    arrived: list[int] = []
    before = {one: signal.signal(one, lambda signum, frame: arrived.append(signum)) for one in STOP_SIGNALS}
    try:
        yield arrived
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _is_said(first: launched.End, ends: Sequence[launched.End | None]) -> bool:
    """Whether the first of them has printed what failed: all failed alike, as they do at a NaN, or none of the others.

    An exit code other than 1 is no failure of the work.
    """
    others = [end for end in ends[1:] if end is not None and not end.lost and end.exit_code]
    return first.exit_code == 1 and not first.lost and all(end.message == first.message for end in others)


def _saved(ranks: Ranks, *, nproc: int, unsaved: str) -> str:
    """What is left of the work, and the command that goes on."""
    if ranks.run is None:
        return unsaved
    return f"the checkpoints saved so far are intact; to go on: trainkit resume {ranks.run} --nproc {nproc}"


def _what_failed(ranks: Ranks, error: BaseException | None, *, nproc: int, unsaved: str) -> str:
    """One message: which process ended the run and why, its last lines, and the command that goes on."""
    saved = _saved(ranks, nproc=nproc, unsaved=unsaved)
    failures = sorted(getattr(error, "failures", {}).items(), key=lambda item: item[1].timestamp)
    if error is not None and not failures:
        return f"the processes could not be started: {error}"
    ends = ranks.ends()
    for rank, end in enumerate(ends):
        if end is not None and end.exit_code == 2 and not end.lost:
            return f"rank {rank}: {end.message}; {saved}"
    for rank, failure in failures:
        end = ends[rank] if rank < len(ends) else None
        if rank in ranks.silent:
            return f"rank {rank} did not answer within distributed.timeout; {saved}"
        code = failure.exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = f": {end.message}" if end is not None else ranks.last_lines(rank)
        return f"rank {rank} {how}{why}; {saved}"
    said = next((end.message for end in ends if end is not None), "the processes ended without a word")
    return f"{said}; {saved}"
