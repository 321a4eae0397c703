"""Real small runs: a planted fault gives the right finding and no other, a healthy run gives none.

Each fault was planted with several seeds when the thresholds were set; here is one of each.
"""

from pathlib import Path

import numpy as np
import pytest
from no_room import leave_no_room_for_images
from PIL import Image

from trainkit.config import load_config
from trainkit.errors import TrainkitError
from trainkit.workflows.find import find_run
from trainkit.workflows.runs import findings_of
from trainkit.workflows.train.run import train

CONFIGS = Path(__file__).parents[2] / "configs"
SLOW = pytest.mark.slow
TABLE = """
dataset: {{type: table, path: {path}, target: label, val_fraction: 0.2, test_fraction: {test}}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: {sizes}}}
optimizer: {{type: adam, lr: {lr}}}
training: {{epochs: {epochs}, batch_size: 32}}
"""


def run_of(tmp_path, config, *overrides):
    """What is found in a run, whether it ends well or not; its suggestions make a config that can be loaded."""
    if not isinstance(config, Path):
        path = tmp_path / "config.yaml"
        path.write_text(config)
        config = path
    loaded = load_config(config, overrides=[*overrides, "logging.plots=false", "export.torchscript=false"])
    try:
        result = train(loaded, runs_dir=tmp_path / "runs")
    except TrainkitError:
        run = find_run(None, runs_dir=tmp_path / "runs")
        assert (run.path / "report.html").is_file(), "a failed run has a report too"
        found = findings_of(run, run.read_info(), run.status())
    else:
        assert result.report is not None
        run, found = result.run, result.report.findings
    for finding in found:
        assert finding.evidence
        assert finding.changes, f"{finding.name} names no line of the config"
        known = [f"{change.key}={change.value}" for change in finding.changes if "..." not in change.value]
        load_config(run.resolved_config, overrides=known)
    return found


def names_of(tmp_path, config, *overrides):
    return [finding.name for finding in run_of(tmp_path, config, *overrides)]


def csv_file(tmp_path, inputs, labels):
    path = tmp_path / "table.csv"
    lines = [",".join([*(f"f{column}" for column in range(inputs.shape[1])), "label"])]
    lines += [",".join([*(f"{v:.5g}" for v in row), str(label)]) for row, label in zip(inputs, labels, strict=True)]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "iris_mlp",
        "breast_cancer_mlp",
        "digits_mlp",
        "diabetes_mlp",
        "synthetic_regression",
        pytest.param("digits_cnn", marks=SLOW),
    ],
)
def test_healthy_runs_have_no_findings(tmp_path, name):
    assert names_of(tmp_path, CONFIGS / f"{name}.yaml") == []


@SLOW
def test_a_healthy_run_on_mnist_has_no_findings(tmp_path, real_data):
    few = [f"dataset.root={real_data}", "dataset.val_fraction=0.9", "training.epochs=6"]
    assert names_of(tmp_path, CONFIGS / "mnist_mlp.yaml", *few) == []


@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("iris_mlp", 2),
        ("synthetic_regression", 10),
        ("breast_cancer_mlp", 0.5),
        ("digits_mlp", 0.2),
        pytest.param("digits_cnn", 0.3, marks=SLOW),
        pytest.param("diabetes_mlp", 1, marks=SLOW),
    ],
)
def test_a_hundred_times_the_learning_rate(tmp_path, name, lr):
    assert names_of(tmp_path, CONFIGS / f"{name}.yaml", f"optimizer.lr={lr}") == ["learning-rate-too-high"]


@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("digits_mlp", 2e-5),
        ("breast_cancer_mlp", 5e-5),
        pytest.param("digits_mlp", 2e-6, marks=SLOW),
        pytest.param("iris_mlp", 2e-4, marks=SLOW),
        pytest.param("diabetes_mlp", 1e-5, marks=SLOW),
        pytest.param("synthetic_regression", 1e-4, marks=SLOW),
    ],
)
def test_a_learning_rate_far_too_low(tmp_path, name, lr):
    assert names_of(tmp_path, CONFIGS / f"{name}.yaml", f"optimizer.lr={lr}") == ["learning-rate-too-low"]


def test_a_large_model_on_tiny_data(tmp_path):
    tiny = ["dataset={type: digits, val_fraction: 0.5, test_fraction: 0.9}", "model={type: mlp, hidden_sizes: [512]}"]
    assert names_of(tmp_path, CONFIGS / "digits_mlp.yaml", *tiny, "scheduler=constant") == ["overfitting"]


