"""Losses and metrics of plug-ins: exact in pieces, with weights, for scaled targets; equal to trainkit's own."""

import math
from typing import ClassVar

import pytest
import torch
from pydantic import Field
from sklearn.metrics import hamming_loss, max_error
from torch.nn import functional as F

import trainkit
from trainkit.builders import build_setup
from trainkit.config import load_config
from trainkit.engine import evaluate
from trainkit.wording import better


class Entropy(trainkit.Section):
    """Cross-entropy."""

    outputs: ClassVar[str] = "logits"
    factor: float = Field(1.0, gt=0, description="A factor.")

    def build(self):
        return lambda logits, targets: self.factor * F.cross_entropy(logits, targets, reduction="none")


class Logistic(trainkit.Section):
    """Logistic loss of one output."""

    outputs: ClassVar[str] = "logit"

    def build(self):
        return lambda logit, targets: F.binary_cross_entropy_with_logits(logit, targets, reduction="none")[:, 0]


class Squared(trainkit.Section):
    """Squared errors."""

    outputs: ClassVar[str] = "values"

    def build(self):
        return lambda values, targets: (values - targets).square().mean(dim=1)


class Wrong(trainkit.Section):
    """Returns the mean."""

    outputs: ClassVar[str] = "logits"

    def build(self):
        return F.cross_entropy


class HammingLoss(trainkit.Section):
    """Share of wrong classes."""

    task: ClassVar[str] = "classification"

    def build(self, num_outputs):
        return Mean(lambda probabilities, classes: (probabilities.argmax(dim=1) != classes).double())


class LargestError(trainkit.Section):
    """The largest error."""

    task: ClassVar[str] = "regression"

    def build(self, num_outputs):
        return Largest()


class Mean:
    def __init__(self, of_each):
        self.of_each, self.total, self.count = of_each, 0.0, 0

    def update(self, predictions, targets):
        self.total += self.of_each(predictions, targets).sum().item()
        self.count += len(targets)

    def merge(self, other):
        self.total, self.count = self.total + other.total, self.count + other.count

    def compute(self):
        return self.total / self.count


class Largest:
    def __init__(self):
        self.value = 0.0

    def update(self, predictions, targets):
        self.value = max(self.value, (predictions - targets).abs().max().item())

    def merge(self, other):
        self.value = max(self.value, other.value)

    def compute(self):
        return self.value


PLUGIN = trainkit.Plugin("own", losses=[Entropy, Logistic, Squared, Wrong], metrics=[HammingLoss, LargestError])


def train(config, tmp_path):
    base = {"model": {"type": "mlp", "hidden_sizes": [8]}, "training": {"epochs": 2, "precision": "fp32"}}
    training = base["training"] | config.get("training", {})
    return trainkit.train({**base, **config, "training": training}, plugins=[PLUGIN], runs_dir=tmp_path / "runs")


