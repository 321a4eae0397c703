"""``best`` through NaN, ties and resumes; early stopping; what a loaded state keeps and what the config decides."""

import copy
import math

import pytest
import torch
from torch import nn

from trainkit.engine.schedules import Plateau, build_schedule
from trainkit.engine.state import Best, EarlyStopping, Ema, Progress, TrainState, set_learning_rate


def make_state(*, schedule="constant", lr=0.1, ema=False, **rest) -> TrainState:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return TrainState(
        model=model,
        optimizer=optimizer,
        schedule=build_schedule(schedule, base_lr=lr, total_steps=10, steps_per_epoch=5),
        best=Best("val_accuracy", "max"),
        ema=Ema(model, decay=0.9) if ema else None,
        **rest,
    )


def step(state: TrainState) -> None:
    completed = state.progress.steps_completed
    set_learning_rate(state.optimizer, lr=state.learning_rate(), momentum=state.schedule.momentum_at(completed))
    state.optimizer.zero_grad()
    state.model(torch.ones(4, 3)).square().sum().backward()
    state.optimizer.step()
    if state.ema is not None:
        state.ema.update(state.model)
    state.progress.steps_completed += 1


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
        best.update(value, epoch=number)
    assert best.epoch == epoch


def test_best_goes_on_after_a_resume():
    state = make_state()
    state.progress.epochs_completed = 3
    state.judge({"val_accuracy": 0.8})
    other = make_state()
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert not other.judge({"val_accuracy": 0.8})
    assert other.judge({"val_accuracy": 0.9})
    another_metric = make_state()
    another_metric.best = Best("val_loss", "min")
    another_metric.load_state_dict(state.state_dict())
    assert another_metric.best == Best("val_loss", "min")


def test_early_stopping_counts_nan_as_no_improvement():
    stopping = EarlyStopping(patience=2, min_delta=0.1, best=Best("val_loss", "min"))
    for epoch, (value, exhausted) in enumerate([(1.0, False), (0.95, False), (math.nan, True)], start=1):
        stopping.update(value, epoch=epoch)
        assert stopping.exhausted is exhausted


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_loaded_optimizer_stands_where_the_last_step_left_it(schedule):
    state = make_state(schedule=schedule)
    for _ in range(4):
        step(state)
    other = make_state(schedule=schedule)
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert str(other.optimizer.state_dict()) == str(state.optimizer.state_dict())


def test_a_changed_learning_rate_counts_from_the_next_step():
    state = make_state()
    step(state)
    other = make_state(lr=0.5)
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    step(other)
    assert other.optimizer.param_groups[0]["lr"] == 0.5


def test_an_average_that_is_switched_on_begins_with_the_loaded_weights():
    state = make_state()
    step(state)
    other = make_state(ema=True)
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert other.ema is not None
    assert torch.equal(other.ema.model.weight, state.model.weight)
    assert other.ema.num_updates == 0


def test_average_and_plateau_come_back():
    def make():
        return make_state(ema=True, plateau=Plateau(monitor="val_accuracy", mode="max", base_lr=0.1, patience=0))

    state = make()
    step(state)
    for value in (0.5, 0.4, 0.3):
        state.judge({"val_accuracy": value})
    assert state.learning_rate() < 0.1
    other = make()
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert other.learning_rate() == state.learning_rate()
    for one in (state, other):
        step(one)
    assert torch.equal(state.ema.model.weight, other.ema.model.weight)
    assert state.ema.num_updates == other.ema.num_updates == 2


def test_a_plateau_keeps_its_reductions_at_another_learning_rate():
    before, after = (Plateau(monitor="val_loss", mode="min", base_lr=lr, factor=0.5, patience=0) for lr in (0.1, 0.4))
    for value in (1.0, 2.0, 2.0):
        before.step(value)
    assert before.apply(0.1) == pytest.approx(0.025)
    after.load_state_dict(before.state_dict())
    assert after.apply(0.4) == pytest.approx(0.1)


def test_fields_that_another_version_did_not_have():
    state = make_state()
    saved = state.state_dict()
    del saved["progress"]["overflows"]
    saved["progress"]["from_the_future"] = 1
    other = make_state()
    other.load_state_dict(saved)
    assert other.progress == Progress()
