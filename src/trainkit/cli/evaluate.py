"""``trainkit eval [CHECKPOINT]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainkit.cli.options import Checkpoint, Json, Quiet, RunsDir


def evaluate(
    checkpoint: Checkpoint = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="The split to score; test where there is one, else val, when left out."),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint on a split of its data."""
    from trainkit import console
    from trainkit.signals import catch_stop_signals
    from trainkit.workflows.evaluate import evaluate as run_evaluation

    with catch_stop_signals() as stop, console.task_bar("preparing images", quiet=quiet) as progress:
        result = run_evaluation(
            checkpoint,
            split=split,
            runs_dir=runs_dir,
            say=(lambda message: None) if quiet else console.say,
            progress=progress,
            stop=stop,
        )
    if json:
        console.print_json(
            {
                "checkpoint": str(result.checkpoint),
                "split": result.split,
                "num_samples": result.num_samples,
                "metrics": result.metrics,
            }
        )
    else:
        rows = [[name, value] for name, value in result.metrics.items()]
        console.table(
            f"{result.checkpoint}: {result.split}, {result.num_samples:,} samples", ["metric", result.split], rows
        )
