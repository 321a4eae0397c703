"""The training loop: epochs of steps, validation, the best checkpoint, early stopping."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine.averages import recompute_statistics
from trainkit.engine.nonfinite import Guard
from trainkit.engine.plan import Batches, Plan
from trainkit.engine.records import Checkpointer, Recorder, Saver, epoch_record, step_record
from trainkit.engine.state import EpochTotals, Progress, TrainState
from trainkit.engine.step import StepResult, train_step
from trainkit.errors import SharedError
from trainkit.runtime import forward

Outcome = Literal["finished", "early stopping", "interrupted"]
# Losses and predicted classes of this many steps are kept on the device and summed in one go: one sync instead of many.
STEPS_BETWEEN_SUMS = 64


def fit(
    state: TrainState,
    plan: Plan,
    *,
    train: Batches,
    val: Batches | None,
    recorder: Recorder,
    checkpointer: Checkpointer,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Train until the last epoch, early stopping, or a request to stop, which is obeyed after the running step.

    ``train`` and ``val`` yield batches on the model's device. A checkpoint is saved before this returns.
    """
    progress = state.progress
    guard = Guard(
        state.model,
        state.optimizer,
        skip_limit=plan.skip_limit,
        scaled=state.scaler is not None,
        loss_unit=plan.loss.unit,
    )
    saver = Saver(state, recorder, checkpointer, every=plan.save_every)
    while progress.epochs_completed < plan.epochs and not state.stopped_early:
        if not train_epoch(state, plan, train, guard=guard, recorder=recorder, saver=saver, should_stop=should_stop):
            saver.save()
            return "interrupted"
        metrics = {"train_loss": state.totals.mean_loss}
        loss_max = state.totals.loss_max
        if plan.loss.is_classification:
            metrics["train_accuracy"] = state.totals.accuracy
        if not refresh_average(state, plan, train, should_stop=should_stop):
            saver.save()
            return "interrupted"
        if val is not None:
            started = time.perf_counter()
            validation = evaluate(plan.part_of(state.eval_model), plan, val, should_stop=should_stop)
            progress.validation_seconds += time.perf_counter() - started
            if validation is None:
                saver.save()
                return "interrupted"
            metrics |= {f"val_{name}": value for name, value in validation.items()}

        state.complete_epoch()
        improved = state.update_monitors(metrics)
        last = progress.epochs_completed == plan.epochs or state.stopped_early
        recorder.log(epoch_record(state, metrics, loss_max=loss_max, improved=improved, mixed=plan.mixed))
        stop = should_stop()  # called once, so that a stop that ends the run has also saved it
        if improved or last or saver.due_after_epoch() or stop:
            saver.save(metrics, best=improved)
        if stop and not last:
            return "interrupted"
    return "early stopping" if state.stopped_early else "finished"


def train_epoch(
    state: TrainState,
    plan: Plan,
    train: Batches,
    *,
    guard: Guard,
    recorder: Recorder,
    saver: Saver,
    should_stop: Callable[[], bool],
) -> bool:
    """Train on the rest of the current epoch. Returns whether it was completed; False after a stop before its end."""
    progress = state.progress
    kept: list[StepResult] = []
    completed = False
    started = time.perf_counter()
    state.train()
    step = train_step if plan.step is None else plan.step
    batches = train.epoch(progress.epochs_completed, start=progress.batches_completed)
    for batch in timed(batches, progress):
        lr = state.follow_schedule()
        kept.append(step(state, plan, batch, guard=guard, lr=lr))
        progress.batches_completed += 1
        progress.steps_completed += 1
        progress.samples_seen += len(batch.targets)
        if state.swa is not None:
            state.swa.update(state.model, step=progress.steps_completed)

        log = progress.steps_completed % plan.log_every == 0
        save = saver.due_after_step()
        if log or save or len(kept) == STEPS_BETWEEN_SUMS:
            guard.flush()  # a sync point, like the two below
            means = add_up(state.totals, kept, unit=plan.loss.unit)
            if log:
                compare_ranks(state, plan)
                recorder.log(step_record(state, loss=means[-1], lr=lr, classes=plan.loss.is_classification))
            kept.clear()
        if save:
            progress.train_seconds += time.perf_counter() - started
            saver.save()
            started = time.perf_counter()
        if should_stop():
            break
    else:
        completed = True
    guard.flush()
    add_up(state.totals, kept, unit=plan.loss.unit)
    progress.train_seconds += time.perf_counter() - started
    return completed


