"""Pieces of a batch: the order in which gradients and statistics are added depends on their number alone."""

import copy
import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainkit.data.loading import Batch
from trainkit.engine.pieces import BatchNorms, Block, TreeSum, blocks_of, own_pieces
from trainkit.runtime import Ranks, piece_bounds


def written(start: int) -> list:
    """A gradient that writes down how it was added."""
    return [Words(str(start))]


class Words:
    def __init__(self, text: str) -> None:
        self.text = text

    def add_(self, other: "Words") -> "Words":
        return Words(f"({self.text}+{other.text})")


def tree_of(blocks) -> TreeSum:
    tree = TreeSum()
    for block in blocks:
        tree.add(block)
    return tree


def alone(count: int) -> str:
    (gradient,) = tree_of(Block(number, 1, written(number)) for number in range(count)).total()
    return gradient.text


def test_pairs_first():
    assert alone(1) == "0"
    assert alone(4) == "((0+1)+(2+3))"
    assert alone(7) == "(((0+1)+(2+3))+((4+5)+6))"


@given(count=st.integers(1, 40), size=st.integers(1, 12))
def test_any_number_of_ranks_adds_in_the_same_order(count, size):
    blocks = []
    for rank in range(size):
        share = Ranks(rank, size).share(count)
        own = tree_of(Block(number, 1, written(number)) for number in share).blocks
        assert [(block.start, block.size) for block in own] == blocks_of(share)
        blocks += own
    (gradient,) = tree_of(blocks).total()
    assert gradient.text == alone(count)


@given(samples=st.integers(1, 50), count=st.integers(1, 12), size=st.integers(1, 6))
def test_the_ranks_have_every_sample_once_in_the_same_pieces(samples, count, size):
    rows = torch.arange(samples)
    bounds = piece_bounds(samples, min(count, samples))
    assert [len(part) for part in rows.tensor_split(min(count, samples))] == [
        end - start for start, end in itertools.pairwise(bounds)
    ]
    seen = []
    for rank in range(size):
        ranks = Ranks(rank, size)
        own = rows[ranks.rows(samples, pieces=count)]
        for number, piece in own_pieces(Batch(own, rows, rows), bounds, ranks):
            assert torch.equal(piece.inputs, piece.targets)
            assert piece.inputs.tolist() == list(range(bounds[number], bounds[number + 1]))
            seen.append(number)
    assert seen == list(range(min(count, samples)))


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=5),
    momentum=st.one_of(st.none(), st.floats(0, 1)),
    tracks=st.booleans(),
)
def test_batch_norm_follows_the_pieces_as_pytorch_would(sizes, momentum, tracks):
    norm = nn.BatchNorm1d(3, momentum=momentum, track_running_stats=tracks)
    inputs = [torch.randn(size, 3) + 5 for size in sizes]
    plain = copy.deepcopy(norm)
    for piece in inputs:
        plain(piece)
    norms, found = BatchNorms(norm), []
    before = copy.deepcopy(norm.state_dict())
    with norms.collecting():
        for piece in inputs:
            norm(piece)
            found.append(norms.statistics())
    assert norm.momentum == momentum
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    norms.apply(found)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value)


def test_a_norm_that_is_not_trained_is_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3))
    assert BatchNorms(model).layers == [model[1]]
