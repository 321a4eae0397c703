"""The state of a run: everything that a checkpoint must hold so that a resumed run is the same run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from trainkit.engine.averages import Swa
from trainkit.engine.decay import ScheduledDecay
from trainkit.engine.exchange import Exchange
from trainkit.engine.freezing import Freezing
from trainkit.engine.monitors import Best, EarlyStopping, Plateau
from trainkit.engine.optimizers import Ema, match_parameters
from trainkit.engine.parameter_groups import load_by_name
from trainkit.engine.schedules import Schedule
from trainkit.models import ScheduledDropout, scheduled_dropouts
from trainkit.runtime import Ranks

Record = TypeVar("Record")


@dataclass
class Progress:
    """The position of a run, in named units."""

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
    def seconds(self) -> float:
        """Of training, validation and checkpoints."""
        return self.train_seconds + self.validation_seconds + self.checkpoint_seconds

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
class TrainState:
    """The live objects of a run and its position."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    best: Best
    plateau: Plateau | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    swa: Swa | None = None
    early_stopping: EarlyStopping | None = None
    freezing: Freezing | None = None
    progress: Progress = field(default_factory=Progress)
    totals: EpochTotals = field(default_factory=EpochTotals)
    parameters: list[nn.Parameter] = field(init=False)
    """The model's: listed once, since walking through the modules takes 30 us a step."""
    dropouts: Sequence[ScheduledDropout] = field(init=False)
    """Its dropout layers whose share may change."""
    decay: ScheduledDecay | None = field(init=False)
    """The weight decay, where the schedule moves it."""
    exchange: Exchange | None = field(init=False, default=None)
    """With the other processes of the run, where there are several."""

    def __post_init__(self) -> None:
        self.parameters = list(self.model.parameters())
        self.dropouts = scheduled_dropouts(self.model)
        self.decay = None if self.schedule.weight_decay_factor is None else ScheduledDecay(self.optimizer)

    @property
    def eval_model(self) -> nn.Module:
        """The weights that are evaluated, scored and exported: the average where there is one."""
        if self.swa is not None and self.swa.ready:
            return self.swa.model
        return self.model if self.ema is None else self.ema.model

    @property
    def stopped_early(self) -> bool:
        return self.early_stopping is not None and self.early_stopping.exhausted

    @property
    def stage(self) -> int:
        """The number of times that something was unfrozen; in between, the same parameters train."""
        return 0 if self.freezing is None else self.freezing.stage(self.progress.steps_completed)

    def exchange_of(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> Exchange:
        """The exchange of these parameters' gradients, which are others after something was unfrozen."""
        known = self.exchange
        if known is None or known.ranks is not ranks or list(map(id, known.parameters)) != list(map(id, parameters)):
            self.exchange = known = Exchange(ranks, parameters)
        return known

    def train(self) -> None:
        """Put the model into training mode, but for what is frozen at this position."""
        if self.freezing is None:
            self.model.train()
        else:
            self.freezing.apply(self.model, self.progress.steps_completed)

    def learning_rate(self) -> float:
        """The schedule's learning rate at this position, times the reductions of a plateau."""
        lr = self.schedule.lr_at(self.progress.steps_completed)
        return lr if self.plateau is None else self.plateau.apply(lr)

    def follow_schedule(self) -> float:
        """Set all that the schedule moves to its values for the next step. Returns the learning rate."""
        schedule, step, lr = self.schedule, self.progress.steps_completed, self.learning_rate()
        set_learning_rate(self.optimizer, lr=lr, momentum=schedule.momentum_at(step))
        if self.freezing is not None and step in self.freezing.changes:
            self.train()
        if self.decay is not None and schedule.weight_decay_factor is not None:
            self.decay.set_factor(schedule.weight_decay_factor(step))
        if schedule.dropout_factor is not None:
            factor = schedule.dropout_factor(step)
            for layer in self.dropouts:
                layer.set_factor(factor)
        return lr

    def complete_epoch(self) -> None:
        """Move the position to the start of the next epoch."""
        self.progress.epochs_completed += 1
        self.progress.batches_completed = 0
        self.totals = EpochTotals()

    def update_monitors(self, metrics: Mapping[str, float]) -> bool:
        """Give the metrics of the completed epoch to plateau and early stopping. Returns whether they are the best."""
        epoch = self.progress.epochs_completed
        if self.plateau is not None:
            self.plateau.step(metrics[self.plateau.monitor])
        if self.early_stopping is not None:
            self.early_stopping.update(metrics, epoch=epoch)
        return self.best.update(metrics, epoch=epoch)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only. The tensors are the live ones, on their device."""
        optimizer = self.optimizer.state_dict()
        # In the order of the parameters, whichever of them trained first.
        optimizer["state"] = dict(sorted(optimizer["state"].items()))
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer,
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "ema": self._average(),
            "swa": None if self.swa is None else self.swa.state_dict(),
            "progress": asdict(self.progress),
            "totals": asdict(self.totals),
            "best": asdict(self.best),
            "early_stopping": None if self.early_stopping is None else asdict(self.early_stopping),
        }

    def _average(self) -> dict[str, Any] | None:
        """The weights that are scored and exported in the place of the model's, whichever average they are."""
        if self.swa is not None and self.swa.ready:
            return {"model": self.swa.model.state_dict(), "num_updates": self.swa.num_averaged}
        return None if self.ema is None else self.ema.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint. The caller has checked that it fits the model (``checkpoints.check_fits``)."""
        self.model.load_state_dict(state["model"])
        # Tensors come from the checkpoint, hyperparameters from the config: the user may have changed them.
        # Values that the schedule moves stay where the last step left them, until the next one.
        moved = {"params", "param_names", "lr"} | (
            {"momentum", "betas"} if self.schedule.main_momentum is not None else set()
        )
        fresh = [{k: v for k, v in group.items() if k not in moved} for group in self.optimizer.param_groups]
        names = [name for name, _ in self.model.named_parameters()]
        load_by_name(self.optimizer, state["optimizer"], names=names)
        for group, values in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update(values)
        match_parameters(self.optimizer)
        for part, key in ((self.plateau, "plateau"), (self.scaler, "scaler"), (self.ema, "ema")):
            if part is not None and state[key] is not None:
                part.load_state_dict(state[key])
        if self.swa is not None and state.get("swa") is not None:
            self.swa.load_state_dict(state["swa"])
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
    """Set the learning rate, times the factor of each group, and the momentum (or first beta) that a schedule moves.

    Fused kernels on CUDA get it in float32, as CUDA graphs read it from memory: so both have the same bits.
    """
    for group in optimizer.param_groups:
        own = lr * group.get("lr_scale", 1.0)
        group["lr"] = float(np.float32(own)) if group.get("fused") and group["params"][0].is_cuda else own
        if momentum is not None:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


def base_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the last step, without the factors of groups."""
    groups = optimizer.param_groups
    base = next((group for group in groups if group.get("lr_scale", 1.0) == 1), groups[0])
    return float(base["lr"] / base.get("lr_scale", 1.0))
