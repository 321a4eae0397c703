"""Sampling uint8 images at other positions, with a map of its own for every image: affine and perspective.

As ``affine``, ``rotate`` and ``perspective`` of ``torchvision.transforms.v2.functional`` on one uint8 image at a time:
with ``nearest`` the same pixels, with ``bilinear`` within one level.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from trainkit.data.transforms.geometry import Interpolation, pad, source_grid, windows

MOST_PIXELS = (1 << 24) - 1
"""Pixels that float32 can number."""


def warp_affine(
    images: torch.Tensor, maps: torch.Tensor, *, interpolation: Interpolation, fill: float | None
) -> torch.Tensor:
    """Sample images uint8 (n, C, H, W) at affine maps (n, 6), measured as by ``affine_maps``."""
    grid = source_grid(maps.unflatten(1, (2, 3)), images.shape[2], images.shape[3])
    return _sample_levels(images, grid, interpolation=interpolation, fill=fill)


def shift(
    images: torch.Tensor, numbers: torch.Tensor, *, pixels: int, share: float, fill: float | None
) -> torch.Tensor:
    """Move images by whole pixels along x and y (n, 2): an affine map too, which copies whole lines.

    Args:
        pixels: no image is moved further than this, or than ``share`` of the longer side.
    """
    height, width = images.shape[2:]
    most = max(pixels, int(share * max(height, width)))
    padded = pad(images, most, "constant", (fill or 0.0) / 255)
    return windows(padded, most - numbers[:, :2].flip(1).long(), (height, width))


def warp_perspective(
    images: torch.Tensor, maps: torch.Tensor, *, interpolation: Interpolation, fill: float | None
) -> torch.Tensor:
    """Sample images uint8 (n, C, H, W) at the quotients of linear maps (n, 8): two by a common divisor.

    As ``_perspective_grid`` of torchvision, with its coefficients a to h.
    """
    height, width = images.shape[2:]
    x = torch.linspace(0.5, width - 0.5, width, device=maps.device)
    y = torch.linspace(0.5, height - 0.5, height, device=maps.device)[:, None]
    a, b, c, d, e, f, g, h = maps[:, :, None, None].unbind(1)
    divisor = (g * x + h * y).add_(1)
    half_width, half_height = 0.5 * width, 0.5 * height
    across = (a / half_width * x + b / half_width * y).add_(c / half_width)
    down = (d / half_height * x + e / half_height * y).add_(f / half_height)
    grid = torch.stack((across.div_(divisor).sub_(1), down.div_(divisor).sub_(1)), 3)
    return _sample_levels(images, grid, interpolation=interpolation, fill=fill)


def _sample_levels(
    images: torch.Tensor, grid: torch.Tensor, *, interpolation: Interpolation, fill: float | None
) -> torch.Tensor:
    """Images at the positions of ``grid`` (n, H, W, 2) in [-1, 1] units.

    Args:
        fill: the level outside the image; None for zeros outside, which a bilinear border pixel takes part in.
    """
    if interpolation == "nearest":
        return _nearest(images, grid, round(fill or 0.0))
    pixels = images.to(torch.float32)
    if fill is not None:
        pixels = torch.cat((pixels, pixels.new_ones(1, 1, 1, 1).expand(len(images), 1, *images.shape[2:])), 1)
    sampled = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if fill is not None:
        sampled, share = sampled[:, :-1], sampled[:, -1:]
        sampled = sampled.sub(fill).mul_(share).add_(fill)
    return sampled.round_().to(torch.int16).to(torch.uint8)


def _nearest(images: torch.Tensor, grid: torch.Tensor, fill: int) -> torch.Tensor:
    """The pixels nearest to the positions.

    PyTorch's own sampling finds them, in images of pixel numbers, so that halfway between two pixels it is the same
    one; the bytes are then copied. That takes a quarter of the time of sampling three channels as floats.
    """
    count, channels, height, width = images.shape
    most = MOST_PIXELS // (height * width)
    if count > most:
        groups = zip(images.split(most), grid.split(most), strict=True)
        return torch.cat([_nearest(some, of_some, fill) for some, of_some in groups])
    numbers = torch.arange(1, count * height * width + 1, dtype=torch.float32, device=images.device)
    found = F.grid_sample(
        numbers.view(count, 1, height, width), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    rows = images.permute(0, 2, 3, 1).reshape(-1, channels)
    outside = torch.full_like(rows[:1], fill)  # number 0
    rows, numbers = torch.cat((outside, rows)), found.flatten().to(torch.int64)
    if images.device.type == "cpu":  # NumPy takes two thirds of the time for rows of a few bytes
        rows = torch.from_numpy(np.take(rows.numpy(), numbers.numpy(), axis=0))
    else:
        rows = rows.index_select(0, numbers)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
