"""Processes: a name for each, whether it is alive, and children that can be stopped."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-(\d+)-(\w+)")


_owned = False


def own_process() -> None:
    """Say that nothing else runs in this process, as the command line does: its settings may be changed for speed.

    Memory that a step frees is kept for the next one (glibc; an epoch of an MNIST MLP takes 0.65 s on one core,
    and 0.68 without), the compiler is not imported where nothing is compiled (1.4 s), and threads that wait for each
    other soon sleep, if PyTorch is not loaded yet. None of it can be undone.
    """
    global _owned
    _owned = True
    _limit_spinning()


_SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""How long a thread that waits for others keeps its core: in rounds for GNU's OpenMP, which PyTorch's Linux wheels have
(10,000 take a tenth of a millisecond; the default is 300,000), in milliseconds for LLVM's and Intel's (default 200).

Another program that needs the core waits so long at each end of an operation. Threads that sleep at once are slower on
an idle machine: ``benchmarks/README.md`` has the figures.
"""


def _limit_spinning() -> None:
    """OpenMP reads the environment when PyTorch is loaded; what the user has set there holds."""
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", *_SPIN} & os.environ.keys():
        os.environ.update(_SPIN)


def owns_process() -> bool:
    """Whether this process runs nothing but trainkit; False for programs that import it."""
    return _owned


@dataclass(frozen=True)
class Process:
    """A process of some machine. ``started`` is the start time as that system counts it, "x" where it is unknown."""

    machine: str
    boot: str
    pid: int
    started: str

    @property
    def token(self) -> str:
        """Short text without dots, for a file name."""
        return f"{self.machine}-{self.boot}-{self.pid}-{self.started}"

    @classmethod
    def from_token(cls, token: str) -> Process | None:
        match = _TOKEN.fullmatch(token)
        return cls(match[1], match[2], int(match[3]), match[4]) if match else None


def this_process() -> Process:
    """The running process; a forked child gets its own."""
    return _process(os.getpid())


@functools.cache
def _process(pid: int) -> Process:
    return Process(_machine(), _boot(), pid, _started(pid) or "x")


@functools.cache
def _machine() -> str:
    """Host and process-number namespace: within one, a pid means one process."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return _digest(f"{socket.gethostname()} {namespace}")


@functools.cache
def _boot() -> str:
    with suppress(OSError):
        return _digest(Path("/proc/sys/kernel/random/boot_id").read_text())
    return "0" * 8


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _started(pid: int) -> str | None:
    """Start time of a living process (a zombie is dead); None where there is none or the time is unknown."""
    if sys.platform == "linux":
        try:
            # proc(5): the name may hold spaces and brackets; after it come the state (field 3) and the start (22).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    if os.name == "posix":
        with suppress(OSError):
            listing = subprocess.run(
                ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
            )
            return re.sub(r"\W", "", listing.stdout) or None
    return None


def is_alive(process: Process) -> bool | None:
    """Whether the process still runs; None where that cannot be known from here (another machine or container)."""
    if process.machine != _machine():
        return None
    if process.boot != _boot():
        return False
    if process.pid == os.getpid():
        return process == this_process()
    if os.name != "posix":
        return None
    return _started(process.pid) == process.started


GRACE_SECONDS = 3.0
"""Time between SIGTERM and SIGKILL."""
_POLL_SECONDS = 0.1


def run_child(
    command: Sequence[str],
    *,
    should_stop: Callable[[], bool] | None = None,
    timeout_seconds: float | None = None,
    show_stderr: bool = False,
) -> subprocess.CompletedProcess[str] | None:
    """Run a command to its end and return its output; None where ``should_stop`` became true, after ending the child.

    The child has no input and a session of its own, so that Ctrl-C reaches only this process.

    Args:
        show_stderr: the child writes to the stderr of this process; else its stderr is returned.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout_seconds``, and was ended.
    """
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if show_stderr else subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                out, err = child.communicate(timeout=_POLL_SECONDS)
                return subprocess.CompletedProcess(command, child.returncode, out, err or "")
            if should_stop is not None and should_stop():
                return None
            if timeout_seconds is not None and time.monotonic() - started > timeout_seconds:
                raise subprocess.TimeoutExpired(command, timeout_seconds)
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """End a child with SIGTERM, then kill its whole session."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=GRACE_SECONDS)
    with suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
