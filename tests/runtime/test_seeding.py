"""Counter-based draws: pinned values, independence of order, and numbers that look uniform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.runtime.seeding import derive_seed, generator, permutation, seed_default_generators, uniforms


def test_draws_are_pinned() -> None:
    """A run that is resumed by a later version must draw the same numbers."""
    assert derive_seed(0, "order", 0) == 3471081512423777433
    assert derive_seed(0, "dropout", 3, 17) == 4013043838883408500
    assert permutation(0, 0, 8).tolist() == [2, 4, 1, 6, 5, 0, 7, 3]
    assert uniforms(0, "crop", 2, np.array([0, 41]), 2).tolist() == [
        [0.03244649083579454, 0.41736301794864195],
        [0.02609599748398883, 0.13496399745015408],
    ]


def test_uniforms_are_splitmix64() -> None:
    """The published algorithm in Python's own integers."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    key = derive_seed(9, "crop", 4)
    for index in (0, 1, 60_000, 2**40):
        row = mix((key + (index + 1) * golden) & mask)
        expected = [(mix((row + (column + 1) * golden) & mask) >> 11) / 2**53 for column in range(3)]
        assert uniforms(9, "crop", 4, np.array([index]), 3)[0].tolist() == expected


def test_every_part_of_the_position_matters() -> None:
    positions = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 0, 0), (0, "a")]
    assert len({derive_seed(seed, purpose, *counters) for seed, purpose, *counters in positions}) == len(positions)
    assert all(0 <= derive_seed(seed, "x") < 2**63 for seed in range(100))


def test_generators_start_where_they_are_told() -> None:
    first, second = generator(1, "init"), generator(1, "init")
    torch.rand(5, generator=first)
    torch.rand(50)
    fresh = generator(1, "init")
    assert torch.equal(torch.rand(5, generator=second), torch.rand(5, generator=fresh))


def test_default_generators_are_seeded_as_manual_seed_does() -> None:
    seed_default_generators(3, "dropout", 10, device=torch.device("cpu"))
    drawn = torch.rand(7)
    torch.manual_seed(derive_seed(3, "dropout", 10))
    assert torch.equal(torch.rand(7), drawn)


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 200))
def test_a_permutation_holds_every_position_once(seed: int, epoch: int, length: int) -> None:
    assert torch.equal(permutation(seed, epoch, length).sort().values, torch.arange(length))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 50))
def test_a_samples_draws_are_its_own(indices: list[int], count: int, epoch: int) -> None:
    together = uniforms(5, "flip", epoch, np.array(indices), count)
    for position, index in enumerate(indices):
        assert np.array_equal(uniforms(5, "flip", epoch, np.array([index]), count)[0], together[position])
    assert np.array_equal(uniforms(5, "flip", epoch, np.array(indices), count + 2)[:, :count], together)
    assert ((together >= 0) & (together < 1)).all()


@pytest.mark.parametrize("epoch", [0, 1])
def test_draws_are_uniform_and_independent(epoch: int) -> None:
    drawn = uniforms(0, "rotation", epoch, np.arange(40_000), 3)
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in drawn.T])
    assert ((counts - 2000) ** 2 / 2000).sum(1).max() < 44  # chi-squared with 19 degrees of freedom, p = 0.001
    neighbors = np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]
    columns = np.corrcoef(drawn.T)[np.triu_indices(3, 1)]
    other_epoch = np.corrcoef(drawn[:, 0], uniforms(0, "rotation", epoch + 1, np.arange(40_000), 1)[:, 0])[0, 1]
    assert np.abs([neighbors, *columns, other_epoch]).max() < 0.02  # four standard deviations


def test_orders_of_two_epochs_are_unrelated() -> None:
    first, second = (permutation(0, epoch, 40_000).double() for epoch in (0, 1))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.02
