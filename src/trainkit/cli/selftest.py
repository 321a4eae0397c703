"""``trainkit selftest``: see on this machine that what is promised holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import Json, Quiet, Set

app = typer.Typer(help="See on this machine that what is promised holds.", no_args_is_help=True)


@app.callback()
def main() -> None:
    pass


@app.command()
def resume(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="The YAML config; a small one that comes along if left out.")
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

    overrides = list(set_ or ())
    if config is None:
        config = shipped.folder() / "digits_cnn.yaml"
        overrides = ["training.epochs=2", *overrides]
    load_config(config, overrides=overrides)  # a mistake is reported here, once
    with console.frontend(quiet=quiet or json) as frontend:
        found = selftest_resume(
            config,
            overrides=overrides,
            kills=kills,
            seed=seed,
            folder=folder,
            frontend=frontend,
        )
    if json:
        console.print_json(
            {
                "passed": found.passed,
                "kills": [asdict(kill) for kill in found.kills],
                "differences": found.differences,
                "steps": found.steps,
                "digest": found.digest,
                "killed_digest": found.killed_digest,
                "folder": str(found.folder),
                "seconds": round(found.seconds, 1),
            }
        )
    else:
        rows = [
            [f"kill {number}", kill.step, "the start" if kill.saved_step is None else f"step {kill.saved_step}"]
            for number, kill in enumerate(found.kills, start=1)
        ]
        console.table(f"{found.steps} steps, killed {len(rows)} times", ["", "after step", "went on from"], rows)
        console.lines(
            [
                ("without kills", found.digest),
                ("with kills", found.killed_digest),
                ("compared", f"newest and best state, metrics.jsonl ({found.lines} lines), scores"),
                ("result", "bitwise equal" if found.passed else f"DIFFERENT: {', '.join(found.differences)}"),
                ("runs", str(found.folder)),
            ]
        )
    if not found.passed:
        raise typer.Exit(1)
