"""The batch transforms, random and scaling ones, as one function of rows and the parameters of the random ones.

The parameters of a sample are made of uniform numbers of its own, so the result for a sample depends on (seed, epoch,
sample index) alone: not on the batch, the other samples, the process that works on it or the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainkit.data.images.layout import compact, empty_rows, to_memory_format
from trainkit.data.transforms.columns import FillMissing, Quantile, RobustScale, TableTransform, column_module
from trainkit.data.transforms.crops import RandomResizedCrop
from trainkit.data.transforms.geometry import RandomCrop
from trainkit.data.transforms.normalize import Normalize, Scaling, Standardize, normalize, scaling, unit_floats
from trainkit.data.transforms.operations import LevelsTransform
from trainkit.data.transforms.own import OwnTransform
from trainkit.data.transforms.random_transform import RandomTransform
from trainkit.data.transforms.static import CenterCrop, Grayscale, Resize, StaticTransform, output_shape
from trainkit.runtime import in_threads, uniforms

_GROUP_BYTES = 4 << 20
"""On the CPU images go through all transforms this many bytes of floats at a time, and several threads take turns.
Temporary tensors take several times as much (color_jitter on a batch of 256 x 3 x 224 x 224: a peak of 0.5 to 0.7 GB,
and of 1.8 GB in one go)."""

BatchTransform = RandomTransform | Normalize | Grayscale | TableTransform


@dataclass(frozen=True)
class _RandomStage:
    """A random transform with the purpose of its draws, which names its place: two of a kind draw different numbers."""

    transform: RandomTransform
    purpose: str
    input_shape: tuple[int, int, int]

    def parameters(self, seed: int, indices: NDArray[np.int64], *, epoch: int) -> torch.Tensor:
        """Those of each sample: float32 (N, P) on the CPU."""
        shift = self.transform.shift_per_epoch
        draws = uniforms(seed, self.purpose, epoch if shift is None else 0, indices, self.transform.num_draws)
        if shift is not None:
            draws = (draws + epoch * shift) % 1.0
        return self.transform.parameters(torch.from_numpy(draws), self.input_shape)


@dataclass(frozen=True)
class OwnSizesCrop:
    """The random crop that gives images of their own sizes one size."""

    transform: RandomResizedCrop
    purpose: str
    seed: int

    def draws(self, indices: NDArray[np.int64], *, epoch: int) -> NDArray[np.float64]:
        """The uniform numbers of each sample: (N, draws)."""
        return uniforms(self.seed, self.purpose, epoch, indices, self.transform.num_draws)

    def boxes(self, draws: NDArray[np.float64], sizes: NDArray[np.int64]) -> torch.Tensor:
        """The box of each image, by its height and width (N, 2): float32 (N, 4)."""
        height, width = torch.from_numpy(np.ascontiguousarray(sizes.T))
        return self.transform.boxes(torch.from_numpy(draws), height, width)


@dataclass(frozen=True)
class Pipeline:
    """Turns stored rows into float32 model inputs. Made by :func:`build_pipeline`."""

    stages: tuple[Scaling | _RandomStage | nn.Module, ...]
    seed: int
    output_shape: tuple[int, ...]
    channels_last: bool
    device: torch.device
    crop: OwnSizesCrop | None = None
    """Cuts the rows out of images of their own sizes, before the stages."""

    def parameters(self, indices: NDArray[np.int64], *, epoch: int) -> torch.Tensor:
        """The parameters of the random transforms, side by side: float32 (N, P) on the CPU; P may be 0.

        Args:
            indices: each sample's index in its part: int64 (N,).
            epoch: the epoch that the random transforms draw for.
        """
        columns = [torch.empty(len(indices), 0)]
        for stage in self.stages:
            if isinstance(stage, _RandomStage):
                columns.append(stage.parameters(self.seed, indices, epoch=epoch))
        return torch.cat(columns, 1)

    def __call__(
        self, rows: torch.Tensor, parameters: torch.Tensor | None = None, drawn: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Model inputs: float32 (N, *output_shape).

        Args:
            rows: uint8 (N, C, H, W) or float32 (N, ...), on the device of the pipeline; random transforms
                may overwrite them. The layout of images in memory changes the time, never the result.
            parameters: those of the random transforms, (N, P) on the same device; not needed without any.
            drawn: the same on the CPU, so that nothing has to wait for the device.
        """
        if len(self.output_shape) != 3:
            return unit_floats(self._run(rows, parameters, drawn))
        if rows.device.type != "cpu":
            return to_memory_format(
                unit_floats(self._run(rows.contiguous(), parameters, drawn)), channels_last=self.channels_last
            )
        size = max(1, _GROUP_BYTES // (4 * self._most_numbers(rows)))
        inputs = empty_rows(len(rows), self._image_shape, channels_last=self.channels_last)

        def work(number: int) -> None:
            some = slice(number * size, (number + 1) * size)
            of_some = None if parameters is None else parameters[some]
            self._run(compact(rows[some]), of_some, None, into=inputs[some])

        if any(isinstance(stage, _RandomStage) and isinstance(stage.transform, OwnTransform) for stage in self.stages):
            for number in range(-(-len(rows) // size)):
                work(number)  # code of a plug-in sees one thread
        else:
            in_threads(work, -(-len(rows) // size))
        return to_memory_format(inputs, channels_last=self.channels_last)

    @cached_property
    def _image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.output_shape
        return channels, height, width

    def _most_numbers(self, rows: torch.Tensor) -> int:
        """Numbers of an image where it is largest on its way."""
        shapes = [stage.input_shape for stage in self.stages if isinstance(stage, _RandomStage)]
        return max(rows[0].numel() if len(rows) else 1, *map(math.prod, [self.output_shape, *shapes]))

    def _run(
        self,
        rows: torch.Tensor,
        parameters: torch.Tensor | None,
        drawn: torch.Tensor | None,
        *,
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The stages, one after the other.

        Args:
            into: takes the result as floats, in the layout of the model.
        """
        used = 0
        for stage in self.stages:
            if isinstance(stage, Scaling):
                last = stage is self.stages[-1] and into is not None
                rows = normalize(rows, stage, out=into if last else None)
            elif isinstance(stage, Resize | CenterCrop | Grayscale):
                rows = _apply_static(stage, rows)
            elif isinstance(stage, nn.Module):
                rows = stage(rows)
            else:
                assert parameters is not None, "random transforms have parameters"
                columns = slice(used, used + stage.transform.num_parameters)
                on_cpu = (parameters if drawn is None else drawn)[:, columns]
                rows = _apply(stage.transform, rows, parameters[:, columns], on_cpu)
                used = columns.stop
        if into is not None and rows is not into:
            into.copy_(unit_floats(rows))
        return rows


def in_evaluation(transform: BatchTransform) -> tuple[StaticTransform, ...]:
    """What stands in the place of a transform that changes the shape, where nothing is random."""
    if isinstance(transform, Grayscale):
        return (transform,)
    if isinstance(transform, RandomResizedCrop):
        return transform.in_evaluation()
    return (CenterCrop(transform.size),) if isinstance(transform, RandomCrop) and transform.size is not None else ()


def _apply_static(transform: StaticTransform, rows: torch.Tensor) -> torch.Tensor:
    """Bytes stay bytes; only the CPU resizes them as they are."""
    if isinstance(transform, Resize) and rows.dtype == torch.uint8 and rows.device.type != "cpu":
        return transform.forward(unit_floats(rows)).mul_(255).round_().to(torch.uint8)
    return compact(transform.forward(rows))


def _apply(
    transform: RandomTransform, rows: torch.Tensor, parameters: torch.Tensor, drawn: torch.Tensor
) -> torch.Tensor:
    """Transform images, as floats where bytes would give another result."""
    if isinstance(transform, LevelsTransform):
        return transform.apply_drawn(rows, parameters, drawn)
    return transform.apply(rows if transform.works_on_bytes() else unit_floats(rows), parameters)


def build_pipeline(
    transforms: Sequence[BatchTransform],
    *,
    input_shape: tuple[int, ...],
    seed: int,
    random: bool,
    device: torch.device | None = None,
    channels_last: bool = False,
    own_sizes: bool = False,
) -> Pipeline:
    """Check the batch transforms against the shape of a sample and join them.

    Args:
        transforms: the batch transforms, in order.
        input_shape: (C, H, W) or (F,).
        random: False leaves the random ones out, as in evaluation; a crop becomes one of the center.
        device: the CPU when left out.
        own_sizes: the images have sizes of their own, and ``input_shape`` after the first random transform, a
            ``RandomResizedCrop``: in evaluation it was done before, in training it is ``Pipeline.crop``.

    Raises:
        ValueError: A transform does not fit the shape of the samples. The rules have checked those of a config.
    """
    device = device or torch.device("cpu")
    stages: list[Scaling | _RandomStage | nn.Module] = []
    shape, normalized = input_shape, False
    crop: OwnSizesCrop | None = None
    for index, transform in enumerate(transforms):
        if isinstance(transform, Normalize):
            _check_scaling(transform, shape)
            stages.append(scaling(transform.mean, transform.std, shape, device=device))
            normalized = True
        elif isinstance(transform, FillMissing | Standardize | RobustScale | Quantile):
            module = column_module(transform, device=device)
            if module.numeric > shape[0]:
                raise ValueError(f"expected at most {shape[0]} columns, got {module.numeric}")
            stages.append(module)
            if isinstance(transform, FillMissing):
                shape = (shape[0] + len(transform.flagged),)
        elif isinstance(transform, Grayscale):
            stages.append(transform)
            shape = transform.output_shape((shape[0], shape[1], shape[2]))
        elif own_sizes and crop is None:
            assert isinstance(transform, RandomResizedCrop), "or the images have one size"
            crop = OwnSizesCrop(transform, f"augment.{index}.{transform.name}", seed)
        elif random:
            _check_place(transform, shape, normalized)
            image_shape = shape[0], shape[1], shape[2]
            stages.append(_RandomStage(transform, f"augment.{index}.{transform.name}", image_shape))
            shape = transform.output_shape(image_shape)
        elif steps := in_evaluation(transform):
            stages.extend(steps)
            shape = output_shape(steps, (shape[0], shape[1], shape[2]))
    return Pipeline(
        tuple(stages), seed, shape, channels_last and len(shape) == 3, device, crop=crop if random else None
    )


def _check_scaling(transform: Normalize, shape: tuple[int, ...]) -> None:
    if not len(transform.mean) == len(transform.std) == shape[0]:
        raise ValueError(f"expected {shape[0]} values, got {len(transform.mean)} and {len(transform.std)}")
    bad = [value for value in transform.std if not (value > 0 and math.isfinite(value))]
    if bad:
        raise ValueError(f"standard deviations must be positive numbers, got {bad[0]}")


def _check_place(transform: RandomTransform, shape: tuple[int, ...], normalized: bool) -> None:
    if len(shape) != 3:
        raise ValueError(f"{transform.name} works on images, and the samples have shape {shape}")
    if normalized and (transform.name == "color_jitter" or isinstance(transform, LevelsTransform)):
        raise ValueError(f"{transform.name} needs pixel values in [0, 1], and the images are normalized")
