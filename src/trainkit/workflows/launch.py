"""``--nproc N``: the same command in N processes on this machine, with the environment that torchrun gives its own.

They are started, watched, and started again after one died. Signals are passed on, so that all of them stop after the
same step. torchrun's own agent would import torch first, which takes longer than all of this. They meet at a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.errors import Interrupted, TrainkitError
from trainkit.plugins import command, plugin_options
from trainkit.system import STOP_SIGNALS, launched

_POLL = 0.05
"""Seconds between two looks at the processes."""
_GRACE = 5
"""Seconds that the others have to end after one has died."""
_LAST_LINES = 5


@dataclass
class Ranks:
    """The processes of one start, by rank: each with a folder for what it tells."""

    folders: list[Path]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    told: set[tuple[int, int]] = field(default_factory=set)
    """Which rank was told of which signal, by their numbers."""
    since: float | None = None
    """When the first process ended because another one did not answer."""
    silent: set[int] = field(default_factory=set)
    """Ranks that were ended because they did not answer."""
    failed: list[int] = field(default_factory=list)
    """The ranks that were the first to end with another exit code than 0, before the others were ended for that."""

    def start(self, command: Sequence[str], restart: int) -> None:
        """Start the command once for each rank. What the first one prints is printed; what the others print is kept."""
        size = len(self.folders)
        given = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "TORCHELASTIC_RUN_ID": "trainkit"}
        given |= {"TORCHELASTIC_RESTART_COUNT": restart, launched.LAUNCHED: os.getpid()}
        for rank, folder in enumerate(self.folders):
            folder.mkdir(parents=True)
            own = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_ERROR_FILE": folder / "error.json"}
            own[launched.MEETING] = folder.with_name("meeting")
            environment = {**os.environ, **{name: str(value) for name, value in {**given, **own}.items()}}
            with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as said:
                # Ctrl-C of a terminal comes to this process alone, which passes it on.
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdout=out if rank else None,
                    stderr=said if rank else None,
                    start_new_session=True,
                )
            self.processes.append(process)

    def watch(self, signals: Sequence[int]) -> None:
        """Return when all of them have ended."""
        while not self.failed and any(code is None for code in self.codes()):
            for number, signum in enumerate(signals):
                self.pass_on(signum, number)
            self.end_silent()
            time.sleep(_POLL)
            self.failed = [rank for rank, code in enumerate(self.codes()) if code]
        for folder in self.folders if self.failed and not signals else ():
            launched.say_failed(folder)
        self.end_all()

    def codes(self) -> list[int | None]:
        """The exit code of each process, minus the signal that ended it; None while it runs.

        Python ends itself by SIGINT where a KeyboardInterrupt has left code from a string, as in ``dataclass``,
        whatever the exit code is to be. A process that has told its end before has ended as any other.
        """
        codes = zip([process.poll() for process in self.processes], self.ends(), strict=True)
        return [0 if code == -signal.SIGINT and end is not None else code for code, end in codes]

    def pass_on(self, signum: int, number: int) -> None:
        """Send a signal to each process once, when it listens; ``number`` tells it from others that have come."""
        for rank, (process, folder) in enumerate(zip(self.processes, self.folders, strict=True)):
            listens = launched.has_pid(folder) and launched.read_end(folder) is None
            if listens and (rank, number) not in self.told:
                self.told.add((rank, number))
                process.send_signal(signum)

    def end_all(self) -> None:
        """End those that still run, first kindly, and what they have started."""
        for process in self.processes:
            process.terminate()
        end = time.monotonic() + _GRACE
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, end - time.monotonic()))
            with suppress(ProcessLookupError, PermissionError):  # nobody is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def ends(self) -> list[launched.End | None]:
        """How each process has ended, by rank; None where it has not said so."""
        return [launched.read_end(folder) for folder in self.folders]

    def end_silent(self) -> None:
        """End the processes that the others have waited for in vain, and those that wait for one with a wrong input."""
        ends = self.ends()
        if not any(end is not None and (end.lost or end.exit_code == 2) for end in ends):
            self.since = None
            return
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since < _GRACE:
            return
        for rank, (process, end) in enumerate(zip(self.processes, ends, strict=True)):
            if end is None and launched.has_pid(self.folders[rank]):
                self.silent.add(rank)
                process.kill()

    def last_lines(self, rank: int) -> str:
        """What a process printed last."""
        path = self.folders[rank] / "stderr.log"
        if not path.is_file():
            return ""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return "".join(f"\n  {line}" for line in lines) + ("\n" if lines else "")

    @property
    def run(self) -> str | None:
        """The folder of the run, if it has one yet."""
        return next((run for folder in self.folders if (run := launched.read_run(folder))), None)


def launch(
    arguments: Sequence[str], *, nproc: int, max_restarts: int = 0, unsaved: str, go_on: Sequence[str] = ()
) -> int:
    """Run ``trainkit ARGUMENTS`` in processes that share the work. Returns the exit code of the first of them.

    What the first one prints is printed; what the others print is kept, and its last lines are shown if one dies.

    Args:
        unsaved: what is said of the work where one of them dies and there is no run folder.
        go_on: the options of ``trainkit resume RUN``, the command of a restart when there is a run.

    Raises:
        TrainkitError: a process died, and was not to be started again.
        Interrupted: a signal ended them.
    """
    with tempfile.TemporaryDirectory(prefix="trainkit-ranks-") as folder, _caught_signals() as signals:
        run = None
        for restart in range(max_restarts + 1):
            ranks = Ranks([Path(folder, str(restart), str(rank)) for rank in range(nproc)])
            try:
                what = arguments if run is None else [*plugin_options(), "resume", run, *go_on]
                ranks.start([sys.executable, "-m", "trainkit", *what], restart)
                ranks.watch(signals)
            finally:
                ranks.end_all()
            run = ranks.run or run
            if signals or not ranks.failed:
                break
        ends = ranks.ends()
        if (first := ends[0]) is not None and ((not ranks.failed and not first.lost) or _is_said(first, ends, signals)):
            return first.exit_code
        saved = unsaved if run is None else _saved(run, nproc=nproc)
        if signals and -signals[0] in ranks.codes():
            # It came before they had begun to listen.
            raise Interrupted(f"stopped by {signal.Signals(signals[0]).name}: {saved}", 128 + signals[0])
        raise TrainkitError(f"{_what_failed(ranks)}; {saved}")


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


def _is_said(first: launched.End, ends: Sequence[launched.End | None], signals: Sequence[int]) -> bool:
    """Whether the first of them has printed why they ended.

    A signal stopped it, which may have killed others that did not listen yet; or all failed alike, as they do at a NaN,
    or none of the others. An exit code other than 1 is no failure of the work.
    """
    if first.exit_code in [128 + signum for signum in signals]:
        return True
    others = [end for end in ends[1:] if end is not None and not end.lost and end.exit_code]
    return first.exit_code == 1 and not first.lost and all(end.message == first.message for end in others)


def _saved(run: str, *, nproc: int) -> str:
    """What is left of the work, and the command that goes on."""
    return f"the checkpoints saved so far are intact; to go on: {command()} resume {run} --nproc {nproc}"


def _what_failed(ranks: Ranks) -> str:
    """Which process ended the work and why, with its last lines."""
    ends, codes = ranks.ends(), ranks.codes()
    for rank, end in enumerate(ends):
        if end is not None and end.exit_code == 2 and not end.lost:
            return f"rank {rank}: {end.message}"
    for rank in ranks.failed:
        if rank in ranks.silent:
            return f"rank {rank} did not answer within distributed.timeout"
        end, code = ends[rank], codes[rank] or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"rank {rank} {how}" + (f": {end.message}" if end is not None else ranks.last_lines(rank))
    return next((end.message for end in ends if end is not None), "the processes ended without a word")
