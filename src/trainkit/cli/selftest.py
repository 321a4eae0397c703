"""``trainkit selftest``: see on this machine that what is promised holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainkit.cli import console
from trainkit.cli.options import Json, Quiet, Set
from trainkit.wording import counted

if TYPE_CHECKING:
    from trainkit.workflows.selftest import Comparison

DEFAULTS: list[tuple[str, list[str]]] = [("digits_cnn.yaml", ["training.epochs=2"]), ("wine_mlp.yaml", [])]
"""Shipped configs that are killed, with overrides. Thirteen features in batches of ten: rows that end anywhere."""

app = typer.Typer(help="See on this machine that what is promised holds.", no_args_is_help=True)


@app.callback()
def main() -> None:
    pass


@app.command()
def resume(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="The YAML config; if left out, two that come along, a CNN and an MLP."),
    ] = None,
    set_: Set = None,
    kills: Annotated[int, typer.Option(min=1, max=1000, help="How often the run is killed.")] = 5,
    seed: Annotated[
        int | None, typer.Option(help="Of the moments of the kills; a new one each time if left out.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where the two runs go; a new temporary folder if left out. It is kept.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train twice, once killed at random and resumed each time, and compare every bit of the result."""
    from trainkit.config import load_config
    from trainkit.config.help import shipped
    from trainkit.workflows.selftest import selftest_resume

    given = list(set_ or ())
    chosen = (
        [(config, given)]
        if config is not None
        else [(shipped.folder() / name, [*more, *given]) for name, more in DEFAULTS]
    )
    for path, overrides in chosen:
        load_config(path, overrides=overrides)  # a mistake is reported here, once
    comparisons = []
    with console.frontend(quiet=quiet or json) as frontend:
        for path, overrides in chosen:
            own_folder = folder / path.stem if folder is not None and len(chosen) > 1 else folder
            found = selftest_resume(
                path, overrides=overrides, kills=kills, seed=seed, folder=own_folder, frontend=frontend
            )
            comparisons.append((path, found))
            if not json:
                show(path, found)
    passed = all(found.passed for _, found in comparisons)
    if json:
        console.print_json({"passed": passed, "selftests": [as_json(path, found) for path, found in comparisons]})
    if not passed:
        raise typer.Exit(1)


def as_json(config: Path, found: Comparison) -> dict[str, Any]:
    return {
        "config": str(config),
        "passed": found.passed,
        "kills": [asdict(kill) for kill in found.kills],
        "differences": found.differences,
        "steps": found.steps,
        "digest": found.digest,
        "killed_digest": found.killed_digest,
        "folder": str(found.folder),
        "seconds": round(found.seconds, 1),
    }


def show(config: Path, found: Comparison) -> None:
    rows = [
        [f"kill {number}", kill.step, "the start" if kill.saved_step is None else f"step {kill.saved_step}"]
        for number, kill in enumerate(found.kills, start=1)
    ]
    title = f"{config.name}: {counted(found.steps, 'step')}, killed {counted(len(rows), 'time')}"
    console.table(title, ["", "after step", "went on from"], rows)
    console.lines(
        [
            ("without kills", found.digest),
            ("with kills", found.killed_digest),
            ("compared", f"newest and best state, metrics.jsonl ({counted(found.lines, 'line')}), scores"),
            ("result", "bitwise equal" if found.passed else f"DIFFERENT: {', '.join(found.differences)}"),
            ("runs", str(found.folder)),
        ]
    )
