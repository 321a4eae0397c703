"""Whether one side is better than another, or chance explains the difference: paired by the samples that both answered.

A side is one network, or several that differ in their seeds. One classifier on each side is compared by McNemar's exact
test (McNemar, 1947), all else by the paired bootstrap (Efron, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.evaluation.intervals import CONFIDENCE, NUM_RESAMPLES, Floats, t_reach
from trainkit.runtime import derive_seed
from trainkit.wording import better

Predictions = NDArray[Any]
"""Classes int64 (N,), or values (N, T) in their own units."""


@dataclass(frozen=True)
class Group:
    """The networks of both sides that answered the same samples."""

    samples: NDArray[np.int64]
    """The place of each in the data (N,): another group may have some of them too."""
    targets: Predictions
    first: Sequence[Predictions]
    """By network of the first side."""
    second: Sequence[Predictions]


@dataclass(frozen=True)
class Difference:
    """The second side compared with the first."""

    metric: str
    first: float
    """The mean over its networks."""
    second: float
    low: float
    """Of ``second - first``, with the confidence that was asked for."""
    high: float
    num_samples: int
    """Different ones."""
    method: Literal["mcnemar", "bootstrap"]
    p_value: float | None = None
    """Of McNemar's exact test, two-sided."""
    discordant: tuple[int, int] | None = None
    """Samples that the second alone, and the first alone, has right."""
    with_seeds: bool = False
    """Whether the interval holds what other seeds would give too."""

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def verdict(self) -> Literal["better", "worse", "not told apart"]:
        """Of the second side."""
        if self.low <= 0 <= self.high or not math.isfinite(self.low + self.high):
            return "not told apart"
        return "better" if (self.low > 0) == (better(self.metric) == "max") else "worse"


def accuracy(predictions: Predictions, targets: Predictions, weights: Floats) -> float:
    return float(weights @ (predictions == targets) / weights.sum())


def f1_macro(predictions: Predictions, targets: Predictions, weights: Floats) -> float:
    """The mean over the classes that are there, or were answered."""
    count = int(max(predictions.max(), targets.max())) + 1
    right = np.bincount(targets, weights * (predictions == targets), count)
    both = np.bincount(targets, weights, count) + np.bincount(predictions, weights, count)
    return float(np.mean(2 * right[both > 0] / both[both > 0]))


def mae(predictions: Predictions, targets: Predictions, weights: Floats) -> float:
    """The mean over the targets."""
    return float((weights @ np.abs(predictions - targets) / weights.sum()).mean())


def rmse(predictions: Predictions, targets: Predictions, weights: Floats) -> float:
    """The mean over the targets."""
    return float(np.sqrt(weights @ np.square(predictions - targets) / weights.sum()).mean())


METRICS: dict[str, Callable[[Predictions, Predictions, Floats], float]] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "rmse": rmse,
    "mae": mae,
}


def compare_sides(groups: Sequence[Group], metric: str, *, confidence: float = CONFIDENCE) -> Difference:
    """The second side compared with the first, by one of ``METRICS``.

    Args:
        groups: one, or several where the networks were tested on different samples: each has networks of both sides.
        confidence: of the interval.
    """
    only = groups[0]
    if metric == "accuracy" and len(groups) == len(only.first) == len(only.second) == 1:
        return mcnemar(only.first[0] == only.targets, only.second[0] == only.targets, confidence=confidence)
    return paired_bootstrap(groups, metric, confidence=confidence)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], *, confidence: float = CONFIDENCE) -> Difference:
    """Two classifiers, by what each has right (N,).

    The interval holds both the exact one, on the samples that one of them alone has right, and that of Agresti and Min
    (2005), which knows that their number varies too.
    """
    from scipy.special import bdtr  # type: ignore[import-untyped]

    number = len(first)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    apart = gained + lost
    low, high = (apart / number * (2 * share - 1) for share in exact_interval(gained, apart, confidence=confidence))
    middle = (gained - lost) / (number + 2)
    spread = ((apart + 1) / (number + 2) - middle**2) / (number + 2)
    reach = _normal_reach(confidence) * math.sqrt(spread)
    return Difference(
        metric="accuracy",
        first=float(first.mean()),
        second=float(second.mean()),
        low=max(-1.0, min(low, middle - reach)),
        high=min(1.0, max(high, middle + reach)),
        num_samples=number,
        method="mcnemar",
        p_value=min(1.0, 2 * float(bdtr(min(gained, lost), apart, 0.5))),
        discordant=(gained, lost),
    )


