"""How sure a measured number is: confidence intervals of rates and of any other statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trainkit.seeding import derive_seed


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a rate such as accuracy (Wilson, 1927): stays within [0, 1] and is not empty at 0 or 1.

    Raises:
        ValueError: no trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"no rate of {successes} successes in {trials} trials")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    reach = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (centre - reach) / scale
    high = 1.0 if successes == trials else (centre + reach) / scale
    return low, high


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    num_samples: int,
    *,
    seed: int,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval (Efron, 1979) of a statistic over ``num_samples`` samples.

    ``statistic`` takes the indices of a resample, int64 (num_samples,) drawn with replacement. The same seed gives the
    same interval. Resamples for which the statistic is NaN (only one class drawn) do not count.

    Raises:
        ValueError: no samples.
    """

    def only(indices: NDArray[np.int64]) -> dict[str, float]:
        return {"": statistic(indices)}

    return bootstrap_intervals(only, num_samples, seed=seed, num_resamples=num_resamples, confidence=confidence)[""]


def bootstrap_intervals(
    statistics: Callable[[NDArray[np.int64]], Mapping[str, float]],
    num_samples: int,
    *,
    seed: int,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """``bootstrap_interval`` of several statistics of the same resamples, by name.

    Raises:
        ValueError: no samples.
    """
    if num_samples <= 0:
        raise ValueError("no interval of no samples")
    draws = np.random.Generator(np.random.PCG64(derive_seed(seed, "bootstrap")))
    resamples = [statistics(draws.integers(num_samples, size=num_samples)) for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    intervals = {}
    for name in resamples[0]:
        values = np.array([values[name] for values in resamples], dtype=np.float64)
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (math.nan, math.nan)
        intervals[name] = (float(low), float(high))
    return intervals
