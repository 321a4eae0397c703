import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.preprocessing import label_binarize

from trainkit.engine.ranking import average_precision, roc_auc

# Few distinct values: many ties, within and across the classes.
tied_scores = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9]), st.booleans()), min_size=2, max_size=60
)


@settings(deadline=None, max_examples=200)
@given(tied_scores)
def test_binary_equals_scikit_learn(pairs):
    scores, targets = np.array([s for s, _ in pairs]), np.array([t for _, t in pairs], dtype=int)
    if 0 < targets.sum() < len(targets):
        assert roc_auc(scores, targets) == pytest.approx(reference.roc_auc_score(targets, scores), abs=1e-12)
    else:
        assert math.isnan(roc_auc(scores, targets))
    if targets.any():
        expected = reference.average_precision_score(targets, scores)
        assert average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)
    else:
        assert math.isnan(average_precision(scores, targets))


@pytest.mark.parametrize("seed", range(5))
def test_one_against_the_rest_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 5, size=(80, 4)).astype(float)
    scores /= scores.sum(axis=1, keepdims=True)
    targets = rng.integers(4, size=80)
    assert roc_auc(scores, targets) == pytest.approx(
        reference.roc_auc_score(targets, scores, multi_class="ovr"), abs=1e-12
    )
    expected = reference.average_precision_score(label_binarize(targets, classes=range(4)), scores, average="macro")
    assert average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)


def test_a_class_without_samples_is_left_out_of_the_mean():
    scores, targets = np.random.default_rng(0).random((30, 3)), np.arange(30) % 2
    both = [reference.roc_auc_score(targets == k, scores[:, k]) for k in (0, 1)]
    assert roc_auc(scores, targets) == pytest.approx(np.mean(both))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(roc_auc(scores, np.zeros(30)))


def test_two_columns_are_the_two_classes():
    second = torch.rand(40)
    targets = torch.arange(40) % 2
    assert roc_auc(torch.stack([1 - second, second], dim=1), targets) == roc_auc(second, targets)


def test_worked_out_by_hand():
    assert roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_auc([1.0, 1.0, 1.0], [0, 1, 1]) == 0.5


def test_what_has_no_order_is_refused():
    with pytest.raises(ValueError, match="scores hold NaN"):
        roc_auc([0.1, math.nan], [0, 1])
    with pytest.raises(ValueError, match="metrics of no samples"):
        average_precision([], [])
