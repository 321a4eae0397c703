"""Pictures of an evaluation: confusion, calibration, the samples that were most confidently wrong, residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.reports.figures import BLUE, GRID, INK, ORANGE, RED, new_figure, save_figure, short_name, style_axes
from trainkit.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES_WITH_NUMBERS = 20
MAX_CLASS_TICKS = 40
MAX_POINTS = 5000
MAX_TARGET_ROWS = 6


@dataclass(frozen=True)
class WrongSample:
    """A sample that was taken for another class."""

    image: NDArray[np.uint8]
    """uint8 (C, H, W), as the model saw it before it was normalised."""
    true: str
    predicted: str
    probability: float
    """Of the predicted class."""
    name: str = ""
    """What it is called in the data."""


def plot_confusion(
    path: Path, confusion: NDArray[np.int64], class_names: Sequence[str], *, title: str = "Confusion matrix"
) -> Path:
    """Rows are the true classes, columns the predicted ones: int64 (K, K). Shades are shares of the true class.

    Up to 20 classes, the counts stand in the cells; beyond that the mistakes alone are shaded, so that they show.
    """
    from matplotlib import colormaps
    from matplotlib.ticker import PercentFormatter

    counts = np.asarray(confusion, dtype=np.int64)
    num_classes = len(counts)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    small = num_classes <= MAX_CLASSES_WITH_NUMBERS
    side = max(4.2, 0.52 * num_classes + 1.8) if small else 8.5
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    shown = shares if small else np.where(np.eye(num_classes, dtype=bool), np.nan, shares)
    top = 1.0 if small else max(float(np.nanmax(shown)), 1e-9)
    shades = colormaps["Blues"].with_extremes(bad=GRID)
    picture = axes.imshow(shown, cmap=shades, vmin=0, vmax=top, interpolation="nearest")
    if small:
        _write_counts(axes, counts, shares)
    names = [short_name(name) for name in class_names]
    ticks = range(0, num_classes, math.ceil(num_classes / MAX_CLASS_TICKS))
    turned = max((len(names[tick]) for tick in ticks), default=0) > 3
    axes.set_xticks(list(ticks), [names[tick] for tick in ticks], rotation=90 if turned else 0)
    axes.set_yticks(list(ticks), [names[tick] for tick in ticks])
    accuracy = np.trace(counts) / max(1, counts.sum())
    style_axes(
        axes,
        title=f"{title}\n{np.trace(counts):,} of {counts.sum():,} right ({accuracy:.2%})",
        xlabel="predicted class",
        ylabel="true class",
        grid=None,
    )
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.05 else 1))
    bar.set_label("share of the true class" if small else "mistakes: share of the true class", fontsize=10)
    bar.ax.tick_params(labelsize=9)
    return save_figure(figure, path)


def _write_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    size = 9 if counts.max() < 10_000 else 7
    for row, column in np.ndindex(*counts.shape):
        count = int(counts[row, column])
        color = "white" if shares[row, column] > 0.55 else INK if count else "#b5b5b5"
        weight = "bold" if row != column and count else "normal"
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=size, color=color, weight=weight)


def plot_reliability(
    path: Path,
    confidence: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    counts: NDArray[np.int64],
    *,
    error: float,
    title: str = "Reliability",
) -> Path:
    """How often the model is right where it says that it is so sure.

    Args:
        confidence: mean probability of the predicted class by bin, (B,); NaN for an empty bin.
        accuracy: share of right predictions by bin, (B,).
        counts: samples by bin, (B,). The bins are of equal width over [0, 1].
        error: the expected calibration error.
    """
    from matplotlib.ticker import PercentFormatter

    num_bins = len(counts)
    edges = np.linspace(0, 1, num_bins + 1)
    filled = counts > 0
    figure = new_figure(5.4, 6.0)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], linestyle="--", color=INK, linewidth=1, label="perfectly calibrated")
    bars = {"width": 1 / num_bins, "align": "edge", "linewidth": 0.8}
    axes.bar(
        edges[:-1][filled],
        accuracy[filled],
        color=BLUE,
        edgecolor="white",
        alpha=0.85,
        label="measured accuracy",
        **bars,
    )
    axes.plot(
        confidence[filled],
        accuracy[filled],
        "o",
        color=ORANGE,
        markeredgecolor=INK,
        markersize=5,
        clip_on=False,
        label="at the mean probability",
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    style_axes(axes, title=f"{title}\nexpected calibration error {error:.2%}", ylabel="share that is right")
    below.bar(edges[:-1], counts, color=BLUE, edgecolor="white", **bars)
    style_axes(below, xlabel="probability of the predicted class", ylabel="samples", grid="y")
    if filled.any() and counts.max() > 100 * counts[filled].min():
        below.set_yscale("log")
        below.set_ylim(bottom=0.7)  # a bin of one sample has a bar too
        below.set_ylabel("samples (log)", fontsize=10)
    for one in (axes.xaxis, axes.yaxis):
        one.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return save_figure(figure, path)


def plot_wrong_samples(
    path: Path, samples: Sequence[WrongSample], *, num_wrong: int | None = None, title: str = "Most confidently wrong"
) -> Path:
    """A grid of at most 25 pictures, each with its true class, the one it was taken for and how sure the model was.

    Args:
        num_wrong: how many samples were wrong in all.
    """
    shown = list(samples[:25])
    columns = max(1, min(5, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(max(4.0, 1.9 * columns), 2.35 * rows + 0.5)
    total = len(samples) if num_wrong is None else num_wrong
    heading = f"{title}: {len(shown)} of {total:,} mistakes" if shown else f"{title}: no mistakes"
    figure.suptitle(heading, fontsize=11, color=INK, x=0.02, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, sample in zip(grid.flat, shown, strict=False):
        _show_image(axes, sample.image)
        axes.set_title(
            f"true: {short_name(sample.true)}\ntaken for: {short_name(sample.predicted)}\n"
            f"{percent(sample.probability)} sure{sample.name and ', '}{short_name(sample.name, 15)}",
            fontsize=8,
            color=INK,
            loc="left",
        )
    return save_figure(figure, path)


def _show_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    nearest = max(pixels.shape[:2]) < 128
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if nearest else "antialiased")


def plot_residuals(
    path: Path,
    predictions: NDArray[Any],
    targets: NDArray[Any],
    target_names: Sequence[str],
    *,
    title: str = "Residuals",
) -> Path:
    """For each target: predicted against true, residuals against predicted, and how the residuals are spread.

    Args:
        predictions: (N, T), in the units of the targets.
        targets: (N, T).

    A random 5,000 points are drawn of more; the histogram holds all of them. The first 6 targets are shown.
    """
    names = list(target_names)[:MAX_TARGET_ROWS]
    figure = new_figure(11.5, 3.5 * len(names) + 0.4)
    more = f" (the first {len(names)} of {len(target_names)} targets)" if len(names) < len(target_names) else ""
    figure.suptitle(f"{title}, {len(targets):,} samples{more}", fontsize=11, color=INK, x=0.02, ha="left")
    grid = figure.subplots(len(names), 3, squeeze=False)
    picks = np.arange(len(targets))
    if len(picks) > MAX_POINTS:
        picks = np.sort(np.random.default_rng(0).choice(picks, MAX_POINTS, replace=False))
    for column, (name, row) in enumerate(zip(names, grid, strict=True)):
        predicted = np.asarray(predictions[:, column], dtype=np.float64)
        true = np.asarray(targets[:, column], dtype=np.float64)
        _plot_residual_row(row, predicted, true, picks, short_name(name, 30))
    return save_figure(figure, path)


def _plot_residual_row(
    row: Sequence[Axes], predicted: NDArray[np.float64], true: NDArray[np.float64], picks: NDArray[np.int64], name: str
) -> None:
    from matplotlib.ticker import MaxNLocator

    residuals = predicted - true
    dots: dict[str, Any] = {
        "s": 14 if len(picks) < 1000 else 6,
        "color": BLUE,
        "alpha": 0.6 if len(picks) < 1000 else 0.3,
        "linewidths": 0,
    }
    left, middle, right = row
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    left.plot([low, high], [low, high], linestyle="--", color=INK, linewidth=1, label="predicted = true")
    left.scatter(true[picks], predicted[picks], **dots)
    left.legend(fontsize=8, frameon=False, loc="upper left")
    style_axes(left, title="Predicted against true", xlabel=f"true {name}", ylabel=f"predicted {name}")
    middle.axhline(0, linestyle="--", color=INK, linewidth=1)
    middle.scatter(predicted[picks], residuals[picks], **dots)
    style_axes(middle, title="Residuals", xlabel=f"predicted {name}", ylabel="predicted - true")
    mean = float(residuals.mean())
    # A model that is off by the same amount everywhere has no spread to divide into bins.
    reach = max(float(np.abs(residuals - mean).max()), 1e-6 * (abs(mean) + float(np.abs(true).max())), 1e-12)
    bins = np.linspace(mean - reach, mean + reach, 1 + min(50, max(5, round(2 * len(residuals) ** (1 / 3)))))
    right.hist(residuals, bins=bins.tolist(), color=BLUE, edgecolor="white")
    right.axvline(0, linestyle="--", color=INK, linewidth=1, label="no error")
    right.axvline(mean, color=RED, linewidth=1.5, label=f"mean {mean:.3g}")
    right.legend(fontsize=8, frameon=False)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(right, title="Spread of the residuals", xlabel="predicted - true", ylabel="samples", grid="y")
