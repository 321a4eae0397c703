"""Two sides on the same samples: against scipy, scikit-learn and simulated runs that are equal or are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, t, ttest_rel
from sklearn import metrics as reference

from trainkit.evaluation import METRICS, Group, compare_sides
from trainkit.evaluation.intervals import t_reach
from trainkit.evaluation.paired import exact_interval, mcnemar, paired_bootstrap


def answers(both, gained, lost, neither):
    """What two classifiers have right, from the four counts of McNemar's table."""
    counts = [both, gained, lost, neither]
    return np.repeat([True, False, True, False], counts), np.repeat([True, True, False, False], counts)


@settings(deadline=None)
@given(
    st.integers(0, 300), st.integers(0, 60), st.integers(0, 60), st.integers(0, 50), st.sampled_from([0.9, 0.95, 0.99])
)
def test_mcnemar_equals_the_binomial_test(both, gained, lost, neither, confidence):
    if not both + gained + lost + neither:
        return
    found = mcnemar(*answers(both, gained, lost, neither), confidence=confidence)
    number, apart = both + gained + lost + neither, gained + lost
    assert found.discordant == (gained, lost)
    assert found.difference == pytest.approx((gained - lost) / number)
    assert found.low <= found.difference <= found.high
    expected = binomtest(gained, apart).pvalue if apart else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    if expected > 1 - confidence:
        assert found.verdict == "not told apart"


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(1, 6, 0.125), (2, 10, 0.03857421875), (0, 5, 0.0625), (7, 7, 1)]
)
def test_known_values_of_the_exact_test(gained, lost, p_value):
    """As ``statsmodels.stats.contingency_tables.mcnemar(exact=True)`` and R's ``exact2x2`` give them."""
    assert mcnemar(*answers(50, gained, lost, 10)).p_value == pytest.approx(p_value)


def test_many_discordant_samples():
    found = mcnemar(*answers(500_000, 60_500, 59_500, 0))
    assert found.p_value == pytest.approx(2 * binom.cdf(59_500, 120_000, 0.5), rel=1e-6)
    assert found.verdict == "better"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_exact_interval_equals_scipy(trials, share, confidence):
    successes = round(share * trials)
    expected = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert exact_interval(successes, trials, confidence=confidence) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_students_reach_equals_scipy(freedom, confidence):
    assert t_reach(freedom, confidence) == pytest.approx(t.ppf((1 + confidence) / 2, freedom))


def test_the_metrics_are_scikit_learns():
    rng = np.random.default_rng(0)
    targets, predictions, weights = rng.integers(4, size=99), rng.integers(5, size=99), rng.integers(3, size=99) * 1.0
    for name, expected in (
        ("accuracy", reference.accuracy_score(targets, predictions, sample_weight=weights)),
        ("f1_macro", reference.f1_score(targets, predictions, average="macro", sample_weight=weights, zero_division=0)),
    ):
        assert METRICS[name](predictions, targets, weights) == pytest.approx(expected)
    values, truth = rng.normal(size=(2, 99, 3))
    by_target = reference.mean_squared_error(truth, values, sample_weight=weights, multioutput="raw_values")
    assert METRICS["rmse"](values, truth, weights) == pytest.approx(np.sqrt(by_target).mean())
    expected = reference.mean_absolute_error(truth, values, sample_weight=weights)
    assert METRICS["mae"](values, truth, weights) == pytest.approx(expected)


def test_the_bootstrap_of_a_mean_is_the_paired_test():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(400, 1))
    first, second = truth + rng.normal(0, 1, size=(2, 400, 1))
    found = compare_sides([Group(np.arange(400), truth, [first], [second])], "mae")
    expected = ttest_rel(np.abs(second - truth)[:, 0], np.abs(first - truth)[:, 0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.01)
    assert not found.with_seeds


@pytest.mark.parametrize("metric", ["accuracy", pytest.param("f1_macro", marks=pytest.mark.slow)])
def test_seeds_that_differ_more_than_the_sides_are_not_told_apart(metric):
    """The same two sides: by their samples alone they would be, and other seeds might turn it round."""
    rng = np.random.default_rng(2)
    samples, targets = rng.random(4_000), np.ones(4_000, dtype=np.int64)
    first, second = ([np.where(samples < share, 1, 0) for share in shares] for shares in ((0.80, 0.84), (0.83, 0.88)))
    group = Group(np.arange(4_000), targets, first, second)
    assert compare_sides([Group(group.samples, targets, first[:1], second[:1])], metric).verdict == "better"
    found = compare_sides([group], metric)
    assert found.with_seeds
    assert found.verdict == "not told apart"


def test_several_groups_pair_what_was_tested_on_the_same_samples():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(600, 1))
    groups = []
    for _ in range(4):
        chosen = np.sort(rng.choice(600, 200, replace=False))
        level = rng.normal(0, 2)  # of the split: it cancels out in pairs
        first = truth[chosen] + level + rng.normal(0, 0.1, size=(200, 1))
        groups.append(Group(chosen, truth[chosen], [first], [first - 0.05 * np.sign(level)]))
    found = compare_sides(groups, "mae")
    assert found.verdict == "better", "a lower error"
    assert found.difference == pytest.approx(-0.05, abs=0.01)
    assert found.num_samples == len(np.unique(np.concatenate([group.samples for group in groups])))


@pytest.mark.slow
def test_of_equal_sides_few_are_told_apart():
    """Three seeds on each side: at most 5 in 100 by chance; and of one network each, by McNemar's test."""
    rng = np.random.default_rng(4)
    pooled = single = 0
    for _ in range(60):
        samples, targets = rng.random(300), np.ones(300, dtype=np.int64)
        first, second = (
            [np.where(samples + rng.normal(0, 0.1, 300) < rng.normal(0.8, 0.02), 1, 0) for _ in range(3)]
            for _ in range(2)
        )
        group = Group(np.arange(300), targets, first, second)
        pooled += paired_bootstrap([group], "accuracy").verdict != "not told apart"
        again = [np.where(samples + rng.normal(0, 0.1, 300) < 0.8, 1, 0) for _ in range(2)]
        single += compare_sides([Group(group.samples, targets, again[:1], again[1:])], "accuracy").verdict != (
            "not told apart"
        )
    assert pooled <= 7
    assert single <= 7


@settings(deadline=None, max_examples=4)
@given(st.integers(1, 6), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.sampled_from(sorted(METRICS)))
def test_sizes_and_few_samples(number, num_first, num_second, num_groups, metric):
    rng = np.random.default_rng(number)
    is_class = metric in ("accuracy", "f1_macro")

    def drawn():
        return rng.integers(3, size=number) if is_class else rng.normal(size=(number, 2))

    groups = [
        Group(
            rng.permutation(10)[:number],
            drawn(),
            [drawn() for _ in range(num_first)],
            [drawn() for _ in range(num_second)],
        )
        for _ in range(num_groups)
    ]
    found = compare_sides(groups, metric)
    assert found.low <= found.difference + 1e-12
    assert found.difference <= found.high + 1e-12
    turned = [Group(one.samples, one.targets, one.second, one.first) for one in groups]
    back = compare_sides(turned, metric)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
