"""One measurement, with the real loop on small data: speed, phases, memory."""

import json
from dataclasses import asdict

import pytest

from trainkit.config import load_config
from trainkit.errors import Interrupted, ProblemsError
from trainkit.system.frontend import Frontend
from trainkit.workflows.bench.profile import saves_per_epoch
from trainkit.workflows.bench.run import Measurement
from trainkit.workflows.bench.speed import measure, window_speeds

DIGITS = """
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
transforms: [normalize]
model: {type: mlp, hidden_sizes: [16]}
training: {epochs: 3, batch_size: 200}
"""
STEP = {"data", "forward", "backward", "optimizer"}


def measured(tmp_path, text=DIGITS, **changes):
    (tmp_path / "config.yaml").write_text(text)
    return measure(load_config(tmp_path / "config.yaml"), **{"seconds": 0.2, **changes})


def test_a_measurement(tmp_path):
    found = measured(tmp_path)
    assert found.samples_per_second > 0
    assert found.spread[0] <= found.samples_per_second <= found.spread[1]
    assert found.steps_measured >= 3
    assert found.epoch_samples == 1294
    assert found.setting.batch_size == 200
    assert found.memory.host >= found.memory.at_start > 0
    assert found.memory.device is None
    assert found.machine["device"] == "cpu"
    assert not found.convolutional


def test_the_phases_of_an_epoch(tmp_path):
    found = measured(tmp_path)
    assert set(found.seconds) == STEP | {"validation", "checkpoint"}
    for phase in ("data", "forward", "backward", "validation", "checkpoint"):
        assert found.seconds[phase] > 0, phase
    # Together the phases of a step are what an epoch of the real loop takes, whose last batch is smaller.
    whole = 7 * 200 / found.samples_per_second
    assert sum(found.seconds[phase] for phase in STEP) == pytest.approx(whole)


def test_augmentation_is_a_phase_where_there_is_one(tmp_path):
    text = DIGITS.replace("[normalize]", "[{type: random_rotation, degrees: 10}, normalize]")
    assert measured(tmp_path, text).seconds["augment"] > 0


def test_no_validation_where_there_is_no_split_for_it(tmp_path):
    text = DIGITS.replace("val_fraction: 0.1", "val_fraction: 0") + "checkpoint: {monitor: train_loss}\n"
    assert "validation" not in measured(tmp_path, text).seconds


@pytest.mark.parametrize(
    "change",
    [
        "optimizer: {type: lbfgs, max_iter: 4}\n",
        "scheduler: one_cycle\noptimizer: {type: sgd, lr: 0.1, momentum: 0.9}\n",
        "checkpoint: {every: 2st}\n",
    ],
)
def test_other_ways_to_train(tmp_path, change):
    assert measured(tmp_path, DIGITS + change).samples_per_second > 0


def test_it_is_read_back_from_json(tmp_path):
    found = measured(tmp_path)
    printed = json.loads(json.dumps({"config": "config.yaml", **asdict(found)}))
    assert Measurement.from_json(printed) == found


def test_a_table(tmp_path):
    found = measured(tmp_path, "dataset: iris\nmodel: {type: mlp, hidden_sizes: [8]}\ntraining: {batch_size: 16}\n")
    assert found.seconds.keys() >= STEP


def test_nothing_is_written(tmp_path):
    measured(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_stop(tmp_path):
    stopped = Frontend()
    stopped.stop.signum = 15
    with pytest.raises(Interrupted):
        measured(tmp_path, seconds=60, frontend=stopped)


def test_a_model_that_does_not_fit_the_data_has_its_place(tmp_path):
    text = DIGITS.replace(
        "{type: mlp, hidden_sizes: [16]}", "{type: cnn, blocks: [{channels: 4, kernel_size: 3, pool: 16}]}"
    )
    with pytest.raises(ProblemsError, match=r"config.yaml:4:\d+: model.blocks\[0\].pool: .* larger than its input"):
        measured(tmp_path, text)


def test_windows_of_time():
    stamps = [(float(at), 10 * at) for at in range(11)]
    assert window_speeds(stamps, windows=5) == [10.0] * 5
    slow = [(0.0, 0), (1.0, 10), (2.0, 20), (10.0, 30)]
    assert window_speeds(slow, windows=5)[-1] < 10.0
    assert window_speeds([(0.0, 0), (2.0, 8)]) == [4.0]


def test_checkpoints_of_an_epoch():
    assert saves_per_epoch((1, "epochs"), 40, epoch_seconds=9.0) == 1.0
    assert saves_per_epoch((10, "steps"), 40, epoch_seconds=9.0) == 4.0
    assert saves_per_epoch((1, "minutes"), 40, epoch_seconds=120.0) == 2.0
