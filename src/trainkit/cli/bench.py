"""``trainkit bench CONFIG``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainkit.cli.options import ConfigFile, Json, Quiet, Set, Unset
from trainkit.wording import duration

if TYPE_CHECKING:
    from trainkit.config import LoadedConfig
    from trainkit.workflows.bench.run import Advice, Comparison, Measurement, Setting, Trial


def bench(
    config: ConfigFile,
    set_: Set = None,
    unset: Unset = None,
    single: Annotated[bool, typer.Option("--single", help="Measure the config as it is, and nothing else.")] = False,
    try_compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Try torch.compile too (up to a minute each); if left out, where the run trains for over 5 minutes.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="How long each setting trains for, after a warm-up.")] = 2.0,
    child: Annotated[
        Literal["full", "speed"] | None,
        typer.Option(hidden=True, help="Answer another bench, in JSON: with the phases, or the speed alone."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how fast a config trains, where the time goes, and what would be faster. Changes no run."""
    from trainkit.config import load_config

    loaded = load_config(config, overrides=set_ or (), unset=unset or ())

    from trainkit.cli import console
    from trainkit.system.signals import catch_stop_signals

    if child is not None:
        answer_parent(loaded, seconds=seconds, full=child == "full")
        return
    if single:
        measurement = measure_here(loaded, seconds=seconds, quiet=quiet)
        if json:
            console.print_json({"config": str(config), **asdict(measurement)})
        else:
            show(loaded, measurement)
        return

    from trainkit.workflows.bench.run import ChildFailed, compare, measure_apart

    watch = Watcher(quiet=quiet)
    with catch_stop_signals() as stop:
        measure = measure_apart(config, overrides=set_ or (), unset=unset or (), seconds=seconds, should_stop=stop)
        try:
            found = compare(loaded, measure=measure, try_compile=try_compile, begin=watch.begin, tell=watch.tell)
        except ChildFailed as error:  # it has said why
            raise typer.Exit(error.exit_code) from None
        watch.close()
        if json:
            console.print_json(as_json(loaded, found, interrupted=stop()))
        elif found is not None:
            show_comparison(loaded, found, interrupted=stop())
        if stop():
            done = "measured nothing"
            if found is not None:
                done = f"measured {len(found.trials)} of {found.planned} settings"
            raise stop.error(done)


def measure_here(loaded: LoadedConfig, *, seconds: float, quiet: bool) -> Measurement:
    """In this process, which a signal ends soon and cleanly."""
    from trainkit.cli import console
    from trainkit.errors import Interrupted
    from trainkit.workflows.bench.measure import measure

    with console.frontend("preparing images", quiet=quiet) as frontend:
        try:
            return measure(loaded, seconds=seconds, frontend=frontend)
        except Interrupted as error:
            raise frontend.stop.error("nothing was measured") from error


def answer_parent(loaded: LoadedConfig, *, seconds: float, full: bool) -> None:
    """Measure for another process: JSON on stdout, and silence after a stop, of which the user hears from there."""
    from trainkit.cli import console
    from trainkit.errors import Interrupted, TrainkitError
    from trainkit.workflows.bench.measure import measure

    with console.frontend("preparing images", quiet=not full) as frontend:
        try:
            found = measure(loaded, seconds=seconds, with_phases=full, frontend=frontend)
        except Interrupted:
            raise typer.Exit(frontend.stop.exit_code) from None
        except TrainkitError as error:
            if full:
                raise
            console.print_json({"error": str(error)})
            return
    console.print_json(asdict(found))


