"""Batches of samples that lie in memory, without a Python loop over samples.

The rows of several batches, a chunk, are gathered, augmented and normalized by a few tensor operations, and the batches
are slices of the result. A chunk is small enough to stay in the processor's cache. Its size never changes a batch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.dataset import Part
from trainkit.data.images.layout import memory_view, view_like
from trainkit.data.loading.transfer import aligned
from trainkit.data.transforms.pipeline import Pipeline
from trainkit.runtime import Choice, free_device_bytes, free_host_bytes, permutation
from trainkit.wording import size_text

_CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 128 << 20, "mps": 32 << 20}
"""Bytes of model inputs made at a time. CPU: chunks of 2 MB stay in the L2/L3 cache (2 cores: 13 ms for the 60,000
images of MNIST, against 32 ms with 8 MB). Accelerators: large enough to hide the launch of the kernels."""
_DEVICE_SHARE = 0.5
"""Share of the device's free memory that data may take; the rest is for the model and its activations."""
_HOST_SHARE = 0.8


class Batch(NamedTuple):
    """The samples of a training step. The memory of inputs and targets is ``aligned``."""

    inputs: torch.Tensor
    """float32 (B, ...) on the device."""
    targets: torch.Tensor
    """int64 (B,) or float32 (B, T) on the device."""
    indices: torch.Tensor
    """Each sample's index in its part: int64 (B,) on the CPU."""


@dataclass(frozen=True)
class Sampler:
    """The samples of each batch of a split, by epoch."""

    indices: torch.Tensor
    """The samples of the split by their index in the part: int64 (n,)."""
    batch_size: int
    seed: int
    shuffle: bool
    batches_per_epoch: int

    def positions(self, epoch: int, *, start: int) -> torch.Tensor:
        """Positions in the split, in the order of an epoch, from batch ``start`` on: int64."""
        num_samples = len(self.indices)
        order = permutation(self.seed, epoch, num_samples) if self.shuffle else torch.arange(num_samples)
        return order[start * self.batch_size : self.batches_per_epoch * self.batch_size]


