"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of the config (read as YAML; repeatable)."),
]
Unset = Annotated[
    list[str] | None, typer.Option("--unset", metavar="KEY.PATH", help="Go back to a key's default (repeatable).")
]
RunsDir = Annotated[Path, typer.Option("--run-dir", help="The folder that holds the run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
Checkpoint = Annotated[
    Path | None,
    typer.Argument(help="A checkpoint file or a run folder; the best checkpoint of the newest run when left out."),
]
