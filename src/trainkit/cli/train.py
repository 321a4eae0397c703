"""``trainkit train CONFIG`` and ``trainkit resume [RUN]``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli import console
from trainkit.cli.check import show_check
from trainkit.cli.options import (
    ConfigFile,
    DataRoot,
    Json,
    Launcher,
    MaxRestarts,
    Nproc,
    Quiet,
    RunsDir,
    Set,
    Unset,
    load,
    run_in_ranks,
    start_of_ranks,
)
from trainkit.cli.report import as_json as finding_as_json
from trainkit.cli.report import show_findings
from trainkit.cli.train_display import TrainDisplay, stage_line
from trainkit.system import launched
from trainkit.wording import better, computed_in, counted, duration

if TYPE_CHECKING:
    from trainkit.builders import Setup
    from trainkit.recorders import History
    from trainkit.system import Frontend
    from trainkit.workflows.train import TrainResult


Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="auto|CHECKPOINT",
        help="auto: go on with the newest unfinished run of this config, or start one. "
        "A checkpoint, or the last one of a run: go on from it in a new run folder.",
    ),
]
InitFrom = Annotated[
    Path | None, typer.Option(help="Start from the weights of a .pth or .safetensors file, or of a run.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check everything and stop, as `trainkit check` does; also what --resume and --init-from name.",
    ),
]
AllowChange = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Let a key that changes the result differ from the checkpoint's (repeatable)."),
]


def train(
    config: ConfigFile,
    set_: Set = None,
    unset: Unset = None,
    resume: Resume = None,
    init_from: InitFrom = None,
    allow_change: AllowChange = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    nproc: Nproc = None,
    max_restarts: MaxRestarts = 0,
    launcher: Launcher = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the model that a config describes, into a new run folder."""

    size = start_of_ranks(nproc, launcher)
    quiet = quiet or launched.rank() > 0
    if launched.restarts() and resume is None:
        resume = "auto"
    runs = runs_dir if resume == "auto" else None
    said_later = nproc is not None and not dry_run  # by the first of the processes that this one starts
    loaded = load(config, set_, unset, quiet=quiet or said_later, ranks=size, unfinished_in=runs)
    loaded = loaded.at_data_root(data_root)
    if dry_run:
        from trainkit.workflows.train import dry_run as run_dry

        look = partial(run_dry, resume=resume, init_from=init_from, allow_change=allow_change or ())
        show_check(loaded, look, runs_dir=runs_dir, json=json)
        return
    if nproc is not None:
        run_in_ranks(size, max_restarts, go_on=[*["--json"] * json, *["--quiet"] * quiet])

    from trainkit.workflows.ranks import joined
    from trainkit.workflows.train import train as run_training

    with make_frontend(quiet=quiet) as frontend, joined(loaded.config, stop=frontend.stop) as ranks:
        result = run_training(
            loaded,
            ranks=ranks,
            runs_dir=runs_dir,
            resume="auto" if resume == "auto" else None if resume is None else Path(resume),
            init_from=init_from,
            allow_change=allow_change or (),
            frontend=frontend,
        )
    if result is not None:
        show_result(result, json=json)


