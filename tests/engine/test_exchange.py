"""What the processes of a run tell each other: all of them have the bits of one process that has all pieces."""

import os
from dataclasses import replace

import pytest
import torch
from in_ranks import in_ranks
from torch import nn

from trainkit.engine import Best, Schedule, TrainState
from trainkit.engine.exchange import Exchange
from trainkit.engine.pieces import BatchNorms, Block, Piece, TreeSum
from trainkit.runtime import Ranks, piece_bounds


def test_gradients_come_back_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2)).to(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    exchange = Exchange(Ranks(0, 4), parameters)
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    gradients[0] = gradients[0].contiguous()  # not in the layout of its parameter
    gradients[2] = None
    row = torch.full((3, exchange.width), torch.nan)[1]
    exchange.write(gradients, row)
    assert len(row) % 4 == 0
    assert row.isfinite().all()
    back = exchange.read(row)
    assert back[2] is None
    for parameter, gradient, other in zip(parameters, gradients, back, strict=True):
        if gradient is not None:
            assert torch.equal(gradient, other)
            assert other.stride() == parameter.stride()
    exchange.write([None] * len(parameters), row)
    assert exchange.read(row) == [None] * len(parameters)


def test_it_is_kept_until_other_parameters_train():
    ranks = Ranks(0, 2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = TrainState(model, optimizer, Schedule(main_lr=lambda step: 0.1), Best("val_loss", "min"))
    parameters = list(model.parameters())
    first = state.exchange_of(parameters, ranks)
    assert state.exchange_of(list(parameters), ranks) is first
    assert state.exchange_of(parameters[2:], ranks) is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
def test_the_sum_of_all_has_the_bits_of_one():
    """Any number of pieces, also fewer than ranks; in shared memory, by collectives, and close to it by all_reduce."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 3))
    parameters, norms = list(model.parameters()), BatchNorms(model)

    def block(number: int) -> tuple[Block, Piece]:
        generator = torch.Generator().manual_seed(number)
        gradients = [torch.randn(p.shape, generator=generator) * 10 ** (number % 5) for p in parameters]
        gradients[-1] = None if number % 2 else gradients[-1]
        statistics = [torch.randn(2, 5, generator=generator)]
        return Block(number, 1, gradients), Piece(torch.tensor(float(number)), torch.tensor([number] * 2), statistics)

    def total(tree_of: range) -> tuple[TreeSum, list[Piece]]:
        tree, pieces = TreeSum(), []
        for number in tree_of:
            made, piece = block(number)
            tree.add(made)
            pieces.append(piece)
        return tree, pieces

    def plain(pieces: list[Piece]) -> list:
        return [(one.loss.item(), one.predicted.tolist(), one.statistics[0].tolist()) for one in pieces]

    def work(ranks):
        found = []
        for settings in ({}, {"neighbours": None}, {"exact": False}):
            exchange = Exchange(replace(ranks, **settings), parameters)
            for count in (6, 1, 5, 6):
                tree, pieces = total(ranks.share(count))
                gradients, told = exchange(tree, pieces, norms, bounds=piece_bounds(2 * count, count), predicts=True)
                found.append((settings, count, [None if g is None else g.tolist() for g in gradients], plain(told)))
        return found

    by_rank = in_ranks(3, work)
    assert by_rank[0][0][0] == {}
    for found in zip(*by_rank, strict=True):
        for settings, count, gradients, told in found:
            tree, pieces = total(range(count))
            expected = tree.total()
            for gradient, whole in zip(gradients, expected, strict=True):
                assert (gradient is None) == (whole is None)
                if whole is not None and "exact" in settings:
                    torch.testing.assert_close(torch.tensor(gradient), whole, rtol=1e-5, atol=0.01)
                elif whole is not None:
                    assert torch.equal(torch.tensor(gradient), whole)
            assert told == plain(pieces)
