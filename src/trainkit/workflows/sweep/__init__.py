"""``trainkit sweep``. It needs Optuna, of the extra ``sweep``."""

from trainkit.workflows.sweep.check import check_sweep, describe
from trainkit.workflows.sweep.run import SweepResult, sweep

__all__ = ["SweepResult", "check_sweep", "describe", "sweep"]
