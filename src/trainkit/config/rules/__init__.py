"""The rules about a config, one module for each topic: functions of the config and the ``DatasetInfo``.

They run twice: on the config alone when it is loaded, and again with the properties of the opened data.
"""
# mypy: implicit-reexport

from __future__ import annotations

from collections.abc import Callable

from trainkit.config.rules import batches, data, fine_tuning, model, training
from trainkit.config.rules.data import own_sizes_crop
from trainkit.config.rules.review import Review, RuleViolation
from trainkit.config.rules.training import EpochSizes, epoch_sizes
from trainkit.config.schema import Config
from trainkit.config.schema.splits import DatasetInfo


def check(
    config: Config, where: Callable[[str], str] | None = None, dataset: DatasetInfo | None = None
) -> list[RuleViolation]:
    """Every rule that the config breaks.

    Args:
        where: turns a key into the place where it was written, or ``default``; None: messages show the value alone.
        dataset: the properties of the data; None: those that the config alone implies.
    """
    review = Review(config, config.dataset.known_info() if dataset is None else dataset, where)
    training.check(review)
    batches.check(review)
    fine_tuning.check(review)
    data.check(review)
    model.check(review)
    return review.violations
