"""What the random transforms make of training images: each beside its original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainkit.reports.figures import INK, new_figure, save_figure, short_name

COLUMNS = 8


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
    columns = min(COLUMNS, len(originals))
    blocks = math.ceil(len(originals) / columns)
    figure = new_figure(1.25 * columns + 1.0, 1.32 * blocks * rows_each + 0.6)
    figure.suptitle(title, fontsize=11, color=INK, x=0.02, ha="left")
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
            image = images[index]
            pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if row == 0:
                axes.set_title(short_name(name, 14), fontsize=9, color=INK)
    for block in range(blocks):
        for row in range(rows_each):
            label = "original" if row == 0 else f"epoch {row}"
            grid[block * rows_each + row, 0].set_ylabel(label, fontsize=9, color=INK)
    return save_figure(figure, path)
