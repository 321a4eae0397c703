"""The checkpoint, or the weights file, that a run starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainkit.checkpoints import (
    CheckpointFolder,
    DamagedFile,
    check_fits,
    follow_pointer,
    inspect_checkpoint,
    known_sha256,
    load_checkpoint,
    load_weights_file,
    match_weights,
)
from trainkit.config import LoadedConfig
from trainkit.data.dataset import Dataset
from trainkit.engine import TrainState
from trainkit.errors import CheckpointError, TrainkitError, UserError
from trainkit.system import Frontend, RunDir, durable, list_runs, locked, newest_run
from trainkit.wording import counted, listed
from trainkit.workflows.find import find_checkpoint, find_run, last_of
from trainkit.workflows.runs import config_differences
from trainkit.workflows.train.changes import check_changes, check_data, config_hash


@dataclass(frozen=True)
class ResumePoint:
    """A state to resume from."""

    checkpoint: Path
    saved: dict[str, Any]
    best_is_lost: bool = False
    """The best checkpoint so far is damaged or gone: the best of the next epochs replaces it."""
    accepted: Mapping[str, Any] = field(default_factory=dict)
    """The config of an earlier resume after this checkpoint: its changes were allowed then."""


def find_unfinished(given: str | Path | None, *, runs_dir: Path) -> RunDir:
    """The run for ``trainkit resume [RUN]``: the one named, or the newest one that is not finished.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        return find_run(given, runs_dir=runs_dir)
    found = newest_run(runs_dir, unfinished=True)
    if found is None:
        raise UserError(f"{runs_dir}: no run that is not finished; name a finished one to train it for longer")
    return found


def unfinished_run(loaded: LoadedConfig, *, runs_dir: Path) -> RunDir | None:
    """The newest unfinished run of this config, for ``--resume auto``."""
    return newest_run(runs_dir, unfinished=True, config_hash=config_hash(loaded.resolved()))


def unfinished_in_pieces(loaded: LoadedConfig, *, runs_dir: Path) -> tuple[Path, int] | None:
    """The newest unfinished run of this config whose batches may have another number of pieces, and that number."""
    resolved = loaded.resolved()
    for run in reversed(list_runs(runs_dir)):
        info = run.read_info()
        pieces = info.get("config", {}).get("training", {}).get("accumulation_steps")
        if pieces is None or info.get("status") == "finished":
            continue
        training = {**resolved["training"], "accumulation_steps": pieces}
        if info.get("config_hash") == config_hash({**resolved, "training": training}):
            return run.path, pieces
    return None


@contextmanager
def only_one(loaded: LoadedConfig, *, runs_dir: Path, newest: RunDir | None) -> Iterator[None]:
    """Hold the config for this process while it trains a new run, so that ``--resume auto`` begins no second one.

    Args:
        newest: the newest run of this config when there was no unfinished one.

    Raises:
        RunLocked: another process trains one.
        UserError: another process has trained one since.
    """
    digest = config_hash(loaded.resolved())
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise durable.WriteError(runs_dir, error) from error
    lock = runs_dir / f".{digest}.lock"
    with locked(lock, of=runs_dir, what="on a run of this config"):
        try:
            found = newest_run(runs_dir, config_hash=digest)
            if found is not None and found != newest:
                raise UserError(f"{found.path}: another process has begun this run; nothing was started beside it")
            yield
        finally:
            with suppress(OSError):  # a file that is open stays, where the system has it so
                lock.unlink()


def find_start(
    resume: str | Path | None, init_from: str | Path | None, *, epochs: int, runs_dir: Path, frontend: Frontend
) -> tuple[ResumePoint | None, Path | None]:
    """The checkpoint that a new run goes on from, or the file with the weights that it starts from.

    Raises:
        UserError: both are given, there is no such file or run, or all ``epochs`` are done at the checkpoint.
        DamagedFile: it is not a good checkpoint.
    """
    if resume is not None and init_from is not None:
        raise UserError(
            "--resume goes on with the weights of its checkpoint, and --init-from starts from others; give one of them"
        )
    if resume is None:
        weights = None
        if init_from is not None:
            weights = find_checkpoint(Path(init_from), runs_dir=runs_dir, frontend=frontend)
        return None, weights
    checkpoint = find_checkpoint(Path(resume), runs_dir=runs_dir, pick=last_of, frontend=frontend)
    point = point_at(checkpoint, frontend=frontend)
    progress = point.saved["progress"]
    if progress["batches_completed"] == 0 and progress["epochs_completed"] == epochs:
        raise UserError(
            f"{checkpoint}: after the last of {counted(epochs, 'epoch')}; add --set training.epochs=N for more"
        )
    return point, None


