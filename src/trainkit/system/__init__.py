"""Durable files, run folders, processes, stop signals, and the frontend of a workflow."""

from trainkit.system.frontend import Frontend, StopRequest, catch_stop_signals, leave_signals_to_parent
from trainkit.system.processes import own_process, owns_process, run_child
from trainkit.system.run_folder import RunDir, create_run, list_runs, locked, newest_run

__all__ = [
    "Frontend",
    "RunDir",
    "StopRequest",
    "catch_stop_signals",
    "create_run",
    "leave_signals_to_parent",
    "list_runs",
    "locked",
    "newest_run",
    "own_process",
    "owns_process",
    "run_child",
]
