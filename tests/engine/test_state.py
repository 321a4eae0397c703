"""A loaded state: values that come from the checkpoint, and values that come from the config."""

import copy

import pytest
import torch
from torch import nn

from trainkit.engine.monitors import Best, EarlyStopping, Plateau
from trainkit.engine.optimizers import Ema
from trainkit.engine.schedules import build_schedule
from trainkit.engine.state import Progress, TrainState, set_learning_rate


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


def test_best_goes_on_after_a_resume():
    state = make_state()
    state.progress.epochs_completed = 3
    state.update_monitors({"val_accuracy": 0.8})
    other = make_state()
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert not other.update_monitors({"val_accuracy": 0.8})
    assert other.update_monitors({"val_accuracy": 0.9})
    another_metric = make_state()
    another_metric.best = Best("val_loss", "min")
    another_metric.load_state_dict(state.state_dict())
    assert another_metric.best == Best("val_loss", "min")


def test_the_loss_that_breaks_ties_comes_back():
    def make():
        return make_state(early_stopping=EarlyStopping(5, 0.0, Best("val_f1_macro", "max")))

    state = make()
    state.progress.epochs_completed = 3
    state.update_monitors({"val_accuracy": 0.8, "val_f1_macro": 0.7, "val_loss": 0.5})
    other = make()
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert (other.best, other.early_stopping) == (state.best, state.early_stopping)
    for loss, better in ((0.6, False), (0.4, True), (0.45, False)):
        metrics = {"val_accuracy": 0.8, "val_f1_macro": 0.7, "val_loss": loss}
        assert state.update_monitors(metrics) is other.update_monitors(metrics) is better
        assert other.early_stopping == state.early_stopping


def test_a_checkpoint_without_that_loss_still_loads():
    state = make_state()
    state.progress.epochs_completed = 3
    state.update_monitors({"val_accuracy": 0.8, "val_loss": 0.5})
    saved = copy.deepcopy(state.state_dict())
    del saved["best"]["loss"]
    other = make_state()
    other.load_state_dict(saved)
    assert other.best == Best("val_accuracy", "max", 0.8, 3)
    assert not other.update_monitors({"val_accuracy": 0.8, "val_loss": 0.4})


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
        state.update_monitors({"val_accuracy": value})
    assert state.learning_rate() < 0.1
    other = make()
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert other.learning_rate() == state.learning_rate()
    for one in (state, other):
        step(one)
    assert torch.equal(state.ema.model.weight, other.ema.model.weight)
    assert state.ema.num_updates == other.ema.num_updates == 2


def test_fields_that_another_version_did_not_have():
    state = make_state()
    saved = state.state_dict()
    del saved["progress"]["overflows"]
    saved["progress"]["from_the_future"] = 1
    other = make_state()
    other.load_state_dict(saved)
    assert other.progress == Progress()


def convolutions(memory_format) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(
        memory_format=memory_format
    )


def convolution_state(memory_format, optimizer, **form) -> TrainState:
    model = convolutions(memory_format)
    return TrainState(
        model=model,
        optimizer=optimizer(model.parameters(), lr=0.05, **form),
        schedule=build_schedule("constant", base_lr=0.05, total_steps=10, steps_per_epoch=5),
        best=Best("train_loss", "min"),
    )


def convolution_steps(state: TrainState, count: int) -> None:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(count):
        state.optimizer.zero_grad()
        nn.functional.cross_entropy(state.model(images), torch.tensor([0, 1, 2, 3, 0, 1])).backward()
        state.optimizer.step()


@pytest.mark.parametrize("before", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("optimizer", "form"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"amsgrad": True}), (torch.optim.Adagrad, {})],
)
def test_a_state_goes_on_in_the_other_memory_layout(before, optimizer, form):
    """Fused kernels pair the memory of weights and state: a state in the old strides would belong to other weights."""
    after = torch.contiguous_format if before is torch.channels_last else torch.channels_last
    first = convolution_state(before, optimizer, fused=True, **form)
    convolution_steps(first, 3)
    toggled = convolution_state(after, optimizer, fused=True, **form)
    toggled.load_state_dict(copy.deepcopy(first.state_dict()))
    plain = convolution_state(before, optimizer, fused=False, foreach=False, **form)
    convolution_steps(plain, 3)
    for state in (toggled, plain):
        convolution_steps(state, 5)
    for mine, expected in zip(toggled.parameters, plain.parameters, strict=True):
        assert mine.dim() < 4 or mine.is_contiguous(memory_format=after)
        torch.testing.assert_close(mine, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_the_step_counter_of_a_state_is_where_the_optimizer_reads_it(fused):
    """On the CPU both read it there; what differs by device is tested beside a GPU. The type is always float32."""
    first = convolution_state(torch.contiguous_format, torch.optim.AdamW, fused=not fused)
    convolution_steps(first, 2)
    other = convolution_state(torch.contiguous_format, torch.optim.AdamW, fused=fused)
    other.load_state_dict(copy.deepcopy(first.state_dict()))
    convolution_steps(other, 1)
    assert {float(state["step"]) for state in other.optimizer.state.values()} == {3.0}
