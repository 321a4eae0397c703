"""Batches of image files that are decoded while training, by processes of torch's DataLoader.

For files that were not materialized. Workers decode them and apply the static transforms; the batch transforms run in
this process as in :mod:`trainkit.data.loading.resident`, and the batches are the same ones.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from trainkit.data.dataset import Part
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import decode_image
from trainkit.data.images.layout import pixel_size, stack_images
from trainkit.data.loading.resident import Batch, Sampler
from trainkit.data.loading.transfer import Chunk, aligned, on_device
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules
from trainkit.data.transforms.crops import resize_box
from trainkit.data.transforms.pipeline import OwnSizesCrop, Pipeline
from trainkit.data.transforms.static import StaticTransform, apply_static_transforms, same_size_hint
from trainkit.errors import DataError, TrainkitError
from trainkit.system import leave_signals_to_parent

_SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps shared memory. Containers often give it 64 MB; other systems have no such limit."""


Key = tuple[int, NDArray[np.float64] | None]
"""An index in the part, and the uniform numbers for its crop, where there is one."""


@dataclass(frozen=True)
class Decoding:
    """How image files become samples, where training decodes them."""

    channels: int
    """Of the decoded images: 1 or 3."""
    static_transforms: Sequence[StaticTransform] = ()
    """Applied to each image after decoding; arrays have them applied already."""
    training_transforms: Sequence[StaticTransform] | None = None
    """Of images that keep sizes of their own until training crops them: applied in place of the others."""
    rules: PixelRules = DEFAULT_RULES
    num_workers: int = 0
    """Processes that decode; 0 decodes in this process."""


class DecodedImages(Dataset[NDArray[np.uint8] | str]):
    """Images by ``Key``: uint8 (C, H, W), or a message where one cannot be used.

    Messages are values: an exception would arrive wrapped in the worker's traceback.
    """

    def __init__(self, paths: tuple[Path, ...], decoding: Decoding, crop: OwnSizesCrop | None = None) -> None:
        """
        Args:
            crop: gives images of their own sizes one size.
        """
        self.paths, self.decoding, self.crop = paths, decoding, crop
        own = None if crop is None else decoding.training_transforms
        self.transforms = tuple(decoding.static_transforms if own is None else own)
        self.first: tuple[Path, tuple[int, ...]] | None = None
        """Path and shape of the first image; the others must have its size."""

    def shape(self, index: int) -> tuple[int, ...]:
        """(C, H, W) of an image, which sets the size of all: read it before the workers start.

        Raises:
            DataError: The image cannot be read.
        """
        image = self[index, None]
        if isinstance(image, str):
            raise DataError(image)
        return image.shape

    def __getitem__(self, key: Key) -> NDArray[np.uint8] | str:
        index, draws = key
        path = self.paths[index]
        try:
            decoded = decode_image(path, channels=self.decoding.channels, rules=self.decoding.rules)
            image = apply_static_transforms(decoded, self.transforms)
        except BadImageError as error:
            return f"{path}: {error}; remove the file, or raise dataset.max_bad_files"
        if self.crop is not None and draws is not None:
            [box] = self.crop.boxes(draws[None], np.array([image.shape[1:]])).long().tolist()
            size, interpolation = self.crop.transform.size, self.crop.transform.interpolation
            return resize_box(image.transpose(1, 2, 0), box, size, interpolation).transpose(2, 0, 1)
        if self.first is None:
            self.first = path, image.shape
        first, shape = self.first
        if image.shape != shape:
            return (
                f"{path}: an image of {pixel_size(image.shape)} pixels, and {first} has {pixel_size(shape)}; "
                + same_size_hint(self.transforms, [(shape[1], shape[2]), (image.shape[1], image.shape[2])])
            )
        return image


