"""Metrics of predicted probabilities that a run may ask for: log loss, and areas under curves.

They equal scikit-learn's on the same float32 probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainkit.engine.ranking import average_precision, roc_auc

AREAS = {"roc_auc": roc_auc, "average_precision": average_precision}
PROBABILITY_METRICS = ("log_loss", *AREAS)

EPS = torch.finfo(torch.float32).eps
"""As in scikit-learn, probabilities are taken as at least this, and at most 1 less this, before their logarithm."""


class ProbabilityMetrics:
    """The metrics of these names: a sum for log_loss; for areas, all probabilities and targets of the split.

    Those take 4 bytes for each sample and class (of two classes, the second's alone is kept) and 8 for each sample, on
    the device.
    """

    def __init__(self, names: Sequence[str], *, device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.num_samples = 0
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self._loss_sum = torch.zeros((), dtype=dtype, device=device)
        self._kept: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add a batch: probabilities (N, K), which nobody may change later; targets int64 (N,).

        Does not wait for the device.
        """
        self.num_samples += len(targets)
        if "log_loss" in self.names:
            of_target = probabilities.gather(1, targets[:, None]).clamp(EPS, 1 - EPS)
            self._loss_sum -= of_target.to(self._loss_sum.dtype).log().sum()
        if not AREAS.keys().isdisjoint(self.names):
            scores = probabilities[:, 1].clone() if probabilities.shape[1] == 2 else probabilities
            self._kept.append((scores, targets))

    def compute(self) -> dict[str, float]:
        """By name. NaN where a probability is NaN, or an area is not defined.

        An area of several classes is the plain mean over one class against the rest, as scikit-learn's
        ``multi_class="ovr", average="macro"``; a class that has no such area is left out of the mean.

        Raises:
            ValueError: no sample was added.
        """
        if self.num_samples == 0:
            raise ValueError("metrics of no samples")
        values = {}
        if "log_loss" in self.names:
            values["log_loss"] = self._loss_sum.item() / self.num_samples
        if self._kept:
            scores, targets = (torch.cat([part.cpu() for part in parts]) for parts in zip(*self._kept, strict=True))
            broken = bool(scores.isnan().any())
            for name in self.names:
                if name in AREAS:
                    values[name] = math.nan if broken else AREAS[name](scores.numpy(), targets.numpy())
        return {name: values[name] for name in self.names}
