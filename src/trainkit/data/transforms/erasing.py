"""Random erasing: overwrite a rectangle of each image with one value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from trainkit.data.transforms.geometry import between

_NUM_TRIES = 10


@dataclass(frozen=True)
class RandomErasing:
    """Overwrite a random rectangle (Zhong et al., 2017), drawn as torchvision's RandomErasing draws it."""

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    """[low, high] of the erased share of the area."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """[low, high] of height / width."""
    value: float = 0.0

    name: ClassVar[str] = "random_erasing"
    num_draws: ClassVar[int] = 3 + 2 * _NUM_TRIES

    def works_on_bytes(self) -> bool:
        return False

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return input_shape

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        top, left, erased_height, erased_width = self.rectangles(draws, height=height, width=width).to(images.device)
        rows = _within(height, top, erased_height)
        columns = _within(width, left, erased_width)
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], self.value)

    def rectangles(self, draws: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
        """(top, left, height, width) of each erased rectangle: int64 (4, N); all 0 where nothing is erased.

        The first of ten rectangles that is smaller than the image in both directions is taken.
        """
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
        return torch.stack((top, left, erased_height, erased_width)) * taken


def _within(length: int, start: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(length, device=start.device)
    return (positions >= start[:, None]) & (positions < (start + size)[:, None])
