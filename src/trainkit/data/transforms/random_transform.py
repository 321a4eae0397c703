"""What a random transform is."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch


class RandomTransform(Protocol):
    """A random transform of images (N, C, H, W) with its own parameters for each sample.

    The parameters are computed on the CPU, in float64 where it matters (MPS has none), so that every device works with
    the same ones. All are float32, which holds offsets and sizes of images exactly: those of all transforms travel to
    the device as one tensor.
    """

    name: ClassVar[str]

    @property
    def num_draws(self) -> int:
        """How many uniform numbers a sample needs."""
        ...

    @property
    def num_parameters(self) -> int:
        """How many numbers ``parameters`` makes of them."""
        ...

    @property
    def shift_per_epoch(self) -> float | None:
        """What is added, modulo 1, to the draws of the first epoch in each one after it; None: each has its own."""
        return None

    def works_on_bytes(self) -> bool:
        """Whether uint8 images give the same as float32 images in [0, 1], converted afterwards."""
        return False

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the result. Raises ValueError where a parameter does not fit."""
        return input_shape

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        """The parameters of each sample: float32 (N, num_parameters) on the CPU.

        Args:
            draws: uniforms in [0, 1): float64 (N, num_draws) on the CPU.
            input_shape: (C, H, W) of the images.
        """
        ...

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Images from (N, C, H, W) in any layout and their parameters, both on one device.

        The result may share the memory of ``images``.
        """
        ...


def between(limits: tuple[float, float], draws: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [low, high) from uniform numbers in [0, 1)."""
    low, high = limits
    return low + (high - low) * draws
