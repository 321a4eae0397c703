"""Recorders of a run's metrics, and reading its log back. Nothing here imports torch before it is used."""
# mypy: implicit-reexport

from trainkit.recorders.history import History, Points, history_of, is_rate, main_metric, metric_text, number, title_of
from trainkit.recorders.logs import Fanout, JsonLines, TextLog, read_json_lines
