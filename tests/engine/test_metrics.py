import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from trainkit.engine.metrics import ClassificationMetrics, RegressionMetrics

seeds = st.integers(0, 2**31)
cuts = st.lists(st.integers(1, 59), max_size=6, unique=True).map(sorted)


def one_hot_scores(predicted, num_classes):
    return torch.nn.functional.one_hot(torch.as_tensor(predicted), num_classes).float()


def classified(scores, targets, **kwargs):
    metrics = ClassificationMetrics(scores.shape[1], **kwargs)
    metrics.update(scores, targets)
    return metrics


def expected_of(true, predicted):
    scores = {"accuracy": reference.accuracy_score(true, predicted)}
    for name in ("precision", "recall", "f1"):
        score = getattr(reference, f"{name}_score")
        scores[f"{name}_macro"] = score(true, predicted, average="macro", zero_division=0)
    return scores


@pytest.mark.parametrize(
    ("true", "predicted", "num_classes"),
    [
        (np.random.default_rng(0).integers(7, size=200), np.random.default_rng(1).integers(7, size=200), 7),
        (np.array([0, 0, 0]), np.array([0, 0, 0]), 3),
        (np.array([0, 0, 0]), np.array([1, 1, 1]), 3),
        (np.array([0, 1, 0, 1]), np.array([0, 0, 2, 2]), 4),
        (np.array([1]), np.array([1]), 2),
    ],
    ids=["random", "one class", "all wrong", "class never true, class never seen", "one sample"],
)
def test_classification_equals_scikit_learn(true, predicted, num_classes):
    metrics = classified(one_hot_scores(predicted, num_classes), torch.from_numpy(true), top_k=())
    assert metrics.compute() == pytest.approx(expected_of(true, predicted), abs=1e-15)
    assert metrics.confusion.tolist() == reference.confusion_matrix(true, predicted, labels=range(num_classes)).tolist()
    columns = reference.precision_recall_fscore_support(true, predicted, labels=range(num_classes), zero_division=0)
    rows = [(row.precision, row.recall, row.f1, row.support) for row in metrics.per_class()]
    np.testing.assert_allclose(rows, np.transpose(columns), atol=1e-15)
    assert metrics.num_samples == len(true)


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_top_k_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scores, targets = rng.normal(size=(60, 8)), rng.integers(8, size=60)
    metrics = classified(torch.from_numpy(scores), torch.from_numpy(targets), top_k=(1, 3, 5, 8)).compute()
    for k in (1, 3, 5):
        expected = reference.top_k_accuracy_score(targets, scores, k=k, labels=range(8))
        assert metrics[f"top{k}_accuracy"] == pytest.approx(expected, abs=1e-15)
    assert metrics["top1_accuracy"] == metrics["accuracy"]
    assert "top8_accuracy" not in metrics


def test_top5_is_there_from_six_classes_on():
    assert "top5_accuracy" not in classified(torch.rand(4, 5), torch.arange(4)).compute()
    assert "top5_accuracy" in classified(torch.rand(4, 6), torch.arange(4)).compute()


def test_equal_scores_rank_by_class_index():
    metrics = classified(torch.zeros(6, 6), torch.arange(6), top_k=(1, 2, 5))
    assert metrics.confusion[:, 0].tolist() == [1] * 6
    assert metrics.compute()["top2_accuracy"] == pytest.approx(2 / 6)
    assert metrics.compute()["top5_accuracy"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("top_k", [(5,)])
def test_scores_that_are_nan_are_not_right(top_k):
    scores = torch.full((2, 6), math.nan)
    assert classified(scores, torch.tensor([5, 3]), top_k=top_k).compute()["top5_accuracy"] == 0


@settings(deadline=None, max_examples=50)
@given(seeds, cuts, st.randoms())
def test_classification_is_the_same_in_any_batches_in_any_order(seed, cuts, random):
    generator = torch.Generator().manual_seed(seed)
    scores, targets = torch.randn(60, 7, generator=generator), torch.randint(7, (60,), generator=generator)
    whole = classified(scores, targets)
    parts = list(torch.arange(60).tensor_split(cuts))
    random.shuffle(parts)
    metrics = ClassificationMetrics(7)
    for part in parts:
        metrics.update(scores[part], targets[part])
    assert metrics.compute() == whole.compute()
    assert torch.equal(metrics.confusion, whole.confusion)


def test_metrics_of_nothing():
    with pytest.raises(ValueError, match="metrics of no samples"):
        ClassificationMetrics(3).compute()
    with pytest.raises(ValueError, match="metrics of no samples"):
        RegressionMetrics(1).compute()


def regressed(outputs, targets):
    metrics = RegressionMetrics(targets.shape[1])
    metrics.update(outputs, targets)
    return metrics


def expected_regression(outputs, targets):
    outputs, targets = outputs.double().numpy(), targets.double().numpy()
    return {
        "mae": reference.mean_absolute_error(targets, outputs),
        "rmse": reference.root_mean_squared_error(targets, outputs),
        "r2": reference.r2_score(targets, outputs),
    }


def rows(*values):
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.randn(80, 3), torch.randn(80, 3) * torch.tensor([1.0, 100.0, 0.01])),
        (rows([1.0], [2.0], [4.0]), rows([3.0], [3.0], [3.0])),
        (rows([0.1], [0.1], [0.1]), rows([0.1], [0.1], [0.1])),
        (rows([1.0, 5.0], [2.0, 5.0]), rows([1.0, 5.0], [2.0, 5.0])),
        (1e6 + torch.randn(90, 1), 1e6 + torch.randn(90, 1)),
    ],
    ids=["random", "constant target", "constant and right", "perfect", "large mean"],
)
def test_regression_equals_scikit_learn(outputs, targets):
    assert regressed(outputs, targets).compute() == pytest.approx(expected_regression(outputs, targets), rel=1e-12)


