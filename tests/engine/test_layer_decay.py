"""Learning rates by layer: the formula, and timm's own factors."""

import pytest
import torch
from digit_runs import config_with, run
from torch import nn

from trainkit.builders import build_setup, parameter_groups
from trainkit.engine import group_parameters, layer_scales
from trainkit.engine.layer_decay import layers_of

CNN = {
    "type": "cnn",
    "blocks": [{"channels": 4, "pool": 2}, {"channels": 4, "convs": 2}, {"channels": 4, "residual": True}],
}
CNN |= {"norm": "batch", "head_sizes": [8]}


def factors_of_timm(model, decay):
    optim = pytest.importorskip("timm.optim")
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = optim.param_groups_layer_decay(model, layer_decay=decay)
    return {names[parameter]: group["lr_scale"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "tf_efficientnet_lite0"])
def test_networks_of_timm_have_its_factors(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    ours = {name: scale for group in groups_of(model, 0.75) for name, scale in group.items()}
    assert ours == factors_of_timm(model, 0.75)
    assert len(set(ours.values())) > 5


def groups_of(model, decay):
    groups = group_parameters(model, weight_decay=0.05, no_decay="norm_and_bias", scales=layer_scales(model, decay))
    return [dict.fromkeys(group.parameters, group.lr_scale) for group in groups]


def test_resnet18_of_torchvision_has_the_factors_of_timm():
    timm, models = pytest.importorskip("timm"), pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        assert layer_scales(models.resnet18(), 0.75) == factors_of_timm(timm.create_model("resnet18"), 0.75)


def test_a_transformer_of_torchvision_has_a_layer_for_each_block():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        layers = layers_of(models.vit_b_16())
    assert {layers[name] for name in ("class_token", "conv_proj.weight", "encoder.pos_embedding")} == {0}
    assert [layers[f"encoder.layers.encoder_layer_{at}.mlp.0.weight"] for at in range(12)] == list(range(1, 13))
    assert layers["encoder.ln.weight"] == 12
    assert layers["heads.head.weight"] == 13


def test_blocks_of_a_cnn():
    layers = layers_of(build_setup(config_with({"model": CNN})).model)
    assert {name.split(".")[0] + name.split(".")[1]: layer for name, layer in layers.items()} == {
        "blocks0": 0,
        "blocks1": 1,
        "blocks2": 2,
        "headlinear1": 3,
        "headoutput": 3,
    }


def test_layers_of_an_mlp():
    layers = layers_of(
        build_setup(config_with({"model": {"type": "mlp", "hidden_sizes": [8, 8], "norm": "batch"}})).model
    )
    assert layers == {
        **dict.fromkeys(["linear1.weight", "linear1.bias", "norm1.weight", "norm1.bias"], 0),
        **dict.fromkeys(["linear2.weight", "linear2.bias", "norm2.weight", "norm2.bias"], 1),
        **dict.fromkeys(["output.weight", "output.bias"], 2),
    }


def test_factors_of_groups_are_multiplied():
    groups = [{"modules": ["linear1"], "lr_scale": 10.0}]
    config = config_with({"optimizer": {"type": "adamw", "layer_decay": 0.5, "groups": groups}})
    found = parameter_groups(config, build_setup(config).model)
    assert {group.modules: group.lr_scale for group in found} == {("linear1",): 5.0, ("norm1",): 0.5, ("output",): 1.0}


def test_a_model_that_is_all_head():
    assert set(layer_scales(nn.Linear(2, 2), 0.5).values()) == {1.0}


def test_the_lower_layers_move_less():
    changes = {"optimizer": {"type": "sgd", "lr": 0.0625, "layer_decay": 0.125}}
    first = build_setup(config_with(changes)).model.state_dict()
    plain = run({"optimizer": {"type": "sgd", "lr": 0.0625}}, stop=1)["model"]
    decayed = run(changes, stop=1)["model"]
    moved, less = (state["linear1.weight"] - first["linear1.weight"] for state in (plain, decayed))
    torch.testing.assert_close(less, moved * 0.125, rtol=1e-3, atol=1e-7)
    assert torch.equal(plain["output.weight"], decayed["output.weight"])
