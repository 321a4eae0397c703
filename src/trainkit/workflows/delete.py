"""``trainkit runs delete``: remove run folders, but no exports unless that is asked for. Never imports torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainkit.errors import TrainkitError, UserError
from trainkit.system import RunDir
from trainkit.wording import enumerated
from trainkit.workflows.find import find_run

_WRITTEN = {
    *("config.yaml", "config.resolved.yaml", "run.json", "metrics.jsonl", "train.log", "report.html", ".lock"),
    *("checkpoints", "plots", "exports", "evals", "tensorboard"),
}


@dataclass(frozen=True)
class Deletion:
    """A run that may be deleted, and what goes with it."""

    run: RunDir
    num_bytes: int
    checkpoints: int
    exports: Sequence[str]
    """Names in ``exports/``."""
    foreign: Sequence[str]
    """Names in the folder that trainkit did not write."""


def plan_deletion(given: Sequence[str], *, runs_dir: Path, with_exports: bool = False) -> list[Deletion]:
    """Look at all of the runs before one of them is touched.

    Args:
        given: run folders or names.
        with_exports: exports may go too.

    Raises:
        UserError: a run does not exist, is in use, or holds exports; all of them are named.
    """
    problems, found = [], {}
    for one in given:
        try:
            if not one.strip():
                raise UserError("an empty name fits every run; name the run to delete")
            run = find_run(one, runs_dir=runs_dir)
            found[run.path.resolve()] = look_at(run, with_exports=with_exports)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return list(found.values())


def look_at(run: RunDir, *, with_exports: bool) -> Deletion:
    """What is in a run.

    Raises:
        UserError: it must stay.
    """
    if run.path.is_symlink():
        raise UserError(f"{run.path}: a link to {run.path.resolve()}; give that folder, and remove the link yourself")
    if not (run.checkpoints.is_dir() or "status" in run.read_info()):
        raise UserError(f"{run.path}: no run of trainkit: it has neither checkpoints/ nor a status in run.json")
    owner = run.lock_owner()
    if owner is not None:
        raise UserError(f"{run.path}: process {owner.get('pid')} on {owner.get('host')} works in it; stop that first")
    exports = sorted(path.name for path in run.exports.glob("*"))
    if exports and not with_exports:
        raise UserError(
            f"{run.path}: exports/ holds {enumerated(exports)}, of which no other copy is known; "
            "copy what you need and add --with-exports"
        )
    files = [path for path in run.path.rglob("*") if path.is_file() and not path.is_symlink()]
    return Deletion(
        run,
        num_bytes=sum(path.stat().st_size for path in files),
        checkpoints=sum(path.parent == run.checkpoints and path.suffix == ".pth" for path in files),
        exports=exports,
        foreign=sorted(path.name for path in run.path.iterdir() if path.name not in _WRITTEN),
    )


def delete_run(deletion: Deletion) -> None:
    """Delete the folder of a run; ``run.json`` goes last, so that a deletion that was cut off can be done again.

    Raises:
        RunLocked: a process has begun to work in it.
        UserError: it has got exports since it was looked at.
        TrainkitError: a file cannot be deleted.
    """
    run = deletion.run
    with run.locked():
        if {path.name for path in run.exports.glob("*")} - set(deletion.exports):
            raise UserError(f"{run.path}: an export was written into it just now; nothing was deleted")
        try:
            run.update_info(status="failed: it was being deleted")
            last = (run.info, run.lock_file)
            for path in sorted(run.path.iterdir()):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path not in last:
                    path.unlink()
            for path in last:
                path.unlink(missing_ok=True)
            run.path.rmdir()
        except OSError as error:
            where = error.filename or run.path
            raise TrainkitError(
                f"{run.path}: not all of it could be deleted: {where}: {error.strerror}; to try again: "
                f"trainkit runs delete {run.path}"
            ) from error
