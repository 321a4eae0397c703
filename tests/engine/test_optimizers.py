import pytest
import torch
from torch import nn

from trainkit.engine.optimizers import build_optimizer
from trainkit.runtime import take_step

CASES = [
    ("sgd", torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "dampening": 0.0}),
    ("sgd", torch.optim.SGD, {"lr": 0.05}),
    ("adam", torch.optim.Adam, {"lr": 0.01, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True}),
    ("adamw", torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    ("nadam", torch.optim.NAdam, {"lr": 0.01, "betas": [0.8, 0.9], "weight_decay": 0.1, "momentum_decay": 0.01}),
    ("nadam", torch.optim.NAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("radam", torch.optim.RAdam, {"lr": 0.05, "betas": [0.8, 0.9], "weight_decay": 0.1, "eps": 1e-6}),
    ("radam", torch.optim.RAdam, {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("adafactor", torch.optim.Adafactor, {"lr": 0.1, "eps": [1e-6, 0.01], "weight_decay": 0.1, "d": 2.0}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True}),
    ("adagrad", torch.optim.Adagrad, {"lr": 0.01, "lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("lbfgs", torch.optim.LBFGS, {"lr": 0.1, "max_iter": 5, "max_eval": None, "line_search_fn": "strong_wolfe"}),
]


def trained(make, steps=10):
    """The weights of a small network after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs, targets = torch.randn(32, 6), torch.randint(3, (32,))
    optimizer = make(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("type", "torch_class", "knobs"), CASES)
def test_steps_are_bitwise_those_of_torch(type, torch_class, knobs):
    with_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in knobs.items()}
    ours = trained(lambda params: build_optimizer(type, params, device="cpu", **knobs))
    assert torch.equal(ours, trained(lambda params: torch_class(params, **with_tuples)))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("type", "torch_class", "knobs"), CASES[:-1])
def test_a_bare_step_is_a_step(type, torch_class, knobs, fused):
    def bare(params):
        optimizer = build_optimizer(type, params, device="cpu", fused=fused, **knobs)
        optimizer.step = lambda closure: (closure(), take_step(optimizer))
        return optimizer

    whole = trained(lambda params: build_optimizer(type, params, device="cpu", fused=fused, **knobs))
    assert torch.equal(trained(bare), whole)


@pytest.mark.parametrize(("type", "torch_class", "knobs"), CASES)
def test_fused_steps_are_close(type, torch_class, knobs):
    fused = trained(lambda params: build_optimizer(type, params, device="cpu", fused=True, **knobs))
    plain = trained(lambda params: build_optimizer(type, params, device="cpu", **knobs))
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:1", torch.device("cuda")])
@pytest.mark.parametrize("type", ["sgd", "adam", "adamw", "adagrad"])
def test_kernels_are_fused_on_cuda_only(type, device):
    optimizer = build_optimizer(type, [nn.Parameter(torch.zeros(1))], device=device, lr=0.1)
    exists = type != "adagrad"  # PyTorch 2.11 has none for CUDA
    assert (optimizer.defaults["fused"] is True) == (exists and torch.device(device).type == "cuda")


def test_all_parameters_are_in_one_group():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = build_optimizer("adamw", model.parameters(), device="cpu", lr=0.1)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
