"""``trainkit bench CONFIG``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli.options import Json, Quiet, Set, Unset

if TYPE_CHECKING:
    from trainkit.workflows.bench import Measurement, Trial


def bench(
    config: Annotated[Path, typer.Argument(help="The YAML config.")],
    set_: Set = None,
    unset: Unset = None,
    single: Annotated[bool, typer.Option("--single", help="Measure the config as it is, and nothing else.")] = False,
    with_compile: Annotated[bool, typer.Option("--compile", help="Also try torch.compile (takes minutes).")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how fast a config trains, where the time goes, and what would be faster. Changes no run."""
    from trainkit.config import load_config

    loaded = load_config(config, overrides=set_ or (), unset=unset or ())

    from trainkit import console
    from trainkit.signals import catch_stop_signals
    from trainkit.workflows.bench import advice, as_json, combinations, measure, sweep

    if single:
        measurement = measure(loaded)
        if json:
            console.print_json(as_json(measurement))
        else:
            show(measurement)
        return

    def tell(trial: Trial) -> None:
        if not quiet:
            console.say(f"{name(trial)}: {speed(trial)}")

    with catch_stop_signals() as stop:
        combos = combinations(loaded, with_compile=with_compile)
        trials = sweep(config, combos, overrides=set_ or (), unset=unset or (), should_stop=stop, tell=tell)
    if stop():
        raise stop.error("nothing was written")
    lines = advice(trials)
    if json:
        found = [
            {"overrides": t.overrides, "error": t.error, **(as_json(t.measurement) if t.measurement else {})}
            for t in trials
        ]
        console.print_json({"trials": found, "advice": lines})
        return
    if trials[0].measurement is not None:
        show(trials[0].measurement)
    console.table("combinations", ["", "samples/s"], [[name(trial), speed(trial)] for trial in trials])
    if lines:
        print("faster with the same batches, put into the config:")
        print("training: {" + ", ".join(line.removeprefix("training.").replace("=", ": ") for line in lines) + "}")
    else:
        print("nothing tried is more than 5 % faster than the config as it is")


def name(trial: Trial) -> str:
    return " ".join(item.removeprefix("training.") for item in trial.overrides) or "as it is"


def speed(trial: Trial) -> str:
    return str(trial.error) if trial.measurement is None else f"{trial.measurement.samples_per_second:,.0f}"


def show(measurement: Measurement) -> None:
    from trainkit import console

    whole = sum(measurement.seconds.values())
    rows = [[phase, f"{seconds:.3f}", f"{seconds / whole:.0%}"] for phase, seconds in measurement.seconds.items()]
    title = f"{measurement.samples_per_second:,.0f} samples/s, {measurement.peak_megabytes:,.0f} MB at most"
    console.table(title, ["part of an epoch", "seconds", "share"], rows)
