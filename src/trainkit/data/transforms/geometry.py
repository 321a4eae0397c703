"""The base of random transforms, and those that move pixels: crop, flips, rotation, affine maps.

Every one equals the function of the same name in ``torchvision.transforms.v2.functional``, applied to one float32
image at a time with the same parameters, and draws its parameters from the same distribution as torchvision's class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from trainkit.data.images.layout import is_nhwc, memory_view

Interpolation = Literal["nearest", "bilinear"]

_LARGE_IMAGE = 32 << 10
"""Bytes from which flipping an image in a call of its own is faster."""


class RandomTransform:
    """A random transform of images (N, C, H, W) with its own parameters for each sample."""

    name: ClassVar[str]
    num_draws: ClassVar[int]
    """How many uniform numbers a sample needs."""

    def works_on_bytes(self) -> bool:
        """Whether uint8 images give the same as float32 images in [0, 1], converted afterwards."""
        return False

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the result. Raises ValueError where a parameter does not fit."""
        return input_shape

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Images from (N, C, H, W) in any layout and uniforms in [0, 1): float64 (N, num_draws) on the CPU.

        The result may share the memory of ``images``.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class RandomCrop(RandomTransform):
    """Pad every side, then cut out a window at a random place."""

    size: tuple[int, int] | None = None
    """(H, W) of the window; the image's own size when None."""
    padding: int = 0
    padding_mode: Literal["constant", "reflect", "edge"] = "constant"
    fill: float = 0.0
    """The value of constant padding, on the [0, 1] scale."""

    name: ClassVar[str] = "random_crop"
    num_draws: ClassVar[int] = 2

    def works_on_bytes(self) -> bool:
        if self.padding == 0 or self.padding_mode != "constant":
            return True
        return bool(np.float32(round(self.fill * 255)) / np.float32(255) == np.float32(self.fill))

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = input_shape
        if self.padding_mode == "reflect" and self.padding >= min(height, width):
            raise ValueError(f"reflection needs padding below {height} x {width}, got {self.padding}")
        padded = height + 2 * self.padding, width + 2 * self.padding
        size = self.size if self.size is not None else (height, width)
        if size[0] > padded[0] or size[1] > padded[1]:
            raise ValueError(f"the crop {size} is larger than the padded image {padded}")
        return channels, *size

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        num_images, channels, height, width = images.shape
        crop_height, crop_width = self.size if self.size is not None else (height, width)
        if self.padding:
            images = _pad(images, self.padding, self.padding_mode, self.fill)
        padded_height, padded_width = images.shape[2:]
        rooms = torch.tensor([padded_height - crop_height + 1, padded_width - crop_width + 1])
        top, left = (draws * rooms).long().unbind(1)
        # In the flat images a window is given by the index of its first pixel: the strides of its lines are the same.
        numbers = memory_view(images).contiguous()
        planes, pixel = (1, channels) if is_nhwc(images) else (channels, 1)
        line, plane = padded_width * pixel, padded_height * padded_width * pixel
        first = torch.arange(num_images) * (planes * plane) + top * line + left * pixel
        num_starts = numbers.numel() - (planes - 1) * plane - (crop_height - 1) * line - crop_width * pixel + 1
        windows = numbers.as_strided((num_starts, planes, crop_height, crop_width * pixel), (1, plane, line, 1))
        chosen = windows.index_select(0, first.to(images.device))
        if planes == channels:
            return chosen
        return chosen.view(num_images, crop_height, crop_width, channels).permute(0, 3, 1, 2)


def _pad(images: torch.Tensor, padding: int, mode: str, fill: float) -> torch.Tensor:
    sides = (padding, padding, padding, padding)
    if mode == "constant":
        value = round(fill * 255) if images.dtype == torch.uint8 else fill
        return F.pad(images, sides, value=value)
    height, width = images.shape[2:]
    rows = torch.arange(-padding, height + padding, device=images.device)
    columns = torch.arange(-padding, width + padding, device=images.device)
    # F.pad reflects and replicates floats only; picking rows and columns works on bytes too.
    return images.index_select(2, _inside(rows, height, mode)).index_select(3, _inside(columns, width, mode))


def _inside(positions: torch.Tensor, length: int, mode: str) -> torch.Tensor:
    if mode == "edge":
        return positions.clamp(0, length - 1)
    return (length - 1) - ((length - 1) - positions.abs()).abs()


@dataclass(frozen=True)
class _RandomFlip(RandomTransform):
    p: float = 0.5

    num_draws: ClassVar[int] = 1
    dim: ClassVar[int]

    def works_on_bytes(self) -> bool:
        return True

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        return _flip(images, draws[:, 0] < self.p, dim=self.dim)


class RandomHorizontalFlip(_RandomFlip):
    """Mirror left and right."""

    name: ClassVar[str] = "random_horizontal_flip"
    dim: ClassVar[int] = 3


class RandomVerticalFlip(_RandomFlip):
    """Mirror top and bottom."""

    name: ClassVar[str] = "random_vertical_flip"
    dim: ClassVar[int] = 2


