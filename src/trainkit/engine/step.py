"""One step of training: forward, loss, backward, clip, optimizer step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine.nonfinite import Guard, any_non_finite
from trainkit.engine.optimizers import take_step
from trainkit.engine.plan import Plan
from trainkit.engine.state import TrainState
from trainkit.runtime import seed_default_generators


class StepResult(NamedTuple):
    """Tensors of a step on the device, summed later. A skipped step (``taken`` is False) is left out of the sums."""

    loss: Tensor
    weight: Tensor | float
    outputs: Tensor
    targets: Tensor
    taken: bool


def train_step(state: TrainState, plan: Plan, batch: Batch, *, guard: Guard, lr: float) -> StepResult:
    """Forward, loss, backward, clip, step: on one batch."""
    if isinstance(state.optimizer, torch.optim.LBFGS):
        return lbfgs_step(state, plan, batch, guard=guard, lr=lr)
    before = [buffer.clone() for buffer in state.model.buffers()] if plan.skip_limit else []
    loss, weight, outputs = compute_gradients(state, plan, batch)
    if state.scaler is not None:
        state.scaler.unscale_(state.optimizer)
    grads = [parameter.grad for parameter in state.parameters if parameter.grad is not None]
    overflow = state.scaler is not None and overflows(state.scaler, loss, any_non_finite(grads))
    taken = not overflow and guard.allows(loss, grads, batch=batch, progress=state.progress, lr=lr)
    if taken and plan.clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.parameters, plan.clip_grad_norm)
    if taken and plan.clip_grad_value is not None:
        torch.nn.utils.clip_grad_value_(state.parameters, plan.clip_grad_value)
    if taken:
        take_step(state.optimizer)
        if state.ema is not None:
            state.ema.update(state.model)
    elif not overflow:
        restore_buffers(state.model, before)
    if state.scaler is not None:
        state.progress.overflows += overflow
        state.scaler.update()
    return StepResult(loss, weight, outputs, batch.targets, taken)


def overflows(scaler: torch.amp.GradScaler, loss: Tensor, bad: Tensor) -> bool:
    """Whether the scaled gradients overflowed in fp16: the step is skipped and the scale halved, as GradScaler does.

    At a scale of 1 there is nothing to halve: the gradients themselves are not finite.
    """
    return math.isfinite(loss.item()) and bad.item() != 0 and scaler.get_scale() > 1


def restore_buffers(model: nn.Module, before: Sequence[Tensor]) -> None:
    """Undo the update of batch-norm statistics by a forward pass whose step is skipped."""
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)


def compute_gradients(state: TrainState, plan: Plan, batch: Batch) -> tuple[Tensor, Tensor | float, Tensor]:
    """Set the gradients of the batch's mean loss, micro-batch by micro-batch.

    Returns the mean loss (), what its sum was divided by, and the outputs (N, ...), all detached.
    """
    for parameter in state.parameters:
        parameter.grad = None
    total = plan.loss.normalizer(batch.targets)
    if plan.accumulation_steps == 1:
        with plan.autocast():
            outputs = plan.forward(batch.inputs)
        loss = plan.loss.mean(outputs.float(), batch.targets)
        scale(state, loss).backward()
        return loss.detach(), total, outputs.detach()
    losses, kept = [], []
    size = -(-len(batch.targets) // plan.accumulation_steps)
    for inputs, targets in zip(batch.inputs.split(size), batch.targets.split(size), strict=True):
        with plan.autocast():
            outputs = plan.forward(inputs)
        loss = plan.loss.sum(outputs.float(), targets) / total
        scale(state, loss).backward()
        losses.append(loss.detach())
        kept.append(outputs.detach())
    return torch.stack(losses).sum(), total, torch.cat(kept)


def scale(state: TrainState, loss: Tensor) -> Tensor:
    return loss if state.scaler is None else state.scaler.scale(loss)


def lbfgs_step(state: TrainState, plan: Plan, batch: Batch, *, guard: Guard, lr: float) -> StepResult:
    """One step of L-BFGS, which evaluates the loss several times; with the same dropout masks each time."""
    evaluations: list[tuple[Tensor, Tensor | float, Tensor]] = []
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    buffers = [buffer.clone() for buffer in state.model.buffers()] if plan.skip_limit else []

    def closure() -> Tensor:
        seed_default_generators(plan.seed, "dropout", state.progress.steps_completed)
        evaluations.append(compute_gradients(state, plan, batch))
        for parameter in state.model.parameters():  # L-BFGS calls .view(-1), which channels-last tensors do not have
            if parameter.grad is not None:
                parameter.grad = parameter.grad.contiguous()
        return evaluations[-1][0]

    state.optimizer.step(closure)  # type: ignore[arg-type]
    loss, weight, outputs = evaluations[0]
    with torch.no_grad():
        norm = torch.nn.utils.get_total_norm(list(state.model.parameters()))
    if not torch.isfinite(norm + loss):
        # The line search diverged: restore the weights before the guard raises or skips.
        with torch.no_grad():
            torch._foreach_copy_(list(state.model.parameters()), before)
        state.optimizer.state.clear()
    taken = guard.allows(loss, [norm], batch=batch, progress=state.progress, lr=lr)
    if not taken:
        restore_buffers(state.model, buffers)
    elif state.ema is not None:
        state.ema.update(state.model)
    return StepResult(loss, weight, outputs, batch.targets, taken)
