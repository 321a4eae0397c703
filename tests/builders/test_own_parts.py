"""Parts of plug-ins: exact in pieces, with weights, for scaled targets; equal to trainkit's own."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from sklearn.metrics import hamming_loss, max_error
from torch.nn import functional as F

import trainkit
from trainkit.builders import build_setup
from trainkit.config import load_config
from trainkit.engine import evaluate
from trainkit.wording import better
from trainkit.workflows.check import check

pytestmark = pytest.mark.usefixtures("forked_checks")


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


class Detached(trainkit.Section):
    """Has no gradient."""

    outputs: ClassVar[str] = "logits"

    def build(self):
        return lambda logits, targets: F.cross_entropy(logits.detach(), targets, reduction="none")


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


PLUGIN = trainkit.Plugin(
    "own", losses=[Entropy, Logistic, Squared, Wrong, Detached], metrics=[HammingLoss, LargestError]
)


def train(config, tmp_path):
    base = {"model": {"type": "mlp", "hidden_sizes": [8]}, "training": {"epochs": 2, "precision": "fp32"}}
    training = base["training"] | config.get("training", {})
    return trainkit.train({**base, **config, "training": training}, plugins=[PLUGIN], runs_dir=tmp_path / "runs")


ENTROPY = ("iris", "own.Entropy", "cross_entropy")
LOGISTIC = ("breast_cancer", "own.Logistic", "bce_with_logits")
SQUARED = ({"type": "diabetes", "scale_target": False}, "own.Squared", "mse")


@pytest.mark.parametrize(
    ("pieces", "dataset", "own", "usual"),
    [
        *((3, *ENTROPY), (3, *LOGISTIC), (3, *SQUARED), (1, *ENTROPY)),
        *(pytest.param(1, *case, marks=pytest.mark.slow) for case in (LOGISTIC, SQUARED)),
    ],
)
def test_a_loss_gives_the_numbers_of_the_same_loss_of_trainkit(tmp_path, pieces, dataset, own, usual):
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
        ({"dataset": "iris", "loss": "own.Wrong"}, "loss: own.Wrong: its function has to return the loss of each"),
        ({"dataset": "iris", "loss": "own.Detached"}, "loss: the loss has no gradient"),
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


class Darker(trainkit.Section):
    """Makes an image darker, by a factor of its own."""

    most: float = Field(0.5, gt=0, le=1, description="The most that is taken off.")

    def build(self):
        return lambda images, draws: images * (1 - self.most * draws[:, :1, None, None])


class Cut(trainkit.Section):
    """Cuts a line off, which is not allowed."""

    num_draws: ClassVar[int] = 2

    def build(self):
        return lambda images, draws: images[:, :, 1:]


ARRAYS = np.random.default_rng(0)


class Given(trainkit.Section):
    """What a test gives."""

    kind: ClassVar[str] = "table"
    task: ClassVar[str] = "classification"
    made: ClassVar[dict] = {}
    path: str | None = Field(None, description="A file.")

    def build(self):
        return self.made


class GivenValues(Given):
    """The same for values."""

    task: ClassVar[str] = "regression"


class GivenImages(Given):
    """The same for images."""

    kind: ClassVar[str] = "image"


DATA = trainkit.Plugin("own", transforms=[Darker, Cut], datasets=[Given, GivenValues, GivenImages])


def with_data(config, tmp_path=None):
    base = {"model": {"type": "mlp", "hidden_sizes": [4]}, "training": {"epochs": 1, "batch_size": 16}}
    loaded = load_config({**base, **config}, plugins=[DATA])
    return build_setup(loaded.config) if tmp_path is None else trainkit.train(loaded, runs_dir=tmp_path / "runs")


def test_a_random_transform_depends_on_sample_and_epoch_alone():
    """Each sample has draws of its own, the same in batches of any size; evaluation leaves the transform out."""
    config = {"dataset": "digits", "transforms": [{"type": "own.Darker", "most": 0.5}, "normalize"]}
    plain = {**config, "transforms": ["normalize"]}
    setups = [with_data({**config, "training": {"batch_size": size}}) for size in (16, 33)]
    rows = []
    for setup in setups:
        batches = list(setup.batches("train", training=True).epoch(1))
        order = torch.cat([batch.indices for batch in batches]).argsort()
        rows.append(torch.cat([batch.inputs for batch in batches])[order])
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=0)
    other = torch.cat([batch.inputs for batch in setups[0].batches("train", training=True).epoch(2)])
    assert not torch.equal(rows[0], other)
    ours, theirs = (torch.cat([b.inputs for b in one.batches("val").epoch(0)]) for one in (setups[0], with_data(plain)))
    assert torch.equal(ours, theirs)


def test_a_transform_that_changes_the_shape_is_found_by_check():
    loaded = load_config({"dataset": "digits", "model": "mlp", "transforms": ["own.Cut"]}, plugins=[DATA])
    with pytest.raises(
        trainkit.UserError, match=r"transforms: own\.Cut has to keep dtype and shape of \(\d+, 1, 8, 8\)"
    ):
        check(loaded)
    with pytest.raises(trainkit.ConfigError, match=r"own\.Darker works on images, and"):
        load_config({"dataset": "iris", "model": "mlp", "transforms": ["own.Darker"]}, plugins=[DATA])


@settings(max_examples=15, deadline=None)
@given(st.integers(30, 90), st.integers(1, 5), st.sampled_from([0, 0.1, 0.3]), st.booleans())
def test_data_sets_are_split_as_those_of_trainkit(count, features, fraction, official):
    inputs = ARRAYS.normal(size=(count, features))
    targets = np.arange(count) % 3
    Given.made = {"train": (inputs, targets), "class_names": ["a", "b", "c"]}
    if official:
        Given.made["test"] = (inputs[:5], targets[:5])
    data = with_data({"dataset": {"type": "own.Given", "val_fraction": fraction, "test_fraction": 0.2}}).data
    assert data.parts["train"].inputs.dtype == np.float32
    assert len(data.splits["test"]) == (5 if official else math.floor(0.2 * count + 0.5))
    assert ("val" in data.splits) is (fraction > 0)
    together = np.concatenate([split.indices for split in data.splits.values() if split.part == "train"])
    assert sorted(together) == list(range(count))
    assert data.feature_names == tuple(f"f{i}" for i in range(features))


@pytest.mark.slow
def test_data_sets_of_values_and_images_train_predict_and_resume_only_on_the_same_data(tmp_path):
    x = ARRAYS.normal(size=(60, 3))
    GivenValues.made = {"train": (x, 100 + 5 * x[:, 0]), "target_names": ["price"]}
    result = with_data({"dataset": {"type": "own.GivenValues", "scale_target": True}}, tmp_path)
    assert result.metrics["val"]["rmse"] > 0
    assert trainkit.predict(result, x[:2].astype("float32"), plugins=[DATA])[0].values
    pixels = ARRAYS.integers(0, 256, (60, 6, 5, 3)).astype("uint8").transpose(0, 3, 1, 2)
    GivenImages.made = {
        "train": (pixels, np.arange(60) % 2),
        "class_names": ["a", "b"],
        "val": (pixels, np.arange(60) % 2),
    }
    result = with_data({"dataset": "own.GivenImages", "transforms": [{"type": "resize", "size": [4, 4]}]}, tmp_path)
    assert trainkit.evaluate(result, split="val", plugins=[DATA]).num_samples == 60
    assert trainkit.export(result, plugins=[DATA]).programs
    GivenImages.made = {**GivenImages.made, "train": (255 - pixels, np.arange(60) % 2)}
    with pytest.raises(trainkit.UserError, match="input values changed"):
        trainkit.resume(result, overrides=["training.epochs=2"], plugins=[DATA])


def test_paths_of_a_data_set_are_relative_to_the_config(tmp_path):
    (tmp_path / "c.yaml").write_text("dataset: {type: own.Given, path: here.npz}\nmodel: mlp\n")
    assert load_config(tmp_path / "c.yaml", plugins=[DATA]).config.dataset.path == str(tmp_path / "here.npz")


X, Y, NAMES = np.zeros((9, 2)), np.arange(9) % 3, ["a", "b", "c"]


@pytest.mark.parametrize(
    ("part", "made", "message"),
    [
        ("Given", [1], "has to return a dict with train, and perhaps"),
        ("Given", {"train": (X, Y), "labels": NAMES}, "got the keys 'labels', 'train'"),
        ("Given", {"train": (X, Y)}, "class_names are for a data set with task classification, and needed there"),
        ("Given", {"train": X, "class_names": NAMES}, "own.Given: train has to be (inputs, targets), got ndarray"),
        (
            "Given",
            {"train": (X, Y[:8]), "class_names": NAMES},
            "as many targets as inputs, and at least one, got 8 and 9",
        ),
        ("Given", {"train": (X, Y), "class_names": NAMES[:2]}, "classes are 0 to 1, by class_names, got 0 to 2"),
        ("Given", {"train": (X, Y / 2), "class_names": NAMES}, "classes are whole numbers (N,), got float64 (9,)"),
        ("Given", {"train": (X / 0, Y), "class_names": NAMES}, "inputs hold NaN or Inf"),
        (
            "Given",
            {"train": (X, Y), "test": (X[:, :1], Y), "class_names": NAMES},
            "the samples of all parts have one shape",
        ),
        (
            "Given",
            {"train": (X, Y), "class_names": NAMES, "feature_names": ["x"]},
            "feature_names has to name 2, got 1",
        ),
        (
            "GivenImages",
            {"train": (X, Y), "class_names": NAMES},
            "images are uint8 (N, C, H, W) with 1 or 3 channels, got",
        ),
        ("GivenValues", {"train": (X, Y / 0)}, "values to predict are finite numbers (N,) or (N, T)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(divide|invalid value)")
def test_wrong_arrays(part, made, message):
    dict(zip(["Given", "GivenValues", "GivenImages"], DATA.parts["datasets"], strict=True))[part].made = made
    with pytest.raises(trainkit.UserError) as error:
        with_data({"dataset": f"own.{part}"})
    assert message in str(error.value)
