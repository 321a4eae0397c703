"""Parameters in groups: who is in which, what they get at each step, and their state after a resume."""

import copy

import pytest
import torch
from digit_runs import States, assert_same, config_with, run
from torch import nn

from trainkit.builders import build_setup
from trainkit.engine import GroupSpec, build_optimizer, group_parameters
from trainkit.engine.parameter_groups import load_by_name
from trainkit.engine.state import base_learning_rate, set_learning_rate
from trainkit.errors import ProblemsError

SCALED = {"type": "adamw", "lr": 0.0625, "no_decay": "norm_and_bias", "weight_decay": 0.125}
GROUPS = [{"modules": ["output"], "lr_scale": 4.0, "weight_decay": 0.0}, {"modules": ["norm1.bias"], "lr_scale": 0.5}]
OPTIMIZERS = ("sgd", "adam", "adamw", "nadam", "radam", "adafactor", "rmsprop", "adagrad")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False))
        self.attention = nn.MultiheadAttention(4, 2)
        self.out = nn.Linear(4, 4)
        self.out.weight = self.body[2].weight


def shown(groups):
    return [(group.modules, group.lr_scale, group.weight_decay) for group in groups]


def test_without_groups_there_is_one_of_all_parameters():
    model = Tied()
    (group,) = group_parameters(model, weight_decay=0.1)
    assert (group.modules, group.lr_scale, group.weight_decay) == ((), 1.0, 0.1)
    assert list(group.parameters.values()) == list(model.parameters())


def test_norm_layers_and_biases_are_not_decayed():
    decayed, others = group_parameters(Tied(), weight_decay=0.1, no_decay="norm_and_bias")
    assert list(decayed.parameters) == [
        "body.0.weight",
        "body.2.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]
    assert (decayed.weight_decay, others.weight_decay) == (0.1, 0.0)
    assert "attention.in_proj_bias" in others.parameters
    assert others.modules == ("body.0.bias", "body.1", "attention.in_proj_bias", "attention.out_proj.bias", "out.bias")


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)])
def test_every_norm_layer_is_known(norm):
    (group,) = group_parameters(nn.Sequential(norm), weight_decay=0.1, no_decay="norm_and_bias")
    assert group.weight_decay == 0


def test_factors_of_modules_and_of_the_config_are_multiplied():
    model = Tied()
    model.body.lr_scale = 2.0
    model.body[0].lr_scale = {"bias": 5.0}
    groups = group_parameters(model, weight_decay=0.0, groups=[GroupSpec(["body.0"], 3.0)])
    by_name = {name: group.lr_scale for group in groups for name in group.parameters}
    assert by_name["body.0.weight"] == 6.0
    assert by_name["body.0.bias"] == 30.0
    assert by_name["body.1.weight"] == 2.0
    assert by_name["out.bias"] == 1.0


def test_a_name_stands_for_whole_pieces_only():
    model = nn.ModuleDict({"fc": nn.Linear(2, 2), "fc2": nn.Linear(2, 2)})
    groups = group_parameters(model, weight_decay=0.0, groups=[GroupSpec(["fc"], 2.0), GroupSpec(["fc2.bias"], 3.0)])
    assert shown(groups) == [(("fc",), 2.0, 0.0), (("fc2.weight",), 1.0, 0.0), (("fc2.bias",), 3.0, 0.0)]


