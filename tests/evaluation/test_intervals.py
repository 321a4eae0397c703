import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from trainkit.evaluation.intervals import percentile_interval, resamples, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(50, 100), (9, 10), (0, 10), (10, 10), (9910, 10000), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_equals_scipy(successes, trials, confidence):
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, trials, confidence=confidence) == pytest.approx(tuple(expected), abs=1e-12)


def test_more_confidence_is_wider():
    narrow, wide = wilson_interval(8, 10, confidence=0.8), wilson_interval(8, 10, confidence=0.99)
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_rate_is_refused(successes, trials):
    with pytest.raises(ValueError, match="no rate"):
        wilson_interval(successes, trials)


def drawn(num_samples, count, *, seed):
    """Resamples in columns (num_samples, count)."""
    return next(resamples(num_samples, seed=seed, at_a_time=count))


def test_bootstrap_of_a_rate_is_near_wilson():
    correct = np.arange(400) < 320
    rates = correct @ drawn(400, 1000, seed=0) / 400
    assert percentile_interval(rates) == pytest.approx(wilson_interval(320, 400), abs=0.01)


def test_a_resample_draws_with_replacement_as_many_as_there_are():
    counts = drawn(50, 200, seed=0)
    assert counts.shape == (50, 200)
    assert (counts.sum(axis=0) == 50).all()
    assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.4), "each as often as any other"
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.02)


def test_resamples_are_a_function_of_their_seed_alone():
    assert (drawn(50, 20, seed=1) == drawn(50, 20, seed=1)).all()
    assert (drawn(50, 20, seed=1) != drawn(50, 20, seed=2)).any()
    fives = resamples(50, seed=1, at_a_time=5)
    assert (np.hstack([next(fives) for _ in range(4)]) == drawn(50, 20, seed=1)).all()


def test_percentile_interval_equals_scipy():
    values = np.random.default_rng(0).normal(size=60)
    means = values @ drawn(60, 4000, seed=3) / 60
    expected = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert percentile_interval(means) == pytest.approx(tuple(expected), abs=0.02)


def test_resamples_without_a_value_do_not_count():
    assert percentile_interval([math.nan, 1.0, 1.0]) == (1.0, 1.0)
    assert all(math.isnan(end) for end in percentile_interval([math.nan]))
    with pytest.raises(ValueError, match="no resamples of no samples"):
        drawn(0, 1, seed=0)
