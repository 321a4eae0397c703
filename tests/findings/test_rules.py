"""Rules on records made for them: where each begins, and what hides what. Real runs are in test_planted_runs.py."""

from dataclasses import replace

import numpy as np
import pytest

from trainkit.findings import guessing
from trainkit.findings.evidence import Evidence
from trainkit.findings.guessing import _deviation_of_matches
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
    assert names(found) == ["inputs-out-of-scale"]
    assert "salary" in found[0].evidence


NOISE = [[11, 9], [10, 10]]
"""A confusion matrix of answers that have nothing to do with the classes."""


@pytest.mark.parametrize(
    ("confusion", "guesses"),
    [
        (NOISE, True),
        ([[990, 0], [10, 0]], True),
        ([[985, 5], [2, 8]], False),
        ([[30, 0], [0, 0]], False),
        ([[8, 2], [2, 8]], False),
        ([[300, 700], [200, 800]], False),
        ([[20, 0, 0], [20, 0, 0], [20, 0, 0]], True),
        ([[0, 15], [15, 0]], True),
    ],
)
def test_a_model_guesses_where_its_answers_do_not_go_with_the_classes(confusion, guesses):
    names = tuple(f"c{k}" for k in range(len(confusion)))
    given = replace(evidence(HEALTHY), confusion=confusion, split="test", class_names=names)
    assert (guessing(given) is not None) is guesses
    assert not guesses or find(given) != []


@pytest.mark.parametrize(("confusion", "guesses"), [([[8, 0], [0, 8]], False), ([[5, 3], [3, 5]], True)])
def test_few_answers_that_are_all_right_are_no_guesses(confusion, guesses):
    """Whatever the curves of a tiny validation split look like."""
    given = evidence(HEALTHY, val_accuracy=[0.5] * len(HEALTHY), val_recall_macro=[0.5] * len(HEALTHY))
    facts = {**FACTS, "majority_share": 0.5, "num_samples": {"train": 58, "val": 6, "test": 16}}
    given = replace(given, facts=facts, confusion=confusion, split="test", class_names=("a", "b"))
    assert (guessing(given) is not None) is guesses


@pytest.mark.parametrize(("r2", "samples", "guesses"), [(-12, 100, True), (0.0, 100, True), (0.05, 100, True)])
@pytest.mark.parametrize("scale", [1, 10])
def test_a_low_r2_counts_by_the_number_of_samples(r2, samples, guesses, scale):
    facts = {**FACTS, "num_samples": {"train": 1000, "val": 200, "test": samples * scale}}
    given = replace(evidence(HEALTHY), facts=facts, split="test", r2=r2)
    assert (guessing(given) is not None) is (guesses and (r2 <= 0 or scale == 1))


def test_a_model_that_guesses_where_simpler_ones_do_not():
    relation = {"related": True, "linear": 0.8, "neighbors": 0.6, "samples": 900}
    given = replace(evidence(HEALTHY), confusion=NOISE, split="test", class_names=("a", "b"))
    [finding] = find(replace(given, facts={**FACTS, "relation": relation}))
    assert finding.name == "no-better-than-guessing"
    assert "0.80" in finding.evidence
    [finding] = find(replace(given, facts={**FACTS, "relation": {**relation, "related": False, "linear": 0.05}}))
    assert finding.name == "labels-unrelated"
    assert "0.60" in finding.evidence
    assert [(change.key, change.value) for change in finding.changes] == [("dataset", "...")]


def scaled_inputs(**scale):
    return {**FACTS, "input_shape": [1, 8, 8], "input_scale": {**FACTS["input_scale"], **scale}}


def test_statistics_of_bytes_for_pixels_between_0_and_1():
    """``(x - 123) / 58`` of [0, 1] lies around -2.1, and hardly differs."""
    facts = scaled_inputs(widest="channel 0", widest_mean=-2.11, widest_std=0.005, least_offset=420.0)
    wrong = {"type": "normalize", "mean": [123.0], "std": [58.0]}
    config = {**CONFIG, "transforms": [{"type": "random_vertical_flip", "p": 0.5}, wrong]}
    [finding] = find(replace(evidence(HEALTHY), facts=facts, config=config))
    assert finding.name == "inputs-out-of-scale"
    assert "standard deviation 0.005" in finding.evidence
    assert finding.changes[0].override == "--set 'transforms=[{type: random_vertical_flip, p: 0.5}, normalize]'"


def test_normalize_is_not_suggested_where_it_takes_its_own_statistics():
    config = {**CONFIG, "transforms": [{"type": "normalize", "mean": "auto", "std": "auto"}]}
    [finding] = find(replace(evidence(HEALTHY), facts=scaled_inputs(largest_rms=40.0), config=config))
    assert "transforms" not in [change.key for change in finding.changes]


def test_clipping_and_warm_up_are_not_suggested_where_they_are():
    rough = evidence([9.0, 9.0, 9.0])
    config = {"optimizer": {"lr": 1.0}, "training": {"clip_grad_value": 1.0}, "scheduler": {"warmup": "1ep"}}
    [finding] = find(replace(rough, config=config))
    assert [change.key for change in finding.changes] == ["optimizer.lr"]
    assert "warm-up" not in finding.suggestion
    assert "clipping" not in finding.suggestion
    [finding] = find(rough)
    assert [change.key for change in finding.changes] == ["optimizer.lr", "training.clip_grad_norm"]


def test_even_classes_are_not_weighed():
    facts = {**FACTS, "class_counts": [400, 400, 400]}
    [finding] = find(replace(collapsed(), facts=facts, confusion=[[50, 0, 0], [2, 48, 0], [20, 30, 0]]))
    assert finding.name == "class-collapse"
    assert "Weigh" not in finding.suggestion
    assert [change.override for change in finding.changes] == ["--set training.epochs=24"]


