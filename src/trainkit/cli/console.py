"""What the user sees: messages and progress on stderr, results on stdout. Plain lines where there is no terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from trainkit.errors import Interrupted, ProblemsError, TrainkitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from trainkit.system import Frontend


def out() -> Console:
    """The console of results (stdout). rich obeys NO_COLOR and prints plainly where stdout is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """The console of messages (stderr)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def say(message: str, *, end: str = "\n") -> None:
    """One line for the user, on stderr. Where nobody reads it any more (``| head``), work goes on in silence."""
    with suppress(BrokenPipeError):
        print(message, end=end, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def print_error(error: TrainkitError) -> None:
    """The message of an error on stderr, in color on a terminal; no rich, so that a wrong config answers fast."""
    if isinstance(error, ProblemsError):
        from trainkit.config.help import render

        say(render(error, color=use_color()))
    else:
        say(str(error) if isinstance(error, Interrupted) else f"error: {error}")


def use_color() -> bool:
    import os

    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(title: str | None, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; the first column is left-aligned, the others right-aligned.

    Where stdout is no terminal, each row is one line, however wide: it can be searched with grep.
    """
    if not sys.stdout.isatty():
        plain_table(title, header, rows, left=1 if header else None)
        return
    from rich import box
    from rich.table import Table

    if title:  # rich would fold a table's own title to the table's width
        out().print(title, style="bold", markup=False, soft_wrap=True)
    grid = Table(box=box.SIMPLE_HEAD if header else box.SIMPLE, show_header=bool(header))
    for column in range(max(map(len, rows), default=len(header))):
        name = header[column] if column < len(header) else ""
        grid.add_column(name, justify="left" if column == 0 or not header else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row))
    out().print(grid)


def plain_table(
    title: str | None, header: Sequence[str], rows: Sequence[Sequence[object]], *, left: int | None = None
) -> None:
    """A table without rich, whose rows are never folded.

    Args:
        left: how many columns are left-aligned, the others are right-aligned; all of them where None.
    """
    if title:
        print(title)
    for line in aligned([header, *rows] if header else rows, left=left):
        print(f"  {line}".rstrip())
    print()


