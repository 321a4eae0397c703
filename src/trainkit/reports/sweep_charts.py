"""Figures of a sweep: scores by trial, importance, slices, parallel coordinates, the confirmed ranking."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from trainkit.recorders import is_rate, title_of
from trainkit.reports.curves import capitalized
from trainkit.reports.figures import (
    INK,
    SERIES,
    SOFT,
    Chart,
    chart_of,
    new_figure,
    new_panels,
    plain,
    short_name,
    style_axes,
)
from trainkit.reports.sweep_data import Searched, SweepData, SweptTrial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE = SERIES[0], SERIES[1]
_LETTERS = 42
"""Letters that fit below a panel."""
_COLUMN = 1.55
"""Inches between two lines of the parallel coordinates."""
_WIDE = 9.3
"""Inches of a figure as wide as the page."""
MAX_COLUMNS = 10
_MARKERS = ("o", "s", "^", "D", "v", "P")


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """``lr`` for ``optimizer.lr``; the whole path where another one ends alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def draw_sweep(data: SweepData) -> tuple[list[Chart], Chart | None]:
    """The charts of a sweep, and the wide one of parallel coordinates; those that have nothing to show are left out."""
    charts = [_draw_history(data)]
    if data.confirmed:
        charts.append(_draw_confirmed(data))
    if data.importance:
        charts.append(_draw_importance(data))
    if any(len(trial.curve) > 1 for trial in data.trials):
        charts.append(_draw_curves(data))
    several = len(data.known) > 1
    if several:
        charts += [_draw_slice(data, one) for one in data.searched]
    return charts, _draw_parallel(data) if several and data.searched else None


def _score_axis(axes: Axes, data: SweepData) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
    rate = is_rate(data.objective)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %" if rate else f"{value:.4g}")


def _panel(title: str, xlabel: str, data: SweepData) -> tuple[Any, Axes]:
    figure, (axes,) = new_panels(1)
    _score_axis(axes, data)
    style_axes(axes, title=title, xlabel=xlabel, grid="y")
    return figure, axes


def left_out(data: SweepData) -> list[SweptTrial]:
    """Trials so much worse than most that the others could not be told apart beside them."""
    low, high = _limits(data)
    return [one for one in data.known if not low <= data.reached[one.number] <= high]


def _limits(data: SweepData) -> tuple[float, float]:
    """The scale of scores: from the best down to 2.5 times as far as the median, or to the worst."""
    scores = list(data.reached.values())
    best, median, worst = scores[0], scores[len(scores) // 2], scores[-1]
    reach = min(abs(best - worst), 2.5 * abs(best - median)) or abs(best - worst) or 0.01 * abs(best) or 1.0
    low, high = sorted((best - data.sign * 1.08 * reach, best + data.sign * 0.08 * reach))
    return low, high


def _draw_history(data: SweepData) -> Chart:
    title = f"{title_of(data.objective)} by trial"
    figure, axes = _panel(title, "trial", data)
    by_number = sorted(data.scored, key=lambda one: one.number)
    scores = [float(one.score or 0.0) for one in by_number]
    cut = [one for one in data.trials if one.score is None and one.curve]
    ends = [data.reached.get(one.number, math.nan) for one in cut]
    if scores:
        axes.plot([one.number for one in by_number], scores, "o", color=_BLUE, markersize=5, label="trained to the end")
        best = list(itertools.accumulate(scores, max if data.maximize else min))
        axes.step(
            [one.number for one in by_number], best, where="post", color=_ORANGE, linewidth=1.8, label="best so far"
        )
        low, high = _limits(data)
        room = 0.28 * (high - low)  # for the legend
        axes.set_ylim(low - room * data.maximize, high + room * (not data.maximize))
    if cut:
        axes.plot(
            [one.number for one in cut], ends, "o", color=SOFT, fillstyle="none", markersize=5, label="not to the end"
        )
    failed = [one.number for one in data.trials if one.state == "failed"]
    if failed:
        edge = axes.get_xaxis_transform()
        axes.plot(
            failed,
            [0.02 if data.maximize else 0.98] * len(failed),
            "x",
            color=INK,
            transform=edge,
            markersize=6,
            label="failed",
        )
    numbers = [one.number for one in data.trials]
    axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
    _whole_numbers(axes)
    _add_legend(axes, data, columns=2)
    best_score = next((one.score for one in data.trials if one.number == data.best), None)
    description = f"Best: trial {data.best} with {data.text(best_score)}."
    return chart_of(figure, axes, title=capitalized(title), description=description)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))


