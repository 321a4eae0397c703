import math

import pytest
import torch
from torch import nn

from trainkit.data.loading.resident import Batch
from trainkit.engine.losses import build_loss
from trainkit.findings.probes import count_silent_units, facts_before_training


def facts(loss, inputs, targets, **knobs):
    batch = Batch(inputs, targets, torch.arange(len(targets)))
    known = {"num_classes": 0, "num_samples": {"train": len(targets)}, "feature_names": (), **knobs}
    return facts_before_training([batch], loss=build_loss(loss), targets=targets, **known)


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
    scale = facts("mse", inputs, torch.zeros(2, 1), feature_names=("a", "zero", "salary"))["input_scale"]
    assert scale == {"smallest": "a", "smallest_rms": 3.0, "largest": "salary", "largest_rms": 100.0}
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
