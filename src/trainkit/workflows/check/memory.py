"""The costs of a run: memory on the device for a batch, and space on the disk for its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from trainkit.builders import Memory, data_bytes, estimate_memory
from trainkit.config.rules import EpochSizes
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.runtime import Choice
from trainkit.system import durable
from trainkit.wording import size_text
from trainkit.workflows.check.problems import ProblemCollector, fail
from trainkit.workflows.check.shapes import ModelShapes

CHECKPOINT_OVERHEAD = 12 << 10
"""Bytes of a checkpoint besides its tensors: names, config, zip directory."""


@dataclass(frozen=True)
class Costs:
    """Bytes that a run needs, and those that are free."""

    memory: Memory
    checkpoint_bytes: int
    """Of one checkpoint."""
    free_disk: int | None


def check_costs(
    config: Config,
    shapes: ModelShapes,
    problems: ProblemCollector,
    *,
    sizes: EpochSizes,
    data: Dataset,
    device: torch.device,
    choices: Mapping[str, Choice],
    frozen: Mapping[str, int | None],
    runs_dir: Path,
) -> Costs | None:
    """Estimate the costs; None where a batch does not fit into the memory, which is then among the problems."""
    memory = estimate_memory(
        config,
        shapes.model,
        shapes.rows,
        input_shape=shapes.input_shape,
        piece=sizes.piece,
        device=device,
        precision=choices["precision"].value if "precision" in choices else "fp32",
        frozen=frozen,
    )
    if problems.sections("training.batch_size", lambda: check_memory(memory, config, piece=sizes.piece, device=device)):
        return None
    problems.catch("training", lambda: check_data_memory(memory, config, num_bytes=data_bytes(data), device=device))
    num_bytes = checkpoint_bytes(memory)
    free_disk = problems.catch("checkpoint", lambda: check_disk(num_bytes, config, runs_dir=runs_dir))
    return Costs(memory, num_bytes, free_disk)


def check_memory(memory: Memory, config: Config, *, piece: int, device: torch.device) -> None:
    """Raises ProblemsError where the estimate is more than the free memory."""
    if memory.total <= memory.free:
        return
    fixed = memory.total - memory.activations
    if fixed > memory.free:
        fail(
            f"weights, gradients and the state of {config.optimizer.type} take {size_text(fixed)}, "
            f"but {device} has {size_text(memory.free)} free; make the model smaller",
            "model",
        )
    largest = piece * (memory.free - fixed) // memory.activations
    advice = "even one sample does not fit; make the model or its inputs smaller"
    if largest > 0:
        steps = -(-config.training.batch_size // largest)
        advice = f"set batch_size to {largest} at most, or accumulation_steps: {steps} to keep the batch"
    fail(
        f"a batch of {piece} takes about {size_text(memory.total)} on {device} "
        f"({size_text(memory.activations)} of it activations), but {size_text(memory.free)} are free; {advice}",
        "training.batch_size" if config.training.accumulation_steps == 1 else "training.accumulation_steps",
    )


def check_data_memory(memory: Memory, config: Config, *, num_bytes: int, device: torch.device) -> None:
    """Raises ProblemsError where the samples are to lie on the device, and do not fit there beside the model."""
    if config.training.residency == "device" and device.type != "cpu" and memory.total + num_bytes > memory.free:
        fail(
            f"{size_text(num_bytes)} of samples do not fit on {device} beside {size_text(memory.total)} for the model: "
            f"{size_text(memory.free)} are free; use auto or host",
            "training.residency",
        )


def checkpoint_bytes(memory: Memory) -> int:
    """Size of one checkpoint: weights, their average, the optimizer's state."""
    return memory.weights + memory.optimizer + CHECKPOINT_OVERHEAD


def kept_checkpoints(config: Config) -> int:
    """How many checkpoints lie on the disk at once: the newest, the best, and the one being written."""
    return config.checkpoint.keep_last + 2


def check_disk(num_bytes: int, config: Config, *, runs_dir: Path) -> int | None:
    """The free bytes where runs are written; None where the system does not say.

    Raises:
        ProblemsError: there can be no folder for runs, or the checkpoints would not fit.
    """
    runs_dir = runs_dir.absolute()
    place = next(path for path in (runs_dir, *runs_dir.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "is not a folder" if not place.is_dir() else "cannot be written"
        fail(f"runs are written to {runs_dir}, but {place} {why}; choose another folder with --run-dir", "checkpoint")
    free = durable.free_bytes(runs_dir)
    count = kept_checkpoints(config)
    if free is not None and num_bytes * count > free:
        fail(
            f"{count} checkpoints of {size_text(num_bytes)} (the newest {config.checkpoint.keep_last}, the best, one "
            f"being written) need {size_text(num_bytes * count)}, but {runs_dir} has {size_text(free)} "
            "free; make space, or choose another folder with --run-dir",
            "checkpoint.keep_last",
        )
    return free
