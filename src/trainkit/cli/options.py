"""Options that several commands share."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from trainkit.cli import console
from trainkit.errors import UserError
from trainkit.system import launched

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


def load(
    config: Path,
    set_: list[str] | None,
    unset: list[str] | None,
    *,
    quiet: bool = False,
    ranks: int = 1,
    run: Path | None = None,
    unfinished_in: Path | None = None,
) -> LoadedConfig:
    """The config that the arguments of a command name; what was guessed is said on stderr.

    Args:
        ranks: the processes that share a run: a batch has as many pieces where the config does not say how many.
        run: the run that goes on, if the config is its own.
        unfinished_in: the folder of runs where one of this config may be unfinished: it keeps the pieces that it has.
    """
    from trainkit.config import check_pieces, load_config

    loaded = load_config(config, overrides=set_ or (), unset=unset or ())
    if run is None and loaded.origins[PIECES].kind == "default":
        pieces, why = ranks, "one piece of each batch for each process"
        if unfinished_in is not None:
            from trainkit.workflows.train import unfinished_in_pieces

            if found := unfinished_in_pieces(loaded, runs_dir=unfinished_in):
                (run, pieces), why = found, f"as {found[0]} has it"
        if pieces > 1:
            loaded = load_config(config, overrides=[*(set_ or ()), f"{PIECES}={pieces}"], unset=unset or ())
            if not quiet:
                console.say(f"{PIECES}: {pieces}, {why}")
    check_pieces(loaded, ranks=ranks, run=run)
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


def start_of_ranks(nproc: str | None, launcher: str | None) -> int:
    """How many processes the command runs in, or is to start: 1 for the usual case.

    Raises:
        UserError: not a number of processes, or there is no such launcher here.
    """
    if launcher == "slurm":
        launched.set_from_slurm()
    if nproc is None:
        return launched.num_ranks()
    if launched.num_ranks() > 1 or launcher is not None:
        raise UserError("--nproc starts processes itself; leave it out where torchrun or --launcher starts them")
    if nproc == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--nproc gpu: PyTorch finds no CUDA device here; take a number of processes")
        return torch.cuda.device_count()
    if not nproc.isdecimal() or int(nproc) < 1:
        raise UserError(f"--nproc takes a number of processes, or gpu for one on each GPU, got {nproc!r}")
    return int(nproc)


def run_in_ranks(
    size: int, max_restarts: int = 0, *, unsaved: str = "no run folder was made", go_on: Sequence[str] = ()
) -> NoReturn:
    """Run this command in processes that share the work, and end with their exit code.

    Args:
        unsaved: what is said of the work where one of them dies and there is no run folder.
        go_on: the options of ``resume`` with which it goes on after a restart.
    """
    from trainkit.workflows.launch import launch

    arguments, rest = [], iter(sys.argv[1:])
    for argument in rest:
        if argument in _OF_LAUNCHER:
            next(rest, None)
        elif not argument.startswith(tuple(f"{option}=" for option in _OF_LAUNCHER)):
            arguments.append(argument)
    raise EndOfRanks(launch(arguments, nproc=size, max_restarts=max_restarts, unsaved=unsaved, go_on=go_on))


class EndOfRanks(typer.Exit):
    """The exit code of processes that have printed all there is to say."""

    is_said = True


PIECES = "training.accumulation_steps"
_OF_LAUNCHER = ("--nproc", "--max-restarts")

Nproc = Annotated[
    str | None,
    typer.Option(metavar="N|gpu", help="Share the work among N processes on this machine; gpu: one for each GPU."),
]
MaxRestarts = Annotated[
    int, typer.Option(min=0, metavar="K", help="With --nproc: go on by itself up to K times after a process died.")
]
Launcher = Annotated[
    Literal["slurm"] | None, typer.Option(help="Where srun starts the processes; torchrun's are known without it.")
]
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
    Literal["none", "flip", "flip_shift"],
    typer.Option(
        "--tta",
        help="flip: the mean of the probabilities of an image and its mirror image; flip_shift: of six, both also "
        "moved by a pixel to two sides.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=hush_libraries, help="Print the result only.")]
Checkpoint = Annotated[
    Path | None,
    typer.Argument(help="A checkpoint, or a run by its folder or a part of its name; the newest run if left out."),
]
