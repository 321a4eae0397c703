"""``trainkit cv CONFIG``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import ConfigFile, DataRoot, Json, Quiet, Set, Unset
from trainkit.cli.train import make_frontend
from trainkit.wording import counted

if TYPE_CHECKING:
    from trainkit.workflows.cross_validation import CvResult


def cv(
    config: ConfigFile,
    folds: Annotated[int, typer.Option(metavar="K", help="How many folds, each the test split of one run.")] = 5,
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column of the table: rows with one value of it stay in one fold."),
    ] = None,
    set_: Set = None,
    unset: Unset = None,
    data_root: DataRoot = None,
    cv_dir: Annotated[Path, typer.Option(help="The folder that holds the folders of cross-validations.")] = Path("cv"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cross-validate: train on all folds but one, for each of them. The same command goes on after a stop."""
    from trainkit.workflows.cross_validation import cross_validate, make_plan

    with make_frontend(quiet=quiet) as frontend:
        plan = make_plan(config, folds=folds, group=group, overrides=set_ or (), unset=unset or (), data_root=data_root)
        result = cross_validate(plan, cv_dir=cv_dir, frontend=frontend)
    if json:
        console.print_json({"folder": str(result.folder), **result.as_json()})
    else:
        show_result(result)


def show_result(result: CvResult) -> None:
    from trainkit.plugins import command

    scores = {str(one.fold): {"samples": one.num_samples, **one.metrics} for one in result.folds}
    names = list(dict.fromkeys(name for metrics in scores.values() for name in metrics))
    console.table(
        f"{counted(len(result.folds), 'fold')}, each tested by the run that did not train on it",
        ["fold", *names],
        [[fold, *(metrics.get(name, "-") for name in names)] for fold, metrics in scores.items()],
    )
    pooled = result.pooled
    rows = []
    for name in dict.fromkeys([*result.means, *pooled.metrics]):
        mean, interval = result.means.get(name), pooled.intervals.get(name)
        rows.append(
            [
                name,
                *(("-", "-") if mean is None else (mean.mean, _between(mean.low, mean.high))),
                pooled.metrics.get(name, "-"),
                "-" if interval is None else _between(interval.low, interval.high),
            ]
        )
    console.table(
        f"{counted(pooled.num_samples, 'sample')} out of fold",
        ["metric", "mean over folds", "95 % t interval", "pooled", "95 % interval"],
        rows,
    )
    pairs = [("folder", str(result.folder)), ("out of fold", str(result.out_of_fold))]
    if result.ensemble is not None:
        pairs += [
            ("ensemble", str(result.ensemble)),
            ("next", f"{command()} predict {shlex.quote(str(result.ensemble))} INPUT..."),
        ]
    console.lines(pairs)


def _between(low: float, high: float) -> str:
    return f"{console.number(low)} to {console.number(high)}"
