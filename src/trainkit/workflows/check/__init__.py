"""``trainkit check``, and the checks with which ``train`` begins."""

from trainkit.workflows.check.memory import kept_checkpoints
from trainkit.workflows.check.run import CheckReport, check

__all__ = ["CheckReport", "check", "kept_checkpoints"]