@pytest.mark.parametrize(
    ("groups", "messages"),
    [
        ([["bodi"]], ["groups[0].modules[0]: the model has no module or parameter of this name, got bodi; did you"]),
        ([[""]], ["got ''; its parts are body, attention, out"]),
        ([["zzz"]], ["got zzz; its parts are body, attention, out"]),
        ([["body.0"], ["body"]], ["groups[1].modules[0]: body.0.weight is in group 0 already"]),
        ([["body.2"], ["out"]], ["groups[1].modules[0]: out.weight is in group 0 already"]),  # a shared weight
        ([["boby"], ["outt"]], ["did you mean body?", "groups[1].modules[0]: the model has no"]),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_errors(groups, messages):
    with pytest.raises(ProblemsError) as error:
        group_parameters(Tied(), weight_decay=0.0, groups=[GroupSpec(modules) for modules in groups])
    assert len(error.value.problems) == len(messages)
    for message in messages:
        assert message in str(error.value)


def test_a_module_without_parameters_is_an_error():
    with pytest.raises(ProblemsError, match="the module 1 has no parameters; remove it"):
        group_parameters(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), weight_decay=0.0, groups=[GroupSpec(["1"])])


@pytest.mark.parametrize("type", OPTIMIZERS)
@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_those_of_torch_with_groups_by_hand(type, fused):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    ours, by_hand = make(), make()
    groups = group_parameters(
        ours, weight_decay=0.125, no_decay="norm_and_bias", groups=[GroupSpec(["2"], lr_scale=4.0)]
    )
    optimizer = build_optimizer(type, groups, device="cpu", fused=fused, lr=0.0625)
    form = {"fused": True} if fused and type in ("sgd", "adam", "adamw", "adagrad") else {}
    classes = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "rmsprop": "RMSprop"}
    classes |= {"radam": "RAdam", "adafactor": "Adafactor"}
    other = getattr(torch.optim, classes.get(type, "Adagrad"))(
        [
            {"params": [by_hand[0].weight], "lr": 0.0625, "weight_decay": 0.125},
            {"params": [by_hand[0].bias, *by_hand[1].parameters()], "lr": 0.0625, "weight_decay": 0.0},
            {"params": [by_hand[2].weight], "lr": 0.25, "weight_decay": 0.125},
            {"params": [by_hand[2].bias], "lr": 0.25, "weight_decay": 0.0},
        ],
        **form,
    )
    assert len(optimizer.param_groups) == 4
    for _ in range(5):
        set_learning_rate(optimizer, lr=0.0625, momentum=None)
        for model, one in ((ours, optimizer), (by_hand, other)):
            one.zero_grad()
            model(torch.linspace(0, 1, 32).view(8, 4)).square().sum().backward()
            one.step()
    for mine, theirs in zip(ours.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert base_learning_rate(optimizer) == 0.0625


def test_the_base_rate_where_no_parameter_has_it():
    optimizer = build_optimizer("sgd", group_parameters(nn.Linear(2, 2), weight_decay=0.0, groups=[
        GroupSpec(["weight"], 4.0), GroupSpec(["bias"], 8.0)]), device="cpu", lr=0.5)  # fmt: skip
    set_learning_rate(optimizer, lr=0.25, momentum=None)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 2.0]
    assert base_learning_rate(optimizer) == 0.25


@pytest.mark.parametrize("stop", [2, 7, 12])
@pytest.mark.parametrize("type", OPTIMIZERS)
def test_a_resumed_run_has_the_bits_of_the_whole_one(type, stop):
    changes = {
        "optimizer": {**SCALED, "type": type, "lr": 0.0078125, "groups": GROUPS},
        "scheduler": {"type": "cosine", "warmup": "3st"},
        "ema": {"decay": 0.9},
        "clip_grad_norm": 0.5,
    }
    whole = run(changes)
    half = run(changes, stop=stop)
    assert_same(whole, run(changes, resume=half))


def test_a_state_finds_its_parameters_by_name():
    """Groups that are added on a resume reorder the parameters of PyTorch's state."""
    plain = run({"optimizer": {"type": "adamw", "lr": 0.0625}}, stop=7)
    setup = build_setup(config_with({"optimizer": {**SCALED, "groups": GROUPS}}))
    state = setup.state(steps_per_epoch=7)
    state.load_state_dict(copy.deepcopy(plain))
    names = [name for name, _ in setup.model.named_parameters()]
    for name, parameter in setup.model.named_parameters():
        saved = plain["optimizer"]["state"][names.index(name)]
        assert torch.equal(state.optimizer.state[parameter]["exp_avg"], saved["exp_avg"]), name
    again = build_setup(config_with({"optimizer": {"type": "adamw", "lr": 0.0625}})).state(steps_per_epoch=7)
    again.load_state_dict(copy.deepcopy(state.state_dict()))
    assert_same(again.state_dict()["optimizer"]["state"], plain["optimizer"]["state"])


def test_a_state_without_names_is_in_the_order_of_the_model():
    """As earlier versions saved it."""
    changes = {"optimizer": {"type": "adam", "lr": 0.0625}}
    half = run(changes, stop=7)
    whole = run(changes)
    for group in half["optimizer"]["param_groups"]:
        del group["param_names"], group["lr_scale"]
    assert_same(whole, run(changes, resume=half))


def test_a_state_of_other_parameters_is_refused():
    model = nn.Linear(2, 2)
    optimizer = build_optimizer("sgd", group_parameters(model, weight_decay=0.0), device="cpu", lr=0.1)
    saved = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1).state_dict()
    with pytest.raises(ValueError, match="zip"):
        load_by_name(optimizer, saved, names=["weight", "bias"])


def test_the_log_has_the_base_rate():
    class Log(States):
        def log(self, record):
            self.records = [*getattr(self, "records", []), record]

    log = Log()
    groups = [{"modules": ["linear1"], "lr_scale": 3.0}]
    run({"optimizer": {"type": "sgd", "lr": 0.1, "groups": groups}}, states=log)
    assert {record["lr"] for record in log.records} == {0.1}
