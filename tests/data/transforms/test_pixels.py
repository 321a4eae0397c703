"""Color jitter and erasing: torchvision's functions, one sample at a time, are the reference."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from trainkit.data.transforms.pixels import ColorJitter, RandomErasing
from trainkit.data.transforms.random_transform import RandomTransform

ADJUSTMENTS = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
    "hue": reference.adjust_hue,
}


def images_of(channels: int) -> Tensor:
    """Floats (80, C, 9, 13), some of them gray, black or white."""
    images = torch.randint(0, 256, (80, channels, 9, 13), generator=torch.Generator().manual_seed(1)) / 255
    images[:10] = images[:10].mean(1, keepdim=True)
    images[10], images[11] = 0, 1
    return images


def applied(transform: RandomTransform, images: Tensor, draws: Tensor) -> Tensor:
    """The images after the transform; its parameters are what it promises."""
    parameters = transform.parameters(draws, (images.shape[1], images.shape[2], images.shape[3]))
    assert parameters.shape == (len(images), transform.num_parameters)
    assert parameters.dtype == torch.float32
    return transform.apply(images, parameters)


def limits(knob: str, spread: float) -> tuple[float, float]:
    return (-spread, spread) if knob == "hue" else (max(0.0, 1 - spread), 1 + spread)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "knobs",
    [
        {"brightness": 0.4},
        {"contrast": 0.6},
        {"saturation": 1.5},
        {"hue": 0.5},
        {"brightness": 0.4, "contrast": 0.3, "saturation": 0.2, "hue": 0.1},
    ],
)
def test_jitter_is_torchvisions_in_a_fixed_order(channels: int, knobs: dict[str, float]) -> None:
    images = images_of(channels)
    draws = torch.rand(80, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for image, draw, result in zip(images, draws.tolist(), applied(ColorJitter(**knobs), images, draws), strict=True):
        expected = image
        for (knob, adjust), uniform in zip(ADJUSTMENTS.items(), draw, strict=True):
            if knob in knobs:
                low, high = limits(knob, knobs[knob])
                expected = adjust(expected, low + (high - low) * uniform)
        torch.testing.assert_close(result, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("knob", ADJUSTMENTS)
@pytest.mark.parametrize("spread", [0.25, 0.5])
def test_factors_have_the_limits_of_torchvision(knob: str, spread: float) -> None:
    assert getattr(transforms.ColorJitter(**{knob: spread}), knob) == limits(knob, spread)


def test_knobs_of_zero_change_nothing() -> None:
    images = images_of(3)
    draws = torch.rand(80, 4, dtype=torch.float64)
    assert torch.equal(applied(ColorJitter(), images, draws), images)


def test_the_given_images_are_left_as_they_are() -> None:
    images = images_of(3)
    before = images.clone()
    applied(ColorJitter(0.4, 0.4, 0.4, 0.4), images, torch.rand(80, 4, dtype=torch.float64))
    assert torch.equal(images, before)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="color_jitter needs 1 or 3 channels, got 4"):
        ColorJitter(brightness=0.1).output_shape((4, 8, 8))


def uniforms(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, RandomErasing.num_draws, dtype=torch.float64, generator=generator)


def rectangle(erasing: RandomErasing, draw: list[float], height: int, width: int) -> tuple[int, int, int, int] | None:
    """One sample's (top, left, height, width) as RandomErasing.make_params finds it; None for no erasing."""
    happens, top, left, *tries = draw
    if happens >= erasing.p:
        return None
    low, high = math.log(erasing.ratio[0]), math.log(erasing.ratio[1])
    for share, aspect in zip(tries[::2], tries[1::2], strict=True):
        area = height * width * (erasing.scale[0] + (erasing.scale[1] - erasing.scale[0]) * share)
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
    "erasing",
    [
        RandomErasing(),
        RandomErasing(p=1.0, scale=(0.5, 1.0), ratio=(0.2, 5.0), value=0.7),
        RandomErasing(p=0.8, scale=(0.9, 1.0), value=-1.5),
    ],
)
def test_erasing_is_torchvisions(shape: tuple[int, int, int], erasing: RandomErasing) -> None:
    images, draws = torch.rand(300, *shape), uniforms(300)
    num_erased = 0
    for image, draw, result in zip(images, draws.tolist(), applied(erasing, images, draws), strict=True):
        found = rectangle(erasing, draw, *shape[1:])
        num_erased += found is not None
        expected = image if found is None else reference.erase(image, *found, v=torch.tensor(erasing.value))
        assert torch.equal(result, expected)
    assert 0 < num_erased <= 300


def test_rectangles_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(2)
    image = torch.rand(1, 20, 30)
    theirs = transforms.RandomErasing(p=1.0, scale=(0.3, 0.9), ratio=(0.2, 5.0))
    drawn = [theirs.make_params([image]) for _ in range(1500)]
    expected = torch.tensor([[p["i"], p["j"], p["h"], p["w"]] if p["v"] is not None else [0] * 4 for p in drawn])
    erasing = RandomErasing(p=1.0, scale=(0.3, 0.9), ratio=(0.2, 5.0))
    found = erasing.parameters(uniforms(1500, seed=3), (1, 20, 30))
    for column in range(4):
        thresholds = torch.arange(31)[:, None]
        ours, others = ((values[:, column] <= thresholds).double().mean(1) for values in (found, expected))
        assert (ours - others).abs().max() < 0.07  # Kolmogorov-Smirnov, p about 0.001


def test_nothing_is_erased_with_probability_zero() -> None:
    images = torch.rand(50, 3, 8, 8)
    assert torch.equal(applied(RandomErasing(p=0.0), images, uniforms(50)), images)
