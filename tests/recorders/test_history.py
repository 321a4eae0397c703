import math

from trainkit.recorders.history import history_of, main_metric, metric_text, title_of

RECORDS = [
    {"type": "step", "step": 2, "epoch": 1, "loss": 2.0, "lr": 0.1},
    {"type": "epoch", "step": 4, "epoch": 1, "train_loss": 1.5, "val_loss": 1.4, "val_accuracy": 0.5, "best": True},
    {"type": "step", "step": 6, "epoch": 2, "loss": None, "lr": 0.1},
    {"type": "epoch", "step": 8, "epoch": 2, "train_loss": 1.0, "val_loss": None, "val_accuracy": 0.7, "best": True},
    {"type": "epoch", "step": 12, "epoch": 3, "train_loss": 0.9, "val_loss": 1.6, "val_accuracy": 0.6, "best": False},
    {"type": "note", "text": "something else"},
]


def test_records_are_told_apart_and_null_is_left_out_of_series():
    history = history_of(RECORDS)
    assert len(history) == 3
    assert history.series("val_loss") == [(1.0, 1.4), (3.0, 1.6)]
    assert math.isnan(history.values("val_loss")[1])
    assert history.step_series("loss") == [(0.5, 2.0)], "step 2 of 4 is half an epoch"


def test_the_best_epoch_is_the_last_that_was_best():
    history = history_of(RECORDS)
    assert history.best_epoch == 2
    assert history.best_value("val_accuracy") == 0.7
    assert history_of([]).best_epoch is None


def test_metric_names_leave_out_seconds():
    record = {**RECORDS[1], "train_seconds": 3.0, "train_loss_max": 9.0}
    assert history_of([record]).metric_names() == ["train_loss", "val_loss", "val_accuracy"]


def test_names_and_directions():
    assert main_metric(["train_loss", "val_rmse", "val_r2"]) == "r2"
    assert title_of("val_f1_macro") == "F1 (macro)"
    assert title_of("val_top5_accuracy") == "top-5 accuracy"


def test_a_metric_that_is_not_known_is_a_dash():
    assert [metric_text("val_r2", value) for value in (None, math.nan, 0.5)] == ["–", "–", "0.5"]
