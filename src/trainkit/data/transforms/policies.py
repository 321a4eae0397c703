"""Policies that choose operations at random: TrivialAugmentWide and RandAugment.

Operations, magnitudes, bins and signs are those of ``TrivialAugmentWide`` and ``RandAugment`` in
``torchvision/transforms/v2/_auto_augment.py`` (0.29), and each operation equals torchvision's on one uint8 image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from trainkit.data.transforms import levels
from trainkit.data.transforms.geometry import Interpolation, affine_maps, in_half_sizes
from trainkit.data.transforms.operations import LevelsTransform, Operation
from trainkit.data.transforms.warps import shift, warp_affine

_LEVELS: Mapping[str, Operation] = {
    "brightness": levels.brightness,
    "color": levels.color,
    "contrast": levels.contrast,
    "sharpness": levels.sharpness,
    "posterize": levels.posterize,
    "solarize": levels.solarize,
    "autocontrast": levels.autocontrast,
    "equalize": levels.equalize,
}
_WARPS = {"shear_x": 1, "shear_y": 1, "translate_x": 2, "translate_y": 2, "rotate": 1}
"""Shears and turns are affine maps, one operation; shifts are another one."""
NAMES = ("identity", *_WARPS, *_LEVELS)
"""In torchvision's order."""
_OPERATION = torch.tensor([0, *_WARPS.values(), *range(3, 3 + len(_LEVELS))], dtype=torch.float32)
"""The number of each name's operation, 0 for none."""
_SIGNED = torch.tensor([name in (*_WARPS, "brightness", "color", "contrast", "sharpness") for name in NAMES])
_MAP_SIZE = 6
"""Numbers of an affine map. Other operations take one or two."""


@dataclass(frozen=True)
class _Policy(LevelsTransform):
    num_magnitude_bins: int = 31
    interpolation: Interpolation = "nearest"
    fill: float = 0.0
    """The value outside the image, on the [0, 1] scale; 0 is torchvision's None."""

    farthest: ClassVar[tuple[int, float]]
    """The longest shift in pixels, and as a share of the image."""

    def operations(self) -> Sequence[Operation]:
        fill = 255 * self.fill if self.fill else None
        pixels, share = self.farthest
        return (
            partial(warp_affine, interpolation=self.interpolation, fill=fill),
            partial(shift, pixels=pixels, share=share, fill=fill),
            *_LEVELS.values(),
        )


@dataclass(frozen=True)
class TrivialAugment(_Policy):
    """One operation for each image, with a magnitude from weak to strong (Müller and Hutter, 2021)."""

    name: ClassVar[str] = "trivial_augment"
    num_draws: ClassVar[int] = 3
    num_parameters: ClassVar[int] = 1 + _MAP_SIZE
    farthest: ClassVar[tuple[int, float]] = (32, 0.0)

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        table = magnitudes(
            self.num_magnitude_bins,
            shear=0.99,
            shift=(self.farthest[0], self.farthest[0]),
            turn=135,
            factor=0.99,
            bits=6,
        )
        bins = (draws[:, 1] * self.num_magnitude_bins).long()
        return _choose(draws[:, 0], bins, draws[:, 2], table, input_shape)


@dataclass(frozen=True)
class RandAugment(_Policy):
    """A few operations one after the other for each image, all of one magnitude (Cubuk et al., 2019)."""

    num_ops: int = 2
    magnitude: int = 9
    """The number of the bin, from 0."""

    name: ClassVar[str] = "rand_augment"
    farthest: ClassVar[tuple[int, float]] = (0, 150 / 331)

    @property
    def num_rounds(self) -> int:
        return self.num_ops

    @property
    def num_draws(self) -> int:
        return 2 * self.num_ops

    @property
    def num_parameters(self) -> int:
        return (1 + _MAP_SIZE) * self.num_ops

    def parameters(self, draws: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
        _, height, width = input_shape
        shifts = self.farthest[1] * width, self.farthest[1] * height
        table = magnitudes(self.num_magnitude_bins, shear=0.3, shift=shifts, turn=30, factor=0.9, bits=4)
        bins = torch.full((len(draws),), self.magnitude)
        rounds = draws.split(2, 1)
        return torch.cat([_choose(of[:, 0], bins, of[:, 1], table, input_shape) for of in rounds], 1)


def magnitudes(
    bins: int, *, shear: float, shift: tuple[float, float], turn: float, factor: float, bits: int
) -> torch.Tensor:
    """The magnitude of each operation of ``NAMES`` in each bin: float64 (14, bins).

    Args:
        shear: the largest tangent.
        shift: the largest numbers of pixels along x and y.
        turn: the largest angle in degrees.
        factor: the largest distance of a factor from 1.
        bits: how many bits posterize takes away at most.
    """
    largest = {"shear_x": shear, "shear_y": shear, "translate_x": shift[0], "translate_y": shift[1], "rotate": turn}
    rows = [torch.linspace(0.0, largest.get(name, factor), bins) for name in NAMES]
    rows[NAMES.index("posterize")] = (8 - torch.arange(bins) / ((bins - 1) / bits)).round()
    rows[NAMES.index("solarize")] = torch.linspace(1.0, 0.0, bins)
    return torch.stack(rows).to(torch.float64)  # linspace in float32, as torchvision has it


def _choose(
    which: torch.Tensor, bins: torch.Tensor, sign: torch.Tensor, table: torch.Tensor, input_shape: tuple[int, int, int]
) -> torch.Tensor:
    """The operation of each image and the numbers for it: float32 (N, 7).

    Args:
        which: uniforms in [0, 1) that choose among ``NAMES``: (N,); ``sign`` too, negative below a half.
        bins: int64 (N,).
        table: made by ``magnitudes``.
    """
    chosen = (which * len(NAMES)).long()
    magnitude = torch.where(_SIGNED[chosen] & (sign < 0.5), -table[chosen, bins], table[chosen, bins])
    parameters = torch.zeros(len(which), 1 + _MAP_SIZE)
    parameters[:, 0] = _OPERATION[chosen]
    for index, name in enumerate(NAMES):
        rows = (chosen == index).nonzero().flatten()
        numbers = _numbers(name, magnitude[rows], input_shape)
        parameters[rows, 1 : 1 + numbers.shape[1]] = numbers
    return parameters


def _numbers(name: str, magnitude: torch.Tensor, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """What the operation takes for magnitudes, float64 (n,), as ``_apply_image_or_video_transform``: float32 (n, k)."""
    _, height, width = input_shape
    zero, one = torch.zeros_like(magnitude), torch.ones_like(magnitude)
    match name:
        case "shear_x":  # around the corner, not the center
            return in_half_sizes((one, magnitude, magnitude * height / 2), (zero, one, zero), input_shape)
        case "shear_y":
            return in_half_sizes((one, zero, zero), (magnitude, one, magnitude * width / 2), input_shape)
        case "translate_x":
            numbers = torch.stack((magnitude.trunc(), zero), 1)
        case "translate_y":
            numbers = torch.stack((zero, magnitude.trunc()), 1)
        case "rotate":
            return affine_maps(
                -(magnitude % 360), translate=(zero, zero), scale=one, shear=zero, input_shape=input_shape
            )
        case "brightness":
            numbers = (1 + magnitude)[:, None]
        case "color" | "contrast":
            numbers = torch.stack((1 + magnitude, 1 - (1 + magnitude)), 1)
        case "sharpness":
            numbers = (1 - (1 + magnitude))[:, None]
        case "solarize":
            numbers = (255 * magnitude).to(torch.float32).ceil()[:, None]
        case _:
            numbers = magnitude[:, None]
    return numbers.to(torch.float32)
