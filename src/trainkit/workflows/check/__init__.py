"""``trainkit check``, and the checks with which ``train`` begins."""
# mypy: implicit-reexport

from trainkit.workflows.check.memory import kept_checkpoints
from trainkit.workflows.check.probe_data import mirrored
from trainkit.workflows.check.run import CheckReport, check