def test_against_overfitting_only_what_is_not_there():
    gap = {"train_accuracy": [1.0] * 12, "val_accuracy": [0.6] * 12, "val_loss": [1.0] * 12}
    config = {
        "model": {"dropout": 0.5},
        "optimizer": {"weight_decay": 0.02, "lr": 0.1},
        "training": {"early_stopping": {"patience": 3}, "epochs": 12},
        "transforms": [{"type": "random_crop"}],
    }
    [finding] = find(replace(evidence(HEALTHY, **gap), config=config))
    assert finding.name == "overfitting"
    assert "augmentation" not in finding.suggestion
    assert [change.key for change in finding.changes] == ["training.epochs"]


@pytest.mark.parametrize(("score", "expected"), [(0.99, ["underfitting"]), (0.8, [])])
def test_a_model_that_simpler_ones_beat(score, expected):
    relation = {"related": True, "linear": 0.5, "neighbors": 0.9, "score": score, "samples": 1000}
    loss = {"train_loss": [0.7, 0.6, 0.55, 0.54], "train_accuracy": [0.7] * 4, "val_accuracy": [0.7] * 4}
    config = {**CONFIG, "model": {"hidden_sizes": []}, "training": {"epochs": 4}}
    given = replace(evidence(**loss), config=config, confusion=[[70, 30], [25, 75]], split="test", class_names="ab")
    found = find(replace(given, facts={**FACTS, "constant_loss": 0.7, "zero_loss": 0.7, "relation": relation}))
    assert names(found) == expected
    assert not expected or [change.override for change in found[0].changes] == [
        "--set 'model.hidden_sizes=[128, 128]'",
        "--set training.epochs=8",
    ]


@pytest.mark.parametrize(("mix", "rise", "expected"), [(None, 1.0, True), ("mixup", 1.0, False), ("mixup", 3.0, True)])
def test_the_loss_of_mixed_pictures_goes_up_and_down(mix, rise, expected):
    course = evidence([0.9, 0.7, 0.4, *[0.4 + rise, 0.4] * 8], val_loss=HEALTHY + [0.08] * 7)
    config = {**CONFIG, "training": {"mix": mix and {"type": mix}}}
    found = names(find(replace(course, config=config)))
    assert ("learning-rate-too-high" in found) is expected
    assert "loss-spikes" not in found


def test_a_first_batch_above_knowing_nothing_is_no_rough_start():
    course = {"train_loss": [0.9, 0.5, 0.3, 0.3], "train_loss_max": [1.6, 0.6, 0.5, 0.5], "train_accuracy": [0.8] * 4}
    facts = {**FACTS, "constant_loss": 0.45, "zero_loss": 0.5}
    assert names(find(replace(evidence(**course), facts=facts))) == ["learning-rate-too-high"]
    first = {"loss": 1.2, "spread": 1.0, "size": 1.0, "samples": 64, "silent": []}
    assert find(replace(evidence(**course), facts={**facts, "first_outputs": first})) == []


@pytest.mark.parametrize(
    ("course", "steps", "expected"),
    [
        ([2.46, 2.49, 2.5], 1, []),  # the first weights, with dropout
        ([2.1, 2.1005], 1, []),  # nor of one that is too low
        ([2.1, 2.1005], 10, ["learning-rate-too-low"]),
        ([2.46, 2.49, 23.4], 1, ["learning-rate-too-high"]),
        ([2.46, 2.49, 2.5], 10, []),
        ([2.46, 2.6, 2.8], 10, ["learning-rate-too-high"]),
    ],
)
def test_a_loss_near_that_of_the_first_weights_says_nothing_of_the_rate_after_few_steps(course, steps, expected):
    first = {"loss": 2.02, "spread": 1.0, "size": 1.0, "samples": 64, "silent": []}
    facts = {**FACTS, "constant_loss": 1.1, "zero_loss": 1.1, "first_outputs": first}
    records = [
        {"type": "epoch", "step": steps * epoch, "epoch": epoch, "train_loss": loss, "train_loss_max": loss, "lr": 0.1}
        for epoch, loss in enumerate(course, start=1)
    ]
    found = find(replace(evidence([]), history=history_of(records), facts=facts))
    assert [name for name in names(found) if name != "training-too-short"] == expected


def test_a_rough_start_after_which_nearly_all_is_learned_is_no_finding():
    course = [8.0, 90.0, 3.0, 1.0, *[0.1] * 8]
    first = {"loss": 8.0, "spread": 1.0, "size": 1.0, "samples": 64, "silent": []}
    facts = {**FACTS, "first_outputs": first}
    assert find(replace(evidence(course), facts=facts)) == []
    assert names(find(replace(evidence([*course[:4], *[1.0] * 8]), facts=facts))) == ["first-weights"]


def test_a_model_with_weighted_classes_is_not_compared_by_accuracy():
    facts = {**FACTS, "relation": {"related": True, "linear": 0.5, "neighbors": 0.9, "score": 0.99, "samples": 1000}}
    given = replace(evidence(HEALTHY), facts=facts, confusion=[[140, 50], [0, 10]], split="test", class_names="ab")
    assert names(find(given)) == ["underfitting"]
    assert find(replace(given, config={**CONFIG, "loss": {"weight": "balanced"}})) == []


def test_the_spread_of_right_answers_in_random_order():
    rng = np.random.default_rng(0)
    labels, answers = np.repeat([0, 1, 2], [50, 30, 5]), np.repeat([0, 1, 2], [20, 60, 5])
    right = [(labels == rng.permutation(answers)).sum() for _ in range(4000)]
    assert _deviation_of_matches([50, 30, 5], [20, 60, 5]) == pytest.approx(np.std(right), rel=0.05)
