"""``trainkit bench``: the comparison of settings. ``speed``, which measures one, needs torch and is imported apart."""

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

__all__ = [
    "Advice",
    "ChildFailed",
    "Comparison",
    "Measure",
    "Measurement",
    "Setting",
    "Trial",
    "compare",
    "measure_apart",
]
