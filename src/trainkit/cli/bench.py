"""``trainkit bench CONFIG``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainkit.cli import console
from trainkit.cli.options import PIECES, ConfigFile, Json, Quiet, Set, Unset, load, run_in_ranks, start_of_ranks
from trainkit.errors import TrainkitError, UserError
from trainkit.system import launched
from trainkit.wording import counted, duration

if TYPE_CHECKING:
    from trainkit.config import LoadedConfig
    from trainkit.workflows.bench import Advice, Comparison, Measure, Measurement, Setting, Trial


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
    nproc: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Measure the config in 1, 2, ... processes, and nothing else."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="How long each setting trains for, after a warm-up.")] = 2.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how fast a config trains, where the time goes, and what would be faster. Changes no run."""
    if single:
        size = start_of_ranks(nproc, None)
        quiet = quiet or launched.rank() > 0
        starting = size > launched.num_ranks()
        loaded = load(config, set_, unset, quiet=quiet or starting, ranks=size)
        if starting:
            run_in_ranks(size, unsaved="nothing was measured")
        measure_single(loaded, config, seconds=seconds, json=json, quiet=quiet)
        return
    if launched.num_ranks() > 1:
        raise UserError("bench starts the processes itself: give it --nproc 1,2 without torchrun, or --single")

    from trainkit.workflows.bench import measure_apart

    how: Any = {"overrides": set_ or (), "unset": unset or (), "seconds": seconds, "quiet": quiet}
    if nproc is not None:
        if try_compile is not None:
            raise UserError("--compile tries other settings, --nproc other numbers of processes: give one of them")
        counts = [start_of_ranks(word.strip(), None) for word in nproc.split(",")]
        plans = {count: load(config, set_, unset, quiet=True, ranks=count) for count in counts}
        with console.frontend(quiet=quiet, stopped="the measurement was given up") as frontend:
            measures = {count: measure_apart(config, **how, nproc=count, frontend=frontend) for count in plans}
            show_processes(plans, compare_processes(measures, path=config, quiet=quiet), config=config, json=json)
        return
    loaded = load(config, set_, unset, quiet=quiet)
    with console.frontend(quiet=quiet, stopped="nothing was measured") as frontend:
        measure_one = measure_apart(config, **how, frontend=frontend)
        found = compare_settings(loaded, measure_one, try_compile=try_compile, quiet=quiet)
    if json:
        console.print_json(as_json(loaded, found))
    else:
        show_comparison(loaded, found)
    if found.interrupted:
        raise frontend.stop.error(f"measured {len(found.trials)} of {found.planned} settings")


def measure_single(loaded: LoadedConfig, config: Path, *, seconds: float, json: bool, quiet: bool) -> None:
    """The config as it is, in this process or in all that share it."""
    from trainkit.workflows.bench.speed import measure
    from trainkit.workflows.ranks import joined

    with (
        console.frontend(quiet=quiet, stopped="nothing was measured") as frontend,
        joined(loaded.config, stop=frontend.stop) as ranks,
    ):
        measured = measure(loaded, seconds=seconds, ranks=ranks, frontend=frontend)
    if ranks.is_first and json:
        console.print_json({"config": str(config), **asdict(measured)})
    elif ranks.is_first:
        show(loaded, measured)


def compare_processes(measures: Mapping[int, Measure], *, path: Path, quiet: bool) -> dict[int, Measurement]:
    """The config as it is in each number of processes, with a line on stderr for each."""
    found = {}
    for count, measure in measures.items():
        if not quiet:
            console.say(f"measuring {counted(count, 'process')} ...")
        with said_by_child(path):
            found[count] = measure(())
    return found


@contextmanager
def said_by_child(path: Path) -> Iterator[None]:
    """End with the exit code of a measurement that failed and has printed why.

    Raises:
        TrainkitError: a signal ended it.
    """
    from trainkit.workflows.bench import ChildFailed

    try:
        yield
    except ChildFailed as error:
        if error.exit_code > 0:
            raise typer.Exit(error.exit_code) from None
        raise TrainkitError(f"{path}: the measurement was {error}") from None


def show_processes(
    plans: Mapping[int, LoadedConfig], found: Mapping[int, Measurement], *, config: Path, json: bool
) -> None:
    """What each number of processes brings."""
    pieces = {count: plan.config.training.accumulation_steps for count, plan in plans.items()}
    speeds = {count: measured.samples_per_second for count, measured in found.items()}
    first = next(iter(speeds))
    if json:
        rows = [
            {"processes": count, "pieces": pieces[count], "times": speeds[count] / speeds[first], **asdict(measured)}
            for count, measured in found.items()
        ]
        console.print_json({"config": str(config), "processes": rows})
        return
    base = found[first]
    print(f"{config}: {words(base.setting)}, on {base.machine['device']} ({base.machine['hardware']})")
    header = ["processes", "pieces", "threads each", "samples/s", f"times {first}", "epoch", "MB of the first"]
    table = [
        [
            str(count),
            str(pieces[count]),
            str(one.setting.num_threads),
            f"{speeds[count]:,.0f}",
            f"{speeds[count] / speeds[first]:.2f}",
            duration(one.epoch_samples / speeds[count]),
            f"{one.memory.host if one.memory.device is None else one.memory.device:,.0f}",
        ]
        for count, one in found.items()
    ]
    console.table("the same batches, shared by processes", header, table)
    if len(set(pieces.values())) > 1:
        print(f"{PIECES} is not in the config, so each number of processes has its own: other last digits")


