"""What the user sees: messages and progress on stderr, results on stdout. Plain lines where there is no terminal."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from trainkit.errors import Interrupted, ProblemsError, TrainkitError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from trainkit.system import Frontend


def say(message: str, *, end: str = "\n") -> None:
    """Print one line on stderr. A stderr that is closed or whose terminal is gone is no error: the work goes on."""
    with suppress(OSError):
        print(message, end=end, file=sys.stderr, flush=True)


def shows_unicode() -> bool:
    """Whether stdout takes every character; else what its encoding does not have is escaped."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().startswith("utf")


def print_json(value: object) -> None:
    """Print plain data on stdout."""
    print(json_text(value, indent=2))


def json_text(value: object, *, indent: int | None = None) -> str:
    """Plain data as JSON for stdout; NaN and infinity become null.

    Where stdout is not UTF-8, JSON's own escapes are used: ``\\xe9``, which stdout would write for é, is not JSON.
    """
    from trainkit.system import durable

    plain, escape = durable.finite_or_none(value), not shows_unicode()
    return json.dumps(plain, indent=indent, ensure_ascii=escape, allow_nan=False, default=str)


def error_as_json(error: BaseException, message: str, exit_code: int | str) -> dict[str, Any]:
    """A failure as plain values; mistakes in a config one by one."""
    problems = error.problems if isinstance(error, ProblemsError) else ()
    described = [
        {"place": None if one.place is None else str(one.place), "key": one.key, "message": one.message}
        for one in problems
    ]
    return {"message": message, "exit_code": exit_code, "problems": described}


def print_error(error: TrainkitError) -> None:
    """Print an error on stderr, in color on a terminal; without rich, whose import would delay the message."""
    if isinstance(error, ProblemsError):
        from trainkit.config.help import render

        plain = not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        say(render(error, color=not plain))
    else:
        say(str(error) if isinstance(error, Interrupted) else f"error: {error}")


def table(title: str | None, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; the first column is left-aligned, the others right-aligned.

    Where stdout is no terminal, each row is one line, however wide: it can be searched with grep.
    """
    if not sys.stdout.isatty():
        plain_table(title, header, rows)
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if title:  # rich would fold a table's own title to the table's width
        console.print(title, style="bold", markup=False, soft_wrap=True)
    grid = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        grid.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(_text(value)) for value in row))
    console.print(grid)


def plain_table(title: str | None, header: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """A table without rich, whose rows are never folded; ``left`` is the number of left-aligned columns."""
    if title:
        print(title)
    for line in aligned([header, *rows], left=left):
        print(f"  {line}".rstrip())
    print()


def scores_table(title: str | None, corner: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """The metrics of each split side by side, a dash where one is missing; ``corner`` heads the first column."""
    names = dict.fromkeys(name for metrics in scores.values() for name in metrics)
    cells = {name: [metrics.get(name) for metrics in scores.values()] for name in names}
    rows = [[name, *(float(x) if isinstance(x, int | float) else math.nan for x in row)] for name, row in cells.items()]
    table(title, [corner, *scores], rows)


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


def _text(value: object) -> str:
    """The text of a cell, on one line: a line break in a name would make two rows of one."""
    return " ".join((number(value) if isinstance(value, float) else str(value)).splitlines())


def number(value: float) -> str:
    """Six significant digits at most: enough to compare runs, short enough to read."""
    if math.isnan(value):
        return "-"
    return f"{value:.6g}" if abs(value) >= 1e5 or 0 < abs(value) < 1e-3 else f"{value:.4f}"


def lines(pairs: Sequence[tuple[str, str]]) -> None:
    """Aligned ``name  value`` lines on stdout: never folded, so that paths and commands can be copied."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"  {name:<{width}}  {value}")


@contextmanager
def frontend(
    task: str = "preparing", *, quiet: bool, on_signal: str | None = None, stopped: str | None = None
) -> Iterator[Frontend]:
    """Lines and a bar on stderr, and signals that ask for a stop.

    Args:
        task: what the bar counts.
        on_signal: what the first signal does, for a line on stderr.
        stopped: the message of a stopped command (``stopped by SIGINT: nothing was written``); None: the workflow's.
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
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True, highlight=False), transient=True)
            bars.append((bar, bar.add_task(description, total=total)))
            bar.start()
        bar, task = bars[0]
        bar.update(task, completed=done)
        if done >= total:
            bar.stop()
            bars.clear()  # what comes next has a bar of its own: images after a download

    def update_unless_gone(done: int, total: int) -> None:
        with suppress(OSError):  # the terminal is gone, and the work goes on
            update(done, total)

    try:
        yield update_unless_gone
    finally:
        with suppress(OSError):
            for bar, _ in bars:
                bar.stop()
