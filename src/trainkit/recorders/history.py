"""A run's log as series over epochs, for curves, findings and pages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainkit.wording import percent

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class History:
    """The records of ``metrics.jsonl``, apart by kind, in the order of the steps."""

    epochs: tuple[Mapping[str, Any], ...]
    steps: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def best_epoch(self) -> int | None:
        """The last epoch that was the best so far."""
        return next((int(record["epoch"]) for record in reversed(self.epochs) if record.get("best")), None)

    @property
    def steps_per_epoch(self) -> float | None:
        if not self.epochs or not self.epochs[0].get("epoch"):
            return None
        return float(self.epochs[0]["step"]) / float(self.epochs[0]["epoch"])

    def values(self, name: str) -> list[float]:
        """One value for each epoch; NaN where the log has none."""
        return [number(record.get(name)) for record in self.epochs]

    def series(self, name: str) -> Points:
        """(epoch, value) where the value is finite."""
        return _finite((float(record["epoch"]), number(record.get(name))) for record in self.epochs)

    def step_series(self, name: str) -> Points:
        """(epochs completed, value) of the logging steps; the first step of the second epoch is just above 1."""
        size = self.steps_per_epoch
        if size is None:
            return _finite((float(record["step"]), number(record.get(name))) for record in self.steps)
        return _finite((float(record["step"]) / size, number(record.get(name))) for record in self.steps)

    def metric_names(self) -> list[str]:
        """The metrics of a split in each epoch: ``train_loss``, ``val_accuracy``, ..."""
        names = dict.fromkeys(name for record in self.epochs for name in record)
        aside = ("train_seconds", "train_loss_max")
        return [name for name in names if name.startswith(("train_", "val_")) and name not in aside]

    def best_value(self, name: str) -> float:
        """The value of a metric at the best epoch; NaN where there is none."""
        best = self.best_epoch
        return next((number(record.get(name)) for record in self.epochs if record.get("epoch") == best), math.nan)

    def lasting(self, name: str) -> float:
        """Seconds of the whole run spent on something, such as ``validation_seconds``; 0 where it is not known."""
        values = [value for value in self.values(name) if not math.isnan(value)]
        return values[-1] if values else 0.0


def history_of(records: Sequence[Mapping[str, Any]]) -> History:
    """The history in the records of a log; other lines are left out."""
    whole = [record for record in records if isinstance(record.get("step"), int)]
    epochs = [record for record in whole if record.get("type") == "epoch" and isinstance(record.get("epoch"), int)]
    return History(tuple(epochs), tuple(record for record in whole if record.get("type") == "step"))


def number(value: object) -> float:
    """A number of a record as a float; NaN for null, a word, or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def is_rate(metric: str) -> bool:
    """Whether a metric is a share, from 0 to 1, that reads well in percent."""
    return any(word in metric for word in ("accuracy", "precision", "recall", "f1", "auc"))


def main_metric(names: Sequence[str]) -> str | None:
    """The metric, without its split, that people know best: accuracy, else R2, else RMSE."""
    for metric in ("accuracy", "r2", "rmse", "mae"):
        if any(name.endswith(f"_{metric}") for name in names):
            return metric
    return None


def title_of(metric: str) -> str:
    """A metric as people write it: ``val_f1_macro`` is ``F1 (macro)``."""
    bare = metric.removeprefix("train_").removeprefix("val_").removeprefix("test_")
    names = {"r2": "R²", "mae": "mean absolute error", "rmse": "root mean squared error", "lr": "learning rate"}
    names |= {"mcc": "Matthews correlation", "log_loss": "log loss"}
    if bare in names:
        return names[bare]
    if bare.endswith("_macro"):
        return f"{bare.removesuffix('_macro').replace('f1', 'F1')} (macro)"
    return re.sub(r"^top(\d+)_", r"top-\1 ", bare).replace("roc_auc", "ROC AUC").replace("_", " ")


def metric_text(metric: str, value: float | None) -> str:
    """A value as its metric is read: shares in percent; a dash where it is not known."""
    value = math.nan if value is None else value
    if is_rate(metric):
        return percent(value, decimals=2)
    return "–" if math.isnan(value) else f"{value:.4g}"


def _finite(points: Any) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y)]
