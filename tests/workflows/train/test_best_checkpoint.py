"""The best checkpoint of real runs: among epochs of equal accuracy, the one with the lowest loss."""

import math

import pytest
from engine_runs import differences, load, train_with_stops

from trainkit.checkpoints import CheckpointFolder, load_checkpoint
from trainkit.recorders.logs import read_json_lines

# 18 validation samples: many epochs have the same accuracy.
RUN = """\
dataset: {type: digits, val_fraction: 0.01, test_fraction: 0.2}
transforms: [normalize]
model: {type: mlp, hidden_sizes: [32], dropout: 0.3}
optimizer: {type: adam, lr: 0.01}
training: {epochs: 14, batch_size: 200}
logging: {every: 1, plots: false}
"""


def epochs_of(run) -> list[dict]:
    return [record for record in read_json_lines(run.metrics) if record["type"] == "epoch"]


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_f1_macro"])
def test_of_equal_epochs_the_one_with_the_lowest_loss(tmp_path, monitor):
    run = train_with_stops(load(tmp_path, RUN, f"checkpoint.monitor={monitor}"), tmp_path / "runs")
    epochs = epochs_of(run)
    best = max(epochs, key=lambda epoch: (epoch[monitor], -epoch["val_loss"], -epoch["epoch"]))
    first = max(epochs, key=lambda epoch: epoch[monitor])
    assert best["epoch"] != first["epoch"], "the run has no epochs of equal value: take another one"
    path = CheckpointFolder(run.checkpoints).best()
    assert f"epoch{best['epoch']:02}_acc{100 * best['val_accuracy']:.2f}" in path.name
    saved = load_checkpoint(path)["best"]
    assert (saved["epoch"], saved["value"], saved["loss"]) == (best["epoch"], best[monitor], best["val_loss"])


def test_resume_keeps_the_loss_that_breaks_ties(tmp_path):
    """Stopped after each epoch, so that each comparison is with a value of a checkpoint."""
    loaded = load(tmp_path, RUN, "training.early_stopping={patience: 3}")
    whole = train_with_stops(loaded, tmp_path / "whole")
    steps = max(record["step"] for record in read_json_lines(whole.metrics))
    per_epoch = epochs_of(whole)[0]["step"]
    run = train_with_stops(loaded, tmp_path / "runs", range(per_epoch, steps, per_epoch))
    assert differences(whole, run) == []
    assert [epoch["best"] for epoch in epochs_of(run)] == [epoch["best"] for epoch in epochs_of(whole)]


def test_early_stopping_waits_while_the_loss_falls(tmp_path):
    run = train_with_stops(load(tmp_path, RUN, "training.early_stopping={patience: 2}"), tmp_path / "runs")
    accuracy, loss, waited = -math.inf, math.inf, 0
    for epoch in epochs_of(run):
        assert waited < 2, "the run went on after early stopping"
        better = (epoch["val_accuracy"], -epoch["val_loss"]) > (accuracy, -loss)
        if better:
            accuracy, loss = epoch["val_accuracy"], epoch["val_loss"]
        waited = 0 if better else waited + 1
        assert epoch["best"] is better
