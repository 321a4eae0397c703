"""How fast a config trains on this machine, measured with the real training loop; writes a temporary folder only."""

from __future__ import annotations

import itertools
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trainkit.builders import Setup, build_setup, is_convolutional
from trainkit.config import LoadedConfig
from trainkit.engine import Batches, Guard, Plan, Saver, TrainState, compiled, train_epoch, train_step
from trainkit.system import Frontend
from trainkit.workflows.bench.measurement import Measurement, Memory, Setting
from trainkit.workflows.bench.profile import MIN_STEPS, measure_phases, synchronize
from trainkit.workflows.check.problems import located
from trainkit.workflows.train.failures import explained

WINDOWS = 5
"""The measured time is cut into so many pieces: the middle one counts, whatever else the machine did in the others."""
TINY_LR = 1e-8
"""Nothing diverges while it is measured."""


class NullRecorder:
    """A recorder and a checkpointer that keep nothing."""

    def log(self, record: Mapping[str, Any]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...
    def save(self, state: dict[str, Any], *, metrics: Mapping[str, float], best: bool) -> None: ...


def measure(
    loaded: LoadedConfig,
    *,
    seconds: float = 2.0,
    frontend: Frontend | None = None,
) -> Measurement:
    """Train for a moment and time it.

    Args:
        seconds: how long to train for, after a warm-up; the phases together take about as long again.

    Raises:
        UserError: the config or the data are wrong.
        Interrupted: the frontend asked for a stop.
    """
    frontend = frontend or Frontend()
    at_start = host_megabytes("VmRSS")
    with located(loaded):
        setup = build_setup(loaded.config, frontend=frontend)
        batches = setup.batches("train", training=True)
        state = setup.state(steps_per_epoch=batches.batches_per_epoch)
    mode = loaded.config.training.compile
    notes: list[str] = []
    plan = setup.plan(compiled(setup.model, mode, say=notes.append))
    guard = Guard(state.model, state.optimizer, skip_limit=plan.skip_limit, scaled=state.scaler is not None)
    freeze_learning_rate(state)
    with explained(batch_size=loaded.config.training.batch_size):
        compile_seconds = warm_up(state, plan, batches, guard, seconds=seconds, twice=mode is not False)
        stamps = train_for(state, plan, batches, guard, seconds=seconds, should_stop=frontend.stop)
        speeds = window_speeds(stamps)
        size = loaded.config.training.batch_size
        samples = min(batches.num_samples, batches.batches_per_epoch * size)
        memory = Memory(at_start, host_megabytes("VmHWM"), device_megabytes(setup.device))
        phases = measure_phases(
            loaded,
            setup,
            state,
            plan,
            guard,
            step_seconds=size / statistics.median(speeds),
            wait_seconds=state.progress.data_seconds / max(1, state.progress.steps_completed),
            budget=seconds,
            should_stop=frontend.stop,
        )
    frontend.check("nothing was measured")
    works = not any("torch.compile failed" in note for note in notes)
    return Measurement(
        setting=Setting(
            precision=setup.precision,
            channels_last=setup.channels_last,
            compile=mode if works else False,
            batch_size=size,
        ),
        samples_per_second=statistics.median(speeds),
        spread=(min(speeds), max(speeds)),
        steps_measured=len(stamps) - 1,
        epoch_samples=samples,
        epochs=loaded.config.training.epochs,
        compile_seconds=compile_seconds if works else 0.0,
        memory=memory,
        seconds=phases,
        machine=describe(setup),
        convolutional=is_convolutional(loaded.config),
        notes=[*setup.data.notes, *notes],
    )


def freeze_learning_rate(state: TrainState) -> None:
    """A learning rate that changes next to nothing; but L-BFGS would end its iterations early, and keeps its own."""
    if isinstance(state.optimizer, torch.optim.LBFGS):
        return
    momentum = state.schedule.momentum_at(0)
    state.schedule = replace(
        state.schedule,
        main_lr=lambda step: TINY_LR,
        main_momentum=None if momentum is None else lambda step: momentum,
        warmup_steps=0,
    )


def warm_up(state: TrainState, plan: Plan, batches: Batches, guard: Guard, *, seconds: float, twice: bool) -> float:
    """The first steps, with a whole batch and with the epoch's last one, which may be smaller.

    Args:
        twice: do it again, to know what a compilation took.

    Returns:
        The seconds by which the first steps took longer than the same ones afterwards.
    """
    took = []
    state.model.train()
    for _ in range(2 if twice else 1):
        started = time.perf_counter()
        last = batches.epoch(0, start=batches.batches_per_epoch - 1)
        for number, batch in enumerate(itertools.chain(last, itertools.islice(batches.epoch(0), MIN_STEPS))):
            train_step(state, plan, batch, guard=guard, lr=state.learning_rate())
            if number > 0 and time.perf_counter() - started > seconds:
                break
        synchronize(batch.inputs.device)
        took.append(time.perf_counter() - started)
    return max(0.0, took[0] - took[-1])


def train_for(
    state: TrainState,
    plan: Plan,
    batches: Batches,
    guard: Guard,
    *,
    seconds: float,
    should_stop: Callable[[], bool],
) -> list[tuple[float, int]]:
    """Epochs of the real loop until the time is over, at least ``MIN_STEPS`` steps.

    Returns:
        When each step was done and how many samples had been seen then, from the start on.
    """
    null = NullRecorder()
    saver = Saver(state, null, null, every=(1, "epochs"))
    device = state.parameters[0].device
    synchronize(device)
    progress = state.progress
    stamps = [(time.perf_counter(), progress.samples_seen)]
    stopped = False

    def over() -> bool:
        nonlocal stopped
        now = time.perf_counter()
        stamps.append((now, progress.samples_seen))
        stopped = should_stop() or (len(stamps) > MIN_STEPS and now - stamps[0][0] >= seconds)
        return stopped

    while not stopped:
        whole = train_epoch(state, plan, batches, guard=guard, recorder=null, saver=saver, should_stop=over)
        if whole:
            state.complete_epoch()
    synchronize(device)
    stamps[-1] = (time.perf_counter(), progress.samples_seen)
    return stamps


def window_speeds(stamps: Sequence[tuple[float, int]], *, windows: int = WINDOWS) -> list[float]:
    """Samples a second in windows of about equal length, each with one step at least."""
    (start, _), (end, _) = stamps[0], stamps[-1]
    length = (end - start) / windows
    speeds: list[float] = []
    since, samples = stamps[0]
    for at, seen in stamps[1:]:
        last = at == end
        # The window that this step falls into is full; a rest of less than half a window is no window of its own.
        full = at - start >= length * (len(speeds) + 1) and end - at >= length / 2
        if (full or last) and at > since:
            speeds.append((seen - samples) / (at - since))
            since, samples = at, seen
    return speeds or [math.nan]


def host_megabytes(field: str) -> float:
    """Memory of this process as Linux counts it: VmRSS now, VmHWM at its peak. Elsewhere the peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


def device_megabytes(device: torch.device) -> float | None:
    """The accelerator's peak; None where that is not known, or the host's memory is all there is."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def describe(setup: Setup) -> dict[str, str]:
    """What was measured on."""
    device = setup.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    threads = setup.choices["threads"].value
    return {"device": str(device), "hardware": hardware, "threads": threads, "torch": torch.__version__}


def processor_name() -> str:
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
