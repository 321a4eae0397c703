"""``trainkit sweep``. It needs Optuna, of the extra ``sweep``: importing this raises UserError without it."""
# mypy: implicit-reexport

from importlib.util import find_spec

from trainkit.errors import UserError

if find_spec("optuna") is None:
    raise UserError("a sweep needs Optuna: pip install optuna cmaes")

from trainkit.workflows.sweep.check import check_sweep, describe
from trainkit.workflows.sweep.report import texts_of
from trainkit.workflows.sweep.run import SweepResult, sweep
from trainkit.workflows.sweep.runner import Runner
from trainkit.workflows.sweep.study import Trial, without_password
