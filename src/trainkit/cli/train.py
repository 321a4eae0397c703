"""``trainkit train CONFIG``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli.options import Json, Quiet, RunsDir, Set, Unset

if TYPE_CHECKING:
    from trainkit.console import TrainDisplay
    from trainkit.workflows.experiment import Experiment
    from trainkit.workflows.train import TrainResult


def train(
    config: Annotated[Path, typer.Argument(help="The YAML config.")],
    set_: Set = None,
    unset: Unset = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the model that a config describes, into a new run folder."""
    from trainkit.config import load_config

    loaded = load_config(config, overrides=set_ or (), unset=unset or ())

    from trainkit import console
    from trainkit.signals import catch_stop_signals
    from trainkit.workflows.train import train as run_training

    def make_display(experiment: Experiment, batches_per_epoch: int) -> TrainDisplay:
        spec = experiment.config.training
        return console.TrainDisplay(
            epochs=spec.epochs, batches_per_epoch=batches_per_epoch, batch_size=spec.batch_size, quiet=quiet
        )

    with (
        console.task_bar("preparing images", quiet=quiet) as progress,
        catch_stop_signals(
            lambda name: console.say(f"{name}: finishing the step and saving; Ctrl-C ends at once")
        ) as stop,
    ):
        result = run_training(
            loaded,
            runs_dir=runs_dir,
            make_display=make_display,
            say=(lambda message: None) if quiet else console.say,
            progress=progress,
            stop=stop,
        )
    if json:
        console.print_json(as_json(result))
    else:
        show_result(result)


def as_json(result: TrainResult) -> dict[str, object]:
    return {
        "run": str(result.run.path),
        "outcome": result.outcome,
        "epochs": result.epochs_completed,
        "best_epoch": result.best_epoch,
        "checkpoint": str(result.best_checkpoint),
        "metrics": result.metrics,
        "exports": [str(path) for path in result.exports],
        "seconds": round(result.seconds, 2),
    }


def show_result(result: TrainResult) -> None:
    from trainkit import console

    names = list(dict.fromkeys(name for scores in result.metrics.values() for name in scores))
    rows = [[name, *(scores.get(name, float("nan")) for scores in result.metrics.values())] for name in names]
    how = {"finished": "finished", "early stopping": "stopped early"}.get(result.outcome, result.outcome)
    best = "" if result.best_epoch is None else f", best epoch {result.best_epoch}"
    title = f"{how} after {result.epochs_completed} epochs in {result.seconds:.1f} s{best}"
    console.table(title, ["best checkpoint", *result.metrics], rows)
    console.lines(
        [
            ("run", str(result.run.path)),
            ("checkpoint", str(result.best_checkpoint)),
            *(("export", str(path)) for path in result.exports),
            ("next", f"trainkit eval {result.best_checkpoint}"),
            ("", f"trainkit export {result.best_checkpoint} --torchscript"),
        ]
    )
