import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from trainkit.engine.monitors import Plateau
from trainkit.engine.schedules import build_factor, build_schedule, duration_to_steps

TOTAL, PER_EPOCH = 60, 6
LR = 0.3


def optimizer(kind="sgd"):
    parameter = torch.nn.Parameter(torch.zeros(1))
    return torch.optim.SGD([parameter], lr=LR, momentum=0.5) if kind == "sgd" else torch.optim.Adam([parameter], lr=LR)


def torch_rates(make, *, per_epoch=False, steps=TOTAL, kind="sgd"):
    """(learning rate, momentum or first beta) that torch's scheduler gives to each step of a run."""
    opt = optimizer(kind)
    scheduler = make(opt)
    rates = []
    for step in range(steps):
        group = opt.param_groups[0]
        rates.append((group["lr"], group["betas"][0] if kind == "adam" else group["momentum"]))
        opt.step()
        if not per_epoch or (step + 1) % PER_EPOCH == 0:
            scheduler.step()
    return rates


def ours(type, *, total=TOTAL, **knobs):
    return build_schedule(type, base_lr=LR, total_steps=total, steps_per_epoch=PER_EPOCH, **knobs)


def rates(schedule, steps=TOTAL):
    return [schedule.lr_at(step) for step in range(steps)]


# name, ours, torch's, whether torch's is stepped once an epoch
CASES = [
    ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0), False),
    ("step", {"step_size": 3 * PER_EPOCH, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5), True),
    ("step", {"step_size": 7}, lambda o: lr_scheduler.StepLR(o, 7), False),
    (
        "multi_step",
        {"milestones": [2 * PER_EPOCH, 5 * PER_EPOCH], "gamma": 0.3},
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5], gamma=0.3),
        True,
    ),
    ("exponential", {"gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9), True),
    ("cosine", {"eta_min": 0.01}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.01), False),
    ("cosine", {"T_max": 25}, lambda o: lr_scheduler.CosineAnnealingLR(o, 25), False),
    ("one_cycle", {}, lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=TOTAL), False),
    (
        "one_cycle",
        {"pct_start": 0.1, "anneal_strategy": "linear", "div_factor": 5.0, "final_div_factor": 50.0},
        lambda o: lr_scheduler.OneCycleLR(
            o, LR, total_steps=TOTAL, pct_start=0.1, anneal_strategy="linear", div_factor=5.0, final_div_factor=50.0
        ),
        False,
    ),
]


@pytest.mark.parametrize(("type", "knobs", "make", "per_epoch"), CASES)
def test_equals_torch_at_every_step(type, knobs, make, per_epoch):
    expected = [lr for lr, _ in torch_rates(make, per_epoch=per_epoch)]
    assert rates(ours(type, **knobs)) == pytest.approx(expected, rel=1e-9, abs=1e-15)


WARMED = [
    ("constant", {}, lambda o, rest: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("step", {"step_size": 11, "gamma": 0.5}, lambda o, rest: lr_scheduler.StepLR(o, 11, gamma=0.5)),
    ("multi_step", {"milestones": [5, 30]}, lambda o, rest: lr_scheduler.MultiStepLR(o, [5, 30])),
    ("cosine", {}, lambda o, rest: lr_scheduler.CosineAnnealingLR(o, rest)),
    ("cosine", {"T_max": 20, "eta_min": 0.1}, lambda o, rest: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1)),
]


@pytest.mark.parametrize(("type", "knobs", "make"), WARMED)
@pytest.mark.parametrize("warmup", [1, 13])
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_warm_up_equals_torch_sequential(type, knobs, make, warmup):
    def sequential(opt):
        linear = lr_scheduler.LinearLR(opt, start_factor=0.2, total_iters=warmup)
        return lr_scheduler.SequentialLR(opt, [linear, make(opt, TOTAL - warmup)], milestones=[warmup])

    expected = [lr for lr, _ in torch_rates(sequential)]
    schedule = ours(type, warmup_steps=warmup, warmup_start_factor=0.2, **knobs)
    assert rates(schedule) == pytest.approx(expected, rel=1e-9)


def test_warm_up_of_an_exponential_counts_its_epochs_from_the_end_of_the_warm_up():
    schedule = ours("exponential", gamma=0.5, warmup_steps=4, warmup_start_factor=0.25)
    assert rates(schedule, 4) == pytest.approx([LR * f for f in (0.25, 0.4375, 0.625, 0.8125)])
    assert [schedule.lr_at(step) for step in (4, 9, 10, 15, 16)] == pytest.approx([LR, LR, LR / 2, LR / 2, LR / 4])


def test_warm_up_of_one_cycle_ends_where_the_cycle_starts():
    schedule = ours("one_cycle", warmup_steps=10, warmup_start_factor=0.1)
    alone = ours("one_cycle", total=TOTAL - 10)
    assert schedule.lr_at(0) == pytest.approx(0.1 * LR / 25)
    assert [schedule.lr_at(10 + step) for step in range(50)] == rates(alone, 50)
    assert [schedule.momentum_at(step) for step in (0, 9, 10)] == [0.95] * 3


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_moves_momentum_as_torch_does(kind, strategy):
    def make(opt):
        return lr_scheduler.OneCycleLR(
            opt, LR, total_steps=TOTAL, anneal_strategy=strategy, base_momentum=0.8, max_momentum=0.9
        )

    schedule = ours("one_cycle", anneal_strategy=strategy, base_momentum=0.8, max_momentum=0.9)
    expected = [momentum for _, momentum in torch_rates(make, kind=kind)]
    assert [schedule.momentum_at(step) for step in range(TOTAL)] == pytest.approx(expected, rel=1e-9)