def test_r2_of_one_sample_is_not_defined():
    metrics = regressed(rows([1.0]), rows([2.0])).compute()
    assert (metrics["mae"], metrics["rmse"]) == (1.0, 1.0)
    assert math.isnan(metrics["r2"])


def test_per_target_rows_equal_scikit_learn():
    outputs, targets = torch.randn(40, 3), torch.randn(40, 3)
    raw = reference.r2_score(targets.double(), outputs.double(), multioutput="raw_values")
    assert [row.r2 for row in regressed(outputs, targets).per_target()] == pytest.approx(list(raw), rel=1e-12)


def test_a_large_mean_does_not_eat_the_spread():
    """With plain sums of squares in float64, a mean of 1e9 and a spread of 1 leave no correct digit."""
    noise = torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metrics = RegressionMetrics(1)
    for part in torch.arange(1000).split(7):
        metrics.update(1e9 + noise[part] / 2, 1e9 + noise[part])
    exact = 1 - (noise / 2).square().sum() / (noise - noise.mean()).square().sum()
    assert metrics.compute()["r2"] == pytest.approx(exact.item(), rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(seeds, cuts, st.randoms())
def test_regression_is_the_same_in_any_batches_in_any_order(seed, cuts, random):
    generator = torch.Generator().manual_seed(seed)
    targets = 50 + torch.randn(60, 2, generator=generator)
    outputs = targets + torch.randn(60, 2, generator=generator)
    parts = list(torch.arange(60).tensor_split(cuts))
    random.shuffle(parts)
    metrics = RegressionMetrics(2)
    for part in parts:
        metrics.update(outputs[part], targets[part])
    assert metrics.num_samples == 60
    assert metrics.compute() == pytest.approx(regressed(outputs, targets).compute(), rel=1e-12)


def test_an_empty_batch_changes_nothing():
    metrics = regressed(torch.randn(5, 2), torch.randn(5, 2))
    before = metrics.compute()
    metrics.update(torch.empty(0, 2), torch.empty(0, 2))
    assert metrics.compute() == before


def test_metrics_can_be_updated_in_inference_mode():
    with torch.inference_mode():
        assert classified(torch.eye(3), torch.arange(3)).compute()["accuracy"] == 1.0
        assert regressed(torch.ones(2, 1), torch.ones(2, 1)).compute()["mae"] == 0.0


@settings(deadline=None)
@given(
    seed=seeds, size=st.integers(2, 40), a=st.floats(1e-4, 1e4), sign=st.sampled_from([-1, 1]), b=st.floats(-1e6, 1e6)
)
def test_a_target_in_other_units_has_the_same_r2_and_its_errors_in_these_units(seed, size, a, sign, b):
    """Outputs and targets are standardized by the deviation of the data in each unit."""
    rng = np.random.default_rng(seed)
    true, error = rng.normal(size=(2, size, 1))
    predicted = true + 0.3 * error
    found = []
    for factor, shift in ((1.0, 0.0), (sign * a, a * b)):
        in_units = factor * true + shift
        mean, std = in_units.mean(), in_units.std()
        metrics = RegressionMetrics(1, target_std=[std])
        scaled = (torch.from_numpy((factor * values + shift - mean) / std).float() for values in (predicted, true))
        metrics.update(*scaled)
        found.append(metrics.compute())
    one, other = found
    assert other["r2"] == pytest.approx(one["r2"], abs=1e-5)
    for name in ("mae", "rmse"):
        assert other[name] == pytest.approx(a * one[name], rel=1e-4)


def test_each_target_has_its_own_unit():
    outputs, targets = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.zeros(2, 2)
    metrics = RegressionMetrics(2, target_std=[10.0, 1000.0])
    metrics.update(outputs, targets)
    assert [row.mae for row in metrics.per_target()] == [5.0, 500.0]
    assert metrics.compute()["mae"] == 252.5


@settings(deadline=None)
@given(seeds, cuts, st.sampled_from([0.1, 0.5, 0.9]))
def test_the_loss_of_a_quantile_is_scikit_learns_however_it_is_cut(seed, cuts, quantile):
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = (torch.randn(60, 2, generator=generator) for _ in range(2))
    std = [0.5, 8.0]
    whole = RegressionMetrics(2, target_std=std, quantile=quantile)
    for part in zip(outputs.tensor_split(cuts), targets.tensor_split(cuts), strict=True):
        whole.update(*part)
    true, predicted = (values.double().numpy() * std for values in (targets, outputs))
    expected = reference.mean_pinball_loss(true, predicted, alpha=quantile)
    assert whole.compute()["quantile_loss"] == pytest.approx(expected, rel=1e-12)
    assert "quantile_loss" not in regressed(outputs, targets).compute()
