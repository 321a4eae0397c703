"""Scaling of inputs: pixels to floats, ``(x - mean) / std`` by channel or column, and the statistics for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.images.layout import is_nhwc, memory_view, view_like
from trainkit.data.ragged import Ragged

_ROWS_BYTES = 4 << 20
"""Statistics read rows this many bytes at a time, so that a memory map may be larger than RAM."""
_BLOCK_BYTES = 2 << 20
"""Lines of color images are normalized this many bytes of floats at a time, which stay in the processor's cache from
one operation to the next (2 cores: a batch of 64 x 3 x 224 x 224 takes 6.4 ms, and 7.4 ms in one go)."""


@dataclass(frozen=True)
class Normalize:
    """``(x - mean) / std`` by channel of images in [0, 1]."""

    mean: tuple[float, ...]
    """One value a channel."""
    std: tuple[float, ...]
    """One value a channel, positive."""


@dataclass(frozen=True)
class Standardize:
    """``(x - mean) / std`` by numeric column of a table."""

    mean: tuple[float, ...]
    """One value a numeric column."""
    std: tuple[float, ...]
    """One value a column; 0 for a constant one, which becomes 0 whatever it holds later."""


def unit_floats(images: torch.Tensor) -> torch.Tensor:
    """Pixels as float32 in [0, 1]: uint8 divided by 255, floats as they are."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation as ``normalize`` takes them, for samples of one shape. Made by ``scaling``."""

    mean: torch.Tensor
    """(C, 1, 1) for images, (F,) for tables; ``std`` too."""
    std: torch.Tensor
    line: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    """-mean, std and 255 for every number of a line of color images N, H, W, C: (W * C,) each."""


def scaling(
    mean: Sequence[float], std: Sequence[float], shape: tuple[int, ...], *, device: torch.device | None = None
) -> Scaling:
    """Statistics by channel for samples of ``shape`` (C, H, W), or by column for (F,), on ``device``."""
    means, stds = (torch.tensor(values, dtype=torch.float32, device=device) for values in (mean, std))
    if len(shape) != 3 or shape[0] == 1:
        per_channel = (-1, *(1 for _ in shape[1:]))
        return Scaling(means.reshape(per_channel), stds.reshape(per_channel), None)
    minus_means = -means.repeat(shape[2])
    line = minus_means, stds.repeat(shape[2]), torch.full_like(minus_means, 255)
    return Scaling(means.view(-1, 1, 1), stds.view(-1, 1, 1), line)


