import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm, sem
from sklearn import metrics as reference

from trainkit.evaluation.intervals import (
    NUM_RESAMPLES,
    classification_intervals,
    macro_intervals,
    normal_reach,
    regression_intervals,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "trials"), [(50, 100), (9, 10), (0, 10), (10, 10), (9910, 10000), (1, 1)])
def test_wilson_interval_equals_scipy(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_rate_is_refused(successes, trials):
    with pytest.raises(ValueError, match="no rate"):
        wilson_interval(successes, trials)


def test_the_normal_interval_equals_scipy():
    values = np.random.default_rng(0).normal(size=60)
    low, high = norm.interval(0.95, loc=values.mean(), scale=sem(values))
    assert normal_reach(values) == pytest.approx((high - low) / 2)


# ---- classes ----


def macro_scores(true, predicted):
    return [
        getattr(reference, f"{name}_score")(true, predicted, average="macro", zero_division=0)
        for name in ("precision", "recall", "f1")
    ]


def test_macro_intervals_equal_those_of_samples_drawn_one_by_one():
    rng = np.random.default_rng(0)
    true = rng.integers(4, size=150)
    predicted = np.where(rng.random(150) < 0.7, true, rng.integers(4, size=150))
    found = macro_intervals(reference.confusion_matrix(true, predicted), seed=0)
    drawn = rng.integers(150, size=(600, 150))
    scores = np.array([macro_scores(true[rows], predicted[rows]) for rows in drawn])
    expected = np.quantile(scores, [0.025, 0.975], axis=0).T
    ends = [(found[f"{name}_macro"].low, found[f"{name}_macro"].high) for name in ("precision", "recall", "f1")]
    assert np.asarray(ends) == pytest.approx(expected, abs=0.02)
    assert all((one.method, one.resamples) == ("bootstrap", NUM_RESAMPLES) for one in found.values())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.0, 1.0))
def test_macro_intervals_lie_within_0_and_1_and_repeat(seed, num_classes, skill):
    rng = np.random.default_rng(seed)
    true = rng.integers(num_classes, size=40)
    predicted = np.where(rng.random(40) < skill, true, rng.integers(num_classes, size=40))
    confusion = reference.confusion_matrix(true, predicted, labels=range(num_classes))
    found = macro_intervals(confusion, seed=seed)
    assert all(0 <= one.low <= one.high <= 1 for one in found.values())
    assert macro_intervals(confusion, seed=seed) == found


def test_another_seed_gives_other_resamples():
    confusion = np.array([[30, 5], [4, 40]])
    assert macro_intervals(confusion, seed=0) != macro_intervals(confusion, seed=1)


def test_classes_that_do_not_occur_do_not_count():
    found = macro_intervals(np.diag([20, 0, 20]), seed=0)
    assert all((one.low, one.high) == (1.0, 1.0) for one in found.values())


def test_the_interval_of_a_loss_weighted_by_class_is_near_the_bootstrap():
    rng = np.random.default_rng(0)
    weights = rng.choice([0.5, 3.0], size=300)
    losses = weights * rng.exponential(size=300)
    found = classification_intervals({}, np.eye(2, dtype=int) * 150, losses=losses, weights=weights, seed=0)["loss"]

    def ratio(losses, weights, axis):
        return losses.sum(axis=axis) / weights.sum(axis=axis)

    expected = bootstrap((losses, weights), ratio, paired=True, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02)
    assert found.method == "normal"


@pytest.mark.parametrize("losses", [np.ones(1), np.array([1.0, np.inf])], ids=["one sample", "infinite"])
def test_a_loss_whose_spread_is_not_known_has_no_interval(losses):
    weights = np.ones(len(losses))
    found = classification_intervals({}, np.eye(2, dtype=int), losses=losses, weights=weights, seed=0)
    assert "loss" not in found


# ---- regression ----


def random_regression(seed, num_samples, num_targets=1, noise=0.5):
    rng = np.random.default_rng(seed)
    targets = rng.normal(1e3, 1, (num_samples, num_targets))
    return targets + rng.normal(0, noise, targets.shape), targets


def intervals_of(predictions, targets):
    losses = np.square(predictions - targets).sum(axis=1)
    return regression_intervals(predictions, targets, losses=losses)


@pytest.mark.parametrize("num_targets", [1, 3])
def test_regression_intervals_are_near_the_bootstrap(num_targets):
    predictions, targets = random_regression(1, 200, num_targets)
    found = intervals_of(predictions, targets)
    scores = {
        "loss": reference.mean_squared_error,
        "mae": reference.mean_absolute_error,
        "rmse": reference.root_mean_squared_error,
        "r2": reference.r2_score,
    }
    assert found.keys() == scores.keys()
    for name, score in scores.items():
        expected = bootstrap(
            (np.arange(200),),
            lambda rows, score=score: score(targets[rows], predictions[rows]),
            vectorized=False,
            n_resamples=600,
            method="BCa",
            rng=0,
        ).confidence_interval
        width = expected.high - expected.low
        assert (found[name].low, found[name].high) == pytest.approx(tuple(expected), abs=0.2 * width), name
        assert found[name].low < score(targets, predictions) < found[name].high


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_regression_intervals_hold_the_truth(noise):
    truth = {"rmse": noise, "mae": noise * np.sqrt(2 / np.pi), "r2": 1 - noise**2, "loss": noise**2}
    held = dict.fromkeys(truth, 0)
    for seed in range(300):
        found = intervals_of(*random_regression(seed, 80, noise=noise))
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
            assert name == "r2" or found[name].low >= 0
        assert found["r2"].high <= 1
    assert all(count >= 0.9 * 300 for count in held.values()), held


def test_regressions_without_errors_or_without_spread():
    targets = np.arange(5.0)[:, None]
    perfect = intervals_of(targets, targets)
    assert {name: (one.low, one.high) for name, one in perfect.items()} == {
        "loss": (0, 0),
        "mae": (0, 0),
        "rmse": (0, 0),
        "r2": (1, 1),
    }
    constant = intervals_of(targets, np.full((5, 1), 2.0))
    assert (constant["r2"].low, constant["r2"].high) == (0, 0), "as in scikit-learn"
    assert intervals_of(targets[:1], targets[:1] + 1) == {}, "one sample has no spread"


def test_float32_outputs_of_torch_are_taken_too():
    predictions, targets = (torch.from_numpy(part).float().double().numpy() for part in random_regression(0, 30))
    assert intervals_of(predictions, targets).keys() == {"loss", "mae", "rmse", "r2"}
