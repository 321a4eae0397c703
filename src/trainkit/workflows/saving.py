"""What a checkpoint holds besides the state: all that is needed to use it without the config beside it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trainkit
from trainkit.checkpoints.folder import CheckpointFolder, checkpoint_name
from trainkit.config import LoadedConfig
from trainkit.workflows.experiment import Experiment


def versions() -> dict[str, str]:
    return {
        "trainkit": trainkit.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def description(loaded: LoadedConfig, experiment: Experiment) -> dict[str, Any]:
    """The part of a checkpoint that stays the same over a run: plain values only."""
    return {
        "name": loaded.name,
        "config": loaded.resolved(),
        "task": experiment.data.task,
        "class_names": list(experiment.data.class_names),
        "class_counts": experiment.data.class_counts("train"),
        "target_names": list(experiment.data.target_names),
        "preprocessing": experiment.preprocessing,
        "data_fingerprint": experiment.data.fingerprint,
        "choices": {name: asdict(choice) for name, choice in experiment.choices.items()},
        "versions": versions(),
    }


class RunCheckpointer:
    """Saves states into a run's folder, under a name that says what is inside."""

    def __init__(
        self,
        folder: CheckpointFolder,
        described: Mapping[str, Any],
        *,
        monitor: str,
        keep_last: int,
        protect: Sequence[Path] = (),
    ) -> None:
        self.folder, self.described, self.monitor = folder, described, monitor
        self.keep_last, self.protect = keep_last, protect

    def save(self, state: dict[str, Any], *, metrics: Mapping[str, float], best: bool) -> None:
        progress = state["progress"]
        accuracy = next((metrics[name] for name in ("val_accuracy", "train_accuracy") if name in metrics), None)
        loss = next((metrics[name] for name in ("val_loss", "train_loss") if name in metrics), None)
        middle = progress["batches_completed"] > 0
        name = checkpoint_name(
            self.described["name"],
            when=datetime.now(),
            epoch=progress["epochs_completed"],
            step=progress["steps_completed"] if middle else None,
            metric="loss" if accuracy is None else "acc",
            value=loss if accuracy is None else accuracy,
        )
        self.folder.save(
            {**self.described, **state},
            name=name,
            step=progress["steps_completed"],
            epoch=progress["epochs_completed"],
            score=metrics.get(self.monitor),
            best=best,
            keep_last=self.keep_last,
            protect=self.protect,
        )