class WorkerBatches:
    """The batches of one split of image files, for any epoch, from any batch on."""

    residency = "workers"

    def __init__(self, part: Part, sampler: Sampler, pipeline: Pipeline, images: DecodedImages) -> None:
        """
        Args:
            part: samples as image files.
            images: the decoded images of the part.
        """
        num_workers = images.decoding.num_workers
        self._sampler, self._pipeline, self._device = sampler, pipeline, pipeline.device
        self._targets = torch.from_numpy(part.targets)
        self.num_samples = len(sampler.indices)
        self.batches_per_epoch = sampler.batches_per_epoch
        self._crop = images.crop
        self._order: list[list[Key]] = []
        """The samples of each batch, which every epoch sets: the workers go on from one to the next."""
        self._loader: DataLoader[Any] = DataLoader(
            images,
            batch_sampler=self._order,
            num_workers=num_workers,
            collate_fn=stack,
            pin_memory=self._device.type == "cuda",
            persistent_workers=num_workers > 0,
            # Its own generator: drawing from the default one would change dropout.
            generator=torch.Generator(),
            worker_init_fn=leave_signals_to_parent,
        )

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on; the images before it are not decoded.

        Raises:
            DataError: An image cannot be read, or has another size than the others.
            TrainkitError: A worker process died.
        """
        positions = self._sampler.positions(epoch, start=start)
        whole = [batch for batch in positions.split(self._sampler.batch_size) if len(batch)]
        batches = [(batch, batch[self._sampler.own_rows(start + at, len(batch))]) for at, batch in enumerate(whole)]
        for chunk in on_device(self._load(batches, epoch), self._device):
            inputs = self._pipeline(chunk.rows, chunk.parameters, chunk.drawn)
            yield Batch(aligned(inputs), aligned(chunk.targets), chunk.indices)

    def _load(self, batches: list[tuple[torch.Tensor, torch.Tensor]], epoch: int) -> Iterator[Chunk]:
        """The images of each batch in host memory: its places in the split, and those that this rank needs."""
        sampler = self._sampler
        self._order[:] = [self._keys(own, epoch) for _, own in batches]
        try:
            for (positions, own), images in zip(batches, self._loader, strict=True):
                if isinstance(images, str):
                    raise DataError(images)
                rows = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
                parameters = self._pipeline.parameters(sampler.draw_keys(own), epoch=epoch)
                indices = sampler.indices_at(positions)
                yield Chunk(rows, self._targets[indices], parameters, indices)
        except (RuntimeError, ConnectionError, EOFError) as error:
            raise worker_failure(_with_signal(error)) or error from None

    def _keys(self, positions: torch.Tensor, epoch: int) -> list[Key]:
        indices = self._sampler.indices_at(positions).tolist()
        if self._crop is None:
            return [(index, None) for index in indices]
        return list(zip(indices, self._crop.draws(self._sampler.draw_keys(positions), epoch=epoch), strict=True))


def stack(images: list[NDArray[np.uint8] | str]) -> torch.Tensor | NDArray[np.uint8] | str:
    """The images of a batch as one of (N, C, H, W), or the first message among them.

    A worker sends a tensor through shared memory and an array through a pipe, which takes more copies. The tensor is
    put there here: the thread that sends it would only print that there is no room, and the batch would never arrive.
    """
    arrays = []
    for image in images:
        if isinstance(image, str):
            return image
        arrays.append(image)
    stacked = stack_images(arrays)
    tensor = torch.from_numpy(stacked)
    if get_worker_info() is None:
        return tensor
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free < 2 * stacked.nbytes:
        return stacked
    try:
        tensor.share_memory_()
        return tensor
    except RuntimeError:  # another process took the room meanwhile
        return stacked


def _with_signal(error: Exception) -> Exception:
    """The error of the DataLoader's signal handler where a connection was lost: it says which worker died, and how.

    It comes a moment after the connection is lost, and would interrupt whatever handles that error.
    """
    if isinstance(error, ConnectionError | EOFError):
        try:
            time.sleep(1)  # the handler raises in here
        except RuntimeError as raised:
            return raised
    return error


def worker_failure(error: Exception) -> TrainkitError | None:
    """The error for a DataLoader worker that died; None for any other one.

    The signal handler of the DataLoader raises it anywhere in the main process, also in the middle of a training step.
    If the shared memory of a batch is asked for just then, the connection to the worker is lost first.
    """
    lost = isinstance(error, ConnectionError | EOFError)
    cause = str(error).partition("\n")[0].rstrip(". ")
    if not lost and not cause.startswith(("DataLoader worker", "Pin memory thread")):
        return None
    return TrainkitError(
        f"a process that loads images died: {cause or 'it sent no more'}. It may have run out of memory; lower "
        "training.num_workers (0 loads in the main process, where an error shows itself), then resume the run"
    )
