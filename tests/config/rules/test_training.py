"""How an epoch is cut into batches and pieces."""

import pytest

from trainkit.config.rules.training import EpochSizes, epoch_sizes
from trainkit.config.schema import Config


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


def test_a_smaller_last_batch_is_left_out_where_there_are_others() -> None:
    data = {"dataset": "iris", "model": "mlp", "training": {"batch_size": 50, "drop_last": "auto"}}
    config = Config.model_validate(data)
    found = {count: epoch_sizes(config, count) for count in (30, 50, 51, 120)}
    assert {count: sizes.steps_per_epoch for count, sizes in found.items()} == {30: 1, 50: 1, 51: 1, 120: 2}
    assert {count: sizes.last_batch for count, sizes in found.items()} == {30: 30, 50: 50, 51: 50, 120: 50}
