"""Where the numbers of a run go, and how its log is read back. Nothing here imports torch before it is used."""

from trainkit.recorders.fanout import Fanout
from trainkit.recorders.history import History, Points, history_of, is_rate, main_metric, metric_text, number, title_of
from trainkit.recorders.jsonl import JsonLines, JsonlRecorder, read_json_lines
from trainkit.recorders.tensorboard import TensorBoardRecorder, add_graph, add_samples
from trainkit.recorders.textlog import TextLog

__all__ = [
    "Fanout",
    "History",
    "JsonLines",
    "JsonlRecorder",
    "Points",
    "TensorBoardRecorder",
    "TextLog",
    "add_graph",
    "add_samples",
    "history_of",
    "is_rate",
    "main_metric",
    "metric_text",
    "number",
    "read_json_lines",
    "title_of",
]
