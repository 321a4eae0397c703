"""The memory layout of images: shapes are (N, C, H, W) everywhere, and the bytes of color images are N, H, W, C.

Decoders write this layout and convolutions are fastest with it (torch's ``channels_last``), so nothing reorders
channels on the way. Gray images are the same bytes in both layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Shape = tuple[int, int, int]
"""(C, H, W)"""


def pixel_size(shape: Sequence[int]) -> str:
    """``H x W`` of an image (C, H, W), for messages."""
    return f"{shape[1]} x {shape[2]}"


def stored_shape(shape: Shape) -> Shape:
    """The stored shape of an image (C, H, W): (H, W, C) in color, (1, H, W) in gray."""
    channels, height, width = shape
    return (height, width, channels) if channels > 1 else shape


def to_storage(images: NDArray[Any]) -> NDArray[Any]:
    """The (N, H, W, C) view of color images (N, C, H, W); gray ones as they are."""
    return images.transpose(0, 2, 3, 1) if images.shape[1] > 1 else images


def to_nchw(stored: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """The (N, C, H, W) view of images of ``shape`` (C, H, W) that are stored by ``stored_shape``."""
    return stored.transpose(0, 3, 1, 2) if shape[0] > 1 else stored


def stack_images(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images (C, H, W) of one shape as one array (N, C, H, W), stored by ``stored_shape``."""
    channels, height, width = images[0].shape
    shape = (channels, height, width)
    stored = np.empty((len(images), *stored_shape(shape)), dtype=images[0].dtype)
    stacked = to_nchw(stored, shape)
    for row, image in enumerate(images):
        stacked[row] = image
    return stacked


def is_nhwc(images: torch.Tensor) -> bool:
    """Whether these are color images (N, C, H, W) whose memory is N, H, W, C without a gap."""
    return (
        images.dim() == 4
        and images.shape[1] > 1
        and not images.is_contiguous()
        and images.is_contiguous(memory_format=torch.channels_last)
    )


def compact(images: torch.Tensor) -> torch.Tensor:
    """The images (N, C, H, W) without gaps, in their own layout."""
    innermost = images.dim() == 4 and images.shape[1] > 1 and images.stride(1) == 1 < images.stride(3)
    return images.contiguous(memory_format=torch.channels_last if innermost else torch.contiguous_format)


def memory_view(images: torch.Tensor) -> torch.Tensor:
    """The (N, H, W, C) view of images for which ``is_nhwc`` holds, others as they are. Contiguous if these were."""
    return images.permute(0, 2, 3, 1) if is_nhwc(images) else images


def view_like(rows: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The inverse of ``memory_view``: ``rows``, made from ``memory_view(images)``, with the axes of ``images``."""
    return rows.permute(0, 3, 1, 2) if is_nhwc(images) else rows


def empty_rows(num_rows: int, shape: Shape, *, channels_last: bool) -> torch.Tensor:
    """Uninitialized float32 images (num_rows, *shape) in either layout."""
    channels, height, width = shape
    if channels_last:
        return torch.empty(num_rows, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty(num_rows, channels, height, width)


def to_memory_format(images: torch.Tensor, *, channels_last: bool) -> torch.Tensor:
    """Images (N, C, H, W) in the layout of the model."""
    if channels_last and images.shape[1] == 1:
        # Both layouts are the same bytes; without these strides convolutions would take it for channels-first.
        height, width = images.shape[2:]
        return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
