"""The metrics of an evaluation as functions of how often each sample was drawn: what the bootstrap calls over and over.

Sorting is done once; a resample is then a few sums. Drawing every sample once gives the metrics themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SHIFT = "calibration_shift"
"""Not a metric: how far the gaps between accuracy and probability move in a resample, summed over the bins."""


@dataclass(frozen=True)
class Ranking:
    """The samples by the score of one class, lowest first."""

    order: Counts
    """(N,)."""
    last_of_equals: Counts
    """Positions in the order where a run of equal scores ends, (G,)."""
    positive: NDArray[np.bool_]
    """Whether a sample is of the class, in the order, (N,)."""

    @classmethod
    def build(cls, scores: Floats, positive: NDArray[np.bool_]) -> Ranking:
        order = np.argsort(scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        return cls(order, ends, positive[order])

    def areas(self, counts: Counts) -> tuple[float, float]:
        """(ROC-AUC, average precision) where sample i was drawn ``counts[i]`` times; NaN where they have no value."""
        drawn = counts[self.order]
        total = np.cumsum(drawn)[self.last_of_equals]
        found = np.cumsum(drawn * self.positive)[self.last_of_equals]
        num_positive = int(found[-1])
        num_negative = int(total[-1]) - num_positive
        if num_positive == 0:
            return math.nan, math.nan
        positive = np.diff(found, prepend=0)
        negative = np.diff(total - found, prepend=0)
        below = (total - found) - negative
        auc = math.nan
        if num_negative:
            auc = float((positive * (below + negative / 2)).sum() / (num_positive * num_negative))
        at_least = num_positive - (found - positive)
        all_at_least = at_least + (num_negative - below)
        # Where none of a run was drawn, its precision does not count.
        precision = at_least / np.maximum(all_at_least, 1)
        return auc, float((positive * precision).sum() / num_positive)


@dataclass(frozen=True)
class ClassificationSample:
    """What the metrics of a classifier are made of, by sample."""

    num_samples: int
    num_classes: int
    pairs: Counts
    """``true class * K + predicted class`` (N,)."""
    bins: Counts
    """The bin of the probability of the predicted class (N,)."""
    gaps: Floats
    """1 or 0 for right or wrong, less that probability (N,)."""
    num_bins: int
    sums: Floats
    """The gaps summed by bin (B,)."""
    losses: Floats
    weights: Floats
    rankings: tuple[Ranking, ...]
    """One for each class, or that of the second of two."""

    @classmethod
    def build(
        cls,
        *,
        predicted: Counts,
        probabilities: Floats,
        targets: Counts,
        losses: Floats,
        weights: Floats,
        num_bins: int,
    ) -> ClassificationSample:
        """Probabilities (N, K); the rest (N,). ``losses`` sum up to the loss times the sum of ``weights``."""
        num_classes = probabilities.shape[1]
        confidence = probabilities.max(axis=1)
        ranked = [1] if num_classes == 2 else range(num_classes)
        bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
        gaps = (probabilities.argmax(axis=1) == targets) - confidence
        return cls(
            num_samples=len(targets),
            num_classes=num_classes,
            pairs=targets * num_classes + predicted,
            bins=bins,
            gaps=gaps,
            num_bins=num_bins,
            sums=np.bincount(bins, weights=gaps, minlength=num_bins).astype(np.float64),
            losses=losses,
            weights=weights,
            rankings=tuple(Ranking.build(probabilities[:, k], targets == k) for k in ranked),
        )

    def counted(self, counts: Counts) -> dict[str, float]:
        """Loss, macro precision, recall and F1, calibration error: counts and sums."""
        confusion = np.bincount(self.pairs, weights=counts, minlength=self.num_classes**2)
        confusion = confusion.reshape(self.num_classes, self.num_classes)
        right, support, taken = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
        occurring = (support + taken) > 0
        gaps = np.bincount(self.bins, weights=self.gaps * counts, minlength=self.num_bins)
        weight = float(self.weights @ counts)
        return {
            "loss": float(self.losses @ counts) / weight if weight else math.nan,
            "precision_macro": float((right / np.maximum(taken, 1))[occurring].mean()),
            "recall_macro": float((right / np.maximum(support, 1))[occurring].mean()),
            "f1_macro": float((2 * right / np.maximum(support + taken, 1))[occurring].mean()),
            "expected_calibration_error": float(np.abs(gaps).sum() / counts.sum()),
            SHIFT: float(np.abs(gaps - self.sums).sum() / counts.sum()),
        }

    def ranked(self, counts: Counts) -> dict[str, float]:
        """ROC-AUC and average precision, as the mean over the classes that have a value."""
        areas = [ranking.areas(counts) for ranking in self.rankings]
        return {
            name: _mean_of_known([pair[index] for pair in areas])
            for index, name in enumerate(("roc_auc", "average_precision"))
        }


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class RegressionSample:
    """What the metrics of a regression are made of, by sample and target."""

    absolute: Floats
    squared: Floats
    centred: Floats
    """Targets less their mean over all samples, so that squares keep their digits."""
    losses: Floats

    @classmethod
    def build(cls, predictions: Floats, targets: Floats, *, losses: Floats) -> RegressionSample:
        """Predictions and targets (N, T); losses (N,), summed over the targets."""
        errors = predictions - targets
        return cls(np.abs(errors), np.square(errors), targets - targets.mean(axis=0), losses)

    def statistics(self, counts: Counts) -> dict[str, float]:
        """Loss, MAE, RMSE and R2, each the mean over the targets."""
        num_drawn, num_targets = counts.sum(), self.absolute.shape[1]
        squared = counts @ self.squared
        mean = counts @ self.centred / num_drawn
        spread = counts @ np.square(self.centred - mean)
        constant = np.where(squared == 0, 1.0, 0.0)
        r2 = np.where(spread > 0, 1 - squared / np.where(spread > 0, spread, 1.0), constant)
        return {
            "loss": float(counts @ self.losses) / (num_drawn * num_targets),
            "mae": float((counts @ self.absolute / num_drawn).mean()),
            "rmse": float(np.sqrt(squared / num_drawn).mean()),
            "r2": float(r2.mean()) if len(self.absolute) > 1 else math.nan,
        }
