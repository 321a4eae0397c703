"""What is frozen, bit for bit, and from which step it trains: in a whole run, and in one that resumes."""

import copy

import pytest
import torch
from digit_runs import assert_same, config_with, run
from torch import nn

from trainkit.builders import build_setup
from trainkit.engine import Freezing, frozen_until
from trainkit.errors import ProblemsError
from trainkit.models import head_prefixes

CNN = {
    "type": "cnn",
    "blocks": [{"channels": 4, "pool": 2, "dropout": 0.2}, {"channels": 4}, {"channels": 4}],
    "norm": "batch",
}
LINEAR = {"type": "Linear", "out_features": 8}
FROZEN = {"freeze": "backbone"}
# 7 steps an epoch: in the middle of the first, and at the end of the second.
THAWED = FROZEN | {
    "unfreeze": [{"at": "5st", "modules": ["blocks.2", "blocks.1.conv.bias"]}, {"at": 2, "modules": "all"}]
}
OPTIMIZERS = {
    "sgd": {"type": "sgd", "lr": 0.0625, "momentum": 0.9, "weight_decay": 0.125},
    "adam": {"type": "adam", "lr": 0.03125, "weight_decay": 0.125},
    "adamw": {"type": "adamw", "lr": 0.03125, "weight_decay": 0.125},
    "decay on a schedule": {"type": "adamw", "lr": 0.03125, "weight_decay": 0.5, "weight_decay_schedule": "flat_cos"},
    "nadam": {"type": "nadam", "lr": 0.03125, "weight_decay": 0.125, "decoupled_weight_decay": True},
    "adafactor": {"type": "adafactor", "lr": 0.03125, "weight_decay": 0.125},
    "rmsprop": {"type": "rmsprop", "lr": 0.0078125, "weight_decay": 0.125, "momentum": 0.5},
    "adagrad": {"type": "adagrad", "lr": 0.03125, "weight_decay": 0.125},
}
EXTRAS = {
    "plain": {},
    "pieces": {"accumulation_steps": 3},
    "average": {"ema": {"decay": 0.9}, "clip_grad_norm": 0.5, "clip_grad_value": 0.1},
    "skip": {"on_non_finite": "skip"},
    "bf16": {"precision": "bf16"},
    "groups": {"optimizer": OPTIMIZERS["adamw"] | {"groups": [{"modules": ["blocks.1", "head"], "lr_scale": 4.0}]}},
}


def first_state(changes):
    return copy.deepcopy(build_setup(config_with(changes)).model.state_dict())