@pytest.mark.parametrize(
    ("dataset", "own", "usual"),
    [
        ("iris", "own.Entropy", "cross_entropy"),
        ("breast_cancer", "own.Logistic", "bce_with_logits"),
        ({"type": "diabetes", "scale_target": False}, "own.Squared", "mse"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_loss_gives_the_numbers_of_the_same_loss_of_trainkit(tmp_path, dataset, own, usual, pieces):
    training = {"accumulation_steps": pieces, "batch_size": 20}
    results = [train({"dataset": dataset, "loss": loss, "training": training}, tmp_path) for loss in (own, usual)]
    ours, theirs = (result.metrics["val"] for result in results)
    assert ours == pytest.approx(theirs, rel=1e-5)
    saved = [torch.load(result.best_checkpoint, weights_only=True)["model"] for result in results]
    for name in saved[0]:
        torch.testing.assert_close(saved[0][name], saved[1][name], rtol=1e-4, atol=1e-5)
    if pieces == 1:
        assert trainkit.export(results[0], plugins=[PLUGIN]).programs


def test_mixed_batches_and_weights_of_rows(tmp_path):
    rows = [f"{i % 7},{i % 3},{1 + i % 2},{'ab'[i % 2]}" for i in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,w,label", *rows]))
    dataset = {"type": "table", "path": str(tmp_path / "t.csv"), "target": "label", "weight": "w"}
    pair = [train({"dataset": dataset, "loss": loss}, tmp_path).metrics["val"] for loss in ("own.Entropy", "auto")]
    assert pair[0] == pytest.approx(pair[1], rel=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dataset": "diabetes", "loss": "own.Entropy"}, "own.Entropy is for classes, and"),
        ({"dataset": "iris", "loss": "own.Squared"}, "own.Squared is for values to predict, and"),
        ({"dataset": "iris", "loss": "own.Logistic"}, "own.Logistic is for two classes, and"),
        ({"dataset": "iris", "loss": "own.Wrong"}, "has to return the loss of each sample (8,), got ()"),
        ({"dataset": "iris", "loss": "own.Entrpy"}, "did you mean own.Entropy?"),
        ({"dataset": "iris", "model": {"type": "mlp", "output": "softmax"}, "loss": "own.Entropy"}, "output: softmax"),
        ({"dataset": "iris", "logging": {"metrics": ["val_own.LargestError"]}}, "run has no such metric"),
        ({"dataset": "iris", "logging": {"metrics": ["val_own.Haming"]}}, "did you mean val_own.HammingLoss?"),
        ({"dataset": "iris", "logging": {"metrics": ["val_other.X"]}}, "val_other.X comes from a plug-in that"),
    ],
)
def test_mistakes(tmp_path, config, message):
    with pytest.raises(trainkit.ConfigError) as error:
        train(config, tmp_path)
    assert message in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_metrics_equal_scikit_learns_and_choose_the_best_checkpoint(tmp_path):
    watched = {"checkpoint": {"monitor": "val_own.HammingLoss"}, "logging": {"metrics": ["val_own.HammingLoss"]}}
    result = train({"dataset": "iris", **watched}, tmp_path)
    assert result.metrics["val"]["own.HammingLoss"] == pytest.approx(1 - result.metrics["val"]["accuracy"], abs=1e-12)
    assert better("val_own.HammingLoss") == "min"
    lines = (result.run.path / "metrics.jsonl").read_text()
    assert '"val_own.HammingLoss"' in lines
    scored = trainkit.evaluate(result, split="val", plugins=[PLUGIN]).metrics
    assert result.metrics["val"].items() <= scored.items()


@pytest.mark.parametrize("scaled", [True, False])
def test_metrics_of_values_are_in_their_own_units(scaled):
    config = {"dataset": {"type": "diabetes", "scale_target": scaled}, "model": {"type": "mlp", "hidden_sizes": [8]}}
    config |= {"logging": {"metrics": ["val_own.LargestError"]}, "training": {"eval_batch_size": 7}}
    setup = build_setup(load_config(config, plugins=[PLUGIN]).config)
    found = evaluate(setup.model, setup.plan(), setup.batches("val"), should_stop=lambda: False)
    assert found is not None
    split = setup.data.splits["val"]
    part = setup.data.parts[split.part]
    with torch.no_grad():
        outputs = torch.cat([setup.model(batch.inputs) for batch in setup.batches("val").epoch(0)]).double().numpy()
    if setup.data.target_scale is not None:
        mean, std = setup.data.target_scale[0]
        outputs = outputs * std + mean
    assert scaled is (setup.data.target_scale is not None)
    expected = max_error(part.targets[split.indices], outputs)
    assert found["own.LargestError"] == pytest.approx(expected, rel=1e-5)


def test_hamming_loss_in_pieces():
    predictions, targets = torch.rand(50, 3).softmax(dim=1), torch.randint(3, (50,))
    whole, pieces, other = (HammingLoss().build(3) for _ in range(3))
    whole.update(predictions, targets)
    pieces.update(predictions[:20], targets[:20])
    other.update(predictions[20:], targets[20:])
    pieces.merge(other)
    assert whole.compute() == pieces.compute()
    assert math.isclose(whole.compute(), hamming_loss(targets, predictions.argmax(dim=1)))
