"""The rules about what is frozen, and until when; names of modules are looked up where the model is known."""

from __future__ import annotations

from trainkit.config.rules.review import Review
from trainkit.config.rules.training import length_of
from trainkit.config.schema import Config
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
        if spec.cache_features is True:
            message = "nothing is frozen, got true with {0}; freeze the backbone, or leave it out"
            review.add("fine_tuning.cache_features", message, "fine_tuning.freeze")
        return
    if isinstance(review.config.optimizer, opt.Lbfgs):
        review.add(
            "fine_tuning.freeze",
            "lbfgs moves all parameters as one vector, so none can be frozen, got {0}; choose another optimizer",
            "optimizer.type",
        )
    _positions(review)
    if spec.cache_features is True and (found := hindrance(review.config)):
        why, other = found
        review.add("fine_tuning.cache_features", f"{why}, got {{0}}; set cache_features: auto, or change that", other)


def hindrance(config: Config) -> tuple[str, str] | None:
    """Why the output of the backbone cannot be computed once, as far as the config says, and the key at fault."""
    random = next((at for at, one in enumerate(config.transforms) if one.stage == "random"), None)
    if random is not None:
        return "the inputs of the backbone are others in each epoch", f"transforms[{random}].type"
    if config.training.mix is not None:
        return "the inputs of the backbone are mixed", "training.mix.type"
    if config.fine_tuning.batch_norm == "train":
        return "the statistics of the backbone move", "fine_tuning.batch_norm"
    return None


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
