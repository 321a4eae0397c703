"""How fast a config trains on this machine, measured with the real training loop; writes a temporary folder only."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trainkit.builders import Setup, build_setup, describe_others, is_convolutional, most_threads
from trainkit.config import LoadedConfig
from trainkit.engine import Guard, Saver, Schedule, train_epoch
from trainkit.runtime import Ranks, processor_name
from trainkit.system import CpuTime, Frontend
from trainkit.workflows.bench.profile import MIN_STEPS, Loop, measure_phases, synchronize
from trainkit.workflows.bench.run import Measurement, Memory, Setting
from trainkit.workflows.check.problems import located
from trainkit.workflows.ranks import stop_together
from trainkit.workflows.train.failures import explained

WINDOWS = 5
"""The measured time is cut into this many windows; the median speed counts, so that other load disturbs less."""
TINY_LR = 1e-8
_OVER = 128
"""What rank 0 sends when the time is over, in the place of the number of a signal."""


class NullRecorder:
    """A recorder and a checkpointer that keep nothing."""

    def log(self, record: Mapping[str, Any]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...
    def save(self, state: dict[str, Any], *, metrics: Mapping[str, float], best: bool) -> None: ...


class Clock:
    """When a part of the measurement is over: after the same step in all processes, as rank 0 says."""

    def __init__(self, ranks: Ranks, frontend: Frontend) -> None:
        self.ranks, self.ends = ranks, math.inf
        self.stop = stop_together(ranks, frontend)
        asked = ranks.signal
        ranks.signal = lambda: asked() or (_OVER if ranks.is_first and time.perf_counter() >= self.ends else 0)

    def start(self, seconds: float) -> None:
        self.ends, self.ranks.stopping = time.perf_counter() + seconds, 0

    def is_over(self) -> bool:
        return time.perf_counter() >= self.ends if self.ranks.size == 1 else self.ranks.stopping == _OVER

    def is_stopped(self) -> bool:
        """Whether a signal asked for a stop."""
        return self.ranks.stopping != _OVER and self.stop()


def measure(
    loaded: LoadedConfig, *, seconds: float = 2.0, ranks: Ranks | None = None, frontend: Frontend | None = None
) -> Measurement:
    """Train for a moment and time it.

    Args:
        seconds: how long to train for, after a warm-up; the phases together take about as long again.
        ranks: the processes that share the batches. Phases are not told apart where there are several.

    Raises:
        UserError: the config or the data are wrong.
        Interrupted: the frontend asked for a stop.
    """
    frontend, ranks = frontend or Frontend(), ranks or Ranks()
    clock = Clock(ranks, frontend)
    at_start = host_megabytes("VmRSS")
    spec = loaded.config.training
    notes: list[str] = []
    since = CpuTime.now()
    with located(loaded):
        setup = replace(build_setup(loaded.config, frontend=frontend), ranks=ranks)
        loop = prepare(setup, say=notes.append)
    if busy := describe_others(since, setup.choices):
        notes.append(busy)
    with explained(batch_size=spec.batch_size):
        compiles = setup.choices["compile"].value != "false"
        compile_seconds = warm_up(loop, clock, seconds=seconds, twice=compiles)
        stamps = train_for(loop, clock, seconds=seconds)
        speeds = window_speeds(stamps)
        speed = statistics.median(speeds)
        memory = Memory(at_start, host_megabytes("VmHWM"), device_megabytes(setup.device))
        step_seconds = spec.batch_size / speed
        phases = {"step": step_seconds * loop.batches.batches_per_epoch}
        if ranks.size == 1:
            phases = measure_phases(loaded, loop, step_seconds=step_seconds, budget=seconds, should_stop=frontend.stop)
    frontend.check("nothing was measured")
    works = compiles and not any("training.compile" in note for note in notes)
    return Measurement(
        setting=Setting(
            precision=setup.precision,
            channels_last=setup.channels_last,
            compile=spec.compile if works or spec.compile == "auto" else False,
            batch_size=spec.batch_size,
            num_threads=int(setup.choices["threads"].value),
        ),
        samples_per_second=speed,
        spread=(min(speeds), max(speeds)),
        steps_measured=len(stamps) - 1,
        epoch_samples=min(loop.batches.num_samples, loop.batches.batches_per_epoch * spec.batch_size),
        epochs=spec.epochs,
        compile_seconds=compile_seconds if works else 0.0,
        memory=memory,
        seconds=phases,
        machine=describe_machine(setup),
        convolutional=is_convolutional(loaded.config),
        notes=[*setup.data.notes, *notes],
    )


def prepare(setup: Setup, *, say: Callable[[str], None]) -> Loop:
    """The real training loop, with a tiny learning rate, so that nothing diverges.

    L-BFGS keeps its own: with a tiny one it would end its iterations early.
    """
    batches = setup.batches("train", training=True)
    state = setup.state(steps_per_epoch=batches.batches_per_epoch)
    plan = setup.plan(say=say)
    guard = Guard(state.model, state.optimizer, skip_limit=plan.skip_limit, scaled=state.scaler is not None)
    if not isinstance(state.optimizer, torch.optim.LBFGS):
        momentum = state.schedule.momentum_at(0)
        main_momentum = None if momentum is None else lambda step: momentum
        state.schedule = Schedule(main_lr=lambda step: TINY_LR, main_momentum=main_momentum)
    return Loop(setup, state, plan, batches, guard)


def warm_up(loop: Loop, clock: Clock, *, seconds: float, twice: bool) -> float:
    """The first steps, with a whole batch and with the epoch's last one, which may be smaller.

    Args:
        twice: do it again, to know the time of a compilation.

    Returns:
        The extra seconds of the first steps, compared with the same steps afterwards.
    """
    batches = loop.batches
    took = []
    loop.state.train()
    for _ in range(2 if twice else 1):
        started = time.perf_counter()
        clock.start(seconds)
        last = batches.epoch(0, start=batches.batches_per_epoch - 1)
        for number, batch in enumerate(itertools.chain(last, itertools.islice(batches.epoch(0), MIN_STEPS))):
            loop.step(batch)
            if number > 0 and clock.is_over():
                break
        synchronize(batch.inputs.device)
        took.append(time.perf_counter() - started)
    return max(0.0, took[0] - took[-1])


def train_for(loop: Loop, clock: Clock, *, seconds: float) -> list[tuple[float, int]]:
    """Epochs of the real loop until the time is over, at least ``MIN_STEPS`` steps.

    Returns:
        (seconds, samples seen) at the start and after each step.
    """
    state, null = loop.state, NullRecorder()
    saver = Saver(state, null, null, every=(1, "epochs"))
    device = loop.setup.device
    synchronize(device)
    progress = state.progress
    clock.start(seconds)
    stamps = [(time.perf_counter(), progress.samples_seen)]
    stopped = False

    def over() -> bool:
        nonlocal stopped
        stamps.append((time.perf_counter(), progress.samples_seen))
        stopped = clock.is_stopped() or (len(stamps) > MIN_STEPS and clock.is_over())
        return stopped

    while not stopped:
        if train_epoch(state, loop.plan, loop.batches, guard=loop.guard, recorder=null, saver=saver, should_stop=over):
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
        # This step fills its window; a rest of less than half a window joins the window before it.
        full = at - start >= length * (len(speeds) + 1) and end - at >= length / 2
        if (full or last) and at > since:
            speeds.append((seen - samples) / (at - since))
            since, samples = at, seen
    return speeds or [math.nan]


def host_megabytes(field: str) -> float:
    """Memory of this process on Linux: VmRSS is the current value, VmHWM the peak. On macOS the peak; else NaN."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        try:
            import resource
        except ImportError:
            return math.nan
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


def device_megabytes(device: torch.device) -> float | None:
    """The peak on the GPU; None without one."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def describe_machine(setup: Setup) -> dict[str, str]:
    """The device and the software that were measured."""
    device = setup.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    threads, most = setup.choices["threads"].value, str(most_threads())
    return {
        "device": str(device),
        "hardware": hardware,
        "threads": threads,
        "most_threads": most,
        "torch": torch.__version__,
    }
