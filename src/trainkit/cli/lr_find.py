"""``trainkit lr-find CONFIG``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import ConfigFile, Json, Quiet, Set, Unset, load
from trainkit.errors import TrainkitError, UserError
from trainkit.wording import counted

if TYPE_CHECKING:
    from trainkit.config import LoadedConfig
    from trainkit.workflows.lr_find import Curve, LrFindResult


def lr_find(
    config: ConfigFile,
    set_: Set = None,
    unset: Unset = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put the learning rate into the config; the rest of the file stays.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the curves of all seeds into this file too.")
    ] = None,
    steps: Annotated[int, typer.Option(min=100, max=1000, help="Training steps of each seed.")] = 150,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="How often the rate rises, from new first weights.")] = 3,
    json: Json = False,
    quiet: Quiet = False,
    curves: Annotated[
        bool, typer.Option("--curves", hidden=True, help="Search in this process, and print the losses as JSON.")
    ] = False,
) -> None:
    """Find a learning rate: train while it rises, and see where the loss falls. Changes no run."""
    loaded = load(config, set_, unset, quiet=quiet or curves)
    if curves:
        from trainkit.workflows.lr_find.search import search

        with console.frontend("raising the learning rate", quiet=quiet) as frontend:
            found = search(loaded, steps=steps, seeds=seeds, frontend=frontend)
        print(console.json_text([asdict(curve) for curve in found]))
        return
    from trainkit.workflows.lr_find import NoLearningRate, check_searchable, find, left_out, write_rate

    check_searchable(loaded)
    check_files(loaded, config, plot=plot, write=write, changed=bool(set_ or unset))
    for line in () if quiet else left_out(loaded):
        console.say(f"note: {line}")
    measured = search_apart(config, set_ or (), unset or (), steps=steps, seeds=seeds, quiet=quiet)
    try:
        result = find(measured)
    except NoLearningRate as error:
        show_curves(loaded, measured, plot=plot, lr=None, json=json)  # they say best why there is none
        raise NoLearningRate(f"{config}: no learning rate found: {error}") from None
    files = show_curves(loaded, measured, plot=plot, lr=result.lr, json=json)
    if write:
        write_rate(config, result.lr)
        files.append(config)
    if json:
        described = {"config": str(config), "now": loaded.config.optimizer.lr, **result.as_json()}
        console.print_json({**described, "written": [str(path) for path in files]})
    else:
        show(result, loaded, config, files)


def check_files(loaded: LoadedConfig, config: Path, *, plot: Path | None, write: bool, changed: bool) -> None:
    """See that what is to be written can be, before the search.

    Raises:
        UserError: it cannot.
    """
    from trainkit.workflows.lr_find import edited

    if plot is not None and (plot.suffix.lower() != ".png" or not plot.parent.is_dir() or plot.is_dir()):
        raise UserError(f"--plot {plot}: expected the name of a .png file in a folder that there is")
    for file in ([] if plot is None else [plot]) + ([config.resolve()] if write else []):
        if not os.access(file.parent, os.W_OK):
            raise UserError(f"{file}: its folder cannot be written, so that the search would be for nothing")
    if not write:
        return
    if loaded.path != config:
        raise UserError(
            f"--write: {config} is a shipped config, which stays as it is; trainkit init --from {config} makes "
            "a copy of your own"
        )
    if changed:
        raise UserError(
            "--write: the learning rate would be that of a config with --set or --unset, and the file has other "
            "values; write them into the file first, or leave --write out"
        )
    try:
        edited(config, loaded.config.optimizer.lr / 3)  # another value than there is
    except UserError as error:
        raise UserError(f"--write: {error}; leave it out, and put the learning rate in yourself") from None


def search_apart(
    config: Path, overrides: Sequence[str], unset: Sequence[str], *, steps: int, seeds: int, quiet: bool
) -> list[Curve]:
    """The curves, by a process of its own, which has said on stderr why it failed where it did."""
    from trainkit.workflows.bench import ChildFailed
    from trainkit.workflows.lr_find import search_apart as search

    try:
        with console.frontend(quiet=quiet, stopped="the search was given up; nothing was written") as frontend:
            return search(
                config, overrides=overrides, unset=unset, steps=steps, seeds=seeds, quiet=quiet, frontend=frontend
            )
    except ChildFailed as error:
        if error.exit_code > 0:
            raise typer.Exit(error.exit_code) from None
        raise TrainkitError(f"{config}: the search was {error}") from None


def show_curves(
    loaded: LoadedConfig, curves: Sequence[Curve], *, plot: Path | None, lr: float | None, json: bool
) -> list[Path]:
    """Print the curve, and draw those of all seeds where that was asked for. Returns the files."""
    from trainkit.reports import plot_rising_rate, rising_rate_lines

    lines = [(curve.learning_rates, curve.smoothed) for curve in curves]
    if not json:
        print("training loss (smoothed, the median of the seeds) over the learning rate\n")
        print("\n".join(rising_rate_lines(lines, lr=lr, ascii_only=not console.shows_unicode())) + "\n")
    if plot is None:
        return []
    return [plot_rising_rate(plot, lines, lr=lr, title=f"Rising learning rate: {loaded.name}")]


def show(result: LrFindResult, loaded: LoadedConfig, config: Path, files: Sequence[Path]) -> None:
    """The learning rate, and what to write into the config."""
    from trainkit.config.text import to_yaml

    low, high = result.spread
    known = sum(lr is not None for lr in result.of_seeds)
    where = "of one seed" if known == 1 else f"the median of {counted(known, 'seed')}, from {low:.2g} to {high:.2g}"
    now = loaded.config.optimizer.lr
    ratio = max(now / result.lr, result.lr / now)
    times = f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"
    apart = "the same" if ratio < 1.05 else f"{times} times as {'high' if now > result.lr else 'low'}"
    console.lines(
        [
            ("found", f"{result.lr:g}, {where}"),
            ("config", f"{config} has {now:g}, {apart}"),
            *(("note", note) for note in doubts(result)),
            *(("wrote", str(path)) for path in files),
        ]
    )
    if config not in files:
        print(f"\nfor {config}:\n\n{to_yaml({'optimizer': {'lr': result.lr}})}")
        print(f"or only once: trainkit train {config} --set {result.override}")


def doubts(result: LrFindResult) -> list[str]:
    """What makes the learning rate less certain."""
    low, high = result.spread
    notes = []
    if (missing := sum(lr is None for lr in result.of_seeds)) > 0:
        notes.append(f"the loss of {counted(missing, 'more seed')} did not fall")
    if high > 5 * low:
        notes.append("the seeds do not agree: take it as a first guess; larger batches or more --steps make it surer")
    if 2 * sum(curve.falls_to_the_end for curve in result.curves) > len(result.curves):
        notes.append("the loss still falls at a learning rate of 10, so that the valley may go on: try higher ones too")
    return notes
