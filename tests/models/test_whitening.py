"""First weights that images decide: the first convolution makes uncorrelated channels, and the others pass them on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainkit.errors import ProblemsError
from trainkit.models import begin_as_identity, whiten


def images_of(count: int, channels: int, size: int) -> Tensor:
    """Smooth images whose channels resemble each other, in the layout of the runs."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, channels, size + 2, size + 2, generator=generator)
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1) + 0.3 * noise[:, :1, 1:-1, 1:-1]
    return smooth.contiguous(memory_format=torch.channels_last)


def moments(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """Mean products of the channels of the output, over all places: (C, C)."""
    with torch.no_grad():
        values = layer(images).transpose(0, 1).flatten(1).double()
    return values @ values.T / values.shape[1]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_channels_are_uncorrelated_with_deviation_one(
    channels: int, height: int, width: int, data: st.DataObject
) -> None:
    half = data.draw(st.integers(1, channels * height * width))
    images = images_of(70, channels, 9)
    layer = nn.Conv2d(channels, 2 * half, (height, width))
    whiten(nn.Sequential(layer, nn.ReLU()), images, eps=1e-9)
    found = moments(layer, images)
    torch.testing.assert_close(found[:half, :half], torch.eye(half).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[half:, :half], -found[:half, :half])
    assert layer.bias is not None
    assert not layer.bias.any()


def test_few_channels_are_the_directions_of_largest_variance() -> None:
    images = images_of(70, 3, 9) * torch.tensor([1.0, 9.0, 2.0])[:, None, None]
    layer = nn.Conv2d(3, 2, 1)
    whiten(layer, images, eps=1e-9)
    assert layer.weight[0].argmax() == 1
    assert layer.weight[0, 1] > 0


def test_eps_keeps_directions_without_variance_small() -> None:
    images = images_of(70, 1, 9).expand(-1, 3, -1, -1)
    layer = nn.Conv2d(3, 6, 1)
    whiten(layer, images, eps=0.25)
    assert layer.weight.abs().max() < 1 / 0.25**0.5


def test_large_images_are_looked_at_in_steps() -> None:
    images = images_of(3, 3, 130)
    layer = nn.Conv2d(3, 6, 1, bias=False)
    whiten(layer, images, eps=1e-9)
    torch.testing.assert_close(moments(layer, images)[:3, :3], torch.eye(3).double(), atol=0.1, rtol=0)


def test_other_convolutions_pass_on_the_channels_that_they_have_room_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    begin_as_identity(model)
    _, wider, narrower = model
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert torch.equal(wider.weight[6:], before["1.weight"][6:])
    images = torch.randn(2, 6, 5, 5)
    wide = wider(images)
    torch.testing.assert_close(wide[:, :6], images + wider.bias[:6, None, None])
    torch.testing.assert_close(narrower(wide), wide[:, :4] + narrower.bias[:, None, None])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Flatten(), nn.Linear(12, 2)], "is for a first layer that is a convolution, got Flatten"),
        ([nn.MaxPool2d(2), nn.Conv2d(3, 4, 1)], "is for a first layer that is a convolution, got MaxPool2d"),
        (
            [nn.Conv2d(3, 26, 2)],
            r"at most 24 in the first convolution \(two for each of the 3 x 2 x 2 numbers of a patch",
        ),
        ([nn.Conv2d(3, 5, 2)], "an even number of channels of at most 24 .* got 5 channels"),
        ([nn.Conv2d(4, 4, 2, groups=2)], "and no groups, got 2 groups"),
    ],
)
def test_what_cannot_whiten_is_refused(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(ProblemsError, match=message):
        begin_as_identity(nn.Sequential(*layers))
