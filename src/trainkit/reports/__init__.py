"""Figures and pages. Nothing here imports torch, numpy, matplotlib or jinja2 before it is used."""
# mypy: implicit-reexport

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
