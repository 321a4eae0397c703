"""``trainkit init [DATA]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainkit.cli import console
from trainkit.cli.check import as_json, column_lines, summary
from trainkit.cli.options import Json

_SEEN = ("data", "classes", "note")
"""What of the check's summary is about the data."""


def init(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of pictures, or a table (CSV, Parquet).", metavar="[DATA]", show_default=False),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="The column of a table to predict (repeatable).", metavar="COLUMN")
    ] = None,
    task: Annotated[
        Literal["classification", "regression"] | None,
        typer.Option(help="What the target is, where the table does not say."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="dataset.KEY=VALUE", help="What the table does not say (read as YAML; repeatable)."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long a training may take, about.", min=0.1)] = 10.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write.", metavar="FILE")] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--from-scratch",
            help="Whether a network for large pictures begins with published weights (they are downloaded where they "
            "are not here); without it: where they are here.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Copy a shipped config (see `config list`) instead.", metavar="NAME")
    ] = None,
    json: Json = False,
) -> None:
    """Look at pictures or a table, and write a config with a reason on each line.

    Without DATA: a commented config to start from. An existing file is never overwritten.
    """
    from trainkit.config.help import is_copied

    if is_copied(data, source, given=(target, task, set_, pretrained)):
        _copy(output, source, json=json)
        return
    from trainkit.workflows.init import init as write

    assert data is not None

    with console.frontend("looking at the data", quiet=False, stopped="nothing was written") as frontend:
        written = write(
            data,
            target=target[0] if target and len(target) == 1 else target,
            task=task,
            overrides=set_ or (),
            minutes=minutes,
            output=output,
            pretrained=pretrained,
            frontend=frontend,
        )
    assert written.seen is not None
    if json:
        console.print_json({"path": str(written.path), "warnings": list(written.warnings), **as_json(written.seen)})
        return
    console.lines([line for line in summary(written.seen) if line[0] in _SEEN])
    if written.seen.source.columns:
        print("\n".join(column_lines(written.seen.source.columns)))
    for warning in written.warnings:
        print(f"warning: {warning}")
    _next(written.path)


def _copy(output: Path | None, source: str | None, *, json: bool) -> None:
    from trainkit.config.help import write_starter

    written = write_starter(output, source=source)
    if json:
        console.print_json({"path": str(written)})
    else:
        _next(written)


def _next(path: Path) -> None:
    print(f"wrote {path}; next: trainkit check {path}; trainkit train {path}")
