"""Learning curves: loss, metric and learning rate over the epochs, of one run or of several over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.recorders import History, Points, is_rate, main_metric, metric_text, title_of
from trainkit.reports.figures import (
    INK,
    SERIES,
    SOFT,
    Drawing,
    add_legend,
    chart_of,
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


def draw_learning_curves(history: History, *, title: str, loss: str = "loss") -> Drawing | None:
    """The loss, the metric that says most, and the learning rate of a run; None where it has no epoch.

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
            _draw_learning_rate(axes, history)
        else:
            _draw_splits(axes, history, name)
        _finish(axes, name, num_epochs=len(history))
        _mark_best(axes, history.best_epoch)
    titles = {"loss": f"Loss ({loss}, mean over samples)", "accuracy": "Accuracy (share of samples)"}
    charts = [
        chart_of(
            figure,
            axes,
            title=titles.get(name, _capitalized(title_of(name))),
            description=_described(history, name),
        )
        for axes, name in zip(panels, names, strict=True)
    ]
    return Drawing(figure, charts)


def draw_overlay(histories: Mapping[str, History], *, metric: str) -> Drawing | None:
    """One metric and the losses of several runs, by label, over each other; None where no run has any."""
    wanted = dict.fromkeys((metric, "val_loss", "train_loss"))
    names = [name for name in wanted if any(history.series(name) for history in histories.values())]
    if not names:
        return None
    figure, panels = new_panels(len(names))
    charts = []
    for axes, name in zip(panels, names, strict=True):
        lines = {label: history.series(name) for label, history in histories.items()}
        for index, (label, points) in enumerate(lines.items()):
            # Many long names would cover the lines.
            _line(axes, points, label=label if len(lines) <= 4 else label.partition(" ")[0], style=index)
            _star(axes, points, histories[label].best_epoch, style=index)
        split = SPLITS.get(name.split("_")[0], "")
        _finish(axes, name, num_epochs=max(map(len, histories.values())), title=f"{split} {title_of(name)}")
        ends = "; ".join(f"{label}: {metric_text(name, at[-1][1])} at the end" for label, at in lines.items() if at)
        title = f"{_capitalized(split)} {title_of(name)} (star: best epoch)"
        charts.append(chart_of(figure, axes, title=title, description=f"{ends}."))
    return Drawing(figure, charts)


def _draw_splits(axes: Axes, history: History, name: str) -> None:
    steps = history.step_series("loss") if name == "loss" else []
    if len(steps) > 2 * len(history):  # fewer would draw a line that was never there
        axes.plot(*zip(*steps, strict=True), color=SOFT, alpha=0.5, linewidth=0.8, label="batches", zorder=1)
    for index, split in enumerate(("train", "val")):
        points = history.series(f"{split}_{name}")
        _line(axes, points, label=SPLITS[split], style=index)
    best = metric_text(name, history.best_value(f"val_{name}"))
    _star(axes, history.series(f"val_{name}"), history.best_epoch, style=1, label=f"best epoch: {best}")


def _draw_learning_rate(axes: Axes, history: History) -> None:
    points = sorted([*history.step_series("lr"), *history.series("lr")])
    _line(axes, points, style=0, marker="")
    axes.set_ylim(bottom=0)


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
        label=plain(label),
        zorder=3,
    )


def _star(axes: Axes, points: Points, epoch: int | None, *, style: int, label: str = "") -> None:
    """Mark the value of an epoch."""
    color = SERIES[style % len(SERIES)]
    look: dict[str, Any] = {
        "linestyle": "none",
        "marker": "*",
        "markersize": 13,
        "color": color,
        "markeredgecolor": INK,
    }
    for x, y in points:
        if x == epoch:
            axes.plot(x, y, label=label, zorder=5, **look)


def _mark_best(axes: Axes, epoch: int | None) -> None:
    if epoch is not None:
        axes.axvline(epoch, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), zorder=2)
        axes.set_xlabel(f"epoch (dotted: the best, {epoch})")


def _finish(axes: Axes, name: str, *, num_epochs: int, title: str = "") -> None:
    """Scales, ticks and labels of a panel."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    values = [value for line in axes.get_lines() for value in _known(line.get_ydata())]
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    if "loss" in name and values and min(values) > 0 and max(values) / min(values) > LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) / min(values) < 300 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    # matplotlib's own formatters would typeset formulas.
    axes.yaxis.set_major_formatter(
        (lambda value, position: f"{100 * value:.4g} %") if is_rate(name) else (lambda value, position: f"{value:.4g}")
    )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if num_epochs > 1:
        axes.set_xlim(0, num_epochs * 1.02)
    directions = {"max": " (higher is better)", "min": " (lower is better)"}
    direction = "" if name == "lr" else directions[better(name)]
    style_axes(axes, title=f"{title or title_of(name)}{direction}".strip(), xlabel="epoch", grid="y")
    if axes.get_legend_handles_labels()[0]:
        add_legend(axes, ncols=1 if len(axes.get_lines()) <= 8 else 3)


def _known(values: Any) -> Sequence[float]:
    return [value for value in values if value == value]


def _described(history: History, name: str) -> str:
    if name == "lr":
        rates = [rate for _, rate in sorted([*history.step_series("lr"), *history.series("lr")])]
        return f"From {rates[0]:.3g} to {rates[-1]:.3g}; at most {max(rates):.3g}." if rates else ""
    told = []
    for split in ("train", "val"):
        points = history.series(f"{split}_{name}")
        if points:
            first, last = metric_text(name, points[0][1]), metric_text(name, points[-1][1])
            told.append(f"{SPLITS[split]}: {first} after the first epoch, {last} after the last")
    best = history.best_epoch
    return "; ".join(told) + (f"; best epoch {best}." if best is not None else ".")


def _capitalized(text: str) -> str:
    """``ROC AUC`` stays as it is."""
    return text[:1].upper() + text[1:]
