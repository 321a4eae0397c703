"""``random_resized_crop``: a random box of each image, resized to one size. The boxes and pixels are torchvision's.

The boxes are those of ``torchvision.transforms.v2.RandomResizedCrop.make_params`` (0.29) for the same uniform numbers.
On the CPU each box goes through torch's own kernel, an image at a time in threads: for bytes it takes a thirtieth of
what products with matrices of weights take (0.3 ms against 9 ms for a box of 300 x 300, one core). Accelerators, which
start a kernel for many images at a time, take the products; rounding once where the kernel rounds twice, they may
differ from it by one level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from trainkit.data.images.layout import is_nhwc, memory_view
from trainkit.data.transforms.random_transform import RandomTransform, between
from trainkit.data.transforms.static import CenterCrop, Resize, has_uint8_kernel
from trainkit.runtime import in_threads

Mode = Literal["nearest", "bilinear", "bicubic"]

_NUM_TRIES = 10
_GROUP_BYTES = 256 << 20
"""Accelerators resize images with this many bytes of floats at a time."""
_PER_TASK = 8
"""Images that a thread takes at a time."""


@dataclass(frozen=True)
class RandomResizedCrop(RandomTransform):
    """Cut out a box of random area and aspect ratio at a random place, and resize it (Szegedy et al., 2015)."""

    size: tuple[int, int]
    """(H, W) of the result."""
    scale: tuple[float, float] = (0.08, 1.0)
    """[low, high] of the box's share of the area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """[low, high] of width / height of the box, uniform in its logarithm."""
    interpolation: Mode = "bilinear"
    eval_resize: int = 0
    """The shorter side in evaluation, before ``size`` is cut out of the center."""

    name: ClassVar[str] = "random_resized_crop"
    num_draws: ClassVar[int] = 2 * _NUM_TRIES + 2
    num_parameters: ClassVar[int] = 4

    def works_on_bytes(self) -> bool:
        return True  # torchvision's result for bytes is bytes

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return input_shape[0], *self.size

    def in_evaluation(self) -> tuple[Resize, CenterCrop]:
        """What stands in its place where nothing is random."""
        return Resize(self.eval_resize, self.interpolation), CenterCrop(self.size)

    def most_useful_side(self) -> int:
        """The side of a square image out of which the smallest box has as many pixels as the result, either way.

        More pixels could only be shrunk away.
        """
        height, width = self.size
        return ceil(sqrt(max(height**2 * self.ratio[1], width**2 / self.ratio[0]) / self.scale[0]))

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """The box of each image: first line, first column, height, width."""
        height, width = (torch.full((len(draws),), length) for length in input_shape[1:])
        return self.boxes(draws, height, width)

    def boxes(self, draws: torch.Tensor, height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        """The same for images of their own sizes: int64 (N,) each.

        The first of ten boxes that fits is taken; else the largest in the center whose ratio is in the range.
        torchvision draws shares and ratios in float32, and computes with them in float64.
        """
        tries = draws[:, : 2 * _NUM_TRIES].unflatten(1, (_NUM_TRIES, 2))
        logs = torch.tensor(self.ratio).log().tolist()
        area = (height * width)[:, None] * between(self.scale, tries[:, :, 0]).to(torch.float32).to(torch.float64)
        ratio = between((logs[0], logs[1]), tries[:, :, 1]).to(torch.float32).exp().to(torch.float64)
        widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (widths > 0) & (widths <= width[:, None]) & (heights > 0) & (heights <= height[:, None])
        first = fits.long().argmax(1, keepdim=True)  # the first of equal maxima
        box_height, box_width = (sizes.gather(1, first).squeeze(1) for sizes in (heights, widths))
        places = draws[:, 2 * _NUM_TRIES :]
        top = (places[:, 0] * (height - box_height + 1)).long()
        left = (places[:, 1] * (width - box_width + 1)).long()
        drawn = torch.stack((top, left, box_height, box_width), 1)
        return torch.where(fits.any(1, keepdim=True), drawn, self._central(height, width)).to(torch.float32)

    def _central(self, height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        low, high = min(self.ratio), max(self.ratio)
        ratio = width.double() / height.double()
        box_height = torch.where(ratio < low, (width / low).round().long(), height)
        box_width = torch.where(ratio > high, (height * high).round().long(), width)
        top, left = (height - box_height) // 2, (width - box_width) // 2
        return torch.stack((top, left, box_height, box_width), 1)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        if images.device.type != "cpu":
            return _resize_by_products(images, parameters, self.size, self.interpolation)
        stored = memory_view(images)
        rows = stored.numpy() if stored is not images else images.permute(0, 2, 3, 1).numpy()
        return self.cut(rows.__getitem__, parameters, channels_last=is_nhwc(images), channels=images.shape[1])

    def cut(
        self,
        pixels_of: Callable[[int], NDArray[Any]],
        boxes: torch.Tensor,
        *,
        channels_last: bool,
        channels: int,
    ) -> torch.Tensor:
        """Cut boxes (N, 4) out of images on the CPU, and resize them, in threads.

        Args:
            pixels_of: gives the pixels of each of N images by its position: (H, W, C), uint8 or float32.
            channels_last: the memory layout of the result.
        """
        count, places = len(boxes), boxes.long().tolist()
        dtype = pixels_of(0).dtype if count else np.dtype(np.uint8)
        resized = np.empty((count, *self.size, channels), dtype)

        def work(number: int) -> None:
            for row in range(number * _PER_TASK, min((number + 1) * _PER_TASK, count)):
                resized[row] = resize_box(pixels_of(row), places[row], self.size, self.interpolation)

        in_threads(work, -(-count // _PER_TASK))
        rows = torch.from_numpy(resized).permute(0, 3, 1, 2)
        return rows if channels_last else rows.contiguous()


def resize_box(pixels: NDArray[Any], box: Sequence[int], size: tuple[int, int], interpolation: Mode) -> NDArray[Any]:
    """A box (top, left, height, width) of an image (H, W, C), resized: (*size, C) of the same dtype.

    As torchvision's ``resized_crop`` with ``antialias=True``, for uint8 and float32.
    """
    top, left, height, width = box
    # Copies by NumPy stay in this thread; torch would split each of them over threads of its own.
    cut = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    if (height, width) == size:
        return cut
    image = torch.from_numpy(cut).permute(2, 0, 1)[None]
    image = image.as_strided(image.shape, (image.numel(), *image.stride()[1:]))  # else it counts as channels-first
    if interpolation == "nearest":
        return F.interpolate(image, size=size, mode="nearest")[0].permute(1, 2, 0).numpy()
    through_floats = image.dtype == torch.uint8 and interpolation == "bilinear" and not has_uint8_kernel()
    source = image.to(torch.float32) if through_floats else image
    resized = F.interpolate(source, size=size, mode=interpolation, align_corners=False, antialias=True)
    resized = resized.round_().to(torch.uint8) if through_floats else resized
    return resized[0].permute(1, 2, 0).numpy()


def _resize_by_products(
    images: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], interpolation: Mode
) -> torch.Tensor:
    """Boxes (N, 4) of images (N, C, H, W), resized on any device: two products with a matrix of weights each."""
    _, channels, height, width = images.shape
    group = max(1, _GROUP_BYTES // (8 * channels * max(height, size[0]) * max(width, size[1])))
    done = []
    for some, of_some in zip(images.split(group), boxes.split(group), strict=True):
        lines = _weights(of_some[:, 0], of_some[:, 2], size[0], height, interpolation)
        columns = _weights(of_some[:, 1], of_some[:, 3], size[1], width, interpolation)
        narrow = some.to(torch.float32) @ columns.transpose(1, 2)[:, None]
        if images.dtype == torch.uint8:
            narrow.clamp_(0, 255)  # bicubic overshoots, and the kernel keeps bytes between its two passes
        resized = lines[:, None] @ narrow
        done.append(resized.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else resized)
    return torch.cat(done)


def _weights(start: torch.Tensor, length: torch.Tensor, size: int, limit: int, interpolation: Mode) -> torch.Tensor:
    """What each of ``limit`` pixels of a line adds to each of ``size`` pixels of the result: float32 (N, size, limit).

    Args:
        start: the first pixel of each box: (N,).
        length: how many it has: (N,).
    """
    outputs = torch.arange(size, device=start.device)[None, :, None]
    positions = torch.arange(limit, device=start.device)[None, None, :] - start[:, None, None]
    scale = (length / size)[:, None, None]
    if interpolation == "nearest":
        return (positions == (outputs * scale).floor()).to(torch.float32)
    shrink = scale.clamp(min=1)
    distance = ((positions - (outputs + 0.5) * scale + 0.5) / shrink).abs()
    if interpolation == "bilinear":
        weights = (1 - distance).clamp(min=0)
    else:  # with a = -0.5, as in Pillow and in torch's antialiased kernel
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    weights = weights * ((positions >= 0) & (positions < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)
