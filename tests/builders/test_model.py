"""The model of a config against the same network written by hand."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainkit.builders.data import load_source
from trainkit.builders.model import build_model, loss_name
from trainkit.builders.setup import build_setup
from trainkit.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


class BasicBlock(nn.Module):
    """As torchvision writes it."""

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = nn.Sequential()
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class ResNet18(nn.Module):
    """With a first convolution of 3 x 3 and no max pool, for images of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        self.layers = nn.Sequential(*(BasicBlock(a, b, b // a) for a, b in pairwise(widths)))
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(torch.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def test_the_shipped_resnet18_computes_as_the_one_written_by_hand() -> None:
    loaded = load_config(CONFIGS / "cifar10_resnet18.yaml")
    model = build_model(loaded.config, input_shape=(3, 32, 32), output_size=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    torch.manual_seed(0)
    by_hand = ResNet18()
    ours, theirs = model.state_dict(), by_hand.state_dict()
    assert [tensor.shape for tensor in ours.values()] == [tensor.shape for tensor in theirs.values()]
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(model(images), by_hand(images))  # in training, which moves the running statistics
    torch.testing.assert_close(model.eval()(images), by_hand.eval()(images))


def test_the_shipped_resnet18_takes_25_lines() -> None:
    lines = (CONFIGS / "cifar10_resnet18.yaml").read_text().splitlines()
    assert sum(1 for line in lines if line and not line.startswith("#")) <= 25


def test_a_whitening_convolution_depends_on_seed_and_training_images_alone() -> None:
    blocks = [{"channels": 6, "kernel_size": 2, "padding": "valid"}, {"channels": 6}]
    config = load_config({"dataset": "digits", "model": {"type": "cnn", "init": "whiten", "blocks": blocks}}).config
    first, second = build_setup(config), build_setup(config)
    torch.rand(3)
    first.suit_weights()
    second.suit_weights()
    for (name, ours), theirs in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    [batch] = first.sample_batches(batch_size=len(first.data.splits["train"]), device=torch.device("cpu")).epoch(0)
    convolution = next(layer for layer in first.model.modules() if isinstance(layer, nn.Conv2d))
    values = convolution(batch.inputs)[:, :3].transpose(0, 1).flatten(1).detach()
    torch.testing.assert_close(values @ values.T / values.shape[1], torch.eye(3), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("num_targets", "loss", "scale_target", "expected"),
    [
        (1, "{type: huber, delta: 2.0}", "true", "as asked for; delta 2 is 0.61 standard deviations of the target"),
        (1, "{type: smooth_l1, beta: 2.0}", "true", "as asked for; beta 2 is 0.61 standard deviations of the target"),
        (2, "{type: huber, delta: 2.0}", "true", "as asked for; delta is 2 standard deviations of each target"),
        (1, "{type: huber, delta: 2.0}", "false", "as asked for"),
        (1, "mse", "true", "as asked for"),
    ],
)
def test_the_turning_point_of_a_loss_in_standard_deviations(
    tmp_path: Path, num_targets: int, loss: str, scale_target: str, expected: str
) -> None:
    path = tmp_path / "config.yaml"
    problem = f"{{type: linear_regression, num_targets: {num_targets}}}"
    path.write_text(
        f"dataset: {{type: synthetic, problem: {problem}, scale_target: {scale_target}}}\n"
        f"model: {{type: mlp}}\nloss: {loss}\n"
    )
    config = load_config(path).config
    assert loss_name(config, load_source(config)).reason == expected