def resume_point(run: RunDir, *, read_only: bool = False, frontend: Frontend) -> ResumePoint | None:
    """The newest good checkpoint of a run that this process has locked, or only looks at.

    None for a run without a checkpoint: it starts over, in its own folder.

    Raises:
        TrainkitError: there are checkpoints, and all of them are damaged; nothing is overwritten.
    """
    folder = CheckpointFolder(run.checkpoints)
    for note in () if read_only else folder.recover():
        frontend.say(f"note: {note}")
    path, skipped = folder.newest_good()
    for bad, reason in skipped:
        frontend.say(f"warning: {bad.name} is skipped: {reason}")
    if path is None:
        strays = sorted(file.name for file in run.checkpoints.glob("*.pth"))
        if strays:
            raise TrainkitError(
                f"{run.checkpoints}: none of its files is a whole checkpoint of this run ({', '.join(strays[:5])}); "
                f"nothing was changed; see trainkit ckpt verify {run.path}"
            )
        return None
    lost = _best_is_lost(folder, newest_good=path, frontend=frontend)
    return ResumePoint(path, load_checkpoint(path), lost, run.read_info().get("config", {}))


def _best_is_lost(folder: CheckpointFolder, *, newest_good: Path, frontend: Frontend) -> bool:
    """Whether the best checkpoint from before ``newest_good`` cannot be read.

    A best checkpoint from after it does not count: the run will reach its epoch again.
    """
    best, entries = folder.best(), [entry.name for entry in folder.entries()]
    if best is None or best == newest_good or entries.index(best.name) > entries.index(newest_good.name):
        return False
    reason = _damage(best)
    if reason is not None:
        frontend.say(
            f"warning: {best.name}, the best so far, is lost ({reason}); the best from here on takes its place"
        )
    return reason is not None


def _damage(path: Path) -> str | None:
    try:
        inspect_checkpoint(path, expected_sha256=known_sha256(path))
    except DamagedFile as error:
        return error.reason
    return None


def point_at(checkpoint: Path, *, frontend: Frontend) -> ResumePoint:
    """A checkpoint that the user names, for a new run folder.

    Raises:
        DamagedFile: it is not a good checkpoint.
    """
    checkpoint = follow_pointer(checkpoint)
    saved = load_checkpoint(checkpoint)
    if "members" in saved:
        raise CheckpointError(f"{checkpoint}: an ensemble is not trained any further; go on with one of its runs")
    lost = saved["best"]["value"] is not None and _best_file(checkpoint, saved) is None
    if lost:
        frontend.say(
            f"warning: the best checkpoint so far is not beside {checkpoint}; the best from here on takes its place"
        )
    return ResumePoint(checkpoint, saved, lost)


def _best_file(checkpoint: Path, saved: Mapping[str, Any]) -> Path | None:
    """The best file when ``checkpoint`` was saved, itself or one beside it; None where that is gone."""
    own = saved.get("saved") or {}
    if own.get("best"):
        return checkpoint
    for entry in reversed(CheckpointFolder(checkpoint.parent).entries()):
        path = checkpoint.with_name(entry.name)
        same = (entry.epoch, entry.score) == (saved["best"]["epoch"], saved["best"]["value"])
        if entry.best and same and _damage(path) is None:
            return path
    return None


