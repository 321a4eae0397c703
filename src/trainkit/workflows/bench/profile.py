"""Where the time of an epoch goes, phase by phase."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainkit.builders import Setup
from trainkit.checkpoints import CheckpointFolder
from trainkit.config import LoadedConfig
from trainkit.data.loading import WorkerBatches
from trainkit.engine import Batches, Guard, Plan, TrainState, Unit, compute_gradients, evaluate, train_step
from trainkit.workflows.train.recording import RunCheckpointer
from trainkit.workflows.train.run_info import description

BATCHES_KEPT = 4
"""Batches that the phases of a step are timed on: they lie in memory all at once."""
MIN_STEPS = 3


def measure_phases(
    loaded: LoadedConfig,
    setup: Setup,
    state: TrainState,
    plan: Plan,
    guard: Guard,
    *,
    step_seconds: float,
    wait_seconds: float,
    budget: float,
    should_stop: Callable[[], bool],
) -> dict[str, float]:
    """Seconds of an epoch by phase: data, augment, forward, backward, optimizer, validation, checkpoint.

    Phases of a step are timed one by one and scaled so that together they take what a step of the real loop takes.
    ``augment`` and ``validation`` are left out where there is none.

    Args:
        step_seconds: of a whole step of the real loop.
        wait_seconds: how long a step of it waited for its batch.
        budget: seconds that this may take, roughly; checkpoint apart.
    """

    def limit(seconds: float) -> Callable[[], bool]:
        """Whether this time is over, or a stop was asked for."""
        ended = time.perf_counter() + seconds
        return lambda: should_stop() or time.perf_counter() > ended

    batches = setup.batches("train", training=True)
    step = data_phases(setup, batches, wait_seconds, lambda: limit(budget / 8))
    step |= step_phases(state, plan, guard, batches, limit(budget / 2))
    scale = step_seconds / sum(step.values()) * batches.batches_per_epoch
    whole = {name: seconds * scale for name, seconds in step.items()}
    if "val" in setup.data.splits:
        whole["validation"] = validation_seconds(state, plan, setup.batches("val"), limit(budget / 4))
    saves = saves_per_epoch(plan.save_every, batches.batches_per_epoch, epoch_seconds=sum(whole.values()))
    whole["checkpoint"] = saves * checkpoint_seconds(loaded, setup, state)
    return whole


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def data_phases(
    setup: Setup, batches: Batches, wait_seconds: float, limit: Callable[[], Callable[[], bool]]
) -> dict[str, float]:
    """Seconds a batch for gathering and normalizing, and for what the random transforms add to that.

    Batches of data workers come while a step is computed: only the time that the loop waits for them counts.
    """
    whole = batch_seconds(batches, setup.device, limit())
    taken = wait_seconds if isinstance(batches, WorkerBatches) else whole
    if not any(hasattr(step, "num_draws") for step in setup.transforms):
        return {"data": taken}
    plain = batch_seconds(setup.batches("train", training=True, augmented=False), setup.device, limit())
    data = taken * min(1.0, plain / whole)
    return {"data": data, "augment": taken - data}


def batch_seconds(batches: Batches, device: torch.device, over: Callable[[], bool]) -> float:
    """Mean seconds until the next batch is there, over whole epochs or as much of them as the time allows."""
    count = 0
    synchronize(device)
    started = time.perf_counter()
    for _ in itertools.chain.from_iterable(map(batches.epoch, itertools.count())):
        count += 1
        if over():
            break
    synchronize(device)
    return (time.perf_counter() - started) / count


def step_phases(
    state: TrainState, plan: Plan, guard: Guard, batches: Batches, over: Callable[[], bool]
) -> dict[str, float]:
    """Seconds a step of forward, backward (with the loss) and optimizer (with clipping, checks and averaging).

    The gradients alone and whole steps are timed in turn, on the same batches, and the middle times are taken.
    """
    device = state.parameters[0].device
    forward_seconds = 0.0

    def timed_forward(inputs: Tensor) -> Tensor:
        nonlocal forward_seconds
        synchronize(device)
        started = time.perf_counter()
        outputs = plan.forward(inputs)
        synchronize(device)
        forward_seconds += time.perf_counter() - started
        return outputs

    timed_plan = replace(plan, forward=timed_forward)
    times: list[tuple[float, float, float]] = []
    state.model.train()
    for batch in itertools.cycle(list(itertools.islice(batches.epoch(0), BATCHES_KEPT))):
        forward_seconds, started = 0.0, time.perf_counter()
        compute_gradients(state, timed_plan, batch)
        synchronize(device)
        between = time.perf_counter()
        train_step(state, plan, batch, guard=guard, lr=state.learning_rate())
        synchronize(device)
        times.append((forward_seconds, between - started, time.perf_counter() - between))
        if over() and len(times) >= MIN_STEPS:
            break
    forward, gradients, step = map(statistics.median, zip(*times, strict=True))
    return {
        "forward": forward,
        "backward": max(0.0, gradients - forward),
        "optimizer": max(0.0, step - gradients),
    }


def validation_seconds(state: TrainState, plan: Plan, val: Batches, over: Callable[[], bool]) -> float:
    """Of a whole validation: from as many batches as the time allows, after one that only warms up."""
    device = state.parameters[0].device
    asked = 0

    def stop() -> bool:
        """``evaluate`` asks before each batch."""
        nonlocal asked
        asked += 1
        return asked > 1 and over()

    calls = itertools.count()
    evaluate(state.eval_model, plan, val, should_stop=lambda: next(calls) > 0)
    synchronize(device)
    started = time.perf_counter()
    whole = evaluate(state.eval_model, plan, val, should_stop=stop) is not None
    synchronize(device)
    seconds = time.perf_counter() - started
    return seconds / (asked if whole else asked - 1) * val.batches_per_epoch


def checkpoint_seconds(loaded: LoadedConfig, setup: Setup, state: TrainState) -> float:
    """Of one save, durable and checked, into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="trainkit-bench-") as folder:
        described = description(loaded, setup)
        checkpointer = RunCheckpointer(CheckpointFolder(folder), described, monitor=setup.monitor, keep_last=1)
        started = time.perf_counter()
        checkpointer.save(state.state_dict(), metrics={}, best=False)
        return time.perf_counter() - started


def saves_per_epoch(every: tuple[int, Unit], batches_per_epoch: int, *, epoch_seconds: float) -> float:
    """Checkpoints of an epoch by ``checkpoint.every``; with epochs, one that is the best yet each time."""
    interval, unit = every
    match unit:
        case "steps":
            return batches_per_epoch / interval
        case "minutes":
            return epoch_seconds / (60 * interval)
        case _:
            return 1.0
