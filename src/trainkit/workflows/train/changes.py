"""Differences between a checkpoint and the run that resumes from it: config, data, optimizer, machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainkit.builders import build_schedule_for
from trainkit.config import config_from_dict, to_plain
from trainkit.config.help import variants
from trainkit.config.schema.data import Dataset
from trainkit.config.schema.splits import ValSplit
from trainkit.data.dataset import describe_changes
from trainkit.engine import TrainState
from trainkit.errors import CheckpointError, ProblemsError, UserError
from trainkit.runtime import Choice
from trainkit.wording import by_key
from trainkit.workflows.runs import config_differences

SOURCES = [section for section in variants(Dataset).values() if issubclass(section, ValSplit)]
# Keys that change the records, their place or the speed, but not the trained weights.
HARMLESS = (
    "name",
    "device",
    *sorted({f"dataset.{key}" for source in SOURCES for key in source.location_keys}),
    "training.eval_batch_size",
    "training.channels_last",
    "training.deterministic",
    "training.residency",
    "training.num_workers",
    "training.num_threads",
    "training.compile",
    "distributed",
    "checkpoint.every",
    "checkpoint.keep_last",
    "logging",
    "export",
)
# What a run writes down of the weights that it began with; the file that they name is not read again.
PINS = ("model.sha256", "model.revision")
# Keys that decide which samples the rest of an epoch holds.
BATCH_KEYS = ("seed", "training.batch_size", "training.shuffle", "training.sampler", "training.drop_last")


def config_hash(resolved: Mapping[str, Any]) -> str:
    """Equal for configs that train the same model: harmless keys left out."""
    kept = {key: value for key, value in by_key(resolved).items() if not is_under(key, (*HARMLESS, *PINS))}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def is_under(key: str, prefixes: Sequence[str]) -> bool:
    """Whether the key is one of ``prefixes`` or lies in such a section."""
    return any(key == prefix or key.startswith((f"{prefix}.", f"{prefix}[")) for prefix in prefixes)


def check_changes(
    saved: Mapping[str, Any], new: Mapping[str, Any], *, allowed: Sequence[str], accepted: Mapping[str, Any]
) -> list[str]:
    """The changes of the new config, as text; more epochs and harmless keys may change freely.

    Args:
        saved: the checkpoint.
        allowed: keys that may change now.
        accepted: a config whose changes were allowed before.

    Raises:
        UserError: a key that changes the result differs and is not allowed to, or not in the middle of an epoch; fewer
            epochs than are done.
    """
    old = to_plain(config_from_dict(saved["config"], where="checkpoint"))  # an earlier version may lack a key
    changes = {
        key: pair
        for key, pair in config_differences([old, new]).items()
        if not is_under(key, HARMLESS) and not (key in PINS and None in pair)
    }
    free, known = ("training.epochs", *allowed), by_key(accepted)
    refused = [
        f"{key}: {before!r} in the checkpoint, {after!r} in the config"
        for key, (before, after) in changes.items()
        if not is_under(key, free) and not (key in known and known[key] == after)
    ]
    if refused:
        keys = " ".join(f"--allow-change {line.split(':')[0]}" for line in refused[:3])
        raise UserError(
            "the config is not the one that this run began with:\n  "
            + "\n  ".join(refused[:10])
            + f"\nleave it as it was, start a new run, or change it in the middle of the run with {keys}"
        )
    batches, epochs = saved["progress"]["batches_completed"], new["training"]["epochs"]
    begun = saved["progress"].get("epochs_completed", 0) + (batches > 0)
    if "training.epochs" in changes and epochs < begun:
        where = "in" if batches else "after"
        raise UserError(f"training.epochs: {epochs}, and the run is {where} epoch {begun}; with {begun} it ends there")
    changed = [key for key in changes if is_under(key, BATCH_KEYS)]
    if changed and batches > 0:
        raise UserError(
            f"{changed[0]}: cannot change in the middle of an epoch, whose samples it cuts into batches; "
            f"the checkpoint was saved after batch {batches} of one, so go on from the end of an epoch"
        )
    return [f"{key}: {before!r} -> {after!r}" for key, (before, after) in changes.items()]


def check_optimizer(saved: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the optimizer's state cannot be used: of another type, or without a part."""
    before, after = saved["config"]["optimizer"], resolved["optimizer"]
    advice = "go on with the same optimizer, or start from the weights with --init-from"
    if before["type"] != after["type"]:
        raise CheckpointError(
            f"the checkpoint was saved with optimizer {before['type']}, the config has {after['type']}: "
            f"its state cannot be used; {advice}"
        )
    # With these knobs on, PyTorch needs a tensor that the state has only if they were on from the start.
    for knob in ("amsgrad", "centered", *(["momentum"] if after["type"] == "rmsprop" else [])):
        if after.get(knob) and not before.get(knob):
            raise CheckpointError(
                f"optimizer.{knob}: {before.get(knob)} in the checkpoint, {after[knob]} in the config: its state lacks "
                f"what that needs; {advice}"
            )


