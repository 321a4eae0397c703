"""``trainkit train``: from a config to a run folder with a trained, scored and exported model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import torch
from torch import nn

from trainkit.build.training import build_state
from trainkit.checkpoint import CheckpointFolder, load_checkpoint
from trainkit.config import LoadedConfig
from trainkit.engine import Outcome, Recorder, fit
from trainkit.errors import Interrupted, TrainkitError
from trainkit.recorders.fanout import Fanout
from trainkit.recorders.jsonl import JsonlRecorder
from trainkit.rundir import RunDir, create_run
from trainkit.signals import StopRequest
from trainkit.state import TrainState
from trainkit.workflows.experiment import Experiment, located, prepare_experiment
from trainkit.workflows.runfiles import describe_machine, write_config_files
from trainkit.workflows.saving import RunCheckpointer, description
from trainkit.workflows.scoring import plan_for, score, scored_weights

MakeDisplay = Callable[[Experiment, int], Recorder]
"""Given the experiment and the batches of an epoch, what shows the run while it goes on."""


@dataclass(frozen=True)
class TrainResult:
    """A run that has come to its end."""

    run: RunDir
    outcome: Outcome
    best_checkpoint: Path
    best_epoch: int | None
    epochs_completed: int
    metrics: dict[str, dict[str, float]]
    """Scores of the best checkpoint, by split."""
    exports: list[Path] = field(default_factory=list)
    seconds: float = 0.0


def train(
    loaded: LoadedConfig,
    *,
    runs_dir: Path = Path("runs"),
    make_display: MakeDisplay | None = None,
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] | None = None,
    stop: StopRequest | None = None,
) -> TrainResult:
    """Train what the config describes.

    Args:
        runs_dir: the run gets a new folder in here.
        make_display: makes the recorder that shows the run.
        say: gets a line for the user now and then.
        progress: told (done, total) while images are decoded into the cache.
        stop: polled after every step; the state is saved before the run ends.

    Raises:
        UserError: the config or the data are wrong; nothing was written.
        Interrupted: a signal asked for a stop; the state is saved.
        TrainkitError: the run failed; what was saved before is intact.
    """
    started = time.monotonic()
    stop = StopRequest() if stop is None else stop
    with located(loaded):
        experiment = prepare_experiment(loaded.config, progress=progress, should_stop=stop)
        batches = experiment.batches("train", training=True)
        state = build_state(
            loaded.config,
            experiment.model,
            monitor=experiment.monitor,
            steps_per_epoch=batches.batches_per_epoch,
            device=experiment.device,
            precision=experiment.precision,
        )
    for note in experiment.data.notes:
        say(f"note: {note}")
    for name, choice in experiment.choices.items():
        say(f"{name}: {choice.value} ({choice.reason})")
    say(f"data: {batches.residency} ({batches.residency_reason})")
    run = create_run(runs_dir, loaded.name, now=datetime.now())
    say(f"run: {run.path}")
    with run.locked():
        write_config_files(run, loaded)
        run.write_info({"status": "running", **describe_machine(), **description(loaded, experiment)})
        try:
            result = _run(loaded, experiment, state, run, make_display=make_display, say=say, stop=stop)
        except BaseException as error:
            interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
            with suppress(TrainkitError):
                run.update_info(status="interrupted" if interrupted else f"failed: {error}")
            raise
        seconds = time.monotonic() - started
        run.update_info(status="finished", outcome=result.outcome, metrics=result.metrics, seconds=round(seconds, 1))
    return TrainResult(**{**vars(result), "seconds": seconds})


def _run(
    loaded: LoadedConfig,
    experiment: Experiment,
    state: TrainState,
    run: RunDir,
    *,
    make_display: MakeDisplay | None,
    say: Callable[[str], None],
    stop: StopRequest,
) -> TrainResult:
    config = loaded.config
    batches = experiment.batches("train", training=True)
    others = [] if make_display is None else [make_display(experiment, batches.batches_per_epoch)]
    recorder = Fanout(JsonlRecorder(run.metrics), others, warn=say)
    checkpointer = RunCheckpointer(
        CheckpointFolder(run.checkpoints),
        description(loaded, experiment),
        monitor=experiment.monitor,
        keep_last=config.checkpoint.keep_last,
        say=say,
    )
    try:
        outcome = fit(
            state,
            plan_for(experiment, compiled(experiment.model, config.training.compile, say)),
            train=batches,
            val=experiment.batches("val") if "val" in experiment.data.splits else None,
            recorder=recorder,
            checkpointer=checkpointer,
            should_stop=stop,
        )
    finally:
        recorder.close()
    if outcome == "interrupted":
        raise stop.error(f"the state is saved; `trainkit resume {run.path}` continues")
    best = checkpointer.folder.best() or checkpointer.folder.last()
    assert best is not None, "a finished run has a checkpoint"
    model = experiment.model
    model.load_state_dict(scored_weights(load_checkpoint(best)))
    scores: dict[str, dict[str, float]] = {}
    for split in ("val", "test"):
        if split in experiment.data.splits:
            found = score(experiment, model, split, should_stop=stop)
            if found is None:
                raise stop.error(f"training is complete; `trainkit eval {best}` scores it")
            scores[split] = found
    return TrainResult(
        run=run,
        outcome=outcome,
        best_checkpoint=best,
        best_epoch=state.best.epoch,
        epochs_completed=state.progress.epochs_completed,
        metrics=scores,
    )


def compiled(model: nn.Module, mode: bool | str, say: Callable[[str], None]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The model as it is called in training: compiled where the config asks for it."""
    if mode is False:
        return model
    program: Callable[[torch.Tensor], torch.Tensor] = torch.compile(
        model, mode="default" if mode is True else str(mode)
    )
    return program
