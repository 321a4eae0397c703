"""Rules on records made for them, then real small runs with a planted fault: the right finding and no other."""

from pathlib import Path

import numpy as np
import pytest

from trainkit.config import load_config
from trainkit.errors import TrainkitError
from trainkit.reports.facts import DeadUnits
from trainkit.reports.findings import Evidence, find
from trainkit.reports.history import history_of
from trainkit.workflows.report import find_run
from trainkit.workflows.runs import findings_of
from trainkit.workflows.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
FACTS = {
    "num_samples": {"train": 1000, "val": 200},
    "constant_loss": 2.3,
    "zero_loss": 2.3,
    "majority_share": 0.1,
    "input_scale": {"smallest": "a", "smallest_rms": 1.0, "largest": "b", "largest_rms": 1.0},
}
CONFIG = {"optimizer": {"lr": 0.1}, "training": {"num_workers": 0}, "dataset": {"val_fraction": 0.1}, "loss": {}}


def evidence(train_loss, **series):
    """Epoch records with these values, everything else as in a healthy run."""
    count = len(train_loss)
    columns = {
        "train_loss": train_loss,
        "train_loss_max": [1.2 * value for value in train_loss],
        "val_loss": train_loss,
        "train_accuracy": [0.9] * count,
        "val_accuracy": [0.9] * count,
        "lr": [0.1] * count,
        **series,
    }
    records = [
        {"type": "epoch", "step": 10 * (row + 1), "epoch": row + 1, **{name: v[row] for name, v in columns.items()}}
        for row in range(count)
    ]
    return Evidence(history_of(records), CONFIG, FACTS)


def names(found):
    return [finding.name for finding in found]


HEALTHY = [2.0, 1.0, 0.5, 0.3, 0.2, 0.15, 0.12, 0.1, 0.09, 0.085, 0.08, 0.078]


def test_a_healthy_history_has_no_finding():
    assert find(evidence(HEALTHY)) == []
    assert find(evidence([])) == []


def test_a_spike_after_warm_up():
    spiked = [*HEALTHY[:8], 1.5, 0.2, 0.1, 0.08]
    found = find(evidence(spiked))
    assert names(found) == ["loss-spikes"]
    assert "epoch 9" in found[0].evidence
    assert found[0].changes[0].override == "--set training.clip_grad_norm=1.0"


def test_a_rise_in_the_first_epochs_is_no_spike():
    assert find(evidence([0.9, 2.8, *HEALTHY[1:11]])) == []


def test_waiting_for_data_needs_a_share_and_enough_seconds():
    slow = {"train_seconds": [10.0] * 11 + [100.0], "data_seconds": [8.0] * 11 + [80.0]}
    found = find(evidence(HEALTHY, **slow))
    assert names(found) == ["data-bound"]
    assert "80 of 100 s" in found[0].evidence
    short = {"train_seconds": [1.0] * 12, "data_seconds": [0.9] * 12}
    assert find(evidence(HEALTHY, **short)) == []


def test_a_class_that_is_never_predicted():
    collapsed = Evidence(
        evidence(HEALTHY).history,
        {"loss": {"type": "cross_entropy"}},
        FACTS,
        split="val",
        class_names=("cat", "dog", "<owl>"),
        confusion=[[50, 0, 0], [2, 48, 0], [20, 10, 0]],
    )
    found = find(collapsed)
    assert names(found) == ["class-collapse"]
    assert "never answers <owl>" in found[0].evidence
    assert found[0].changes[0].override == "--set loss.weight=balanced"


def test_dead_units_count_where_a_layer_has_many():
    layers = (DeadUnits("1", "model.hidden_sizes[0]", 20, 32), DeadUnits("3", "model.hidden_sizes[1]", 2, 32))
    found = find(Evidence(evidence(HEALTHY).history, CONFIG, FACTS, dead_units=layers))
    assert names(found) == ["dead-units"]
    assert "20 of 32 in 1" in found[0].evidence
    assert "2 of 32" not in found[0].evidence


