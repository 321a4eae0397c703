"""Scores of a setup on a split, the same in train, eval and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.builders import Setup, build_loss_for
from trainkit.data.dataset import Dataset
from trainkit.data.images import decode_image
from trainkit.data.pixel_rules import rules_of
from trainkit.data.transforms import apply_static_transforms, static_transforms_from_json
from trainkit.engine import evaluate
from trainkit.evaluation import RegressionReport, Report, build_report
from trainkit.system import Frontend
from trainkit.workflows.ranks import stop_together


def preferred_split(data: Dataset, order: Sequence[str] = ("test", "val", "train")) -> str:
    """The first of these splits that the data have: test says most, then val."""
    return next(name for name in order if name in data.splits)


def score(
    setup: Setup, split: str, *, frontend: Frontend, stopped: str, keep: Callable[[Tensor], None] = lambda outputs: None
) -> dict[str, float]:
    """Loss and metrics of the model over a split.

    Args:
        stopped: the message after a stop.
        keep: called with the outputs of each batch.

    Raises:
        Interrupted: the frontend asked for a stop.
    """
    should_stop = stop_together(setup.ranks, frontend)
    metrics = evaluate(setup.model, setup.plan(), setup.batches(split), should_stop=should_stop, keep=keep)
    frontend.check(stopped)
    assert metrics is not None, "there was no stop"
    return metrics


def score_and_keep(setup: Setup, split: str, *, frontend: Frontend, stopped: str) -> tuple[dict[str, float], Tensor]:
    """``score``, and the outputs of the model: float32 (N, ...) on the CPU, in the order of the split."""
    num_samples = len(setup.data.splits[split].indices)
    kept: Tensor | None = None
    done = 0

    def keep(outputs: Tensor) -> None:
        nonlocal kept, done
        if kept is None:  # one tensor for all, as in ``evaluate``
            kept = torch.empty(num_samples, *outputs.shape[1:])
        kept[done : done + len(outputs)] = outputs
        done += len(outputs)

    metrics = score(setup, split, frontend=frontend, stopped=stopped, keep=keep)
    assert kept is not None, "an empty split"
    return metrics, kept


def report_on(
    setup: Setup, split: str, metrics: dict[str, float], outputs: Tensor, *, frontend: Frontend, stopped: str
) -> Report:
    """The report on an evaluation, from the metrics and outputs of ``score_and_keep``.

    Args:
        stopped: the message after a stop.

    Raises:
        Interrupted: the frontend asked for a stop.
    """
    return build_report(
        outputs,
        setup.data.split_targets(split),
        loss=build_loss_for(setup.config, setup.data, device=outputs.device),
        class_names=setup.data.class_names,
        target_names=setup.data.target_names,
        target_scale=setup.data.target_scale,
        metrics=metrics,
        weights=setup.data.split_weights(split),
        seed=setup.config.seed,
        check=lambda: frontend.check(stopped),
    )


def look_up_mistakes(setup: Setup, split: str, report: Report) -> tuple[list[str], list[NDArray[np.uint8]]]:
    """The names of the report's mistakes (a file, or ``test[17]``), and their pictures: uint8 (C, H, W)."""
    chosen = setup.data.splits[split]
    if isinstance(report, RegressionReport):
        positions = [row["position"] for row in report.worst()]
    else:
        positions = [mistake.position for mistake in report.mistakes]
    indices = [int(chosen.indices[position]) for position in positions]
    files = setup.files.get(chosen.part)
    names = [f"{chosen.part}[{index}]" if files is None else str(files[index]) for index in indices]
    if setup.data.kind != "image" or isinstance(report, RegressionReport):
        return names, []
    inputs = setup.data.parts[chosen.part].inputs
    if not isinstance(inputs, tuple):
        return names, [_visible(np.array(inputs[index])) for index in indices]
    static = static_transforms_from_json(setup.preprocessing["front"])
    channels, rules = setup.preprocessing["channels"], rules_of(setup.preprocessing)
    decoded = [decode_image(inputs[index], channels=channels, rules=rules) for index in indices]
    return names, [_visible(apply_static_transforms(image, static)) for image in decoded]


def _visible(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The image in 8 bits, to be looked at."""
    return np.asarray(image if image.dtype == np.uint8 else np.rint(image * 255), dtype=np.uint8)
