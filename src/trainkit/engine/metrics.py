"""Metrics as exact sums and counts that batches add to; divided once, in ``compute``.

They equal scikit-learn's on the same predictions (``zero_division=0``), but for the top k of equal scores: the lower
index comes first here, as in argmax; scikit-learn takes the higher one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainkit.engine.probability_metrics import PROBABILITY_METRICS, ProbabilityMetrics

EXTRA_METRICS = ("balanced_accuracy", "mcc", *PROBABILITY_METRICS)
"""Of classes; computed where they are asked for."""


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; rates are fractions."""

    index: int
    precision: float
    recall: float
    f1: float
    support: int
    """Samples of this class."""
    predicted: int
    """Samples that the model assigned to this class."""


class ClassificationMetrics:
    """Counts of (true class, predicted class) pairs, and of samples whose class was among the k highest scores.

    Args:
        top_k: values from ``num_classes`` up are left out: they would always be 1.
        also: names of ``EXTRA_METRICS`` to compute too.
        probabilities_of: makes the probabilities (N, K) that some of them take of the scores.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        top_k: Sequence[int] = (5,),
        also: Sequence[str] = (),
        probabilities_of: Callable[[Tensor], Tensor] = lambda scores: scores,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_classes = num_classes
        self.also, self.probabilities_of = tuple(also), probabilities_of
        names = [name for name in also if name in PROBABILITY_METRICS]
        self._probabilities = ProbabilityMetrics(names, device=device) if names else None
        self.top_k = tuple(k for k in top_k if k < num_classes)
        self._confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
        self._top_k_correct = torch.zeros(len(self.top_k), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Add a batch: scores (N, K), in which the highest wins and the first of equals; targets int64 (N,).

        Does not wait for the device.
        """
        pairs = targets * self.num_classes + scores.argmax(dim=1)
        self._confusion.index_add_(0, pairs, torch.ones_like(pairs))
        if self._probabilities is not None:
            self._probabilities.update(self.probabilities_of(scores), targets)
        if not self.top_k:
            return
        of_target = scores.gather(1, targets[:, None])
        # Equal scores count as a stable sort would place them: the class with the lower index comes first.
        earlier = torch.arange(self.num_classes, device=scores.device) < targets[:, None]
        rank = (~(scores <= of_target) | ((scores == of_target) & earlier)).sum(dim=1)
        for i, k in enumerate(self.top_k):
            self._top_k_correct[i] += (rank < k).sum()

    @property
    def confusion(self) -> Tensor:
        """int64 (K, K) on the CPU: rows are the true classes, columns the predicted ones."""
        return self._confusion.view(self.num_classes, self.num_classes).cpu()

    @property
    def num_samples(self) -> int:
        return int(self._confusion.sum())

    def compute(self) -> dict[str, float]:
        """accuracy, top{k}_accuracy, and precision, recall and F1 as the plain mean over the classes that occur.

        A class occurs when a sample is of it or was taken for it, as in scikit-learn's ``average="macro"``.

        Raises:
            ValueError: no sample was added.
        """
        rows = self.per_class()
        num_samples = sum(row.support for row in rows)
        if num_samples == 0:
            raise ValueError("metrics of no samples")
        occurring = [row for row in rows if row.support or row.predicted]
        metrics = {"accuracy": int(self.confusion.diagonal().sum()) / num_samples}
        for k, correct in zip(self.top_k, self._top_k_correct.tolist(), strict=True):
            metrics[f"top{k}_accuracy"] = correct / num_samples
        metrics["precision_macro"] = math.fsum(row.precision for row in occurring) / len(occurring)
        metrics["recall_macro"] = math.fsum(row.recall for row in occurring) / len(occurring)
        metrics["f1_macro"] = math.fsum(row.f1 for row in occurring) / len(occurring)
        extra = {} if self._probabilities is None else self._probabilities.compute()
        if "balanced_accuracy" in self.also:
            recalls = [row.recall for row in rows if row.support]
            extra["balanced_accuracy"] = math.fsum(recalls) / len(recalls)
        if "mcc" in self.also:
            extra["mcc"] = matthews(rows, num_correct=int(self.confusion.diagonal().sum()))
        return metrics | {name: extra[name] for name in self.also}

    def per_class(self) -> list[ClassRow]:
        """A row for every class; a ratio with denominator 0 is 0."""
        confusion = self.confusion
        correct = confusion.diagonal().tolist()
        support, predicted = confusion.sum(dim=1).tolist(), confusion.sum(dim=0).tolist()
        return [
            ClassRow(
                index=i,
                precision=_ratio(correct[i], predicted[i]),
                recall=_ratio(correct[i], support[i]),
                f1=_ratio(2 * correct[i], support[i] + predicted[i]),
                support=support[i],
                predicted=predicted[i],
            )
            for i in range(self.num_classes)
        ]