def refresh_average(state: TrainState, plan: Plan, train: Batches, *, should_stop: Callable[[], bool]) -> bool:
    """Give the mean of the weights the batch-norm statistics of the epoch's training batches, where it lacks them.

    Returns whether it has them; False after a stop on the way. A function of the epoch, so a resumed run has the same.
    """
    swa, stopped = state.swa, False
    if swa is None or swa.num_averaged == 0 or swa.is_fresh:
        return True

    def batches() -> Iterator[Batch]:
        nonlocal stopped
        for batch in train.epoch(state.progress.epochs_completed):
            if stopped := should_stop():
                return
            yield batch

    started = time.perf_counter()
    work, (averaged, trained) = partial(forward, precision=plan.precision), map(plan.part_of, (swa.model, state.model))
    recompute_statistics(averaged, batches(), work, trained=trained, pieces=plan.accumulation_steps, ranks=plan.ranks)
    state.progress.validation_seconds += time.perf_counter() - started
    swa.is_fresh = not stopped
    return swa.is_fresh


def compare_ranks(state: TrainState, plan: Plan) -> None:
    """See that all processes of the run have the same weights.

    Raises:
        SharedError: one has others, so that their results have no meaning any more.
    """
    rank = plan.ranks.differing([*state.parameters, *state.model.buffers()])
    if rank is not None:
        raise SharedError(
            f"rank {rank} differs from rank 0 at step {state.progress.steps_completed}: a layer that draws or counts "
            "outside of the pieces, or a faulty processor; the checkpoints saved so far are intact"
        )


def timed(batches: Iterator[Batch], progress: Progress) -> Iterator[Batch]:
    """The same batches; the time that the host waits for them is added to ``progress.data_seconds``."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        progress.data_seconds += time.perf_counter() - started
        if batch is None:
            return
        yield batch


def add_up(totals: EpochTotals, kept: Sequence[StepResult], *, unit: float = 1.0) -> list[float]:
    """Add the kept steps to the epoch's sums, one after the other: where the sums are taken does not change them.

    Returns the mean loss of each step, skipped ones included. One sync for the losses, one for the counts.

    Args:
        unit: of the loss.
    """
    if not kept:
        return []
    sums, weights = torch.stack([step.loss for step in kept]), [step.weight for step in kept]
    if any(isinstance(weight, Tensor) for weight in weights):
        divisors = torch.stack([w if isinstance(w, Tensor) else sums.new_tensor(w) for w in weights])
    else:
        divisors = sums.new_tensor(weights)
    means = [mean * unit for mean in (sums / divisors).tolist()]
    for step, value, weight in zip(kept, means, divisors.tolist(), strict=True):
        if step.taken:
            totals.loss_sum += value * weight
            totals.weight_sum += weight
            totals.loss_max = max(totals.loss_max, value)
            totals.num_samples += len(step.targets)
    pairs = [(step.predicted, step.targets) for step in kept if step.taken and step.predicted is not None]
    if pairs:
        predicted, targets = map(torch.cat, zip(*pairs, strict=True))
        totals.num_correct += int(torch.count_nonzero(predicted == targets).item())
    return means


def outputs_of(model: nn.Module, plan: Plan, batches: Batches) -> Iterator[tuple[Tensor, Batch]]:
    """The model's outputs for each batch, in order; of several processes, each computes one batch of each round."""
    size = plan.ranks.size
    running = batches.epoch(0)
    while turn := list(itertools.islice(running, size)):
        mine = turn[min(plan.ranks.rank, len(turn) - 1)].inputs
        if len(mine) or size == 1:
            outputs = forward(model, mine, precision=plan.precision)
        else:  # the last round has fewer batches
            outputs = forward(model, mine.new_zeros(1, *mine.shape[1:]), precision=plan.precision)[:0]
        yield from zip(plan.ranks.gather_rows(outputs, [len(batch.targets) for batch in turn]), turn, strict=True)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    plan: Plan,
    batches: Batches,
    *,
    should_stop: Callable[[], bool],
    keep: Callable[[Tensor], None] = lambda outputs: None,
) -> dict[str, float] | None:
    """Loss and metrics over all samples: sums and counts, divided once. None if stopped on the way.

    Args:
        keep: called with the outputs of each batch: float32 (N, ...), on the device.
    """
    model.eval()
    metrics = plan.new_metrics()
    sums: Tensor | None = None
    for number, (outputs, batch) in enumerate(outputs_of(model, plan, batches)):
        if should_stop():
            return None
        keep(outputs)
        if sums is None:
            # One tensor for all batches: many small ones would fragment the memory between the activations (a
            # validation of the MNIST CNN took 62 to 114 MB, and takes 19 to 30).
            sums = outputs.new_zeros(2, batches.batches_per_epoch)
        sums[0, number] = plan.loss.sum(outputs, batch.targets, batch.weights)
        sums[1, number] = plan.loss.normalizer(batch.targets, batch.weights)
        metrics.update(plan.loss.predictions(outputs), batch.targets)
    assert sums is not None, "an empty split"
    loss, weight = (sum(values) for values in sums.tolist())
    # As in PyTorch: without a weight above 0 there is no mean.
    return {"loss": loss / weight * plan.loss.unit if weight else math.nan, **metrics.compute()}
