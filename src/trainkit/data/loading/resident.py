"""Batches of samples that lie in memory, without a Python loop over samples.

The rows of several batches, a chunk, are gathered, augmented and normalized by a few tensor operations, and the batches
are slices of the result. A chunk is small enough to stay in the processor's cache. Its size never changes a batch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.dataset import Part
from trainkit.data.images.layout import memory_view, view_like
from trainkit.data.loading.balanced import Balance
from trainkit.data.loading.transfer import Chunk, aligned, aligned_parts, on_device
from trainkit.data.ragged import Ragged
from trainkit.data.transforms.pipeline import Pipeline
from trainkit.runtime import Choice, Ranks, free_device_bytes, free_host_bytes, permutation
from trainkit.wording import counted, size_text

_CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 128 << 20, "mps": 32 << 20}
"""Bytes of model inputs made at a time. CPU: chunks of 2 MB stay in the L2/L3 cache (2 cores: 13 ms for the 60,000
images of MNIST, against 32 ms with 8 MB). Accelerators: large enough to hide the launch of the kernels."""
_KNOWN_SHARE = 0.8
"""Share of the device's memory beside the model that data may take; the rest is for temporary tensors."""
_UNKNOWN_SHARE = 0.5
"""The same where nobody knows what the model will take."""
_HOST_SHARE = 0.8


class Batch(NamedTuple):
    """The samples of a training step. The memory of inputs and targets is ``aligned``."""

    inputs: torch.Tensor
    """float32 (B, ...) on the device; where several processes share the batch, of this one's samples only."""
    targets: torch.Tensor
    """int64 (B,) or float32 (B, T) on the device."""
    indices: torch.Tensor
    """Each sample's index in its part: int64 (B,) on the CPU."""
    weights: torch.Tensor | None = None
    """Of the samples in the loss: float32 (B,) on the device; None: all the same."""
    other_targets: torch.Tensor | None = None
    """Of mixed samples: the targets that they were mixed with, as ``targets``. None: nothing is mixed."""
    other_weights: torch.Tensor | None = None
    """Of ``other_targets`` in the loss; ``weights`` are then those of ``targets``."""


