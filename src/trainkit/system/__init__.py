"""Durable files, run folders, processes, signals, and who hears what a command says."""

from trainkit.system.frontend import Frontend
from trainkit.system.processes import run_child
from trainkit.system.run_folder import RunDir, create_run, list_runs, newest_run
from trainkit.system.signals import StopRequest, catch_stop_signals

__all__ = [
    "Frontend",
    "RunDir",
    "StopRequest",
    "catch_stop_signals",
    "create_run",
    "list_runs",
    "newest_run",
    "run_child",
]