def compare_settings(loaded: LoadedConfig, measure: Measure, *, try_compile: bool | None, quiet: bool) -> Comparison:
    """All settings, with a line on stderr for each: what is measured, and what came of it."""
    from trainkit.workflows.bench import compare

    def write(text: str) -> None:
        if not quiet:
            console.say(text, end="")

    def begin(setting: Setting | None, number: int, planned: int) -> None:
        head = "measuring the config as it is\n" if setting is None else f"[{number}/{planned}] {words(setting)} ... "
        write(head)

    with said_by_child(loaded.path):
        found = compare(measure, try_compile=try_compile, begin=begin, end=lambda trial: write(f"{outcome(trial)}\n"))
    if found.interrupted:
        write("stopped\n")
    return found


def words(setting: Setting) -> str:
    """A setting in a sentence."""
    threads = counted(setting.num_threads, "thread")
    parts = [setting.precision, layout(setting), f"batch {setting.batch_size}", threads]
    if setting.is_compiled:
        parts.insert(2, "compiled" if setting.compile is True else f"compiled ({setting.compile})")
    return ", ".join(parts)


def layout(setting: Setting) -> str:
    return "channels-last" if setting.channels_last else "channels-first"


def outcome(trial: Trial) -> str:
    return f"failed: {trial.error}" if trial.measurement is None else f"{trial.speed:,.0f} samples/s"


def show(loaded: LoadedConfig, found: Measurement) -> None:
    """One measurement: speed, memory, and where the time goes."""

    machine = found.machine
    threads = counted(int(machine["threads"]), "thread")
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
                f"{duration(epoch)} an epoch of {counted(found.epoch_samples, 'sample')}, "
                f"{duration(found.run_seconds)} for {counted(found.epochs, 'epoch')}",
            ),
            ("memory", memory),
            *(("note", note.removeprefix("warning: ")) for note in found.notes),
        ]
    )
    whole = sum(found.seconds.values())
    unit, factor = ("ms", 1e3) if whole < 1 else ("s", 1.0)
    rows = [[phase, f"{s * factor:,.2f}", f"{s / whole:.1%}"] for phase, s in found.seconds.items()]
    console.table("\nwhere an epoch goes", ["phase", unit, "share"], rows)


def show_comparison(loaded: LoadedConfig, found: Comparison) -> None:
    """All settings side by side, and what to write into the config."""

    show(loaded, found.base)
    header = ["precision", "layout", "compile", "batch", "threads", "samples/s", "gain", "MB"]
    rows = [table_row(trial, found.base) for trial in found.trials]
    console.table("settings, each in a process of its own", header, rows)
    failed = [f"{words(trial.setting)}: {outcome(trial)}" for trial in found.trials if trial.measurement is None]
    if failed:
        print("\n".join(failed) + "\n")
    if found.interrupted:
        return
    if found.compile_skipped:
        print(f"compile was not tried for {duration(found.base.run_seconds)} of training; --compile tries it\n")
    show_advice(loaded, found)


def table_row(trial: Trial, base: Measurement) -> list[str]:
    setting, measured = trial.setting, trial.measurement
    mode = str(setting.compile) if isinstance(setting.compile, str) else "yes" if setting.compile else "no"
    if measured is not None and measured.compile_seconds:
        mode += f" ({duration(measured.compile_seconds)})"
    row = [setting.precision, layout(setting), mode, str(setting.batch_size), str(setting.num_threads)]
    if measured is None:
        return [*row, "failed", "", ""]
    memory = measured.memory.host if measured.memory.device is None else measured.memory.device
    gain = f"{trial.speed / base.samples_per_second - 1:+.0%}"
    return [*row, f"{trial.speed:,.0f}", "as it is" if measured is base else gain, f"{memory:,.0f}"]


def show_advice(loaded: LoadedConfig, found: Comparison) -> None:
    from trainkit.config.text import to_yaml

    base, advice = found.base, found.advice
    if advice is not None and advice.holds:
        flags = " ".join(f"--set {item}" for item in advice.setting.overrides(base.setting))
        print(f"faster with the same batches: {gains(advice)}. For {loaded.path}:\n")
        print(to_yaml({"training": advice.setting.changes(base.setting)}))
        print(f"or only once: trainkit train {loaded.path} {flags}")
        if advice.setting.precision != base.setting.precision:
            print("note: another precision rounds otherwise; compare the scores")
        elif advice.setting.num_threads != base.setting.num_threads:
            print("note: another number of threads adds up in another order: the last digits differ")
    else:
        print("the config is already the fastest: nothing that trains the same batches is 5 % faster")
        if advice is not None:
            print(f"({words(advice.setting)} seemed to be, by chance: {gains(advice)})")
    same = max(trial.speed for trial in found.trials if trial.setting.batch_size == base.setting.batch_size)
    fastest = max(found.trials, key=lambda trial: trial.speed)
    if fastest.speed > 1.05 * same:
        print(
            f"batches of {fastest.setting.batch_size} train more samples a second still, "
            "but in fewer steps, which changes what is learned: not advised"
        )


def gains(advice: Advice) -> str:
    first, second = (f"{gain - 1:+.0%}" for gain in advice.gains)
    return f"{first}, and {second} when measured again"


def as_json(loaded: LoadedConfig, found: Comparison) -> dict[str, Any]:
    base, advice = found.base.setting, found.advice
    return {
        "config": str(loaded.path),
        "trials": [{"overrides": trial.setting.overrides(base), **asdict(trial)} for trial in found.trials],
        "planned": found.planned,
        "advice": advice and {"overrides": advice.setting.overrides(base), **asdict(advice), "holds": advice.holds},
        "compile_skipped": found.compile_skipped,
        "interrupted": found.interrupted,
    }