def copy_history(run: RunDir, point: ResumePoint, *, keep_last: int) -> None:
    """Copy the history, the best checkpoint and the state of another run into a new run folder.

    The new run then needs nothing of the old folder, and can be killed and resumed at any moment.
    """
    history = point.checkpoint.resolve().parent.parent / run.metrics.name
    if history.is_file():
        durable.write_bytes(run.metrics, history.read_bytes())
    best = None if point.best_is_lost else _best_file(point.checkpoint, point.saved)
    folder = CheckpointFolder(run.checkpoints)
    for path in dict.fromkeys(file for file in (best, point.checkpoint) if file is not None):
        saved = point.saved if path == point.checkpoint else load_checkpoint(path)
        known = saved.get("saved") or {}
        folder.save(
            {name: value for name, value in saved.items() if name not in ("format", "kind", "saved")},
            name=known.get("name", path.name),
            step=saved["progress"]["steps_completed"],
            epoch=saved["progress"]["epochs_completed"],
            score=known.get("score"),
            best=path == best,
            keep_last=keep_last,
        )


def why_finished(run: RunDir, loaded: LoadedConfig, *, allowed: Sequence[str]) -> str | None:
    """A message where a run is finished and its config asks for nothing more; None where there is work to do.

    Raises:
        UserError: the config differs in a key that changes the result.
    """
    info = run.read_info()
    completed = info.get("epochs_completed", 0)
    early = info.get("outcome") == "early stopping"
    changed = config_differences([info.get("config", {}), loaded.resolved()])
    stopping = any(key.startswith("training.early_stopping") for key in changed)
    more = stopping if early else loaded.config.training.epochs > completed
    if info.get("status") != "finished" or more:
        return None
    at_its_end = {"config": info["config"], "progress": {"batches_completed": 0}}
    check_changes(at_its_end, loaded.resolved(), allowed=allowed, accepted={})
    if early:
        return (
            f"{run.path}: early stopping ended it after {counted(completed, 'epoch')}, nothing to do; "
            "to train it for longer: "
            f"trainkit resume {run.path} --unset training.early_stopping --allow-change training.early_stopping"
        )
    return (
        f"{run.path}: finished after {counted(completed, 'epoch')}, nothing to do; "
        f"to train it for longer: trainkit resume {run.path} --set training.epochs=N"
    )


def load_best(folder: CheckpointFolder, *, frontend: Frontend) -> tuple[Path, dict[str, Any]]:
    """The best checkpoint, loaded; the newest good one where the best was damaged since it was saved.

    Raises:
        TrainkitError: all are damaged.
    """
    best = folder.best()
    reason = None
    if best is not None:
        try:
            return best, load_checkpoint(best)
        except DamagedFile as error:
            reason = error.reason
    newest, _ = folder.newest_good()
    assert newest is not None, "a finished run has a checkpoint"
    if best is not None:
        frontend.say(
            f"warning: {best.name}, the best, is damaged since it was saved ({reason}); {newest.name} takes its place"
        )
    return newest, load_checkpoint(newest)


def load_state(state: TrainState, point: ResumePoint, *, data: Dataset) -> None:
    """Bring a new state to a checkpoint.

    Raises:
        UserError: the data are not those of the checkpoint.
        CheckpointError: its tensors do not fit the model or the optimizer.
    """
    check_data(point.saved, data.fingerprint)
    check_fits(point.saved["model"], state.model)
    state.load_state_dict(point.saved)
    if point.best_is_lost:
        state.best.value = state.best.epoch = None


def start_from_weights(state: TrainState, path: Path, *, frontend: Frontend) -> None:
    """Load the weights of a file that fit by name and shape; a message names the others.

    Raises:
        CheckpointError: none fits.
    """
    weights = load_weights_file(path)
    report = match_weights(weights, state.model)
    frontend.say(
        f"weights: {len(report.matched)} of {counted(len(state.model.state_dict()), 'tensor')} taken from {path}"
    )
    shapes = [f"{name} ({theirs} in the file, {ours} in the model)" for name, theirs, ours in report.wrong_shape]
    for what, names in (("missing", report.missing), ("unexpected", report.unexpected), ("wrong shape", shapes)):
        if names:
            frontend.say(f"weights: {what}: {listed(names, limit=5, quoted=False)}")
    if not report.matched:
        raise CheckpointError(f"{path}: none of its {counted(len(weights), 'tensor')} fits the model by name and shape")
    own = state.model.state_dict()
    state.model.load_state_dict(own | {name: weights[name].to(own[name].dtype) for name in report.matched})
    if state.ema is not None:
        state.ema.model.load_state_dict(state.model.state_dict())
