"""The best value through NaN and ties, early stopping, and the plateau of PyTorch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from trainkit.engine.monitors import Best, EarlyStopping, Plateau

LR = 0.3


@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("max", [0.5, 0.7, 0.6], 2),
        ("min", [0.5, 0.7, 0.4], 3),
        ("max", [0.7, 0.7, 0.7], 1),
        ("max", [math.nan, 0.1, math.nan], 2),
        ("min", [math.nan, math.nan], None),
        ("min", [math.inf, 3.0], 2),
        ("max", [-math.inf, -5.0, math.nan], 2),
    ],
)
def test_best_takes_the_first_of_equals_and_never_nan(mode, values, epoch):
    best = Best("metric", mode)
    for number, value in enumerate(values, start=1):
        best.update({"metric": value}, epoch=number)
    assert best.epoch == epoch


@pytest.mark.parametrize(
    ("epochs", "best_epoch"),
    [
        ([(0.9, 0.5), (0.9, 0.4), (0.9, 0.6)], 2),
        ([(0.9, 0.5), (0.9, 0.5)], 1),
        ([(0.8, 0.1), (0.9, 0.5)], 2),
        ([(0.9, 0.5), (0.8, 0.1)], 1),
        ([(0.9, math.nan), (0.9, 7.0), (0.9, math.nan)], 2),
        ([(0.9, 0.5), (0.9, math.nan)], 1),
        ([(0.9, math.inf), (0.9, 7.0)], 2),
        ([(math.nan, 0.1), (math.nan, 0.0)], None),
        ([(0.9, 0.5), (1.0, 0.8), (0.9, 0.1), (1.0, 0.7), (1.0, 0.7)], 4),
    ],
)
@pytest.mark.parametrize("metric", ["val_accuracy", "val_f1_macro", "val_top5_accuracy", "train_accuracy", "val_r2"])
def test_of_equal_values_the_lower_loss_of_the_same_split_wins(metric, epochs, best_epoch):
    best = Best(metric, "max")
    split = metric.partition("_")[0]
    other = {"val": "train", "train": "val"}[split]
    for number, (value, loss) in enumerate(epochs, start=1):
        best.update({metric: value, f"{split}_loss": loss, f"{other}_loss": -number}, epoch=number)
    assert best.epoch == best_epoch


def test_a_loss_has_no_tie_break():
    best = Best("val_loss", "min")
    for number, loss in enumerate([0.5, 0.5], start=1):
        best.update({"val_loss": loss, "train_loss": -number, "val_accuracy": number}, epoch=number)
    assert (best.epoch, best.loss) == (1, None)


def test_a_best_value_without_a_stored_loss_stays_the_best_of_equals():
    """A checkpoint of an earlier version: its run took the first of equals."""
    best = Best("val_accuracy", "max", value=0.9, epoch=3)
    assert not best.update({"val_accuracy": 0.9, "val_loss": 0.0}, epoch=4)
    assert best.update({"val_accuracy": 0.95, "val_loss": 2.0}, epoch=5)
    assert best.update({"val_accuracy": 0.95, "val_loss": 1.0}, epoch=6)


def test_early_stopping_counts_nan_as_no_improvement():
    stopping = EarlyStopping(patience=2, min_delta=0.1, best=Best("val_loss", "min"))
    for epoch, (value, exhausted) in enumerate([(1.0, False), (0.95, False), (math.nan, True)], start=1):
        stopping.update({"val_loss": value}, epoch=epoch)
        assert stopping.exhausted is exhausted


@pytest.mark.parametrize(
    ("min_delta", "losses", "counts"),
    [
        (0.0, [0.5, 0.4, 0.3, 0.3, 0.35], [0, 0, 0, 1, 2]),
        (0.0, [0.5, 0.6, 0.49, math.nan], [0, 1, 0, 1]),
        (0.01, [0.5, 0.4, 0.3], [0, 1, 2]),  # who asks for a gain does not mean an equal value
    ],
)
def test_where_the_accuracy_stands_still_a_lower_loss_is_an_improvement(min_delta, losses, counts):
    stopping = EarlyStopping(patience=9, min_delta=min_delta, best=Best("val_accuracy", "max"))
    best = Best("val_accuracy", "max")
    seen = []
    for epoch, loss in enumerate(losses, start=1):
        metrics = {"val_accuracy": 1.0, "val_loss": loss}
        improved = best.update(metrics, epoch=epoch)
        stopping.update(metrics, epoch=epoch)
        seen.append(stopping.epochs_without_improvement)
        assert not (min_delta == 0 and improved and seen[-1])
    assert seen == counts


values = st.lists(st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0, 1.00005, 2.0, -1.0, math.nan]), min_size=1, max_size=40)


@settings(deadline=None, max_examples=150)
@given(
    values=values,
    mode=st.sampled_from(["min", "max"]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 0.01, 0.2999999999]),
)
def test_plateau_equals_torch(values, mode, **knobs):
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = lr_scheduler.ReduceLROnPlateau(opt, mode=mode, factor=0.5, **knobs)
    plateau = Plateau(monitor="val_loss", mode=mode, base_lr=LR, factor=0.5, **knobs)
    for value in values:
        before = plateau.lr
        scheduler.step(value)
        assert plateau.step(value) == (plateau.lr < before)
        assert plateau.apply(LR) == opt.param_groups[0]["lr"]


def test_plateau_continues_from_its_state():
    plateau = Plateau(monitor="val_loss", mode="min", base_lr=LR, patience=1, cooldown=1)
    for value in (1.0, 1.0, 1.0, 0.5, 0.5):
        plateau.step(value)
    again = Plateau(monitor="val_loss", mode="min", base_lr=LR, patience=1, cooldown=1)
    again.load_state_dict(plateau.state_dict())
    later = [0.5, 0.5, 0.2, 0.3, 0.3, 0.3]
    assert [(plateau.step(v), plateau.apply(LR)) for v in later] == [(again.step(v), again.apply(LR)) for v in later]


def test_a_plateau_keeps_its_reductions_at_another_learning_rate():
    before, after = (Plateau(monitor="val_loss", mode="min", base_lr=lr, factor=0.5, patience=0) for lr in (0.1, 0.4))
    for value in (1.0, 2.0, 2.0):
        before.step(value)
    assert before.apply(0.1) == pytest.approx(0.025)
    after.load_state_dict(before.state_dict())
    assert after.apply(0.4) == pytest.approx(0.1)
