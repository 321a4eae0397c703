"""The report on a model's outputs as plain data: metrics with intervals, classes, confusion, calibration, mistakes.

It is made from the outputs for a whole split, so the size of the batches does not change the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data.target_scale import TargetScale, in_own_units, targets_of_model
from trainkit.engine import ClassificationMetrics, Loss, RegressionMetrics, average_precision, roc_auc
from trainkit.evaluation.calibration import confidence_bins, expected_calibration_error
from trainkit.evaluation.intervals import CONFIDENCE, Floats, Interval, classification_intervals, regression_intervals

TOP_K = (2, 3, 5)
NUM_BINS = 15
MAX_MISTAKES = 25


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    roc_auc: float
    """NaN where every sample, or none, is of this class."""
    average_precision: float


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over the probability of the predicted class; NaN in an empty one."""

    confidence: Floats
    """Mean probability (B,)."""
    accuracy: Floats
    """Share of right predictions (B,)."""
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Mistake:
    """A sample that was taken for another class."""

    position: int
    """In the split, from 0."""
    true: str
    predicted: str
    probability: float
    """Of the predicted class."""


@dataclass(frozen=True)
class ClassificationReport:
    """A classifier on a split."""

    num_samples: int
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    class_names: tuple[str, ...]
    per_class: list[ClassScores]
    confusion: NDArray[np.int64]
    """(K, K): rows are the true classes, columns the predicted ones."""
    reliability: Reliability
    mistakes: list[Mistake]
    """The most confident ones, at most 25."""
    num_mistakes: int

    def most_confused(self, limit: int = 10) -> list[tuple[str, str, int]]:
        """(true class, predicted class, samples) of the most frequent mistakes."""
        off = self.confusion.copy()
        np.fill_diagonal(off, 0)
        order = np.argsort(-off, axis=None, kind="stable")[:limit]
        pairs = [(*divmod(int(flat), len(off)), int(off.flat[flat])) for flat in order]
        return [(self.class_names[true], self.class_names[taken], count) for true, taken, count in pairs if count]

    def as_json(self) -> dict[str, Any]:
        bins = zip(self.reliability.confidence, self.reliability.accuracy, self.reliability.counts, strict=True)
        return {
            **_head("classification", self),
            "class_names": list(self.class_names),
            "per_class": [asdict(row) for row in self.per_class],
            "confusion": self.confusion.tolist(),
            "most_confused": [
                {"true": true, "predicted": taken, "count": count} for true, taken, count in self.most_confused()
            ],
            "reliability": [
                {
                    "low": index / NUM_BINS,
                    "high": (index + 1) / NUM_BINS,
                    "confidence": float(confidence),
                    "accuracy": float(accuracy),
                    "count": int(count),
                }
                for index, (confidence, accuracy, count) in enumerate(bins)
            ],
            "num_mistakes": self.num_mistakes,
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
        }


@dataclass(frozen=True)
class TargetScores:
    """One regression target."""

    name: str
    mae: float
    rmse: float
    r2: float


@dataclass(frozen=True)
class RegressionReport:
    """A regression model on a split."""

    num_samples: int
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    target_names: tuple[str, ...]
    per_target: list[TargetScores]
    predictions: Floats
    """(N, T)."""
    targets: Floats
    """(N, T)."""

    def worst(self, limit: int = 10) -> list[dict[str, Any]]:
        """The samples with the largest errors."""
        errors = np.abs(self.predictions - self.targets)
        order = np.argsort(-errors.max(axis=1), kind="stable")[:limit]
        return [
            {
                "position": int(position),
                "target": self.target_names[column],
                "true": float(self.targets[position, column]),
                "predicted": float(self.predictions[position, column]),
            }
            for position in order
            for column in [int(errors[position].argmax())]
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            **_head("regression", self),
            "target_names": list(self.target_names),
            "per_target": [asdict(row) for row in self.per_target],
            "largest_errors": self.worst(),
        }


Report = ClassificationReport | RegressionReport


def _head(task: str, report: Report) -> dict[str, Any]:
    return {
        "task": task,
        "num_samples": report.num_samples,
        "metrics": report.metrics,
        "intervals": {name: asdict(interval) for name, interval in report.intervals.items()},
        "confidence": CONFIDENCE,
    }


