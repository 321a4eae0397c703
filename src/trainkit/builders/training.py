"""``optimizer:``, ``scheduler:``, ``training:`` and ``checkpoint:`` as objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from trainkit.builders.data import knobs_of
from trainkit.config.schema import Config
from trainkit.config.schema import optimization as schema
from trainkit.config.schema.base import parse_duration
from trainkit.config.schema.run import SkipNonFinite
from trainkit.engine import (
    Best,
    ClassificationMetrics,
    EarlyStopping,
    Ema,
    Loss,
    Metrics,
    Plan,
    Plateau,
    RegressionMetrics,
    Schedule,
    TrainState,
    build_optimizer,
    build_schedule,
    duration_to_steps,
)
from trainkit.runtime import autocast
from trainkit.wording import better


def mode_of(monitor: str, mode: str = "auto") -> Literal["min", "max"]:
    """Whether a higher or a lower value of a metric is better."""
    if mode == "auto":
        return better(monitor)
    return "min" if mode == "min" else "max"


def monitor_of(config: Config, *, task: str, has_val: bool) -> str:
    """The metric that says which checkpoint is best; ``auto`` takes val_accuracy, or the loss of a regression."""
    if config.checkpoint.monitor != "auto":
        return config.checkpoint.monitor
    split = "val" if has_val else "train"
    return f"{split}_{'accuracy' if task == 'classification' else 'loss'}"


def build_state(
    config: Config, model: nn.Module, *, monitor: str, steps_per_epoch: int, device: torch.device, precision: str
) -> TrainState:
    """A run at its start; ``model`` lies on ``device`` already."""
    # Fused kernels read and write each weight once: measured 1.2 to 2 x faster a step for small models, on the CPU too.
    optimizer = build_optimizer(
        config.optimizer.type,
        model.parameters(),
        device=device,
        fused=device.type in ("cpu", "cuda"),
        **knobs_of(config.optimizer),
    )
    best = Best(monitor, mode_of(monitor, config.checkpoint.mode))
    spec = config.training
    stopping = None
    if spec.early_stopping is not None:
        watched = spec.early_stopping.monitor or monitor
        stopping = EarlyStopping(
            spec.early_stopping.patience,
            spec.early_stopping.min_delta,
            Best(watched, mode_of(watched, config.checkpoint.mode if watched == monitor else "auto")),
        )
    plateau = None
    if isinstance(config.scheduler, schema.ReduceOnPlateau):
        plateau = _plateau(config.scheduler, config, monitor)
    return TrainState(
        model=model,
        optimizer=optimizer,
        schedule=build_schedule_for(config, steps_per_epoch=steps_per_epoch),
        best=best,
        plateau=plateau,
        scaler=torch.amp.GradScaler(device.type) if precision == "fp16" else None,
        ema=None if spec.ema is None else Ema(model, decay=spec.ema.decay),
        early_stopping=stopping,
    )


def build_schedule_for(config: Config, *, steps_per_epoch: int) -> Schedule:
    """The learning rate at each step of the run."""
    spec = config.scheduler
    knobs = knobs_of(spec)

    def steps(value: int | str) -> int:
        duration = parse_duration(value)
        return duration_to_steps(duration.value, duration.unit, steps_per_epoch=steps_per_epoch)

    warmup = knobs.pop("warmup")
    match spec:
        case schema.ReduceOnPlateau():
            knobs = {"warmup_start_factor": spec.warmup_start_factor}
        case schema.Step():
            knobs["step_size"] = steps(spec.step_size)
        case schema.MultiStep():
            knobs["milestones"] = [steps(milestone) for milestone in spec.milestones]
        case schema.Cosine() if spec.T_max is not None:
            knobs["T_max"] = steps(spec.T_max)
        case schema.OneCycle():
            knobs["cycle_momentum"] = spec.cycle_momentum and config.optimizer.moves_momentum
    return build_schedule(
        spec.type,
        base_lr=config.optimizer.lr,
        total_steps=config.training.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=0 if warmup is None else steps(warmup),
        **knobs,
    )


def _plateau(spec: schema.ReduceOnPlateau, config: Config, monitor: str) -> Plateau:
    watched = spec.monitor or monitor
    return Plateau(
        monitor=watched,
        mode=mode_of(watched, config.checkpoint.mode if watched == monitor else "auto"),
        base_lr=config.optimizer.lr,
        factor=spec.factor,
        patience=spec.patience,
        threshold=spec.threshold,
        threshold_mode=spec.threshold_mode,
        cooldown=spec.cooldown,
        min_lr=spec.min_lr,
    )


def build_plan(
    config: Config,
    *,
    loss: Loss,
    num_classes: int,
    num_targets: int,
    device: torch.device,
    precision: str,
    forward: Callable[[Tensor], Tensor],
) -> Plan:
    """How the loop goes. ``forward`` runs the training model, compiled or not."""
    spec = config.training
    every = parse_duration(config.checkpoint.every)

    def new_metrics() -> Metrics:
        if num_classes:
            return ClassificationMetrics(num_classes, device=device)
        return RegressionMetrics(num_targets, device=device)

    return Plan(
        seed=config.seed,
        epochs=spec.epochs,
        loss=loss,
        new_metrics=new_metrics,
        autocast=partial(autocast, device, precision),
        forward=forward,
        accumulation_steps=spec.accumulation_steps,
        clip_grad_norm=spec.clip_grad_norm,
        clip_grad_value=spec.clip_grad_value,
        skip_limit=spec.on_non_finite.limit if isinstance(spec.on_non_finite, SkipNonFinite) else 0,
        log_every=config.logging.every,
        save_every=(every.value, every.unit),
    )
