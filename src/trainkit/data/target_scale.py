"""Values to predict, which the model and its loss see with mean 0 and standard deviation 1, and people in own units.

All in float64, so that targets far from 0 (Unix times, amounts in cents) keep their digits; only what the model sees
becomes float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TargetScale = tuple[tuple[float, float], ...]
"""(mean, standard deviation) of each target over the training split; 1 in place of a deviation of 0."""

_ROWS = 1 << 20
"""Rows that are computed at a time, so that nothing in float64 is as large as the data."""


def measure_targets(targets: NDArray[Any], indices: NDArray[np.int64]) -> TargetScale:
    """The scale of these rows of the targets (N, T)."""
    first = targets[indices[:1]].astype(np.float64)[0]
    # Distances from the first row: the sum of values around 1e12 would not have the digits of their spread.
    mean = first + sum((rows - first).sum(axis=0) for rows in _blocks(targets, indices)) / len(indices)
    variance = sum(np.square(rows - mean).sum(axis=0) for rows in _blocks(targets, indices)) / len(indices)
    std = np.sqrt(variance)
    return tuple(zip(mean.tolist(), np.where(std > 0, std, 1.0).tolist(), strict=True))


def _blocks(targets: NDArray[Any], indices: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(indices), _ROWS):
        yield targets[indices[start : start + _ROWS]].astype(np.float64)


def is_standard(scale: TargetScale) -> bool:
    """Whether all targets lie about where the outputs of a new network do."""
    return all(abs(mean) <= 0.5 * std and 0.5 <= std <= 2 for mean, std in scale)


def targets_of_model(targets: NDArray[Any], scale: TargetScale | None) -> NDArray[np.float32]:
    """Targets (N, T) as the model and its loss see them: standardized where there is a scale, else as they are."""
    if scale is None:
        return np.asarray(targets, dtype=np.float32)
    scaled = np.empty(targets.shape, dtype=np.float32)
    for start in range(0, len(targets), _ROWS):
        rows = slice(start, start + _ROWS)
        scaled[rows] = standardized(targets[rows], scale)
    return scaled


def standardized(values: NDArray[Any], scale: TargetScale) -> NDArray[np.float64]:
    """(N, T) in their own units to (N, T) in standard deviations from the mean."""
    mean, std = np.array(scale, dtype=np.float64).T
    deviations: NDArray[np.float64] = (values.astype(np.float64) - mean) / std
    return deviations


def in_own_units(outputs: NDArray[np.float32], scale: TargetScale | None) -> NDArray[Any]:
    """Outputs of the model (N, T) in the targets' own units, in float64; without a scale as they are."""
    if scale is None:
        return outputs
    mean, std = np.array(scale, dtype=np.float64).T
    units: NDArray[np.float64] = outputs.astype(np.float64) * std + mean
    return units


def stored_scale(preprocessing: Mapping[str, Any]) -> TargetScale | None:
    """The scale that a checkpoint holds; None for classes, and for targets that were not scaled."""
    found = preprocessing.get("target_scale")
    return None if found is None else tuple((float(mean), float(std)) for mean, std in found)
