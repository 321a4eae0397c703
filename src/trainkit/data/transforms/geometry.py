"""Random transforms that move pixels: crop, flips, rotation, affine maps.

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
from trainkit.data.transforms.random_transform import RandomTransform, between

Interpolation = Literal["nearest", "bilinear"]

_LARGE_IMAGE = 32 << 10
"""Bytes from which flipping or writing an image in a call of its own is faster."""


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
    num_parameters: ClassVar[int] = 2

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

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """The first line and the first column of each window."""
        _, height, width = input_shape
        crop_height, crop_width = self.size if self.size is not None else (height, width)
        rooms = height - crop_height, width - crop_width
        return (draws * torch.tensor([room + 2 * self.padding + 1 for room in rooms])).floor().to(torch.float32)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        size = self.size if self.size is not None else (images.shape[2], images.shape[3])
        if self.padding:
            images = pad(images, self.padding, self.padding_mode, self.fill)
        return windows(images, parameters.long(), size)


def windows(images: torch.Tensor, first: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Windows (N, C, *size) of images, by the place of their first pixels: int64 (N, 2)."""
    cut = _windows_by_strides if images.device.type == "cpu" else _windows_by_index
    return cut(images, first, size)


def _windows_by_strides(images: torch.Tensor, first: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Windows (N, C, *size) of images, by the place of their first pixels: int64 (N, 2). For the CPU.

    It copies whole lines. The view of all windows has billions of elements, which accelerators cannot address.
    """
    num_images, channels, padded_height, padded_width = images.shape
    height, width = size
    top, left = first.unbind(1)
    # In the flat images a window is given by the index of its first pixel: the strides of its lines are the same.
    numbers = memory_view(images).contiguous()
    planes, pixel = (1, channels) if is_nhwc(images) else (channels, 1)
    line, plane = padded_width * pixel, padded_height * padded_width * pixel
    starts = torch.arange(num_images) * (planes * plane) + top * line + left * pixel
    num_starts = numbers.numel() - (planes - 1) * plane - (height - 1) * line - width * pixel + 1
    windows = numbers.as_strided((num_starts, planes, height, width * pixel), (1, plane, line, 1))
    chosen = windows.index_select(0, starts)
    if planes == channels:
        return chosen
    return chosen.view(num_images, height, width, channels).permute(0, 3, 1, 2)


def _windows_by_index(images: torch.Tensor, first: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The same windows on any device, by the line and the column of each pixel."""
    device = images.device
    each, channels = (torch.arange(count, device=device) for count in images.shape[:2])
    lines, columns = (first[:, axis, None] + torch.arange(size[axis], device=device) for axis in (0, 1))
    return images[
        each[:, None, None, None], channels[:, None, None], lines[:, None, :, None], columns[:, None, None, :]
    ]


def pad(images: torch.Tensor, padding: int, mode: str, fill: float) -> torch.Tensor:
    sides = (padding, padding, padding, padding)
    if mode == "constant":
        value = round(fill * 255) if images.dtype == torch.uint8 else fill
        return F.pad(images, sides, value=value)
    height, width = images.shape[2:]
    rows = torch.arange(-padding, height + padding, device=images.device)
    columns = torch.arange(-padding, width + padding, device=images.device)
    # F.pad reflects and replicates floats only; picking rows and columns works on bytes too.
    return images.index_select(2, inside(rows, height, mode)).index_select(3, inside(columns, width, mode))


def inside(positions: torch.Tensor, length: int, mode: str) -> torch.Tensor:
    if mode == "edge":
        return positions.clamp(0, length - 1)
    return (length - 1) - ((length - 1) - positions.abs()).abs()


@dataclass(frozen=True)
class _RandomFlip(RandomTransform):
    p: float = 0.5
    alternate: bool = False

    num_draws: ClassVar[int] = 1
    num_parameters: ClassVar[int] = 1
    dim: ClassVar[int]

    @property
    def shift_per_epoch(self) -> float | None:
        return self.p if self.alternate else None

    def works_on_bytes(self) -> bool:
        return True

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """1 for each image that is flipped, else 0."""
        return (draws < self.p).to(torch.float32)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        flip = _flip_in_place if images.device.type == "cpu" else _flip_by_choice
        return flip(images, parameters[:, 0] != 0, self.dim)


class RandomHorizontalFlip(_RandomFlip):
    """Mirror left and right."""

    name: ClassVar[str] = "random_horizontal_flip"
    dim: ClassVar[int] = 3


class RandomVerticalFlip(_RandomFlip):
    """Mirror top and bottom."""

    name: ClassVar[str] = "random_vertical_flip"
    dim: ClassVar[int] = 2


def _flip_by_choice(images: torch.Tensor, flipped: torch.Tensor, dim: int) -> torch.Tensor:
    """Flip some of the images, bool (N,), on any device. It is not asked which ones, so nothing waits for it."""
    return torch.where(flipped[:, None, None, None], images.flip(dim), images)


def _flip_in_place(images: torch.Tensor, flipped: torch.Tensor, dim: int) -> torch.Tensor:
    """The same for the CPU, without touching the other images."""
    rows = memory_view(images)
    dim = dim - 1 if rows is not images else dim
    if rows[:1].nbytes >= _LARGE_IMAGE:
        for image, turn in zip(rows.unbind(0), flipped.tolist(), strict=True):
            if turn:
                image.copy_(image.flip(dim - 1))  # while it is still in the processor's cache
        return images
    which = flipped.nonzero().flatten()
    put_rows(rows, which, rows.index_select(0, which).flip(dim))
    return images


def put_rows(rows: torch.Tensor, which: torch.Tensor, others: torch.Tensor) -> None:
    """Write ``others`` into the places ``which``."""
    if rows.device.type == "cpu" and rows[:1].nbytes >= _LARGE_IMAGE:
        for place, other in zip(which.tolist(), others, strict=True):
            rows[place].copy_(other)
        return
    line = rows.shape[-1] * rows.shape[-2] * rows.element_size()
    if line % 8 or not rows.is_contiguous():
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
    num_parameters: ClassVar[int] = 6

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        zero, one = torch.zeros(len(draws), dtype=torch.float64), torch.ones(len(draws), dtype=torch.float64)
        angle = between(self.degrees, draws[:, 0]) % 360
        return affine_maps(-angle, translate=(zero, zero), scale=one, shear=zero, input_shape=input_shape)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        return _sample(images, parameters, interpolation=self.interpolation, fill=self.fill)


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
    num_parameters: ClassVar[int] = 6

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        _, height, width = input_shape
        share_x, share_y = self.translate if self.translate is not None else (0.0, 0.0)
        return affine_maps(
            between(self.degrees, draws[:, 0]),
            translate=(
                between((-share_x * width, share_x * width), draws[:, 1]).round(),
                between((-share_y * height, share_y * height), draws[:, 2]).round(),
            ),
            scale=between(self.scale if self.scale is not None else (1.0, 1.0), draws[:, 3]),
            shear=between(self.shear if self.shear is not None else (0.0, 0.0), draws[:, 4]),
            input_shape=input_shape,
        )

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        return _sample(images, parameters, interpolation=self.interpolation, fill=self.fill)


def affine_maps(
    angle: torch.Tensor,
    *,
    translate: tuple[torch.Tensor, torch.Tensor],
    scale: torch.Tensor,
    shear: torch.Tensor,
    input_shape: tuple[int, int, int],
) -> torch.Tensor:
    """The maps (N, 2, 3) from output pixels to input positions, measured from the center, flat: float32 (N, 6).

    Args:
        angle: clockwise, in degrees, as all arguments float64 (N,).
        translate: shift along x and y in pixels.
        shear: along x, in degrees.
        input_shape: (C, H, W); input positions are in units of half its height and width.

    As ``_get_inverse_affine_matrix`` of torchvision 0.29 with the center (0, 0) and no shear along y.
    """
    rotation, tangent = angle.deg2rad(), shear.deg2rad().tan()
    a, c = rotation.cos(), rotation.sin()
    b, d = -(a * tangent + c), a - c * tangent
    a, b, c, d = a / scale, -b / scale, -c / scale, d / scale
    shift_x, shift_y = translate
    return in_half_sizes((d, b, -d * shift_x - b * shift_y), (c, a, -c * shift_x - a * shift_y), input_shape)


def in_half_sizes(
    of_x: tuple[torch.Tensor, ...], of_y: tuple[torch.Tensor, ...], input_shape: tuple[int, int, int]
) -> torch.Tensor:
    """The two rows of maps, each of three float64 (N,), in units of half the width and height: float32 (N, 6)."""
    _, height, width = input_shape
    matrices = torch.stack([torch.stack(row, 1) for row in (of_x, of_y)], 1).to(torch.float32)
    return (matrices / torch.tensor([[0.5 * width], [0.5 * height]])).flatten(1)


def _sample(images: torch.Tensor, maps: torch.Tensor, *, interpolation: Interpolation, fill: float) -> torch.Tensor:
    """Sample float images (N, C, H, W) at the maps of ``affine_maps`` (N, 6)."""
    grid = source_grid(maps.unflatten(1, (2, 3)), images.shape[2], images.shape[3])
    if interpolation == "nearest" and fill == 0:
        return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    # A channel of ones becomes the share of each output pixel that lies inside the image.
    ones = images.new_ones(1, 1, 1, 1).expand(len(images), 1, *images.shape[2:])
    sampled = F.grid_sample(
        torch.cat((images, ones), 1), grid, mode=interpolation, padding_mode="zeros", align_corners=False
    )
    pixels, inside = sampled[:, :-1], sampled[:, -1:]
    if interpolation == "nearest":
        return pixels.masked_fill(inside < 0.5, fill)
    return pixels.sub(fill).mul_(inside).add_(fill)


def source_grid(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The input position of each output pixel, in [-1, 1] units of the input: float32 (N, H, W, 2).

    torchvision multiplies each matrix by the positions of all pixels. The same sums as broadcasts take a tenth of the
    time; their order is kept, so that a nearest pixel is the same one.
    """
    device = maps.device
    x = torch.linspace((1 - width) * 0.5, (width - 1) * 0.5, width, device=device)
    y = torch.linspace((1 - height) * 0.5, (height - 1) * 0.5, height, device=device)
    of_x, of_y, constant = maps.unbind(2)  # each (N, 2)
    sums = (of_x[:, :, None] * x)[:, :, None, :] + (of_y[:, :, None] * y)[:, :, :, None]
    return sums.add_(constant[:, :, None, None]).permute(0, 2, 3, 1)