def aligned(rows: Sequence[Sequence[object]], *, left: int | None = None) -> Iterator[str]:
    """A line for each row; the first ``left`` columns (all where None) left-aligned, the others right-aligned."""
    shown = [[_text(value) for value in row] for row in rows]
    columns = max(map(len, shown), default=0)
    widths = [max((len(row[at]) for row in shown if at < len(row)), default=0) for at in range(columns)]
    for row in shown:
        cells = [
            cell.ljust(width) if left is None or at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield "  ".join(cells).rstrip()


def _cell(value: object) -> str:
    from rich.markup import escape

    return escape(_text(value))


def _text(value: object) -> str:
    """A line break in a name would make two rows of one."""
    return " ".join((number(value) if isinstance(value, float) else str(value)).splitlines())


def number(value: float) -> str:
    """Six significant digits at most: enough to compare runs, short enough to read."""
    return (
        "-" if math.isnan(value) else f"{value:.6g}" if abs(value) >= 1e5 or 0 < abs(value) < 1e-3 else f"{value:.4f}"
    )


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
        self.started = time.monotonic()
        self.steps_at_start: int | None = None
        self.last_seconds: dict[str, float] = {}
        self.bar: tuple[Progress, TaskID] | None = None
        if sys.stderr.isatty() and not quiet:
            self.bar = self._make_bar()

    def log(self, record: Mapping[str, Any]) -> None:
        if self.quiet:
            return
        if record["type"] == "step":
            self._show_step(record)
        elif record["type"] == "epoch":
            self._show_epoch(record)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        if self.bar is not None:
            self.bar[0].stop()

    def _make_bar(self) -> tuple[Progress, TaskID]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=err(),
            transient=True,
        )
        task = bar.add_task("epoch 1", total=self.epochs * self.batches_per_epoch, numbers="")
        bar.start()
        return bar, task

    def _show_step(self, record: Mapping[str, Any]) -> None:
        if self.bar is None:
            return
        if self.steps_at_start is None:
            self.steps_at_start = record["step"]
            self.started = time.monotonic()
        seconds = time.monotonic() - self.started
        rate = (record["step"] - self.steps_at_start) * self.batch_size / seconds if seconds > 0 else 0.0
        numbers = f"loss {record['mean_loss']:.4f}  lr {record['lr']:.3g}  {rate:,.0f} samples/s"
        if "mean_accuracy" in record:
            numbers = f"acc {record['mean_accuracy']:.4f}  {numbers}"
        bar, task = self.bar
        bar.update(
            task, description=f"epoch {record['epoch']}/{self.epochs}", completed=record["step"], numbers=numbers
        )

    def _show_epoch(self, record: Mapping[str, Any]) -> None:
        seconds = {
            key: record[key] - self.last_seconds.get(key, 0.0) for key in ("train_seconds", "validation_seconds")
        }
        self.last_seconds = {key: record[key] for key in seconds}
        width = len(str(self.epochs))
        parts = {
            "epoch": f"epoch {record['epoch']:>{width}}/{self.epochs}",
            "train": named("train", record, ("loss", "accuracy")),
            "val": named("val", record, ("loss", "accuracy", "rmse", "r2")),
            "lr": f"lr {record['lr']:.3g}",
            "time": f"{sum(seconds.values()):.1f} s",
            "best": "best" if record["best"] else "",
        }
        room = self.bar[0].console.width if self.bar is not None else math.inf
        for spare in ("lr", "time"):  # a line of its own for a word reads worse than a number less
            if sum(len(part) + 2 for part in parts.values() if part) - 2 > room:
                del parts[spare]
        line = "  ".join(part for part in parts.values() if part)
        if self.bar is None:
            say(line)
        else:
            bar, task = self.bar
            bar.console.print(line, markup=False)
            bar.update(task, completed=record["step"])


def named(split: str, record: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """The metrics of a split that the record has: ``val loss 0.1040 acc 0.9792``."""
    found = [
        f"{'acc' if metric == 'accuracy' else metric} {number(record[f'{split}_{metric}'])}"
        for metric in metrics
        if f"{split}_{metric}" in record
    ]
    return " ".join([split, *found]) if found else ""


def lines(pairs: Sequence[tuple[str, str]]) -> None:
    """Aligned ``name  value`` lines on stdout: never folded, so that paths and commands can be copied."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"  {name:<{width}}  {value}")


@contextmanager
def frontend(
    task: str = "preparing images", *, quiet: bool, on_signal: str | None = None, stopped: str | None = None
) -> Iterator[Frontend]:
    """Lines and a bar on stderr, and signals that ask for a stop.

    Args:
        task: what the bar counts.
        on_signal: what the first signal does, for a line on stderr.
        stopped: how a stopped command ends (``stopped by SIGINT: nothing was written``); None leaves that to the work.
    """
    from trainkit.system import Frontend, catch_stop_signals

    def notice(name: str) -> None:
        if on_signal is not None:
            say(f"{name}: {on_signal}; Ctrl-C ends at once")

    with task_bar(task, quiet=quiet) as progress, catch_stop_signals(notice) as stop:
        try:
            yield Frontend(say=(lambda message: None) if quiet else say, progress=progress, stop=stop)
        except Interrupted as error:
            if stopped is None:
                raise
            raise stop.error(stopped) from error


@contextmanager
def task_bar(description: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A function of (done, total) that shows a bar from the first call on. None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    bars: list[tuple[Progress, TaskID]] = []

    def update(done: int, total: int) -> None:
        if not bars:
            from rich.progress import Progress

            bar = Progress(console=err(), transient=True)
            bars.append((bar, bar.add_task(description, total=total)))
            bar.start()
        bar, task = bars[0]
        bar.update(task, completed=done)
        if done >= total:
            bar.stop()

    try:
        yield update
    finally:
        for bar, _ in bars:
            bar.stop()