class ResidentBatches:
    """The batches of one split, for any epoch, from any batch on."""

    def __init__(
        self,
        part: Part,
        sampler: Sampler,
        pipeline: Pipeline,
        *,
        residency: str = "auto",
        chunk_bytes: int | None = None,
    ) -> None:
        """
        Args:
            part: samples as arrays: uint8 (N, C, H, W) in either layout or float32 (N, F).
            residency: ``device``, ``host``, ``map``, or ``auto`` to choose by size.
            chunk_bytes: bytes of model inputs made at a time; they never change a batch.
        """
        assert not isinstance(part.inputs, tuple), "image files go through WorkerBatches"
        self._sampler, self._pipeline, self._device = sampler, pipeline, pipeline.device
        self._inputs, self._targets = _as_tensor(part.inputs), _as_tensor(part.targets)
        self.num_samples = len(sampler.indices)
        self.batches_per_epoch = sampler.batches_per_epoch
        chunk_bytes = chunk_bytes or _CHUNK_BYTES[self._device.type]
        batch_bytes = 4 * math.prod(pipeline.output_shape) * sampler.batch_size
        self._chunk_size = sampler.batch_size * max(1, chunk_bytes // batch_bytes)
        num_bytes = self.num_samples * self._inputs[0].nbytes
        choice = choose_residency(num_bytes, device=self._device, mapped=_is_mapped(part.inputs), requested=residency)
        self.residency, self.residency_reason = choice.value, choice.reason
        if self.residency == "device":
            self._upload()

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on; nothing is done for the ones before it."""
        chunks = torch.split(self._sampler.positions(epoch, start=start), self._chunk_size)
        for rows in self._load(chunk for chunk in chunks if len(chunk)):
            inputs = self._pipeline(rows.inputs, rows.indices.numpy(), epoch=epoch)
            tensors = (inputs, rows.targets, rows.indices)
            for parts in zip(*(tensor.split(self._sampler.batch_size) for tensor in tensors), strict=True):
                yield Batch(aligned(parts[0]), aligned(parts[1]), parts[2])

    def _load(self, chunks: Iterator[torch.Tensor]) -> Iterator[Batch]:
        """Rows as they are stored and targets, both on the device, for positions in the split."""
        if self.residency == "device":
            for positions in chunks:
                at = positions.to(self._device, non_blocking=True)
                yield Batch(self._inputs[at], self._targets[at], self._sampler.indices[positions])
        elif self._device.type == "cuda":
            yield from self._copy_ahead(chunks)
        else:
            for positions in chunks:
                rows = self._gather(positions, pin=False)
                yield Batch(rows.inputs.to(self._device), rows.targets.to(self._device), rows.indices)

    def _gather(self, positions: torch.Tensor, *, pin: bool) -> Batch:
        """Rows as they are stored and targets in host memory."""
        indices = self._sampler.indices[positions]
        stored = memory_view(self._inputs)
        rows = torch.empty((len(indices), *stored.shape[1:]), dtype=stored.dtype, pin_memory=pin)
        if self.residency == "map":
            # Read in the order of the file, so that each page of the disk is read once, in order.
            ascending, places = indices.sort()
            torch.index_select(stored.index_select(0, ascending), 0, places.argsort(), out=rows)
        else:
            torch.index_select(stored, 0, indices, out=rows)
        targets = self._targets[indices]
        return Batch(view_like(rows, self._inputs), targets.pin_memory() if pin else targets, indices)

    def _copy_ahead(self, chunks: Iterator[torch.Tensor]) -> Iterator[Batch]:
        """CUDA: copy a chunk to the device while the model works on the batches of the chunk before it."""
        copying = torch.cuda.Stream(self._device)
        waiting: list[tuple[Batch, torch.cuda.Event]] = []
        for positions in chunks:
            waiting.append(self._send(positions, copying))
            if len(waiting) == 2:
                yield self._receive(*waiting.pop(0))
        for sent in waiting:
            yield self._receive(*sent)

    def _send(self, positions: torch.Tensor, copying: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
        rows = self._gather(positions, pin=True)
        with torch.cuda.stream(copying):
            inputs = rows.inputs.to(self._device, non_blocking=True)
            targets = rows.targets.to(self._device, non_blocking=True)
            # PyTorch keeps the pinned memory of a copy until the copy is done.
            return Batch(inputs, targets, rows.indices), copying.record_event()

    def _receive(self, rows: Batch, copied: torch.cuda.Event) -> Batch:
        working = torch.cuda.current_stream(self._device)
        working.wait_event(copied)
        # The memory belongs to the copying stream, which may use it again only after the work on it.
        rows.inputs.record_stream(working)
        rows.targets.record_stream(working)
        return rows

    def _upload(self) -> None:
        """Put the rows of the split on the device: from now on positions in the split are rows."""
        chunk = max(1, _CHUNK_BYTES["cuda"] // max(1, self._inputs[0].nbytes))
        rows = torch.empty((self.num_samples, *self._inputs.shape[1:]), dtype=self._inputs.dtype, device=self._device)
        for at in range(0, self.num_samples, chunk):
            some = memory_view(self._inputs).index_select(0, self._sampler.indices[at : at + chunk])
            rows[at : at + chunk] = view_like(some.to(self._device), self._inputs)
        self._inputs, self._targets = rows, self._targets[self._sampler.indices].to(self._device)


def choose_residency(num_bytes: int, *, device: torch.device, mapped: bool, requested: str = "auto") -> Choice:
    """Where the samples of a split are kept while training: ``device``, ``host`` or ``map``.

    Args:
        num_bytes: size of the split as it is stored.
        mapped: whether the samples are a memory-mapped file, so that they need not be in memory.
        requested: anything but ``auto`` is taken as it is.
    """
    if requested != "auto":
        return Choice(requested, "as asked for")
    size = size_text(num_bytes)
    reason = ""
    if device.type != "cpu":
        free = free_device_bytes(device)
        if num_bytes <= _DEVICE_SHARE * free:
            return Choice("device", f"{size}, and {size_text(free)} are free on {device}")
        reason = f", more than half of the {size_text(free)} that are free on {device}"
    free = free_host_bytes()
    if mapped and num_bytes > _HOST_SHARE * free:
        return Choice("map", f"{size}, and {size_text(free)} of memory are free: rows are read from the file")
    return Choice("host", f"{size}{reason or f', and {size_text(free)} of memory are free'}")


def _is_mapped(array: NDArray[Any]) -> bool:
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