class Watcher:
    """Shows on stderr what is measured, and what came of it: a line for each setting."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.open, self.base = quiet, False, 0.0

    def begin(self, setting: Setting | None, number: int, planned: int) -> None:
        if setting is None:
            self._write("measuring the config as it is\n")
        else:
            self._write(f"[{number}/{planned}] {words(setting)} ... ")
            self.open = True

    def tell(self, trial: Trial) -> None:
        self._write(f"{outcome(trial)}\n")
        self.open = False

    def close(self) -> None:
        """End a line that a stop has cut short."""
        if self.open:
            self._write("stopped\n")

    def _write(self, text: str) -> None:
        if not self.quiet:
            print(text, end="", file=sys.stderr, flush=True)


def words(setting: Setting) -> str:
    """A setting in a sentence."""
    parts = [setting.precision, layout(setting), f"batch {setting.batch_size}"]
    if setting.compile is not False:
        parts.insert(2, "compiled" if setting.compile is True else f"compiled ({setting.compile})")
    return ", ".join(parts)


def layout(setting: Setting) -> str:
    return "channels-last" if setting.channels_last else "channels-first"


def outcome(trial: Trial) -> str:
    if trial.measurement is None:
        return f"failed: {trial.error}"
    return f"{trial.measurement.samples_per_second:,.0f} samples/s"


def show(loaded: LoadedConfig, found: Measurement) -> None:
    """One measurement: speed, memory, and where the time goes."""
    from trainkit.cli import console

    machine = found.machine
    threads = f"{machine['threads']} thread{'' if machine['threads'] == '1' else 's'}"
    epoch = found.epoch_samples / found.samples_per_second
    slowest, fastest = found.spread
    memory = f"{found.memory.host:,.0f} MB at the peak, {found.memory.at_start:,.0f} MB of it Python and PyTorch"
    if found.memory.device is not None:
        memory = f"{found.memory.device:,.0f} MB on {machine['device']}; of the process {memory}"
    console.lines(
        [
            ("config", f"{loaded.path}: {words(found.setting)}"),
            ("machine", f"{machine['device']} ({machine['hardware']}, {threads}), torch {machine['torch']}"),
            ("speed", f"{found.samples_per_second:,.0f} samples/s ({slowest:,.0f} to {fastest:,.0f})"),
            (
                "training",
                f"{duration(epoch)} an epoch of {found.epoch_samples:,} samples, "
                f"{duration(found.run_seconds)} for {found.epochs} epochs",
            ),
            ("memory", memory),
            *(("note", note.removeprefix("warning: ")) for note in found.notes),
        ]
    )
    whole = sum(found.seconds.values())
    unit, factor = ("ms", 1e3) if whole < 1 else ("s", 1.0)
    rows = [[phase, f"{s * factor:,.2f}", f"{s / whole:.1%}"] for phase, s in found.seconds.items()]
    console.table("\nwhere an epoch goes", ["phase", unit, "share"], rows)


def show_comparison(loaded: LoadedConfig, found: Comparison, *, interrupted: bool) -> None:
    """All settings side by side, and what to write into the config."""
    from trainkit.cli import console

    base = found.trials[0].measurement
    assert base is not None
    show(loaded, base)
    header = ["precision", "layout", "compile", "batch", "samples/s", "gain", "MB"]
    rows = [table_row(trial, base) for trial in found.trials]
    console.table("settings, each in a process of its own", header, rows)
    failed = [trial for trial in found.trials if trial.measurement is None]
    for trial in failed:
        print(f"{words(trial.setting)}: {outcome(trial)}")
    if failed:
        print()
    if interrupted:
        return
    if found.compile_skipped:
        print(f"compile was not tried for {duration(base.run_seconds)} of training; --compile tries it\n")
    show_advice(loaded, found)


def table_row(trial: Trial, base: Measurement) -> list[str]:
    setting, measured = trial.setting, trial.measurement
    mode = str(setting.compile) if isinstance(setting.compile, str) else "yes" if setting.compile else "no"
    if measured is not None and setting.compile is not False:
        mode += f" ({duration(measured.compile_seconds)})"
    row = [setting.precision, layout(setting), mode, str(setting.batch_size)]
    if measured is None:
        return [*row, "failed", "", ""]
    memory = measured.memory.host if measured.memory.device is None else measured.memory.device
    gain = f"{measured.samples_per_second / base.samples_per_second - 1:+.0%}"
    return [*row, f"{measured.samples_per_second:,.0f}", "as it is" if measured is base else gain, f"{memory:,.0f}"]


def show_advice(loaded: LoadedConfig, found: Comparison) -> None:
    base, advice = found.trials[0], found.advice
    if advice is not None and advice.holds:
        flags = " ".join(f"--set {item}" for item in advice.setting.overrides(base.setting))
        print(f"faster with the same batches: {gains(advice)}.\nThe training section for {loaded.path}:\n")
        print(advice.section)
        print(f"\nor only once: trainkit train {loaded.path} {flags}")
        if advice.setting.precision != base.setting.precision:
            print("note: another precision rounds otherwise; compare the scores")
    else:
        print("the config is already the fastest: nothing that trains the same batches is 5 % faster")
        if advice is not None:
            print(f"({words(advice.setting)} seemed to be, by chance: {gains(advice)})")
    own = [trial for trial in found.trials if trial.setting.batch_size == base.setting.batch_size]
    larger = max((trial for trial in found.trials if trial not in own), key=rate, default=None)
    if larger is not None and rate(larger) > 1.05 * max(map(rate, own)):
        print(
            f"batches of {larger.setting.batch_size} train more samples a second still, "
            "but in fewer steps, which changes what is learned: not advised"
        )


def gains(advice: Advice) -> str:
    first, second = (f"{gain - 1:+.0%}" for gain in advice.gains)
    return f"{first}, and {second} when measured again"


def rate(trial: Trial) -> float:
    return 0.0 if trial.measurement is None else trial.measurement.samples_per_second


def as_json(loaded: LoadedConfig, found: Comparison | None, *, interrupted: bool) -> dict[str, Any]:
    trials = [] if found is None else found.trials
    advice = None if found is None else found.advice

    def overrides(setting: Setting) -> list[str]:
        return list(setting.overrides(trials[0].setting))

    return {
        "config": str(loaded.path),
        "trials": [
            {
                "overrides": overrides(trial.setting),
                **asdict(trial),
            }
            for trial in trials
        ],
        "planned": 0 if found is None else found.planned,
        "advice": advice and {"overrides": overrides(advice.setting), **asdict(advice), "holds": advice.holds},
        "compile_skipped": None if found is None else found.compile_skipped,
        "interrupted": interrupted,
    }
