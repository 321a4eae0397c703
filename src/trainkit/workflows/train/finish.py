"""The end of a run: the scores and exports of its best checkpoint, and the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainkit.builders import Setup, choose_scoring_precision, load_scored_weights
from trainkit.checkpoints import CheckpointFolder
from trainkit.engine import Outcome, TrainState
from trainkit.errors import Interrupted
from trainkit.system import Frontend, RunDir
from trainkit.wording import stage_times
from trainkit.workflows.export import export_at_end
from trainkit.workflows.report import RunReport, report_training
from trainkit.workflows.scoring import score
from trainkit.workflows.train.resume_point import load_best


@dataclass(frozen=True)
class TrainResult:
    """The end of a run."""

    run: RunDir
    outcome: Outcome
    best_checkpoint: Path
    best_epoch: int | None
    epochs_completed: int
    metrics: dict[str, dict[str, float]]
    """Scores of the best checkpoint, by split."""
    precision: str
    """What the scores were computed in."""
    trained_in: str
    """What the training and its validation, which chose the best checkpoint, computed in."""
    exports: list[Path]
    report: RunReport | None
    """None where it could not be written."""
    seconds: float
    """Of all parts of the run."""


def finish(
    run: RunDir,
    setup: Setup,
    state: TrainState,
    folder: CheckpointFolder,
    *,
    outcome: Outcome,
    started: float,
    frontend: Frontend,
) -> TrainResult:
    """Score and export the best checkpoint, which is loaded once, record the end of the run, and report on it.

    All of it computes in fp32, as exported programs do, whatever the training computed in.

    Args:
        started: on the monotonic clock; of a resumed run as much earlier as its parts before took.
    """
    frontend.stage_seconds.clear()
    trained_in = setup.precision
    scores: dict[str, dict[str, float]] = {}
    with frontend.stage("scores"):
        best, saved = load_best(folder, frontend=frontend)
        load_scored_weights(setup.model, saved)
        setup = setup.computing_in(choose_scoring_precision(setup.device))
        for split in ("val", "test"):
            if split in setup.data.splits:
                scores[split] = score(setup, split, frontend=frontend, stopped=unfinished(run))
    try:
        with frontend.stage("export"):
            exports, skipped = export_at_end(setup, best, saved, folder=run.exports, frontend=frontend)
    except Interrupted as error:
        raise frontend.stop.error(f"the export was given up; {unfinished(run)}") from error
    for reason in skipped:
        frontend.say(f"warning: not exported: {reason}")
    run.update_info(
        status="finished",
        outcome=outcome,
        epochs_completed=state.progress.epochs_completed,
        best_epoch=state.best.epoch,
        best_checkpoint=best.name,
        metrics=scores,
        computed_in=setup.precision,
        exports=[str(path.relative_to(run.path)) for path in exports],
        exports_skipped=skipped,
        **_times(started, frontend),
    )
    report = report_training(run, setup, frontend=frontend)
    if report is None:
        frontend.check(unfinished(run))
    run.update_info(**_times(started, frontend))
    if sum(frontend.stage_seconds.values()) >= 1:
        frontend.say(f"after the last epoch: {stage_times(frontend.stage_seconds)}")
    return TrainResult(
        run=run,
        outcome=outcome,
        best_checkpoint=best,
        best_epoch=state.best.epoch,
        epochs_completed=state.progress.epochs_completed,
        metrics=scores,
        precision=setup.precision,
        trained_in=trained_in,
        exports=exports,
        report=report,
        seconds=time.monotonic() - started,
    )


def _times(started: float, frontend: Frontend) -> dict[str, Any]:
    """What run.json has about the time of the run so far."""
    stages = {name: round(seconds, 2) for name, seconds in frontend.stage_seconds.items()}
    return {"seconds": round(time.monotonic() - started, 2), "stage_seconds": stages}


def unfinished(run: RunDir) -> str:
    return f"training is complete and saved; for scores, exports and report: trainkit resume {run.path}"
