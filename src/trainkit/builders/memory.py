"""The memory that a run takes on its device: the model, from shapes, and the data that are kept there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.loading import choose_residency, is_mapped
from trainkit.data.ragged import Ragged
from trainkit.errors import Problem, ProblemsError
from trainkit.models import LayerRow
from trainkit.runtime import Choice, free_device_bytes
from trainkit.wording import size_text

FLOAT_BYTES = 4


LIBRARIES = 250_000_000
"""What the modules that training loads take on top of ``import torch``, those of PyTorch itself among them.

Measured on Linux before the first step: 200 to 290 MB, the most where scikit-learn was loaded for its data."""
BACKWARD_COPIES = 3
"""Of the largest output on the CPU: its gradient, that of its input, and a copy in the layout that the kernel wants."""
AUTOCAST_SHARE = 0.6
"""Of the activations under autocast on the CPU: most are 16-bit numbers, but not all."""
_SAVES_OUTPUT = frozenset(["ReLU", "ReLU6", "Sigmoid", "Tanh", "Softmax", "LogSoftmax"])
"""Layers whose backward pass needs their output, not their input."""
_SAVES_MASK = frozenset(["Dropout", "Dropout2d"])
"""Layers whose backward pass needs neither, but a mask of the same size."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while training, by contents; an estimate from shapes."""

    weights: int
    """Parameters and buffers, and their moving average where there is one."""
    gradients: int
    optimizer: int
    """Its state: two tensors a weight for Adam."""
    activations: int
    """Of one piece of a batch: its inputs, what the layers keep for the backward pass, and the largest gradients."""
    free: int
    libraries: int = 0
    """What the process takes besides, on top of ``import torch``; 0 where the device is not the CPU."""

    @property
    def total(self) -> int:
        """Without the libraries."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def describe(self) -> str:
        """The line of ``check`` and ``inspect``."""
        libraries = f"; the libraries take about {size_text(self.libraries)} more" if self.libraries else ""
        return (
            f"about {size_text(self.total)} while training (weights {size_text(self.weights)}, gradients "
            f"{size_text(self.gradients)}, optimizer {size_text(self.optimizer)}, activations "
            f"{size_text(self.activations)}){libraries}; {size_text(self.free)} free"
        )

    def to_json(self) -> dict[str, int]:
        return {**vars(self), "total": self.total}


def estimate_memory(
    config: Config,
    model: nn.Module,
    rows: Sequence[LayerRow],
    *,
    input_shape: Sequence[int],
    piece: int,
    device: torch.device,
    precision: str,
    frozen: Mapping[str, int | None] | None = None,
) -> Memory:
    """The estimate for a model (on any device, also without memory) and the layer table of one sample.

    What is frozen for the whole run has no gradient and no optimizer's state, and layers before the first one that ever
    trains keep nothing for a backward pass.

    On the CPU, the ``libraries`` and the samples that are kept in memory come on top; test_memory_peak.py compares it
    with peaks. On a GPU, workspaces of kernels and the gaps of the allocator do.

    Args:
        frozen: the parameters that are frozen at first: ``frozen_parameters``.
    """
    never = {name for name, end in (frozen or {}).items() if end is None}
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in never}
    trained = FLOAT_BYTES * sum(parameter.numel() for parameter in moving.values())
    weights = FLOAT_BYTES * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    inputs = FLOAT_BYTES * torch.Size(input_shape).numel()
    largest = max((row.activation_bytes for row in rows), default=0)
    if never:
        rows = rows_of_backward(rows, [name.rpartition(".")[0] for name in moving])
    autocast = precision not in ("fp32", "tf32")
    if device.type == "cpu":
        layers = (AUTOCAST_SHARE if autocast else 1) * (kept_bytes(rows) + BACKWARD_COPIES * largest)
    else:
        layers = (0.5 if autocast else 1) * (sum(row.activation_bytes for row in rows) + largest)
    return Memory(
        weights=weights * (1 if config.training.ema is None and config.training.average is None else 2),
        gradients=trained,
        optimizer=trained * config.optimizer.states_per_weight,
        activations=piece * (inputs + int(layers)),
        free=free_device_bytes(device),
        libraries=LIBRARIES if device.type == "cpu" else 0,
    )


def rows_of_backward(rows: Sequence[LayerRow], owners: Collection[str]) -> Sequence[LayerRow]:
    """The rows from the one before the first layer that trains, since that keeps its input.

    Args:
        owners: names of the modules whose parameters train; all rows count where one of them has no row.
    """
    places = {row.name: at for at, row in reversed(list(enumerate(rows)))}
    return rows[max(0, min((places.get(name, 0) for name in owners), default=0) - 1) :]


def kept_bytes(rows: Sequence[LayerRow]) -> int:
    """What the layers keep of one sample for the backward pass, in fp32.

    That is the input of most layers; of an activation such as a ReLU its output; of a dropout its mask; of a max pool
    also where each of its values came from, in 8 bytes.
    """
    kept = 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        needed = following is None or following.type not in _SAVES_OUTPUT | _SAVES_MASK or row.type in _SAVES_OUTPUT
        kept += row.activation_bytes * (needed + 2 * (row.type == "MaxPool2d") + (row.type in _SAVES_MASK))
    return kept


def data_bytes(data: Dataset) -> int:
    """Bytes of the samples of all splits as they are stored; 0 for files that are decoded while training."""
    total = 0
    for split in data.splits.values():
        match data.parts[split.part].inputs:
            case Ragged() as images:
                total += images.num_bytes(split.indices)
            case np.ndarray() as array:
                total += len(split) * array[:1].nbytes
    return total


def residency_of(config: Config, data: Dataset, *, device: torch.device, reserved: int) -> Choice:
    """Where the samples of a run are kept: one choice for all its splits.

    Args:
        reserved: bytes of the device that the model takes while training; 0 where that is not known.
    """
    mapped = ragged = False
    for split in data.splits.values():
        inputs = data.parts[split.part].inputs
        if isinstance(inputs, tuple):
            processes = config.training.num_workers or "no"
            return Choice("workers", f"images are decoded while training, by {processes} extra processes")
        ragged |= isinstance(inputs, Ragged)
        mapped |= is_mapped(inputs.pixels if isinstance(inputs, Ragged) else inputs)
    requested = config.training.residency
    if ragged:
        if requested == "device":
            message = (
                "images of their own sizes are cropped in host memory, got device; leave it out, or begin transforms "
                "with a resize to one size"
            )
            raise ProblemsError([Problem(message, key="training.residency")])
        device = torch.device("cpu")
    return choose_residency(data_bytes(data), device=device, mapped=mapped, requested=requested, reserved=reserved)