def check_data(saved: Mapping[str, Any], fingerprint: dict[str, Any]) -> None:
    """Raises UserError with the first differences where the data are not those of the checkpoint."""
    changes = describe_changes(saved["data_fingerprint"], fingerprint)
    if changes:
        raise UserError(
            "the data are not those that this run began with: "
            + "; ".join(changes[:5])
            + "; put them back as they were, or start a new run (--init-from takes over the weights)"
        )


def plugin_changes(saved: Mapping[str, Any], now: Sequence[Mapping[str, str]]) -> list[str]:
    """Plug-ins with other files than the checkpoint's had, as text."""
    before = {plugin["name"]: plugin for plugin in saved.get("plugins", ())}
    changed = []
    for plugin in now:
        old = before.get(plugin["name"], plugin)
        if old["sha256"] != plugin["sha256"]:
            versions = (
                "" if old["version"] == plugin["version"] else f", version {old['version']} -> {plugin['version']}"
            )
            hashes = f"SHA-256 {old['sha256'][:12]} -> {plugin['sha256'][:12]}"
            changed.append(
                f"the files of the plug-in {plugin['name']} have changed since the checkpoint was saved "
                f"({hashes}{versions}): from here on it may compute something else"
            )
    return changed


def schedule_changes(saved: Mapping[str, Any], state: TrainState, *, steps_per_epoch: int) -> list[str]:
    """Whether the learning rate changes from here on, as text: the first step with another one."""
    config = config_from_dict(saved["config"], where="checkpoint")
    try:
        before = build_schedule_for(config, steps_per_epoch=steps_per_epoch)
    except ProblemsError:  # an epoch has another number of steps now, too few for the old schedule
        return ["the schedule is another one now"]
    first = state.progress.steps_completed
    for step in range(first, max(first + 1, config.training.epochs * steps_per_epoch)):
        old, new = before.lr_at(step), state.schedule.lr_at(step)
        if old != new:
            return [f"the schedule is another one now: at step {step} the learning rate is {new:.4g}, not {old:.4g}"]
    return []


def environment_changes(
    saved: Mapping[str, Any], choices: Mapping[str, Choice], training: Mapping[str, Any]
) -> list[str]:
    """Differences that may change the last bits of the numbers, as text: of device, threads, kernels and PyTorch.

    Args:
        training: the section of the resolved config.
    """
    now = {name: choices[name].value for name in ("device", "threads", "precision", "compile") if name in choices}
    pairs = [(name, saved["choices"][name]["value"], now[name]) for name in now if name in saved["choices"]]
    before = saved["config"]["training"]
    keys = [key for key in ("channels_last", "deterministic") if key in before]  # an earlier version may lack one
    pairs += [(f"training.{key}", before[key], training[key]) for key in keys]
    pairs.append(("torch", saved["versions"]["torch"], torch.__version__))
    return [
        f"{name} is {after}, and was {before} when the checkpoint was saved: the last bits of the numbers may differ"
        for name, before, after in pairs
        if before != after
    ]
