"""Batches of image files that are decoded while training, by processes of torch's DataLoader.

For files that were not materialized. Workers decode them and apply the static transforms; the batch transforms run in
this process as in :mod:`trainkit.data.loading.resident`, and the batches are the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from trainkit.data.dataset import Part
from trainkit.data.images.decode import BadImageError, decode_image
from trainkit.data.images.layout import pixel_size, stack_images
from trainkit.data.loading.resident import Batch, count_batches, epoch_order
from trainkit.data.transforms.pipeline import BatchTransform, build_pipeline
from trainkit.data.transforms.static import StaticTransform, apply_static_transforms
from trainkit.errors import DataError, TrainkitError


class WorkerBatches:
    """The batches of one split of image files, for any epoch, from any batch on."""

    residency = "workers"

    def __init__(
        self,
        part: Part,
        indices: NDArray[np.int64],
        *,
        channels: int,
        static_transforms: Sequence[StaticTransform],
        batch_transforms: Sequence[BatchTransform],
        batch_size: int,
        shuffle: bool,
        seed: int,
        random: bool,
        drop_last: bool = False,
        device: torch.device | None = None,
        channels_last: bool = False,
        batch_transform_keys: Sequence[str] | None = None,
        num_workers: int = 0,
    ) -> None:
        """
        Args:
            part: samples as image files.
            channels: of the decoded images, 1 or 3.
            static_transforms: applied to each image after decoding.
            num_workers: processes that decode; 0 decodes in this process.

        The other arguments are those of :class:`trainkit.data.loading.resident.ResidentBatches`.

        Raises:
            DataError: The first image cannot be read.
            ProblemsError: A transform does not fit the images.
        """
        assert isinstance(part.inputs, tuple), "arrays go through ResidentBatches"
        assert len(indices) > 0, "an empty split"
        self._device = device if device is not None else torch.device("cpu")
        self._indices = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
        self._targets = torch.from_numpy(part.targets)
        self._shuffle, self._seed, self._batch_size = shuffle, seed, batch_size
        self._images = _Images(part.inputs, channels, tuple(static_transforms))
        first = self._images[int(indices[0])]
        if isinstance(first, str):
            raise DataError(first)
        self._pipeline = build_pipeline(
            batch_transforms,
            input_shape=first.shape,
            seed=seed,
            random=random,
            device=self._device,
            channels_last=channels_last,
            keys=batch_transform_keys,
        )
        self.num_samples = len(indices)
        self.batches_per_epoch = count_batches(self.num_samples, batch_size, drop_last=drop_last)
        self.output_shape = self._pipeline.output_shape
        self.residency_reason = f"images are decoded while training, by {num_workers or 'no'} extra processes"
        self._order = _Order()
        self._loader: DataLoader[Any] = DataLoader(
            self._images,
            batch_sampler=self._order,
            num_workers=num_workers,
            collate_fn=_identity,
            persistent_workers=num_workers > 0,
            # Its own generator: drawing from the default one would change dropout.
            generator=torch.Generator(),
        )

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on; the images before it are not decoded.

        Raises:
            DataError: An image cannot be read, or has another size than the others.
            TrainkitError: A worker process died.
        """
        end = min(self.num_samples, self.batches_per_epoch * self._batch_size)
        order = epoch_order(self._seed, epoch, self.num_samples, shuffle=self._shuffle)[:end]
        first, size = start * self._batch_size, self._batch_size
        wanted = [self._indices[order[at : at + size]] for at in range(first, end, size)]
        self._order.batches = [indices.tolist() for indices in wanted]
        images = self._decoded()
        for indices in wanted:
            rows = torch.from_numpy(self._stacked(next(images)))
            targets = self._targets[indices]
            if self._device.type == "cuda":
                rows, targets = rows.pin_memory(), targets.pin_memory()
            rows = rows.to(self._device, non_blocking=True)
            inputs = self._pipeline(rows, indices.numpy(), epoch=epoch)
            yield Batch(inputs, targets.to(self._device, non_blocking=True), indices)

    def _decoded(self) -> Iterator[list[NDArray[np.uint8] | str]]:
        try:
            yield from self._loader
        except RuntimeError as error:
            raise worker_failure(error) or error from None

    def _stacked(self, images: list[NDArray[np.uint8] | str]) -> NDArray[np.uint8]:
        arrays = []
        for image in images:
            if isinstance(image, str):
                raise DataError(image)
            arrays.append(image)
        return stack_images(arrays)


def worker_failure(error: RuntimeError) -> TrainkitError | None:
    """The message for a DataLoader worker that died; None for any other error.

    The death of a worker raises where the main process happens to be, so also in the middle of a training step.
    """
    if "DataLoader worker" not in str(error):
        return None
    first_line = str(error).splitlines()[0]
    return TrainkitError(
        f"a process that loads images died: {first_line} It may have run out of memory; lower training.num_workers "
        "(0 loads in the main process, where an error shows itself), then resume the run"
    )


class _Order:
    """The batch sampler of the loader: each epoch sets its batches, while the workers live on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Images(Dataset[NDArray[np.uint8] | str]):
    """Images by index in the part: uint8 (C, H, W), or a message where one cannot be used.

    Messages are values: an exception would arrive wrapped in the worker's traceback.
    """

    def __init__(self, paths: tuple[Path, ...], channels: int, static_transforms: tuple[StaticTransform, ...]) -> None:
        self.paths, self.channels, self.static_transforms = paths, channels, static_transforms
        self.first: tuple[Path, tuple[int, ...]] | None = None
        """Path and shape of the image that sets the size; read before the workers start."""

    def __getitem__(self, index: int) -> NDArray[np.uint8] | str:
        path = self.paths[index]
        try:
            image = apply_static_transforms(decode_image(path, channels=self.channels), self.static_transforms)
        except BadImageError as error:
            return f"{path}: {error}; remove the file, or raise dataset.max_bad_files"
        if self.first is None:
            self.first = path, image.shape
        first, shape = self.first
        if image.shape != shape:
            return (
                f"{path}: an image of {pixel_size(image.shape)} pixels, and {first} has {pixel_size(shape)}; "
                "give transforms a resize and a center_crop, so that all have one size"
            )
        return image


def _identity(images: list[NDArray[np.uint8] | str]) -> list[NDArray[np.uint8] | str]:
    return images
