"""How a run begins that does not begin from nothing: weights of a file, and what is not as it was at a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from trainkit.builders import build_schedule_for
from trainkit.checkpoints import load_weights_file, match_weights
from trainkit.config import config_from_dict
from trainkit.engine import TrainState
from trainkit.errors import CheckpointError, ProblemsError
from trainkit.runtime import Choice


def schedule_changes(saved: Mapping[str, Any], state: TrainState, *, steps_per_epoch: int) -> list[str]:
    """What a changed config does to the learning rate from here on: the first step of the old run that differs."""
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


def start_from_weights(state: TrainState, path: Path, *, say: Callable[[str], None]) -> None:
    """Take over the weights of a file that fit by name and shape, and say which do not.

    Raises:
        CheckpointError: none fits.
    """
    weights = load_weights_file(path)
    report = match_weights(weights, state.model)
    say(f"weights: {len(report.matched)} of {len(state.model.state_dict())} tensors taken from {path}")
    shapes = [f"{name} ({theirs} in the file, {ours} in the model)" for name, theirs, ours in report.wrong_shape]
    for what, names in (("missing", report.missing), ("unexpected", report.unexpected), ("wrong shape", shapes)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            say(f"weights: {what}: {', '.join(names[:5])}{more}")
    if not report.matched:
        raise CheckpointError(f"{path}: none of its {len(weights)} tensors fits the model by name and shape")
    own = state.model.state_dict()
    state.model.load_state_dict(own | {name: weights[name].to(own[name].dtype) for name in report.matched})
    if state.ema is not None:
        state.ema.model.load_state_dict(state.model.state_dict())


def environment_changes(saved: Mapping[str, Any], choices: Mapping[str, Choice]) -> list[str]:
    """What is not as it was when the checkpoint was saved, and may change the last bits of the numbers."""
    now = {name: choices[name].value for name in ("device", "threads", "precision") if name in choices}
    then = {name: saved["choices"][name]["value"] for name in now if name in saved["choices"]}
    versions = {"torch": torch.__version__}
    pairs = [(name, then[name], now[name]) for name in then]
    pairs += [(name, saved["versions"][name], version) for name, version in versions.items()]
    return [
        f"{name} is {after}, and was {before} when the checkpoint was saved: the last bits of the numbers may differ"
        for name, before, after in pairs
        if before != after
    ]
