"""What the processes of a run tell each other after each backward pass: gradients, and what is known of their pieces.

All ranks come to the same bits, whatever the order in which messages arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from trainkit.engine.pieces import BatchNorms, Block, Piece, TreeSum, blocks_of
from trainkit.runtime import Ranks, Transfer, added_up, copy_


class Exchange:
    """The sum of the gradients of all ranks, for as long as the same parameters train.

    Each rank gets its part of the elements of all blocks, adds them by the tree, and sends the sum to all. So the order
    of a sum depends on the number of pieces alone.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
        self.ranks, self.parameters = ranks, parameters
        self.sizes = [parameter.numel() for parameter in parameters]
        self.strides = [torch.empty_like(parameter, device="meta").stride() for parameter in parameters]
        used = sum(self.sizes) + len(parameters)
        self.width = -(-used // ranks.size) * ranks.size
        self.transfers: dict[tuple[int, ...], Transfer] = {}

    def __call__(
        self, tree: TreeSum, mine: Sequence[Piece], norms: BatchNorms, *, bounds: Sequence[int], predicts: bool
    ) -> tuple[list[Tensor | None], list[Piece]]:
        """The sum of the gradients over all pieces, and all pieces, in order.

        Args:
            tree: the gradients of this rank's pieces.
            mine: this rank's pieces.
            bounds: of all pieces in the batch.
            predicts: whether pieces have predicted classes.
        """
        if not self.ranks.exact:
            return self.fast(tree, mine, norms, bounds=bounds, predicts=predicts)
        layout = [blocks_of(share) for share in self.ranks.shares(len(bounds) - 1)]
        transfer = self.transfer(tuple(map(len, layout)))
        for row, block in zip(transfer.own, tree.blocks, strict=True):
            self.write(block.gradients, row)
        transfer.start()
        pieces = tell_pieces(mine, norms, self.ranks, bounds, predicts=predicts, device=self.parameters[0].device)
        whole = TreeSum()
        for (start, size), row in zip(chain(*layout), transfer.received(), strict=True):
            whole.add(Block(start, size, [row]))
        (part,) = whole.total()
        assert part is not None
        transfer.send(part)
        return self.read(transfer.total()), pieces

    def fast(
        self, tree: TreeSum, mine: Sequence[Piece], norms: BatchNorms, *, bounds: Sequence[int], predicts: bool
    ) -> tuple[list[Tensor | None], list[Piece]]:
        """The same sum in one ``all_reduce``, which adds in an order of its own."""
        row = self.parameters[0].new_empty(self.width)
        self.write(tree.total() if tree.blocks else [None] * len(self.sizes), row)
        wait = added_up(row)
        pieces = tell_pieces(mine, norms, self.ranks, bounds, predicts=predicts, device=row.device)
        wait()
        return self.read(row), pieces

    def transfer(self, counts: tuple[int, ...]) -> Transfer:
        """The memory for so many blocks of each rank: made once."""
        if counts not in self.transfers:
            self.transfers[counts] = self.ranks.transfer(counts, self.width, like=self.parameters[0])
        return self.transfers[counts]

    def write(self, gradients: Sequence[Tensor | None], row: Tensor) -> None:
        """All gradients into one vector, zeros where there is none, then whether there is one: (F,)."""
        places = list(self.places(row))
        there = [(place, one) for place, one in zip(places, gradients, strict=True) if one is not None]
        for place, one in zip(places, gradients, strict=True):
            if one is None:
                place.zero_()
        if there:
            copy_(*map(list, zip(*there, strict=True)))
        present = [float(gradient is not None) for gradient in gradients]
        row[sum(self.sizes) :] = row.new_tensor(present + [0.0] * (self.width - sum(self.sizes) - len(present)))

    def read(self, row: Tensor) -> list[Tensor | None]:
        """The opposite of ``write``, in its memory."""
        present = row[sum(self.sizes) :].tolist()
        return [place if there else None for place, there in zip(self.places(row), present, strict=False)]

    def places(self, row: Tensor) -> Iterator[Tensor]:
        """The part of each parameter, in its memory layout."""
        parts = row[: sum(self.sizes)].split(self.sizes)
        for parameter, part, stride in zip(self.parameters, parts, self.strides, strict=True):
            yield part.as_strided(parameter.shape, stride, part.storage_offset())


def tell_pieces(
    mine: Sequence[Piece],
    norms: BatchNorms,
    ranks: Ranks,
    bounds: Sequence[int],
    *,
    predicts: bool,
    device: torch.device,
) -> list[Piece]:
    """All pieces of a batch, in their order.

    Args:
        mine: this rank's pieces.
        bounds: of all pieces in the batch.
        predicts: whether pieces have predicted classes.
    """
    longest, shares = bounds[1], ranks.shares(len(bounds) - 1)  # the first piece is one of the largest
    sizes = [1, longest * predicts, *(2 * layer.num_features for layer in norms.layers)]
    told = torch.zeros(max(map(len, shares)), sum(sizes), device=device)
    for row, own in zip(told, mine, strict=False):
        loss, predicted, *statistics = row.split(sizes)
        loss.copy_(own.loss.reshape(1))
        if own.predicted is not None:
            predicted[: len(own.predicted)] = own.predicted  # exact in float32 up to 16 million
        for place, values in zip(statistics, own.statistics, strict=True):
            place.view(2, -1).copy_(values)
    table = ranks.gather(told.view(-1)).view(ranks.size, *told.shape)

    def piece(record: Tensor, size: int) -> Piece:
        loss, predicted, *statistics = record.split(sizes)
        classes = predicted[:size].long() if predicts else None
        return Piece(loss[0], classes, [values.view(2, -1) for values in statistics])

    return [
        piece(table[rank, place], bounds[number + 1] - bounds[number])
        for rank, share in enumerate(shares)
        for place, number in enumerate(share)
    ]


def gathered(own: Sequence[list[Tensor]], norms: BatchNorms, ranks: Ranks, bounds: Sequence[int]) -> list[list[Tensor]]:
    """The statistics of all pieces of a batch, in their order."""
    if ranks.size == 1:
        return list(own)
    zero = norms.buffers[0].new_zeros(1)
    mine = [Piece(zero, None, found) for found in own]
    pieces = tell_pieces(mine, norms, ranks, bounds, predicts=False, device=zero.device)
    return [piece.statistics for piece in pieces]
