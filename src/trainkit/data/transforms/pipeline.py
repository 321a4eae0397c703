"""The batch transforms, random and scaling ones, as one function of (rows, indices, epoch).

A random transform gets one row of uniform numbers for each sample and nothing else, so its result for a sample depends
on (seed, epoch, sample index) alone: not on the batch, the other samples or the process that works on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.images.layout import compact, empty_rows, is_nhwc, to_memory_format
from trainkit.data.transforms.geometry import RandomCrop
from trainkit.data.transforms.normalize import Normalize, Scaling, Standardize, normalize, scaling, unit_floats
from trainkit.data.transforms.static import CenterCrop
from trainkit.runtime import seeding

_GROUP_BYTES = 4 << 20
"""On the CPU, transforms that work on floats get this many bytes of them at a time: their temporary tensors take
several times as much (color_jitter on a batch of 256 x 3 x 224 x 224: a peak of 0.5 to 0.7 GB, and of 1.8 GB in one
go)."""


class RandomTransform(Protocol):
    """A random transform of images (N, C, H, W) with its own parameters for each sample."""

    name: ClassVar[str]
    num_draws: ClassVar[int]
    """How many uniform numbers a sample needs."""

    def works_on_bytes(self) -> bool:
        """Whether uint8 images give the same as float32 images in [0, 1], converted afterwards."""
        ...

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of the result. Raises ValueError where a knob does not fit."""
        ...

    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Images from (N, C, H, W) in any layout and uniforms in [0, 1): float64 (N, num_draws) on the CPU.

        The result may lie in the memory of ``images``.
        """
        ...


BatchTransform = RandomTransform | Normalize | Standardize


@dataclass(frozen=True)
class _RandomStage:
    transform: RandomTransform
    purpose: str
    """Of the draws, by the place in the list: two transforms of a kind draw apart."""


@dataclass(frozen=True)
class Pipeline:
    """Turns rows as they are stored into float32 model inputs. Made by :func:`build_pipeline`."""

    stages: tuple[Scaling | _RandomStage | CenterCrop, ...]
    seed: int
    output_shape: tuple[int, ...]
    channels_last: bool

    def __call__(self, rows: torch.Tensor, indices: NDArray[np.int64], *, epoch: int) -> torch.Tensor:
        """Model inputs: float32 (N, *output_shape).

        Args:
            rows: uint8 (N, C, H, W) or float32 (N, ...), on the device of the pipeline; random transforms
                may overwrite them. The layout of images in memory changes the time, never the result.
            indices: each row's index in its part: int64 (N,).
            epoch: the epoch that the random transforms draw for.
        """
        if len(self.output_shape) == 3:
            rows = compact(rows) if rows.device.type == "cpu" else rows.contiguous()
        for stage in self.stages:
            if isinstance(stage, Scaling):
                rows = normalize(rows, stage)
            elif isinstance(stage, CenterCrop):
                rows = compact(stage(rows))
            else:
                transform = stage.transform
                draws = torch.from_numpy(
                    seeding.uniforms(self.seed, stage.purpose, epoch, indices, transform.num_draws)
                )
                rows = (
                    transform.apply(rows, draws)
                    if transform.works_on_bytes()
                    else _apply_to_floats(transform, rows, draws)
                )
        inputs = unit_floats(rows)
        return to_memory_format(inputs, channels_last=self.channels_last) if len(self.output_shape) == 3 else inputs


def _apply_to_floats(transform: RandomTransform, rows: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Convert images to floats and transform them; on the CPU, a group of them at a time."""
    _, channels, height, width = rows.shape
    shape = transform.output_shape((channels, height, width))
    size = max(1, _GROUP_BYTES // (4 * math.prod(shape)))
    if len(rows) <= size or rows.device.type != "cpu":
        return transform.apply(unit_floats(rows), draws)
    images = empty_rows(len(rows), shape, channels_last=is_nhwc(rows))
    for group, some, drawn in zip(images.split(size), rows.split(size), draws.split(size), strict=True):
        group.copy_(transform.apply(unit_floats(some), drawn))
    return images


def build_pipeline(
    transforms: Sequence[BatchTransform],
    *,
    input_shape: tuple[int, ...],
    seed: int,
    random: bool,
    device: torch.device | None = None,
    channels_last: bool = False,
    keys: Sequence[str] | None = None,
) -> Pipeline:
    """Check the batch transforms against the shape of a sample and join them.

    Args:
        transforms: the batch transforms, in order.
        input_shape: (C, H, W) or (F,).
        random: False leaves the random ones out, as evaluation does; a random crop becomes one of the center.
        keys: the config key of each transform, for messages; ``transforms[i]`` when left out.

    Raises:
        ValueError: A transform does not fit the shape of the samples. Of a config, the rules have said so before.
    """
    stages: list[Scaling | _RandomStage | CenterCrop] = []
    shape, normalized = input_shape, False
    for index, transform in enumerate(transforms):
        key = keys[index] if keys is not None else f"transforms[{index}]"
        try:
            if isinstance(transform, (Normalize, Standardize)):
                _check_scaling(transform, shape)
                stages.append(scaling(transform.mean, transform.std, shape, device=device))
                normalized = True
            elif not random:
                # Only the size of a crop is not left to chance.
                if isinstance(transform, RandomCrop) and transform.size is not None:
                    stages.append(CenterCrop(transform.size))
                    shape = (shape[0], *transform.size)
            else:
                _check_place(transform, shape, normalized)
                shape = transform.output_shape((shape[0], shape[1], shape[2]))
                stages.append(_RandomStage(transform, f"augment.{index}.{transform.name}"))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return Pipeline(tuple(stages), seed, shape, channels_last and len(shape) == 3)


def _check_scaling(transform: Normalize | Standardize, shape: tuple[int, ...]) -> None:
    if not len(transform.mean) == len(transform.std) == shape[0]:
        raise ValueError(f"expected {shape[0]} values, got {len(transform.mean)} and {len(transform.std)}")
    bad = [value for value in transform.std if not (value > 0 and math.isfinite(value))]
    if bad:
        raise ValueError(f"standard deviations must be positive numbers, got {bad[0]}")


def _check_place(transform: RandomTransform, shape: tuple[int, ...], normalized: bool) -> None:
    if len(shape) != 3:
        raise ValueError(f"{transform.name} works on images, and the samples have shape {shape}")
    if normalized and transform.name == "color_jitter":
        raise ValueError("color_jitter needs pixel values in [0, 1], and the images are normalized")
