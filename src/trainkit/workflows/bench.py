"""``trainkit bench``: how fast a config trains, where the time goes, and what would make it faster. Changes no run."""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from trainkit.build.model import is_convolutional
from trainkit.build.training import build_state
from trainkit.checkpoints.folder import CheckpointFolder, checkpoint_name
from trainkit.config import LoadedConfig
from trainkit.data.batches import Batch
from trainkit.engine import Plan, compute_gradients, evaluate, train_step
from trainkit.guard import Guard
from trainkit.state import TrainState
from trainkit.workflows.compilation import compiled
from trainkit.workflows.experiment import Experiment, located, prepare_experiment
from trainkit.workflows.saving import description
from trainkit.workflows.scoring import plan_for

WARMUP_STEPS = 5


@dataclass(frozen=True)
class Measurement:
    """The speed of a config on this machine; seconds are those of a whole epoch, extrapolated from a part of it."""

    samples_per_second: float
    """Of training alone, without validation and checkpoints."""
    steps_measured: int
    seconds: dict[str, float]
    """By phase: data, augment, forward, backward, optimizer, validation, checkpoint."""
    peak_megabytes: float
    """Of the process (host), or of the accelerator where one is used."""
    choices: dict[str, str]


@dataclass(frozen=True)
class Trial:
    """One combination, measured in a process of its own."""

    overrides: tuple[str, ...]
    measurement: Measurement | None
    error: str | None = None


def measure(loaded: LoadedConfig, *, budget_seconds: float = 3.0) -> Measurement:
    """Train for a moment and time it. Writes into a temporary folder only.

    Args:
        budget_seconds: for each of the parts: whole steps, steps by phase, batches, validation.
    """
    with located(loaded):
        experiment = prepare_experiment(loaded.config)
        batches = experiment.batches("train", training=True)
        state = build_state(
            loaded.config,
            experiment.model,
            monitor=experiment.monitor,
            steps_per_epoch=batches.batches_per_epoch,
            device=experiment.device,
            precision=experiment.precision,
        )
    plan = plan_for(experiment, compiled(experiment.model, loaded.config.training.compile, say=warn))
    guard = Guard(state.model, state.optimizer, skip_limit=0)
    lr = 1e-8  # nothing diverges while it is measured
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.model.train()

    def step(batch: Batch) -> None:
        train_step(state, plan, batch, guard=guard, lr=lr)

    for batch in itertools.islice(endless(experiment), WARMUP_STEPS):
        step(batch)
    samples, steps, seconds = timed_loop(endless(experiment), step, experiment.device, budget_seconds)
    per_epoch = batches.batches_per_epoch
    phases = time_data(experiment, budget_seconds / 2)
    phases |= time_step_phases(experiment, state, plan, guard, lr, budget_seconds)
    phases |= time_validation(experiment, plan, budget_seconds)
    phases["checkpoint"] = time_checkpoint(loaded, experiment, state)
    whole = {name: value * per_epoch if name in PER_STEP else value for name, value in phases.items()}
    return Measurement(
        samples_per_second=samples / seconds,
        steps_measured=steps,
        seconds=whole,
        peak_megabytes=peak_megabytes(experiment.device),
        choices={name: choice.value for name, choice in experiment.choices.items()},
    )


PER_STEP = ("data", "augment", "forward", "backward", "optimizer")


def endless(experiment: Experiment) -> Iterator[Batch]:
    """Training batches, epoch after epoch."""
    batches = experiment.batches("train", training=True)
    for epoch in itertools.count():
        yield from batches.epoch(epoch)


def warn(message: str) -> None:
    print(message, file=sys.stderr)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed_loop(
    batches: Iterator[Batch], work: Callable[[Batch], object], device: torch.device, budget: float
) -> tuple[int, int, float]:
    """Samples, steps and seconds of as many batches as fit into the budget, but at least three."""
    samples = steps = 0
    synchronize(device)
    started = time.perf_counter()
    for batch in batches:
        work(batch)
        samples, steps = samples + len(batch.targets), steps + 1
        if steps >= 3 and time.perf_counter() - started > budget:
            break
    synchronize(device)
    return samples, steps, time.perf_counter() - started


def time_data(experiment: Experiment, budget: float) -> dict[str, float]:
    """Seconds a batch for gathering and normalising, and for what the random transforms add."""
    _, steps, seconds = timed_loop(endless(experiment), lambda batch: None, experiment.device, budget)
    if not any(hasattr(step, "num_draws") for step in experiment.steps):
        return {"data": seconds / steps}
    size = experiment.config.training.batch_size
    still = experiment.batches("train", training=False)
    samples, _, plain = timed_loop(
        itertools.chain.from_iterable(still.epoch(0) for _ in itertools.count()),
        lambda batch: None,
        experiment.device,
        budget,
    )
    data = plain / samples * size
    return {"data": data, "augment": max(0.0, seconds / steps - data)}


