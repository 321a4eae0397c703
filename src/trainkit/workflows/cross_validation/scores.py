"""The scores of a cross-validation: the mean over the folds, and those of all samples out of fold together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainkit.builders import extra_metrics
from trainkit.config.schema import Config
from trainkit.data.target_scale import measure_targets, targets_of_model
from trainkit.engine import ClassificationMetrics, RegressionMetrics, build_loss
from trainkit.evaluation import Report, build_report, t_interval
from trainkit.system import Frontend
from trainkit.workflows.cross_validation.out_of_fold import STOPPED, OutOfFold


@dataclass(frozen=True)
class Mean:
    """A score over the folds."""

    mean: float
    low: float
    """Of the 95 % t interval of the mean; ``high`` too."""
    high: float
    std: float
    """The standard deviation between folds, with k - 1 in the denominator."""


def means_of(scores: Sequence[Mapping[str, float]]) -> dict[str, Mean]:
    """The mean of each score that all folds have."""
    found = {}
    for name in scores[0]:
        values = [metrics[name] for metrics in scores if name in metrics]
        if len(values) == len(scores):
            low, high = t_interval(values)
            mean = math.fsum(values) / len(values)
            found[name] = Mean(mean, low, high, float(np.std(values, ddof=1)))
    return found


def pooled_report(found: OutOfFold, config: Config, *, frontend: Frontend) -> Report:
    """The report on all samples, each predicted by the run that did not see it. Without a loss, whose weights and
    scales are those of a training."""
    if found.class_names:
        outputs = torch.from_numpy(found.answers).log().clamp(min=-1e4)
        counts = ClassificationMetrics(
            len(found.class_names), also=extra_metrics(config), probabilities_of=lambda scores: scores.exp()
        )
        counts.update(torch.from_numpy(found.answers), torch.from_numpy(found.targets))
        metrics, scale, loss = counts.compute(), None, build_loss("nll")
    else:
        scale = measure_targets(found.targets, np.arange(len(found.targets)))
        outputs = torch.from_numpy(targets_of_model(found.answers, scale))
        sums = RegressionMetrics(len(found.target_names), target_std=[std for _, std in scale])
        sums.update(outputs, torch.from_numpy(targets_of_model(found.targets, scale)))
        metrics, loss = sums.compute(), build_loss("mse")
    report = build_report(
        outputs,
        found.targets,
        loss=loss,
        class_names=found.class_names,
        target_names=found.target_names,
        target_scale=scale,
        metrics=metrics,
        seed=config.seed,
        check=lambda: frontend.check(STOPPED),
    )
    intervals = {name: interval for name, interval in report.intervals.items() if name != "loss"}
    return replace(report, intervals=intervals)
