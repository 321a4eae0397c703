"""What a run writes into its folder: its description, the log and trackers, and checkpoints."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainkit._version import __version__
from trainkit.builders import Setup
from trainkit.checkpoints import CheckpointFolder, checkpoint_name
from trainkit.config import LoadedConfig
from trainkit.config.text import to_yaml
from trainkit.data.loading import Batch
from trainkit.engine import Batches, Progress, Recorder
from trainkit.plugins import used_by
from trainkit.recorders import Fanout, JsonLines, TextLog, tensorboard
from trainkit.runtime import host_bytes, processor_name
from trainkit.system import Frontend, RunDir, durable
from trainkit.wording import by_key


def versions() -> dict[str, str]:
    return {
        "trainkit": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def description(loaded: LoadedConfig, setup: Setup) -> dict[str, Any]:
    """The part of a checkpoint that stays the same over a run: plain values only."""
    pretrained = {} if setup.pin is None else {"pretrained": dict(setup.pin)}
    return {
        "name": loaded.name,
        "config": pinned(loaded, setup),
        **pretrained,
        "task": setup.data.task,
        "class_names": list(setup.data.class_names),
        "class_counts": setup.data.class_counts("train"),
        "target_names": list(setup.data.target_names),
        "preprocessing": setup.preprocessing,
        "data_fingerprint": setup.data.fingerprint,
        "choices": {name: asdict(choice) for name, choice in setup.choices.items()},
        "versions": versions(),
        **({"plugins": used} if (used := describe_plugins(loaded)) else {}),
    }


def describe_plugins(loaded: LoadedConfig) -> list[dict[str, str]]:
    """Name, version and hash of the plug-ins that the config uses."""
    return [plugin.describe() for plugin in used_by(loaded.resolved(), loaded.config.plugins)]


def pinned(loaded: LoadedConfig, setup: Setup) -> dict[str, Any]:
    """Every value of the config, with those that pin the weights that the run began with."""
    resolved = loaded.resolved()
    if setup.pin is not None:
        resolved["model"] |= {key: setup.pin[key] for key in ("sha256", "revision") if setup.pin[key] is not None}
    return resolved


def write_config_files(run: RunDir, loaded: LoadedConfig, setup: Setup) -> None:
    """Write the user's file with the overrides as comments, and the resolved config with all values."""
    if run.config.exists():
        text, when = run.config.read_text(encoding="utf-8"), "when the run went on"
    else:
        text, when = loaded.text, "on the command line"
    durable.write_text(run.config, with_overrides(text, loaded.overrides, when=when))
    resolved = to_yaml({**pinned(loaded, setup), "name": loaded.name})
    durable.write_text(run.resolved_config, f"# trainkit train {run.resolved_config}\n{resolved}")


def with_overrides(text: str, overrides: Sequence[str], *, when: str = "on the command line") -> str:
    """A config as the user wrote it, with the overrides as comments."""
    if not overrides:
        return text
    end = "" if text.endswith("\n") else "\n"
    return f"{text}{end}\n# overrides {when}:\n" + "".join(f"# {item}\n" for item in overrides)


def origins_of(loaded: LoadedConfig, *, known: Mapping[str, str]) -> dict[str, str]:
    """The origin of each value. A resumed run keeps those in ``known``, except for keys that were overridden since."""
    return {
        key: known[key] if key in known and origin.kind != "override" else str(origin)
        for key, origin in loaded.origins.items()
    }


def describe_machine() -> dict[str, Any]:
    """The machine, the command and the commit of a run."""
    return {
        "started": datetime.now().isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": processor_name(),
        "num_cpus": os.cpu_count(),
        "memory_bytes": host_bytes(),
        "num_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanness of the folder that the command runs in; None outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "changed_files": len(_git("status", "--porcelain").splitlines())}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", timeout=5, check=True)
    return done.stdout.strip()


def open_recorder(
    run: RunDir,
    setup: Setup,
    batches: Batches,
    progress: Progress,
    log: TextLog,
    *,
    display: Recorder | None,
    frontend: Frontend,
) -> Recorder:
    """One recorder for metrics.jsonl, train.log, the display and the trackers of the config.

    Args:
        progress: the position that the run starts from; later lines of the log are removed.
    """
    lines = JsonLines(run.metrics)
    lines.truncate_after(progress.steps_completed, epochs=progress.epochs_completed)
    trackers = build_trackers(run, setup, batches, step=progress.steps_completed, frontend=frontend)
    shown = [] if display is None else [display]
    return Fanout(lines, [log, *shown, *trackers], warn=frontend.say)


@dataclass
class ShownBatches:
    """The same batches; ``show`` is called with the batches done, when an epoch starts and after each batch.

    When ``show`` fails, it is not called again: a display never stops training.
    """

    batches: Batches
    show: Callable[[int], None] | None

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.batches_per_epoch

    @property
    def num_samples(self) -> int:
        return self.batches.num_samples

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        self._show(start)
        for done, batch in enumerate(self.batches.epoch(epoch, start=start), start + 1):
            yield batch
            self._show(done)

    def _show(self, done: int) -> None:
        if self.show is not None:
            try:
                self.show(done)
            except Exception:  # noqa: BLE001  (it may fail in any way: the terminal may be gone)
                self.show = None


def shown_by(display: Any, split: str, batches: Batches, progress: Progress) -> Batches:
    """The batches of a split; the display, where it has ``show_batches``, follows them."""
    show_batches = getattr(display, "show_batches", None)
    if show_batches is None:
        return batches
    total = batches.batches_per_epoch
    return ShownBatches(batches, lambda done: show_batches(split, progress.epochs_completed, done, total))


def build_trackers(run: RunDir, setup: Setup, batches: Batches, *, step: int, frontend: Frontend) -> list[Recorder]:
    """The trackers of the config. ``step`` is the position that the run starts from, 0 for a new one."""
    trackers: list[Recorder] = []
    for name in setup.config.logging.trackers:
        try:
            trackers.append(_open_tracker(name, run, setup, batches, step=step))
        except Exception as error:  # noqa: BLE001  (a tracker never stops training)
            frontend.say(f"warning: {name} is left out: {type(error).__name__}: {error}")
    return trackers


def _open_tracker(name: str, run: RunDir, setup: Setup, batches: Batches, *, step: int) -> Recorder:
    match name:
        case "tensorboard":
            hparams = by_key(setup.config.model_dump(exclude_none=True))
            recorder = tensorboard.TensorBoardRecorder(run.tensorboard, step=step, hparams=hparams)
            if step == 0:
                inputs = next(iter(batches.epoch(0))).inputs
                tensorboard.add_samples(recorder, inputs)
                tensorboard.add_graph(recorder, setup.model, inputs)
            return recorder
        case _:
            raise AssertionError(f"no tracker {name}")


class RunCheckpointer:
    """Saves states into a run's folder; the name of a file holds its epoch and its score."""

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