def moved(before, after):
    """The names of what is not bit-equal."""
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(
    "changes",
    [*({"optimizer": optimizer} for optimizer in OPTIMIZERS.values()), *EXTRAS.values()],
    ids=[*OPTIMIZERS, *EXTRAS],
)
def test_a_frozen_backbone_is_bit_equal_after_three_epochs(changes):
    changes = {"model": CNN, "optimizer": OPTIMIZERS["adamw"], **changes, "fine_tuning": FROZEN}
    first, last = first_state(changes), run(changes)
    assert moved(first, last["model"]) == {"head.output.weight", "head.output.bias"}
    if changes["optimizer"]["type"] != "adagrad":  # it makes its state before the first step
        assert len(last["optimizer"]["state"]) == 2
    if last["ema"] is not None:
        assert moved(first, last["ema"]["model"]) == {"head.output.weight", "head.output.bias"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_modules_train_from_their_step_on_and_not_before(extra):
    changes = {"model": CNN, "optimizer": OPTIMIZERS["adamw"], **EXTRAS[extra], "fine_tuning": THAWED}
    first = first_state(changes)
    at = {stop: run(changes, stop=stop)["model"] for stop in (5, 6, 14, 15)}
    head = {"head.output.weight", "head.output.bias"}
    block = {name for name in first if name.startswith("blocks.2.")} | {"blocks.1.conv.bias"}
    assert moved(first, at[5]) == head
    assert moved(first, at[6]) - {"blocks.2.conv.bias"} == head | block - {"blocks.2.conv.bias"}
    assert not any(name.startswith(("blocks.0", "blocks.1.norm")) for name in moved(first, at[14]))
    assert {"blocks.0.conv.weight", "blocks.0.norm.running_mean", "blocks.1.conv.weight"} <= moved(first, at[15])


@pytest.mark.parametrize("stop", [4, 5, 6, 7, 13, 14, 15, 20])
@pytest.mark.parametrize("name", ["sgd", "adamw", "decay on a schedule"])
def test_a_run_that_resumes_around_an_unfreezing_has_the_bits_of_the_whole_one(name, stop):
    changes = {"model": CNN, "optimizer": OPTIMIZERS[name], "ema": {"decay": 0.9}, "fine_tuning": THAWED}
    resumed = run(changes, resume=run(changes, stop=stop))
    assert_same(run(changes), resumed)


@pytest.mark.slow
def test_a_compiled_run_trains_what_is_unfrozen(tmp_path):
    def trained(stop=None, resume=None):
        torch.compiler.reset()
        changes = {"model": CNN, "compile": True, "fine_tuning": THAWED}
        said = []
        state = run(changes, plan_of=lambda setup: setup.plan(say=said.append), stop=stop, resume=resume)
        assert said == []
        return state

    whole = trained()
    assert "blocks.0.conv.weight" in moved(trained(stop=14)["model"], whole["model"])
    for stop in (5, 15):
        assert_same(whole, trained(resume=trained(stop=stop)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_where_the_config_freezes_something_else(name):
    changes = {"model": CNN, "optimizer": OPTIMIZERS[name]}
    half = run({**changes, "fine_tuning": THAWED}, stop=8)
    for fine_tuning in ({}, {"freeze": ["blocks.0"]}):
        last = run({**changes, "fine_tuning": fine_tuning}, resume=half)
        assert ("blocks.0.conv.weight" in moved(half["model"], last["model"])) == (not fine_tuning)
        assert all(torch.isfinite(value).all() for value in last["model"].values())


class Net(nn.Module):
    """Parts whose modes differ: dropout in front, between and behind layers, and a parameter of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.fixed = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.front = nn.Dropout()
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
        self.body = nn.Sequential(nn.Dropout(), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.rest = nn.Dropout()
        self.fc = nn.Sequential(nn.Dropout(), nn.Linear(4, 2))


def in_training(model):
    return {name for name, module in model.named_modules() if module.training and not any(module.children())}


def test_the_modes_of_layers_follow_what_is_frozen():
    model = Net()
    until = frozen_until(model, freeze="backbone", unfreeze=[["body.3", "body.4"], "all"])
    assert until == {
        name: 0 if name.startswith(("body.3", "body.4")) else 1
        for name, _ in model.named_parameters()
        if not name.startswith(("fc", "fixed"))
    }
    freezing = Freezing({name: (10, 20)[number] for name, number in until.items()})
    freezing.apply(model, 9)
    assert in_training(model) == {"rest", "fc.0", "fc.1"}
    freezing.apply(model, 10)
    assert in_training(model) == {"body.2", "body.3", "body.4", "rest", "fc.0", "fc.1"}
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        *(f"body.{layer}.{name}" for layer in (3, 4) for name in ("weight", "bias")),
        "fc.1.weight",
        "fc.1.bias",
    ]
    freezing.apply(model, 20)
    assert len(in_training(model)) == len([m for m in model.modules() if not any(m.children())])
    assert not model.fixed.requires_grad


@pytest.mark.parametrize(
    ("batch_norm", "step", "moving"),
    [
        ("auto", 0, set()),
        ("auto", 10, {"body.4"}),
        ("train", 0, {"stem.1", "body.4"}),
        ("frozen", 10, set()),
        ("frozen", 20, set()),
    ],
)
def test_statistics_of_batch_norm(batch_norm, step, moving):
    model = Net()
    until = frozen_until(model, freeze="backbone", unfreeze=[["body"]])
    Freezing({name: None if end is None else 10 for name, end in until.items()}, batch_norm).apply(model, step)
    assert in_training(model) & {"stem.1", "body.4"} == moving


def test_statistics_that_move_though_their_layers_are_frozen():
    changes = {"model": CNN, "fine_tuning": FROZEN | {"batch_norm": "train"}}
    names = moved(first_state(changes), run(changes)["model"])
    assert "blocks.0.norm.running_mean" in names
    assert "blocks.0.norm.weight" not in names


def test_statistics_that_stay_though_nothing_is_frozen():
    changes = {"model": CNN, "fine_tuning": {"batch_norm": "frozen"}}
    names = moved(first_state(changes), run(changes)["model"])
    assert "blocks.0.norm.weight" in names
    assert not any("running" in name for name in names)


@pytest.mark.parametrize(
    ("freeze", "unfreeze", "messages"),
    [
        (["stemm"], [], ["fine_tuning.freeze[0]: the model has no module or parameter of this name, got stemm;"]),
        (["stem", "rest"], [], ["fine_tuning.freeze[1]: the module rest has no parameters; remove it"]),
        (["token", "stem", "body", "fc"], [], ["fine_tuning.freeze: all parameters are frozen at first, so that"]),
        (["fixed"], [], ["fine_tuning.freeze: the model itself does not train what is named here; remove it"]),
        (["stem"], [["body"]], ["fine_tuning.unfreeze[0].modules[0]: it is not frozen; remove it"]),
        (["stem"], [["stem", "fcc"]], ["fine_tuning.unfreeze[0].modules[1]: the model has no", "did you mean fc?"]),
        ("backbone", [["stem"], ["stem.0"]], ["unfreeze[1].modules[0]: it is unfrozen by unfreeze[0] already"]),
        ("backbone", ["all", "all"], ["fine_tuning.unfreeze[1].modules: nothing is frozen any more; remove it"]),
        (["nothing", "body."], [["stem"]], ["freeze[0]: the model has no", "freeze[1]: the model has no"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_an_error(freeze, unfreeze, messages):
    with pytest.raises(ProblemsError) as error:
        frozen_until(Net(), freeze=freeze, unfreeze=unfreeze)
    for message in messages:
        assert message in str(error.value)


def test_a_model_without_a_backbone_is_an_error():
    with pytest.raises(ProblemsError, match="all that it trains is in its head"):
        frozen_until(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), freeze="backbone")


def test_a_part_may_be_unfrozen_before_the_rest_of_its_module():
    until = frozen_until(Net(), freeze=["body"], unfreeze=[["body.4.bias"], ["body"]])
    assert (until["body.4.bias"], until["body.4.weight"]) == (0, 1)


def test_a_shared_weight_is_frozen_by_each_of_its_names():
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False), "c": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    assert frozen_until(model, freeze=["b"]) == {"a.weight": None}


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (CNN, ("head",)),
        ({"type": "mlp", "hidden_sizes": [8, 8]}, ("output",)),
        ({"type": "sequential", "layers": ["Flatten", LINEAR, "ReLU", "Linear"]}, ("3",)),
    ],
)  # fmt: skip
def test_the_head_of_each_model(model, head):
    assert head_prefixes(build_setup(config_with({"model": model})).model) == head


def test_the_head_of_modules_of_any_kind():
    assert head_prefixes(Net()) == ("fc",)
    assert head_prefixes(nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), nn.ReLU())) == (
        "0.2",
    )
    own = Net()
    own.head_prefixes = ("body.3", "fc")
    assert head_prefixes(own) == ("body.3", "fc")


def test_a_checkpoint_holds_no_state_of_it():
    assert run({"model": CNN, "fine_tuning": THAWED}, stop=1).keys() == run({"model": CNN}, stop=1).keys()
