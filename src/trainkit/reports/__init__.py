"""Figures and pages. Nothing here imports torch, numpy, matplotlib or jinja2 before it is used."""

from trainkit.reports.comparison import Compared, Comparison, build_comparison_page, metric_rows, pick_metric
from trainkit.reports.curves import BLOCKS, PLAIN, draw_learning_curves, draw_overlay, sparkline
from trainkit.reports.figures import save_figure
from trainkit.reports.page_data import Evaluated, PageData, SavedFile
from trainkit.reports.plots import (
    draw_predictions,
    plot_confusion,
    plot_preview,
    plot_reliability,
    plot_residuals,
    plot_wrong_samples,
)
from trainkit.reports.rising_rate import plot_rising_rate, rising_rate_lines
from trainkit.reports.run_page import build_run_page, section_type
from trainkit.reports.sweep_data import Confirmed, Searched, SweepData, SweptTrial
from trainkit.reports.sweep_page import build_sweep_page

__all__ = [
    "BLOCKS",
    "PLAIN",
    "Compared",
    "Comparison",
    "Confirmed",
    "Evaluated",
    "PageData",
    "SavedFile",
    "Searched",
    "SweepData",
    "SweptTrial",
    "build_comparison_page",
    "build_run_page",
    "build_sweep_page",
    "draw_learning_curves",
    "draw_overlay",
    "draw_predictions",
    "metric_rows",
    "pick_metric",
    "plot_confusion",
    "plot_preview",
    "plot_reliability",
    "plot_residuals",
    "plot_rising_rate",
    "plot_wrong_samples",
    "rising_rate_lines",
    "save_figure",
    "section_type",
    "sparkline",
]
