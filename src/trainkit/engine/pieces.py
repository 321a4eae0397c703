"""A batch in pieces: the unit of computation, whichever process does it.

Gradients of pieces are added in the order of a binary tree, and batch-norm statistics are applied in the order of the
pieces. Both depend on the number of pieces alone, so one process that works through all of them and several that share
them come to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainkit.data.loading import Batch, aligned
from trainkit.runtime import Ranks


class Piece(NamedTuple):
    """What is known of a piece besides its gradients."""

    loss: Tensor
    """Summed over its samples: ()."""
    predicted: Tensor | None
    """The predicted classes, int64 (N,); None for values."""
    statistics: list[Tensor]
    """Mean and unbiased variance of the inputs of each batch norm: (2, C) each."""


def own_pieces(batch: Batch, bounds: Sequence[int], ranks: Ranks) -> Iterator[tuple[int, Batch]]:
    """The pieces that this rank computes, with their numbers.

    Args:
        batch: the inputs of this rank's samples or of all, and the targets of all.
        bounds: where the pieces begin and end in the batch.
    """
    mine = ranks.share(len(bounds) - 1)
    first = 0 if len(batch.inputs) == len(batch.targets) else bounds[mine.start]
    for number in mine:
        start, end = bounds[number : number + 2]
        inputs = batch.inputs[start - first : end - first]
        parts = [inputs, *(None if values is None else values[start:end] for values in batch[1:])]
        yield number, Batch._make(None if part is None else aligned(part) for part in parts)


class Block(NamedTuple):
    """The sum of the gradients of pieces ``start`` to ``start + size``."""

    start: int
    size: int
    gradients: list[Tensor | None]
    """One for each parameter, in the model's order; None where no piece has one."""

    def joined(self, other: Block) -> Block:
        """The sum of this block and of the one behind it, in the memory of this one."""
        sums = [_added(one, two) for one, two in zip(self.gradients, other.gradients, strict=True)]
        return Block(self.start, self.size + other.size, sums)


def _added(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    return two if one is None else one if two is None else one.add_(two)


@dataclass
class TreeSum:
    """Blocks that come in the order of their pieces, added in pairs: 0 + 1, 2 + 3, then (0 + 1) + (2 + 3), and so on.

    At most one block of each power of two is kept. Those that are left at the end are added from the last one on.
    """

    blocks: list[Block] = field(default_factory=list)

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        while len(self.blocks) > 1:
            left, right = self.blocks[-2:]
            if left.size != right.size or left.start % (2 * left.size):
                return
            self.blocks[-2:] = [left.joined(right)]

    def total(self) -> list[Tensor | None]:
        """The gradients of all pieces together."""
        while len(self.blocks) > 1:
            left, right = self.blocks[-2:]
            self.blocks[-2:] = [left.joined(right)]
        return self.blocks[0].gradients


def blocks_of(share: range) -> list[tuple[int, int]]:
    """Start and size of the blocks that ``TreeSum`` makes of these pieces alone."""
    tree: list[tuple[int, int]] = []
    for number in share:
        tree.append((number, 1))
        while len(tree) > 1 and tree[-2][1] == tree[-1][1] and tree[-2][0] % (2 * tree[-1][1]) == 0:
            start, size = tree[-2]
            tree[-2:] = [(start, 2 * size)]
    return tree


class BatchNorms:
    """The batch norms of a model that follow the statistics of its batches."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, _NormBase) and layer.training and layer.running_mean is not None
        ]
        self.buffers = [buffer for layer in self.layers for buffer in layer.buffers()]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Have a forward pass leave the statistics of its own samples in the buffers: those of a momentum of 1.

        Afterwards the buffers are what they were; ``apply`` moves them.
        """
        momenta, before = [layer.momentum for layer in self.layers], [buffer.clone() for buffer in self.buffers]
        for layer in self.layers:
            layer.momentum = 1.0
        try:
            yield
        finally:
            for layer, momentum in zip(self.layers, momenta, strict=True):
                layer.momentum = momentum
            with torch.no_grad():
                for buffer, value in zip(self.buffers, before, strict=True):
                    buffer.copy_(value)

    def statistics(self) -> list[Tensor]:
        """Mean and unbiased variance of each layer after a forward pass: (2, C) each."""
        return [torch.stack(_running(layer)) for layer in self.layers]

    @torch.no_grad()
    def apply(self, statistics: Sequence[Sequence[Tensor]], *, share: float | None = None) -> None:
        """Move the running statistics by those of each piece, in their order, as ``torch.nn.BatchNorm2d`` does.

        Args:
            share: of each piece, in place of the layers' momentum.
        """
        for piece in statistics:
            for layer, values in zip(self.layers, piece, strict=True):
                if layer.num_batches_tracked is not None:
                    layer.num_batches_tracked.add_(1)
                own = 1 / float(layer.num_batches_tracked or 1) if layer.momentum is None else layer.momentum
                part = own if share is None else share
                for running, value in zip(_running(layer), values, strict=True):
                    running.mul_(1 - part).add_(value, alpha=part)


def _running(layer: _NormBase) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var
