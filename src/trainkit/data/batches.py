"""Batches of samples that lie in memory, without a Python loop over samples.

Work is done in chunks of several batches: the rows of a chunk are gathered, augmented and normalised by a few tensor
operations, and the batches are slices of the result. A chunk is small enough to stay in the processor's cache, and its
size cannot be seen in the batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit import seeding
from trainkit.data.augment import Step, build_pipeline
from trainkit.data.dataset import Part
from trainkit.device import Choice, free_device_bytes, free_host_bytes

_CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 128 << 20, "mps": 32 << 20}
"""Model inputs made at a time. CPU: chunks of 2 MB stay in the L2/L3 cache (2 cores: 13 ms for the 60,000 images of
MNIST, against 32 ms with 8 MB). Accelerators: large enough to hide the launch of the kernels."""
_DEVICE_SHARE = 0.5
"""Share of the device's free memory that data may take; the rest is for the model and its activations."""
_HOST_SHARE = 0.8


class Batch(NamedTuple):
    """What a training step gets."""

    inputs: torch.Tensor
    """float32 (B, ...) on the device."""
    targets: torch.Tensor
    """int64 (B,) or float32 (B, T) on the device."""
    indices: torch.Tensor
    """Each sample's index in its part: int64 (B,) on the CPU."""


