"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _complete_set(incomplete: str) -> list[str]:
    from trainkit.config.help import complete_set

    return complete_set(incomplete)


def _complete_unset(incomplete: str) -> list[str]:
    return list(dict.fromkeys(key.rstrip("=.") for key in _complete_set(incomplete)))


def _complete_config(incomplete: str) -> list[str]:
    """Folders and YAML files, as the shell would, without the rest of the folder."""
    given = Path(incomplete)
    folder = given if incomplete.endswith("/") else given.parent
    found = [path for path in folder.glob("*") if str(path).startswith(incomplete.removeprefix("./"))]
    names = [f"{path}/" if path.is_dir() else str(path) for path in sorted(found) if not path.name.startswith(".")]
    return [name for name in names if name.endswith(("/", ".yaml", ".yml"))]


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.", autocompletion=_complete_config)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a value of the config (read as YAML; repeatable).",
        autocompletion=_complete_set,
    ),
]
Unset = Annotated[
    list[str] | None,
    typer.Option(
        "--unset",
        metavar="KEY.PATH",
        help="Go back to a key's default (repeatable).",
        autocompletion=_complete_unset,
    ),
]
RunsDir = Annotated[Path, typer.Option("--run-dir", help="The folder that holds the run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
Checkpoint = Annotated[
    Path | None,
    typer.Argument(help="A checkpoint file or a run folder; the best checkpoint of the newest run when left out."),
]
