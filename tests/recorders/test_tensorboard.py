"""Event files, read back with TensorBoard's own reader."""

import importlib.util
from pathlib import Path

import pytest

from trainkit.config import load_config
from trainkit.recorders.tensorboard import TensorBoardRecorder
from trainkit.workflows.train.run import train

DIGITS_CNN = Path(__file__).parents[2] / "configs" / "digits_cnn.yaml"

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the extra tensorboard is not installed"
)


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


@needs_package
def test_each_step_stands_once_after_a_killed_run_goes_on(tmp_path):
    first = TensorBoardRecorder(tmp_path)
    for step in range(1, 8):
        first.log({"type": "step", "step": step, "epoch": 1, "loss": float(step)})
    first.sync()  # and is killed: the checkpoint was taken after step 5
    second = TensorBoardRecorder(tmp_path, step=5)
    for step in range(6, 10):
        second.log({"type": "step", "step": step, "epoch": 1, "loss": -float(step)})
    second.close()
    points = [(event.step, event.value) for event in read(tmp_path).Scalars("batch/loss")]
    assert points == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, -6), (7, -7), (8, -8), (9, -9)]


@needs_package
def test_a_run_writes_scalars_images_graph_and_hyperparameters(tmp_path):
    small = ["training.epochs=1", "logging={tensorboard: true, every: 7, plots: false}", "model.head_sizes=[]"]
    result = train(load_config(DIGITS_CNN, overrides=small), runs_dir=tmp_path)
    events = read(result.run.tensorboard)
    tags = events.Tags()
    assert tags["images"] == ["training images"]
    assert tags["graph"]
    assert [event.step for event in events.Scalars("batch/loss")] == [7, 14, 21]
    assert events.Scalars("accuracy/val")[0].value == pytest.approx(result.metrics["val"]["accuracy"])
    assert "_hparams_/session_start_info" in events.summary_metadata


@needs_package
def test_null_and_words_are_left_out(tmp_path):
    recorder = TensorBoardRecorder(tmp_path)
    recorder.log({"type": "epoch", "step": 1, "epoch": 1, "val_loss": None, "train_loss": float("nan"), "lr": 0.1})
    recorder.close()
    assert read(tmp_path).Tags()["scalars"] == ["lr"]