def _draw_curves(data: SweepData) -> Chart:
    title = f"{title_of(data.objective)} by epoch"
    figure, axes = _panel(title, "epoch", data)
    top = {one.number for one in data.scored[: max(1, len(data.scored) // 10)]}
    for one in sorted(data.trials, key=lambda one: (one.number == data.best, one.number in top)):
        points = [(epoch, value) for epoch, value in sorted(one.curve.items()) if math.isfinite(value)]
        if not points:
            continue
        color, width = (_ORANGE, 2.2) if one.number == data.best else (_BLUE, 1.4) if one.number in top else (SOFT, 0.8)
        alpha = 1.0 if one.number in top or one.number == data.best else 0.55
        alone = "." if len(points) == 1 else ""  # a line of one point cannot be seen
        axes.plot(*zip(*points, strict=True), marker=alone, color=color, linewidth=width, alpha=alpha)
    _whole_numbers(axes)
    if data.scored:
        axes.set_ylim(*_limits(data))
    description = f"A line a trial; the best trial, {data.best}, is the thick one."
    return chart_of(figure, axes, title=f"{capitalized(title)} (thick: the best)", description=description)


def _draw_importance(data: SweepData) -> Chart:
    shown = sorted(data.importance.items(), key=lambda pair: -pair[1])[:8]
    figure, (axes,) = new_panels(1)
    for row, (key, share) in enumerate(shown):
        axes.barh(row, share, height=0.38, color=_BLUE)
        axes.text(0.0, row - 0.3, f" {plain(key)}: {100 * share:.0f} %", fontsize=9, color=INK, va="bottom")
    axes.set_ylim(len(shown) - 0.4, -0.85)
    axes.set_yticks([])
    axes.set_xlim(0, max(share for _, share in shown) * 1.05 or 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    style_axes(axes, title="importance", xlabel="share of the differences between trials", grid="x")
    texts = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shown)
    return chart_of(figure, axes, title="Importance (fANOVA)", description=f"{texts}.")


def _draw_confirmed(data: SweepData) -> Chart:
    figure, (axes,) = new_panels(1)
    rate = is_rate(data.objective)
    for row, one in enumerate(data.confirmed):
        color = _BLUE if one.verdict != "worse" else SOFT
        axes.plot([one.low, one.high], [row, row], color=color, linewidth=2.2, solid_capstyle="butt")
        axes.plot(one.scores, [row] * len(one.scores), "|", color=INK, markersize=8)
        axes.plot(one.mean, row, "o", color=color, markersize=7)
        axes.text(
            0.02,
            row - 0.24,
            f"trial {one.number}: {data.text(one.mean)}, {one.verdict}",
            transform=axes.get_yaxis_transform(),
            fontsize=9,
            color=INK,
            va="bottom",
        )
    axes.set_ylim(len(data.confirmed) - 0.5, -0.85)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %" if rate else f"{value:.4g}")
    xlabel = f"{title_of(data.objective)}: seeds, mean, 95 % interval"
    style_axes(axes, title="confirmed", xlabel=xlabel, grid="x")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    texts = "; ".join(f"trial {one.number}: {data.text(one.mean)}, {one.verdict}" for one in data.confirmed)
    return chart_of(figure, axes, title="Confirmed with other seeds", description=f"{texts}.")


def _draw_slice(data: SweepData, searched: Searched) -> Chart:
    """The score against one of the values; hollow: what a trial reached that was not trained to its end."""
    from matplotlib.ticker import LogLocator

    figure, axes = _panel(searched.key, searched.key, data)
    trials = [one for one in data.known if searched.key in one.values]
    reached = data.reached
    _draw_points(axes, data, searched, [(one, _spread(searched, one, data), reached[one.number]) for one in trials])
    if searched.names:
        count = len(searched.names)
        letters = max(3, _LETTERS // count)
        axes.set_xticks(range(count), [short_name(name, letters) for name in searched.names])
        axes.set_xlim(-0.5, count - 0.5)
        axes.tick_params(axis="x", labelsize=9)
    elif searched.logarithmic:
        axes.set_xscale("log")
        places = [float(one.values[searched.key]) for one in trials]
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(places) / min(places) < 100 else (1,)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    best = next((one for one in trials if one.number == data.best), None)
    described = f"Best at {searched.text(best.values[searched.key])}." if best is not None else ""
    return chart_of(figure, axes, title=searched.key, description=described)


def _draw_points(
    axes: Axes, data: SweepData, searched: Searched, points: Sequence[tuple[SweptTrial, float, float]]
) -> None:
    """A point a trial, in a color and a shape for each name of the choice that matters most."""
    apart = _main_choice(data)
    groups = [""] if apart is None or apart is searched else apart.names
    key = "" if apart is None else apart.key
    for index, name in enumerate(groups):
        of_group = [point for point in points if len(groups) == 1 or point[0].values.get(key) == index]
        for whole in (True, False):
            places = [(x, y) for one, x, y in of_group if (one.score is not None) is whole]
            if not places:
                continue
            look: dict[str, Any] = {"color": SERIES[index], "marker": _MARKERS[index], "label": short_name(name, 14)}
            if any(label == look["label"] for label in axes.get_legend_handles_labels()[1]):
                look["label"] = ""
            filled: Literal["full", "none"] = "full" if whole else "none"
            axes.plot(*zip(*places, strict=True), linestyle="", markersize=5, alpha=0.8, fillstyle=filled, **look)
    low, high = _limits(data)
    columns = 3 if sum(min(14, len(name)) for name in groups) <= 32 else 2
    rows = math.ceil(len(groups) / columns) if len(groups) > 1 else 0
    room = (0.1 + 0.12 * rows) * (high - low) if rows else 0.0  # for the legend
    axes.set_ylim(low - room * data.maximize, high + room * (not data.maximize))
    for one, x, y in points:
        if one.number == data.best:
            axes.plot(x, y, "*", markersize=13, color=_ORANGE, markeredgecolor=INK, zorder=5)
    if len(groups) > 1:
        _add_legend(axes, data, columns=columns)


def _main_choice(data: SweepData) -> Searched | None:
    """The choice between names that explains most of the differences, if there is one with few names."""
    named = [one for one in data.searched if 1 < len(one.names) <= len(_MARKERS) and not _are_numbers(one.names)]
    return max(named, key=lambda one: data.importance.get(one.key, 0.0), default=None)


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdecimal() for name in names)


def _add_legend(axes: Axes, data: SweepData, *, columns: int) -> None:
    """Where the worst scores would be: there, the scale has room for it."""
    where: Literal["lower center", "upper center"] = "lower center" if data.maximize else "upper center"
    close = {"handletextpad": 0.4, "columnspacing": 1.2, "borderaxespad": 0.6}
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc=where, ncols=columns, **close)


def _spread(searched: Searched, trial: SweptTrial, data: SweepData) -> float:
    """The place of a point: of a choice beside each other in the order of the trials, so that equal ones show."""
    value = trial.values[searched.key]
    if not searched.names:
        return float(value)
    return float(value) + 0.5 * (trial.number / max(1, len(data.trials) - 1) - 0.5)


def _draw_parallel(data: SweepData) -> Chart:
    """A line a trial through its values and its score."""
    searched = [one for one in data.searched if all(one.key in trial.values for trial in data.known)]
    by_importance = sorted(searched, key=lambda one: -data.importance.get(one.key, 0.0))[:MAX_COLUMNS]
    shown = [one for one in searched if one in by_importance]
    figure = new_figure(max(_COLUMN * (len(shown) + 1.1), _WIDE), 3.5, constrained=False)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), facecolor="none")
    names = short_keys([one.key for one in shown])
    spans = [_span(one, data) for one in shown]
    outside = left_out(data)
    scores = [data.reached[one.number] for one in data.known if one not in outside]
    low, high = min(scores), max(scores)
    top = {one.number for one in data.known[: max(1, math.ceil(len(data.known) / 5))]}
    for one in reversed(data.known):
        heights = [
            (item.at(one.values[item.key]) - start) / (end - start)
            for item, (start, end) in zip(shown, spans, strict=True)
        ]
        place = 0.5 if high == low else (data.reached[one.number] - low) / (high - low)
        heights.append(min(1.0, max(0.0, place)))
        color, line = (_ORANGE, 2.6) if one.number == data.best else (_BLUE, 1.5) if one.number in top else (SOFT, 0.8)
        look: dict[str, Any] = {"linewidth": line, "linestyle": ":" if one.score is None else "-"}
        axes.plot(range(len(heights)), heights, color=color, alpha=1.0 if one.number in top else 0.5, **look)
    for index, (item, span) in enumerate(zip(shown, spans, strict=True)):
        axes.plot([index, index], [0, 1], color=INK, linewidth=0.9)
        axes.text(index, 1.05, short_name(names[item.key], 18), ha="center", fontsize=9.5, color=INK, weight="bold")
        for place, text in _marks(item, span):
            axes.text(index + 0.04, place, short_name(text, 16), fontsize=8.5, color=INK, va="center")
    axes.plot([len(shown)] * 2, [0, 1], color=INK, linewidth=0.9)
    axes.text(len(shown), 1.05, plain(title_of(data.objective)), ha="center", fontsize=9.5, color=INK, weight="bold")
    for place, value in ((0.0, low), (1.0, high)):
        axes.text(len(shown) + 0.04, place, data.text(value), fontsize=8.5, color=INK, va="center")
    axes.set_axis_off()
    axes.set_xlim(-0.5, len(shown) + 0.6)
    axes.set_ylim(-0.05, 1.13)
    dotted = "; dotted: not to the end" if len(data.scored) < len(data.known) else ""
    title = f"Values of each trial (orange: the best; blue: the best fifth{dotted})"
    described = "The values stand in the table of trials."
    return chart_of(figure, axes, title=title, description=described, around=(0.0, 0.0, 0.0, 0.0))


def _span(searched: Searched, data: SweepData) -> tuple[float, float]:
    if searched.names:
        return -0.25, len(searched.names) - 0.75
    places = [searched.at(one.values[searched.key]) for one in data.known]
    low, high = min(places), max(places)
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _marks(searched: Searched, span: tuple[float, float]) -> list[tuple[float, str]]:
    """Heights and texts beside a line."""
    low, high = span
    if searched.names:
        return [((index - low) / (high - low), name) for index, name in enumerate(searched.names)]
    places = [low, (low + high) / 2, high]
    values = [10**place if searched.logarithmic else place for place in places]
    return [(height, f"{value:.3g}") for height, value in zip((0.0, 0.5, 1.0), values, strict=True)]
