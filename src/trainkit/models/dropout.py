"""Dropout whose share changes over the run: read from memory at each step, so that no code is made or recorded anew.

Annotations are evaluated here, since TorchScript reads that of ``keep``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScheduledDropout(nn.Dropout):
    """``torch.nn.Dropout`` with the share ``p`` times a factor, which ``set_factor`` sets for the next steps."""

    keep: Tensor
    """The share of elements that is kept: (). It follows from config and step, and so is in no checkpoint."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.register_buffer("keep", torch.tensor(1.0 - p), persistent=False)

    def set_factor(self, factor: float) -> None:
        self.keep.fill_(1.0 - self.p * factor)

    def forward(self, input: Tensor) -> Tensor:
        """(N, ...) to the same shape; each element is dropped on its own."""
        return drop(input, list(input.shape), self.keep) if self.training else input


class ScheduledDropout2d(ScheduledDropout):
    """``torch.nn.Dropout2d`` with a share that changes."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; each channel of a sample is dropped as a whole."""
        return drop(input, [input.shape[0], input.shape[1], 1, 1], self.keep) if self.training else input


def drop(inputs: Tensor, shape: list[int], keep: Tensor) -> Tensor:
    """Set what noise of this shape picks to 0, and scale the rest so that the mean stays.

    The noise is float32 whatever the inputs are: in bf16 a share would be rounded to 1/256.
    """
    noise = torch.rand(shape, dtype=torch.float32, device=inputs.device)
    scale = (noise < keep) / keep.clamp_min(1e-7)  # of a share of 1 nothing is kept: 0, and not 0 / 0
    return inputs * scale.to(inputs.dtype)


def schedule_dropout(model: nn.Module) -> None:
    """Put layers with a share that changes in the place of the model's Dropout and Dropout2d."""
    kinds: dict[type[nn.Module], type[ScheduledDropout]] = {
        nn.Dropout: ScheduledDropout,
        nn.Dropout2d: ScheduledDropout2d,
    }
    for holder in list(model.modules()):
        for name, layer in list(holder.named_children()):
            if type(layer) in kinds:
                setattr(holder, name, kinds[type(layer)](layer.p))  # type: ignore[arg-type]


def scheduled_dropouts(model: nn.Module) -> Sequence[ScheduledDropout]:
    return [layer for layer in model.modules() if isinstance(layer, ScheduledDropout)]
