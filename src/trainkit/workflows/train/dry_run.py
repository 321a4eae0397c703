"""``trainkit train --dry-run``: the checks of ``trainkit check``, and those of what the run would start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trainkit.config import LoadedConfig
from trainkit.system import Frontend
from trainkit.workflows.check import CheckReport, check
from trainkit.workflows.train import changes
from trainkit.workflows.train import resume_point as resuming


def dry_run(
    loaded: LoadedConfig,
    *,
    runs_dir: Path,
    resume: str | Path | Literal["auto"] | None,
    init_from: str | Path | None,
    allow_change: Sequence[str],
    frontend: Frontend,
) -> CheckReport:
    """As ``train`` with the same arguments up to its first step; nothing is written.

    Raises:
        UserError: the config, the data, the checkpoint or the weights are wrong, or do not fit each other.
    """
    point = weights = None
    run = resuming.unfinished_run(loaded, runs_dir=runs_dir) if resume == "auto" else None
    if run is not None:
        point = resuming.resume_point(run, read_only=True, frontend=frontend)
    else:
        if resume == "auto":
            frontend.say(f"{runs_dir}: no unfinished run of this config, so a new one would start")
            resume = None
        epochs = loaded.config.training.epochs
        point, weights = resuming.find_start(resume, init_from, epochs=epochs, runs_dir=runs_dir, frontend=frontend)
    notes: list[str] = []
    resolved = loaded.resolved()
    if point is not None:
        changes.check_optimizer(point.saved, resolved)
        notes = changes.check_changes(point.saved, resolved, allowed=allow_change, accepted=point.accepted)
    report = check(loaded, runs_dir=runs_dir, stored=None if point is None else point.saved, frontend=frontend)
    steps = report.sizes.steps_per_epoch
    state = report.setup.state(steps_per_epoch=steps)
    if point is not None:
        resuming.load_state(state, point, data=report.source)
        notes += changes.schedule_changes(point.saved, state, steps_per_epoch=steps)
        frontend.say(f"would go on from {point.checkpoint}, after step {state.progress.steps_completed}")
    if weights is not None:
        resuming.start_from_weights(state, weights, frontend=frontend)
    for note in notes:
        frontend.say(f"note: {note}")
    return report
