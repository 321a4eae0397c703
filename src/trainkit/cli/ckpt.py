"""``trainkit ckpt verify|list``: what is in a checkpoint folder, and whether it is whole. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import Json
from trainkit.errors import UserError

app = typer.Typer(help="Look at saved checkpoints.", no_args_is_help=True)


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Checkpoints, runs or checkpoint folders.")],
    json: Json = False,
) -> None:
    """Read every byte of each file and say OK, BAD (why) or UNCOMMITTED. Exit code 1 where any is BAD."""
    from trainkit.checkpoints import verify as verdicts_of

    found = []
    for path in paths:
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
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run or its checkpoints folder.")],
    json: Json = False,
) -> None:
    """List what is committed, oldest first, with step, epoch and score. Does not read the files themselves."""
    from trainkit.checkpoints import checkpoint_folder, read_journal, with_uncommitted

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
