"""The rules about a config that can be judged without data, one module for each topic."""

from __future__ import annotations

from collections.abc import Callable

from trainkit.config.rules import data, model, training
from trainkit.config.rules.review import Review, RuleViolation
from trainkit.config.schema import Config

__all__ = ["RuleViolation", "check"]


def check(config: Config, where: Callable[[str], str]) -> list[RuleViolation]:
    """Every rule that the config breaks; ``where`` turns a key into the place where it was written, or ``default``."""
    review = Review(config, where)
    training.check(review)
    data.check(review)
    model.check(review)
    return review.violations
