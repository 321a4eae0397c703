"""Learning curves: figures of one run or of several over each other, and one line of text for the terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainkit.recorders import History, Points, is_rate, main_metric, metric_text, title_of
from trainkit.reports.figures import (
    INK,
    SERIES,
    SOFT,
    Drawing,
    add_legend,
    chart_of,
    legend_name,
    new_panels,
    plain,
    style_axes,
)
from trainkit.wording import SPLITS, better

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
LOG_FROM_RATIO = 30.0
BLOCKS = "▁▂▃▄▅▆▇█"
_CHARACTER, _LINE = 0.022, 0.062
"""Width and height of a letter of a name at the end of a line, as shares of the panel."""
PLAIN = "_.-=+*#@"
"""For a terminal without Unicode."""


def draw_learning_curves(history: History, *, title: str, loss: str = "loss") -> Drawing | None:
    """The loss, the main metric and the learning rate of a run; None where it has no epoch.

    Args:
        title: stands above the figure, such as the name of the run.
        loss: what the loss is called.
    """
    if not history.epochs:
        return None
    metrics = [main_metric(history.metric_names())]
    if metrics == ["r2"] and history.series("val_mae"):
        metrics.append("mae")
    names = ["loss", *(name for name in metrics if name), "lr"]
    figure, panels = new_panels(len(names), title=title)
    for axes, name in zip(panels, names, strict=True):
        if name == "lr":
            _draw_learning_rates(axes, _learning_rates(history))
        else:
            _draw_splits(axes, history, name)
        _finish(axes, name, num_epochs=len(history))
        if history.best_epoch is not None:
            axes.axvline(history.best_epoch, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), zorder=2)
            axes.set_xlabel(f"epoch (dotted: the best, {history.best_epoch})")
    titles = {"loss": f"Loss ({loss}, mean over samples)", "accuracy": "Accuracy (share of samples)"}
    charts = [
        chart_of(
            figure, axes, title=titles.get(name) or capitalized(title_of(name)), description=_describe(history, name)
        )
        for axes, name in zip(panels, names, strict=True)
    ]
    return Drawing(figure, charts)


def draw_overlay(histories: Mapping[str, History], *, metric: str) -> Drawing | None:
    """One metric and the losses of several runs over each other; None where no run has any.

    Args:
        histories: by the label that stands at the end of a run's lines; some twelve characters fit.
    """
    names = list(dict.fromkeys((metric, "val_loss", "train_loss")))
    names = [name for name in names if any(history.series(name) for history in histories.values())]
    if not names:
        return None
    figure, panels = new_panels(len(names))
    num_epochs = max(map(len, histories.values()))
    for axes, name in zip(panels, names, strict=True):
        for index, history in enumerate(histories.values()):
            points = history.series(name)
            _line(axes, points, style=index)
            _star(axes, points, history.best_epoch, style=index)
    charts = []
    for axes, name in zip(panels, names, strict=True):
        alike = [one for one, other in zip(panels, names, strict=True) if title_of(other) == title_of(name)]
        split = SPLITS.get(name.split("_")[0], "")
        _finish(axes, name, num_epochs=num_epochs, title=f"{split} {title_of(name)}", beside=alike)
        lines = {label: history.series(name) for label, history in histories.items()}
        _name_ends(axes, lines, num_epochs=num_epochs)
        ends = "; ".join(f"{label}: {metric_text(name, at[-1][1])} at the end" for label, at in lines.items() if at)
        title = f"{capitalized(split)} {title_of(name)} (star: best epoch)"
        charts.append(chart_of(figure, axes, title=title, description=f"{ends}."))
    return Drawing(figure, charts)


def _name_ends(axes: Axes, lines: Mapping[str, Points], *, num_epochs: int) -> None:
    """Write the name of each line at its end; names that would meet are moved apart."""
    from matplotlib.ticker import MaxNLocator

    ends = [
        (name, SERIES[index % len(SERIES)], *points[-1])
        for index, (name, points) in enumerate(lines.items())
        if points and math.isfinite(points[-1][1])
    ]
    if not ends:
        return
    room = min(0.45, 0.05 + _CHARACTER * max(len(name) for name, *_ in ends))
    right = max(num_epochs, 1) / (1 - room)
    axes.set_xlim(0, right)
    axes.set_xticks([x for x in MaxNLocator(6, integer=True).tick_values(0, num_epochs) if 0 <= x <= num_epochs])
    axes.set_ylim(axes.get_ylim())
    places = axes.transData + axes.transAxes.inverted()
    heights = _apart([float(places.transform((x, y))[1]) for *_, x, y in ends], gap=min(_LINE, 1 / len(ends)))
    for (name, color, x, _), height in zip(ends, heights, strict=True):
        at = axes.get_xaxis_transform()
        axes.text(x + 0.035 * right, height, plain(name), transform=at, color=color, fontsize=9, va="center")


def _apart(heights: Sequence[float], *, gap: float) -> list[float]:
    """The heights in [0, 1], moved as little as needed to lie ``gap`` from each other, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for below, above in itertools.pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    limit = 1.0
    for index in reversed(order):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - gap
    return moved


