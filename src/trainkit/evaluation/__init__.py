"""The report on a model's outputs: metrics with intervals, classes, confusion, calibration, mistakes."""
# mypy: implicit-reexport

from trainkit.evaluation.intervals import CONFIDENCE, Interval, t_interval
from trainkit.evaluation.paired import METRICS, Difference, Group, compare_sides
from trainkit.evaluation.report import (
    ClassificationReport,
    Mistake,
    RegressionReport,
    Reliability,
    Report,
    build_report,
)
