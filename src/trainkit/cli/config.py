"""``trainkit config``: show a config with the origin of each value, its schema, the shipped ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import Json, Set, Unset, load

app = typer.Typer(no_args_is_help=True, help="Show and list configs.")


@app.command()
def show(
    config: Annotated[Path, typer.Argument(help="A config file.", metavar="CONFIG")],
    set_: Set = None,
    unset: Unset = None,
    as_json: Json = False,
) -> None:
    """Print the resolved config, defaults included, with the origin of each value."""
    from trainkit.config.text import to_yaml

    loaded = load(config, set_, unset)
    origins = {key: str(origin) for key, origin in loaded.origins.items()}
    if as_json:
        print(json.dumps({"name": loaded.name, "config": loaded.resolved(), "origins": origins}, indent=2))
    else:
        print(to_yaml(loaded.resolved(), notes=origins), end="")


@app.command()
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="A page for people instead: every key, its default, an example.")
    ] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="The schema of the files of sweeps instead.")] = False,
) -> None:
    """Print the JSON Schema of configs, for editors."""
    from trainkit.config.help import json_schema, reference, sweep_json_schema

    if markdown:
        print(reference(), end="")
    else:
        print(json.dumps(sweep_json_schema() if sweep else json_schema(), indent=1))


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the shipped configs and sweeps, one line each."""
    from trainkit.config.help import list_shipped, list_sweeps

    configs, sweeps = list_shipped(), list_sweeps()
    if as_json:
        kinds = [*(("config", item) for item in configs), *(("sweep", item) for item in sweeps)]
        console.print_json(
            [
                {"name": item.name, "kind": kind, "path": str(item.path), "description": item.description}
                for kind, item in kinds
            ]
        )
        return
    rows = [(item.name, item.description) for item in configs]
    rows += [(item.name, f"{item.description} (trainkit sweep {item.name})") for item in sweeps]
    for line in console.aligned(rows):
        print(line)
