"""What the loop writes down: lines of the log, and checkpoints at regular intervals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from trainkit.engine.plan import Unit
from trainkit.engine.state import Progress, TrainState, base_learning_rate

LARGER_SHARE = "larger share"
"""What training accuracy is against where batches are mixed."""


class Recorder(Protocol):
    """Takes the lines of the log. ``sync`` makes them durable; it is called before each checkpoint."""

    def log(self, record: Mapping[str, Any]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class Checkpointer(Protocol):
    """Writes states to disk."""

    def save(self, state: dict[str, Any], *, metrics: Mapping[str, float], best: bool) -> None: ...


class Saver:
    """Saves checkpoints; ``due_after_step`` and ``due_after_epoch`` know the interval ``every``."""

    def __init__(
        self, state: TrainState, recorder: Recorder, checkpointer: Checkpointer, *, every: tuple[int, Unit]
    ) -> None:
        self.state, self.recorder, self.checkpointer = state, recorder, checkpointer
        self.interval, self.unit = every
        self.last_save = time.monotonic()
        self.saved: Progress | None = None

    def due_after_step(self) -> bool:
        if self.unit == "steps":
            return self.state.progress.steps_completed % self.interval == 0
        return self.unit == "minutes" and time.monotonic() - self.last_save >= 60 * self.interval

    def due_after_epoch(self) -> bool:
        return self.unit == "epochs" and self.state.progress.epochs_completed % self.interval == 0

    def save(self, metrics: Mapping[str, float] | None = None, *, best: bool = False) -> None:
        """Make the log durable, then the state: a checkpoint is never ahead of the log.

        Does nothing where this position is saved already: a stop may come after a step whose save was due.
        """
        if self.saved is not None and self.saved.position == self.state.progress.position:
            return
        started = time.perf_counter()
        self.recorder.sync()
        self.checkpointer.save(self.state.state_dict(), metrics=metrics or {}, best=best)
        self.last_save = time.monotonic()
        self.saved = replace(self.state.progress)
        self.state.progress.checkpoint_seconds += time.perf_counter() - started


def step_record(state: TrainState, *, loss: float, lr: float, classes: bool) -> dict[str, Any]:
    """A line of the log: the loss of this step's batch, and the epoch's means so far."""
    return {
        "type": "step",
        "step": state.progress.steps_completed,
        "epoch": state.progress.epochs_completed + 1,
        "batch": state.progress.batches_completed,
        "loss": loss,
        "mean_loss": state.totals.mean_loss,
        **({"mean_accuracy": state.totals.accuracy} if classes else {}),
        "lr": lr,
    }


def epoch_record(
    state: TrainState, metrics: Mapping[str, float], *, loss_max: float, improved: bool, mixed: bool = False
) -> dict[str, Any]:
    """A line of the log; the seconds are those of the whole run so far.

    Args:
        mixed: training accuracy is against the class with the larger share.
    """
    progress = state.progress
    return {
        "type": "epoch",
        "step": progress.steps_completed,
        "epoch": progress.epochs_completed,
        **metrics,
        **({"train_accuracy_against": LARGER_SHARE} if mixed else {}),
        "train_loss_max": loss_max,
        "best": improved,
        "lr": base_learning_rate(state.optimizer),
        "samples_seen": progress.samples_seen,
        "steps_skipped": progress.steps_skipped,
        "train_seconds": round(progress.train_seconds, 3),
        "data_seconds": round(progress.data_seconds, 3),
        "validation_seconds": round(progress.validation_seconds, 3),
        "checkpoint_seconds": round(progress.checkpoint_seconds, 3),
    }
