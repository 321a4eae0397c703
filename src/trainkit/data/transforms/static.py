"""The deterministic transforms of images: resize, center_crop, grayscale. Equal to torchvision's, bit for bit.

All work on uint8 (N, C, H, W) with torch's own kernels (``interpolate`` with antialias, on uint8 itself where the
processor has the vector instructions for it), by the rules of ``torchvision.transforms.v2.functional`` (0.29), so
torchvision need not be imported.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from trainkit.data.images.layout import Shape, compact
from trainkit.errors import Problem, ProblemsError


@dataclass(frozen=True)
class Resize:
    """To (H, W), or so that the shorter side has the given length and the aspect ratio stays."""

    size: tuple[int, int] | int
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        if not isinstance(self.size, int):
            return channels, *self.size
        longer = int(self.size * max(height, width) / min(height, width))
        return (channels, self.size, longer) if height <= width else (channels, longer, self.size)

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        size = self.output_shape(_shape(images))[1:]
        if size == tuple(images.shape[2:]):
            return images
        if self.interpolation == "nearest":
            return F.interpolate(images, size=size, mode="nearest")
        native = self.interpolation == "bicubic" or has_uint8_kernel()
        source = images if native else images.to(torch.float32)
        resized = F.interpolate(source, size=size, mode=self.interpolation, align_corners=False, antialias=True)
        return resized if native else resized.round_().to(torch.uint8)


@dataclass(frozen=True)
class CenterCrop:
    """Cut (H, W) out of the middle; a smaller image is padded with zeros first."""

    size: tuple[int, int]

    def output_shape(self, shape: Shape) -> Shape:
        return shape[0], *self.size

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        (height, width), (crop_height, crop_width) = images.shape[2:], self.size
        pad_height, pad_width = max(crop_height - height, 0), max(crop_width - width, 0)
        if pad_height or pad_width:
            padding = (pad_width // 2, (pad_width + 1) // 2, pad_height // 2, (pad_height + 1) // 2)
            images = F.pad(images, padding)
            height, width = images.shape[2:]
        top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
        return images[:, :, top : top + crop_height, left : left + crop_width]


@dataclass(frozen=True)
class Grayscale:
    """Luma of RGB: 0.2989 R + 0.587 G + 0.114 B, cut to a whole number; 3 output channels are equal."""

    num_output_channels: Literal[1, 3] = 1

    def output_shape(self, shape: Shape) -> Shape:
        return self.num_output_channels, shape[1], shape[2]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] == 3:
            # Planes without gaps: the sum of strided pixels is another kernel, which may round otherwise.
            red, green, blue = images.contiguous().unbind(dim=1)
            # A float factor makes float32 of uint8; the cut at the end is torchvision's, not a rounding.
            luma = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
            images = luma.to(torch.uint8).unsqueeze(1)
        return images.expand(-1, self.num_output_channels, -1, -1)


StaticTransform = Resize | CenterCrop | Grayscale


def has_uint8_kernel() -> bool:
    """Whether bilinear resizing works on uint8 itself; elsewhere it is float32, rounded, and may differ by one."""
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors or platform.machine() in ("aarch64", "arm64")


def _shape(images: torch.Tensor) -> Shape:
    return int(images.shape[1]), int(images.shape[2]), int(images.shape[3])


def apply_steps(images: torch.Tensor, front: Sequence[StaticTransform]) -> torch.Tensor:
    """The front on a batch: uint8 (N, C, H, W) to uint8 (N, C', H', W'), in either layout without gaps."""
    for step in front:
        images = step.apply(images)
    return compact(images)


def apply_static_transforms(image: NDArray[np.uint8], front: Sequence[StaticTransform]) -> NDArray[np.uint8]:
    """The front on one image: uint8 (C, H, W) to uint8 (C', H', W'), in either layout without gaps."""
    while front and _changes_nothing(front[0], image.shape):
        front = front[1:]
    if not front:
        return image
    result: NDArray[np.uint8] = apply_steps(torch.from_numpy(image)[None], front)[0].numpy()
    return result


def _changes_nothing(step: StaticTransform, shape: tuple[int, ...]) -> bool:
    """Whether images of this shape have the size that the step gives."""
    return isinstance(step, Resize | CenterCrop) and step.output_shape((shape[0], shape[1], shape[2])) == shape


def output_shape(front: Sequence[StaticTransform], shape: Shape) -> Shape:
    """(C, H, W) after the front.

    Raises:
        ProblemsError: A side would have no pixel left.
    """
    for step in front:
        shape = step.output_shape(shape)
        if min(shape) < 1:
            message = f"{step} would leave images of {shape[1]} x {shape[2]} pixels; give a larger size"
            raise ProblemsError([Problem(message, key="transforms")])
    return shape


def fixes_size(front: Sequence[StaticTransform]) -> bool:
    """Whether images of any size leave the front with one size."""
    return any(
        isinstance(step, CenterCrop) or (isinstance(step, Resize) and not isinstance(step.size, int)) for step in front
    )


def static_transforms_to_json(front: Sequence[StaticTransform]) -> list[dict[str, Any]]:
    """Plain JSON for checkpoints and cache keys, with the names that a config uses."""
    described: list[dict[str, Any]] = []
    for step in front:
        match step:
            case Resize(size, interpolation):
                plain = size if isinstance(size, int) else list(size)
                described.append({"type": "resize", "size": plain, "interpolation": interpolation})
            case CenterCrop(size):
                described.append({"type": "center_crop", "size": list(size)})
            case Grayscale(num_output_channels):
                described.append({"type": "grayscale", "num_output_channels": num_output_channels})
    return described


def static_transforms_from_json(described: Sequence[dict[str, Any]]) -> tuple[StaticTransform, ...]:
    """The inverse of ``static_transforms_to_json``.

    Raises:
        ValueError: A step that this version does not know.
    """
    steps: list[StaticTransform] = []
    for step in described:
        match step:
            case {"type": "resize", "size": int(side), "interpolation": "nearest" | "bilinear" | "bicubic" as mode}:
                steps.append(Resize(side, mode))
            case {
                "type": "resize",
                "size": [int(height), int(width)],
                "interpolation": "nearest" | "bilinear" | "bicubic" as mode,
            }:
                steps.append(Resize((height, width), mode))
            case {"type": "center_crop", "size": [int(height), int(width)]}:
                steps.append(CenterCrop((height, width)))
            case {"type": "center_crop", "size": int(side)}:
                steps.append(CenterCrop((side, side)))
            case {"type": "grayscale", "num_output_channels": (1 | 3) as channels}:
                steps.append(Grayscale(channels))
            case _:
                raise ValueError(f"unknown image transform {step}")
    return tuple(steps)
