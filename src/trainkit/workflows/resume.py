"""Which run goes on, from where, and whether the config may differ from the one it began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainkit.checkpoint import CheckpointFolder, load_checkpoint
from trainkit.config import LoadedConfig
from trainkit.data.fingerprints import describe_changes
from trainkit.errors import CheckpointError, UserError
from trainkit.rundir import RunDir, list_runs, newest_run

# Keys that change what is written down, where, or how fast, but not what is trained.
HARMLESS = (
    "name",
    "device",
    "dataset.root",
    "dataset.path",
    "dataset.test_path",
    "dataset.download",
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


@dataclass(frozen=True)
class ResumePoint:
    """A state to go on from."""

    checkpoint: Path | None
    """None for a run that ended before its first checkpoint: it starts over, in its own folder."""
    saved: dict[str, Any] | None


def config_hash(resolved: Mapping[str, Any]) -> str:
    """Equal for configs that train the same model: harmless keys left out."""
    kept = {key: value for key, value in flatten(resolved).items() if not is_harmless(key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Plain nested data as ``{"a.b[0]": leaf}``."""
    if isinstance(value, Mapping) and value:
        return {
            k: v for name, item in value.items() for k, v in flatten(item, f"{key}.{name}" if key else name).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], Mapping | list):
        return {k: v for index, item in enumerate(value) for k, v in flatten(item, f"{key}[{index}]").items()}
    return {key: value}


def is_harmless(key: str) -> bool:
    return any(key == prefix or key.startswith((f"{prefix}.", f"{prefix}[")) for prefix in HARMLESS)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ: ``{key: (old, new)}``."""
    before, after = flatten(old), flatten(new)
    keys = dict.fromkeys([*before, *after])
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def check_changes(old: Mapping[str, Any], new: Mapping[str, Any], *, allowed: Sequence[str]) -> list[str]:
    """What the new config changes, in words; more epochs and harmless keys may change freely.

    Raises:
        UserError: a key that changes the result differs, and is not allowed to.
    """
    changes = {key: pair for key, pair in changed_keys(old, new).items() if not is_harmless(key)}
    free = ("training.epochs", *allowed)
    refused = [
        f"{key}: {before!r} in the checkpoint, {after!r} in the config"
        for key, (before, after) in changes.items()
        if not any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in free)
    ]
    if refused:
        keys = " ".join(f"--allow-change {line.split(':')[0]}" for line in refused[:3])
        raise UserError(
            "the config is not the one that this run began with:\n  "
            + "\n  ".join(refused[:10])
            + f"\nleave it as it was, start a new run, or change it in the middle of the run with {keys}"
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


def find_run(given: Path | None, *, runs_dir: Path) -> RunDir:
    """The run that ``trainkit resume [RUN]`` means: the folder named, or the newest one that is not finished.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        run = RunDir(given)
        if not run.info.is_file():
            known = ", ".join(found.path.name for found in list_runs(runs_dir)[-3:])
            raise UserError(
                f"{given}: not a run folder (no run.json)" + (f"; the newest runs are {known}" if known else "")
            )
        return run
    found = newest_run(runs_dir, unfinished=True)
    if found is None:
        raise UserError(f"{runs_dir}: no run that is not finished; name a finished one to train it for longer")
    return found


def unfinished_run(loaded: LoadedConfig, *, runs_dir: Path) -> RunDir | None:
    """The newest unfinished run of this config, for ``--resume auto``."""
    return newest_run(runs_dir, unfinished=True, config_hash=config_hash(loaded.resolved()))


def resume_point(run: RunDir, *, say: Callable[[str], None]) -> ResumePoint:
    """The newest good checkpoint of a run that this process has locked.

    Raises:
        TrainkitError: there are checkpoints, and all of them are damaged; nothing is overwritten.
    """
    folder = CheckpointFolder(run.checkpoints)
    for note in folder.recover():
        say(f"note: {note}")
    path, skipped = folder.newest_good()
    for bad, reason in skipped:
        say(f"warning: {bad.name} is skipped: {reason}")
    return ResumePoint(path, None if path is None else load_checkpoint(path))


def check_optimizer(saved: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the optimizer is of another type: its state would mean something else."""
    before, after = saved["config"]["optimizer"]["type"], resolved["optimizer"]["type"]
    if before != after:
        raise CheckpointError(
            f"the checkpoint was saved with optimizer {before}, the config has {after}: its state cannot be used; "
            "go on with the same optimizer, or start from the weights with --init-from"
        )
