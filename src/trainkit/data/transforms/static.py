"""The static transforms of images: resize, center_crop, grayscale. Equal to torchvision's, bit for bit.

They are deterministic and come before the first random transform, so they are materialized once. All work on
uint8 (N, C, H, W) with torch's own kernels (``interpolate`` with antialias, on uint8 itself where the processor has the
vector instructions for it), by the rules of ``torchvision.transforms.v2.functional`` (0.29), so torchvision need not be
imported. They are modules for TorchScript and ``torch.export``, so an exported program runs the same code; there
it also works on floats in [0, 1], which are not rounded to whole gray values.

A new one is a class here, a part of ``StaticTransform`` and a case of ``static_transforms_from_json``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit.data.images.layout import Shape, compact, pixel_size
from trainkit.errors import Problem, ProblemsError


class Resize(nn.Module):
    """Resize to (H, W), or so that the shorter side has the given length and the aspect ratio stays."""

    def __init__(
        self, size: tuple[int, int] | int, interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    ) -> None:
        super().__init__()
        self.size = size
        self.interpolation = interpolation
        self.through_floats = interpolation == "bilinear" and not has_uint8_kernel()

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W') of the same dtype."""
        # Without branches on the images' size, so that torch.export keeps height and width free.
        if isinstance(self.size, int):
            _, _, height, width = images.shape
            # Exact in integers: the shorter side gets this length, the longer one is cut to a whole number.
            size = [self.size * height // min(height, width), self.size * width // min(height, width)]
        else:
            size = [self.size[0], self.size[1]]
        if self.interpolation == "nearest":
            return F.interpolate(images, size=size, mode="nearest")
        source = images.to(torch.float32) if self.through_floats else images
        resized = F.interpolate(source, size=size, mode=self.interpolation, align_corners=False, antialias=True)
        if images.dtype == torch.uint8:
            return resized.round_().to(torch.uint8) if self.through_floats else resized
        return resized.clamp(0.0, 1.0)  # bicubic overshoots

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W') of an image of ``shape`` (C, H, W)."""
        channels, height, width = shape
        if not isinstance(self.size, int):
            return channels, *self.size
        return channels, self.size * height // min(height, width), self.size * width // min(height, width)

    def to_json(self) -> dict[str, Any]:
        size = self.size if isinstance(self.size, int) else list(self.size)
        return {"type": "resize", "size": size, "interpolation": self.interpolation}

    def extra_repr(self) -> str:
        return f"size={self.size}, interpolation={self.interpolation!r}"


class Shrink(nn.Module):
    """Shrink images to the pixels of a square of this side at most: random crops are cut from them later."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W') of the same dtype."""
        _, height, width = self.output_shape((images.shape[1], images.shape[2], images.shape[3]))
        return Resize((height, width)).forward(images)

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        if height * width <= self.size**2:
            return shape
        factor = self.size / (height * width) ** 0.5
        return channels, max(1, round(height * factor)), max(1, round(width * factor))

    def to_json(self) -> dict[str, Any]:
        return {"type": "shrink", "size": self.size}

    def extra_repr(self) -> str:
        return f"size={self.size}"


class CenterCrop(nn.Module):
    """Cut (H, W) out of the center; a smaller image is padded with zeros first."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to a view or a copy (N, C, *size)."""
        _, _, height, width = images.shape
        pad_height, pad_width = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        if pad_height > 0 or pad_width > 0:
            images = F.pad(images, [pad_width // 2, (pad_width + 1) // 2, pad_height // 2, (pad_height + 1) // 2])
        spare_height, spare_width = height + pad_height - self.size[0], width + pad_width - self.size[1]
        # Half of the spare pixels, rounded to even as Python's round does.
        top = spare_height // 2 + (spare_height % 2) * ((spare_height // 2) % 2)
        left = spare_width // 2 + (spare_width % 2) * ((spare_width // 2) % 2)
        return images[:, :, top : top + self.size[0], left : left + self.size[1]]

    def output_shape(self, shape: Shape) -> Shape:
        return shape[0], *self.size

    def to_json(self) -> dict[str, Any]:
        return {"type": "center_crop", "size": list(self.size)}

    def extra_repr(self) -> str:
        return f"size={self.size}"


class Grayscale(nn.Module):
    """Luma of RGB: 0.2989 R + 0.587 G + 0.114 B, for uint8 cut to a whole number; 3 output channels are equal."""

    def __init__(self, num_output_channels: Literal[1, 3] = 1) -> None:
        super().__init__()
        self.num_output_channels = num_output_channels

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) to (N, num_output_channels, H, W)."""
        if images.shape[1] == 3:
            # Planes without gaps: the sum of strided pixels is another kernel, which may round otherwise.
            red, green, blue = images.contiguous().unbind(1)
            # A float factor makes float32 of uint8; the cut at the end is torchvision's, not a rounding.
            luma = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
            images = luma.to(images.dtype).unsqueeze(1)
        return images.expand(-1, self.num_output_channels, -1, -1)

    def output_shape(self, shape: Shape) -> Shape:
        return self.num_output_channels, shape[1], shape[2]

    def to_json(self) -> dict[str, Any]:
        return {"type": "grayscale", "num_output_channels": self.num_output_channels}

    def extra_repr(self) -> str:
        return f"num_output_channels={self.num_output_channels}"


StaticTransform = Resize | Shrink | CenterCrop | Grayscale


def has_uint8_kernel() -> bool:
    """Whether bilinear resizing works on uint8 itself; elsewhere it is float32, rounded, and may differ by one."""
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors or platform.machine() in ("aarch64", "arm64")


def _is_identity(transform: StaticTransform, shape: Shape) -> bool:
    """Whether an image of ``shape`` comes out unchanged."""
    gray_of_color = isinstance(transform, Grayscale) and shape[0] > 1
    return transform.output_shape(shape) == shape and not gray_of_color


def apply_static_transforms_to_batch(images: Tensor, static_transforms: Sequence[StaticTransform]) -> Tensor:
    """A batch after the static transforms: uint8 (N, C, H, W) to (N, C', H', W'), in either layout without gaps."""
    shape: Shape = (images.shape[1], images.shape[2], images.shape[3])
    for transform in static_transforms:
        if not _is_identity(transform, shape):
            images = transform.forward(images)  # the call of a module takes 2 us more, which shows with small images
            shape = transform.output_shape(shape)
    return compact(images)


def apply_static_transforms(
    image: NDArray[np.uint8], static_transforms: Sequence[StaticTransform]
) -> NDArray[np.uint8]:
    """One image after the static transforms: uint8 (C, H, W) to uint8 (C', H', W'), in either layout without gaps."""
    shape: Shape = (image.shape[0], image.shape[1], image.shape[2])
    if all(_is_identity(transform, shape) for transform in static_transforms):
        return image
    images = apply_static_transforms_to_batch(torch.from_numpy(image)[None], static_transforms)
    result: NDArray[np.uint8] = images[0].numpy()
    return result


def output_shape(static_transforms: Sequence[StaticTransform], shape: Shape) -> Shape:
    """(C, H, W) of an image of ``shape`` after the static transforms.

    Raises:
        ProblemsError: A side would have no pixel left.
    """
    for transform in static_transforms:
        shape = transform.output_shape(shape)
        if min(shape) < 1:
            message = f"{transform} would leave images of {pixel_size(shape)} pixels; give a larger size"
            raise ProblemsError([Problem(message, key="transforms")])
    return shape


def fixes_size(static_transforms: Sequence[StaticTransform]) -> bool:
    """Whether images of any size have one size after the static transforms."""
    return any(not isinstance(t, Grayscale) and isinstance(t.size, tuple) for t in static_transforms)


def same_size_hint(static_transforms: Sequence[StaticTransform], sizes: Iterable[tuple[int, int]]) -> str:
    """What gives images one size that are of these (height, width) after the static transforms.

    The number is the middle one of their shorter sides, so that about half are made larger, but 224 at most, as more is
    rarely worth its time. Images that are resized already need the crop only.
    """
    sides = sorted(min(size) for size in sizes)
    if any(isinstance(transform, Resize) for transform in static_transforms):
        return f"add {{type: center_crop, size: {sides[0]}}} behind the resize"
    side = min(sides[(len(sides) - 1) // 2], 224)
    return (
        f"add {{type: resize, size: {side}}} and {{type: center_crop, size: {side}}} at the start of transforms, or "
        f"make {{type: random_resized_crop, size: {side}}} the first random one"
    )


def static_transforms_to_json(static_transforms: Sequence[StaticTransform]) -> list[dict[str, Any]]:
    """Plain JSON for checkpoints and cache keys, with the names that a config uses."""
    return [transform.to_json() for transform in static_transforms]


def static_transforms_from_json(described: Sequence[dict[str, Any]]) -> tuple[StaticTransform, ...]:
    """The inverse of ``static_transforms_to_json``.

    Raises:
        ValueError: A transform that this version does not know.
    """
    transforms: list[StaticTransform] = []
    for item in described:
        match item:
            case {"type": "resize", "size": int(side), "interpolation": "nearest" | "bilinear" | "bicubic" as mode}:
                transforms.append(Resize(side, mode))
            case {
                "type": "resize",
                "size": [int(height), int(width)],
                "interpolation": "nearest" | "bilinear" | "bicubic" as mode,
            }:
                transforms.append(Resize((height, width), mode))
            case {"type": "center_crop", "size": [int(height), int(width)]}:
                transforms.append(CenterCrop((height, width)))
            case {"type": "center_crop", "size": int(side)}:
                transforms.append(CenterCrop((side, side)))
            case {"type": "grayscale", "num_output_channels": (1 | 3) as channels}:
                transforms.append(Grayscale(channels))
            case _:
                raise ValueError(f"unknown image transform {item}")
    return tuple(transforms)
