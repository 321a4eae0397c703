"""``trainkit runs``: list the runs, show one, compare several, delete some."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainkit.cli import console
from trainkit.cli.options import DataRoot, Json, RunsDir
from trainkit.errors import UserError
from trainkit.wording import counted, duration, listed, size_text

if TYPE_CHECKING:
    from trainkit.reports import Comparison
    from trainkit.workflows.delete import Deletion
    from trainkit.workflows.runs import RunSummary

app = typer.Typer(help="List, show, compare and delete runs.", no_args_is_help=True)


@app.command("list")
def list_command(
    name: Annotated[str | None, typer.Option(help="A part of the name, or a pattern such as 'mnist_*'.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Likewise, of the data set.")] = None,
    status: Annotated[
        Literal["finished", "running", "interrupted", "failed"] | None, typer.Option(help="Runs in this state.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Started on this day or later.")] = None,
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Started on this day or before.")] = None,
    sort: Annotated[
        Literal["started", "name", "status", "dataset", "optimizer", "lr", "score", "epochs", "time"] | None,
        typer.Option(help="In the order of this column, the best score first; the newest last when left out."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The newest so many; with --sort, the first so many.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="NAME", help="The trials of a sweep, or the folds of a cv.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """List runs, the newest last: status, data, optimizer, learning rate, best score, epochs, time."""
    from trainkit.workflows.find import trial_dirs, trials_of
    from trainkit.workflows.runs import list_summaries, sort_summaries

    for option, day in (("--since", since), ("--until", until)):
        check_day(option, day)
    searches = trial_dirs(runs_dir)
    if sweep is not None:
        runs_dir = trials_of(sweep, searches)
    found = list_summaries(runs_dir, name=name, dataset=dataset, status=status, since=since, until=until)
    newest = found if limit is None else found[-limit:]
    shown = newest if sort is None else sort_summaries(found, sort)[:limit]
    if json:
        console.print_json([summary.as_json() for summary in shown])
        return
    if sweep is None and searches:
        console.say(
            f"and {listed(list(searches), quoted=False)}: `trainkit runs list --sweep NAME` shows what is in one"
        )
    if not shown:
        console.say(f"no runs in {runs_dir}" + (" fit" if any((name, dataset, status, since, until)) else ""))
        return
    print_list(shown)
    if len(shown) < len(found):
        console.say(f"the {'newest' if sort is None else 'first'} {len(shown)} of {len(found)}; without --limit: all")


def print_list(summaries: list[RunSummary]) -> None:
    """Aligned columns without rich, which would take longer than reading the runs."""

    header = ("run", "status", "dataset", "optimizer", "lr", "best score", "epochs", "time")
    rows = [
        (
            summary.run.path.name,
            short(summary.status, 34),
            summary.dataset,
            summary.optimizer,
            "-" if summary.lr is None else f"{summary.lr:g}",
            "-" if summary.score is None else f"{summary.monitor} {summary.score:.4f}",
            str(summary.epochs),
            duration(summary.seconds),
        )
        for summary in summaries
    ]
    for line in console.aligned([header, *rows], left=6):
        print(line)


@app.command()
def show(
    run: Annotated[
        str | None, typer.Argument(help="A run folder, its name, or a part of it; the newest when left out.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """Show a run: its state, scores, findings and files."""
    from trainkit.workflows.find import find_run
    from trainkit.workflows.runs import findings_of, summarize

    chosen = find_run(run, runs_dir=runs_dir)
    summary, info = summarize(chosen), chosen.read_info()
    findings = findings_of(chosen, info, summary.status)
    if json:
        described = [{key: getattr(finding, key) for key in ("name", "title", "evidence")} for finding in findings]
        console.print_json({**summary.as_json(), "findings": described, "info": info})
        return
    files = [path for path in ("report.html", "metrics.jsonl", "config.resolved.yaml") if (chosen.path / path).exists()]
    checkpoint = info.get("best_checkpoint")
    console.lines(
        [
            ("run", str(chosen.path)),
            ("status", summary.status),
            ("started", summary.started.replace("T", " ")),
            ("model", f"{summary.model} on {summary.dataset}"),
            ("best", "-" if summary.score is None else f"{summary.monitor} {summary.score:.6g}"),
            ("epochs", f"{summary.epochs}" + (f", best {info['best_epoch']}" if info.get("best_epoch") else "")),
            ("time", duration(summary.seconds)),
            *((("checkpoint", str(chosen.checkpoints / checkpoint)),) if checkpoint else ()),
            *(("file", str(chosen.path / path)) for path in files),
            *(() if "report.html" in files else (("report", f"none yet: trainkit report {chosen.path}"),)),
        ]
    )
    metrics = info.get("metrics") or {}
    if metrics:
        console.scores_table(None, "metric", metrics)
    for finding in findings:
        print(f"  finding: {finding.title}. {finding.evidence}")


@app.command()
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Run folders, names, or parts of them that fit one run; the newest two if left out."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Compare by this metric of the epochs, such as val_loss.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of compare.html and compare.png; the runs' own.")] = None,
    data_root: DataRoot = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare the records only: no checkpoint answers the test samples.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """Put runs side by side: config differences, scores, their curves, and whether chance explains the difference."""
    from trainkit.reports import metric_rows
    from trainkit.workflows.runs import compare as compare_runs
    from trainkit.workflows.runs import write_comparison

    comparison = compare_runs(runs or (), runs_dir=runs_dir, metric=metric)
    paired = None
    answering = [run for run in comparison.runs if any(Path(run.folder, "checkpoints").glob("*.pth"))]
    if not quick and len(answering) > 1:
        comparison, paired = pair(comparison, data_root=data_root)
    elif not quick:
        console.say("note: not compared sample by sample: of these runs fewer than two have a checkpoint")
    folder = output or Path(comparison.runs[0].folder).parent
    folder.mkdir(parents=True, exist_ok=True)
    files = write_comparison(comparison, folder)
    if json:
        console.print_json(
            {
                "runs": [
                    {
                        "run": run.folder,
                        "status": run.status,
                        "best": comparison.best(index),
                        "reached": comparison.reached(index),
                        "metrics": run.info.get("metrics"),
                        "seconds": run.info.get("seconds"),
                    }
                    for index, run in enumerate(comparison.runs)
                ],
                "metric": comparison.metric,
                "target": comparison.target,
                "differences": comparison.differences,
                "order": [comparison.runs[index].folder for index in comparison.order()],
                "verdict": comparison.verdict(),
                "paired": paired,
                "files": [str(path) for path in files],
            }
        )
        return
    console.lines(
        [(label, run.folder) for label, run in zip(comparison.labels, comparison.runs, strict=True)],
    )
    differences = [
        [key, *("-" if value is None else str(value) for value in values)]
        for key, values in comparison.differences.items()
    ]
    if differences:
        console.table("config", ["key", *comparison.labels], differences)
    rows = [
        [row.name, *(f"* {cell}" if index in row.best else cell for index, cell in enumerate(row.cells))]
        for row in metric_rows(comparison)
    ]
    console.table("numbers (* best, or a tie)", ["", *comparison.labels], rows)
    for sentence in comparison.verdict():
        print(f"  {sentence}")
    console.lines([("wrote", str(path)) for path in files])


def pair(comparison: Comparison, *, data_root: Path | None) -> tuple[Comparison, dict[str, Any]]:
    """The comparison with what its runs' best checkpoints answer to the same samples; that as plain data too."""
    from trainkit.system import RunDir
    from trainkit.workflows.paired import as_json, compare_paired, sentences

    with console.frontend(quiet=False, stopped="nothing was compared") as frontend:
        paired = compare_paired(
            [RunDir(Path(run.folder)) for run in comparison.runs],
            [run.info for run in comparison.runs],
            metric=comparison.metric.partition("_")[2],
            data_root=data_root,
            frontend=frontend,
        )
    sides = [comparison.name_of(side.runs) for side in paired.sides]
    said = sentences(paired, sides=sides, runs=comparison.labels)
    return replace(comparison, paired=said), as_json(paired)


