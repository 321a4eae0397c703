"""Monitors of a metric, epoch by epoch: the best value, early stopping, and a lower learning rate on a plateau."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass
class Best:
    """The best value of the monitored metric. Of equal values the one with the lower loss wins; NaN never does.

    On a small validation split many epochs have the same accuracy, and the first of them is seldom the best model. The
    loss is that of the metric's split. Where the losses are equal too, the first epoch wins.
    """

    monitor: str
    mode: Literal["min", "max"]
    value: float | None = None
    epoch: int | None = None
    loss: float | None = None
    """The loss at the best value. None where the metric is a loss, and in checkpoints that did not store it yet."""

    def update(self, metrics: Mapping[str, float], *, epoch: int, min_delta: float = 0.0) -> bool:
        """Take over a better value. Returns whether it was better.

        Args:
            min_delta: the smallest change that counts as better. Above 0, an equal value is never better.
        """
        value, loss = metrics[self.monitor], self._loss_in(metrics)
        better = self._improves(value, min_delta) or (min_delta == 0 and self._breaks_tie(value, loss))
        if better:
            self.value, self.epoch, self.loss = value, epoch, loss
        return better

    def _loss_in(self, metrics: Mapping[str, float]) -> float | None:
        name = f"{self.monitor.partition('_')[0]}_loss"
        return None if name == self.monitor else metrics.get(name)

    def _improves(self, value: float, min_delta: float) -> bool:
        if math.isnan(value):
            return False
        if self.value is None:
            return True
        return value > self.value + min_delta if self.mode == "max" else value < self.value - min_delta

    def _breaks_tie(self, value: float, loss: float | None) -> bool:
        if value != self.value or loss is None or self.loss is None or math.isnan(loss):
            return False
        return math.isnan(self.loss) or loss < self.loss


@dataclass
class EarlyStopping:
    """Counts the epochs without improvement of its own monitored metric, as ``Best`` understands it.

    With ``min_delta`` 0, an epoch that would become the best checkpoint is thus never one without improvement: where
    the accuracy stands still, the run goes on as long as the loss of that split falls.
    """

    patience: int
    min_delta: float
    best: Best
    epochs_without_improvement: int = 0

    def update(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        better = self.best.update(metrics, epoch=epoch, min_delta=self.min_delta)
        self.epochs_without_improvement = 0 if better else self.epochs_without_improvement + 1

    @property
    def exhausted(self) -> bool:
        return self.epochs_without_improvement >= self.patience


class Plateau:
    """``torch.optim.lr_scheduler.ReduceLROnPlateau`` as a factor on a schedule's learning rate.

    ``step`` takes the monitored metric once an epoch; ``apply`` takes the learning rate of the schedule.
    """

    def __init__(
        self,
        *,
        monitor: str,
        mode: Literal["min", "max"],
        base_lr: float,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.base_lr = base_lr
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.lr = base_lr
        self.best: float | None = None
        self.num_bad_epochs = 0
        self.cooldown_left = 0

    def step(self, value: float) -> bool:
        """Take in the metric of an epoch. Returns whether the learning rate was reduced. NaN never improves."""
        if self._improves(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs <= self.patience:
            return False
        self.cooldown_left = self.cooldown
        self.num_bad_epochs = 0
        reduced = max(self.lr * self.factor, self.min_lr)
        if self.lr - reduced <= 1e-8:  # PyTorch's eps: too small a change to make
            return False
        self.lr = reduced
        return True

    def apply(self, lr: float) -> float:
        """The schedule's learning rate with all reductions so far."""
        return self.lr if lr == self.base_lr else lr * (self.lr / self.base_lr)

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return math.isfinite(value)
        sign = -1 if self.mode == "min" else 1
        change = sign * self.threshold
        bound = self.best * (1 + change) if self.threshold_mode == "rel" else self.best + change
        return sign * value > sign * bound

    def state_dict(self) -> dict[str, Any]:
        names = ("lr", "base_lr", "best", "num_bad_epochs", "cooldown_left")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # A resumed run with another base learning rate keeps the reductions so far.
        same = state["base_lr"] == self.base_lr
        self.lr = state["lr"] if same else self.base_lr * (state["lr"] / state["base_lr"])
        self.best = state["best"]
        self.num_bad_epochs = state["num_bad_epochs"]
        self.cooldown_left = state["cooldown_left"]
