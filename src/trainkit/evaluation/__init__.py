"""The report on a model's outputs: metrics with intervals, classes, confusion, calibration, mistakes."""

from trainkit.evaluation.intervals import CONFIDENCE, Interval, t_interval, wilson_interval
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
    "ClassificationReport",
    "Interval",
    "Mistake",
    "RegressionReport",
    "Reliability",
    "Report",
    "build_report",
    "t_interval",
    "wilson_interval",
]
