"""``trainkit init``: look at pictures or a table, and write a config with a reason on each line."""
# mypy: implicit-reexport

from trainkit.workflows.init.run import InitResult, init
