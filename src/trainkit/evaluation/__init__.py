"""The report on a model's outputs: metrics with intervals, classes, confusion, calibration, mistakes."""

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

__all__ = [
    "CONFIDENCE",
    "METRICS",
    "ClassificationReport",
    "Difference",
    "Group",
    "Interval",
    "Mistake",
    "RegressionReport",
    "Reliability",
    "Report",
    "build_report",
    "compare_sides",
    "t_interval",
]
