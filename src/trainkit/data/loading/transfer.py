"""How a batch lies in memory: every tensor that a kernel works on starts at a multiple of a boundary."""

from __future__ import annotations

import torch

_BOUNDARY = {"cpu": 64, "cuda": 256, "mps": 256}
"""Bytes. Each is as much as a kernel asks for, and PyTorch's allocators give at least as much to a new tensor."""


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if its memory starts at a boundary (CPU 64 bytes, CUDA 256), else a copy with its strides.

    The matrix product picks its kernel by the alignment of its operands too: the same numbers at another address give
    other last bits. A part of a tensor starts wherever the part before it ends. So that the batches of a resumed run
    give the bits of the whole run, every batch and every piece of a batch goes through here before the model sees it.
    """
    # On MPS, data_ptr() is the handle of the buffer, whose memory is aligned.
    start = tensor.storage_offset() * tensor.element_size() if tensor.device.type == "mps" else tensor.data_ptr()
    return tensor if start % _BOUNDARY.get(tensor.device.type, 256) == 0 else tensor.clone()
