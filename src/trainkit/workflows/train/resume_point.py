"""Which run goes on, from where, and whether the config may differ from the one it began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainkit.checkpoints import (
    CheckpointFolder,
    DamagedFile,
    follow_pointer,
    inspect_checkpoint,
    known_sha256,
    load_checkpoint,
)
from trainkit.config import LoadedConfig
from trainkit.config.help import variants
from trainkit.config.schema.data import Dataset, ValSplit
from trainkit.data.dataset import describe_changes
from trainkit.errors import CheckpointError, TrainkitError, UserError
from trainkit.system import RunDir, durable, newest_run
from trainkit.wording import by_key
from trainkit.workflows.find import find_run

SOURCES = [section for section in variants(Dataset).values() if issubclass(section, ValSplit)]
# Keys that change what is written down, where, or how fast, but not what is trained.
HARMLESS = (
    "name",
    "device",
    *sorted({f"dataset.{key}" for source in SOURCES for key in source.location_keys}),
    "training.eval_batch_size",
    "training.channels_last",
    "training.num_workers",
    "training.num_threads",
    "training.compile",
    "checkpoint.every",
    "checkpoint.keep_last",
    "logging",
    "export",
)
# Keys that say which samples the rest of an epoch holds.
CUTS_OF_AN_EPOCH = ("seed", "training.batch_size", "training.shuffle", "training.drop_last")


@dataclass(frozen=True)
class ResumePoint:
    """A state to go on from."""

    checkpoint: Path
    saved: dict[str, Any]
    best_is_lost: bool = False
    """The best checkpoint so far is damaged or gone: the best of what is to come takes its place."""
    accepted: Mapping[str, Any] = field(default_factory=dict)
    """The config that the run went on with after the checkpoint was saved: its changes were allowed then."""


def config_hash(resolved: Mapping[str, Any]) -> str:
    """Equal for configs that train the same model: harmless keys left out."""
    kept = {key: value for key, value in by_key(resolved).items() if not is_harmless(key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def is_harmless(key: str) -> bool:
    return any(key == prefix or key.startswith((f"{prefix}.", f"{prefix}[")) for prefix in HARMLESS)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ: ``{key: (old, new)}``."""
    before, after = by_key(old), by_key(new)
    keys = dict.fromkeys([*before, *after])
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def check_changes(
    saved: Mapping[str, Any], new: Mapping[str, Any], *, allowed: Sequence[str], accepted: Mapping[str, Any]
) -> list[str]:
    """What the new config changes, in words; more epochs and harmless keys may change freely.

    Args:
        saved: the checkpoint.
        allowed: keys that may change now.
        accepted: a config whose changes were allowed before.

    Raises:
        UserError: a key that changes the result differs, and is not allowed to, or not at this point.
    """
    old = saved["config"]
    changes = {key: pair for key, pair in changed_keys(old, new).items() if not is_harmless(key)}
    free, known = ("training.epochs", *allowed), by_key(accepted)
    refused = [
        f"{key}: {before!r} in the checkpoint, {after!r} in the config"
        for key, (before, after) in changes.items()
        if not any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in free)
        and not (key in known and known[key] == after)
    ]
    if refused:
        keys = " ".join(f"--allow-change {line.split(':')[0]}" for line in refused[:3])
        raise UserError(
            "the config is not the one that this run began with:\n  "
            + "\n  ".join(refused[:10])
            + f"\nleave it as it was, start a new run, or change it in the middle of the run with {keys}"
        )
    cuts = [key for key in CUTS_OF_AN_EPOCH if key in changes]
    if cuts and saved["progress"]["batches_completed"] > 0:
        raise UserError(
            f"{cuts[0]}: cannot change in the middle of an epoch, whose samples it cuts into batches; the checkpoint "
            f"was saved after batch {saved['progress']['batches_completed']} of one, so go on from the end of an epoch"
        )
    return [f"{key}: {before!r} -> {after!r}" for key, (before, after) in changes.items()]


def check_data(saved: Mapping[str, Any], fingerprint: dict[str, Any]) -> None:
    """Raises UserError with the first differences where the data are not those of the checkpoint."""
    changes = describe_changes(saved["data_fingerprint"], fingerprint)
    if changes:
        raise UserError(
            "the data are not those that this run began with: "
            + "; ".join(changes[:5])
            + "; put them back as they were, or start a new run (--init-from takes over the weights)"
        )


