"""A training while it goes on: on a terminal a bar that moves with every step, and a line for each epoch everywhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from trainkit.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_UPDATES = 0.1
RATE_UPDATES = 50
"""The rate is that of the last updates: a slow first step, which compiles, does not count for long."""


class TrainDisplay:
    """A recorder that shows the run: a live bar on a terminal, one clean line an epoch everywhere.

    Args:
        epochs: epochs of the whole run.
        batches_per_epoch: optimizer steps of one epoch.
        batch_size: samples of a full batch.
        quiet: show nothing at all.
    """

    def __init__(self, *, epochs: int, batches_per_epoch: int, batch_size: int, quiet: bool = False) -> None:
        self.epochs, self.batches_per_epoch, self.batch_size, self.quiet = epochs, batches_per_epoch, batch_size, quiet
        self.epoch = -1
        self.epoch_started = time.monotonic()
        self.updates: deque[tuple[float, int]] = deque(maxlen=RATE_UPDATES)
        """Times, and the batches of the epoch that were done then."""
        self.means: dict[str, str] = {}
        """Of the step that was logged last: acc, loss, lr."""
        self.rate = ""
        self.has_bar = sys.stderr.isatty() and not quiet
        self.bar: tuple[Progress, TaskID] | None = None
        """From the first batch on."""

    def show_batches(self, split: str, epoch: int, done: int, total: int) -> None:
        """Called when an epoch starts, and when a batch of it is done; for ``val`` while the epoch is validated.

        Args:
            epoch: how many epochs were completed before.
            done: batches of the epoch; a resumed epoch does not start with 0.
        """
        now = time.monotonic()
        if split == "train" and epoch != self.epoch:
            self.epoch, self.epoch_started = epoch, now
            self.updates.clear()
        soon = bool(self.updates) and now - self.updates[-1][0] < SECONDS_BETWEEN_UPDATES
        if not self.has_bar or (soon and done < total):
            return
        self.updates.append((now, done))
        bar, task = self.bar = self.bar or self._make_bar()
        if split == "val":
            bar.update(task, numbers=f"validation {done}/{total}")
            return
        (before, first), name = self.updates[0], f"epoch {epoch + 1}/{self.epochs}"
        if done > first and now > before:
            self.rate = f"{(done - first) * self.batch_size / (now - before):,.0f} samples/s"
        steps = epoch * self.batches_per_epoch + done
        others = f"{name} {'━' * bar_width(bar.console.width)} {steps}/{self.epochs * self.batches_per_epoch}  0:00:00"
        parts = fitting({**self.means, "rate": self.rate}, ("lr", "acc", "loss"), bar.console.width - len(others) - 1)
        bar.update(task, description=name, completed=steps, numbers=parts)

    def log(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "step":
            accuracy = {"acc": f"acc {record['mean_accuracy']:.4f}"} if "mean_accuracy" in record else {}
            self.means = {**accuracy, "loss": f"loss {record['mean_loss']:.4f}", "lr": f"lr {record['lr']:.3g}"}
        elif record["type"] == "epoch" and not self.quiet:
            self._show_epoch(record)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        if self.bar is not None:
            self.bar[0].stop()

    def _make_bar(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        screen = Console(stderr=True, highlight=False)
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width(screen.width)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=screen,
            transient=True,
        )
        task = bar.add_task("", total=self.epochs * self.batches_per_epoch, numbers="")
        bar.start()
        return bar, task

    def _show_epoch(self, record: Mapping[str, Any]) -> None:
        width = len(str(self.epochs))
        parts = {
            "epoch": f"epoch {record['epoch']:>{width}}/{self.epochs}",
            "train": named("train", record, ("loss", "accuracy")),
            "val": named("val", record, ("loss", "accuracy", "rmse", "r2")),
            "lr": f"lr {record['lr']:.3g}",
            "time": f"{time.monotonic() - self.epoch_started:.1f} s",
            "best": "best" if record["best"] else "",
        }
        line = fitting(parts, ("lr", "time"), self.bar[0].console.width if self.bar is not None else math.inf)
        if self.bar is None:
            console.say(line)
        else:
            bar, task = self.bar
            bar.console.print(line, markup=False)
            bar.update(task, completed=record["step"])


def bar_width(room: float) -> int:
    return 24 if room >= 110 else 10


def fitting(parts: Mapping[str, str], spare: Sequence[str], room: float) -> str:
    """The parts on one line; of ``spare`` as many are dropped, from the first on, as it takes to fit."""
    left = dict(parts)
    line = "  ".join(part for part in left.values() if part)
    for name in spare:
        if len(line) <= room:
            break
        left.pop(name, None)
        line = "  ".join(part for part in left.values() if part)
    return line


@contextmanager
def stage_line(*, quiet: bool = False) -> Iterator[Callable[[str | None], None] | None]:
    """A function that shows a stage's name and for how long it has been going on. None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    shown: list[Progress] = []

    def show(name: str | None) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with suppress(OSError):  # the terminal is gone, and the work goes on
            while shown:
                shown.pop().stop()
            if name is not None:
                columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
                line = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
                line.add_task(name, total=None)
                line.start()
                shown.append(line)

    try:
        yield show
    finally:
        show(None)


def named(split: str, record: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """The metrics of a split that the record has: ``val loss 0.1040 acc 0.9792``."""
    against = record.get(f"{split}_accuracy_against")
    accuracy = "acc" if against is None else f"acc ({against})"
    found = [
        f"{accuracy if metric == 'accuracy' else metric} {console.number(record[f'{split}_{metric}'])}"
        for metric in metrics
        if f"{split}_{metric}" in record
    ]
    return " ".join([split, *found]) if found else ""
