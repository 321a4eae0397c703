"""Muon for hidden matrices and AdamW for the rest: bit for bit what PyTorch's two optimizers do side by side."""

import copy

import pytest
import torch
from torch import nn

from trainkit.engine.muon import MuonAndAdamW, hidden_matrices
from trainkit.engine.optimizers import build_optimizer
from trainkit.engine.parameter_groups import GroupSpec, group_parameters, load_by_name
from trainkit.engine.state import set_learning_rate


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.LayerNorm(5), nn.Linear(5, 4), nn.Linear(4, 3))


def gradients(model, step):
    torch.manual_seed(step)
    inputs, targets = torch.randn(32, 6), torch.randint(3, (32,))
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()


def build(model, **knobs):
    groups = group_parameters(
        model,
        weight_decay=0.1,
        no_decay="norm_and_bias",
        groups=[GroupSpec(["4"], lr_scale=0.5)],
        matrices=hidden_matrices(model),
    )
    return build_optimizer("muon", groups, device="cpu", lr=0.01, **knobs)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "knobs", [{}, {"momentum": 0.8, "nesterov": False, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"}]
)
def test_steps_are_those_of_muon_and_adamw_side_by_side(knobs, fused):
    ours, theirs = network(), network()
    optimizer = build(ours, betas=[0.8, 0.9], fused=fused, **knobs)
    muon = torch.optim.Muon(
        [{"params": [theirs[2].weight], "lr": 0.01}, {"params": [theirs[4].weight], "lr": 0.005}],
        weight_decay=0.1,
        **knobs,
    )
    decayed = [theirs[0].weight, theirs[5].weight]
    halved = [theirs[4].bias]
    others = [theirs[0].bias, theirs[2].bias, *theirs[3].parameters(), theirs[5].bias]
    form = {"fused": True} if fused else {}
    adamw = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.1, "lr": 0.01},
            {"params": halved, "weight_decay": 0.0, "lr": 0.005},
            {"params": others, "weight_decay": 0.0, "lr": 0.01},
        ],
        betas=(0.8, 0.9),
        **form,
    )
    for step in range(8):
        set_learning_rate(optimizer, lr=0.01, momentum=None)
        gradients(ours, step)
        gradients(theirs, step)
        for one in (optimizer, muon, adamw):
            one.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_loaded_state_goes_on():
    whole, resumed = network(), network()
    first, second = build(whole), build(resumed)
    for step in range(6):
        if step == 3:
            resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
            saved = copy.deepcopy(first.state_dict())
            load_by_name(second, saved, names=[name for name, _ in resumed.named_parameters()])
        for model, optimizer in ((whole, first), (resumed, second)):
            if step >= 3 or model is whole:
                set_learning_rate(optimizer, lr=0.01, momentum=0.9)
                gradients(model, step)
                optimizer.step()
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_which_parameters_are_hidden_matrices():
    assert hidden_matrices(network()) == {"2.weight", "4.weight"}
    words = nn.Sequential(nn.Linear(2, 2), nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert hidden_matrices(words) == {"2.weight"}
    cnn = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 2))
    assert hidden_matrices(cnn) == {"3.weight"}
    assert hidden_matrices(nn.Linear(3, 2)) == set()


def test_parameters_alone_go_to_adamw():
    optimizer = MuonAndAdamW([nn.Parameter(torch.ones(2))], lr=0.1)
    assert [type(part) for part in optimizer.parts] == [torch.optim.AdamW]
