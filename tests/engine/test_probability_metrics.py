"""Metrics of classes that a run asks for: equal to scikit-learn's, however the samples are cut."""

import math

import numpy as np
import pytest
import torch
from digit_runs import States, config_with, run
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.preprocessing import label_binarize

from trainkit.builders import build_setup
from trainkit.engine import EXTRA_METRICS, ClassificationMetrics, build_loss
from trainkit.engine.probability_metrics import ProbabilityMetrics


def samples(seed, num_classes, *, present=None, count=60, ties=True):
    """Float32 probabilities (N, K), with many ties and with zeros and ones; targets of the classes that are present."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=(count, num_classes)) if ties else rng.random((count, num_classes))
    scores = scores + (scores.sum(axis=1, keepdims=True) == 0)
    probabilities = torch.from_numpy(scores / scores.sum(axis=1, keepdims=True)).float()
    classes = np.arange(num_classes if present is None else present)
    targets = rng.permutation(np.resize(classes, count))
    return probabilities, torch.from_numpy(targets)


def expected_of(probabilities, targets):
    """By scikit-learn, for targets that hold every class."""
    chances, labels = probabilities.numpy(), targets.numpy()
    num_classes = chances.shape[1]
    predicted = chances.argmax(axis=1)
    binary = num_classes == 2
    one_hot = label_binarize(labels, classes=range(num_classes))
    ranked = chances[:, 1] if binary else chances
    return {
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "mcc": reference.matthews_corrcoef(labels, predicted),
        "log_loss": reference.log_loss(labels, chances, labels=range(num_classes)),
        "roc_auc": reference.roc_auc_score(labels, ranked, **({} if binary else {"multi_class": "ovr"})),
        "average_precision": reference.average_precision_score(labels if binary else one_hot, ranked),
    }


def added(probabilities, targets, cuts=(), names=EXTRA_METRICS):
    """The metrics of the samples, added in pieces."""
    whole = ClassificationMetrics(probabilities.shape[1], also=names)
    for rows, labels in zip(probabilities.tensor_split(cuts), targets.tensor_split(cuts), strict=True):
        whole.update(rows, labels)
    return {name: value for name, value in whole.compute().items() if name in names}


@pytest.mark.filterwarnings("ignore:The y_prob")
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn(seed, num_classes, ties):
    probabilities, targets = samples(seed, num_classes, ties=ties)
    found = added(probabilities, targets)
    assert list(found) == list(EXTRA_METRICS)
    assert found == pytest.approx(expected_of(probabilities, targets), abs=2e-6)
    for name in ("mcc", "balanced_accuracy", "roc_auc", "average_precision"):
        assert found[name] == pytest.approx(expected_of(probabilities, targets)[name], abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 60), max_size=5).map(sorted), st.sampled_from([2, 4]))
def test_pieces_give_what_the_whole_gives(seed, cuts, num_classes):
    probabilities, targets = samples(seed, num_classes)
    found, whole = added(probabilities, targets, cuts), added(probabilities, targets)
    assert found.pop("log_loss") == pytest.approx(whole.pop("log_loss"), rel=1e-12)
    assert found == whole


def test_a_class_that_the_split_does_not_hold():
    probabilities, targets = samples(0, 4, present=3, ties=False)
    found, labels, predicted = added(probabilities, targets), targets.numpy(), probabilities.argmax(dim=1).numpy()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, predicted))
    areas = [reference.roc_auc_score(labels == k, probabilities[:, k]) for k in range(3)]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    precisions = [reference.average_precision_score(labels == k, probabilities[:, k]) for k in range(3)]
    assert found["average_precision"] == pytest.approx(np.mean(precisions))


def test_samples_of_one_class_have_no_area():
    probabilities, targets = samples(0, 2, present=1)
    found = added(probabilities, targets)
    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["average_precision"])
    assert found["balanced_accuracy"] == (probabilities.argmax(dim=1) == 0).double().mean().item()
    assert found["mcc"] == 0 == reference.matthews_corrcoef(np.zeros(60), probabilities.argmax(dim=1).numpy())


def test_nan_in_a_score_is_nan_and_no_failure():
    probabilities, targets = samples(0, 3)
    probabilities[4, 1] = math.nan
    found = added(probabilities, targets)
    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["average_precision"])


def test_large_counts_do_not_cancel():
    metrics = ClassificationMetrics(2, also=["mcc"])
    metrics._confusion += torch.tensor([4 * 10**9, 1, 0, 10**9])
    assert metrics.compute()["mcc"] == pytest.approx(1 - 6.25e-10, abs=1e-11)


@pytest.mark.parametrize("names", [[], ["mcc", "balanced_accuracy"]])
def test_what_is_not_asked_for_keeps_nothing(names):
    metrics = ClassificationMetrics(3, also=names, probabilities_of=lambda scores: pytest.fail("needless work"))
    metrics.update(torch.rand(5, 3), torch.arange(5) % 3)
    assert metrics._probabilities is None


def test_of_two_classes_one_column_is_kept():
    metrics = ProbabilityMetrics(["roc_auc"])
    metrics.update(torch.rand(5, 2), torch.arange(5) % 2)
    assert metrics._kept[0][0].shape == (5,)


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="metrics of no samples"):
        ProbabilityMetrics(["log_loss"]).compute()


@pytest.mark.parametrize("name", ["cross_entropy", "nll", "bce", "bce_with_logits"])
def test_each_loss_gives_its_probabilities(name):
    loss = build_loss(name)
    scores = torch.randn(20, 1 if loss.is_binary else 3)
    outputs = {"nll": scores.log_softmax(1), "bce": scores.sigmoid()}.get(name, scores)
    assert torch.equal(loss.probabilities_of(loss.predictions(outputs)), loss.probabilities(outputs))


class Log(States):
    def log(self, record):
        self.records = [*getattr(self, "records", []), record]


def test_a_run_writes_down_what_its_config_names():
    changes = {
        "early_stopping": {"patience": 5, "monitor": "val_mcc"},
        "scheduler": {"type": "reduce_on_plateau", "monitor": "val_log_loss", "patience": 0, "threshold": 0.5},
    }
    log = Log()
    run(changes, states=log)
    epochs = [record for record in log.records if record["type"] == "epoch"]
    for record in epochs:
        extras = [name for name in EXTRA_METRICS if f"val_{name}" in record]
        assert extras == ["mcc", "log_loss"]
        assert record["val_log_loss"] == pytest.approx(record["val_loss"], rel=1e-4)
    assert build_setup(config_with({})).plan().new_metrics().also == ()
