"""The metrics of an evaluation, and which of them is watched, as ``checkpoint.monitor`` and others say."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainkit.builders.own_parts import build_part
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.engine import (
    EXTRA_METRICS,
    ClassificationMetrics,
    Loss,
    Metrics,
    OwnMetric,
    RegressionMetrics,
    WithOwnMetrics,
)
from trainkit.wording import better


def build_metrics(config: Config, data: Dataset, loss: Loss, *, device: torch.device) -> Metrics:
    """The metrics of one pass over a split, with those of plug-ins."""
    usual: ClassificationMetrics | RegressionMetrics
    if data.num_classes:
        usual = ClassificationMetrics(
            data.num_classes, also=extra_metrics(config), probabilities_of=loss.probabilities_of, device=device
        )
    else:
        usual = RegressionMetrics(data.num_targets, target_std=data.target_std, quantile=loss.quantile, device=device)

    def predictions_of(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the metrics of plug-ins take: probabilities, or values and targets in their own units."""
        if data.num_classes:
            return loss.probabilities_of(scores), targets
        if data.target_scale is None:
            return scores, targets
        mean, std = (
            torch.tensor(list(part), dtype=scores.dtype, device=scores.device)
            for part in zip(*data.target_scale, strict=True)
        )
        return scores * std + mean, targets * std + mean

    own = build_own_metrics(config, data.num_classes or data.num_targets)
    return WithOwnMetrics(usual, own, predictions_of=predictions_of) if own else usual


def monitor_of(config: Config, *, task: str, has_val: bool) -> str:
    """The metric that says which checkpoint is best; ``auto`` takes val_accuracy, or the loss of a regression."""
    if config.checkpoint.monitor != "auto":
        return config.checkpoint.monitor
    split = "val" if has_val else "train"
    return f"{split}_{'accuracy' if task == 'classification' else 'loss'}"


def extra_metrics(config: Config) -> list[str]:
    """The metrics of classes that the validation computes because a monitor or ``logging.metrics`` names them."""
    return [name for name in EXTRA_METRICS if f"val_{name}" in _asked_metrics(config)]


def _asked_metrics(config: Config) -> list[str | None]:
    stopping = config.training.early_stopping
    asked = [config.checkpoint.monitor, None if stopping is None else stopping.monitor, *(config.logging.metrics or ())]
    return [*asked, getattr(config.scheduler, "monitor", None)]


def build_own_metrics(config: Config, num_outputs: int) -> dict[str, OwnMetric]:
    """New metrics of plug-ins, those that a monitor or ``logging.metrics`` names."""
    asked = {name: part for name, part in config.own_metrics.items() if name in _asked_metrics(config)}
    return {
        name.removeprefix("val_"): build_part(
            part.model_validate({"type": name.removeprefix("val_")}), num_outputs, key="logging.metrics"
        )
        for name, part in asked.items()
    }


def monitored(config: Config, monitor: str, *, own: str | None = None) -> tuple[str, Literal["min", "max"]]:
    """A metric, and whether its minimum or maximum is best.

    Args:
        monitor: the metric of the best checkpoint; ``checkpoint.mode`` belongs to it.
        own: another metric in its place.
    """
    metric = own or monitor
    mode = config.checkpoint.mode if metric == monitor else "auto"
    return metric, better(metric) if mode == "auto" else mode
