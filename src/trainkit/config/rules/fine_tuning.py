"""The rules about what is frozen, and until when; names of modules are looked up where the model is known."""

from __future__ import annotations

from trainkit.config.rules.review import Review
from trainkit.config.rules.training import length_of
from trainkit.config.schema import optimization as opt


def check(review: Review) -> None:
    """Add every rule that the config breaks."""
    spec = review.config.fine_tuning
    if spec.freeze == "none":
        if spec.unfreeze:
            review.add(
                "fine_tuning.unfreeze",
                "nothing is frozen, got {0}; freeze modules first (freeze: backbone), or remove it",
                "fine_tuning.freeze",
            )
        return
    if isinstance(review.config.optimizer, opt.Lbfgs):
        review.add(
            "fine_tuning.freeze",
            "lbfgs moves all parameters as one vector, so none can be frozen, got {0}; choose another optimizer",
            "optimizer.type",
        )
    _positions(review)


def _positions(review: Review) -> None:
    lengths = [length_of(review, item.at) for item in review.config.fine_tuning.unfreeze]
    for index, length in enumerate(lengths):
        key = f"fine_tuning.unfreeze[{index}].at"
        before = lengths[index - 1] if index else None
        if length is not None and before is not None and length.epochs <= before.epochs:
            review.add(key, f"positions must go up, got {length.text} after {before.text}; sort them, each once")
        if length is not None and length.epochs >= review.config.training.epochs:
            review.add(
                key,
                f"the run is over then, so nothing would be unfrozen, got {length.text} with {{0}}; "
                "lower it, train longer, or remove it",
                "training.epochs",
            )
