"""Which checkpoint a command means: a file, a run folder, or the newest run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.errors import CheckpointError
from trainkit.system.run_folder import list_runs


def find_checkpoint(given: Path | None, *, runs_dir: Path, say: Callable[[str], None]) -> Path:
    """The checkpoint file. A run folder stands for its best checkpoint, nothing for the newest run that has one.

    Raises:
        CheckpointError: there is none.
    """
    if given is not None:
        if not given.is_dir():
            return given
        folder = given / "checkpoints" if (given / "checkpoints").is_dir() else given
        found = best_of(folder)
        if found is None:
            raise CheckpointError(f"{given}: no checkpoint in this folder; give a checkpoint file or a run folder")
        say(f"checkpoint: {found}")
        return found
    for run in reversed(list_runs(runs_dir)):
        found = best_of(run.checkpoints)
        if found is not None:
            say(f"checkpoint: {found} (the best of the newest run)")
            return found
    raise CheckpointError(
        f"{runs_dir}: no run with a checkpoint in this folder; give a checkpoint file, "
        "or train first: trainkit train configs/digits_cnn.yaml"
    )


def best_of(folder: Path) -> Path | None:
    checkpoints = CheckpointFolder(folder)
    return checkpoints.best() or checkpoints.last()
