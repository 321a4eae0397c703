"""The report of an evaluation equals scikit-learn's metrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.preprocessing import label_binarize

from trainkit.engine.losses import build_loss
from trainkit.evaluation.intervals import wilson_interval
from trainkit.evaluation.report import NUM_BINS, build_report


def report_of(outputs, targets, *, name="cross_entropy", num_classes=None, seed=0, **knobs):
    outputs = torch.as_tensor(outputs, dtype=torch.float32)
    loss = build_loss(name, **knobs)
    tensor = torch.as_tensor(targets)
    num_classes = num_classes or outputs.shape[1]
    metrics = {"loss": loss.mean(outputs, tensor).item()}
    return build_report(
        outputs,
        np.asarray(targets),
        loss=loss,
        class_names=[f"c{k}" for k in range(num_classes)] if loss.is_classification else [],
        target_names=[] if loss.is_classification else [f"t{k}" for k in range(outputs.shape[1])],
        metrics=metrics,
        seed=seed,
    )


def random_case(num_samples=300, num_classes=7, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(num_classes, size=num_samples)
    outputs = rng.normal(size=(num_samples, num_classes))
    outputs[np.arange(num_samples), targets] += sharpness
    return outputs.astype(np.float32), targets


def test_a_random_classifier_equals_scikit_learn():
    outputs, targets = random_case()
    report = report_of(outputs, targets)
    probabilities = torch.from_numpy(outputs).softmax(1).double().numpy()
    predicted = outputs.argmax(axis=1)
    assert report.confusion.tolist() == reference.confusion_matrix(targets, predicted).tolist()
    rows = reference.precision_recall_fscore_support(targets, predicted, zero_division=0)
    found = [[row.precision, row.recall, row.f1, row.support] for row in report.per_class]
    np.testing.assert_allclose(found, np.transpose(rows))
    one_hot = label_binarize(targets, classes=range(7))
    for k, row in enumerate(report.per_class):
        assert row.roc_auc == pytest.approx(reference.roc_auc_score(one_hot[:, k], probabilities[:, k]))
        expected = reference.average_precision_score(one_hot[:, k], probabilities[:, k])
        assert row.average_precision == pytest.approx(expected)
    metrics = report.metrics
    rounded = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert metrics["roc_auc"] == pytest.approx(reference.roc_auc_score(targets, rounded, multi_class="ovr"), abs=1e-6)
    assert metrics["average_precision"] == pytest.approx(
        reference.average_precision_score(one_hot, probabilities, average="macro")
    )
    for k in (2, 3, 5):
        assert metrics[f"top{k}_accuracy"] == pytest.approx(reference.top_k_accuracy_score(targets, outputs, k=k))


def test_two_classes_by_one_output():
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=200)
    outputs = (rng.normal(size=(200, 1)) + 2 * targets[:, None] - 1).astype(np.float32)
    report = report_of(outputs, targets, name="bce_with_logits", num_classes=2)
    assert report.metrics["roc_auc"] == pytest.approx(reference.roc_auc_score(targets, outputs[:, 0]), abs=1e-4)
    expected = reference.confusion_matrix(targets, outputs[:, 0] > 0)
    assert report.confusion.tolist() == expected.tolist()
    assert not [name for name in report.metrics if name.startswith("top")]


@pytest.mark.parametrize("name", ["cross_entropy", "nll"])
def test_log_probabilities_and_logits_give_the_same(name):
    outputs, targets = random_case()
    outputs = torch.from_numpy(outputs).log_softmax(1)
    report = report_of(outputs, targets, name=name)
    expected = report_of(outputs, targets)
    assert report.metrics == pytest.approx(expected.metrics, abs=1e-6)
    assert report.intervals["loss"].low == pytest.approx(expected.intervals["loss"].low, abs=1e-5)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (np.eye(3)[[0, 0, 0]], [0, 0, 0]),
        (np.eye(3)[[1, 1, 1]], [0, 0, 0]),
        (np.zeros((6, 3)), [0, 1, 2, 0, 1, 2]),
        (np.eye(4)[[0, 1, 0, 1]], [0, 1, 1, 0]),
        (np.eye(2)[[1]], [1]),
        (1e4 * np.eye(3)[[0, 1, 2, 1]], [0, 1, 2, 2]),
    ],
    ids=["one class", "all wrong", "all tied", "empty classes", "one sample", "saturated"],
)
def test_degenerate_cases(outputs, targets):
    report = report_of(outputs, targets)
    predicted, num_classes = np.argmax(outputs, axis=1), outputs.shape[1]
    expected = reference.confusion_matrix(targets, predicted, labels=range(num_classes))
    assert report.confusion.tolist() == expected.tolist()
    rows = reference.precision_recall_fscore_support(targets, predicted, labels=range(num_classes), zero_division=0)
    found = [[row.precision, row.recall, row.f1, row.support] for row in report.per_class]
    np.testing.assert_allclose(found, np.transpose(rows))
    present = set(targets)
    if len(present) == 1:
        assert math.isnan(report.metrics["roc_auc"])
    else:
        shown = torch.as_tensor(outputs, dtype=torch.float32).softmax(1).numpy()
        areas = [reference.roc_auc_score(np.equal(targets, k), shown[:, k]) for k in present]
        assert report.metrics["roc_auc"] == pytest.approx(np.mean(areas))
    assert all(not math.isnan(value) for name, value in report.metrics.items() if name != "roc_auc")
    assert 0 <= report.metrics["expected_calibration_error"] <= 1
    assert report.reliability.counts.sum() == len(targets)


def test_intervals_hold_their_metric_and_repeat():
    outputs, targets = random_case(sharpness=1.0)
    report = report_of(outputs, targets)
    correct = int((outputs.argmax(axis=1) == targets).sum())
    accuracies = {"accuracy", "top2_accuracy", "top3_accuracy", "top5_accuracy"}
    assert report.intervals.keys() == accuracies | {"loss", "precision_macro", "recall_macro", "f1_macro"}
    accuracy = report.intervals["accuracy"]
    assert (accuracy.low, accuracy.high) == wilson_interval(correct, 300)
    predicted = outputs.argmax(axis=1)
    f1 = report.intervals["f1_macro"]
    assert f1.low < reference.f1_score(targets, predicted, average="macro") < f1.high
    assert report_of(outputs, targets).intervals == report.intervals
    assert report_of(outputs, targets, seed=1).intervals != report.intervals


def test_the_interval_of_a_weighted_loss_is_around_the_weighted_loss():
    outputs, targets = random_case()
    report = report_of(outputs, targets, weight=[1, 5, 1, 1, 0.5, 1, 1])
    interval = report.intervals["loss"]
    assert interval.low < report.metrics["loss"] < interval.high


def test_the_bins_of_the_reliability_diagram_add_up_to_the_calibration_error():
    outputs, targets = random_case()
    report = report_of(outputs, targets)
    bins = report.reliability
    assert len(bins.counts) == NUM_BINS
    gaps = np.nan_to_num(np.abs(bins.accuracy - bins.confidence)) * bins.counts
    assert gaps.sum() / 300 == pytest.approx(report.metrics["expected_calibration_error"])


def test_mistakes_come_most_confident_first():
    outputs = np.array([[3, 0, 0], [0, 9, 0], [0, 0, 6], [5, 0, 0], [0, 0, 7]], dtype=np.float32)
    report = report_of(outputs, [0, 0, 1, 1, 0])
    assert [(m.position, m.true, m.predicted) for m in report.mistakes] == [
        (1, "c0", "c1"),
        (4, "c0", "c2"),
        (2, "c1", "c2"),
        (3, "c1", "c0"),
    ]
    assert report.num_mistakes == 4
    assert report.most_confused(1) == [("c0", "c1", 1)]


def test_the_mistakes_are_limited_and_counted():
    outputs, targets = random_case(sharpness=-2.0)
    report = report_of(outputs, targets)
    assert len(report.mistakes) == 25
    assert report.num_mistakes == int((outputs.argmax(axis=1) != targets).sum())


@pytest.mark.parametrize("num_targets", [1, 2])
def test_regression_equals_scikit_learn(num_targets):
    rng = np.random.default_rng(0)
    targets = rng.normal(100, 20, (80, num_targets)).astype(np.float32)
    outputs = (targets + rng.normal(0, 5, targets.shape)).astype(np.float32)
    report = report_of(outputs, targets, name="mse")
    for row, true, predicted in zip(report.per_target, targets.T, outputs.T, strict=True):
        assert row.mae == pytest.approx(reference.mean_absolute_error(true, predicted), rel=1e-5)
        assert row.rmse == pytest.approx(reference.root_mean_squared_error(true, predicted), rel=1e-5)
        assert row.r2 == pytest.approx(reference.r2_score(true, predicted), rel=1e-5)
    interval = report.intervals["rmse"]
    assert interval.low < np.mean([row.rmse for row in report.per_target]) < interval.high
    worst = report.worst(1)[0]
    assert worst["position"] == int(np.abs(outputs - targets).max(axis=1).argmax())


@settings(max_examples=20, deadline=None)
@given(
    scale=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(1.0, 1e5)), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_a_scaled_target_is_reported_in_its_own_units(scale, seed):
    """The same numbers as for outputs and targets that were in these units from the start."""
    mean, std = np.array(scale).T
    targets, errors = np.random.default_rng(seed).normal(size=(2, 30, len(scale)))
    outputs = torch.from_numpy(targets + 0.3 * errors).float()
    in_units = targets * std + mean
    knobs = {"class_names": (), "target_names": [f"t{k}" for k in range(len(scale))], "metrics": {}, "seed": 0}
    loss = build_loss("l1", target_std=std.tolist())
    report = build_report(outputs, in_units, loss=loss, target_scale=tuple(scale), **knobs)
    assert np.array_equal(report.targets, in_units)
    missed = np.abs(report.predictions - report.targets)
    np.testing.assert_allclose(missed, np.abs(0.3 * errors) * std, rtol=1e-4, atol=1e-5 * std.max())
    np.testing.assert_allclose([row.mae for row in report.per_target], missed.mean(axis=0), rtol=1e-4)
    mae, of_loss = report.intervals["mae"], report.intervals["loss"]
    assert mae.low < missed.mean() < mae.high
    if len(set(std)) == 1:
        assert (of_loss.low, of_loss.high) == (pytest.approx(mae.low, rel=1e-3), pytest.approx(mae.high, rel=1e-3))


def test_a_request_to_stop_is_heard():
    class Stopped(Exception):
        pass

    def check():
        raise Stopped

    outputs, targets = random_case()
    with pytest.raises(Stopped):
        build_report(
            torch.from_numpy(outputs),
            targets,
            loss=build_loss("cross_entropy"),
            class_names="abcdefg",
            target_names=(),
            metrics={},
            seed=0,
            check=check,
        )
