"""The metrics of an evaluation as functions of how often each sample was drawn: what the bootstrap calls over and over.

Sorting is done once; many resamples at a time are then a few sums over rows. Everywhere ``counts`` is float32 (N, R):
how often sample i was drawn in resample r, whole numbers whose sums are exact up to 2 ** 24 samples. Drawing every
sample once gives the metrics themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainkit.evaluation.ranking import confidence_bins

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Counts = NDArray[np.float32]

SHIFT = "calibration_shift"
"""Not a metric: how far the gaps between accuracy and probability move in a resample, summed over the bins."""


@dataclass(frozen=True)
class Groups:
    """Samples sorted by the group that each is in."""

    order: Tensor
    """The samples that are in any group: int64 (n,)."""
    firsts: Tensor
    """Where in the order each group starts: int64 (G,)."""

    @classmethod
    def build(cls, labels: Integers, number: int, *, among: NDArray[np.bool_] | None = None) -> Groups:
        """Labels (N,), from 0 to ``number`` - 1; of the samples ``among`` (N,), or of all."""
        samples = np.arange(len(labels)) if among is None else np.flatnonzero(among)
        order = samples[np.argsort(labels[samples], kind="stable")]
        firsts = np.searchsorted(labels[order], np.arange(number))
        return cls(torch.from_numpy(order), torch.from_numpy(firsts))

    def sums(self, counts: Counts) -> Floats:
        """How many samples of each group were drawn (G, R)."""
        return _in_float64(self._sums(counts))

    def sums_up_to(self, counts: Counts) -> Floats:
        """How many samples of each group and of those before it were drawn (G, R)."""
        return _in_float64(self._sums(counts).cumsum(0))  # exact in float32, and twice as fast as NumPy's in float64

    def _sums(self, counts: Counts) -> Tensor:
        # What sums up embeddings sums up scattered rows: 3 us a resample of 10,000 samples, NumPy's reduceat 55.
        return F.embedding_bag(self.order, torch.from_numpy(counts), self.firsts, mode="sum")


@dataclass(frozen=True)
class Ranking:
    """The samples by the score of one class, lowest first.

    What counts are the runs of equal scores that hold a sample of the class: the others add nothing to either area.
    """

    stretches: Groups
    """The samples in the order of their scores: before the first of those runs, in it, behind it, in the next, ..."""
    positives: Groups
    """The samples of the class by run."""

    @classmethod
    def build(cls, scores: Floats, positive: NDArray[np.bool_]) -> Ranking:
        _, equals = np.unique(scores, return_inverse=True)
        runs = np.unique(equals[positive])
        # Run g becomes stretch 2 g + 1; what lies before, between and behind the runs gets the even numbers.
        stretch = np.searchsorted(runs, equals, side="left") + np.searchsorted(runs, equals, side="right")
        return cls(
            Groups.build(stretch, 2 * len(runs) + 1),
            Groups.build(np.searchsorted(runs, equals), len(runs), among=positive),
        )

    def areas(self, counts: Counts) -> tuple[Floats, Floats]:
        """(ROC-AUC, average precision), each (R,); NaN where they have no value."""
        drawn = self.stretches.sums_up_to(counts)
        before, up_to, total = drawn[:-1:2], drawn[1::2], drawn[-1]
        positive, positive_up_to = self.positives.sums(counts), self.positives.sums_up_to(counts)
        num_positive = positive.sum(axis=0)
        num_negative = total - num_positive
        # A positive sample beats the negative ones below it, and half of those beside it. Summed over all, the positive
        # ones below and half of those beside come to num_positive ** 2 / 2.
        beaten = (_sum_of_products(positive, before) + _sum_of_products(positive, up_to) - num_positive**2) / 2
        # Where none of a run was drawn, its precision does not count.
        precision = (num_positive - positive_up_to + positive) / np.maximum(total - before, 1)
        with np.errstate(invalid="ignore"):
            return beaten / (num_positive * num_negative), _sum_of_products(positive, precision) / num_positive


def _in_float64(values: Tensor) -> Floats:
    found: Floats = values.numpy().astype(np.float64)
    return found


def _sum_of_products(left: Floats, right: Floats) -> Floats:
    """Over the rows (n, R)."""
    found: Floats = np.einsum("nr,nr->r", left, right)
    return found


@dataclass(frozen=True)
class ClassificationSample:
    """What the metrics of a classifier are made of, by sample."""

    num_samples: int
    num_classes: int
    targets: Groups
    """By their class."""
    predictions: Groups
    """By their predicted class."""
    right: Groups
    """Those that were predicted rightly, by class."""
    sums: Floats
    """What is summed (2 + B, N): the losses, their weights, and by bin of the probability of the predicted class 1 or 0
    for right or wrong, less that probability."""
    probabilities: Floats
    """(N, K)."""
    classes: Integers
    """The targets (N,)."""

    @cached_property
    def rankings(self) -> tuple[Ranking, ...]:
        """One for each class, or that of the second of two. Made when they are first asked for: not for large sets."""
        ranked = [1] if self.num_classes == 2 else range(self.num_classes)
        return tuple(Ranking.build(self.probabilities[:, k], self.classes == k) for k in ranked)

    @classmethod
    def build(
        cls,
        *,
        predicted: Integers,
        probabilities: Floats,
        targets: Integers,
        losses: Floats,
        weights: Floats,
        num_bins: int,
    ) -> ClassificationSample:
        """Probabilities (N, K); the rest (N,). ``losses`` sum up to the loss times the sum of ``weights``."""
        num_classes = probabilities.shape[1]
        confidence = probabilities.max(axis=1)
        bins = confidence_bins(confidence, num_bins)
        gaps = (probabilities.argmax(axis=1) == targets) - confidence
        return cls(
            num_samples=len(targets),
            num_classes=num_classes,
            targets=Groups.build(targets, num_classes),
            predictions=Groups.build(predicted, num_classes),
            right=Groups.build(targets, num_classes, among=predicted == targets),
            sums=np.stack([losses, weights, *(np.where(bins == bin, gaps, 0.0) for bin in range(num_bins))]),
            probabilities=probabilities,
            classes=targets,
        )

    def counted(self, counts: Counts) -> dict[str, Floats]:
        """Loss, macro precision, recall and F1, calibration error: counts and sums."""
        right, support, taken = (group.sums(counts) for group in (self.right, self.targets, self.predictions))
        occurring = (support + taken) > 0
        loss, weight, *_ = sums = _weighted_sums(self.sums, counts)
        gaps, total = sums[2:], counts.sum(axis=0)
        moved = gaps - self.sums[2:].sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "loss": np.where(weight != 0, loss / weight, math.nan),
                "precision_macro": np.mean(right / np.maximum(taken, 1), axis=0, where=occurring),
                "recall_macro": np.mean(right / np.maximum(support, 1), axis=0, where=occurring),
                "f1_macro": np.mean(2 * right / np.maximum(support + taken, 1), axis=0, where=occurring),
                "expected_calibration_error": np.abs(gaps).sum(axis=0) / total,
                SHIFT: np.abs(moved).sum(axis=0) / total,
            }

    def ranked(self, counts: Counts) -> dict[str, Floats]:
        """ROC-AUC and average precision, as the mean over the classes that have a value."""
        areas = [ranking.areas(counts) for ranking in self.rankings]
        names = ("roc_auc", "average_precision")
        return {
            name: _mean_of_known(np.stack(values)) for name, values in zip(names, zip(*areas, strict=True), strict=True)
        }


def _weighted_sums(values: Floats, counts: Counts) -> Floats:
    """Values (K, N) summed over the samples as often as each was drawn (K, R)."""
    # PyTorch's, which keeps to the number of threads that it is told; NumPy's own threads waited for busy cores.
    found: Floats = (torch.from_numpy(values) @ torch.from_numpy(counts).double()).numpy()
    return found


def _mean_of_known(values: Floats) -> Floats:
    """Over the rows; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean


