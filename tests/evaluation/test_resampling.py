"""Metrics as functions of how often each sample was drawn: the same as those of the samples written out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from trainkit.evaluation.ranking import average_precision, expected_calibration_error, roc_auc
from trainkit.evaluation.resampling import SHIFT, ClassificationSample, Ranking, RegressionSample


def make_sample(rng, num_samples, num_classes, *, decimals):
    scores = np.round(rng.dirichlet(np.ones(num_classes), num_samples), decimals) + 1e-3
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    targets = rng.integers(num_classes, size=num_samples)
    losses, weights = rng.random(num_samples), rng.random(num_samples) + 0.5
    sample = ClassificationSample.build(
        predicted=probabilities.argmax(axis=1),
        probabilities=probabilities,
        targets=targets,
        losses=losses,
        weights=weights,
        num_bins=15,
    )
    return sample, probabilities, targets, losses, weights


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 5]), st.sampled_from([1, 6]))
def test_a_classification_resample_equals_its_samples_written_out(seed, num_classes, decimals):
    rng = np.random.default_rng(seed)
    sample, probabilities, targets, losses, weights = make_sample(rng, 40, num_classes, decimals=decimals)
    indices, others = rng.integers(40, size=40), rng.integers(40, size=40)
    counts = np.stack([np.bincount(chosen, minlength=40) for chosen in (others, indices, others)], axis=1).astype(
        np.float32
    )
    drawn, true = probabilities[indices], targets[indices]
    predicted = drawn.argmax(axis=1)
    found = {name: values[1] for name, values in (sample.counted(counts) | sample.ranked(counts)).items()}
    for name in ("precision", "recall", "f1"):
        expected = getattr(reference, f"{name}_score")(true, predicted, average="macro", zero_division=0)
        assert found[f"{name}_macro"] == pytest.approx(expected, abs=1e-12)
    assert found["loss"] == pytest.approx(losses[indices].sum() / weights[indices].sum(), abs=1e-12)
    assert found["expected_calibration_error"] == pytest.approx(expected_calibration_error(drawn, true), abs=1e-12)
    moved = abs(found["expected_calibration_error"] - expected_calibration_error(probabilities, targets))
    assert moved <= found[SHIFT] + 1e-12, "the triangle inequality"
    assert found["roc_auc"] == pytest.approx(roc_auc(drawn, true), abs=1e-12, nan_ok=True)
    assert found["average_precision"] == pytest.approx(average_precision(drawn, true), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("positive", "counts", "auc", "precision"),
    [
        ([True, True], [1, 1], math.nan, 1.0),
        ([False, False], [1, 1], math.nan, math.nan),
        ([False, True], [0, 2], math.nan, 1.0),
        ([False, True], [2, 0], math.nan, math.nan),
        ([False, True, False, True], [1, 1, 1, 1], 0.5, 0.5),
    ],
    ids=["all positive", "all negative", "the negatives were not drawn", "the positives were not drawn", "all tied"],
)
def test_degenerate_rankings(positive, counts, auc, precision):
    ranking = Ranking.build(np.full(len(positive), 0.3), np.array(positive))
    found = ranking.areas(np.array(counts, dtype=np.float32)[:, None])
    assert np.concatenate(found) == pytest.approx((auc, precision), nan_ok=True)


@pytest.mark.parametrize("num_targets", [1, 3])
def test_a_regression_resample_equals_its_samples_written_out(num_targets):
    rng = np.random.default_rng(num_targets)
    targets = rng.normal(1e4, 3, (50, num_targets))
    predictions = targets + rng.normal(0, 1, targets.shape)
    losses = np.square(predictions - targets).sum(axis=1)
    sample = RegressionSample.build(predictions, targets, losses=losses)
    indices = rng.integers(50, size=50)
    counts = np.stack([np.bincount(indices, minlength=50), np.ones(50)], axis=1).astype(np.float32)
    found = {name: values[0] for name, values in sample.statistics(counts).items()}
    true, predicted = targets[indices], predictions[indices]
    assert found == pytest.approx(
        {
            "loss": np.square(predicted - true).mean(),
            "mae": reference.mean_absolute_error(true, predicted),
            "rmse": reference.root_mean_squared_error(true, predicted),
            "r2": reference.r2_score(true, predicted),
        },
        rel=1e-9,
    )


def test_r2_of_a_constant_target():
    targets = np.full((5, 1), 2.0)
    counts = np.ones((5, 1), dtype=np.float32)
    assert RegressionSample.build(targets, targets, losses=np.zeros(5)).statistics(counts)["r2"] == 1.0
    assert RegressionSample.build(targets + 1, targets, losses=np.ones(5)).statistics(counts)["r2"] == 0.0
