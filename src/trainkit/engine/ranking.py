"""Metrics that need every score at once: areas under curves. Exact, with ties; equal to scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def roc_auc(scores: ArrayLike, targets: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive sample scores above a negative one, ties counting half.

    Scores (N,) are of the second of two classes, with targets 0 or 1. Scores (N, K) are taken one class against the
    rest and averaged over the classes that have samples on both sides (of two classes, the second's column is taken).
    NaN where there are none.
    """
    return _over_classes(scores, targets, _binary_roc_auc)


def average_precision(scores: ArrayLike, targets: ArrayLike) -> float:
    """Area under the precision-recall curve as the sum of precision x step in recall, without interpolation.

    Scores and targets as for ``roc_auc``; averaged over the classes that have samples. NaN where there are none.
    """
    return _over_classes(scores, targets, _binary_average_precision)


def _over_classes(scores: ArrayLike, targets: ArrayLike, binary: Callable[[Floats, NDArray[np.bool_]], float]) -> float:
    values, labels = _as_floats(scores), _as_labels(targets)
    if values.ndim == 2 and values.shape[1] == 2:
        values = values[:, 1]
    if values.ndim == 1:
        return binary(values, labels == 1)
    by_class = [binary(values[:, k], labels == k) for k in range(values.shape[1])]
    defined = [value for value in by_class if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _binary_roc_auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """By ranks (Mann and Whitney, 1947): equal scores share the mean of their ranks."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return math.nan
    above = float(ranks[positive].sum()) - num_positive * (num_positive + 1) / 2
    return above / (num_positive * num_negative)


def _binary_average_precision(scores: Floats, positive: NDArray[np.bool_]) -> float:
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_equals = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    found = np.cumsum(positive[order])[last_of_equals]
    precision = found / (last_of_equals + 1)
    steps = np.diff(found, prepend=0) / found[-1]
    return float((precision * steps).sum())


def _as_floats(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError("scores hold NaN: they have no order")
    return array


def _as_labels(targets: ArrayLike) -> NDArray[np.int64]:
    labels = np.asarray(targets).astype(np.int64)
    if len(labels) == 0:
        raise ValueError("metrics of no samples")
    return labels
