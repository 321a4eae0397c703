"""What the training loop works with besides its state: the settings, the batches, the compiled model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from trainkit.data.loading import Batch
from trainkit.engine.losses import Loss
from trainkit.engine.metrics import ClassificationMetrics, RegressionMetrics

Unit = Literal["epochs", "steps", "minutes"]
Metrics = ClassificationMetrics | RegressionMetrics


class Batches(Protocol):
    """The batches of each epoch: the same ones from memory and from data workers."""

    @property
    def batches_per_epoch(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Plan:
    """The settings of the loop. They come from the config; no checkpoint holds them."""

    seed: int
    epochs: int
    loss: Loss
    new_metrics: Callable[[], Metrics]
    forward: Callable[[Tensor], Tensor]
    """The training model in the precision of the run, compiled or not: outputs in float32."""
    precision: str = "fp32"
    accumulation_steps: int = 1
    """Pieces that a batch is computed in."""
    keep_gradients: bool = False
    """Set gradients to zero before a step instead of freeing them."""
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    skip_limit: int = 0
    log_every: int = 50
    save_every: tuple[int, Unit] = (1, "epochs")


def compiled(
    model: Callable[[Tensor], Tensor], mode: bool | str, *, say: Callable[[str], None]
) -> Callable[[Tensor], Tensor]:
    """The model as training calls it, compiled by ``torch.compile`` where ``mode`` is ``True`` or one of its modes.

    Where compiling fails (no C++ compiler, an unknown operation), ``say`` gets one warning and the plain model runs.
    ``reduce-overhead`` uses CUDA graphs.
    """
    if mode is False:
        return model
    # dynamic=False: each shape has code of its own. Else a second shape brings code for any shape, which then computes
    # the first one too, with other roundings: a run resumed after a ragged batch would end with other bits.
    program = torch.compile(model, dynamic=False, mode="default" if mode is True else str(mode))
    works: bool | None = None  # not known before the first call

    def forward(inputs: Tensor) -> Tensor:
        nonlocal works
        if works is False:
            return model(inputs)
        try:
            outputs: Tensor = program(inputs)
        except Exception as error:
            if works:  # it was compiled before: this is an error of the model itself
                raise
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            say(f"warning: training.compile: torch.compile failed, so the model runs uncompiled: {first_line}")
            works = False
            return model(inputs)
        works = True
        return outputs

    return forward
