import math

import numpy as np
import pytest
from scipy.stats import binomtest

from trainkit.intervals import bootstrap_interval, bootstrap_intervals, wilson_interval


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


def test_bootstrap_of_a_rate_is_near_wilson():
    correct = np.arange(400) < 320
    interval = bootstrap_interval(lambda indices: correct[indices].mean(), 400, seed=0)
    assert interval == pytest.approx(wilson_interval(320, 400), abs=0.01)


def test_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(0).normal(size=50)

    def interval(seed):
        return bootstrap_interval(lambda indices: values[indices].mean(), 50, seed=seed, num_resamples=200)

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_resamples_without_a_value_do_not_count():
    assert bootstrap_interval(lambda i: math.nan if i[0] == 0 else 1.0, 3, seed=0, num_resamples=50) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval(lambda i: math.nan, 3, seed=0, num_resamples=5))
    with pytest.raises(ValueError, match="no interval of no samples"):
        bootstrap_interval(lambda i: 1.0, 0, seed=0)


def test_several_statistics_share_their_resamples():
    values = np.random.default_rng(0).normal(size=50)

    def both(indices):
        return {"mean": values[indices].mean(), "spread": values[indices].std()}

    found = bootstrap_intervals(both, 50, seed=3, num_resamples=100)
    assert found["mean"] == bootstrap_interval(lambda i: values[i].mean(), 50, seed=3, num_resamples=100)
    assert found["spread"] == bootstrap_interval(lambda i: values[i].std(), 50, seed=3, num_resamples=100)
