"""``trainkit eval``: a checkpoint, scored on a split of its data. Nothing but the checkpoint is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainkit.checkpoint import check_fits, load_checkpoint
from trainkit.config import config_from_dict
from trainkit.errors import UserError
from trainkit.signals import StopRequest
from trainkit.workflows.experiment import Experiment, prepare_experiment
from trainkit.workflows.locate import find_checkpoint
from trainkit.workflows.scoring import score, scored_weights


@dataclass(frozen=True)
class EvalResult:
    """Scores of a checkpoint on a split."""

    checkpoint: Path
    split: str
    num_samples: int
    metrics: dict[str, float]


def evaluate(
    checkpoint: Path | None = None,
    *,
    split: str | None = None,
    runs_dir: Path = Path("runs"),
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] | None = None,
    stop: StopRequest | None = None,
) -> EvalResult:
    """Score a checkpoint: the same numbers as at the end of its training.

    Args:
        checkpoint: a file or a run folder; None for the best of the newest run under ``runs_dir``.
        split: train, val or test; None takes test where there is one, else val, else train.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: the data have no such split.
    """
    stop = StopRequest() if stop is None else stop
    path = find_checkpoint(checkpoint, runs_dir=runs_dir, say=say)
    experiment, saved = restore_experiment(path, progress=progress, stop=stop)
    splits = experiment.data.splits
    chosen = split or next(name for name in ("test", "val", "train") if name in splits)
    if chosen not in splits:
        raise UserError(
            f"--split {chosen}: {experiment.data.name} has the splits {', '.join(splits)}; take one of these"
        )
    check_fits(scored_weights(saved), experiment.model)
    experiment.model.load_state_dict(scored_weights(saved))
    metrics = score(experiment, experiment.model, chosen, should_stop=stop)
    if metrics is None:
        raise stop.error("nothing was written")
    return EvalResult(path, chosen, len(splits[chosen]), metrics)


def restore_experiment(
    path: Path, *, progress: Callable[[int, int], None] | None = None, stop: StopRequest | None = None
) -> tuple[Experiment, dict[str, Any]]:
    """The experiment that a checkpoint came from, its data loaded anew, and what the checkpoint holds."""
    saved = load_checkpoint(path)
    config = config_from_dict(saved["config"], where=str(path))
    return prepare_experiment(config, progress=progress, should_stop=stop, stored=saved), saved
