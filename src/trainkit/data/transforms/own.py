"""Random transforms of plug-ins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainkit.data.transforms.random_transform import RandomTransform
from trainkit.errors import Problem, ProblemsError


class OwnTransform(RandomTransform):
    """A function of images and of uniform numbers of each: float32 (N, C, H, W) in [0, 1] and (N, D), on one device."""

    def __init__(self, name: str, draws: int, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name = name
        self.draws, self.function = draws, function

    @property
    def num_draws(self) -> int:
        return self.draws

    @property
    def num_parameters(self) -> int:
        return self.draws

    def parameters(self, draws: Tensor, input_shape: tuple[int, int, int]) -> Tensor:
        """The uniform numbers, below 1 in float32 too."""
        return draws.to(torch.float32).clamp(max=1 - 2**-24)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        made = self.function(images, parameters)
        if made.shape != images.shape or made.dtype != images.dtype:
            got = f"{made.dtype} {tuple(made.shape)}"
            message = f"{self.name} has to keep dtype and shape of {tuple(images.shape)} images, got {got}"
            raise ProblemsError([Problem(message, "transforms")])
        return made
