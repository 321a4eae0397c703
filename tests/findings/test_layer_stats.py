"""Models with one planted fault each get its flag; a healthy one gets none."""

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


def test_inputs_that_are_not_normalized() -> None:
    assert kinds("breast_cancer_mlp", "transforms=[]") == [("inputs", "transforms")]


def test_images_far_off_center() -> None:
    """normalize is there already, with the statistics of something else."""
    config = load_config(
        CONFIGS / "digits_cnn.yaml", overrides=["transforms=[{type: normalize, mean: [0.9], std: [0.1]}]"]
    )
    found = inspect_config(config, batch=True)
    assert found.diagnosis is not None
    [flag] = found.diagnosis.flags
    assert (flag.kind, flag.key) == ("inputs", "transforms")
    assert "set mean and std of normalize to auto" in flag.message
    assert "add normalize" not in flag.message


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
    assert [kind for kind, _ in kinds("diabetes_mlp", "loss=mse", "dataset.scale_target=false")] == ["exploding"]


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


def test_a_relu_that_works_in_place_does_not_change_the_numbers_of_the_layer_before_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    hidden = model[0](inputs).detach().clone()
    seen = planted(model, inputs=inputs).activities
    for name, values in (("0", hidden), ("1", hidden.relu()), ("2", model[2](hidden.relu()).detach())):
        assert seen[name].mean == pytest.approx(values.double().mean().item()), name
        assert seen[name].std == pytest.approx(values.double().std(correction=0).item()), name
        assert seen[name].zeros == pytest.approx((values == 0).double().mean().item()), name


class Recurrent(nn.Module):
    """One linear layer, three times; the result of an attention, which is a tuple; and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(10))
        self.hidden, self.attention = nn.Linear(10, 10), nn.MultiheadAttention(10, 2)
        self.output = nn.Linear(10, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            rows = torch.tanh(self.hidden(rows + self.shift))
        return self.output(self.attention(rows, rows, rows)[0])


def test_each_call_has_its_own_numbers_and_each_gradient_counts_once() -> None:
    torch.manual_seed(0)
    model = Recurrent()
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    seen = planted(model, inputs=inputs).activities
    rows = inputs
    for name in ("hidden", "hidden (call 2)", "hidden (call 3)"):
        made = model.hidden(rows + model.shift)
        assert seen[name].mean == pytest.approx(made.mean().item(), rel=1e-5), name
        rows = torch.tanh(made)
    attended = model.attention(rows, rows, rows)[0]
    assert seen["attention"].mean == pytest.approx(attended.mean().item(), rel=1e-4)
    loss = nn.functional.cross_entropy(model.output(attended), torch.arange(64) % 3)
    loss.backward()
    assert seen[""].grad_norm == pytest.approx(model.shift.grad.norm().item(), rel=1e-5)
    grads = [parameter.grad for parameter in model.attention.parameters()]
    assert seen["attention"].grad_norm == pytest.approx(nn.utils.get_total_norm(grads).item(), rel=1e-5)


def test_layers_of_many_calls_in_a_residual_network() -> None:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    model = resnet50(num_classes=3)
    images = torch.randn(4, 3, 64, 64)
    rows = layer_table(model, (3, 64, 64))
    seen = diagnose(model, images, torch.arange(4) % 3, loss=build_loss("cross_entropy"), rows=rows, kind="image")
    assert list(seen.activities) == [row.name for row in rows]
    convolved = model.conv1(images)
    assert seen.activities["conv1"].mean == pytest.approx(convolved.mean().item(), abs=1e-6)
    normed = nn.functional.batch_norm(convolved, None, None, model.bn1.weight, model.bn1.bias, training=True)
    assert seen.activities["bn1"].zeros == 0.0
    assert seen.activities["bn1"].std == pytest.approx(normed.std(correction=0).item(), rel=1e-5)
    assert seen.activities["relu"].mean == pytest.approx(normed.relu().mean().item(), rel=1e-5)