def resume(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run's folder, or a part of its name; the newest unfinished run if left out."),
    ] = None,
    set_: Set = None,
    unset: Unset = None,
    allow_change: AllowChange = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    nproc: Nproc = None,
    max_restarts: MaxRestarts = 0,
    launcher: Launcher = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was stopped, or train a finished one for longer, in its own folder."""
    from trainkit.workflows.find import find_run
    from trainkit.workflows.ranks import joined
    from trainkit.workflows.train import find_unfinished
    from trainkit.workflows.train import resume as resume_training

    size = start_of_ranks(nproc, launcher)
    quiet = quiet or launched.rank() > 0
    found = find_unfinished(run, runs_dir=runs_dir)
    loaded = load(found.resolved_config, set_, unset, quiet=True, ranks=size, run=found.path)
    if nproc is not None:
        run_in_ranks(size, max_restarts, go_on=[*["--json"] * json, *["--quiet"] * quiet])
    with make_frontend(quiet=quiet) as frontend, joined(loaded.config, stop=frontend.stop) as ranks:
        result = resume_training(
            run,
            overrides=set_ or (),
            unset=unset or (),
            data_root=data_root,
            runs_dir=runs_dir,
            allow_change=allow_change or (),
            ranks=ranks,
            frontend=frontend,
        )
    if result is not None:
        show_result(result, json=json)
    elif json and ranks.is_first:
        console.print_json({"run": str(find_run(run, runs_dir=runs_dir).path), "outcome": "nothing to do"})


@contextmanager
def make_frontend(*, quiet: bool) -> Iterator[Frontend]:
    """Progress on stderr, and signals that stop the run after its step."""

    def make_display(setup: Setup, batches_per_epoch: int) -> TrainDisplay:
        spec = setup.config.training
        return TrainDisplay(
            epochs=spec.epochs, batches_per_epoch=batches_per_epoch, batch_size=spec.batch_size, quiet=quiet
        )

    with (
        console.frontend(quiet=quiet, on_signal="finishing the step and saving the state") as frontend,
        stage_line(quiet=quiet) as show_stage,
    ):
        yield replace(frontend, make_display=make_display, show_stage=show_stage)


def as_json(result: TrainResult) -> dict[str, object]:
    return {
        "run": str(result.run.path),
        "outcome": result.outcome,
        "epochs": result.epochs_completed,
        "best_epoch": result.best_epoch,
        "checkpoint": str(result.best_checkpoint),
        "metrics": result.metrics,
        "computed_in": result.precision,
        "exports": [str(path) for path in result.exports],
        "report": None if result.report is None else str(result.report.path),
        "findings": [] if result.report is None else [finding_as_json(one) for one in result.report.findings],
        "seconds": round(result.seconds, 2),
    }


def show_result(result: TrainResult, *, json: bool) -> None:
    if json:
        console.print_json(as_json(result))
        return
    how = {"finished": "finished", "early stopping": "stopped early"}.get(result.outcome, result.outcome)
    best = "" if result.best_epoch is None else f", best epoch {result.best_epoch}"
    title = f"{how} after {counted(result.epochs_completed, 'epoch')} in {duration(result.seconds)}{best}"
    console.scores_table(title, "best checkpoint", result.metrics)
    report = result.report
    if report is not None:
        show_curves(report.history)
        show_findings(report.findings)
    console.lines(
        [
            ("run", str(result.run.path)),
            ("checkpoint", str(result.best_checkpoint)),
            ("scores", computed_in(result.precision, trained_in=result.trained_in)),
            *(("export", str(path)) for path in result.exports),
            *((("report", str(report.path)),) if report is not None else ()),
            *(("" if index else "next", step) for index, step in enumerate(next_steps(result))),
        ]
    )


def next_steps(result: TrainResult) -> list[str]:
    """Commands that do what is not done yet: the scores are there, and so may exports be."""
    from trainkit.plugins import command

    run = shlex.quote(str(result.run.path))
    findings = [] if result.report is None else result.report.findings
    longer = [
        f"{command()} resume {run} {change.override}"
        for finding in findings
        for change in finding.changes
        if finding.name == "training-too-short" and change.key == "training.epochs" and change.value != "..."
    ]
    report = [f"{command()} report {run}"] if result.report is None else []
    export = [] if result.exports else [f"{command()} export {run} --torchscript"]
    return [*report, *longer, *export, f"{command()} predict {run} INPUT..."]


def show_curves(history: History) -> None:
    """Print the validation curves as small bars, with their first, last and best values."""
    from trainkit.recorders import main_metric
    from trainkit.reports import BLOCKS, PLAIN, sparkline

    blocks, arrow = (BLOCKS, "→") if console.shows_unicode() else (PLAIN, "to")
    split = "val" if history.series("val_loss") else "train"
    metric = main_metric([name for name in history.metric_names() if name.startswith(split)])
    pairs = []
    for name in (f"{split}_loss", f"{split}_{metric}"):
        points = history.series(name)
        if len(points) < 2:
            continue
        sign = 1 if better(name) == "max" else -1  # of equal values that of the checkpoint
        epoch, best = max(points, key=lambda point: (sign * point[1], point[0] == history.best_epoch))
        numbers = f"{console.number(points[0][1])} {arrow} {console.number(points[-1][1])}"
        bars = sparkline([value for _, value in points], blocks=blocks)
        pairs.append((name, f"{bars}  {numbers}, best {console.number(best)} in epoch {epoch:.0f}"))
    console.lines(pairs)
    if pairs:
        print()
