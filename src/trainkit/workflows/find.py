"""Find the run or the checkpoint that the arguments of a command name."""

from __future__ import annotations

from pathlib import Path

from trainkit.errors import CheckpointError, UserError
from trainkit.system import Frontend, RunDir, list_runs


def find_run(given: str | Path | None, *, runs_dir: Path) -> RunDir:
    """A run by its folder, its name, or a part of the name that is in one run only; the newest for None.

    Raises:
        UserError: none fits, or several do.
    """
    if given is None:
        runs = list_runs(runs_dir)
        if not runs:
            raise UserError(f"{runs_dir}: no runs in this folder; train first, or give a run folder")
        return runs[-1]
    for path in (Path(given), runs_dir / given):
        if (path / "run.json").is_file():
            return RunDir(path)
    part = str(given).lower()
    matches = [run for run in list_runs(runs_dir) if part in run.path.name.lower()]
    if len(matches) == 1:
        return matches[0]
    if Path(given).is_dir():
        raise UserError(f"{given}: not a run folder (no run.json); `trainkit runs list` shows the runs")
    if not matches:
        raise UserError(f"{given}: no run of this name in {runs_dir}; `trainkit runs list` shows what is there")
    names = ", ".join(run.path.name for run in matches[-3:])
    raise UserError(
        f"{given}: fits {len(matches)} runs ({names}{', ...' if len(matches) > 3 else ''}); give more of it"
    )


def find_checkpoint(given: Path | None, *, runs_dir: Path, frontend: Frontend) -> Path:
    """The checkpoint file: the best of a run folder; None takes the newest run that has a checkpoint.

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
        frontend.say(f"checkpoint: {found}")
        return found
    for run in reversed(list_runs(runs_dir)):
        found = best_of(run.checkpoints)
        if found is not None:
            frontend.say(f"checkpoint: {found} (the best of the newest run)")
            return found
    raise CheckpointError(
        f"{runs_dir}: no run with a checkpoint in this folder; give a checkpoint file, "
        "or train first: trainkit train digits_cnn"
    )


def best_of(folder: Path) -> Path | None:
    """The best checkpoint of a folder, the last where none is marked as best."""
    from trainkit.checkpoints import CheckpointFolder

    checkpoints = CheckpointFolder(folder)
    return checkpoints.best() or checkpoints.last()