def normalize(rows: torch.Tensor, by: Scaling, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """``(x - mean) / std`` of uint8 pixels divided by 255, or of floats: float32, in the layout of ``rows``.

    The operations and their order are part of the result: ``x.to(float32).div_(255).sub_(mean).div_(std)``.
    ``rows`` has the shape that ``by`` was made for, and is not changed.

    Args:
        out: takes the result, in a layout of its own.
    """
    if by.line is None or not is_nhwc(rows):
        floats = rows.to(torch.float32, copy=True) if out is None else out.copy_(rows)
        if rows.dtype == torch.uint8:
            floats.div_(255)
        return floats.sub_(by.mean).div_(by.std)
    if out is not None and not is_nhwc(out):
        return out.copy_(normalize(rows, by))
    # A whole line of pixels at a time: with the three channels innermost, torch would start a loop of three for every
    # pixel. -mean + x / 255 is rounded after each operation, like x / 255 - mean, and is one pass over memory, not two.
    minus_means, stds, white = by.line
    lines = memory_view(rows).flatten(2)
    result = torch.empty_like(lines, dtype=torch.float32) if out is None else memory_view(out).flatten(2)
    size = max(1, _BLOCK_BYTES // (4 * lines[0].numel()))
    for block, floats in zip(lines.split(size), result.split(size), strict=True):
        floats.copy_(block)
        if block.dtype == torch.uint8:
            torch.addcdiv(minus_means, floats, white, out=floats)
        else:
            floats.add_(minus_means)
        floats.div_(stds)
    return view_like(result.unflatten(2, (rows.shape[3], -1)), rows) if out is None else out


def channel_statistics(
    inputs: NDArray[Any] | Ragged, indices: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of every channel on the [0, 1] scale.

    Args:
        inputs: uint8 (N, C, H, W), or float32 in [0, 1], or images of their own sizes.
        indices: the rows to measure: int64 (n,).

    Of bytes exact sums over a histogram of the 256 values, rounded once; of floats sums in float64. A constant channel
    gets a deviation of 1.
    """
    if inputs.dtype != np.uint8:
        return _float_statistics(inputs, indices)
    num_channels = inputs.shape[1]
    counts = torch.zeros(num_channels, 256, dtype=torch.int64)
    for rows in _blocks(inputs, indices):
        pixels = torch.from_numpy(rows)
        for channel in range(num_channels):
            counts[channel] += torch.bincount(pixels[:, channel].reshape(-1), minlength=256)
    moments = [_histogram_moments(channel.tolist()) for channel in counts]
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _float_statistics(
    inputs: NDArray[Any] | Ragged, indices: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Two passes, so that nothing is lost where the mean is large beside the deviation."""
    axes = (0, 2, 3)
    count = sum(rows[:, 0].size for rows in _blocks(inputs, indices))
    mean = sum(rows.sum(axes, dtype=np.float64) for rows in _blocks(inputs, indices)) / count
    centered = (rows.astype(np.float64) - mean[:, None, None] for rows in _blocks(inputs, indices))
    std = np.sqrt(sum(np.square(rows).sum(axes) for rows in centered) / count)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _histogram_moments(counts: Sequence[int]) -> tuple[float, float]:
    total = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    variance = (total * second - first * first) / (total * total)
    return first / total / 255, variance**0.5 / 255 if variance > 0 else 1.0


def column_statistics(
    inputs: NDArray[np.float32], indices: NDArray[np.int64], numeric: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of the numeric columns, the first ones of a table (N, C), in float64.

    NaN stands for a missing value, which is left out. A constant column gets its own value and a deviation of 0.
    """
    low, high = column_extremes(inputs, indices, numeric)
    total, count = np.zeros(numeric), np.zeros(numeric)
    for rows in row_blocks(inputs, indices, numeric):
        missing = np.isnan(rows)
        total += np.where(missing, np.float32(0), rows).sum(0, dtype=np.float64)
        count += len(rows) - missing.sum(0)
    mean = total / np.maximum(1, count)
    squares = np.zeros(numeric)
    for rows in row_blocks(inputs, indices, numeric):
        squares += np.square(np.where(np.isnan(rows), 0.0, rows - mean)).sum(0)
    std = np.sqrt(squares / np.maximum(1, count))
    constant = low == high
    return tuple(np.where(constant, low, mean).tolist()), tuple(np.where(constant, 0.0, std).tolist())


def column_extremes(
    inputs: NDArray[np.float32], indices: NDArray[np.int64], numeric: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest and the largest value of each numeric column over these rows; 0 where all are missing."""
    low, high = np.full(numeric, np.inf), np.full(numeric, -np.inf)
    for rows in row_blocks(inputs, indices, numeric):
        low, high = np.fmin(low, np.fmin.reduce(rows)), np.fmax(high, np.fmax.reduce(rows))
    empty = low > high
    return np.where(empty, 0.0, low), np.where(empty, 0.0, high)


def row_blocks(inputs: NDArray[Any], indices: NDArray[np.int64], numeric: int) -> Iterator[NDArray[Any]]:
    """The numeric columns of some rows at a time, so that a memory map may be larger than RAM."""
    return (rows[:, :numeric] for rows in _blocks(inputs, indices))


def _blocks(inputs: NDArray[Any] | Ragged, indices: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    if isinstance(inputs, Ragged):
        return inputs.blocks(indices, _ROWS_BYTES)
    rows = max(1, _ROWS_BYTES // max(1, inputs[:1].nbytes))
    return (inputs[indices[start : start + rows]] for start in range(0, len(indices), rows))
