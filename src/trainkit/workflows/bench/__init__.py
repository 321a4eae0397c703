"""``trainkit bench``: the comparison of settings. ``speed``, which measures one, needs torch and is imported apart."""
# mypy: implicit-reexport

from trainkit.workflows.bench.run import (
    Advice,
    ChildFailed,
    Comparison,
    Measure,
    Measurement,
    Setting,
    Trial,
    compare,
    measure_apart,
)
