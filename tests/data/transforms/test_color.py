"""Colour jitter: torchvision's adjust_* functions, one sample at a time, are the reference."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from trainkit.data.transforms.color import ColorJitter

ADJUSTMENTS = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
    "hue": reference.adjust_hue,
}


def images_of(channels: int) -> Tensor:
    """Floats (80, C, 9, 13), some of them grey, black or white."""
    images = torch.randint(0, 256, (80, channels, 9, 13), generator=torch.Generator().manual_seed(1)) / 255
    images[:10] = images[:10].mean(1, keepdim=True)
    images[10], images[11] = 0, 1
    return images


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
    for image, draw, result in zip(images, draws.tolist(), ColorJitter(**knobs).apply(images, draws), strict=True):
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
    assert torch.equal(ColorJitter().apply(images, draws), images)


def test_the_given_images_are_left_as_they_are() -> None:
    images = images_of(3)
    before = images.clone()
    ColorJitter(0.4, 0.4, 0.4, 0.4).apply(images, torch.rand(80, 4, dtype=torch.float64))
    assert torch.equal(images, before)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="color_jitter needs 1 or 3 channels, got 4"):
        ColorJitter(brightness=0.1).output_shape((4, 8, 8))
