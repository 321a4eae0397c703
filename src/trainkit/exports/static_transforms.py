"""The deterministic transforms of images as modules, so that they can stand inside an exported program.

They work on uint8 (N, C, H, W) like ``data/resizing.py``, bit for bit, and on floats in [0, 1] alike but without the
rounding to whole grey values. Written without branches on sizes, so that ``torch.export`` keeps height and width free.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.data.transforms.static import CenterCrop, Grayscale, Resize, StaticTransform


class ResizeTo(nn.Module):
    """To ``height`` x ``width``; a ``shorter_side`` above 0 keeps the aspect ratio instead."""

    def __init__(self, height: int, width: int, *, shorter_side: int, mode: str) -> None:
        super().__init__()
        self.height = height
        self.width = width
        self.shorter_side = shorter_side
        self.mode = mode

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W') of the same dtype."""
        height, width = self.height, self.width
        if self.shorter_side > 0:
            shorter = min(images.shape[2], images.shape[3])
            # Exact in integers: the shorter side becomes shorter_side, the longer one is cut to a whole number.
            height = self.shorter_side * images.shape[2] // shorter
            width = self.shorter_side * images.shape[3] // shorter
        if self.mode == "nearest":
            return F.interpolate(images, size=[height, width], mode="nearest")
        resized = F.interpolate(images, size=[height, width], mode=self.mode, align_corners=False, antialias=True)
        return resized if resized.dtype == torch.uint8 else resized.clamp(0.0, 1.0)  # bicubic overshoots


class CropCenter(nn.Module):
    """Cut ``height`` x ``width`` out of the middle; a smaller image is padded with zeros first."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, height, width)."""
        pad_height = max(self.height - images.shape[2], 0)
        pad_width = max(self.width - images.shape[3], 0)
        images = F.pad(images, [pad_width // 2, (pad_width + 1) // 2, pad_height // 2, (pad_height + 1) // 2])
        spare_height = images.shape[2] - self.height
        spare_width = images.shape[3] - self.width
        # Half of the spare pixels, rounded to even as Python's round does.
        top = spare_height // 2 + (spare_height % 2) * ((spare_height // 2) % 2)
        left = spare_width // 2 + (spare_width % 2) * ((spare_width // 2) % 2)
        return images[:, :, top : top + self.height, left : left + self.width]


class ToGray(nn.Module):
    """Luma of RGB: 0.2989 R + 0.587 G + 0.114 B; bytes are cut to a whole number, as torchvision does."""

    def __init__(self, num_output_channels: int, *, from_color: bool) -> None:
        super().__init__()
        self.num_output_channels = num_output_channels
        self.from_color = from_color

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) to (N, num_output_channels, H, W)."""
        if self.from_color:
            luma = images[:, 0].mul(0.2989).add(images[:, 1], alpha=0.587).add(images[:, 2], alpha=0.114)
            images = luma.to(images.dtype).unsqueeze(1)
        return images.expand(-1, self.num_output_channels, -1, -1)


def build_static_transforms(front: Sequence[StaticTransform], *, channels: int) -> nn.Sequential:
    """The steps one after the other, for images of ``channels`` channels."""
    steps: list[nn.Module] = []
    for step in front:
        match step:
            case Resize(size=int(side), interpolation=mode):
                steps.append(ResizeTo(0, 0, shorter_side=side, mode=mode))
            case Resize(size=(height, width), interpolation=mode):
                steps.append(ResizeTo(height, width, shorter_side=0, mode=mode))
            case CenterCrop(size=(height, width)):
                steps.append(CropCenter(height, width))
            case Grayscale(num_output_channels=channels_after):
                steps.append(ToGray(channels_after, from_color=channels == 3))
                channels = channels_after
    return nn.Sequential(*steps)