class Sampler:
    """The samples of each batch of a split, by epoch."""

    def __init__(
        self,
        part: Part,
        indices: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool = False,
        balance: float | None = None,
        ranks: Ranks | None = None,
        pieces: int | None = None,
    ) -> None:
        """
        Args:
            indices: the samples of the split by their index in the part: int64 (n,).
            balance: the power by which rare classes come more often in a shuffled epoch, see ``Balance``; None: each
                sample comes once.
            ranks: the processes that share the batches: their ``pieces``, or whole batches in turn where that is None.

        Raises:
            ValueError: There is no whole batch, and ``drop_last`` takes no other.
        """
        count = len(indices)
        assert count > 0, "an empty split"
        if drop_last and count < batch_size:
            raise ValueError(f"{counted(count, 'sample')} cannot fill one batch of {batch_size}, and no other is left")
        self.indices = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.batches_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        self.balance = None if balance is None else Balance(torch.from_numpy(part.targets[indices]), balance)
        self.ranks, self.pieces = ranks or Ranks(), pieces

    def own_rows(self, number: int, size: int) -> slice:
        """The samples of batch ``number``, of ``size`` samples, whose inputs this rank needs."""
        if self.ranks.size == 1:
            return slice(0, size)
        if self.pieces is not None:
            return self.ranks.rows(size, pieces=self.pieces)
        return slice(0, size if number % self.ranks.size == self.ranks.rank else 0)

    def positions(self, epoch: int, *, start: int) -> torch.Tensor:
        """Places in the split, in the order of an epoch, from batch ``start`` on: int64.

        A sample that comes again in the epoch has a place of its own each time: the number of samples is added.
        """
        num_samples = len(self.indices)
        if self.shuffle and self.balance is not None:
            order = self.balance.order(self.seed, epoch)
            order = order + num_samples * times_before(order)
        else:
            order = permutation(self.seed, epoch, num_samples) if self.shuffle else torch.arange(num_samples)
        return order[start * self.batch_size : self.batches_per_epoch * self.batch_size]

    def indices_at(self, positions: torch.Tensor) -> torch.Tensor:
        """The samples at these places, by their index in the part: int64."""
        return self.indices[positions % len(self.indices)]

    def draw_keys(self, positions: torch.Tensor) -> NDArray[np.int64]:
        """What random transforms draw by: the samples' indices, and others where one comes again in an epoch."""
        keys: NDArray[np.int64] = (self.indices_at(positions) + (positions // len(self.indices) << 40)).numpy()
        return keys


def times_before(order: torch.Tensor) -> torch.Tensor:
    """How often the value of each element stands before it: int64 (n,)."""
    ascending, places = order.sort(stable=True)
    starts = torch.searchsorted(ascending, ascending)
    return torch.empty_like(order).scatter_(0, places, torch.arange(len(order)) - starts)


class ResidentBatches:
    """The batches of one split, for any epoch, from any batch on."""

    def __init__(
        self,
        part: Part,
        sampler: Sampler,
        pipeline: Pipeline,
        *,
        residency: str = "host",
        chunk_bytes: int | None = None,
    ) -> None:
        """
        Args:
            part: samples as arrays: uint8 (N, C, H, W) in either layout or float32 (N, F); or images of their own
                sizes, which are cropped in host memory.
            residency: ``device``, ``host`` or ``map``, see ``choose_residency``.
            chunk_bytes: bytes of model inputs made at a time; they never change a batch.
        """
        assert not isinstance(part.inputs, tuple), "image files go through WorkerBatches"
        self._sampler, self._pipeline, self._device = sampler, pipeline, pipeline.device
        self._ragged = part.inputs if isinstance(part.inputs, Ragged) else None
        self._inputs = torch.empty(0) if isinstance(part.inputs, Ragged) else _as_tensor(part.inputs)
        self._targets = _as_tensor(part.targets)
        self._weights = None if part.weights is None else _as_tensor(part.weights)
        self.num_samples = len(sampler.indices)
        self.batches_per_epoch = sampler.batches_per_epoch
        chunk_bytes = chunk_bytes or _CHUNK_BYTES[self._device.type]
        batch_bytes = 4 * math.prod(pipeline.output_shape) * sampler.batch_size
        self._chunk_size = sampler.batch_size * max(1, chunk_bytes // batch_bytes)
        self.residency = residency
        if self.residency == "device":
            self._upload()

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on; nothing is done for the ones before it."""
        positions = self._sampler.positions(epoch, start=start)
        chunks = (self._gather(*part, epoch) for part in self._with_own(positions, start))
        number = start
        for chunk in on_device(chunks, self._device):
            rows, targets = chunk.rows, chunk.targets
            if self.residency == "device":
                rows, targets = self._inputs[rows], self._targets[targets]
            tensors = [targets, chunk.indices]
            if self._weights is not None:
                tensors.append(self._weights[chunk.indices].to(self._device))
            inputs = self._pipeline(rows, chunk.parameters, chunk.drawn)
            parts = [aligned_parts(tensor, self._sampler.batch_size) for tensor in tensors]
            yield from map(Batch, self._own_parts(inputs, parts[0], number), *parts)
            number += len(parts[0])

    def _with_own(self, positions: torch.Tensor, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The positions in chunks, each with those whose inputs this rank needs, from batch ``number`` on."""
        sampler = self._sampler
        for chunk in positions.split(self._chunk_size):
            batches = chunk.split(sampler.batch_size) if len(chunk) else ()
            own = [batch[sampler.own_rows(number + at, len(batch))] for at, batch in enumerate(batches)]
            number += len(batches)
            if own:
                yield chunk, chunk if sampler.ranks.size == 1 else torch.cat(own)

    def _own_parts(self, inputs: torch.Tensor, batches: list[torch.Tensor], number: int) -> list[torch.Tensor]:
        """The inputs of each batch that this rank needs."""
        sampler = self._sampler
        if sampler.ranks.size == 1:
            return aligned_parts(inputs, sampler.batch_size)
        rows = [sampler.own_rows(number + at, len(batch)) for at, batch in enumerate(batches)]
        return [aligned(part) for part in inputs.split([part.stop - part.start for part in rows])]

    def _gather(self, positions: torch.Tensor, own: torch.Tensor, epoch: int) -> Chunk:
        """The samples at these positions in the split; where they lie on the device, their positions alone.

        Args:
            own: the positions whose inputs are needed.
        """
        all_indices, indices = self._sampler.indices_at(positions), self._sampler.indices_at(own)
        keys = self._sampler.draw_keys(own)
        parameters = self._pipeline.parameters(keys, epoch=epoch)
        if self._ragged is not None:
            rows = self._cropped(self._ragged, indices.numpy(), keys, epoch)
            return Chunk(rows, self._targets[all_indices], parameters, all_indices)
        if self.residency == "device":
            own, positions = own % self.num_samples, positions % self.num_samples
            return Chunk(own, positions, parameters, all_indices)
        stored = memory_view(self._inputs)
        pin = self._device.type == "cuda"
        rows = torch.empty((len(indices), *stored.shape[1:]), dtype=stored.dtype, pin_memory=pin)
        if self.residency == "map":
            # Read in the order of the file, so that each page of the disk is read once, in order.
            ascending, places = indices.sort()
            torch.index_select(stored.index_select(0, ascending), 0, places.argsort(), out=rows)
        else:
            torch.index_select(stored, 0, indices, out=rows)
        return Chunk(view_like(rows, self._inputs), self._targets[all_indices], parameters, all_indices)

    def _cropped(self, images: Ragged, indices: NDArray[np.int64], keys: NDArray[np.int64], epoch: int) -> torch.Tensor:
        """Images of one size out of those of their own sizes: uint8 or float32 (n, C, H, W)."""
        crop = self._pipeline.crop
        if crop is None:
            return torch.from_numpy(images.stacked(indices)).permute(0, 3, 1, 2)
        return crop.transform.cut(
            lambda position: images.image(indices[position]),
            crop.boxes(crop.draws(keys, epoch=epoch), images.sizes[indices]),
            channels_last=True,
            channels=images.channels,
        )

    def _upload(self) -> None:
        """Put the rows of the split on the device: from now on positions in the split are rows."""
        chunk = max(1, _CHUNK_BYTES["cuda"] // max(1, self._inputs[0].nbytes))
        rows = torch.empty((self.num_samples, *self._inputs.shape[1:]), dtype=self._inputs.dtype, device=self._device)
        for at in range(0, self.num_samples, chunk):
            some = memory_view(self._inputs).index_select(0, self._sampler.indices[at : at + chunk])
            rows[at : at + chunk] = view_like(some.to(self._device), self._inputs)
        self._inputs, self._targets = rows, self._targets[self._sampler.indices].to(self._device)


def choose_residency(
    num_bytes: int, *, device: torch.device, mapped: bool, requested: str = "auto", reserved: int = 0
) -> Choice:
    """Where samples are kept while training: on the ``device``, in ``host`` memory, or in a file (``map``).

    Args:
        num_bytes: size of all splits as they are stored.
        mapped: whether the samples are a memory-mapped file, so that they need not be in memory.
        requested: anything but ``auto`` is taken as it is.
        reserved: bytes of the device that the model takes while training; 0 where that is not known.
    """
    if requested != "auto":
        return Choice(requested, "as asked for")
    size = size_text(num_bytes)
    reason = ""
    if device.type != "cpu":
        free = free_device_bytes(device)
        room = (_KNOWN_SHARE if reserved else _UNKNOWN_SHARE) * (free - reserved)
        beside = f" beside {size_text(reserved)} for the model" if reserved else ""
        if num_bytes <= room:
            return Choice("device", f"{size}, and {size_text(free)} are free on {device}{beside}")
        reason = f", too much for the {size_text(free)} that are free on {device}{beside}"
    free = free_host_bytes()
    if mapped and num_bytes > _HOST_SHARE * free:
        return Choice("map", f"{size}, and {size_text(free)} of memory are free: rows are read from the file")
    return Choice("host", f"{size}{reason or f', and {size_text(free)} of memory are free'}")


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether the array, or the one that it is a part of, is a memory-mapped file."""
    while not isinstance(array, np.memmap):
        if not isinstance(array.base, np.ndarray):
            return False
        array = array.base
    return True


def _as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array as a tensor over the same memory."""
    with warnings.catch_warnings():
        # A map opened for reading cannot be written to, and nothing here does.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
