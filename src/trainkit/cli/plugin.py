"""``trainkit plugin``: what plug-ins offer, and whether they keep what every part has to."""

from __future__ import annotations

from typing import Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import Json

app = typer.Typer(no_args_is_help=True, help="List and test the parts of plug-ins.")

Module = Annotated[str, typer.Argument(metavar="MODULE", help="The module of a plug-in, as after --plugin.")]


@app.command("test")
def check_parts(module: Module, json: Json = False) -> None:
    """Check what is promised of every part: shapes, repeatability, pieces, state, exports; exit code 1 if one fails."""
    from trainkit.plugins import load_plugin
    from trainkit.workflows.plugin_checks import check_plugin, where

    plugin = load_plugin(module)
    found = check_plugin(plugin)
    failed = [one for one in found if one.failure is not None]
    if json:
        rows = [{**vars(one), "passed": one.failure is None, "where": where(plugin, one.part)} for one in found]
        console.print_json({"plugin": plugin.name, "passed": not failed, "checks": rows})
    else:
        for part in dict.fromkeys(one.part for one in found):
            place = where(plugin, part)
            print(f"{part}{f' ({place})' if place else ''}")
            for one in found:
                if one.part == part:
                    print(f"  {'ok' if one.failure is None else 'FAILED':<7} {one.promise}")
                    if one.failure is not None:
                        print(f"          {one.failure}\n          to mend it: {one.remedy}")
        print(f"{len(found) - len(failed)} of {len(found)} checks passed")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the plug-ins that are installed, and those of --plugin, with their parts."""
    from trainkit.plugins import active, installed

    plugins = list(dict.fromkeys([*active(), *installed()]))
    parts = [
        {kind: [f"{plugin.name}.{one.__name__}" for one in made] for kind, made in plugin.parts.items() if made}
        for plugin in plugins
    ]
    if as_json:
        console.print_json([{**plugin.describe(), "parts": made} for plugin, made in zip(plugins, parts, strict=True)])
        return
    for plugin, made in zip(plugins, parts, strict=True):
        print(f"{plugin.name} {plugin.version}".rstrip() + f" ({plugin.module})")
        for kind, names in made.items():
            print(f"  {kind}: {', '.join(names)}")
    if not plugins:
        print("none: --plugin MODULE offers one, and an installed package by its entry points (docs/extending.md)")