def find_unfinished(given: Path | None, *, runs_dir: Path) -> RunDir:
    """The run that ``trainkit resume [RUN]`` means: the one named, or the newest one that is not finished.

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


def resume_point(run: RunDir, *, say: Callable[[str], None]) -> ResumePoint | None:
    """The newest good checkpoint of a run that this process has locked.

    None for a run that ended before its first checkpoint: it starts over, in its own folder.

    Raises:
        TrainkitError: there are checkpoints, and all of them are damaged; nothing is overwritten.
    """
    folder = CheckpointFolder(run.checkpoints)
    for note in folder.recover():
        say(f"note: {note}")
    path, skipped = folder.newest_good()
    for bad, reason in skipped:
        say(f"warning: {bad.name} is skipped: {reason}")
    if path is None:
        strays = sorted(file.name for file in run.checkpoints.glob("*.pth"))
        if strays:
            raise TrainkitError(
                f"{run.checkpoints}: none of its files is a whole checkpoint of this run ({', '.join(strays[:5])}); "
                f"nothing was changed; see trainkit ckpt verify {run.path}"
            )
        return None
    lost = _best_is_lost(folder, newest_good=path, say=say)
    return ResumePoint(path, load_checkpoint(path), lost, run.read_info().get("config", {}))


def _best_is_lost(folder: CheckpointFolder, *, newest_good: Path, say: Callable[[str], None]) -> bool:
    """Whether the best checkpoint from before ``newest_good`` cannot be read.

    One from after it does not count: the run is about to come there again.
    """
    best, entries = folder.best(), [entry.name for entry in folder.entries()]
    if best is None or best == newest_good or entries.index(best.name) > entries.index(newest_good.name):
        return False
    reason = _damage(best)
    if reason is not None:
        say(f"warning: {best.name}, the best so far, is lost ({reason}); the best from here on takes its place")
    return reason is not None


def _damage(path: Path) -> str | None:
    try:
        inspect_checkpoint(path, expected_sha256=known_sha256(path))
    except DamagedFile as error:
        return error.reason
    return None


def point_at(checkpoint: Path, *, say: Callable[[str], None]) -> ResumePoint:
    """A checkpoint that the user names, for a new run folder.

    Raises:
        DamagedFile: it is not a good checkpoint.
    """
    checkpoint = follow_pointer(checkpoint)
    saved = load_checkpoint(checkpoint)
    lost = saved["best"]["value"] is not None and _best_file(checkpoint, saved) is None
    if lost:
        say(f"warning: the best checkpoint so far is not beside {checkpoint}; the best from here on takes its place")
    return ResumePoint(checkpoint, saved, lost)


def _best_file(checkpoint: Path, saved: Mapping[str, Any]) -> Path | None:
    """The file that was the best when ``checkpoint`` was saved, itself or one beside it; None where that is gone."""
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
    """Let a new run folder begin with the history, the best checkpoint and the state of the run that it goes on with.

    So it needs nothing of the old folder, and can itself be killed and resumed at any moment.
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
    """What to tell where a run is finished and its config asks for nothing more; None where there is work to do.

    Raises:
        UserError: the config differs in a key that changes the result.
    """
    info = run.read_info()
    completed = info.get("epochs_completed", 0)
    early = info.get("outcome") == "early stopping"
    changed = changed_keys(info.get("config", {}), loaded.resolved())
    stopping = any(key.startswith("training.early_stopping") for key in changed)
    more = stopping if early else loaded.config.training.epochs > completed
    if info.get("status") != "finished" or more:
        return None
    at_its_end = {"config": info["config"], "progress": {"batches_completed": 0}}
    check_changes(at_its_end, loaded.resolved(), allowed=allowed, accepted={})
    if early:
        return (
            f"{run.path}: early stopping ended it after {completed} epochs, nothing to do; to train it for longer: "
            f"trainkit resume {run.path} --unset training.early_stopping --allow-change training.early_stopping"
        )
    return (
        f"{run.path}: finished after {completed} epochs, nothing to do; "
        f"to train it for longer: trainkit resume {run.path} --set training.epochs=N"
    )


def load_best(folder: CheckpointFolder, *, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The best checkpoint and what it holds; the newest good one where the best was damaged since it was saved.

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
        say(f"warning: {best.name}, the best, is damaged since it was saved ({reason}); {newest.name} takes its place")
    return newest, load_checkpoint(newest)


def check_optimizer(saved: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the optimizer's state cannot be used: of another type, or without a part."""
    before, after = saved["config"]["optimizer"], resolved["optimizer"]
    advice = "go on with the same optimizer, or start from the weights with --init-from"
    if before["type"] != after["type"]:
        raise CheckpointError(
            f"the checkpoint was saved with optimizer {before['type']}, the config has {after['type']}: "
            f"its state cannot be used; {advice}"
        )
    # For these knobs PyTorch keeps a tensor that the state has only if they were on from the start.
    for knob in ("amsgrad", "centered", *(["momentum"] if after["type"] == "rmsprop" else [])):
        if after.get(knob) and not before.get(knob):
            raise CheckpointError(
                f"optimizer.{knob}: {before.get(knob)} in the checkpoint, {after[knob]} in the config: its state lacks "
                f"what that needs; {advice}"
            )
