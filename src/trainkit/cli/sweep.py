"""``trainkit sweep SWEEP.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainkit.cli import console
from trainkit.cli.options import Json, Quiet, Set
from trainkit.cli.sweep_display import SweepDisplay
from trainkit.wording import counted, duration

if TYPE_CHECKING:
    from trainkit.config import LoadedSweep
    from trainkit.workflows.sweep import SweepResult

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep: a config, and what is tried in it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check each value that would be searched, and stop.")]
SweepsDir = Annotated[Path, typer.Option("--sweep-dir", help="The folder that holds the folders of sweeps.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="A database for the study (postgresql://...): several machines run the command on it."
    ),
]


def sweep(
    file: SweepFile,
    set_: Set = None,
    dry_run: DryRun = False,
    storage: Storage = None,
    sweeps_dir: SweepsDir = Path("sweeps"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for good settings of a config, or go on with a search that was stopped."""
    from trainkit.config import load_sweep
    from trainkit.workflows.sweep import sweep as run_sweep
    from trainkit.workflows.sweep import without_password

    loaded = load_sweep(file, set_ or ())
    for note in () if quiet else loaded.notes:
        console.say(f"note: {note}")
    if dry_run:
        show_check(loaded, sweeps_dir=sweeps_dir, json=json, quiet=quiet)
        return
    options = [word for item in set_ or () for word in ("--set", item)]
    options += [] if storage is None else ["--storage", without_password(storage)]
    options += [] if sweeps_dir == Path("sweeps") else ["--sweep-dir", str(sweeps_dir)]
    with (
        console.frontend(quiet=quiet, on_signal="each trial saves its state") as frontend,
        SweepDisplay(loaded, quiet=quiet) as display,
    ):
        result = run_sweep(
            loaded, sweeps_dir=sweeps_dir, storage=storage, options=options, frontend=frontend, on_change=display
        )
    if json:
        console.print_json(as_json(result))
    else:
        show(result)


def show_check(loaded: LoadedSweep, *, sweeps_dir: Path, json: bool, quiet: bool) -> None:
    """Check, and print what would be searched on stdout."""
    from trainkit.workflows.sweep import check_sweep, describe

    with console.frontend("checking values", quiet=quiet, stopped="nothing was written") as frontend:
        report = check_sweep(loaded, sweeps_dir=sweeps_dir, frontend=frontend)
    described = describe(loaded)
    if json:
        console.print_json({"sweep": str(loaded.path), "configs_checked": report.checked, "plan": dict(described)})
        return
    print(f"ok: {loaded.path} can be run; {counted(report.checked, 'config')} checked")
    console.lines(described)


def as_json(result: SweepResult) -> dict[str, Any]:
    return {
        "sweep": str(result.folder),
        "objective": result.objective,
        "best": result.best.number,
        "score": result.best.score,
        "verdict": result.verdict,
        "confirmed": [
            {
                "number": one.number,
                "scores": dict(one.scores),
                "mean": one.mean,
                "interval": [one.low, one.high],
                "difference": one.difference,
                "worse": one.is_worse,
            }
            for one in result.confirmed
        ],
        "best_config": str(result.best_config),
        "report": str(result.report),
        "seconds": round(result.seconds, 2),
        "trials": [
            {
                "number": one.number,
                "state": one.state,
                "values": result.values(one),
                "score": one.score,
                "epochs": one.epochs,
                "seconds": one.seconds,
                "run": one.run,
                "reason": one.reason,
            }
            for one in result.trials
        ],
    }


def show(result: SweepResult) -> None:
    """The trials, the best first, and how to train the best again."""
    from trainkit.workflows.sweep import texts_of

    keys = list(result.space)
    rows = []
    for one in result.ranking():
        texts = texts_of(result.space, one.values)
        score = "-" if one.score is None else console.number(one.score)
        rows.append([str(one.number), *(texts.get(key, "-") for key in keys), score, one.state])
    title = f"{counted(len(result.trials), 'trial')} in {duration(result.seconds)}"
    console.table(title, ["trial", *keys, result.objective, "state"], rows)
    if result.confirmed:
        show_confirmed(result)
    console.lines(
        [
            ("best", f"trial {result.best.number}, {result.objective} {console.number(result.best.score or 0.0)}"),
            ("sweep", str(result.folder)),
            ("report", str(result.report)),
            ("next", f"trainkit train {result.best_config}"),
        ]
    )


def show_confirmed(result: SweepResult) -> None:
    """The trials that were trained again with fresh seeds, and which of them are told apart."""
    rows = [
        [str(one.number), one.mean, f"{one.low:.4g} to {one.high:.4g}", str(len(one.scores))]
        for one in result.confirmed
    ]
    console.table("with fresh seeds", ["trial", f"mean {result.objective}", "95 % interval", "seeds"], rows)
    print(f"  {result.verdict}\n")
