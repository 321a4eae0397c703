"""Where the time of an epoch goes, phase by phase."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainkit.builders import Setup
from trainkit.checkpoints import CheckpointFolder
from trainkit.config import LoadedConfig
from trainkit.data.loading import Batch
from trainkit.engine import Batches, Guard, Plan, TrainState, Unit, compute_gradients, evaluate, train_step
from trainkit.workflows.train.recording import RunCheckpointer, description

BATCHES_KEPT = 4
"""Batches on which the phases of a step are timed: they are in memory all at once."""
MIN_STEPS = 3


@dataclass(frozen=True)
class Loop:
    """A training loop to be timed."""

    setup: Setup
    state: TrainState
    plan: Plan
    batches: Batches
    """Of training."""
    guard: Guard

    def step(self, batch: Batch) -> None:
        """One step of the real loop."""
        step = train_step if self.plan.step is None else self.plan.step
        step(self.state, self.plan, batch, guard=self.guard, lr=self.state.learning_rate())


def measure_phases(
    loaded: LoadedConfig, loop: Loop, *, step_seconds: float, budget: float, should_stop: Callable[[], bool]
) -> dict[str, float]:
    """Seconds of an epoch by phase: data, augment, forward, backward, optimizer (or step), validation, checkpoint.

    Phases of a step are timed one by one and scaled, so that their sum is ``step_seconds``. ``augment`` and
    ``validation`` are left out where there is none.

    Args:
        step_seconds: of a whole step of the real loop, which has run already.
        budget: seconds that this may take, roughly; checkpoint apart.
    """

    def limit(seconds: float) -> Callable[[], bool]:
        """A function that returns whether this time is over, or a stop was asked for."""
        ended = time.perf_counter() + seconds
        return lambda: should_stop() or time.perf_counter() > ended

    setup = loop.setup
    step = data_phases(loop, lambda: limit(budget / 8)) | step_phases(loop, limit(budget / 2))
    num_batches = loop.batches.batches_per_epoch
    scale = step_seconds / sum(step.values()) * num_batches
    epoch = {name: seconds * scale for name, seconds in step.items()}
    if "val" in setup.data.splits:
        epoch["validation"] = validation_seconds(loop, setup.batches("val"), limit(budget / 4))
    saves = saves_per_epoch(loop.plan.save_every, num_batches, epoch_seconds=sum(epoch.values()))
    epoch["checkpoint"] = saves * checkpoint_seconds(loaded, loop)
    return epoch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def data_phases(loop: Loop, limit: Callable[[], Callable[[], bool]]) -> dict[str, float]:
    """Seconds a batch for gathering and normalizing, and for the random transforms on top.

    Data workers prepare batches during a step: of theirs, only the time that the loop waits for them counts.
    """
    setup, progress = loop.setup, loop.state.progress
    whole = batch_seconds(loop.batches, setup.device, limit())
    waiting = progress.data_seconds / max(1, progress.steps_completed)
    taken = waiting if setup.residency.value == "workers" else whole
    random = setup.config.training.mix is not None or any(hasattr(one, "num_draws") for one in setup.transforms)
    if not random or setup.data.own_sizes:  # without their crop, images of their own sizes make no batch
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


def step_phases(loop: Loop, over: Callable[[], bool]) -> dict[str, float]:
    """Seconds a step of forward, backward (with the loss) and optimizer (with clipping, checks and averaging).

    The gradients alone and whole steps are timed in turn, on the same batches, and the middle times are taken. A step
    that is one CUDA graph has no parts.
    """
    plan, device = loop.plan, loop.setup.device
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
    loop.state.train()
    for batch in itertools.cycle(list(itertools.islice(loop.batches.epoch(0), BATCHES_KEPT))):
        forward_seconds, started = 0.0, time.perf_counter()
        if plan.step is None:
            compute_gradients(loop.state, timed_plan, batch)
        synchronize(device)
        between = time.perf_counter()
        loop.step(batch)
        synchronize(device)
        times.append((forward_seconds, between - started, time.perf_counter() - between))
        if over() and len(times) >= MIN_STEPS:
            break
    forward, gradients, step = map(statistics.median, zip(*times, strict=True))
    if plan.step is not None:
        return {"step": step}
    return {
        "forward": forward,
        "backward": max(0.0, gradients - forward),
        "optimizer": max(0.0, step - gradients),
    }


def validation_seconds(loop: Loop, val: Batches, over: Callable[[], bool]) -> float:
    """Of a whole validation: from as many batches as the time allows, after one that only warms up."""
    model, plan, device = loop.state.eval_model, loop.plan, loop.setup.device
    calls = 0

    def stop() -> bool:
        """``evaluate`` calls it before each batch."""
        nonlocal calls
        calls += 1
        return calls > 1 and over()

    numbers = itertools.count()
    evaluate(model, plan, val, should_stop=lambda: next(numbers) > 0)
    synchronize(device)
    started = time.perf_counter()
    whole = evaluate(model, plan, val, should_stop=stop) is not None
    synchronize(device)
    seconds = time.perf_counter() - started
    return seconds / (calls if whole else calls - 1) * val.batches_per_epoch


def checkpoint_seconds(loaded: LoadedConfig, loop: Loop) -> float:
    """Of one save, durable and checked, into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="trainkit-bench-") as folder:
        checkpointer = RunCheckpointer(
            CheckpointFolder(folder), description(loaded, loop.setup), monitor=loop.setup.monitor, keep_last=1
        )
        started = time.perf_counter()
        checkpointer.save(loop.state.state_dict(), metrics={}, best=False)
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
