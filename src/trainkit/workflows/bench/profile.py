"""Where the time of an epoch goes, phase by phase."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import torch
from torch import Tensor

from trainkit.builders.setup import Setup
from trainkit.checkpoints.folder import CheckpointFolder, checkpoint_name
from trainkit.config import LoadedConfig
from trainkit.data.loading.workers import WorkerBatches
from trainkit.engine.loop import evaluate
from trainkit.engine.nonfinite import Guard
from trainkit.engine.plan import Batches, Plan, Unit
from trainkit.engine.state import TrainState
from trainkit.engine.step import compute_gradients, train_step
from trainkit.workflows.train.run_info import description

BATCHES_KEPT = 4
"""Batches that the phases of a step are timed on: they lie in memory all at once."""


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
    batches = setup.batches("train", training=True)
    step = data_phases(setup, batches, wait_seconds, budget / 4, should_stop)
    step |= step_phases(state, plan, guard, batches, budget / 2, should_stop)
    scale = step_seconds / sum(step.values()) * batches.batches_per_epoch
    whole = {name: seconds * scale for name, seconds in step.items()}
    if "val" in setup.data.splits:
        val = setup.batches("val")
        whole["validation"] = validation_seconds(state, plan, val, budget / 4, should_stop)
    saves = saves_per_epoch(plan.save_every, batches.batches_per_epoch, epoch_seconds=sum(whole.values()))
    whole["checkpoint"] = saves * checkpoint_seconds(loaded, setup, state)
    return whole


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def data_phases(
    setup: Setup, batches: Batches, wait_seconds: float, budget: float, should_stop: Callable[[], bool]
) -> dict[str, float]:
    """Seconds a batch for gathering and normalising, and for what the random transforms add to that.

    Batches of data workers come while a step is computed: only the time that the loop waits for them counts.
    """
    random = any(hasattr(step, "num_draws") for step in setup.transforms)
    whole = batch_seconds(batches, setup.device, budget / (1 + random), should_stop)
    plain = whole
    if random:
        still = setup.batches("train", training=True, augmented=False)
        plain = min(whole, batch_seconds(still, setup.device, budget / 2, should_stop))
    taken = wait_seconds if isinstance(batches, WorkerBatches) else whole
    found = {"data": taken * plain / whole}
    return {**found, "augment": taken - found["data"]} if random else found


def batch_seconds(batches: Batches, device: torch.device, budget: float, should_stop: Callable[[], bool]) -> float:
    """Mean seconds until the next batch is there, over whole epochs or as much of them as the budget allows."""
    count = 0
    synchronize(device)
    started = time.perf_counter()
    for epoch in itertools.count():
        for _ in batches.epoch(epoch):
            count += 1
            if should_stop() or time.perf_counter() - started > budget:
                break
        if should_stop() or time.perf_counter() - started > budget:
            break
    synchronize(device)
    return (time.perf_counter() - started) / count


def step_phases(
    state: TrainState,
    plan: Plan,
    guard: Guard,
    batches: Batches,
    budget: float,
    should_stop: Callable[[], bool],
) -> dict[str, float]:
    """Seconds a step of forward, backward (with the loss) and optimizer (with clipping, checks and averaging).

    The gradients alone and whole steps are timed in turn, on the same batches, and the middle times are taken.
    """
    device = state.parameters[0].device
    spent = 0.0

    def forward(inputs: Tensor) -> Tensor:
        nonlocal spent
        synchronize(device)
        started = time.perf_counter()
        outputs = plan.forward(inputs)
        synchronize(device)
        spent += time.perf_counter() - started
        return outputs

    watched = replace(plan, forward=forward)
    times: dict[str, list[float]] = {"forward": [], "gradients": [], "step": []}
    state.model.train()
    ended = time.perf_counter() + budget
    for batch in itertools.cycle(list(itertools.islice(batches.epoch(0), BATCHES_KEPT))):
        spent, started = 0.0, time.perf_counter()
        compute_gradients(state, watched, batch)
        synchronize(device)
        times["gradients"].append(time.perf_counter() - started)
        times["forward"].append(spent)
        started = time.perf_counter()
        train_step(state, plan, batch, guard=guard, lr=state.learning_rate())
        synchronize(device)
        times["step"].append(time.perf_counter() - started)
        if should_stop() or (len(times["step"]) >= 3 and time.perf_counter() > ended):
            break
    forwards, gradients, steps = (statistics.median(values) for values in times.values())
    return {
        "forward": forwards,
        "backward": max(0.0, gradients - forwards),
        "optimizer": max(0.0, steps - gradients),
    }


def validation_seconds(
    state: TrainState, plan: Plan, val: Batches, budget: float, should_stop: Callable[[], bool]
) -> float:
    """Of a whole validation: from as many batches as the budget allows, after one that only warms up."""

    def run(over: Callable[[float, int], bool]) -> tuple[float, int]:
        count = 0
        started = time.perf_counter()

        def stop() -> bool:
            nonlocal count
            count += 1
            return should_stop() or over(time.perf_counter() - started, count)

        whole = evaluate(state.eval_model, plan, val, should_stop=stop) is not None
        synchronize(state.parameters[0].device)
        return time.perf_counter() - started, count if whole else count - 1

    run(lambda seconds, count: count > 1)
    seconds, count = run(lambda seconds, count: seconds > budget and count > 1)
    return seconds / max(1, count) * val.batches_per_epoch


def checkpoint_seconds(loaded: LoadedConfig, setup: Setup, state: TrainState) -> float:
    """Of one save, durable and checked, into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="trainkit-bench-") as folder:
        checkpoints = CheckpointFolder(folder)
        name = checkpoint_name(loaded.name, when=datetime.now(), epoch=0, metric="loss", value=None)
        started = time.perf_counter()
        checkpoints.save(
            {**description(loaded, setup), **state.state_dict()},
            name=name,
            step=0,
            epoch=0,
            score=None,
            best=False,
            keep_last=1,
        )
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
