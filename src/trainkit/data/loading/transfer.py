"""The way of samples to the device: copied while it works on the ones before, and every batch aligned in its memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch

_BOUNDARY = {"cpu": 64, "cuda": 256, "mps": 256}
"""Bytes. Each is as much as a kernel asks for, and PyTorch's allocators give at least as much to a new tensor."""


class Chunk(NamedTuple):
    """Samples on their way to a batch, or to several."""

    rows: torch.Tensor
    """Inputs as they are stored, or where to find them: (N, ...)."""
    targets: torch.Tensor
    parameters: torch.Tensor
    """Of the random transforms: float32 (N, P)."""
    indices: torch.Tensor
    """Each sample's index in its part: int64 (N,). Always on the CPU."""
    drawn: torch.Tensor | None = None
    """The parameters on the CPU, once the others are on the device."""


def on_device(chunks: Iterator[Chunk], device: torch.device) -> Iterator[Chunk]:
    """The chunks on the device, in order. On CUDA each is copied while the device works on the one before it."""
    if device.type != "cuda":
        # Blocking: on MPS, a copy that does not block reads memory that may be freed meanwhile.
        for chunk in chunks:
            rows, targets, parameters = (tensor.to(device) for tensor in chunk[:3])
            yield Chunk(rows, targets, parameters, chunk.indices, chunk.parameters)
        return
    sent: tuple[Chunk, torch.cuda.Event] | None = None
    for chunk in chunks:
        before, sent = sent, _send(chunk, device)
        if before is not None:
            yield _receive(*before, device)
    if sent is not None:
        yield _receive(*sent, device)


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies to the device: one for all splits and epochs, since freed memory stays with its stream."""
    return torch.cuda.Stream(device)


def _send(chunk: Chunk, device: torch.device) -> tuple[Chunk, torch.cuda.Event]:
    """Start to copy from pinned memory, which PyTorch keeps until the copy is done: nothing waits for the device."""
    stream = _copying(device)
    pinned = [tensor.pin_memory() if tensor.numel() else tensor for tensor in chunk[:3]]
    with torch.cuda.stream(stream):
        rows, targets, parameters = (tensor.to(device, non_blocking=True) for tensor in pinned)
        return Chunk(rows, targets, parameters, chunk.indices, chunk.parameters), stream.record_event()


def _receive(chunk: Chunk, copied: torch.cuda.Event, device: torch.device) -> Chunk:
    working = torch.cuda.current_stream(device)
    working.wait_event(copied)
    for tensor in chunk[:3]:
        # The memory belongs to the copying stream, which may use it again only after the work on it.
        tensor.record_stream(working)
    return chunk


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if its memory starts at a boundary (CPU 64 bytes, CUDA 256), else a copy with its strides.

    The matrix product picks its kernel by the alignment of its operands too: the same numbers at another address give
    other last bits. A part of a tensor starts wherever the part before it ends. So that the batches of a resumed run
    give the bits of the whole run, every batch and every piece of a batch goes through here before the model sees it.
    """
    # On MPS, data_ptr() is the handle of the buffer, whose memory is aligned.
    start = tensor.storage_offset() * tensor.element_size() if tensor.device.type == "mps" else tensor.data_ptr()
    return tensor if start % _BOUNDARY.get(tensor.device.type, 256) == 0 else tensor.clone()


def aligned_parts(tensor: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The tensor cut into parts of ``size`` rows, each aligned."""
    parts = tensor.split(size)
    distance = size * tensor.stride(0) * tensor.element_size()
    if distance % _BOUNDARY.get(tensor.device.type, 256) == 0 and aligned(parts[0]) is parts[0]:
        return list(parts)
    return [aligned(part) for part in parts]
