"""The command line: one file per command; each imports what it needs when it runs."""

from __future__ import annotations

import typer

from trainkit._version import __version__
from trainkit.cli import ckpt, config, data, runs, selftest
from trainkit.cli.bench import bench
from trainkit.cli.check import check
from trainkit.cli.evaluate import evaluate
from trainkit.cli.export import export
from trainkit.cli.inspect import inspect
from trainkit.cli.predict import predict
from trainkit.cli.report import report
from trainkit.cli.train import resume, train

app = typer.Typer(
    name="trainkit",
    help="Train PyTorch models from YAML configs.",
    epilog="Any command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(resume)
app.command()(check)
app.command()(inspect)
app.command(name="eval")(evaluate)
app.command()(predict)
app.command()(export)
app.command()(bench)
app.command()(report)
app.add_typer(runs.app, name="runs")
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(ckpt.app, name="ckpt")
app.add_typer(selftest.app, name="selftest")


def version(show: bool) -> None:
    if show:
        typer.echo(f"trainkit {__version__}")
        raise typer.Exit


@app.callback()
def main(
    show_version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Show the version."),
) -> None:
    pass