def test_a_large_regression_model_on_noise(tmp_path):
    problem = "{type: linear_regression, num_features: 40, noise: 2}"
    tiny = [
        f"dataset={{type: synthetic, problem: {problem}, num_samples: 150, val_fraction: 0.3}}",
        "model={type: mlp, hidden_sizes: [256]}",
        "optimizer={type: adam, lr: 0.005}",
    ]
    assert names_of(tmp_path, CONFIGS / "synthetic_regression.yaml", *tiny) == ["overfitting"]


def test_inputs_that_are_not_normalized(tmp_path):
    assert names_of(tmp_path, CONFIGS / "breast_cancer_mlp.yaml", "transforms=[]") == ["inputs-out-of-scale"]


@pytest.mark.parametrize("regression", [False, True])
def test_shuffled_labels(tmp_path, regression):
    from sklearn.datasets import load_diabetes, load_digits

    data = load_diabetes() if regression else load_digits()
    labels = np.random.default_rng(0).permutation(data.target)
    path = csv_file(tmp_path, data.data, labels / 100 + 0.001 if regression else [f"c{label}" for label in labels])
    [finding] = run_of(tmp_path, TABLE.format(path=path, test=0.2, sizes=[128, 64], lr=0.005, epochs=20))
    assert finding.name == "labels-unrelated"
    assert [(change.key, change.was) for change in finding.changes] == [("dataset.target", "label")]


def test_the_learning_rate_leaps_when_all_is_learned(tmp_path):
    leap = "scheduler={type: multi_step, milestones: [26], gamma: 20}"
    [finding] = run_of(tmp_path, CONFIGS / "digits_mlp.yaml", leap)
    assert finding.name == "loss-spikes"
    assert "Spikes after warm-up: epoch 27" in finding.evidence
    assert "the learning rate was 0.04" in finding.evidence


def test_a_class_too_rare_and_too_near_another_to_be_told(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], [500, 430, 70]))
    inputs = rng.normal(size=(1000, 4))
    inputs[:, 0] += 4 * (labels >= 1)
    inputs[:, 1] += 0.4 * (labels == 2)
    path = csv_file(tmp_path, inputs, [f"c{label}" for label in labels])
    [finding] = run_of(tmp_path, TABLE.format(path=path, test=0.2, sizes=[32], lr=0.005, epochs=20))
    assert finding.name == "class-collapse"
    assert "never answers c2" in finding.evidence
    assert finding.changes[0].override == "--set 'loss={type: cross_entropy, weight: balanced}'"


def test_weights_that_make_one_class_the_answer_to_everything(tmp_path):
    weights = "loss={type: cross_entropy, weight: [1000, 0.001, 0.001]}"
    [finding] = run_of(tmp_path, CONFIGS / "iris_mlp.yaml", weights)
    assert finding.name == "class-collapse"
    assert [(change.key, change.value) for change in finding.changes] == [("loss.weight", "balanced")]


def test_long_first_steps_kill_most_units(tmp_path):
    """The learning rate falls fast enough for the loss to settle: only the units show it."""
    long = ["optimizer={type: adam, lr: 0.06}", "scheduler={type: exponential, gamma: 0.7}", "model.dropout=0"]
    [finding] = run_of(tmp_path, CONFIGS / "digits_mlp.yaml", *long, "training.epochs=12")
    assert finding.name == "dead-units"
    assert "400 samples" in finding.evidence, "320 of the test split and 80 of the training split"


def test_a_best_epoch_chosen_by_a_handful_of_samples(tmp_path):
    config = """
dataset: {type: synthetic, problem: {type: moons, noise: 0.4}, num_samples: 1000, val_fraction: 0.03}
model: {type: mlp, hidden_sizes: [32]}
optimizer: {type: adam, lr: 0.03}
training: {epochs: 30, batch_size: 32}
"""
    [finding] = run_of(tmp_path, config)
    assert finding.name == "validation-set-too-small"
    assert "With 24 samples" in finding.evidence
    assert {change.key for change in finding.changes} == {"dataset.val_fraction", "checkpoint.monitor"}


def test_images_that_must_be_decoded_in_every_epoch(tmp_path, monkeypatch):
    """Neither the cache nor the memory has room for them. The limit on seconds is off, since the run is short."""
    leave_no_room_for_images(monkeypatch)
    monkeypatch.setattr("trainkit.findings.data.MIN_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    for name, gray in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(60):
            noise = np.clip(gray + rng.normal(0, 20, (256, 256)), 0, 255).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "images" / name / f"{index}.png")
    config = f"""
dataset: {{type: image_folder, root: {tmp_path}/images}}
transforms: [{{type: resize, size: 8}}, {{type: normalize, mean: [0.5], std: [0.25]}}]
model: {{type: mlp, hidden_sizes: [8]}}
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 4, batch_size: 32}}
"""
    [finding] = run_of(tmp_path, config)
    assert finding.name == "data-bound"
    assert finding.changes[0].override == "--set training.num_workers=2"
