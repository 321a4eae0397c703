"""Options that several commands share."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainkit.cli import console

if TYPE_CHECKING:
    from trainkit.config import LoadedConfig


def _complete_set(ctx: typer.Context, incomplete: str) -> list[str]:
    from trainkit.config.help import complete_set
    from trainkit.plugins import using

    with using(ctx.find_root().params.get("plugins") or ()):  # completion calls no command, and not the one above it
        return complete_set(incomplete)


def _complete_unset(ctx: typer.Context, incomplete: str) -> list[str]:
    return list(dict.fromkeys(key.rstrip("=.") for key in _complete_set(ctx, incomplete)))


def _complete_config(incomplete: str) -> list[str]:
    """Folders and YAML files, as the shell would, without the rest of the folder."""
    given = Path(incomplete)
    folder = given if incomplete.endswith("/") else given.parent
    found = [path for path in folder.glob("*") if str(path).startswith(incomplete.removeprefix("./"))]
    names = [f"{path}/" if path.is_dir() else str(path) for path in sorted(found) if not path.name.startswith(".")]
    return [name for name in names if name.endswith(("/", ".yaml", ".yml"))]


def load(config: Path, set_: list[str] | None, unset: list[str] | None, *, quiet: bool = False) -> LoadedConfig:
    """The config that the arguments of a command name; what was guessed is said on stderr."""
    from trainkit.config import load_config

    loaded = load_config(config, overrides=set_ or (), unset=unset or ())
    for note in () if quiet else loaded.notes:
        console.say(f"note: {note}")
    return loaded


def hush_libraries(quiet: bool) -> bool:
    """No warnings from libraries, in this process and in those that it starts; before a command loads torch."""
    from trainkit.system import owns_process

    if quiet and owns_process():
        os.environ["PYTHONWARNINGS"] = "ignore"
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    return quiet


ConfigFile = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="The YAML config, or a shipped one's name.", autocompletion=_complete_config),
]
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
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Where the data are now: in place of root, or the tables' folder."),
]
RunsDir = Annotated[Path, typer.Option("--run-dir", help="The folder that holds the run folders.")]
Precision = Annotated[
    Literal["fp32", "tf32", "bf16", "fp16"] | None,
    typer.Option(help="What the model computes in; fp32, as the exported programs, when left out."),
]
Tta = Annotated[
    Literal["none", "flip"],
    typer.Option("--tta", help="flip: the mean of the probabilities of an image and its mirror image."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=hush_libraries, help="Print the result only.")]
Checkpoint = Annotated[
    Path | None,
    typer.Argument(help="A checkpoint, or a run by its folder or a part of its name; the newest run if left out."),
]