def paired_bootstrap(
    groups: Sequence[Group], metric: str, *, confidence: float = CONFIDENCE, seed: int = 0
) -> Difference:
    """Draw the samples again, for both sides at once; what differs between seeds is added where there are several.

    The interval is the normal one around the difference, with Student's t for the part that comes from the seeds.
    """
    samples, places = np.unique(np.concatenate([group.samples for group in groups]), return_inverse=True)
    ends = np.cumsum([len(group.samples) for group in groups])[:-1]
    places_of = np.split(places, ends)
    generator = np.random.default_rng(derive_seed(seed, "paired bootstrap"))
    scores = [_scores(group, metric, np.ones(len(group.samples))) for group in groups]
    drawn = np.empty(NUM_RESAMPLES)
    for number in range(NUM_RESAMPLES):
        counts = np.bincount(generator.integers(len(samples), size=len(samples)), minlength=len(samples))
        weights = [counts[place].astype(np.float64) for place in places_of]
        again = [_scores(*one) for one in zip(groups, [metric] * len(groups), weights, strict=True)]
        drawn[number] = _mean_difference(again)
    of_samples = float(np.nanvar(drawn, ddof=1))
    of_seeds, freedom = _seed_variance(scores)
    reach = math.sqrt(
        _normal_reach(confidence) ** 2 * of_samples + (t_reach(freedom, confidence) ** 2 * of_seeds if freedom else 0.0)
    )
    difference = _mean_difference(scores)
    return Difference(
        metric=metric,
        first=float(np.mean([np.mean(first) for first, _ in scores])),
        second=float(np.mean([np.mean(second) for _, second in scores])),
        low=difference - reach,
        high=difference + reach,
        num_samples=len(samples),
        method="bootstrap",
        with_seeds=freedom > 0,
    )


def _scores(group: Group, metric: str, weights: Floats) -> tuple[list[float], list[float]]:
    """The metric of each network of both sides; NaN where no sample was drawn."""
    measure = METRICS[metric]
    if not weights.any():
        return [math.nan], [math.nan]
    first, second = (
        [measure(predictions, group.targets, weights) for predictions in side] for side in (group.first, group.second)
    )
    return first, second


def _mean_difference(scores: Sequence[tuple[list[float], list[float]]]) -> float:
    return float(np.nanmean([np.mean(second) - np.mean(first) for first, second in scores]))


def _seed_variance(scores: Sequence[tuple[list[float], list[float]]]) -> tuple[float, int]:
    """The variance of the difference that comes from the seeds, and its degrees of freedom; 0 and 0 where unknown.

    Of several groups, that between their differences: it holds some of what comes from the samples, so the interval is
    rather too long.
    """
    if len(scores) > 1:
        apart = [float(np.mean(second) - np.mean(first)) for first, second in scores]
        return float(np.var(apart, ddof=1)) / len(apart), len(apart) - 1
    (sides,) = scores
    if min(map(len, sides)) < 2:
        return 0.0, 0
    return sum(float(np.var(side, ddof=1)) / len(side) for side in sides), min(map(len, sides)) - 1


def exact_interval(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a share by the binomial distribution itself (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    tail, failures = (1 - confidence) / 2, trials - successes
    low = 0.0 if successes == 0 else float(betaincinv(successes, failures + 1, tail))
    return low, 1.0 if failures == 0 else float(betaincinv(successes + 1, failures, 1 - tail))


def _normal_reach(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
