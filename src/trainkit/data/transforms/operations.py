"""Random transforms that run operations on the levels of some of the images: a batch is grouped by operation.

Each image draws which operation it gets, if any, and the numbers for it. Then every operation runs once, on all images
that drew it. Those of one operation with a probability are here; ``policies`` chooses among many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from trainkit.data.images.layout import memory_view, pixel_size, view_like
from trainkit.data.transforms import levels
from trainkit.data.transforms.geometry import Interpolation, put_rows
from trainkit.data.transforms.random_transform import RandomTransform, between
from trainkit.data.transforms.warps import MOST_PIXELS, warp_perspective

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""New uint8 images (n, C, H, W) from images and numbers of each, float32 (n, k)."""

_GROUP_BYTES = 1 << 20
"""On the CPU an operation gets images this many bytes of floats at a time, which stay in the processor's cache."""


class LevelsTransform(RandomTransform):
    """A random transform of uint8 images by one round of operations or several.

    The parameters of a round are the number of the operation, 0 for none, and the numbers for it.
    """

    def operations(self) -> Sequence[Operation]:
        """Those that an image may draw, numbered from 1."""
        raise NotImplementedError

    def works_on_bytes(self) -> bool:
        return True

    @property
    def num_rounds(self) -> int:
        return 1

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if input_shape[0] not in (1, 3):
            raise ValueError(f"{self.name} needs 1 or 3 channels, got {input_shape[0]}")
        if input_shape[1] * input_shape[2] > MOST_PIXELS:
            raise ValueError(f"{self.name} takes at most {MOST_PIXELS} pixels, got {pixel_size(input_shape)}")
        return input_shape

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        return self.apply_drawn(images, parameters, parameters.cpu())

    def apply_drawn(self, images: torch.Tensor, parameters: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """As ``apply``.

        Args:
            drawn: the parameters on the CPU: how many images have which operation is read there, so that nothing waits
                for the device.
        """
        images = levels.to_levels(images)
        width = self.num_parameters // self.num_rounds
        operations = self.operations()
        for of_round, drawn_of_round in zip(parameters.split(width, 1), drawn.split(width, 1), strict=True):
            counts = drawn_of_round[:, 0].long().bincount(minlength=len(operations) + 1).tolist()
            images = _apply_by_operation(images, of_round, counts, operations)
        return images


def _apply_by_operation(
    images: torch.Tensor, parameters: torch.Tensor, counts: Sequence[int], operations: Sequence[Operation]
) -> torch.Tensor:
    """Run each operation on the images that drew it, and write the results over them."""
    rows = memory_view(images)
    order = parameters[:, 0].argsort()
    size = max(1, _GROUP_BYTES // (4 * images[0].numel())) if images.device.type == "cpu" else len(images)
    end = counts[0]
    for operation, count in zip(operations, counts[1:], strict=True):
        start, end = end, end + count
        for which in order[start:end].split(size) if count else ():
            some = view_like(rows.index_select(0, which), images)
            changed = operation(some, parameters.index_select(0, which)[:, 1:])
            put_rows(rows, which, (changed.permute(0, 2, 3, 1) if rows is not images else changed).contiguous())
    return images


@dataclass(frozen=True)
class _WithProbability(LevelsTransform):
    """One operation, with the same numbers for all images, on a share ``p`` of them."""

    p: float = 0.5

    num_draws: ClassVar[int] = 1
    num_parameters: ClassVar[int] = 2
    operation: ClassVar[Operation]

    def operations(self) -> Sequence[Operation]:
        return (type(self).operation,)

    def number(self) -> float:
        return 0.0

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        taken = (draws < self.p).to(torch.float32)
        return torch.cat((taken, torch.full_like(taken, self.number())), 1)


@dataclass(frozen=True)
class RandomGrayscale(_WithProbability):
    """Put the luma into every channel."""

    p: float = 0.1

    name: ClassVar[str] = "random_grayscale"
    operation: ClassVar[Operation] = levels.grayscale


class RandomInvert(_WithProbability):
    """Invert the pixel values."""

    name: ClassVar[str] = "random_invert"
    operation: ClassVar[Operation] = levels.invert


class RandomEqualize(_WithProbability):
    """Equalize the histogram of each channel."""

    name: ClassVar[str] = "random_equalize"
    operation: ClassVar[Operation] = levels.equalize


class RandomAutocontrast(_WithProbability):
    """Stretch each channel to the whole range."""

    name: ClassVar[str] = "random_autocontrast"
    operation: ClassVar[Operation] = levels.autocontrast


@dataclass(frozen=True)
class RandomPosterize(_WithProbability):
    """Keep the highest bits of each level."""

    bits: int = 4
    """0 to 8."""

    name: ClassVar[str] = "random_posterize"
    operation: ClassVar[Operation] = levels.posterize

    def number(self) -> float:
        return self.bits


@dataclass(frozen=True)
class RandomSolarize(_WithProbability):
    """Invert the pixels from a value on."""

    threshold: float = 0.5
    """On the [0, 1] scale."""

    name: ClassVar[str] = "random_solarize"
    operation: ClassVar[Operation] = levels.solarize

    def number(self) -> float:
        return float(np.ceil(np.float32(255 * self.threshold)))


@dataclass(frozen=True)
class RandomAdjustSharpness(_WithProbability):
    """Sharpen, or blur with a factor below 1."""

    sharpness_factor: float = 2.0

    name: ClassVar[str] = "random_adjust_sharpness"
    operation: ClassVar[Operation] = levels.sharpness

    def number(self) -> float:
        return 1 - self.sharpness_factor


@dataclass(frozen=True)
class GaussianBlur(LevelsTransform):
    """Blur with a Gaussian of a random width."""

    kernel_size: tuple[int, int] = (3, 3)
    """Width and height, both odd."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """[low, high] of the standard deviation in pixels."""
    p: float = 1.0

    name: ClassVar[str] = "gaussian_blur"
    num_draws: ClassVar[int] = 2
    num_parameters: ClassVar[int] = 2

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        _, height, width = input_shape
        across, down = self.kernel_size
        if across // 2 >= width or down // 2 >= height:
            raise ValueError(f"half of the kernel {across} x {down} must be smaller than the image {width} x {height}")
        return super().output_shape(input_shape)

    def operations(self) -> Sequence[Operation]:
        return (partial(levels.blur, kernel_size=self.kernel_size),)

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """Whether an image is blurred, and the standard deviation."""
        return torch.stack((draws[:, 1] < self.p, between(self.sigma, draws[:, 0])), 1).to(torch.float32)


@dataclass(frozen=True)
class RandomPerspective(LevelsTransform):
    """Move each corner of the image inwards by a random number of pixels, as seen from another place."""

    distortion_scale: float = 0.5
    """How far a corner moves at most, as a share of half the image."""
    p: float = 0.5
    interpolation: Interpolation = "bilinear"
    fill: float = 0.0

    name: ClassVar[str] = "random_perspective"
    num_draws: ClassVar[int] = 9
    num_parameters: ClassVar[int] = 9

    def operations(self) -> Sequence[Operation]:
        return (partial(warp_perspective, interpolation=self.interpolation, fill=255 * self.fill),)

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """Whether an image is moved, and torchvision's eight coefficients.

        Corners that lie on a line have none; such an image is left as it is.
        """
        _, height, width = input_shape
        moves = [int(self.distortion_scale * (length // 2)) + 1 for length in (width, height)]
        inwards = (draws[:, 1:].reshape(-1, 4, 2) * torch.tensor(moves)).floor()
        far = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
        size, room = torch.tensor([width, height]), torch.tensor(moves)
        corners = (far * (size - room) + inwards).to(torch.float64)
        coefficients = _perspective_coefficients(corners, far * (size - 1))
        taken = (draws[:, 0] < self.p) & coefficients.isfinite().all(1)
        return torch.cat((taken[:, None], coefficients), 1).to(torch.float32).nan_to_num(0, 0, 0)


def _perspective_coefficients(corners: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Those of the maps that take four corners (N, 4, 2) back to where they were, (4, 2): float64 (N, 8), NaN for none.

    As ``_get_perspective_coeffs`` of torchvision 0.29.
    """
    x, y = corners.unbind(2)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    start_x, start_y = starts.unbind(1)
    of_x = torch.stack((x, y, one, zero, zero, zero, -start_x * x, -start_x * y), 2)
    of_y = torch.stack((zero, zero, zero, x, y, one, -start_y * x, -start_y * y), 2)
    equations = torch.stack((of_x, of_y), 2).flatten(1, 2)
    solved, info = torch.linalg.solve_ex(equations, starts.flatten().expand(len(corners), 8))
    return torch.where(info[:, None] == 0, solved, torch.nan)
