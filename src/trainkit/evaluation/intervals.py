"""How sure a measured number is: confidence intervals of rates and of any other statistic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trainkit.runtime.seeding import derive_seed


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


def resamples(num_samples: int, *, seed: int, at_a_time: int) -> Iterator[NDArray[np.float32]]:
    """Endless bootstrap resamples (Efron, 1979): how often each sample was drawn, float32 (num_samples, at_a_time).

    The same seed gives the same resamples.

    Raises:
        ValueError: no samples.
    """
    if num_samples <= 0:
        raise ValueError("no resamples of no samples")
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "bootstrap")))
    counts = np.empty((at_a_time, num_samples), dtype=np.float32)
    while True:
        for row in counts:
            row[:] = np.bincount(generator.integers(num_samples, size=num_samples), minlength=num_samples)
        yield counts.T.copy()


def percentile_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """The bootstrap's percentile interval of a statistic, from its values over the resamples.

    Resamples for which it is NaN (only one class drawn) do not count.
    """
    array = np.array(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (math.nan, math.nan)
    return float(low), float(high)
