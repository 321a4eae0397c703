"""Learning curves as a picture: loss, metric and learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.recorders.history import History, Points, history_of, is_rate, main_metric, title_of
from trainkit.reports.figures import new_figure, save_figure
from trainkit.wording import better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour-blindness can tell apart; each comes with a dash and a marker.
STYLES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#8A6D00", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("#3B3B98", (0, (8, 2)), "P"),
    ("#7F7F7F", (0, (1, 1)), "X"),
)
LOG_FROM_RATIO = 30.0


def write_learning_curves(path: Path, records: Sequence[Mapping[str, Any]], *, title: str) -> bool:
    """Draw the learning curves of a run into a PNG file. Returns whether there was anything to draw.

    Args:
        records: the lines of ``metrics.jsonl``.
        title: stands above the picture, such as the name of the run.

    Raises:
        durable.WriteError: the file cannot be written.
    """
    history = history_of(records)
    if not history.epochs:
        return False
    metric = main_metric(history.metric_names())
    figure, axes = _panels(2 if metric is None else 3)
    _draw_loss(axes[0], history)
    if metric is not None:
        _draw_metric(axes[1], history, metric)
    _draw_learning_rate(axes[-1], history)
    for axis in axes:
        _finish(axis, num_epochs=len(history), best=history.best_epoch)
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False)
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", weight="bold")
    save_figure(figure, path)
    return True


def write_overlay(path: Path, histories: Mapping[str, History], *, metric: str) -> bool:
    """Draw one metric and the loss of several runs, by label, over each other. Returns whether there was anything."""
    panels = [name for name in dict.fromkeys((metric, "val_loss", "train_loss")) if _anyone_has(histories, name)][:2]
    if not panels:
        return False
    figure, axes = _panels(len(panels))
    for axis, name in zip(axes, panels, strict=True):
        lines = {label: history.series(name) for label, history in histories.items()}
        for (label, points), style in zip(lines.items(), _cycled(len(lines)), strict=True):
            _line(axis, points, label=label, style=style)
            best = histories[label].best_epoch
            axis.plot(*_at(points, best), marker="*", markersize=15, color=style[0], markeredgecolor="black")
        axis.set_title(f"{title_of(name)} ({_split(name)}, {_better(name)})", loc="left", fontsize=10)
        _scale(axis, name, list(lines.values()))
        _finish(axis, num_epochs=max(map(len, histories.values())), best=None)
    axes[0].legend(frameon=False, fontsize=8, title="star: best epoch", title_fontsize=8)
    save_figure(figure, path)
    return True


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side, with margins that hold what is drawn here: to work them out takes as long as to draw."""
    width, height = 4.6 * count, 3.9
    figure = new_figure(width, height)
    figure.set_layout_engine(None)
    sides = {"left": 0.68 / width, "right": 1 - 0.15 / width, "bottom": 0.52 / height, "top": 1 - 0.62 / height}
    figure.subplots_adjust(**sides, wspace=0.2)
    return figure, [figure.add_subplot(1, count, index + 1) for index in range(count)]


def _draw_loss(axis: Axes, history: History) -> None:
    steps = history.step_series("loss")
    if len(steps) > 2 * len(history):  # fewer would draw a line that was never there
        axis.plot(*zip(*steps, strict=True), color="0.75", linewidth=0.8, label="batches while training", zorder=1)
    lines = {"training": history.series("train_loss"), "validation": history.series("val_loss")}
    for (label, points), style in zip(lines.items(), STYLES, strict=False):
        _line(axis, points, label=label, style=style)
    axis.set_title("loss (mean over samples, lower is better)", loc="left", fontsize=10)
    _scale(axis, "loss", list(lines.values()))


def _draw_metric(axis: Axes, history: History, metric: str) -> None:
    lines = [history.series(f"{split}_{metric}") for split in ("train", "val")]
    for label, points, style in zip(("training", "validation"), lines, STYLES, strict=False):
        _line(axis, points, label=label, style=style)
    best = history.best_epoch
    score = history.best_value(f"val_{metric}")
    if best is not None and score == score:
        text = f"{100 * score:.2f} %" if is_rate(metric) else f"{score:.4g}"
        axis.plot([best], [score], marker="*", markersize=15, color=STYLES[1][0], markeredgecolor="black", zorder=5)
        below = better(metric) == "max"
        axis.annotate(
            f"best: {text}\nepoch {best}",
            (best, score),
            xytext=(0, -34 if below else 16),
            textcoords="offset points",
            ha="right" if best > len(history) / 2 else "left",
            fontsize=9,
        )
    axis.set_title(f"{title_of(metric)} ({_better(metric)})", loc="left", fontsize=10)
    _scale(axis, metric, lines)


def _draw_learning_rate(axis: Axes, history: History) -> None:
    points = sorted([*history.step_series("lr"), *history.series("lr")])
    _line(axis, points, label="learning rate", style=("#333333", "-", ""))
    axis.set_title("learning rate", loc="left", fontsize=10)
    axis.yaxis.set_major_formatter(lambda value, position: f"{value:.3g}")


def _line(axis: Axes, points: Points, *, label: str, style: tuple[Any, ...]) -> None:
    if not points:
        return
    color, dash, marker = style
    every = max(1, len(points) // 8)
    axis.plot(
        *zip(*points, strict=True),
        color=color,
        linestyle=dash,
        marker=marker,
        markersize=4.5,
        markevery=every,
        linewidth=1.8,
        label=label,
        zorder=3,
    )


def _scale(axis: Axes, name: str, lines: Sequence[Points]) -> None:
    from matplotlib.ticker import PercentFormatter

    values = [y for points in lines for _, y in points]
    if is_rate(name):
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif "loss" in name and values and min(values) > 0 and max(values) / min(values) > LOG_FROM_RATIO:
        axis.set_yscale("log")


def _finish(axis: Axes, *, num_epochs: int, best: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if best is not None:
        axis.axvline(best, color="0.4", linewidth=0.9, linestyle=(0, (2, 3)), zorder=2)
    axis.set_xlabel("epoch" + (f" (dotted: the best, {best})" if best is not None else ""), fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if num_epochs > 1:
        axis.set_xlim(0, num_epochs * 1.02)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _cycled(count: int) -> list[tuple[Any, ...]]:
    return [STYLES[index % len(STYLES)] for index in range(count)]


def _at(points: Points, epoch: int | None) -> tuple[list[float], list[float]]:
    found = [(x, y) for x, y in points if x == epoch]
    return [x for x, _ in found], [y for _, y in found]


def _anyone_has(histories: Mapping[str, History], name: str) -> bool:
    return any(history.series(name) for history in histories.values())


def _better(metric: str) -> str:
    return "higher is better" if better(metric) == "max" else "lower is better"


def _split(metric: str) -> str:
    return {"val": "validation", "train": "training"}.get(metric.split("_")[0], "")