def _of_classifier(
    outputs: Tensor,
    targets: Tensor,
    loss: Loss,
    class_names: Sequence[str],
    metrics: Mapping[str, float],
    of_samples: Floats | float,
    seed: int,
    check: Callable[[], None],
) -> ClassificationReport:
    """As ``build_report``; ``targets`` are int64 (N,), ``of_samples`` the weights."""
    num_classes = len(class_names)
    scores, probabilities = loss.predictions(outputs), loss.probabilities(outputs)
    counts = ClassificationMetrics(num_classes, top_k=TOP_K)
    counts.update(scores, targets)
    confusion = counts.confusion.numpy()
    predicted, labels = scores.argmax(dim=1).numpy(), targets.numpy()
    chances = probabilities.numpy().astype(np.float64)
    # exp() of a log-probability may be a bit above 1.
    confidence = np.minimum(chances[np.arange(len(labels)), predicted], 1.0)
    check()
    areas = {
        "roc_auc": roc_auc(chances, labels),
        "average_precision": average_precision(chances, labels),
        "expected_calibration_error": expected_calibration_error(chances, labels, num_bins=NUM_BINS),
    }
    counted = counts.compute()
    top = {name: value for name, value in counted.items() if name.startswith("top")}
    wrong = np.flatnonzero(predicted != labels)
    return ClassificationReport(
        num_samples=len(labels),
        metrics=_in_order({**metrics, **top, **areas}),
        intervals=classification_intervals(
            counted,
            confusion,
            losses=loss.of_each(outputs, targets).double().numpy() * of_samples,
            weights=loss.weight_of_each(targets).double().numpy() * of_samples,
            seed=seed,
            check=check,
        ),
        class_names=tuple(class_names),
        per_class=_per_class(counts, chances, labels, class_names, check),
        confusion=confusion,
        reliability=_reliability(confidence, predicted == labels),
        mistakes=[
            Mistake(int(at), class_names[labels[at]], class_names[predicted[at]], float(confidence[at]))
            for at in wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
        ],
        num_mistakes=len(wrong),
    )


def _in_order(metrics: Mapping[str, float]) -> dict[str, float]:
    """The loss first, then accuracy and its looser kinds."""
    first = ["loss", "accuracy", *(f"top{k}_accuracy" for k in TOP_K)]
    return {name: metrics[name] for name in (*(name for name in first if name in metrics), *metrics)}


def _per_class(
    counts: ClassificationMetrics,
    probabilities: Floats,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    check: Callable[[], None],
) -> list[ClassScores]:
    rows = []
    for row in counts.per_class():
        check()
        scores, is_this = probabilities[:, row.index], (labels == row.index).astype(np.int64)
        values = asdict(row)
        values |= {"roc_auc": roc_auc(scores, is_this), "average_precision": average_precision(scores, is_this)}
        rows.append(ClassScores(class_names[values.pop("index")], **values))
    return rows


def _reliability(confidence: Floats, correct: NDArray[np.bool_]) -> Reliability:
    bins = confidence_bins(confidence, NUM_BINS)
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = [np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (confidence, correct)]
    with np.errstate(invalid="ignore"):
        return Reliability(sums[0] / counts, sums[1] / counts, counts)


def _of_regression(
    outputs: Tensor,
    targets: NDArray[Any],
    loss: Loss,
    target_names: Sequence[str],
    target_scale: TargetScale | None,
    metrics: Mapping[str, float],
    of_samples: Floats | None,
) -> RegressionReport:
    """As ``build_report``, in the targets' own units; ``of_samples`` are the weights."""
    scaled = torch.from_numpy(targets_of_model(targets, target_scale))
    counts = RegressionMetrics(len(target_names), target_std=[std for _, std in target_scale or ()])
    counts.update(outputs, scaled)
    values, true = in_own_units(outputs.numpy(), target_scale).astype(np.float64), targets.astype(np.float64)
    losses = loss.of_each(outputs, scaled).double().numpy() * loss.unit
    return RegressionReport(
        num_samples=len(true),
        metrics=dict(metrics),
        intervals=regression_intervals(values, true, losses=losses, weights=of_samples),
        target_names=tuple(target_names),
        per_target=[TargetScores(target_names[row.index], row.mae, row.rmse, row.r2) for row in counts.per_target()],
        predictions=values,
        targets=true,
    )


def build_report(
    outputs: Tensor,
    targets: NDArray[Any],
    *,
    loss: Loss,
    class_names: Sequence[str],
    target_names: Sequence[str],
    target_scale: TargetScale | None = None,
    metrics: Mapping[str, float],
    weights: NDArray[Any] | None = None,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Report:
    """The report of the loss's task. Raises what ``check`` raises.

    Args:
        outputs: the model's own, float32 (N, K) or (N, T), (N, 1) for bce and bce_with_logits; on the CPU, as the loss.
        targets: int64 (N,), or (N, T) in their own units.
        target_scale: by which the model sees the values to predict.
        metrics: those of the evaluation loop, loss first; the report keeps them as they are.
        weights: of the samples in the loss: (N,); no other number depends on them.
        seed: of the bootstrap.
        check: called now and then; raises to stop the work.
    """
    of_samples = None if weights is None else weights.astype(np.float64)
    if loss.is_classification:
        labels = torch.from_numpy(np.ascontiguousarray(targets))
        return _of_classifier(
            outputs, labels, loss, class_names, metrics, 1.0 if of_samples is None else of_samples, seed, check
        )
    return _of_regression(outputs, targets, loss, target_names, target_scale, metrics, of_samples)
