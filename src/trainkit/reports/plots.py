"""Figures for the disk: confusion, calibration, residuals, wrong samples, and a preview of the random transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.reports.figures import (
    BLUE,
    GRID,
    INK,
    ORANGE,
    RED,
    Chart,
    add_heading,
    add_legend,
    chart_of,
    new_figure,
    new_panels,
    plain,
    save_figure,
    short_name,
    style_axes,
)
from trainkit.wording import counted, percent

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from trainkit.evaluation import Mistake, RegressionReport, Reliability

    Floats = NDArray[np.float64]

MAX_CLASSES_WITH_NUMBERS = 20
MAX_CLASS_TICKS = 40
MAX_POINTS = 5000
MAX_POINTS_ON_PAGE = 1000
MAX_TARGET_ROWS = 6
MAX_PICTURES = 25
PREVIEW_COLUMNS = 8


def plot_confusion(
    path: Path, confusion: NDArray[np.int64], class_names: Sequence[str], *, title: str = "Confusion matrix"
) -> Path:
    """Rows are the true classes, columns the predicted ones: int64 (K, K). Shades are shares of the true class.

    Up to 20 classes, the counts stand in the cells; beyond that the mistakes alone are shaded, so that they show.
    """
    import numpy as np
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
        title=f"{plain(title)}\n{np.trace(counts):,} of {counts.sum():,} right ({accuracy:.2%})",
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
    import numpy as np

    size = 9 if counts.max() < 10_000 else 7
    for row, column in np.ndindex(*counts.shape):
        count = int(counts[row, column])
        color = "white" if shares[row, column] > 0.55 else INK if count else "#b5b5b5"
        weight = "bold" if row != column and count else "normal"
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=size, color=color, weight=weight)


def plot_reliability(path: Path, reliability: Reliability, *, error: float, title: str = "Reliability") -> Path:
    """The share of right predictions against the probability of the predicted class.

    Args:
        error: the expected calibration error.
    """
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    confidence, accuracy, counts = reliability.confidence, reliability.accuracy, reliability.counts
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
    add_legend(axes, loc="upper left")
    style_axes(axes, title=f"{plain(title)}\nexpected calibration error {error:.2%}", ylabel="share that is right")
    below.bar(edges[:-1], counts, color=BLUE, edgecolor="white", **bars)
    style_axes(below, xlabel="probability of the predicted class", ylabel="samples", grid="y")
    if filled.any() and counts.max() > 100 * counts[filled].min():
        below.set_yscale("log")
        below.set_ylim(bottom=0.7)  # a bin of one sample has a bar too
        below.set_ylabel("samples (log)", fontsize=10)
    for one in (axes.xaxis, axes.yaxis):
        one.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return save_figure(figure, path)


def plot_residuals(path: Path, report: RegressionReport, *, title: str = "Residuals") -> Path:
    """For each target: predicted against true, residuals against predicted, and how the residuals are spread.

    A random 5,000 points are drawn of more; the histogram holds all of them. The first 6 targets are shown.
    """
    names = report.target_names[:MAX_TARGET_ROWS]
    figure = new_figure(11.5, 3.5 * len(names) + 0.4)
    total = len(report.target_names)
    more = f" (the first {len(names)} of {total} targets)" if len(names) < total else ""
    add_heading(figure, f"{title}, {counted(report.num_samples, 'sample')}{more}")
    grid = figure.subplots(len(names), 3, squeeze=False)
    picks = _picks(report.num_samples, MAX_POINTS)
    for column, (name, (left, middle, right)) in enumerate(zip(names, grid, strict=True)):
        predicted, true, shown = report.predictions[:, column], report.targets[:, column], short_name(name, 30)
        _draw_predicted(left, predicted, true, picks, shown)
        _draw_residuals(middle, predicted, predicted - true, picks, shown)
        _draw_spread(right, predicted - true, scale=float(abs(true).max()))
    return save_figure(figure, path)


def draw_predictions(report: RegressionReport, *, where: str) -> Chart:
    """Predicted against true values of the first target, for a page.

    Args:
        where: the split, as a sentence names it.
    """
    figure, (axes,) = new_panels(1)
    picks = _picks(report.num_samples, MAX_POINTS_ON_PAGE)
    name = report.target_names[0]
    _draw_predicted(axes, report.predictions[:, 0], report.targets[:, 0], picks, short_name(name, 30))
    return chart_of(
        figure,
        axes,
        title=f"Predicted against true: {name} ({where})",
        description=f"{counted(report.num_samples, 'sample')}; on the dashed diagonal a prediction is exact.",
    )


def _picks(num_samples: int, limit: int) -> NDArray[np.int64]:
    """Which samples are drawn: all, or a random choice of ``limit``."""
    import numpy as np

    picks = np.arange(num_samples)
    return picks if num_samples <= limit else np.sort(np.random.default_rng(0).choice(picks, limit, replace=False))


def _draw_predicted(axes: Axes, predicted: Floats, true: Floats, picks: NDArray[np.int64], name: str) -> None:
    ends = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    axes.plot(ends, ends, linestyle="--", color=INK, linewidth=1, label="predicted = true")
    _dots(axes, true[picks], predicted[picks])
    add_legend(axes, loc="upper left")
    style_axes(axes, title="Predicted against true", xlabel=f"true {name}", ylabel=f"predicted {name}")


def _draw_residuals(axes: Axes, predicted: Floats, residuals: Floats, picks: NDArray[np.int64], name: str) -> None:
    axes.axhline(0, linestyle="--", color=INK, linewidth=1)
    _dots(axes, predicted[picks], residuals[picks])
    style_axes(axes, title="Residuals", xlabel=f"predicted {name}", ylabel="predicted - true")


def _dots(axes: Axes, x: Floats, y: Floats) -> None:
    few = len(x) <= MAX_POINTS_ON_PAGE
    axes.plot(x, y, "o", color=BLUE, markersize=3.7 if few else 2.4, alpha=0.6 if few else 0.3, markeredgewidth=0)


def _draw_spread(axes: Axes, residuals: Floats, *, scale: float) -> None:
    """A histogram of residuals (N,) of a target whose values go up to ``scale``."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    mean = float(residuals.mean())
    # A model that is off by the same amount everywhere has no spread to divide into bins.
    reach = max(float(np.abs(residuals - mean).max()), 1e-6 * (abs(mean) + scale), 1e-12)
    bins = np.linspace(mean - reach, mean + reach, 1 + min(50, max(5, round(2 * len(residuals) ** (1 / 3)))))
    axes.hist(residuals, bins=bins.tolist(), color=BLUE, edgecolor="white")
    axes.axvline(0, linestyle="--", color=INK, linewidth=1, label="no error")
    axes.axvline(mean, color=RED, linewidth=1.5, label=f"mean {mean:.3g}")
    add_legend(axes)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(axes, title="Spread of the residuals", xlabel="predicted - true", ylabel="samples", grid="y")


