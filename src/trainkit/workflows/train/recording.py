"""Where a run writes while it trains: the log, trackers and a display, and checkpoints in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from trainkit.builders import Setup
from trainkit.checkpoints import CheckpointFolder, checkpoint_name
from trainkit.engine import Batches, Progress, Recorder
from trainkit.recorders import Fanout, JsonlRecorder, TensorBoardRecorder, TextLog, add_graph, add_samples
from trainkit.system import Frontend, RunDir
from trainkit.wording import by_key


def open_recorder(
    run: RunDir, setup: Setup, batches: Batches, progress: Progress, log: TextLog, *, frontend: Frontend
) -> Recorder:
    """One recorder for metrics.jsonl, train.log, the frontend's display and the trackers of the config.

    Args:
        progress: the position that the run starts from; later lines of the log are removed.
    """
    lines = JsonlRecorder(run.metrics, step=progress.steps_completed, epochs=progress.epochs_completed)
    display = [] if frontend.make_display is None else [frontend.make_display(setup, batches.batches_per_epoch)]
    trackers = build_trackers(run, setup, batches, step=progress.steps_completed, frontend=frontend)
    return Fanout(lines, [log, *display, *trackers], warn=frontend.say)


def build_trackers(run: RunDir, setup: Setup, batches: Batches, *, step: int, frontend: Frontend) -> list[Recorder]:
    """Recorders that may fail without harm. ``step`` is the position that the run starts from, 0 for a new one."""
    if not setup.config.logging.tensorboard:
        return []
    try:
        recorder = TensorBoardRecorder(
            run.tensorboard, step=step, hparams=by_key(setup.config.model_dump(exclude_none=True))
        )
        if step == 0:
            inputs = next(iter(batches.epoch(0))).inputs
            add_samples(recorder, inputs)
            add_graph(recorder, setup.model, inputs)
    except Exception as error:  # noqa: BLE001  (a tracker never stops training)
        frontend.say(f"warning: TensorBoard is left out: {type(error).__name__}: {error}")
        return []
    return [recorder]


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
