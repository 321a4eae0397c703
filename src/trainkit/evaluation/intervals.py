"""95 % confidence intervals of an evaluation's metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.runtime import derive_seed

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard deviations to either side that hold this share of a normal distribution: 1.96."""
NUM_RESAMPLES = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Where a metric lies with 95 % confidence."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap", "normal", "t"]
    resamples: int | None = None


def classification_intervals(
    metrics: Mapping[str, float],
    confusion: NDArray[np.int64],
    *,
    losses: Floats,
    weights: Floats,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Interval]:
    """Wilson's for the accuracies, the bootstrap for macro averages, the normal one for the loss; by name.

    Areas under curves and the calibration error have none.

    Args:
        metrics: the accuracies among them, by name.
        confusion: (K, K), rows are the true classes.
        losses: the loss of each sample (N,); the loss is their sum over that of ``weights`` (N,).
        check: called between resamples; raises to stop the work.
    """
    num_samples = len(losses)
    intervals = {
        name: Interval(*wilson_interval(round(rate * num_samples), num_samples), "wilson")
        for name, rate in metrics.items()
        if name.endswith("accuracy")
    }
    around = {"loss": _ratio(losses, weights)}
    return intervals | macro_intervals(confusion, seed=seed, check=check) | _around(around)


def _ratio(losses: Floats, weights: Floats) -> tuple[float, float]:
    """The sum of the losses over that of the weights, and half its normal interval (the delta method)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        loss = losses.sum() / weights.sum()
        return loss, normal_reach((losses - loss * weights) / weights.mean())


def regression_intervals(
    predictions: Floats, targets: Floats, *, losses: Floats, weights: Floats | None = None
) -> dict[str, Interval]:
    """The normal interval for loss, MAE, RMSE and R2, each the mean over the targets; by name.

    That of RMSE and of 1 - R2 is made for their logarithms: it stays above 0, and is longer upwards.

    Args:
        predictions, targets: (N, T).
        losses: the loss of each sample (N,), summed over the targets.
        weights: of the samples in the loss alone: (N,).
    """
    errors = predictions - targets
    squared, spread = np.square(errors), np.square(targets - targets.mean(axis=0))
    mse, variance = squared.mean(axis=0), spread.mean(axis=0)
    # How much each sample moves a metric that is a smooth function of means (the delta method); (N, T).
    with np.errstate(invalid="ignore", divide="ignore"):
        of_rmse = np.where(mse > 0, (squared - mse) / (2 * np.sqrt(mse)), 0.0)
        of_r2 = np.where(variance > 0, (mse * spread / variance - squared) / variance, 0.0)
        lost = np.where(variance > 0, mse / variance, mse > 0)
    plain = {"loss": losses / targets.shape[1], "mae": np.abs(errors).mean(axis=1)}
    around = {name: (float(values.mean()), normal_reach(values)) for name, values in plain.items()}
    if weights is not None:
        around["loss"] = _ratio(plain["loss"] * weights, weights)
    intervals = _around(around)
    rmse, unexplained = float(np.sqrt(mse).mean()), float(lost.mean())
    for name, value, moved in (("rmse", rmse, of_rmse), ("r2", unexplained, of_r2)):
        factor = math.exp(normal_reach(moved.mean(axis=1)) / value) if value > 0 else 1.0
        low, high = value / factor, value * factor
        ends = (1 - high, 1 - low) if name == "r2" else (low, high)
        if math.isfinite(sum(ends)):
            intervals[name] = Interval(*ends, "normal")
    return intervals


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The interval of a rate such as accuracy (Wilson, 1927): stays within [0, 1] and is not empty at 0 or 1.

    Raises:
        ValueError: no trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"no rate of {successes} successes in {trials} trials")
    rate = successes / trials
    center = rate + _Z * _Z / (2 * trials)
    reach = _Z * math.sqrt(rate * (1 - rate) / trials + _Z * _Z / (4 * trials * trials))
    scale = 1 + _Z * _Z / trials
    low = 0.0 if successes == 0 else (center - reach) / scale
    high = 1.0 if successes == trials else (center + reach) / scale
    return low, high


def normal_reach(moved: Floats) -> float:
    """Half the normal interval of a mean, or of a smooth function of means; NaN for one sample.

    Args:
        moved: of a mean the values themselves, else how much each sample moves the function (N,).
    """
    if len(moved) < 2:
        return math.nan
    return _Z * float(moved.std(ddof=1)) / math.sqrt(len(moved))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean of a few values, such as the scores of the folds; NaN for one value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return math.nan, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = t_reach(count - 1) * math.sqrt(variance / count)
    return mean - reach, mean + reach


def t_reach(freedom: int, confidence: float = CONFIDENCE) -> float:
    """As ``_Z``, for Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    return float(stdtrit(freedom, (1 + confidence) / 2))


def macro_intervals(
    confusion: NDArray[np.int64], *, seed: int, check: Callable[[], None] = lambda: None
) -> dict[str, Interval]:
    """The bootstrap's percentile intervals (Efron, 1979) of macro precision, recall and F1.

    To draw samples again is to draw the cells of the confusion matrix (K, K), whose counts are multinomial then. The
    same seed gives the same intervals.
    """
    num_classes, num_samples = len(confusion), int(confusion.sum())
    true, predicted = np.nonzero(confusion)
    shares = confusion[true, predicted] / num_samples
    generator = np.random.default_rng(derive_seed(seed, "bootstrap"))
    right, support, taken = np.empty((3, NUM_RESAMPLES, num_classes))
    for index, counts in enumerate(generator.multinomial(num_samples, shares) for _ in range(NUM_RESAMPLES)):
        check()
        right[index] = np.bincount(true, counts * (true == predicted), num_classes)
        support[index] = np.bincount(true, counts, num_classes)
        taken[index] = np.bincount(predicted, counts, num_classes)
    parts = (taken, support, (support + taken) / 2)
    scores = [np.mean(right / np.maximum(part, 0.5), axis=1, where=support + taken > 0) for part in parts]
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(scores, [tail, 1 - tail], axis=1).T.tolist()
    names = ("precision_macro", "recall_macro", "f1_macro")
    return {
        name: Interval(low, high, "bootstrap", NUM_RESAMPLES) for name, (low, high) in zip(names, ends, strict=True)
    }


def _around(values: Mapping[str, tuple[float, float]]) -> dict[str, Interval]:
    """Intervals of numbers that are never below 0, from (value, reach); none where the reach is not known."""
    return {
        name: Interval(max(0.0, float(value - reach)), float(value + reach), "normal")
        for name, (value, reach) in values.items()
        if math.isfinite(value + reach)
    }
