"""The end of a run: its best checkpoint is scored and exported."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.builders import Setup, load_scored_weights
from trainkit.checkpoints import CheckpointFolder
from trainkit.engine import Outcome, TrainState
from trainkit.errors import Interrupted
from trainkit.system import Frontend, RunDir
from trainkit.workflows.export import export_at_end
from trainkit.workflows.report import RunReport
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
    exports: list[Path] = field(default_factory=list)
    report: RunReport | None = None
    """None where it could not be written."""
    seconds: float = 0.0


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
    """Score and export the best checkpoint, which is loaded once, and record the end of the run."""
    best, saved = load_best(folder, frontend=frontend)
    load_scored_weights(setup.model, saved)
    scores: dict[str, dict[str, float]] = {}
    for split in ("val", "test"):
        if split in setup.data.splits:
            scores[split] = score(setup, split, frontend=frontend, stopped=unfinished(run))
    try:
        exports, skipped = export_at_end(setup, best, saved, folder=run.exports, frontend=frontend)
    except Interrupted as error:
        raise frontend.stop.error(f"the export was given up; {unfinished(run)}") from error
    for reason in skipped:
        frontend.say(f"warning: not exported: {reason}")
    result = TrainResult(
        run=run,
        outcome=outcome,
        best_checkpoint=best,
        best_epoch=state.best.epoch,
        epochs_completed=state.progress.epochs_completed,
        metrics=scores,
        exports=exports,
        seconds=time.monotonic() - started,
    )
    run.update_info(
        status="finished",
        outcome=outcome,
        epochs_completed=result.epochs_completed,
        best_epoch=result.best_epoch,
        best_checkpoint=best.name,
        metrics=scores,
        exports=[str(path.relative_to(run.path)) for path in exports],
        exports_skipped=skipped,
        seconds=round(result.seconds, 2),
    )
    return result


def unfinished(run: RunDir) -> str:
    return f"training is complete and saved; for scores, exports and report: trainkit resume {run.path}"
