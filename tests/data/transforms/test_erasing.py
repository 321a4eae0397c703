"""Random erasing: torchvision's rectangle rule, redone in plain Python, and its erase function are the reference."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from trainkit.data.transforms.erasing import RandomErasing


def uniforms(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, RandomErasing.num_draws, dtype=torch.float64, generator=generator)


def rectangle(step: RandomErasing, draw: list[float], height: int, width: int) -> tuple[int, int, int, int] | None:
    """One sample's (top, left, height, width) as RandomErasing.make_params finds it; None for no erasing."""
    happens, top, left, *tries = draw
    if happens >= step.p:
        return None
    low, high = math.log(step.ratio[0]), math.log(step.ratio[1])
    for share, aspect in zip(tries[::2], tries[1::2], strict=True):
        area = height * width * (step.scale[0] + (step.scale[1] - step.scale[0]) * share)
        ratio = math.exp(low + (high - low) * aspect)
        erased_height, erased_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if erased_height < height and erased_width < width:
            return (
                int(top * (height - erased_height + 1)),
                int(left * (width - erased_width + 1)),
                erased_height,
                erased_width,
            )
    return None


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 23)])
@pytest.mark.parametrize(
    "step",
    [
        RandomErasing(),
        RandomErasing(p=1.0, scale=(0.5, 1.0), ratio=(0.2, 5.0), value=0.7),
        RandomErasing(p=0.8, scale=(0.9, 1.0), value=-1.5),
    ],
)
def test_erasing_is_torchvisions(shape: tuple[int, int, int], step: RandomErasing) -> None:
    images, draws = torch.rand(300, *shape), uniforms(300)
    num_erased = 0
    for image, draw, result in zip(images, draws.tolist(), step.apply(images, draws), strict=True):
        found = rectangle(step, draw, *shape[1:])
        num_erased += found is not None
        expected = image if found is None else reference.erase(image, *found, v=torch.tensor(step.value))
        assert torch.equal(result, expected)
    assert 0 < num_erased <= 300


def test_rectangles_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(2)
    image = torch.rand(1, 20, 30)
    theirs = transforms.RandomErasing(p=1.0, scale=(0.3, 0.9), ratio=(0.2, 5.0))
    drawn = [theirs.make_params([image]) for _ in range(1500)]
    expected = torch.tensor([[p["i"], p["j"], p["h"], p["w"]] if p["v"] is not None else [0] * 4 for p in drawn])
    step = RandomErasing(p=1.0, scale=(0.3, 0.9), ratio=(0.2, 5.0))
    found = step.rectangles(uniforms(1500, seed=3), height=20, width=30).T
    for column in range(4):
        thresholds = torch.arange(31)[:, None]
        ours, others = ((values[:, column] <= thresholds).double().mean(1) for values in (found, expected))
        assert (ours - others).abs().max() < 0.07  # Kolmogorov-Smirnov, p about 0.001


def test_nothing_is_erased_with_probability_zero() -> None:
    images = torch.rand(50, 3, 8, 8)
    assert torch.equal(RandomErasing(p=0.0).apply(images, uniforms(50)), images)
