"""Sick models are planted, one sickness at a time; a healthy one gets no flag."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainkit.config import load_config
from trainkit.engine.losses import build_loss
from trainkit.findings.layer_stats import diagnose
from trainkit.models.mlp import build_mlp
from trainkit.models.summary import layer_table
from trainkit.workflows.inspect import inspect_config

CONFIGS = Path(__file__).parents[2] / "configs"
WITHOUT_DOWNLOAD = ["digits_cnn", "digits_mlp", "iris_mlp", "breast_cancer_mlp", "diabetes_mlp", "synthetic_binary"]


def kinds(name: str, *overrides: str) -> list[tuple[str, str]]:
    found = inspect_config(load_config(CONFIGS / f"{name}.yaml", overrides=overrides), batch=True)
    assert found.diagnosis is not None
    return [(flag.kind, flag.key) for flag in found.diagnosis.flags]


def planted(model: nn.Module, *, inputs: torch.Tensor | None = None):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 10, generator=generator) if inputs is None else inputs
    targets = torch.arange(64) % 3
    rows = layer_table(model, (10,))
    return diagnose(model, inputs, targets, loss=build_loss("cross_entropy"), rows=rows, kind="table")


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return build_mlp((10,), 3, hidden_sizes=(32, 32))


@pytest.mark.parametrize("name", WITHOUT_DOWNLOAD)
def test_shipped_configs_are_healthy(name: str) -> None:
    assert kinds(name) == []


def test_a_healthy_model_gets_no_flag() -> None:
    assert planted(small_model()).flags == ()


def test_inputs_that_are_not_normalised() -> None:
    assert kinds("breast_cancer_mlp", "transforms=[]") == [("inputs", "transforms")]


def test_images_far_off_centre() -> None:
    assert kinds("digits_cnn", "transforms=[{type: normalize, mean: [0.9], std: [0.1]}]") == [("inputs", "transforms")]


def test_the_worst_column_is_named() -> None:
    found = inspect_config(load_config(CONFIGS / "breast_cancer_mlp.yaml", overrides=["transforms=[]"]), batch=True)
    assert found.diagnosis is not None
    assert "worst area" in found.diagnosis.flags[0].message
    assert "add standardize" in found.diagnosis.flags[0].message


def test_dead_units() -> None:
    model = small_model()
    with torch.no_grad():
        model.get_submodule("linear2").bias[:20] = -100.0
    flags = planted(model).flags
    assert [(flag.kind, flag.key) for flag in flags] == [("dead", "model.activation")]
    assert "of 32 ReLU units of activation2" in flags[0].message


def test_vanishing_gradients() -> None:
    deep = "model.hidden_sizes=[32, 32, 32, 32, 32, 32, 32, 32]"
    assert kinds("digits_mlp", deep, "model.activation=sigmoid") == [("vanishing", "model.hidden_sizes[0]")]


def test_exploding_gradients() -> None:
    overrides = ["model.hidden_sizes=[32, 32, 32, 32]", "model.init={type: xavier_normal, gain: 10}"]
    assert [kind for kind, _ in kinds("digits_mlp", *overrides)] == ["exploding"]


def test_values_to_predict_that_are_out_of_scale() -> None:
    assert [kind for kind, _ in kinds("diabetes_mlp", "loss=mse")] == ["exploding"]


def test_outputs_that_are_not_finite() -> None:
    model = small_model()
    with torch.no_grad():
        model.get_submodule("linear2").weight.fill_(float("inf"))
    flags = planted(model).flags
    assert [(flag.kind, flag.key) for flag in flags if flag.kind != "dead"] == [("non-finite", "model.hidden_sizes[1]")]


def test_activities_are_those_of_the_layers() -> None:
    model = small_model()
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    first = torch.relu(model.get_submodule("linear1")(inputs)).detach()
    seen = planted(model, inputs=inputs).activities
    assert seen["activation1"].mean == pytest.approx(first.mean().item())
    assert seen["activation1"].std == pytest.approx(first.std(correction=0).item())
    assert seen["activation1"].zeros == pytest.approx((first == 0).float().mean().item())
    assert seen["activation1"].grad_norm is None
    loss = nn.functional.cross_entropy(model(inputs), torch.arange(64) % 3)
    grads = torch.autograd.grad(loss, list(model.get_submodule("linear1").parameters()))
    assert seen["linear1"].grad_norm == pytest.approx(torch.cat([grad.flatten() for grad in grads]).norm().item())


def test_nothing_is_left_in_the_model() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    planted(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
