"""What the training loop works with besides its state: the settings, the batches, the model or step as compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine.losses import Loss
from trainkit.engine.metrics import ClassificationMetrics, RegressionMetrics
from trainkit.engine.own_metrics import WithOwnMetrics
from trainkit.runtime import Ranks

Unit = Literal["epochs", "steps", "minutes"]
Metrics = ClassificationMetrics | RegressionMetrics | WithOwnMetrics


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
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share them."""
    keep_gradients: bool = False
    """Set gradients to zero before a step instead of freeing them."""
    part_of: Callable[[nn.Module], nn.Module] = lambda model: model
    """What the batches go through: the whole model, or its head where they are the features of a frozen backbone."""
    step: Callable[..., Any] | None = None
    """In the place of ``train_step``: a ``CapturedStep``."""
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    skip_limit: int = 0
    mixed: bool = False
    """Training batches are mixed, so that their accuracy is against the class with the larger share."""
    log_every: int = 50
    save_every: tuple[int, Unit] = (1, "epochs")