def _draw_splits(axes: Axes, history: History, name: str) -> None:
    steps = history.step_series("loss") if name == "loss" else []
    if len(steps) > 2 * len(history):  # fewer would draw a line that was never there
        axes.plot(*zip(*steps, strict=True), color=SOFT, alpha=0.5, linewidth=0.8, label="batches", zorder=1)
    for index, split in enumerate(("train", "val")):
        points = history.series(f"{split}_{name}")
        _line(axes, points, label=SPLITS[split], style=index)
    best = metric_text(name, history.best_value(f"val_{name}"))
    _star(axes, history.series(f"val_{name}"), history.best_epoch, style=1, label=f"best epoch: {best}")


def _draw_learning_rates(axes: Axes, points: Points) -> None:
    """A constant rate is written on its line: the axis would say it only roughly."""
    rates = {rate for _, rate in points}
    _line(axes, points, style=0, marker="" if len(points) > 1 else None)
    axes.set_ylim(bottom=0)
    if len(rates) == 1:
        (rate,) = rates
        axes.set_ylim(0, 1.25 * rate or 1)
        text = f"{rate:.4g}" + (", constant" if len(points) > 1 else "")
        axes.annotate(text, (points[0][0], rate), (6, 6), textcoords="offset points", color=INK)


def _learning_rates(history: History) -> Points:
    return sorted([*history.step_series("lr"), *history.series("lr")])


def _line(axes: Axes, points: Points, *, style: int, label: str = "", marker: str | None = None) -> None:
    if not points:
        return
    # After the last color, the first one comes with the second dash.
    look = (style + style // len(SERIES)) % len(SERIES)
    axes.plot(
        *zip(*points, strict=True),
        color=SERIES[style % len(SERIES)],
        linestyle=_DASHES[look],
        marker=_MARKERS[look] if marker is None else marker,
        markersize=4.5,
        markevery=max(1, len(points) // 8),
        linewidth=1.8,
        label=legend_name(label),
        zorder=3,
    )


def _star(axes: Axes, points: Points, epoch: int | None, *, style: int, label: str = "") -> None:
    """Mark the value of an epoch."""
    for x, y in points:
        if x == epoch:
            color = SERIES[style % len(SERIES)]
            axes.plot(x, y, "*", markersize=13, color=color, markeredgecolor=INK, label=label, zorder=5)


def _finish(axes: Axes, name: str, *, num_epochs: int, title: str = "", beside: Sequence[Axes] = ()) -> None:
    """Scales, ticks and labels of a panel.

    Args:
        beside: the panels, this one among them, that get one scale, so that their lines can be compared.
    """
    import numpy as np
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    lines = [line for one in (beside or [axes]) for line in one.get_lines()]
    values: list[float] = [y for line in lines for y in np.asarray(line.get_ydata()) if not math.isnan(y)]
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    logarithmic = "loss" in name and bool(values) and min(values) > 0 and max(values) / min(values) > LOG_FROM_RATIO
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) / min(values) < 300 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    finite = [value for value in values if math.isfinite(value)]
    if len(beside) > 1 and finite and min(finite) < max(finite):
        low, high = min(finite), max(finite)
        margin = 0.05 * (high - low)
        axes.set_ylim(*((low / 1.15, high * 1.15) if logarithmic else (low - margin, high + margin)))
    # matplotlib's own formatters would typeset formulas.
    axes.yaxis.set_major_formatter(
        (lambda value, position: f"{100 * value:.4g} %") if is_rate(name) else (lambda value, position: f"{value:.4g}")
    )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlim(0, num_epochs * 1.02 if num_epochs > 1 else 2)
    directions = {"max": " (higher is better)", "min": " (lower is better)"}
    direction = "" if name == "lr" else directions[better(name)]
    style_axes(axes, title=f"{title or title_of(name)}{direction}".strip(), xlabel="epoch", grid="y")
    if axes.get_legend_handles_labels()[0]:
        add_legend(axes, ncols=1 if len(axes.get_lines()) <= 8 else 3)


def _describe(history: History, name: str) -> str:
    if name == "lr":
        rates = [rate for _, rate in _learning_rates(history)]
        if len(set(rates)) == 1:
            return f"{rates[0]:.4g} throughout."
        return f"From {rates[0]:.3g} to {rates[-1]:.3g}; at most {max(rates):.3g}." if rates else ""
    texts = []
    for split in ("train", "val"):
        points = history.series(f"{split}_{name}")
        if points:
            first, last = metric_text(name, points[0][1]), metric_text(name, points[-1][1])
            texts.append(f"{SPLITS[split]}: {first} after the first epoch, {last} after the last")
    best = history.best_epoch
    return "; ".join(texts) + (f"; best epoch {best}." if best is not None else ".")


def capitalized(text: str) -> str:
    """``ROC AUC`` stays as it is."""
    return text[:1].upper() + text[1:]


def sparkline(values: Sequence[float], *, width: int = 32, blocks: str = BLOCKS) -> str:
    """The values as a row of bars, the lowest value the lowest bar; at most ``width`` wide, by means of neighbors.

    A value that is not finite is a blank.
    """
    shown = _squeezed(values, width)
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = (high - low) / (len(blocks) - 1) or math.inf
    return "".join(blocks[round((value - low) / step)] if math.isfinite(value) else " " for value in shown)


def _squeezed(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [len(values) * index // width for index in range(width + 1)]
    groups = [
        [value for value in values[start:end] if math.isfinite(value)] for start, end in itertools.pairwise(edges)
    ]
    return [sum(group) / len(group) if group else math.nan for group in groups]
