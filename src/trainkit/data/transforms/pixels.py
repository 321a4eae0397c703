"""Random transforms that change pixel values: color jitter and erasing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from trainkit.data.transforms.levels import widest_float
from trainkit.data.transforms.random_transform import RandomTransform, between

_NUM_TRIES = 10
"""Rectangles that ``RandomErasing`` draws for each image."""


@dataclass(frozen=True)
class ColorJitter(RandomTransform):
    """Change brightness, contrast, saturation and hue, always in this order. A parameter of 0 leaves its part out.

    The parts equal torchvision's ``adjust_*`` functions; saturation and hue do nothing to gray images.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    name: ClassVar[str] = "color_jitter"
    num_draws: ClassVar[int] = 4
    num_parameters: ClassVar[int] = 4

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if input_shape[0] not in (1, 3):
            raise ValueError(f"color_jitter needs 1 or 3 channels, got {input_shape[0]}")
        return input_shape

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """The factors of brightness, contrast and saturation, and the turn of the hue."""
        limits = *map(_around_one, (self.brightness, self.contrast, self.saturation)), (-self.hue, self.hue)
        columns = [between(of_one, draws[:, column]) for column, of_one in enumerate(limits)]
        return torch.stack(columns, 1).to(torch.float32)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        brightness, contrast, saturation, hue = parameters[:, :, None, None, None].unbind(1)  # each (N, 1, 1, 1)
        has_color = images.shape[1] == 3
        if self.brightness:
            images = (images * brightness).clamp_(0, 1)
        if self.contrast:
            # The sum may be split in other ways for other numbers of images; in float64 the mean stays the same.
            mean = _luma(images).mean((1, 2, 3), keepdim=True, dtype=widest_float(images)).to(images.dtype)
            images = _blend(images, mean, contrast)
        if self.saturation and has_color:
            images = _blend(images, _luma(images), saturation)
        if self.hue and has_color:
            images = _turn_hue(images, hue[:, 0])
        return images


def _around_one(spread: float) -> tuple[float, float]:
    return max(0.0, 1 - spread), 1 + spread


def _blend(images: torch.Tensor, others: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    return (images * ratio).add_(others * (1 - ratio)).clamp_(0, 1)


def _luma(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W), with torchvision's weights of ITU-R 601-2."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return (red * 0.2989).add_(green * 0.587).add_(blue * 0.114)


def _turn_hue(images: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Add ``turn`` (N, 1, 1), a share of the full circle, to the hue of RGB images (N, 3, H, W)."""
    hue, saturation, value = _to_hsv(images)
    turned = hue + turn
    return _to_rgb(turned.sub_(turned.floor()), saturation, value)


def _to_hsv(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue, saturation and value, each (N, H, W) in [0, 1]."""
    red, green, blue = images.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)  # aminmax takes four times as long
    high = torch.maximum(torch.maximum(red, green), blue)
    spread = high - low
    gray = spread == 0
    # Where the channels are equal, hue and saturation are 0 whatever they are divided by.
    saturation = spread / high.masked_fill(gray, 1)
    divisor = spread.masked_fill(gray, 1)
    to_red, to_green, to_blue = ((high - channel) / divisor for channel in (red, green, blue))
    sixths = torch.where(
        high == red,
        to_blue - to_green,
        torch.where(high == green, 2 + to_red - to_blue, 4 + to_green - to_red),
    )
    return sixths.mul_(1 / 6).add_(1).frac_(), saturation, high


def _to_rgb(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """RGB images (N, 3, H, W) from hue, saturation and value (N, H, W).

    A channel is ``v - v s max(0, min(k, 4 - k, 1))`` with ``k = (n + 6 h) mod 6`` and n = 5, 3, 1 for red, green, blue.
    """
    chroma = value * saturation
    sixths = hue * 6
    channels = []
    for offset in (5, 3, 1):
        k = (sixths + offset).remainder_(6)
        channels.append(value - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma))
    return torch.stack(channels, 1)


@dataclass(frozen=True)
class RandomErasing(RandomTransform):
    """Overwrite a random rectangle (Zhong et al., 2017) with the distribution of torchvision's RandomErasing."""

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    """[low, high] of the erased share of the area."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """[low, high] of height / width."""
    value: float = 0.0

    name: ClassVar[str] = "random_erasing"
    num_draws: ClassVar[int] = 3 + 2 * _NUM_TRIES
    num_parameters: ClassVar[int] = 4

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """(top, left, height, width) of each erased rectangle; all 0 where nothing is erased.

        The first of ten rectangles that is smaller than the image in both directions is taken.
        """
        _, height, width = input_shape
        tries = draws[:, 3:].reshape(len(draws), _NUM_TRIES, 2)
        area = height * width * between(self.scale, tries[:, :, 0])
        ratio = between((math.log(self.ratio[0]), math.log(self.ratio[1])), tries[:, :, 1]).exp()
        heights, widths = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (heights < height) & (widths < width)
        first = fits.long().argmax(1, keepdim=True)  # the first of equal maxima
        taken = (draws[:, 0] < self.p) & fits.any(1)
        erased_height, erased_width = (sizes.gather(1, first).squeeze(1) for sizes in (heights, widths))
        top = (draws[:, 1] * (height - erased_height + 1)).long()
        left = (draws[:, 2] * (width - erased_width + 1)).long()
        boxes = torch.stack((top, left, erased_height, erased_width), 1) * taken[:, None]
        return boxes.to(torch.float32)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        top, left, erased_height, erased_width = parameters.long().unbind(1)
        rows = _within(height, top, erased_height)
        columns = _within(width, left, erased_width)
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], self.value)


def _within(length: int, start: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(length, device=start.device)
    return (positions >= start[:, None]) & (positions < (start + size)[:, None])
