"""The networks of all folds as one checkpoint, whose answer is the mean of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.builders import load_source, scored_weights, shared_preprocessing
from trainkit.checkpoints import load_checkpoint, write_checkpoint
from trainkit.config import Config
from trainkit.data.cache import cache_root
from trainkit.errors import UserError

_OF_THE_FIRST = ("task", "class_names", "target_names", "choices", "versions", "samples", "plugins", "pretrained")
"""What all members have in common, and the samples that exports are compared on."""


def write_ensemble(
    path: Path, checkpoints: Sequence[Path], base: Config, *, name: str, class_counts: list[int]
) -> None:
    """Write the ensemble of these checkpoints, the best one of each fold.

    Args:
        base: the config without a fold.
        class_counts: how many samples of each class the members have trained on, all together; [] for regression.

    Raises:
        UserError: the members do not read their samples alike.
    """
    members = [load_checkpoint(checkpoint) for checkpoint in checkpoints]
    shared = shared_preprocessing([one["preprocessing"] for one in members])
    first = members[0]
    config = {**first["config"], "name": name}
    config["dataset"] = {key: value for key, value in config["dataset"].items() if key != "folds"}
    progress = max((one["progress"] for one in members), key=lambda progress: int(progress["epochs_completed"]))
    write_checkpoint(
        path,
        {
            **{key: first[key] for key in _OF_THE_FIRST if key in first},
            "name": name,
            "config": config,
            "class_counts": class_counts,
            "preprocessing": shared,
            "data_fingerprint": _fingerprint(base, first),
            "progress": progress,
            "members": [
                {"fold": fold, "checkpoint": checkpoint.name, "preprocessing": one["preprocessing"]}
                for fold, (checkpoint, one) in enumerate(zip(checkpoints, members, strict=True))
            ],
            "model": {
                f"{index}.{key}": tensor
                for index, one in enumerate(members)
                for key, tensor in scored_weights(one).items()
            },
            "ema": None,
            "swa": None,
        },
    )


def _fingerprint(base: Config, first: Mapping[str, Any]) -> Mapping[str, Any]:
    """That of the data without folds, of which a test set of their own can be scored; else that of a member."""
    try:
        return load_source(base, cache_dir=cache_root()).fingerprint
    except UserError:
        found: Mapping[str, Any] = first["data_fingerprint"]
        return found