def matthews(rows: Sequence[ClassRow], *, num_correct: int) -> float:
    """The correlation of true and predicted classes (Matthews, 1975; Gorodkin, 2004); 0 where one of them is constant.

    Of the whole numbers of the confusion matrix, so that nothing cancels.
    """
    total = sum(row.support for row in rows)
    covariance = num_correct * total - sum(row.support * row.predicted for row in rows)
    spreads = [
        total**2 - sum(count**2 for count in counts)
        for counts in ([r.support for r in rows], [r.predicted for r in rows])
    ]
    product = spreads[0] * spreads[1]
    return covariance / math.sqrt(product) if product else 0.0


@dataclass(frozen=True)
class TargetRow:
    """One regression target."""

    index: int
    mae: float
    rmse: float
    r2: float


class RegressionMetrics:
    """Sums of errors by target, and the targets' mean and spread, added to as Chan, Golub and LeVeque (1983) do.

    In float64 (float32 on mps, which has nothing wider), so that a large mean does not cancel the spread.

    Args:
        target_std: the standard deviations by which outputs and targets were divided, where they were: the metrics are
            in the targets' own units.
        quantile: also compute quantile_loss, the pinball loss of this quantile.
    """

    def __init__(
        self,
        num_targets: int,
        *,
        target_std: Sequence[float] = (),
        quantile: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.quantile = quantile
        self.num_targets = num_targets
        self.target_std = tuple(target_std) or (1.0,) * num_targets
        self.num_samples = 0
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self._absolute, self._squared, self._mean, self._spread, self._pinball = (
            torch.zeros(num_targets, dtype=dtype, device=device) for _ in range(5)
        )

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: outputs and targets (N, T). Does not wait for the device."""
        assert outputs.shape == targets.shape, f"outputs {tuple(outputs.shape)} for targets {tuple(targets.shape)}"
        if len(targets) == 0:
            return
        targets = targets.to(self._mean.dtype)
        errors = outputs.to(self._mean.dtype) - targets
        self._absolute += errors.abs().sum(dim=0)
        self._squared += errors.square().sum(dim=0)
        if self.quantile is not None:
            self._pinball += torch.maximum(-self.quantile * errors, (1 - self.quantile) * errors).sum(dim=0)
        mean, count = targets.mean(dim=0), len(targets)
        total, difference = self.num_samples + count, mean - self._mean
        self._mean += difference * (count / total)
        spread = (targets - mean).square().sum(dim=0)
        self._spread += spread + difference.square() * (self.num_samples * count / total)
        self.num_samples = total

    def compute(self) -> dict[str, float]:
        """mae, rmse and r2, and quantile_loss if there is a quantile.

        Each is the plain mean over the targets, as scikit-learn's ``uniform_average``.

        Raises:
            ValueError: no sample was added.
        """
        rows = self.per_target()
        metrics = {
            "mae": math.fsum(row.mae for row in rows) / len(rows),
            "rmse": math.fsum(row.rmse for row in rows) / len(rows),
            "r2": math.fsum(row.r2 for row in rows) / len(rows),
        }
        if self.quantile is not None:
            sums = [total * std for total, std in zip(self._pinball.tolist(), self.target_std, strict=True)]
            metrics["quantile_loss"] = math.fsum(sums) / len(sums) / self.num_samples
        return metrics

    def per_target(self) -> list[TargetRow]:
        """A row for every target. R2 of a constant target is 1 where all is right, else 0; of one sample it is NaN."""
        if self.num_samples == 0:
            raise ValueError("metrics of no samples")
        sums = (self._absolute.tolist(), self._squared.tolist(), self._spread.tolist())
        return [
            TargetRow(
                index=i,
                mae=absolute / self.num_samples * std,
                rmse=math.sqrt(squared / self.num_samples) * std,
                r2=_r2(squared, spread) if self.num_samples > 1 else math.nan,
            )
            for i, (std, absolute, squared, spread) in enumerate(zip(self.target_std, *sums, strict=True))
        ]


def _r2(squared: float, spread: float) -> float:
    if spread == 0:
        return 1.0 if squared == 0 else 0.0
    return 1 - squared / spread


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
