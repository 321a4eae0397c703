"""``trainkit eval [CHECKPOINT]``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainkit.cli import console
from trainkit.cli.options import (
    Checkpoint,
    DataRoot,
    Json,
    Launcher,
    Nproc,
    Precision,
    Quiet,
    RunsDir,
    Tta,
    run_in_ranks,
    start_of_ranks,
)
from trainkit.system import Frontend, launched
from trainkit.wording import counted

if TYPE_CHECKING:
    from trainkit.evaluation import ClassificationReport, RegressionReport
    from trainkit.workflows.evaluate import EvalResult

MAX_CLASS_ROWS = 30
MAX_CONFUSION_CLASSES = 15
MAX_LISTED = 10


def evaluate(
    checkpoint: Checkpoint = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="The split to score; test where there is one, else val, when left out."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Score on this instead: a folder of images, one folder a class, or a CSV file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder for eval.json and the plots; in the run's evals/ when left out."),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the plots.")] = True,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: auto, cpu, cuda, ...; the config's when left out.")
    ] = None,
    precision: Precision = None,
    tta: Tta = "none",
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    nproc: Nproc = None,
    launcher: Launcher = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a checkpoint on a split of its data, or on other data of the same kind."""
    from trainkit.workflows.evaluate import check_evaluation, evaluation_folder, same_in_all, write_evaluation
    from trainkit.workflows.evaluate import evaluate as run_evaluation
    from trainkit.workflows.find import open_checkpoint
    from trainkit.workflows.ranks import joined

    size = start_of_ranks(nproc, launcher)
    quiet = quiet or launched.rank() > 0
    computing: Any = {"device": device, "precision": precision}
    what: Any = {"split": split, "data": data, "tta": tta}
    open_here: Any = partial(open_checkpoint, checkpoint, data_root=data_root, runs_dir=runs_dir)
    if size > launched.num_ranks():
        with console.frontend(quiet=quiet) as frontend:
            trained = open_here(device="cpu", frontend=Frontend())
            check_evaluation(trained, **what, **computing, size=size, frontend=frontend)
            frontend.check("nothing was written")
        run_in_ranks(size, unsaved="nothing was written")
    with console.frontend(quiet=quiet) as frontend:
        trained = open_here(**computing, frontend=frontend)
        with joined(trained.config, stop=frontend.stop) as ranks:
            trained = same_in_all(trained, ranks, data_root=data_root)
            result = run_evaluation(trained, **what, ranks=ranks, frontend=frontend)
    if result is None:
        return
    folder = output or evaluation_folder(result)
    if json:
        console.print_json({**result.as_json(), "folder": folder})
    else:
        show_result(result)
    if folder is None:
        return
    # After the result is printed: a full disk does not lose the numbers.
    files = write_evaluation(result, folder, plots=plots)
    if not json:
        console.lines([("files" if index == 0 else "", str(file)) for index, file in enumerate(files)])


def show_result(result: EvalResult) -> None:
    from trainkit.evaluation import ClassificationReport

    report = result.report
    where = result.data if result.split == "data" else f"{result.data}, {result.split}"
    intervals = {name: f"{console.number(i.low)} to {console.number(i.high)}" for name, i in report.intervals.items()}
    views = {"flip": ", mean with mirror images (tta flip)", "flip_shift": ", mean of six views (tta flip_shift)"}
    how = f"computed in {result.precision}{views.get(result.tta, '')}"
    console.table(
        f"{result.checkpoint} on {where}: {counted(result.num_samples, 'sample')}, {how}",
        ["metric", "value", "95 % interval"],
        [[name, value, intervals.get(name, "")] for name, value in result.metrics.items()],
    )
    if isinstance(report, ClassificationReport):
        show_classes(report)
        show_confusion(report)
        show_mistakes(report, result.sample_names)
    else:
        show_targets(report)


def show_classes(report: ClassificationReport) -> None:
    rows = report.per_class
    title = "classes"
    if len(rows) > MAX_CLASS_ROWS:
        rows = sorted(rows, key=lambda row: row.f1)[:MAX_CLASS_ROWS]
        title = f"the {MAX_CLASS_ROWS} of {len(report.per_class)} classes with the lowest F1 (all are in eval.json)"
    console.table(
        title,
        ["class", "precision", "recall", "F1", "ROC-AUC", "support"],
        [[row.name, row.precision, row.recall, row.f1, row.roc_auc, row.support] for row in rows],
    )


def show_confusion(report: ClassificationReport) -> None:
    names = report.class_names
    if len(names) <= MAX_CONFUSION_CLASSES:
        console.table(
            "confusion: true classes down, predicted classes across",
            ["", *names],
            [[name, *row] for name, row in zip(names, report.confusion.tolist(), strict=True)],
        )
    elif report.most_confused():
        console.table("most frequent mistakes", ["true", "taken for", "samples"], report.most_confused(MAX_LISTED))


def show_mistakes(report: ClassificationReport, names: list[str]) -> None:
    shown = report.mistakes[:MAX_LISTED]
    if not shown:
        return
    names = names[: len(shown)]
    where = os.path.commonpath([os.path.dirname(name) for name in names])
    if where:  # files: the folder goes into the title, so that the table stays narrow
        names = [os.path.relpath(name, where) for name in names]
    console.table(
        f"most confidently wrong: {len(shown)} of {report.num_mistakes:,}{where and f', in {where}'}",
        ["sample", "true", "taken for", "probability"],
        [[name, row.true, row.predicted, row.probability] for name, row in zip(names, shown, strict=True)],
    )


def show_targets(report: RegressionReport) -> None:
    if len(report.per_target) > 1:
        console.table(
            "targets",
            ["target", "MAE", "RMSE", "R2"],
            [[row.name, row.mae, row.rmse, row.r2] for row in report.per_target],
        )
