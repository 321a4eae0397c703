"""Grids of images: the most confident mistakes, and training images after the random transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.reports.figures import INK, add_heading, new_figure, save_figure, short_name
from trainkit.wording import percent

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from trainkit.evaluation import Mistake

PREVIEW_COLUMNS = 8
MAX_PICTURES = 25


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
) -> Path:
    """A PNG with a column for each image: the original on top, below it one row for each drawing of the augmentation.

    Args:
        originals: (N, C, H, W) in [0, 1].
        augmented: for each epoch (N, C, H', W') in [0, 1].
        names: the class of each image.
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
