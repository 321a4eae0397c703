"""``dataset.scale_target`` for opened data: the scale of the values to predict, measured or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trainkit.config.schema import Config
from trainkit.config.schema.splits import ScaledTarget
from trainkit.data.dataset import Dataset
from trainkit.data.target_scale import is_standard, measure_targets, stored_scale
from trainkit.errors import Problem, ProblemsError
from trainkit.runtime import Choice
from trainkit.wording import listed


def with_target_scale(data: Dataset, config: Config, *, stored: Mapping[str, Any] | None = None) -> Dataset:
    """The data with the scale by which the model sees the values to predict; classes have none.

    Args:
        stored: the preprocessing of a checkpoint; its scale is taken.

    Raises:
        ProblemsError: ``dataset.scale_target`` is not what the checkpoint was trained with.
    """
    if data.task == "classification":
        return data
    wanted = wanted_scaling(config)
    if stored is not None:
        scale = stored_scale(stored)
        if wanted not in ("auto", scale is not None):
            how = "with" if scale else "without"
            message = f"the checkpoint was trained {how} scaling of the target; leave it so, or start a new run"
            raise ProblemsError([Problem(message, key="dataset.scale_target")])
        return replace(data, target_scale=scale)
    if wanted is False:
        return data
    train = data.splits["train"]
    found = train.statistic(
        "target scale", lambda: np.array(measure_targets(data.parts[train.part].targets, train.indices))
    )
    scale = tuple((mean, std) for mean, std in found.tolist())
    return data if wanted == "auto" and is_standard(scale) else replace(data, target_scale=scale)


def wanted_scaling(config: Config) -> bool | str:
    return config.dataset.scale_target if isinstance(config.dataset, ScaledTarget) else False


def scale_choice(config: Config, data: Dataset, *, stored: Mapping[str, Any] | None = None) -> dict[str, Choice]:
    """Under ``scale_target``: whether the model sees the values to predict scaled, and why; {} for classes.

    Args:
        stored: the checkpoint to resume from; its choice is kept.
    """
    if data.task == "classification":
        return {}
    if stored is not None:
        known = stored["choices"].get("scale_target", {"value": "false", "reason": "as in the checkpoint"})
        return {"scale_target": Choice(**known)}
    how = "auto" if wanted_scaling(config) == "auto" else "as asked for"
    if data.target_scale is None:
        why = ": mean and deviation are about 0 and 1 already" if how == "auto" else ""
        return {"scale_target": Choice("false", how + why)}
    measured = [
        f"{name} has mean {mean:.4g} and standard deviation {std:.4g}"
        for name, (mean, std) in zip(data.target_names, data.target_scale, strict=True)
    ]
    reason = f"{how}: in the training split {listed(measured, limit=3, quoted=False)}"
    if len(set(data.target_std)) > 1:
        reason += "; the loss is that of the scaled targets"
    return {"scale_target": Choice("true", reason)}
