"""Calibration: how well the probabilities of the predicted classes fit how often they are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainkit.evaluation.intervals import Floats


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, *, num_bins: int = 15) -> float:
    """How far the probability of the predicted class is from the share of right predictions (Guo et al., 2017).

    Probabilities (N, K), targets (N,). Samples are put into bins of equal width, (0, 1/15], (1/15, 2/15], ...; the
    error is the mean over samples of |accuracy - mean probability| of their bin.
    """
    matrix, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(targets).astype(np.int64)
    confidence = matrix.max(axis=1)
    correct = (matrix.argmax(axis=1) == labels).astype(np.float64)
    bins = confidence_bins(confidence, num_bins)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def confidence_bins(confidence: Floats, num_bins: int) -> NDArray[np.int64]:
    """The bin of each probability of a predicted class (N,): from 0, of equal width, (0, 1/B], (1/B, 2/B], ..."""
    bins: NDArray[np.int64] = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    return bins
