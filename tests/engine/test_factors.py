"""Weight decay and dropout that follow a schedule: functions of the config and the step."""

import pytest
import torch
from digit_runs import STEPS, States, assert_same, config_with, run
from torch import nn

from trainkit.builders import build_setup
from trainkit.engine import fit
from trainkit.engine.decay import ScheduledDecay
from trainkit.engine.schedules import build_factor
from trainkit.runtime import halt_updates

MLP = {"type": "mlp", "hidden_sizes": [16], "norm": "batch", "dropout": 0.5}
ADAMW = {"type": "adamw", "lr": 0.0625, "weight_decay": 0.25, "groups": [{"modules": ["output"], "weight_decay": 0.5}]}
BOTH = {
    "model": {**MLP, "dropout_schedule": "flat_cos"},
    "optimizer": {**ADAMW, "weight_decay_schedule": "flat_cos"},
    "ema": {"decay": 0.9},
}
SGD = {**BOTH["optimizer"], "type": "sgd"}


def seen(changes, **options):
    """At each step of sgd: the weight decay of each group, and what the dropout layer keeps."""
    found = []

    def watch(model):
        def hook(module, inputs):
            if module.training:
                found.append([group["weight_decay"] for group in state.optimizer.param_groups])
                found[-1] += [getattr(module, "keep", torch.tensor(1 - module.p)).item()]

        model.dropout1.register_forward_pre_hook(hook)

    setup = build_setup(config_with(changes))
    watch(setup.model)
    state = setup.state(steps_per_epoch=7)
    states = States()
    fit(
        state,
        setup.plan(),
        train=setup.batches("train", training=True),
        val=setup.batches("val"),
        recorder=states,
        checkpointer=states,
        should_stop=lambda: False,
    )
    return found


def test_each_step_has_the_values_of_the_formula():
    factor = build_factor("flat_cos", total_steps=STEPS)
    rows = [[0.25 * factor(step), 0.5 * factor(step), 1 - 0.5 * factor(step)] for step in range(STEPS)]
    found = seen({**BOTH, "optimizer": SGD})
    assert len(found) == STEPS
    for row, expected in zip(found, rows, strict=True):
        assert row == pytest.approx(expected, abs=1e-7)
    assert found[0] == [0.25, 0.5, 0.5]
    assert 0 < found[-1][0] < 0.01


def test_without_a_schedule_all_stays():
    assert seen({"model": MLP, "optimizer": ADAMW}) == [[0.25, 0.5, 0.5]] * STEPS


@pytest.mark.parametrize("written", [None, "constant"])
def test_a_constant_share_is_dropped_by_pytorchs_own_layer(written):
    setup = build_setup(config_with({"model": {**MLP, "dropout_schedule": written}}))
    assert type(setup.model.dropout1) is nn.Dropout


@pytest.mark.parametrize("optimizer", [BOTH["optimizer"], SGD])
@pytest.mark.parametrize("stop", [3, 7, 12, 17])
def test_a_resumed_run_has_the_bits_of_the_whole_one(stop, optimizer):
    changes = {**BOTH, "optimizer": optimizer}
    whole = run(changes)
    assert_same(whole, run(changes, resume=run(changes, stop=stop)))


def weights(count):
    return [nn.Parameter(torch.linspace(-1, 1, 5) + number) for number in range(count)]


def test_the_decay_of_adamw_is_that_of_torch():
    """Its factors are set for each step; PyTorch's own, unfused, is told the same decay."""
    ours, theirs = weights(3), weights(3)
    groups = (
        [{"params": some[:2], "weight_decay": 0.5}, {"params": some[2:], "weight_decay": 0.0}]
        for some in (ours, theirs)
    )
    optimizer, other = (torch.optim.AdamW(some, lr=0.0625, foreach=False) for some in groups)
    decay = ScheduledDecay(optimizer)
    for factor in (1.0, 0.5, 0.25, 0.0):
        decay.set_factor(factor)
        other.param_groups[0]["weight_decay"] = 0.5 * factor
        for one, parameters in ((optimizer, ours), (other, theirs)):
            for parameter in parameters:
                parameter.grad = parameter.detach().square()
            if one is optimizer:
                decay.apply()
            one.step()
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine, its)


def test_a_step_that_the_device_leaves_out_decays_nothing():
    (parameter,) = weights(1)
    optimizer = torch.optim.AdamW([parameter], lr=0.5, weight_decay=0.5)
    decay, before = ScheduledDecay(optimizer), parameter.detach().clone()
    decay.set_factor(1.0)
    halt_updates(optimizer, torch.ones(()))
    decay.apply()
    assert torch.equal(parameter, before)
    halt_updates(optimizer, torch.zeros(()))
    decay.apply()
    assert torch.equal(parameter, before * 0.75)


def test_the_schedules_change_the_weights():
    for key in ("model", "optimizer"):
        one, other = run(BOTH), run({**BOTH, key: MLP if key == "model" else ADAMW})
        assert not torch.equal(one["model"]["linear1.weight"], other["model"]["linear1.weight"]), key