def plot_wrong_samples(
    path: Path,
    mistakes: Sequence[Mistake],
    images: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    *,
    num_wrong: int,
) -> Path:
    """A grid of at most 25 pictures, each with its true class, the predicted one and its probability.

    Args:
        mistakes: the most confident ones first.
        images: by mistake, uint8 (C, H, W), before normalization.
        names: by mistake, the sample's name in the data.
        num_wrong: how many samples were wrong in all.
    """
    shown = list(zip(mistakes, images, names, strict=True))[:MAX_PICTURES]
    columns = max(1, min(5, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(max(4.0, 1.9 * columns), 2.35 * rows + 0.5)
    text = f"{len(shown)} of {num_wrong:,} mistakes" if shown else "no mistakes"
    add_heading(figure, f"Most confidently wrong: {text}")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (mistake, image, name) in zip(grid.flat, shown, strict=False):
        _show_image(axes, image, white=255)
        axes.set_title(
            f"true: {short_name(mistake.true)}\ntaken for: {short_name(mistake.predicted)}\n"
            f"{percent(mistake.probability)} sure, {short_name(name, 15)}",
            fontsize=8,
            color=INK,
            loc="left",
        )
    return save_figure(figure, path)


def plot_preview(
    path: Path,
    originals: NDArray[np.float32],
    augmented: Sequence[NDArray[np.float32]],
    names: Sequence[str],
    *,
    title: str,
    mixed: Sequence[Sequence[str]] = (),
) -> Path:
    """A PNG with a column for each image: the original on top, below it one row for each drawing of the augmentation.

    Args:
        originals: (N, C, H, W) in [0, 1].
        augmented: for each epoch (N, C, H', W') in [0, 1].
        names: the class of each image.
        mixed: for each epoch, what stands over each image: its classes where it is mixed; empty for nothing.
    """
    rows_each = 1 + len(augmented)
    columns = min(PREVIEW_COLUMNS, len(originals))
    blocks = math.ceil(len(originals) / columns)
    figure = new_figure(1.25 * columns + 1.0, 1.32 * blocks * rows_each + 0.6)
    add_heading(figure, title)
    grid = figure.subplots(blocks * rows_each, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    for index, name in enumerate(names):
        block, column = divmod(index, columns)
        for row, images in enumerate((originals, *augmented)):
            axes = grid[block * rows_each + row, column]
            _show_image(axes, images[index], white=1)
            if row == 0:
                axes.set_title(short_name(name, 14), fontsize=9, color=INK)
            elif mixed and mixed[row - 1]:
                axes.set_title(short_name(mixed[row - 1][index], 22), fontsize=6, color=INK, pad=2)
    for block in range(blocks):
        for row in range(rows_each):
            label = "original" if row == 0 else f"epoch {row}"
            grid[block * rows_each + row, 0].set_ylabel(label, fontsize=9, color=INK)
    return save_figure(figure, path)


def _show_image(axes: Axes, image: NDArray[Any], *, white: float) -> None:
    """An image (C, H, W) of values from 0 to ``white``."""
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    nearest = max(pixels.shape[:2]) < 128
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=white, interpolation="nearest" if nearest else "antialiased")