def test_momentum_stays_where_no_schedule_moves_it():
    assert ours("one_cycle", cycle_momentum=False).momentum_at(3) is None
    assert ours("cosine").momentum_at(3) is None


@settings(deadline=None, max_examples=60)
@given(total=st.integers(2, 40), pct=st.floats(0.01, 0.99))
def test_one_cycle_of_any_length_equals_torch(total, pct):
    try:
        expected = torch_rates(lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=total, pct_start=pct), steps=total)
    except ZeroDivisionError:  # torch's own first step, where pct_start * total is 1
        return
    except ValueError:  # torch counts one step more than it allows, at the very end
        expected = torch_rates(
            lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=total, pct_start=pct), steps=total - 1
        )
    schedule = ours("one_cycle", total=total, pct_start=pct)
    assert rates(schedule, len(expected)) == pytest.approx([lr for lr, _ in expected], rel=1e-9)


@pytest.mark.parametrize("total", [1, 2, 5, 10])
def test_one_cycle_is_finite_at_its_edges(total):
    schedule = ours("one_cycle", total=total, pct_start=1 / total if total > 1 else 0.3)
    assert all(0 < schedule.lr_at(step) <= LR for step in range(total + 3))


def test_points_worked_out_by_hand():
    step = ours("step", step_size=10, gamma=0.1)
    assert [step.lr_at(s) for s in (0, 9, 10, 29, 30)] == pytest.approx([0.3, 0.3, 0.03, 0.003, 0.0003])
    cosine = ours("cosine", eta_min=0.1)
    assert [cosine.lr_at(s) for s in (0, 30, 60)] == pytest.approx([0.3, 0.2, 0.1])
    cycle = ours("one_cycle", pct_start=0.5)  # rises over steps 0 to 29, falls until step 59
    assert [cycle.lr_at(s) for s in (0, 29, 59)] == pytest.approx([0.012, 0.3, 0.0000012])
    warm = ours("constant", warmup_steps=4, warmup_start_factor=0.2)
    assert [warm.lr_at(s) for s in (0, 1, 2, 3, 4, 50)] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3, 0.3])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_a_learning_rate_is_a_function_of_its_step_alone(seed):
    schedule = ours("one_cycle", warmup_steps=7)
    in_order = rates(schedule)
    shuffled = random.Random(seed).sample(range(TOTAL), TOTAL)
    assert {step: schedule.lr_at(step) for step in shuffled} == dict(enumerate(in_order))


@pytest.mark.parametrize(
    ("type", "knobs", "expected"),
    [
        ("cosine", {"T_max": 61}, "T_max is 61 steps, longer than the 60 steps of the run"),
        ("cosine", {"T_max": 51, "warmup_steps": 10}, "T_max is 51 steps, longer than the 50 steps"),
        ("step", {"step_size": 70}, "step_size is 70 steps, longer than the 60 steps of the run"),
        ("multi_step", {"milestones": [10, 70]}, "the last milestone is 70 steps, longer than the 60"),
        ("multi_step", {"milestones": [30, 20]}, "milestones must go up, got"),
        ("multi_step", {"milestones": [30, 30]}, "milestones must go up, got"),
        ("constant", {"warmup_steps": 60}, "the warm-up has 60 steps, the run only 60"),
    ],
)
def test_lengths_that_do_not_fit_the_run(type, knobs, expected):
    with pytest.raises(ValueError, match=expected):
        ours(type, **knobs)


def test_durations_in_steps():
    assert duration_to_steps(3, "epochs", steps_per_epoch=7) == 21
    assert duration_to_steps(500, "steps", steps_per_epoch=7) == 500
    with pytest.raises(ValueError, match="a duration in minutes has no fixed number of steps"):
        duration_to_steps(3, "minutes", steps_per_epoch=7)


def test_plateau_scales_a_warm_up():
    plateau = Plateau(monitor="val_loss", mode="min", base_lr=LR, factor=0.5, patience=0)
    schedule = ours("reduce_on_plateau", warmup_steps=10, warmup_start_factor=0.1)
    assert plateau.apply(schedule.lr_at(0)) == pytest.approx(0.03)
    plateau.step(1.0)
    assert plateau.step(1.0)
    assert plateau.apply(schedule.lr_at(0)) == pytest.approx(0.015)
    assert plateau.apply(schedule.lr_at(20)) == LR / 2


@pytest.mark.parametrize("cycles", [1, 4])
def test_coslog_is_its_formula(cycles):
    share = torch.arange(TOTAL, dtype=torch.float64) / TOTAL
    expected = LR * 0.5 * (1 - torch.cos(2 * torch.pi * torch.log2(1 + (2**cycles - 1) * share)))
    assert rates(ours("coslog", cycles=cycles)) == pytest.approx(expected.tolist(), abs=1e-12)


def test_coslog_by_hand():
    """Waves of 1, 2, 4 and 8 fifteenths of the run: at 0 between them, at the top near their middle."""
    schedule = ours("coslog", total=1500)
    assert [schedule.lr_at(step) for step in (0, 100, 300, 700)] == pytest.approx([0, 0, 0, 0], abs=1e-9)
    middle = round(100 * (2**0.5 - 1))
    assert schedule.lr_at(middle) == pytest.approx(LR, rel=1e-3)
    assert schedule.lr_at(1499) < 1e-4


def test_flat_cos_is_flat_and_then_half_a_wave():
    factor = build_factor("flat_cos", total_steps=8)
    wave = [(1 + math.cos(math.pi * share)) / 2 for share in (0.25, 0.5, 0.75, 1.0)]
    assert [factor(step) for step in range(9)] == pytest.approx([1.0] * 5 + wave)
    assert build_factor("constant", total_steps=8) is None
    assert build_factor(None, total_steps=8) is None
