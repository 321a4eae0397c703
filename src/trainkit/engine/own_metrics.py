"""Metrics of plug-ins beside trainkit's own: kept in one object that batches are added to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from trainkit.engine.metrics import ClassificationMetrics, RegressionMetrics


class OwnMetric(Protocol):
    """The state of a metric: sums that batches add to, divided once."""

    def update(self, predictions: Tensor, targets: Tensor) -> None: ...
    def merge(self, other: OwnMetric) -> None: ...
    def compute(self) -> float: ...


class WithOwnMetrics:
    """The metrics of a task, and those of plug-ins by name.

    Args:
        predictions_of: makes of the scores and targets of a batch what the others take: probabilities (N, K) and
            classes int64 (N,), or values (N, T) and targets (N, T), both in their own units.
    """

    def __init__(
        self,
        usual: ClassificationMetrics | RegressionMetrics,
        own: Mapping[str, OwnMetric],
        *,
        predictions_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        self.usual, self.own, self.predictions_of = usual, own, predictions_of

    @torch.no_grad()
    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Add a batch, as the usual metrics take it."""
        self.usual.update(scores, targets)
        predictions, own_targets = self.predictions_of(scores, targets)
        for metric in self.own.values():
            metric.update(predictions, own_targets)

    def compute(self) -> dict[str, float]:
        """All of them by name."""
        return self.usual.compute() | {name: float(metric.compute()) for name, metric in self.own.items()}
