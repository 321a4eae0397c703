"""The loss over a rising learning rate: as lines of text for the terminal, and as a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from trainkit.reports.figures import INK, SERIES, SOFT, add_legend, new_panels, save_figure, style_axes

WIDTH, HEIGHT = 64, 12
"""Characters of the plot, without its axes."""
_ABOVE = 1.15
"""How far above its first values a loss is shown, in heights of its fall."""

Line = tuple[Sequence[float], Sequence[float]]
"""Learning rates and smoothed losses, of one seed."""


def rising_rate_lines(lines: Sequence[Line], *, lr: float | None, ascii_only: bool = False) -> list[str]:
    """The median of the seeds' smoothed losses over the logarithm of the learning rate, with ``lr`` marked."""
    dot, bar, floor, corner = "*|-+" if ascii_only else "•│─└"
    rates, losses = _median(lines)
    if not losses:
        return []
    left, right = math.log10(rates[0]), math.log10(rates[-1])
    low, high = _range(losses)

    def column(rate: float) -> int:
        return round((math.log10(rate) - left) / ((right - left) or 1) * (WIDTH - 1))

    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    if lr is not None:
        for row in grid:
            row[min(WIDTH - 1, max(0, column(lr)))] = bar
    for rate, loss in zip(rates, losses, strict=True):
        height = (loss - low) / ((high - low) or 1)
        if height <= 1:
            grid[HEIGHT - 1 - round(height * (HEIGHT - 1))][column(rate)] = dot
    labels = [f"{high - (high - low) * row / (HEIGHT - 1):.3g}" if row % 4 == 0 else "" for row in range(HEIGHT)]
    labels[-1] = f"{low:.3g}"
    margin = max(map(len, labels))
    drawn = [f"{label:>{margin}} {bar}{''.join(row)}".rstrip() for label, row in zip(labels, grid, strict=True)]
    ticks = [" "] * (WIDTH + 8)
    for power in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1):
        text, place = f"{10.0**power:.0e}", column(10.0**power)
        if all(one == " " for one in ticks[place : place + len(text) + 1]):
            ticks[place : place + len(text)] = text
    return [*drawn, f"{'':>{margin}} {corner}{floor * WIDTH}", f"{'':>{margin}}  {''.join(ticks)}".rstrip()]


def plot_rising_rate(path: Path, lines: Sequence[Line], *, lr: float | None, title: str) -> Path:
    """Write the smoothed losses of all seeds as a PNG file.

    Raises:
        WriteError: the disk is full or not writable.
    """
    figure, (axes,) = new_panels(1, title=title)
    for index, (rates, losses) in enumerate(lines):
        axes.plot(rates, losses, color=SERIES[index % len(SERIES)], linewidth=1.3, label=f"seed {index + 1}")
    shown = [loss for _, losses in lines for loss in _seen(losses)]
    if shown:
        room = 0.05 * (max(shown) - min(shown)) or 1.0
        axes.set_ylim(min(shown) - room, max(shown) + room)
    axes.set_xscale("log")
    if lr is not None:
        axes.axvline(lr, color=INK, linewidth=1.1, linestyle=(0, (2, 3)), label=f"{lr:g}")
    style_axes(axes, xlabel="learning rate", ylabel="training loss, smoothed")
    if lines:
        add_legend(axes, loc="lower left")
    axes.tick_params(colors=SOFT)
    return save_figure(figure, path)


def _median(lines: Sequence[Line]) -> tuple[list[float], list[float]]:
    """The median loss at each rate that more than half of the seeds have come to."""
    rates = max((list(one[0]) for one in lines), key=len, default=[])
    found = [[losses[step] for _, losses in lines if step < len(losses)] for step in range(len(rates))]
    shown = [statistics.median(values) for values in found if 2 * len(values) > len(lines)]
    return rates[: len(shown)], shown


def _seen(losses: Sequence[float]) -> list[float]:
    """The losses that are shown: where it diverges, the loss leaves the picture."""
    low, high = _range(losses) if losses else (0.0, 0.0)
    return [loss for loss in losses if low <= loss <= high]


def _range(losses: Sequence[float]) -> tuple[float, float]:
    """The lowest loss, and somewhat more than the level at first."""
    low, first = min(losses), max(losses[len(losses) // 20 : max(1, len(losses) // 4)], default=losses[0])
    return low, min(max(losses), low + _ABOVE * (first - low) or max(losses))
