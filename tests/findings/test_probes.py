import math

import pytest
import torch
from torch import nn

from trainkit.data.loading.resident import Batch
from trainkit.engine.losses import build_loss
from trainkit.findings.facts import facts_before_training
from trainkit.findings.probes import SilentUnits, count_silent_units
from trainkit.models import BlockSpec, build_cnn


def model_for(loss, inputs, width):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs[0].numel(), width), nn.Sigmoid() if loss == "bce" else nn.Identity()
    )


def facts(loss, inputs, targets, *, model=None, num_classes=0, **knobs):
    width = num_classes if loss in ("cross_entropy", "nll") else targets[:1].numel()
    return facts_before_training(
        [Batch(inputs, targets, torch.arange(len(targets)))],
        model=model or model_for(loss, inputs, width),
        loss=build_loss(loss),
        targets=targets,
        num_classes=num_classes,
        num_samples={"train": len(targets)},
        **knobs,
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "nll"])
def test_the_loss_of_knowing_nothing_is_the_entropy_of_the_classes(loss):
    found = facts(loss, torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), num_classes=2)
    assert found["constant_loss"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found["zero_loss"] == pytest.approx(math.log(2))
    assert found["majority_share"] == 0.75


@pytest.mark.parametrize("loss", ["bce", "bce_with_logits"])
def test_two_classes_with_one_output(loss):
    found = facts(loss, torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), num_classes=2)
    assert found["constant_loss"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), abs=1e-5)
    assert found["zero_loss"] == pytest.approx(math.log(2))


def test_a_regression_knows_nothing_at_its_mean_or_at_zero():
    found = facts("mse", torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]))
    assert (found["constant_loss"], found["zero_loss"]) == (1.0, 5.0)
    assert "majority_share" not in found


def test_the_scale_of_columns_and_channels():
    inputs = torch.tensor([[3.0, 0.0, 100.0], [-3.0, 0.0, 100.0]])
    scale = facts("mse", inputs, torch.zeros(2, 1), quantities=("a", "zero", "salary"))["input_scale"]
    assert scale == {
        "smallest": "a",
        "smallest_rms": 3.0,
        "largest": "salary",
        "largest_rms": 100.0,
        "widest": "a",
        "widest_mean": 0.0,
        "widest_std": 3.0,
        "least_offset": 0.0,
    }
    images = torch.ones(2, 3, 4, 4) * torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    scale = facts("mse", images, torch.zeros(2, 1))["input_scale"]
    assert (scale["smallest"], scale["largest"], scale["largest_rms"]) == ("channel 0", "channel 2", 4.0)


def test_dead_units_are_those_that_no_sample_wakes():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([0.0, -100.0]))
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([-1.0, 1.0, -1.0]))
    with count_silent_units(model) as found:
        model(torch.zeros(2, 1, 2, 2))
        model(torch.ones(2, 1, 2, 2))
        result = found()
    assert [(layer.name, layer.dead, layer.total) for layer in result] == [("1", 1, 2), ("4", 2, 3)]
    model(torch.ones(1, 1, 2, 2))
    assert not model[1]._forward_hooks, "the layers are left as they were"


def test_the_first_samples_only_of_each_block():
    model = nn.Sequential(nn.Linear(1, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0], [0.0]]))
        model[0].bias.zero_()
    units = SilentUnits(model)
    with units.watched(most=3):
        for batch in (torch.ones(2, 1), torch.tensor([[1.0], [-1.0]]), -torch.ones(2, 1)):
            model(batch)
    assert [(layer.dead, layer.total, layer.seen) for layer in units.result()] == [(2, 3, 3)]
    with units.watched(most=1):
        model(-torch.ones(2, 1))
    assert [(layer.dead, layer.total, layer.seen) for layer in units.result()] == [(1, 3, 4)]


def test_units_inside_a_residual_block_are_named_by_its_config_key():
    torch.manual_seed(0)
    model = build_cnn((1, 6, 6), 3, blocks=[BlockSpec(10, convs=2, residual=True)]).eval()
    with torch.no_grad():
        model.blocks[0].residual.branch.conv1.bias[:7] = -100
        model.blocks[0].residual.branch.conv2.bias[:] = 1
    with torch.no_grad(), count_silent_units(model) as found:
        model(torch.randn(64, 1, 6, 6))
        result = [(layer.name, layer.key, layer.dead, layer.total) for layer in found()]
    assert result == [
        ("blocks.0.residual.branch.activation1", "model.blocks[0]", 7, 10),
        ("blocks.0.activation2", "model.blocks[0]", 0, 10),
    ]


def test_each_call_of_a_layer_has_its_own_units():
    """torchvision's Bottleneck calls one ReLU on two widths."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    model = resnet50(num_classes=5).eval()
    with torch.no_grad():
        model.layer1[0].bn1.bias[:7] = -100.0
        model.layer1[0].bn2.bias[:11] = -100.0
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad(), count_silent_units(model) as found:
        for image in images.split(1):
            model(image)
        result = {layer.name: layer for layer in found()}

    block, outputs = model.layer1[0], []
    with torch.no_grad():
        before = model.maxpool(torch.relu(model.bn1(model.conv1(images))))
        outputs.append(torch.relu(block.bn1(block.conv1(before))))
        outputs.append(torch.relu(block.bn2(block.conv2(outputs[-1]))))
        outputs.append(torch.relu(block.bn3(block.conv3(outputs[-1])) + block.downsample(before)))
    names = ["layer1.0.relu", "layer1.0.relu (call 2)", "layer1.0.relu (call 3)"]
    for name, output in zip(names, outputs, strict=True):
        silent = int((output.amax(dim=(0, 2, 3)) == 0).sum())
        assert (result[name].dead, result[name].total, result[name].seen) == (silent, output.shape[1], 3), name
    assert [result[name].total for name in names] == [64, 64, 256]
    assert result[names[0]].dead >= 7
    assert result[names[1]].dead >= 11
    assert len(result) == 1 + 3 * 16


def test_the_scale_of_the_target_that_is_farthest_off():
    targets = torch.tensor([[1.0, 5e5, 3.0], [-1.0, 3e5, 3.0]])
    found = facts("mse", torch.randn(2, 1), targets, target_names=("a", "price", "same"))
    assert found["target_scale"] == {"name": "price", "mean": 4e5, "std": 1e5}
    tiny = torch.tensor([[1.0, 1e-6], [-1.0, -1e-6]])
    assert facts("mse", torch.randn(2, 1), tiny, target_names=("a", "b"))["target_scale"]["name"] == "b"


@pytest.mark.parametrize("inputs", [torch.full((5, 3), 2.0), torch.arange(12.0).expand(5, 12).reshape(5, 3, 2, 2)])
def test_identical_inputs_are_counted(inputs):
    assert facts("mse", inputs, torch.zeros(5, 1))["identical_inputs"] == 5
    other = inputs.clone()
    other.flatten()[-1] += 1e-3
    assert facts("mse", other, torch.zeros(5, 1))["identical_inputs"] == 0
    assert facts("mse", inputs[:1], torch.zeros(1, 1))["identical_inputs"] == 0, "one sample is no sign"


def test_the_untrained_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 1))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = facts("mse", torch.zeros(8, 3), torch.ones(8, 1), model=model, piece_size=3)["first_outputs"]
    assert found["silent"] == [["1", found["silent"][0][1], 9, 9]]
    assert (found["spread"], found["samples"]) == (0.0, 8)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
