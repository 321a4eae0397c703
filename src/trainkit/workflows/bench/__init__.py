"""``trainkit bench``: what compares settings. Measuring one needs torch and has a door of its own, ``measure``."""

from trainkit.workflows.bench.measurement import Measurement, Setting
from trainkit.workflows.bench.run import Advice, ChildFailed, Comparison, Measure, Trial, compare, measure_apart

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
