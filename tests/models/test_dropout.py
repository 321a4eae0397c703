"""Dropout with a share that changes: what it drops, and that a change makes no new code."""

import copy

import pytest
import torch
from torch import nn

from trainkit.models import schedule_dropout, scheduled_dropouts
from trainkit.models.dropout import ScheduledDropout, ScheduledDropout2d


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("p", [0.0, 0.25, 0.9, 1.0])
def test_a_share_is_dropped_and_the_mean_stays(p, factor):
    torch.manual_seed(0)
    layer = ScheduledDropout(p)
    layer.set_factor(factor)
    outputs = layer(torch.ones(1000, 400))
    share = p * factor
    assert (outputs == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    if share < 1:
        assert outputs.max().item() == pytest.approx(1 / (1 - share))
    if share == 0:
        assert torch.equal(outputs, torch.ones(1000, 400))


def test_gradients_are_finite_and_zero_where_all_is_dropped():
    inputs = torch.ones(4, 4, requires_grad=True)
    ScheduledDropout(1.0)(inputs).sum().backward()
    assert torch.equal(inputs.grad, torch.zeros(4, 4))


def test_channels_are_dropped_as_a_whole():
    torch.manual_seed(0)
    outputs = ScheduledDropout2d(0.5)(torch.ones(50, 8, 3, 3))
    sums = outputs.sum(dim=(2, 3))
    assert set(sums.flatten().tolist()) == {0.0, 18.0}


def test_a_share_in_bf16_is_not_rounded():
    torch.manual_seed(0)
    layer = ScheduledDropout(0.0015)
    outputs = layer(torch.ones(2000, 500, dtype=torch.bfloat16))
    assert outputs.dtype == torch.bfloat16
    assert (outputs == 0).float().mean().item() == pytest.approx(0.0015, rel=0.1)


def test_evaluation_drops_nothing():
    inputs = torch.randn(3, 3)
    assert ScheduledDropout(0.5).eval()(inputs) is inputs


def test_layers_are_replaced_by_name_and_are_in_no_state():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.25), nn.Sequential(nn.Dropout2d(0.5), nn.AlphaDropout(0.1)))
    keys = list(model.state_dict())
    schedule_dropout(model)
    assert [type(layer).__name__ for layer in model.modules() if not list(layer.children())] == [
        "Linear",
        "ScheduledDropout",
        "ScheduledDropout2d",
        "AlphaDropout",
    ]
    assert [layer.p for layer in scheduled_dropouts(model)] == [0.25, 0.5]
    assert list(model.state_dict()) == keys
    assert copy.deepcopy(model)[1].keep.item() == 0.75


def test_torchscript_takes_it():
    layer = torch.jit.script(ScheduledDropout2d(0.5))
    assert (layer(torch.ones(8, 8, 2, 2)) == 0).any()
    assert torch.equal(layer.eval()(torch.ones(2, 2, 2, 2)), torch.ones(2, 2, 2, 2))


def test_a_change_of_the_share_compiles_nothing_anew():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 2))
    schedule_dropout(model)
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph

    program = torch.compile(model, backend=backend, dynamic=False)
    shares = []
    model[2] = nn.Identity()
    for factor in (1.0, 0.75, 0.5, 0.0):
        (layer,) = scheduled_dropouts(model)
        layer.set_factor(factor)
        shares.append((program(torch.ones(500, 4)) == 0).float().mean().item())
    assert len(compilations) == 1
    assert shares == pytest.approx([0.5, 0.375, 0.25, 0.0], abs=0.02)
