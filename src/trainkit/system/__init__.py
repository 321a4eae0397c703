"""Durable files, run folders, processes, stop signals, and the frontend of a workflow."""
# mypy: implicit-reexport

from trainkit.system import launched
from trainkit.system.cores import CpuTime, cgroups, cores_of_others, count_cores, physical_cores, visible_cores
from trainkit.system.downloads import DownloadFailed, download
from trainkit.system.frontend import (
    STOP_SIGNALS,
    Frontend,
    StopRequest,
    catch_stop_signals,
    leave_signals_to_parent,
    remember_ctrl_c,
)
from trainkit.system.processes import Process, is_alive, own_process, owns_process, run_child, this_process
from trainkit.system.run_folder import RunDir, create_run, list_runs, locked, newest_run
