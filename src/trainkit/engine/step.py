"""One step of training: forward, loss, backward, clip, optimizer step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine.compile import CompiledModel
from trainkit.engine.mixing import loss_normalizer, loss_sum
from trainkit.engine.nonfinite import Guard
from trainkit.engine.pieces import BatchNorms, Block, Piece, TreeSum, own_pieces
from trainkit.engine.plan import Plan
from trainkit.engine.state import TrainState
from trainkit.runtime import any_non_finite, copy_, piece_bounds, seed_default_generators, take_step

Gradients = tuple[Tensor, Tensor | float, Tensor | None]


class StepResult(NamedTuple):
    """Tensors of a step on the device, summed later. A skipped step (``taken`` is False) is left out of the sums.

    Predicted classes, not outputs: under CUDA graphs these lie in memory that the next step overwrites.
    """

    loss: Tensor
    """Summed over the batch: ()."""
    weight: Tensor | float
    """What makes the sum a mean: the loss's ``normalizer``."""
    predicted: Tensor | None
    """The predicted classes, int64 (N,); None for values."""
    targets: Tensor
    taken: bool


def train_step(state: TrainState, plan: Plan, batch: Batch, *, guard: Guard, lr: float) -> StepResult:
    """Forward, loss, backward, clip, step: on one batch."""
    if isinstance(state.optimizer, torch.optim.LBFGS):
        return lbfgs_step(state, plan, batch, guard=guard, lr=lr)
    before = [buffer.clone() for buffer in state.model.buffers()] if plan.skip_limit else []
    loss, weight, predicted = compute_gradients(state, plan, batch)
    if state.scaler is not None:
        state.scaler.unscale_(state.optimizer)
    grads = [parameter.grad for parameter in state.parameters if parameter.grad is not None]
    overflow = state.scaler is not None and overflows(state.scaler, loss, any_non_finite(grads))
    taken = not overflow and guard.allows(loss, weight, grads, batch=batch, progress=state.progress, lr=lr)
    if taken:
        clip_gradients(state, plan)
        update_weights(state)
        if state.ema is not None:
            state.ema.update(state.model)
    elif not overflow:
        restore_buffers(state.model, before)
    if state.scaler is not None:
        state.progress.overflows += overflow
        state.scaler.update()
    return StepResult(loss, weight, predicted, batch.targets, taken)


def clip_gradients(state: TrainState, plan: Plan) -> None:
    """Clip the gradients by their norm and by value, where the plan says so."""
    if plan.clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.parameters, plan.clip_grad_norm)
    if plan.clip_grad_value is not None:
        torch.nn.utils.clip_grad_value_(state.parameters, plan.clip_grad_value)


def update_weights(state: TrainState) -> None:
    """Decay the weights where the schedule moves their decay, and take the optimizer's step."""
    if state.decay is not None:
        state.decay.apply()
    take_step(state.optimizer)


def overflows(scaler: torch.amp.GradScaler, loss: Tensor, bad: Tensor) -> bool:
    """Whether the scaled gradients overflowed in fp16: the step is skipped and the scale halved, as GradScaler does.

    At a scale of 1 there is nothing to halve: the gradients themselves are not finite.
    """
    return math.isfinite(loss.item()) and bad.item() != 0 and scaler.get_scale() > 1


def restore_buffers(model: nn.Module, before: Sequence[Tensor]) -> None:
    """Undo the update of batch-norm statistics by a forward pass whose step is skipped."""
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)


def compute_gradients(state: TrainState, plan: Plan, batch: Batch) -> Gradients:
    """Set the gradients of the batch's mean loss: the sum over its pieces, in their order.

    Returns the summed loss (), what divides it to the mean, and the predicted classes (N,), None for values.
    """
    work = partial(sum_over_pieces, state, plan, batch)
    return (
        plan.forward.attempt(work, batch.inputs.shape, stage=state.stage)
        if isinstance(plan.forward, CompiledModel)
        else work()
    )