def test_a_jumping_validation_score_of_few_samples():
    facts = {**FACTS, "num_samples": {"train": 1000, "val": 30}}
    scores = [0.5, 0.7, 0.8, 0.85, 0.9, 0.83, 0.93, 0.87, 0.8, 0.93, 0.83, 0.9]
    base = evidence(HEALTHY, val_accuracy=scores)
    assert names(find(Evidence(base.history, CONFIG, facts))) == ["validation-set-too-small"]
    assert find(base) == [], "with 200 samples the same jumps are more than chance would make"


def test_a_cause_hides_its_consequences():
    facts = {**FACTS, "input_scale": {"smallest": "a", "smallest_rms": 1.0, "largest": "salary", "largest_rms": 5e4}}
    spiked = evidence([*HEALTHY[:8], 1.5, 0.2, 0.1, 0.08])
    found = find(Evidence(spiked.history, CONFIG, facts))
    assert names(found) == ["inputs-not-normalised"]
    assert "salary" in found[0].evidence


# ---- real runs ----


def findings_of_run(tmp_path, config, *overrides):
    """The names of what is found in a run, whether it ends well or not."""
    try:
        result = train(load_config(config, overrides=[*overrides, "logging.plots=false"]), runs_dir=tmp_path)
    except TrainkitError:
        run = find_run(None, runs_dir=tmp_path)
        assert (run.path / "report.html").is_file(), "a failed run has a report too"
        return names(findings_of(run, run.read_info(), run.status()))
    assert result.report is not None
    return names(result.report.findings)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "iris_mlp",
        "breast_cancer_mlp",
        *(
            pytest.param(name, marks=SLOW)
            for name in ("digits_mlp", "digits_cnn", "diabetes_mlp", "synthetic_regression")
        ),
    ],
)
def test_healthy_runs_have_no_findings(tmp_path, name):
    assert findings_of_run(tmp_path, CONFIGS / f"{name}.yaml") == []


@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("iris_mlp", 2),
        ("synthetic_regression", 1),
        pytest.param("digits_mlp", 0.2, marks=SLOW),
        pytest.param("digits_cnn", 0.3, marks=SLOW),
        pytest.param("breast_cancer_mlp", 0.5, marks=SLOW),
        pytest.param("diabetes_mlp", 1, marks=SLOW),
    ],
)
def test_a_hundred_times_the_learning_rate(tmp_path, name, lr):
    assert findings_of_run(tmp_path, CONFIGS / f"{name}.yaml", f"optimizer.lr={lr}") == ["learning-rate-too-high"]


@pytest.mark.parametrize("lr", [2e-5, pytest.param(2e-6, marks=SLOW)])
def test_a_learning_rate_far_too_low(tmp_path, lr):
    assert findings_of_run(tmp_path, CONFIGS / "digits_mlp.yaml", f"optimizer.lr={lr}") == ["learning-rate-too-low"]


def test_a_large_model_on_tiny_data(tmp_path):
    tiny = ["dataset={type: digits, val_fraction: 0.5, test_fraction: 0.9}", "model={type: mlp, hidden_sizes: [512]}"]
    assert findings_of_run(tmp_path, CONFIGS / "digits_mlp.yaml", *tiny, "scheduler=constant") == ["overfitting"]


def test_inputs_that_are_not_normalised(tmp_path):
    found = findings_of_run(tmp_path, CONFIGS / "breast_cancer_mlp.yaml", "transforms=[]")
    assert found == ["inputs-not-normalised"]


def test_shuffled_labels(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = np.random.default_rng(0).permutation(digits.target)
    lines = [",".join([*(f"f{index}" for index in range(64)), "label"])]
    lines += [
        ",".join([*(f"{value:g}" for value in row), f"c{label}"])
        for row, label in zip(digits.data, labels, strict=True)
    ]
    (tmp_path / "shuffled.csv").write_text("\n".join(lines))
    config = tmp_path / "shuffled.yaml"
    config.write_text(
        f"dataset: {{type: csv, path: {tmp_path}/shuffled.csv, target: label, val_fraction: 0.2, test_fraction: 0.0}}\n"
        "transforms: [standardize]\nmodel: {type: mlp, hidden_sizes: [128, 64]}\n"
        "optimizer: {type: adam, lr: 0.001}\ntraining: {epochs: 10, batch_size: 32}\n"
    )
    assert findings_of_run(tmp_path / "runs", config) == ["labels-unrelated"]
