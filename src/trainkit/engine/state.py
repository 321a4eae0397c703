"""The state of a run: everything that a checkpoint must hold so that a resumed run is the same run."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from trainkit.engine.schedules import Plateau, Schedule

Record = TypeVar("Record")


@dataclass
class Progress:
    """What has been done so far, in named units."""

    epochs_completed: int = 0
    batches_completed: int = 0
    """Batches of the current epoch; equal to the epoch's length while its validation is still to come."""
    steps_completed: int = 0
    """Optimizer steps over the whole run, skipped ones included: the position in the learning-rate schedule."""
    steps_skipped: int = 0
    overflows: int = 0
    """Steps of fp16 that only lowered the loss scale."""
    samples_seen: int = 0
    train_seconds: float = 0.0
    data_seconds: float = 0.0
    """The part of ``train_seconds`` that was spent waiting for batches."""
    validation_seconds: float = 0.0
    checkpoint_seconds: float = 0.0

    @property
    def position(self) -> tuple[int, int, int]:
        """Where the run stands; the same twice only if nothing happened in between."""
        return self.epochs_completed, self.batches_completed, self.steps_completed


@dataclass
class EpochTotals:
    """Sums and counts of the current epoch's training batches, divided once at its end."""

    loss_sum: float = 0.0
    weight_sum: float = 0.0
    loss_max: float = 0.0
    """Of a batch: a spike that the mean hides."""
    num_correct: int = 0
    num_samples: int = 0

    @property
    def mean_loss(self) -> float:
        """NaN where every step was skipped."""
        return self.loss_sum / self.weight_sum if self.weight_sum else math.nan

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_samples if self.num_samples else math.nan


@dataclass
class Best:
    """The best value of the monitored metric: the first of equals wins, and NaN never does."""

    monitor: str
    mode: Literal["min", "max"]
    value: float | None = None
    epoch: int | None = None

    def improves(self, value: float, *, min_delta: float = 0.0) -> bool:
        if math.isnan(value):
            return False
        if self.value is None:
            return True
        return value > self.value + min_delta if self.mode == "max" else value < self.value - min_delta

    def update(self, value: float, *, epoch: int, min_delta: float = 0.0) -> bool:
        """Take over a better value. Returns whether it was better."""
        better = self.improves(value, min_delta=min_delta)
        if better:
            self.value, self.epoch = value, epoch
        return better


@dataclass
class EarlyStopping:
    """Counts the epochs without improvement of its own monitored metric."""

    patience: int
    min_delta: float
    best: Best
    epochs_without_improvement: int = 0

    def update(self, value: float, *, epoch: int) -> None:
        better = self.best.update(value, epoch=epoch, min_delta=self.min_delta)
        self.epochs_without_improvement = 0 if better else self.epochs_without_improvement + 1

    @property
    def exhausted(self) -> bool:
        return self.epochs_without_improvement >= self.patience


class Ema:
    """An exponential moving average of the weights: ``average = decay * average + (1 - decay) * weight``.

    The decay starts lower, ``(1 + steps) / (10 + steps)``, so that the first weights are forgotten (as in TensorFlow's
    ExponentialMovingAverage). Buffers such as batch-norm statistics are copied.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "num_updates": self.num_updates, "decay": self.decay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.num_updates = state["num_updates"]


@dataclass
class TrainState:
    """The live objects of a run and its position."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    best: Best
    plateau: Plateau | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    early_stopping: EarlyStopping | None = None
    progress: Progress = field(default_factory=Progress)
    totals: EpochTotals = field(default_factory=EpochTotals)
    parameters: list[nn.Parameter] = field(init=False)
    """The model's: listed once, since walking through the modules takes 30 us a step."""

    def __post_init__(self) -> None:
        self.parameters = list(self.model.parameters())

    @property
    def eval_model(self) -> nn.Module:
        """The weights that are evaluated, scored and exported: the average where there is one."""
        return self.model if self.ema is None else self.ema.model

    @property
    def stopped_early(self) -> bool:
        return self.early_stopping is not None and self.early_stopping.exhausted

    def learning_rate(self) -> float:
        """The schedule's learning rate at this position, times what a plateau has taken off."""
        lr = self.schedule.lr_at(self.progress.steps_completed)
        return lr if self.plateau is None else self.plateau.apply(lr)

    def judge(self, metrics: Mapping[str, float]) -> bool:
        """Draw the consequences of an epoch's metrics. Returns whether they are the best so far."""
        epoch = self.progress.epochs_completed
        if self.plateau is not None:
            self.plateau.step(metrics[self.plateau.monitor])
        if self.early_stopping is not None:
            self.early_stopping.update(metrics[self.early_stopping.best.monitor], epoch=epoch)
        return self.best.update(metrics[self.best.monitor], epoch=epoch)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only. The tensors are the live ones, on their device."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "progress": asdict(self.progress),
            "totals": asdict(self.totals),
            "best": asdict(self.best),
            "early_stopping": None if self.early_stopping is None else asdict(self.early_stopping),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a checkpoint was taken. The caller has checked that it fits (``state_dicts.check_fits``)."""
        self.model.load_state_dict(state["model"])
        # Tensors come from the checkpoint, hyperparameters from the config: they may have been changed on purpose.
        # What the schedule moves stays where the last step left it, until the next one.
        moved = {"params", "lr"} | ({"momentum", "betas"} if self.schedule.main_momentum is not None else set())
        fresh = [{k: v for k, v in group.items() if k not in moved} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update(values)
        for part, key in ((self.plateau, "plateau"), (self.scaler, "scaler"), (self.ema, "ema")):
            if part is not None and state[key] is not None:
                part.load_state_dict(state[key])
        if self.ema is not None and state["ema"] is None:  # switched on now: it begins with these weights
            self.ema.model.load_state_dict(self.model.state_dict())
        self.progress = _record(Progress, state["progress"])
        self.totals = _record(EpochTotals, state["totals"])
        saved_best = _record(Best, state["best"])
        if (saved_best.monitor, saved_best.mode) == (self.best.monitor, self.best.mode):
            self.best = saved_best
        if self.early_stopping is not None and state["early_stopping"] is not None:
            saved = state["early_stopping"]
            self.early_stopping.best = _record(Best, saved["best"])
            self.early_stopping.epochs_without_improvement = saved["epochs_without_improvement"]


def _record(kind: type[Record], values: Mapping[str, Any]) -> Record:
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})


def set_learning_rate(optimizer: torch.optim.Optimizer, *, lr: float, momentum: float | None) -> None:
    """Set the learning rate, and the momentum (or first beta) where a schedule moves it."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if momentum is not None:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
