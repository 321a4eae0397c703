"""Rules on records made for them: where each begins, and what hides what. Real runs are in test_planted_runs.py."""

from dataclasses import replace

import pytest

from trainkit.findings.evidence import Evidence
from trainkit.findings.probes import DeadUnits
from trainkit.findings.rules import EXPLAINS, find
from trainkit.recorders.history import history_of

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
    return Evidence(history_of(records), CONFIG, FACTS, monitor="val_accuracy", loss="cross_entropy")


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


def collapsed(loss="cross_entropy", **knobs):
    return replace(
        evidence(HEALTHY),
        config={**CONFIG, "loss": {"type": loss, **knobs}, "training": {"epochs": 12}},
        loss=loss,
        split="val",
        class_names=("cat", "dog", "<owl>"),
        confusion=[[50, 0, 0], [2, 48, 0], [20, 10, 0]],
    )


def test_a_class_that_is_never_predicted():
    found = find(collapsed())
    assert names(found) == ["class-collapse"]
    assert "never answers <owl>" in found[0].evidence
    assert found[0].changes[0].override == "--set loss.weight=balanced"


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        (collapsed(weight=[9, 1, 1]), ["--set loss.weight=balanced"]),
        (collapsed(weight="balanced"), ["--set training.epochs=24"]),
        (collapsed("bce_with_logits"), ["--set loss.pos_weight=balanced"]),
        (
            collapsed("bce"),
            ["--set 'loss={type: bce_with_logits, pos_weight: balanced}'", "--set model.output=none"],
        ),
        (
            replace(collapsed(), config={"loss": {"type": "auto"}}),
            ["--set 'loss={type: cross_entropy, weight: balanced}'"],
        ),
    ],
)
def test_what_to_change_for_rare_classes_depends_on_the_loss(given, overrides):
    assert [change.override for change in find(given)[0].changes] == overrides


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("model.activation", "--set model.activation=leaky_relu"),
        ("model.blocks[1]", "--set 'model.blocks[1].activation=leaky_relu'"),
        ("model.layers[3]", "--set 'model.layers[3]=LeakyReLU'"),
    ],
)
def test_dead_units_count_where_a_layer_has_many(key, overrides):
    layers = (DeadUnits("1", key, 20, 32, seen=700), DeadUnits("3", "model.activation", 2, 32, seen=700))
    found = find(replace(evidence(HEALTHY), dead_units=layers))
    assert names(found) == ["dead-units"]
    assert "20 of 32 in 1" in found[0].evidence
    assert "700 samples" in found[0].evidence
    assert "2 of 32" not in found[0].evidence
    assert found[0].changes[0].override == overrides


JUMPING = [0.5, 0.7, 0.8, 0.85, 0.9, 0.83, 0.93, 0.87, 0.8, 0.93, 0.83, 0.9]


def test_a_jumping_validation_score_of_few_samples():
    facts = {**FACTS, "num_samples": {"train": 1000, "val": 30}}
    small = replace(evidence(HEALTHY, val_accuracy=JUMPING), facts=facts)
    found = find(small)
    assert names(found) == ["validation-set-too-small"]
    assert "30 samples" in found[0].evidence
    assert [change.override for change in found[0].changes] == [
        "--set dataset.val_fraction=0.2",
        "--set checkpoint.monitor=val_loss",
    ]
    assert find(replace(small, facts=FACTS)) == [], "with 200 samples the same jumps are more than chance would make"
    assert find(replace(small, monitor="val_loss")) == [], "the best epoch is not chosen by that score"


def test_a_finding_that_another_accounts_for_is_left_out():
    facts = {**FACTS, "num_samples": {"train": 1000, "val": 30}}
    spiked = evidence([*HEALTHY[:8], 1.5, 0.2, 0.1, 0.08], val_accuracy=JUMPING)
    dead = (DeadUnits("1", "model.activation", 20, 32, seen=700),)
    assert names(find(replace(spiked, facts=facts, dead_units=dead))) == ["loss-spikes"]
    assert {"dead-units", "validation-set-too-small"} <= set(EXPLAINS["loss-spikes"])


def test_waiting_for_data_names_what_costs_the_time():
    slow = {"train_seconds": [100.0] * 12, "data_seconds": [80.0] * 12}
    base = evidence(HEALTHY, **slow)
    transforms = [{"type": "random_affine", "degrees": 10.0, "shear": None}, {"type": "normalize", "mean": "auto"}]
    config = {**CONFIG, "transforms": transforms}
    found = find(replace(base, config=config, costly_transforms=("color_jitter", "random_affine")))
    assert "random_affine work on every batch" in found[0].evidence
    assert found[0].changes[0].override == "--set 'transforms=[{type: normalize, mean: auto}]'"
    found = find(replace(base, facts={**FACTS, "decoded_while_training": True}))
    assert "decoded in every epoch" in found[0].evidence
    assert found[0].changes[0].override == "--set training.num_workers=2"


def test_a_new_transform_comes_after_those_of_the_config():
    facts = {**FACTS, "input_shape": [3, 8, 8], "input_scale": {**FACTS["input_scale"], "largest_rms": 100.0}}
    transforms = [{"type": "grayscale", "num_output_channels": 1}, {"type": "random_vertical_flip"}]
    found = find(replace(evidence(HEALTHY), facts=facts, config={**CONFIG, "transforms": transforms}))
    expected = "transforms=[{type: grayscale, num_output_channels: 1}, random_vertical_flip, normalize]"
    assert found[0].changes[0].override == f"--set '{expected}'"


def test_a_cause_hides_its_consequences():
    facts = {**FACTS, "input_scale": {"smallest": "a", "smallest_rms": 1.0, "largest": "salary", "largest_rms": 5e4}}
    spiked = evidence([*HEALTHY[:8], 1.5, 0.2, 0.1, 0.08])
    found = find(replace(spiked, facts=facts))
    assert names(found) == ["inputs-not-normalised"]
    assert "salary" in found[0].evidence
