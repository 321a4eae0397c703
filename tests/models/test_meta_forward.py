"""Forward passes without values: any module, its calls in order, and nothing left behind."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn

from trainkit.errors import ProblemsError
from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.meta_forward import meta_forward, output_shape


class Odd(nn.Module):
    def forward(self, rows):
        return rows @ torch.zeros(3, 3)


class Two(nn.Module):
    def forward(self, rows):
        return rows, rows


class Looks(nn.Module):
    """Its path depends on a value, and it holds a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 6), torch.ones(6)

    def forward(self, rows):
        rows = self.layer(rows) * self.scale
        return rows if torch.rand(1).item() > 2 else rows[:, :5]


def test_a_layer_of_somebody_else_runs_without_memory():
    assert output_shape(Odd(), (1_000_000_000, 3), key="model") == (1_000_000_000, 3)
    with pytest.raises(ProblemsError, match=r"model.x: Odd does not take its input \(N, 4\): "):
        output_shape(Odd(), (2, 4), key="model.x")
    with pytest.raises(ProblemsError, match="Two returns tuple; a layer has to return one tensor"):
        output_shape(Two(), (2, 4), key="model.x")


def test_the_layer_that_fails_is_named_not_the_one_around_it():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Odd(), nn.ReLU()))
    with pytest.raises(ProblemsError, match=r"^model: Odd does not take its input \(N, 4\): "):
        meta_forward(model, (2, 4))
    with pytest.raises(ProblemsError, match=r"Linear does not take its input: it takes one tensor, but got tuple"):
        meta_forward(nn.Sequential(Two(), nn.Linear(4, 4)), (2, 4))


def test_a_forward_that_looks_at_values_runs_on_the_cpu():
    model = Looks()
    before = torch.get_rng_state()
    forward = meta_forward(model, (2, 4))
    assert forward.output_shape == (2, 5)
    assert [call.name for call in forward.calls] == ["", "layer"]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_left_as_it_was():
    model = build_cnn((1, 8, 8), 3, blocks=[BlockSpec(4, residual=True)], norm="batch").eval()
    model.blocks.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    for shape in ((2, 1, 8, 8), (2, 3, 8, 8)):
        try:
            meta_forward(model, shape)
        except ProblemsError:
            assert shape[1] == 3
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == modes
        for module in model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert "forward" not in vars(module)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v3_small", "vit_b_16", "swin_t"])
def test_the_calls_are_those_of_a_real_run(name):
    from torchvision import models

    model = getattr(models, name)(num_classes=7)
    size = 224 if name == "vit_b_16" else 64
    real: list = []
    for layer_name, layer in model.named_modules():
        layer.register_forward_hook(
            lambda layer, inputs, output, layer_name=layer_name: real.append(
                (layer_name, tuple((output[0] if isinstance(output, tuple) else output).shape))
            )
        )
    with torch.no_grad():
        model(torch.zeros(2, 3, size, size))
    expected = Counter(real)
    seen = [
        (call.name, tuple((call.output[0] if isinstance(call.output, tuple) else call.output).shape))
        for call in meta_forward(model, (2, 3, size, size)).calls
    ]
    assert Counter(seen) == expected
    assert seen[0] == ("", (2, 7))


def test_known_layers_spare_the_start_the_compiler():
    """A first kernel on the meta device imports for more than a second."""
    code = """
import sys, torch
from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.summary import check_output, check_shapes, layer_table
with torch.device("meta"):
    model = build_cnn((1, 8, 8), 3, blocks=[BlockSpec(4, pool=2, residual=True)], norm="batch", global_pool="avg")
layer_table(model, (1, 8, 8)), check_shapes(model, (1, 8, 8))
check_output(model, (1, 8, 8), output_size=3)
print({"sympy", "torch._dynamo", "torch.utils.flop_counter"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
