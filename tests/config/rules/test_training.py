"""How an epoch is cut into batches and pieces."""

import pytest

from trainkit.config.rules.training import EpochSizes


@pytest.mark.parametrize(
    ("samples", "batch", "accumulation", "drop_last", "steps", "last", "piece", "smallest_of_last"),
    [
        (100, 10, 1, False, 10, 10, 10, 10),
        (101, 10, 1, False, 11, 1, 10, 1),
        (101, 10, 1, True, 10, 10, 10, 10),
        (100, 32, 4, False, 4, 4, 8, 1),
        (98, 32, 8, False, 4, 2, 4, 1),
        (5, 64, 1, False, 1, 5, 5, 5),
        (64, 31, 4, False, 3, 2, 8, 1),
        (31, 31, 4, False, 1, 31, 8, 7),
        (5, 64, 1, True, 0, 64, 5, 64),
    ],
)
def test_epoch_sizes(samples, batch, accumulation, drop_last, steps, last, piece, smallest_of_last) -> None:
    sizes = EpochSizes(samples, batch, accumulation, drop_last)
    assert sizes.steps_per_epoch == steps
    assert sizes.last_batch == last
    assert sizes.piece == piece
    assert sizes.smallest(last) == smallest_of_last