def time_step_phases(
    experiment: Experiment, state: TrainState, plan: Plan, guard: Guard, lr: float, budget: float
) -> dict[str, float]:
    """Seconds a step of forward, backward and optimizer: differences of steps that stop after each."""

    def forward(batch: Batch) -> None:
        with plan.autocast():
            outputs = plan.forward(batch.inputs)
        plan.loss.mean(outputs.float(), batch.targets)

    batches = list(itertools.islice(endless(experiment), 32))
    parts = (
        forward,
        lambda batch: compute_gradients(state, plan, batch),
        lambda batch: train_step(state, plan, batch, guard=guard, lr=lr),
    )
    times = []
    for work in parts:
        _, steps, seconds = timed_loop(itertools.cycle(batches), work, experiment.device, budget / 3)
        times.append(seconds / steps)
    return {
        "forward": times[0],
        "backward": max(0.0, times[1] - times[0]),
        "optimizer": max(0.0, times[2] - times[1]),
    }


def time_validation(experiment: Experiment, plan: Plan, budget: float) -> dict[str, float]:
    if "val" not in experiment.data.splits:
        return {}
    started = time.perf_counter()
    evaluate(experiment.model, plan, experiment.batches("val"), should_stop=lambda: False)
    synchronize(experiment.device)
    return {"validation": time.perf_counter() - started}


def time_checkpoint(loaded: LoadedConfig, experiment: Experiment, state: TrainState) -> float:
    """Seconds of one save, durable and checked, into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="trainkit-bench-") as folder:
        checkpoints = CheckpointFolder(folder)
        name = checkpoint_name(loaded.name, when=datetime.now(), epoch=0, metric="loss", value=None)
        started = time.perf_counter()
        checkpoints.save(
            {**description(loaded, experiment), **state.state_dict()},
            name=name,
            step=0,
            epoch=0,
            score=None,
            best=False,
            keep_last=1,
        )
        return time.perf_counter() - started


def peak_megabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


def combinations(loaded: LoadedConfig, *, with_compile: bool) -> list[tuple[str, ...]]:
    """What may be changed for speed: precision, layout, compilation, batch size; the config as it is comes first."""
    size = loaded.config.training.batch_size
    axes = [[f"training.precision={precision}" for precision in ("fp32", "bf16")]]
    if is_convolutional(loaded.config):
        axes.append([f"training.channels_last={value}" for value in ("true", "false")])
    if with_compile:
        axes.append([f"training.compile={value}" for value in ("false", "true")])
    axes.append([f"training.batch_size={value}" for value in (size, size * 4)])
    return [(), *itertools.product(*axes)]


def sweep(
    config: Path,
    combos: Sequence[tuple[str, ...]],
    *,
    overrides: Sequence[str],
    unset: Sequence[str],
    should_stop: Callable[[], bool],
    tell: Callable[[Trial], None],
) -> list[Trial]:
    """Measure each combination in a process of its own, so that none warms up or fills the memory of another."""
    trials = []
    for combo in combos:
        if should_stop():
            break
        trial = Trial(combo, *_in_child(config, [*overrides, *combo], unset))
        tell(trial)
        trials.append(trial)
    return trials


def _in_child(config: Path, overrides: Sequence[str], unset: Sequence[str]) -> tuple[Measurement | None, str | None]:
    command = [sys.executable, "-m", "trainkit", "bench", str(config), "--single", "--json", "--quiet"]
    for name, values in (("--set", overrides), ("--unset", unset)):
        command += itertools.chain.from_iterable((name, value) for value in values)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"exit code {done.returncode}"
    return Measurement(**json.loads(done.stdout)), None


def advice(trials: Sequence[Trial]) -> list[str]:
    """The overrides of the fastest combination with the config's own batch size; [] where the config is the fastest.

    A larger batch changes what is learned, so it is shown in the table but never advised.
    """
    good = [trial for trial in trials if trial.measurement is not None]
    base = next((trial for trial in good if not trial.overrides), None)
    size = {trial.overrides[-1] for trial in good if trial.overrides}
    own = [trial for trial in good if trial.overrides and trial.overrides[-1] == min(size, key=_batch_size)]
    if base is None or not own:
        return []
    fastest = max(own, key=_speed)
    return list(fastest.overrides[:-1]) if _speed(fastest) > 1.05 * _speed(base) else []


def _batch_size(override: str) -> int:
    return int(override.partition("=")[2])


def _speed(trial: Trial) -> float:
    return 0.0 if trial.measurement is None else trial.measurement.samples_per_second


def as_json(measurement: Measurement) -> dict[str, Any]:
    return asdict(measurement)