def sum_over_pieces(state: TrainState, plan: Plan, batch: Batch) -> Gradients:
    """``compute_gradients`` with the forward pass of the plan, whatever it is."""
    zero_gradients(state.parameters, keep=plan.keep_gradients)
    normalizer = loss_normalizer(plan.loss, batch)
    if plan.accumulation_steps == 1:
        seed_layer_noise(plan.seed, state.progress.steps_completed, 0, device=batch.inputs.device)
        loss, predicted = add_gradients(plan, batch, normalizer, scaler=state.scaler)
        return loss, normalizer, predicted
    bounds = piece_bounds(len(batch.targets), min(plan.accumulation_steps, len(batch.targets)))
    norms, tree, done = BatchNorms(state.model), TreeSum(), []
    trained = [parameter for parameter in state.parameters if parameter.requires_grad]
    with norms.collecting():
        for number, piece in own_pieces(batch, bounds, plan.ranks):
            seed_layer_noise(plan.seed, state.progress.steps_completed, number, device=piece.inputs.device)
            loss, predicted = add_gradients(plan, piece, normalizer, scaler=state.scaler)
            done.append(Piece(loss, predicted, norms.statistics()))
            tree.add(Block(number, 1, taken_gradients(trained, keep=plan.keep_gradients)))
    if plan.ranks.size > 1:
        exchange = state.exchange_of(trained, plan.ranks)
        gradients, done = exchange(tree, done, norms, bounds=bounds, predicts=plan.loss.is_classification)
    else:
        gradients = tree.total()
    set_gradients(trained, gradients, keep=plan.keep_gradients)
    norms.apply([piece.statistics for piece in done])
    classes = [piece.predicted for piece in done if piece.predicted is not None]
    return added([piece.loss for piece in done]), normalizer, torch.cat(classes) if classes else None


def add_gradients(
    plan: Plan, piece: Batch, normalizer: Tensor | float, *, scaler: torch.amp.GradScaler | None
) -> tuple[Tensor, Tensor | None]:
    """Add the gradients of a piece to those before. Returns its summed loss () and predicted classes (N,)."""
    outputs = plan.forward(piece.inputs)
    loss = loss_sum(plan.loss, outputs, piece)
    mean = loss / normalizer  # a gradient for ``backward`` in its place would import sympy: 0.3 s
    (mean if scaler is None else scaler.scale(mean)).backward()
    predicted = plan.loss.predicted_classes(outputs.detach()) if plan.loss.is_classification else None
    return loss.detach(), predicted


def zero_gradients(parameters: Sequence[nn.Parameter], *, keep: bool) -> None:
    """Forget the gradients of the step before.

    Args:
        keep: set them to zero instead of freeing them: CUDA graphs own the memory of new ones, and the next piece
            would overwrite what is added up there (pytorch issue 169545).
    """
    for parameter in parameters:
        if not keep:
            parameter.grad = None
        elif parameter.grad is not None:
            parameter.grad.zero_()
        elif parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def taken_gradients(parameters: Sequence[nn.Parameter], *, keep: bool) -> list[Tensor | None]:
    """The gradients, which the parameters have no longer; copies where their memory is kept."""
    gradients = [p.grad.clone() if keep and p.grad is not None else p.grad for p in parameters]
    zero_gradients(parameters, keep=keep)
    return gradients


def set_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], *, keep: bool) -> None:
    """Give the parameters these gradients; in the memory that they have where it is kept."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if keep and parameter.grad is not None and gradient is not None:
            parameter.grad.copy_(gradient)
        else:
            parameter.grad = gradient


def seed_layer_noise(seed: int, step: int, piece: int, *, device: torch.device) -> None:
    """Seed the noise of layers such as dropout for a piece of a step.

    At every step, whatever the layers are: any forward pass may draw noise (stochastic depth, custom layers). It takes
    5 us. The first piece has the seed that a batch in one piece always had.
    """
    seed_default_generators(seed, "dropout", step, *([piece] if piece else []), device=device)


def added(values: Sequence[Tensor]) -> Tensor:
    """The sum, in order."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def lbfgs_step(state: TrainState, plan: Plan, batch: Batch, *, guard: Guard, lr: float) -> StepResult:
    """One step of L-BFGS, which evaluates the loss several times; with the same dropout masks each time."""
    evaluations: list[Gradients] = []
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    buffers = [buffer.clone() for buffer in state.model.buffers()] if plan.skip_limit else []

    def closure() -> Tensor:
        evaluations.append(compute_gradients(state, plan, batch))
        for parameter in state.model.parameters():  # L-BFGS calls .view(-1), which channels-last tensors do not have
            if parameter.grad is not None:
                parameter.grad = parameter.grad.contiguous()
        total, normalizer, _ = evaluations[-1]
        return total / normalizer

    state.optimizer.step(closure)  # type: ignore[arg-type]
    loss, weight, predicted = evaluations[0]
    with torch.no_grad():
        norm = torch.nn.utils.get_total_norm(list(state.model.parameters()))
    if not torch.isfinite(norm + loss):
        # The line search diverged: restore the weights before the guard raises or skips.
        with torch.no_grad():
            copy_(list(state.model.parameters()), before)
        state.optimizer.state.clear()
    taken = guard.allows(loss, weight, [norm], batch=batch, progress=state.progress, lr=lr)
    if not taken:
        restore_buffers(state.model, buffers)
    elif state.ema is not None:
        state.ema.update(state.model)
    return StepResult(loss, weight, predicted, batch.targets, taken)
