"""The memory that a run takes on its device: the model, from shapes, and the data that are kept there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.loading import choose_residency, is_mapped
from trainkit.models import LayerRow
from trainkit.runtime import Choice, free_device_bytes

FLOAT_BYTES = 4


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
    share = 1 if precision in ("fp32", "tf32") else 2  # under autocast most activations are 16-bit numbers
    outputs = [row.activation_bytes // share for row in rows]
    return Memory(
        weights=weights * (1 if config.training.ema is None else 2),
        gradients=trained,
        optimizer=trained * config.optimizer.states_per_weight,
        activations=piece * (inputs + sum(outputs) + max(outputs, default=0)),
        free=free_device_bytes(device),
    )


def data_bytes(data: Dataset) -> int:
    """Bytes of the samples of all splits as they are stored; 0 for files that are decoded while training."""
    arrays = [(split, data.parts[split.part].inputs) for split in data.splits.values()]
    return sum(len(split) * array[:1].nbytes for split, array in arrays if not isinstance(array, tuple))


def residency_of(config: Config, data: Dataset, *, device: torch.device, reserved: int) -> Choice:
    """Where the samples of a run are kept: one choice for all its splits.

    Args:
        reserved: bytes of the device that the model takes while training; 0 where that is not known.
    """
    mapped = False
    for split in data.splits.values():
        inputs = data.parts[split.part].inputs
        if isinstance(inputs, tuple):
            processes = config.training.num_workers or "no"
            return Choice("workers", f"images are decoded while training, by {processes} extra processes")
        mapped |= is_mapped(inputs)
    requested = config.training.residency
    return choose_residency(data_bytes(data), device=device, mapped=mapped, requested=requested, reserved=reserved)
