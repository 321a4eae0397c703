"""``trainkit ckpt verify|list``: what is in a checkpoint folder, and whether it is whole. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import Json, RunsDir
from trainkit.errors import UserError

FOLDER = "A run by its folder or a part of its name, or its checkpoints folder; the newest run if left out."
app = typer.Typer(help="Look at saved checkpoints.", no_args_is_help=True)


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Checkpoints, runs, checkpoint folders; the newest run if left out."),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """Read every byte of each file and say OK, BAD (why) or UNCOMMITTED. Exit code 1 where any is BAD."""
    from trainkit.checkpoints import verify as verdicts_of

    found = []
    for path in [_place(given, runs_dir) for given in paths or (None,)]:
        verdicts = list(verdicts_of(path))
        if not verdicts:
            raise UserError(f"{path}: no checkpoints here; give a checkpoint, a run folder, or its checkpoints folder")
        found += verdicts
        for verdict in () if json else verdicts:
            reason = f": {verdict.reason}" if verdict.reason else ""
            typer.echo(f"{verdict.word:<11} {verdict.path}{reason}")
    if json:
        console.print_json([{**asdict(verdict), "path": str(verdict.path)} for verdict in found])
    if any(verdict.word == "BAD" for verdict in found):
        raise typer.Exit(1)


@app.command(name="list")
def list_checkpoints(
    path: Annotated[Path | None, typer.Argument(metavar="[PATH]", help=FOLDER)] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """List what is committed, oldest first, with step, epoch and score. Does not read the files themselves."""
    from trainkit.checkpoints import checkpoint_folder, read_journal, with_uncommitted

    path = _place(path, runs_dir)
    folder = checkpoint_folder(path)
    journal = read_journal(folder) or with_uncommitted(folder, None)[0]
    if not journal.entries:
        raise UserError(f"{path}: no checkpoints here; give a run folder or its checkpoints folder")
    pointed = journal.pointed()
    described = [
        {**asdict(entry), "pointers": [word for word, name in pointed.items() if name == entry.name]}
        for entry in journal.entries
    ]
    if json:
        console.print_json(described)
        return
    header = ["file", "step", "epoch", "score", "bytes", "pointers"]
    columns = ("name", "step", "epoch", "score", "size")
    rows = [
        [*("" if row[key] is None else row[key] for key in columns), " ".join(row["pointers"])] for row in described
    ]
    console.table(str(folder), header, rows)


def _place(given: Path | None, runs_dir: Path) -> Path:
    """The path itself where there is one, or else the folder of the run of this name."""
    if given is not None and (given.exists() or given.name != str(given) or given.suffix == ".pth"):
        return given

    from trainkit.workflows.find import find_run

    return find_run(given, runs_dir=runs_dir).path