@app.command()
def delete(
    runs: Annotated[list[str], typer.Argument(help="Run folders, names, or parts of them that fit one run.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    with_exports: Annotated[
        bool, typer.Option("--with-exports", help="Delete exports too; without it, a run that holds some is refused.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """Delete runs with their checkpoints and logs, after a question; never an export unless you say so."""
    from trainkit.workflows.delete import delete_run, plan_deletion

    planned = plan_deletion(runs, runs_dir=runs_dir, with_exports=with_exports)
    if not yes:
        for one in planned:
            print_deletion(one)
        ask(f"Delete {counted(len(planned), 'run')}? [y/N] ")
    for one in planned:
        delete_run(one)
        if not json:
            print(f"deleted {one.run.path} ({size_text(one.num_bytes)})")
    if json:
        console.print_json([{"run": str(one.run.path), "bytes": one.num_bytes} for one in planned])


def print_deletion(planned: Deletion) -> None:
    """What a question is about."""
    parts = [size_text(planned.num_bytes), counted(planned.checkpoints, "checkpoint")]
    if planned.exports:
        parts.append(f"exports: {', '.join(planned.exports)}")
    if planned.foreign:
        parts.append(f"not written by trainkit: {', '.join(planned.foreign)}")
    console.say(f"{planned.run.path}: {'; '.join(parts)}")


def ask(question: str) -> None:
    """Go on after a yes.

    Raises:
        UserError: the answer is another one, or there is nobody to answer.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError("nothing was deleted: stdin is no terminal that could answer; --yes deletes without asking")
    console.say(question, end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was deleted")


def check_day(option: str, day: str | None) -> None:
    if day is None:
        return
    try:
        date.fromisoformat(day)
    except ValueError:
        raise UserError(f"{option} {day}: not a day; write it as 2026-11-21") from None


def short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