class Batches:
    """The batches of one split, for any epoch, from any batch on."""

    def __init__(
        self,
        part: Part,
        indices: NDArray[np.int64],
        *,
        steps: Sequence[Step],
        batch_size: int,
        shuffle: bool,
        seed: int,
        random: bool,
        drop_last: bool = False,
        device: torch.device | None = None,
        channels_last: bool = False,
        step_keys: Sequence[str] | None = None,
        residency: str = "auto",
        chunk_bytes: int | None = None,
    ) -> None:
        """
        Args:
            part: samples as arrays: uint8 (N, C, H, W) or float32 (N, F).
            indices: the samples of the split: int64 (n,).
            steps: random and normalising steps, in order; the random ones only act where ``random`` is true.
            channels_last: give images in this memory layout.
            step_keys: the config key of each step, for messages.
            residency: ``device``, ``host``, ``map``, or ``auto`` to choose by size.
            chunk_bytes: bytes of model inputs made at a time; it does not change what the batches hold.

        Raises:
            ProblemsError: A step does not fit the samples.
        """
        assert not isinstance(part.inputs, tuple), "image files go through WorkerBatches"
        assert len(indices) > 0, "an empty split"
        self._device = device if device is not None else torch.device("cpu")
        self._inputs, self._targets = _as_tensor(part.inputs), _as_tensor(part.targets)
        self._indices = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
        self._shuffle, self._seed, self._batch_size = shuffle, seed, batch_size
        self._pipeline = build_pipeline(
            steps,
            input_shape=tuple(self._inputs.shape[1:]),
            seed=seed,
            random=random,
            device=self._device,
            channels_last=channels_last,
            keys=step_keys,
        )
        self.num_samples = len(indices)
        self.batches_per_epoch = self.num_samples // batch_size if drop_last else -(-self.num_samples // batch_size)
        self.output_shape = self._pipeline.output_shape
        sample_bytes = 4 * int(np.prod(self.output_shape))
        wanted = _CHUNK_BYTES[self._device.type] if chunk_bytes is None else chunk_bytes
        self._chunk_size = batch_size * max(1, wanted // (sample_bytes * batch_size))
        num_bytes = self.num_samples * self._inputs[0].nbytes
        choice = choose_residency(
            num_bytes, device=self._device, mapped=isinstance(part.inputs, np.memmap), requested=residency
        )
        self.residency, self.residency_reason = choice.value, choice.reason
        if self.residency == "device":
            self._upload()

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on; nothing is done for the ones before it."""
        end = min(self.num_samples, self.batches_per_epoch * self._batch_size)
        order = seeding.permutation(self._seed, epoch, self.num_samples) if self._shuffle else None
        chunks = (
            torch.arange(at, min(at + self._chunk_size, end))
            if order is None
            else order[at : min(at + self._chunk_size, end)]
            for at in range(start * self._batch_size, end, self._chunk_size)
        )
        for rows, targets, indices in self._loaded(chunks):
            inputs = self._pipeline(rows, indices.numpy(), epoch=epoch)
            size = self._batch_size
            yield from map(Batch, torch.split(inputs, size), torch.split(targets, size), torch.split(indices, size))

    def _loaded(self, chunks: Iterator[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Rows and targets on the device, and part indices, for positions in the split."""
        if self.residency == "device":
            for positions in chunks:
                at = positions.to(self._device)
                yield self._inputs[at], self._targets[at], self._indices[positions]
        elif self._device.type == "cpu":
            for positions in chunks:
                yield self._gathered(positions)
        else:
            yield from self._copied_ahead(chunks)

    def _gathered(self, positions: torch.Tensor, pin: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows and targets in host memory, and part indices."""
        indices = self._indices.index_select(0, positions)
        rows = torch.empty((len(indices), *self._inputs.shape[1:]), dtype=self._inputs.dtype, pin_memory=pin)
        if self.residency == "map":
            # In the order of the file, so that a disk reads forwards and each page once.
            ascending, back = indices.sort()
            rows[back] = self._inputs.index_select(0, ascending)
        else:
            torch.index_select(self._inputs, 0, indices, out=rows)
        targets = self._targets.index_select(0, indices)
        return rows, targets.pin_memory() if pin else targets, indices

    def _copied_ahead(
        self, chunks: Iterator[torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """One chunk is on its way over the bus while the batches of the chunk before it are worked on."""
        pin = self._device.type == "cuda"
        copying = torch.cuda.Stream(self._device) if pin else None  # type: ignore[no-untyped-call]
        waiting: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        for positions in chunks:
            rows, targets, indices = self._gathered(positions, pin=pin)
            with torch.cuda.stream(copying):
                sent = rows.to(self._device, non_blocking=pin), targets.to(self._device, non_blocking=pin), indices
            if waiting is not None:
                yield waiting
            if copying is not None:
                working = torch.cuda.current_stream(self._device)
                working.wait_stream(copying)
                # The memory belongs to the copying stream: it may be used again only after the work on it.
                sent[0].record_stream(working)
                sent[1].record_stream(working)
            waiting = sent
        if waiting is not None:
            yield waiting

    def _upload(self) -> None:
        """Put the rows of the split on the device: from now on positions in the split are rows."""
        chunk = max(1, _CHUNK_BYTES["cuda"] // max(1, self._inputs[0].nbytes))
        rows = torch.empty((self.num_samples, *self._inputs.shape[1:]), dtype=self._inputs.dtype, device=self._device)
        for at in range(0, self.num_samples, chunk):
            rows[at : at + chunk] = self._inputs[self._indices[at : at + chunk]].to(self._device)
        self._inputs, self._targets = rows, self._targets[self._indices].to(self._device)


def choose_residency(num_bytes: int, *, device: torch.device, mapped: bool, requested: str = "auto") -> Choice:
    """Where the samples of a split are kept while training: ``device``, ``host`` or ``map``.

    Args:
        num_bytes: size of the split as it is stored.
        mapped: whether the samples are a memory-mapped file, so that they need not be in memory.
        requested: anything but ``auto`` is taken as it is.
    """
    if requested != "auto":
        return Choice(requested, "as asked for")
    size = _megabytes(num_bytes)
    reason = ""
    if device.type != "cpu":
        free = free_device_bytes(device)
        if num_bytes <= _DEVICE_SHARE * free:
            return Choice("device", f"{size}, and {_megabytes(free)} are free on {device}")
        reason = f", more than half of the {_megabytes(free)} that are free on {device}"
    free = free_host_bytes()
    if mapped and num_bytes > _HOST_SHARE * free:
        return Choice("map", f"{size}, and {_megabytes(free)} of memory are free: rows are read from the file")
    return Choice("host", f"{size}{reason or f', and {_megabytes(free)} of memory are free'}")


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array as a tensor over the same memory."""
    with warnings.catch_warnings():
        # A map opened for reading cannot be written to, and nothing here does.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