def _flip(images: torch.Tensor, flipped: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Flip some of the images in place; the others are not touched."""
    rows = memory_view(images)
    dim = dim - 1 if rows is not images else dim
    if rows.device.type == "cpu" and rows[:1].nbytes >= _LARGE_IMAGE:
        for image, turn in zip(rows.unbind(0), flipped.tolist(), strict=True):
            if turn:
                image.copy_(image.flip(dim - 1))  # while it is still in the processor's cache
        return images
    which = flipped.nonzero().flatten().to(images.device)
    _put(rows, which, rows.index_select(0, which).flip(dim))
    return images


def _put(rows: torch.Tensor, which: torch.Tensor, others: torch.Tensor) -> None:
    """Write ``others`` into the places ``which``."""
    line = rows.shape[-1] * rows.shape[-2] * rows.element_size()
    if rows.device.type != "cpu" or line % 8 or not rows.is_contiguous():
        rows.index_copy_(0, which, others)
    else:  # torch's kernel takes as long for a byte as for eight
        words, words_of_others = (images.flatten(1).view(torch.int64) for images in (rows, others))
        words.index_copy_(0, which, words_of_others)


@dataclass(frozen=True)
class RandomRotation(RandomTransform):
    """Rotate counter-clockwise around the center, keeping the size."""

    degrees: tuple[float, float]
    """[low, high]."""
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    name: ClassVar[str] = "random_rotation"
    num_draws: ClassVar[int] = 1

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        zero, one = torch.zeros(len(draws), dtype=torch.float64), torch.ones(len(draws), dtype=torch.float64)
        angle = between(self.degrees, draws[:, 0]) % 360
        matrices = inverse_matrices(-angle, translate=(zero, zero), scale=one, shear=zero)
        return sample(images, matrices, interpolation=self.interpolation, fill=self.fill)


@dataclass(frozen=True)
class RandomAffine(RandomTransform):
    """Rotate clockwise, shift by whole pixels, scale and shear, keeping the center and the size."""

    degrees: tuple[float, float]
    """[low, high]."""
    translate: tuple[float, float] | None = None
    """Largest shift along x and y, as a share of width and height."""
    scale: tuple[float, float] | None = None
    shear: tuple[float, float] | None = None
    """[low, high] in degrees along x."""
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    name: ClassVar[str] = "random_affine"
    num_draws: ClassVar[int] = 5

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        share_x, share_y = self.translate if self.translate is not None else (0.0, 0.0)
        matrices = inverse_matrices(
            between(self.degrees, draws[:, 0]),
            translate=(
                between((-share_x * width, share_x * width), draws[:, 1]).round(),
                between((-share_y * height, share_y * height), draws[:, 2]).round(),
            ),
            scale=between(self.scale if self.scale is not None else (1.0, 1.0), draws[:, 3]),
            shear=between(self.shear if self.shear is not None else (0.0, 0.0), draws[:, 4]),
        )
        return sample(images, matrices, interpolation=self.interpolation, fill=self.fill)


def between(limits: tuple[float, float], draws: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [low, high) from uniform numbers in [0, 1)."""
    low, high = limits
    return low + (high - low) * draws


def inverse_matrices(
    angle: torch.Tensor, *, translate: tuple[torch.Tensor, torch.Tensor], scale: torch.Tensor, shear: torch.Tensor
) -> torch.Tensor:
    """The maps from output to input pixels, measured from the center: float64 (N, 2, 3).

    Args:
        angle: clockwise, in degrees, as all arguments float64 (N,).
        translate: shift along x and y in pixels.
        shear: along x, in degrees.

    As ``_get_inverse_affine_matrix`` of torchvision 0.29 with the center (0, 0) and no shear along y.
    """
    rotation, tangent = angle.deg2rad(), shear.deg2rad().tan()
    a, c = rotation.cos(), rotation.sin()
    b, d = -(a * tangent + c), a - c * tangent
    a, b, c, d = a / scale, -b / scale, -c / scale, d / scale
    shift_x, shift_y = translate
    rows = (d, b, -d * shift_x - b * shift_y), (c, a, -c * shift_x - a * shift_y)
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def sample(images: torch.Tensor, matrices: torch.Tensor, *, interpolation: Interpolation, fill: float) -> torch.Tensor:
    """Sample float images (N, C, H, W) at affine maps (N, 2, 3) from output to input pixels."""
    grid = _grid(matrices.to(torch.float32).to(images.device), images.shape[2], images.shape[3])
    if interpolation == "nearest" and fill == 0:
        return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    # A channel of ones becomes the share of each output pixel that lies inside the image.
    ones = images.new_ones(1, 1, 1, 1).expand(len(images), 1, *images.shape[2:])
    sampled = F.grid_sample(
        torch.cat((images, ones), 1), grid, mode=interpolation, padding_mode="zeros", align_corners=False
    )
    pixels, inside = sampled[:, :-1], sampled[:, -1:]
    if interpolation == "nearest":
        return torch.where(inside < 0.5, fill, pixels)
    return pixels.sub(fill).mul_(inside).add_(fill)


def _grid(matrices: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The input position of each output pixel, in [-1, 1] units of the input: float32 (N, H, W, 2).

    torchvision multiplies each matrix by the positions of all pixels. The same sums as broadcasts take a tenth of the
    time; their order is kept, so that a nearest pixel is the same one.
    """
    device = matrices.device
    x = torch.linspace((1 - width) * 0.5, (width - 1) * 0.5, width, device=device)
    y = torch.linspace((1 - height) * 0.5, (height - 1) * 0.5, height, device=device)
    scaled = matrices / torch.tensor([[0.5 * width], [0.5 * height]], device=device)
    of_x, of_y, constant = scaled.unbind(2)  # each (N, 2)
    sums = (of_x[:, :, None] * x)[:, :, None, :] + (of_y[:, :, None] * y)[:, :, :, None]
    return sums.add_(constant[:, :, None, None]).permute(0, 2, 3, 1)
