"""Images of their own sizes: one array with the pixels of all, one after the other, and their sizes.

Training reads random crops from it. The samples of other splits lie in it as evaluation takes them, all of one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """N images with the same number of channels. Stored pixels are H, W, C."""

    pixels: NDArray[Any]
    """uint8, or float32 in [0, 1]: (sum of H * W * C,); it may be a memory-mapped file."""
    sizes: NDArray[np.int64]
    """(N, 2): height and width of each."""
    channels: int
    size: tuple[int, int]
    """(H, W) of every crop in training, and of every image in evaluation."""
    training: NDArray[np.bool_]
    """(N,): whether an image has its own size, for training; else it is as evaluation takes it."""
    paths: tuple[Path, ...]
    """The files that the images were decoded from."""

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each image begins in ``pixels``, and where the last one ends: (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes.prod(1) * self.channels)])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W), after the crop."""
        return len(self.sizes), self.channels, *self.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.pixels.dtype

    def __len__(self) -> int:
        return len(self.sizes)

    def image(self, index: int) -> NDArray[Any]:
        """A view of the stored pixels: (H, W, C)."""
        height, width = self.sizes[index]
        return self.pixels[self.offsets[index] : self.offsets[index + 1]].reshape(height, width, self.channels)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """The same as (C, H, W)."""
        return self.image(index).transpose(2, 0, 1)

    def stacked(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Images of evaluation as one array (n, *size, C)."""
        return np.stack([self.image(index) for index in indices])

    def num_bytes(self, indices: NDArray[np.int64]) -> int:
        """Bytes of the pixels of some images."""
        return int(self.sizes[indices].prod(1).sum()) * self.channels * self.pixels.itemsize

    def blocks(self, indices: NDArray[np.int64], num_bytes: int) -> Iterator[NDArray[Any]]:
        """The pixels of some images, a few images at a time: (1, C, 1, pixels)."""
        ends = np.cumsum(self.sizes[indices].prod(1)) * self.channels * self.pixels.itemsize
        for some in np.split(indices, np.flatnonzero(np.diff(ends // num_bytes)) + 1):
            pixels = np.concatenate([self.image(index).reshape(-1, self.channels) for index in some])
            yield pixels.T[None, :, None, :]


def from_images(images: list[NDArray[Any]], paths: tuple[Path, ...], size: tuple[int, int]) -> Ragged:
    """Decoded images (C, H, W) for training, in memory; ``size`` is that of the crops."""
    pixels = np.concatenate([np.ascontiguousarray(image.transpose(1, 2, 0)).reshape(-1) for image in images])
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64)
    return Ragged(pixels, sizes, images[0].shape[0], size, np.ones(len(images), dtype=bool), paths)
