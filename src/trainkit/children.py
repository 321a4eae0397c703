"""Child processes that a request to stop ends, with everything that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

GRACE_SECONDS = 3.0
"""How long a child may take to end by itself when it is told to."""
_POLL_SECONDS = 0.1


def run_child(
    command: Sequence[str],
    *,
    should_stop: Callable[[], bool] | None = None,
    timeout_seconds: float | None = None,
    show_stderr: bool = False,
) -> subprocess.CompletedProcess[str] | None:
    """Run a command to its end; None where ``should_stop`` said so before, and then it has ended too.

    The child gets no input and a session of its own, so that Ctrl-C reaches this process alone, which decides.

    Args:
        show_stderr: the child's stderr is this process's; else it is kept, as stdout is.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout_seconds``; it has ended.
    """
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if show_stderr else subprocess.PIPE,
        text=True,
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
    """First politely, then for certain; the processes that it has started go with it."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=GRACE_SECONDS)
    with suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
