"""``trainkit init``: look at pictures or a table, and write a config with a reason on each line."""

from trainkit.workflows.init.run import Written, init

__all__ = ["Written", "init"]
