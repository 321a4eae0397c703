"""The command line: one file per command; each imports what it needs when it runs."""

from __future__ import annotations

import platform
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trainkit._version import __version__
from trainkit.cli import ckpt, config, data, plugin, runs, selftest
from trainkit.cli.bench import bench
from trainkit.cli.check import check
from trainkit.cli.cv import cv
from trainkit.cli.evaluate import evaluate
from trainkit.cli.export import export
from trainkit.cli.hints import UsageError, add_hint
from trainkit.cli.init import init
from trainkit.cli.inspect import inspect
from trainkit.cli.lr_find import lr_find
from trainkit.cli.predict import predict
from trainkit.cli.report import report
from trainkit.cli.serve import serve
from trainkit.cli.sweep import sweep
from trainkit.cli.train import resume, train
from trainkit.cli.ui import ui


class Group(TyperGroup):
    """Commands whose first sentence is shown whole, folded where the terminal is narrow; typer itself cuts it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if ctx.parent is None:
                add_hint(error, {name: group for name, group in self.commands.items() if isinstance(group, Group)})
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, first_sentence(command.help)) for name, command in commands if command and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def first_sentence(text: str | None) -> str:
    words = " ".join((text or "").split())
    return words.partition(". ")[0].removesuffix(".") + "."


app = typer.Typer(
    name="trainkit",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train PyTorch models from YAML configs.",
    epilog="Any command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(init)
app.command()(train)
app.command()(resume)
app.command()(check)
app.command()(cv)
app.command()(sweep)
app.command(name="lr-find")(lr_find)
app.command()(inspect)
app.command(name="eval")(evaluate)
app.command()(predict)
app.command()(export)
app.command()(serve)
app.command()(ui)
app.command()(bench)
app.command()(report)
for group in (runs, config, data, ckpt, plugin, selftest):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2], cls=Group)


def version(show: bool) -> None:
    if show:
        from importlib.metadata import version as installed  # importing torch takes seconds

        typer.echo(f"trainkit {__version__}, torch {installed('torch')}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="MODULE",
            help="Offer a module's layers, models and other parts to the config (before the command; repeatable).",
        ),
    ] = None,
    show_version: bool = typer.Option(
        False, "--version", "-V", callback=version, is_eager=True, help="Show the version."
    ),
) -> None:
    if plugins:
        from trainkit.plugins import using

        ctx.with_resource(using(plugins))
