"""Scores of a model on a split: the one way in which train, eval and export count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.builders.setup import Setup
from trainkit.builders.training import build_plan, build_state
from trainkit.engine.loop import evaluate
from trainkit.engine.plan import Plan
from trainkit.engine.state import TrainState


def plan_for(setup: Setup, forward: Callable[[Tensor], Tensor] | None = None) -> Plan:
    """How the loop goes for this setup; ``forward`` is the compiled model where there is one."""
    return build_plan(
        setup.config,
        loss=setup.loss,
        num_classes=setup.data.num_classes,
        num_targets=setup.data.num_targets,
        device=setup.device,
        precision=setup.precision,
        forward=setup.model if forward is None else forward,
    )


def state_for(setup: Setup, *, steps_per_epoch: int) -> TrainState:
    """This setup's run at its start."""
    return build_state(
        setup.config,
        setup.model,
        monitor=setup.monitor,
        steps_per_epoch=steps_per_epoch,
        device=setup.device,
        precision=setup.precision,
    )


def score(setup: Setup, model: nn.Module, split: str, *, should_stop: Callable[[], bool]) -> dict[str, float] | None:
    """Loss and metrics of ``model`` over a split; None if stopped on the way."""
    return evaluate(model, plan_for(setup), setup.batches(split), should_stop=should_stop)


def score_and_keep(
    setup: Setup, model: nn.Module, split: str, *, should_stop: Callable[[], bool]
) -> tuple[dict[str, float], Tensor] | None:
    """``score``, and the model's outputs on the way: float32 (N, ...) on the CPU, in the order of the split."""
    num_samples = len(setup.data.splits[split].indices)
    kept: Tensor | None = None
    done = 0

    def keep(module: nn.Module, inputs: object, outputs: Tensor) -> None:
        nonlocal kept, done
        if kept is None:  # one tensor for all, as in ``evaluate``
            kept = torch.empty(num_samples, *outputs.shape[1:])
        kept[done : done + len(outputs)] = outputs
        done += len(outputs)

    handle = model.register_forward_hook(keep)
    try:
        metrics = score(setup, model, split, should_stop=should_stop)
    finally:
        handle.remove()
    if metrics is None:
        return None
    assert kept is not None, "an empty split"
    return metrics, kept


def scored_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that the checkpoint's score belongs to: the average where the run kept one."""
    weights: dict[str, Tensor] = checkpoint["model"] if checkpoint["ema"] is None else checkpoint["ema"]["model"]
    return weights
