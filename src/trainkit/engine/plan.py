"""What the training loop is given: how it goes, where batches come from, and where numbers and states go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from trainkit.data.loading import Batch
from trainkit.engine.losses import Loss
from trainkit.engine.metrics import ClassificationMetrics, RegressionMetrics

Unit = Literal["epochs", "steps", "minutes"]
Metrics = ClassificationMetrics | RegressionMetrics


class Batches(Protocol):
    """Where batches come from: memory or data workers, the same ones either way."""

    @property
    def batches_per_epoch(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]: ...


class Recorder(Protocol):
    """Where numbers go. ``sync`` makes what was logged durable; it is called before each checkpoint."""

    def log(self, record: Mapping[str, Any]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class Checkpointer(Protocol):
    """Where states go."""

    def save(self, state: dict[str, Any], *, metrics: Mapping[str, float], best: bool) -> None: ...


@dataclass(frozen=True)
class Plan:
    """How the loop goes; the numbers that no state holds."""

    seed: int
    epochs: int
    loss: Loss
    new_metrics: Callable[[], Metrics]
    autocast: Callable[[], AbstractContextManager[Any]]
    forward: Callable[[Tensor], Tensor]
    """The training model, compiled or not."""
    accumulation_steps: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    skip_limit: int = 0
    log_every: int = 50
    save_every: tuple[int, Unit] = (1, "epochs")