@dataclass(frozen=True)
class RegressionSample:
    """What the metrics of a regression are made of, by sample and target."""

    absolute: Floats
    """(T, N)."""
    squared: Floats
    """(T, N)."""
    centred: Floats
    """Targets less their mean over all samples, so that squares keep their digits (T, N)."""
    losses: Floats
    """(1, N)."""

    @classmethod
    def build(cls, predictions: Floats, targets: Floats, *, losses: Floats) -> RegressionSample:
        """Predictions and targets (N, T); losses (N,), summed over the targets."""
        errors = np.ascontiguousarray((predictions - targets).T)
        centred = np.ascontiguousarray((targets - targets.mean(axis=0)).T)
        return cls(np.abs(errors), np.square(errors), centred, np.ascontiguousarray(losses, dtype=np.float64)[None])

    def statistics(self, counts: Counts) -> dict[str, Floats]:
        """Loss, MAE, RMSE and R2, each the mean over the targets."""
        num_drawn, num_targets = counts.sum(axis=0, dtype=np.float64), len(self.absolute)
        squared = _weighted_sums(self.squared, counts)
        spread = _weighted_sums(np.square(self.centred), counts)
        spread -= np.square(_weighted_sums(self.centred, counts)) / num_drawn
        constant = np.where(squared == 0, 1.0, 0.0)
        r2 = np.where(spread > 0, 1 - squared / np.where(spread > 0, spread, 1.0), constant)
        return {
            "loss": _weighted_sums(self.losses, counts)[0] / (num_drawn * num_targets),
            "mae": (_weighted_sums(self.absolute, counts) / num_drawn).mean(axis=0),
            "rmse": np.sqrt(squared / num_drawn).mean(axis=0),
            "r2": r2.mean(axis=0) if self.losses.shape[1] > 1 else np.full(counts.shape[1], math.nan),
        }
