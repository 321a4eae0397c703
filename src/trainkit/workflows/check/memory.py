"""The costs of a run: memory on the device for a batch, and space on the disk for its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trainkit.config.rules import EpochSizes
from trainkit.config.schema import Config
from trainkit.models import LayerRow
from trainkit.runtime import Choice, free_device_bytes
from trainkit.system import durable
from trainkit.wording import size_text
from trainkit.workflows.check.problems import ProblemCollector, fail
from trainkit.workflows.check.shapes import ModelShapes

FLOAT_BYTES = 4
CHECKPOINT_OVERHEAD = 12 << 10
"""Bytes of a checkpoint besides its tensors: names, config, zip directory."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while training, by contents; an estimate from shapes."""

    weights: int
    """Parameters and buffers, and their moving average where there is one."""
    gradients: int
    optimizer: int
    """Its state: two tensors a weight for Adam."""
    activations: int
    """Of one piece of a batch: its inputs, the outputs of all layers, and the gradient of the largest output."""
    free: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


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
    device: torch.device,
    choices: Mapping[str, Choice],
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
    )
    if problems.sections("training.batch_size", lambda: check_memory(memory, config, piece=sizes.piece, device=device)):
        return None
    num_bytes = checkpoint_bytes(memory)
    free_disk = problems.catch("checkpoint", lambda: check_disk(num_bytes, config, runs_dir=runs_dir))
    return Costs(memory, num_bytes, free_disk)


def estimate_memory(
    config: Config,
    model: nn.Module,
    rows: Sequence[LayerRow],
    *,
    input_shape: Sequence[int],
    piece: int,
    device: torch.device,
    precision: str,
) -> Memory:
    """The estimate for a model (on any device, also without memory) and the layer table of one sample.

    Training needs at least this much: workspaces of kernels and the allocator's gaps come on top. Measured on two
    cores in fp32: 0.85 of the peak of configs/cifar10_cnn.yaml, 0.63 of that of configs/mnist_cnn.yaml (batch 1024).
    """
    trained = FLOAT_BYTES * sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = FLOAT_BYTES * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    inputs = FLOAT_BYTES * torch.Size(input_shape).numel()
    share = 1 if precision == "fp32" else 2  # under autocast most activations are 16-bit numbers
    outputs = [row.activation_bytes // share for row in rows]
    return Memory(
        weights=weights * (1 if config.training.ema is None else 2),
        gradients=trained,
        optimizer=trained * config.optimizer.states_per_weight,
        activations=piece * (inputs + sum(outputs) + max(outputs, default=0)),
        free=free_device_bytes(device),
    )


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


def checkpoint_bytes(memory: Memory) -> int:
    """Size of one checkpoint: weights, their average, the optimizer's state."""
    return memory.weights + memory.optimizer + CHECKPOINT_OVERHEAD


def kept_checkpoints(config: Config) -> int:
    """How many checkpoints lie on the disk at once: the newest, the best, and the one being written."""
    return config.checkpoint.keep_last + 2


def check_disk(num_bytes: int, config: Config, *, runs_dir: Path) -> int | None:
    """The free bytes where runs are written; None where the system does not say.

    Raises:
        ProblemsError: the checkpoints would not fit.
    """
    free = durable.free_bytes(runs_dir.absolute())
    count = kept_checkpoints(config)
    if free is not None and num_bytes * count > free:
        fail(
            f"{count} checkpoints of {size_text(num_bytes)} (the newest {config.checkpoint.keep_last}, the best, one "
            f"being written) need {size_text(num_bytes * count)}, but {runs_dir.absolute()} has {size_text(free)} "
            "free; make space, or choose another folder with --run-dir",
            "checkpoint.keep_last",
        )
    return free
