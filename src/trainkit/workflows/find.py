"""Find the run or the checkpoint that the arguments of a command name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.errors import CheckpointError, UserError
from trainkit.system import Frontend, RunDir, list_runs
from trainkit.wording import closest, listed

if TYPE_CHECKING:
    from trainkit.builders import TrainedModel

ENSEMBLE = "ensemble.pth"
"""In the folder of a cross-validation: its networks as one."""


def best_of(folder: Path) -> Path | None:
    """The best checkpoint of a folder, the last where none is marked as best."""
    from trainkit.checkpoints import CheckpointFolder

    checkpoints = CheckpointFolder(folder)
    return checkpoints.best() or checkpoints.last()


def last_of(folder: Path) -> Path | None:
    """The newest checkpoint of a folder."""
    from trainkit.checkpoints import CheckpointFolder

    return CheckpointFolder(folder).last()


SEARCHES = ("sweeps", "cv")
"""Folders beside that of the runs, with a folder for each search, whose trials are in its ``runs``."""


def trial_dirs(runs_dir: Path) -> dict[str, Path]:
    """The folders with the runs of sweeps and cross-validations beside ``runs_dir``: by ``sweeps/NAME``."""
    parents = [runs_dir.parent / kind for kind in SEARCHES]
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path for one in parents for path in sorted(one.glob("*/runs"))
    }


def trials_of(name: str, searches: Mapping[str, Path]) -> Path:
    """The folder with the runs of a sweep or a cross-validation, by ``NAME`` or ``sweeps/NAME``.

    Raises:
        UserError: there is none of this name.
    """
    found = [key for key in searches if name.removesuffix("/") in (key, key.partition("/")[2])]
    if found:
        return searches[found[0]]
    near = closest(name, [key.partition("/")[2] for key in searches])
    hint = f"did you mean {near}?" if near else f"there are {listed(list(searches), quoted=False)}" if searches else ""
    raise UserError(f"--sweep {name}: no sweep and no cross-validation has this name here; {hint or 'there are none'}")


def find_run(given: str | Path | None, *, runs_dir: Path) -> RunDir:
    """A run by its folder, its name, or a part of the name that is in one run only; the newest for None.

    A run whose whole name this is comes before those that have it in their names. Trials of sweeps and folds, such as
    ``mysweep-012``, are looked for where no run fits.

    Raises:
        UserError: none fits, or several do.
    """
    runs = list_runs(runs_dir)
    if given is None:
        if not runs:
            raise UserError(f"{runs_dir}: no runs in this folder; train first, or give a run folder")
        return runs[-1]
    for path in (Path(given), runs_dir / given):
        if (path / "run.json").is_file():
            return RunDir(path)
    part = str(given).lower()
    exact = [run for run in runs if part in (run.name.lower(), run.path.name.lower())]
    matches = exact or [run for run in runs if part in run.path.name.lower()]
    if not matches and part:
        trials = [run for folder in trial_dirs(runs_dir).values() for run in list_runs(folder)]
        exact = [run for run in trials if part in (run.name.lower(), run.path.name.lower())]
        matches = exact or [run for run in trials if part in run.path.name.lower()]
    if len(matches) == 1:
        return matches[0]
    if Path(given).is_dir():
        raise UserError(f"{given}: not a run folder (no run.json); `trainkit runs list` shows the runs")
    if Path(given).is_file():
        owner = next((path for path in Path(given).parents if (path / "run.json").is_file()), None)
        where = "`trainkit runs list` shows the runs" if owner is None else f"it belongs to the run {owner}"
        only = f" (`trainkit train CONFIG --resume {given}` goes on from it)" if Path(given).suffix == ".pth" else ""
        raise UserError(f"{given}: a file, not a run; {where}{only}")
    if not matches:
        raise UserError(
            f"{given}: no such file, and no run of this name in {runs_dir}; `trainkit runs list` shows what is there"
        )
    names = ", ".join(run.path.name for run in matches[-3:])
    raise UserError(
        f"{given}: fits {len(matches)} runs ({names}{', ...' if len(matches) > 3 else ''}); give more of it"
    )


def find_checkpoint(
    given: Path | None, *, runs_dir: Path, pick: Callable[[Path], Path | None] = best_of, frontend: Frontend
) -> Path:
    """The checkpoint file: the best of a run or of a folder, or its ensemble; None takes the newest run that has one.

    Args:
        given: a file, a folder, or what ``find_run`` takes.
        pick: which checkpoint of a folder.

    Raises:
        UserError: no run fits, or several do.
        CheckpointError: there is none.
    """
    if given is None:
        for run in reversed(list_runs(runs_dir)):
            found = pick(run.checkpoints)
            if found is not None:
                frontend.say(f"checkpoint: {found} (of the newest run)")
                return found
        raise CheckpointError(
            f"{runs_dir}: no run with a checkpoint in this folder; give a checkpoint file, "
            "or train first: trainkit train digits_cnn"
        )
    if given.suffix in (".yaml", ".yml") and given.is_file():
        raise CheckpointError(
            f"{given}: a config, not a checkpoint; give the run that was trained with it, by its folder or name"
        )
    is_name = given.name == str(given) and given.suffix not in (".pth", ".safetensors")
    if given.is_file() or not (given.is_dir() or is_name):
        return given
    if (ensemble := given / ENSEMBLE).is_file():
        return ensemble
    found = pick(given / "checkpoints" if (given / "checkpoints").is_dir() else given) if given.is_dir() else None
    if found is None and is_name:
        given = find_run(given, runs_dir=runs_dir).path
        found = pick(given / "checkpoints")
    if found is None:
        raise CheckpointError(f"{given}: no checkpoint in this folder; give a checkpoint file or a run folder")
    frontend.say(f"checkpoint: {found}")
    return found


def open_checkpoint(
    given: str | Path | None,
    *,
    device: str | None = None,
    precision: str | None = None,
    data_root: str | Path | None = None,
    runs_dir: str | Path,
    frontend: Frontend,
) -> TrainedModel:
    """What ``find_checkpoint`` finds, opened by ``open_trained``."""
    from trainkit.builders import open_trained

    path = find_checkpoint(None if given is None else Path(given), runs_dir=Path(runs_dir), frontend=frontend)
    return open_trained(path, device=device, precision=precision, data_root=data_root)
