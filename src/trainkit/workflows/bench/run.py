"""``trainkit bench``: a config as it is, and with other threads, precision, layout, compilation and batch size.

A setting is measured by a process of its own, ``trainkit bench --single --json``, so that none warms up the machine or
fills the memory of another. This module imports no torch: it starts the processes and compares what they print.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trainkit.config.text import flow
from trainkit.errors import Interrupted, TrainkitError
from trainkit.plugins import plugin_options
from trainkit.system import Frontend, run_child

MIN_GAIN = 1.05
"""A gain of less than 5 % is not worth a change, and hard to tell from noise."""
LARGER_BATCH = 4
COMPILE_WORTH_SECONDS = 300
"""A shorter run is not likely to gain more than the 15 to 60 s that compiling takes."""
TOO_SLOW = 1.5
"""Compiling is not tried where the plain setting is this many times slower than the fastest."""


@dataclass(frozen=True)
class Setting:
    """The keys of the section ``training`` that are varied."""

    precision: str
    channels_last: bool
    compile: bool | str
    batch_size: int
    num_threads: int

    @property
    def is_compiled(self) -> bool:
        """By ``torch.compile``; ``auto`` takes a CUDA graph at most."""
        return self.compile not in (False, "auto")

    def changes(self, base: Setting) -> dict[str, Any]:
        """The keys of the section ``training`` in which this differs from ``base``."""
        own, other = asdict(self), asdict(base)
        return {name: own[name] for name in own if own[name] != other[name]}

    def overrides(self, base: Setting) -> list[str]:
        """The arguments of ``--set`` that change ``base`` into this."""
        return [f"training.{name}={flow(value)}" for name, value in self.changes(base).items()]


@dataclass(frozen=True)
class Memory:
    """Megabytes (10^6 bytes)."""

    at_start: float
    """Of the process, before the data were loaded: Python and PyTorch."""
    host: float
    """Of the process, at its peak."""
    device: float | None
    """Of the accelerator, at its peak; None where there is none."""


@dataclass(frozen=True)
class Measurement:
    """The speed of one setting on this machine."""

    setting: Setting
    samples_per_second: float
    """Of training, without validation and checkpoints: the median of several windows of time."""
    spread: tuple[float, float]
    """The slowest and the fastest window."""
    steps_measured: int
    epoch_samples: int
    epochs: int
    compile_seconds: float
    """The extra time of the first steps; 0 where nothing was compiled."""
    memory: Memory
    seconds: dict[str, float]
    """Of an epoch, by phase."""
    machine: dict[str, str]
    convolutional: bool
    notes: list[str] = field(default_factory=list)

    @property
    def run_seconds(self) -> float:
        """Of the whole training, compilation included."""
        return self.compile_seconds + self.epochs * self.epoch_samples / self.samples_per_second

    @classmethod
    def from_json(cls, printed: Mapping[str, Any]) -> Measurement:
        """From the output of ``trainkit bench --single --json``."""
        values = {item.name: printed[item.name] for item in fields(cls)}
        values |= {"setting": Setting(**values["setting"]), "memory": Memory(**values["memory"])}
        return cls(**{**values, "spread": tuple(values["spread"])})


@dataclass(frozen=True)
class Trial:
    """One setting with its measurement, or the reason why there is none."""

    setting: Setting
    measurement: Measurement | None
    error: str | None = None

    @property
    def speed(self) -> float:
        """Samples a second; 0 where it failed."""
        return 0.0 if self.measurement is None else self.measurement.samples_per_second


@dataclass(frozen=True)
class Advice:
    """The fastest setting that trains the same batches, measured a second time, after the config as it is."""

    setting: Setting
    gains: tuple[float, float]
    """How many times faster the whole training is than with the config as it is, each time."""

    @property
    def holds(self) -> bool:
        """Whether it was faster the second time too."""
        return min(self.gains) >= MIN_GAIN


@dataclass
class Comparison:
    """All trials; incomplete after a stop."""

    base: Measurement
    """The config as it is."""
    trials: list[Trial]
    """The config as it is comes first."""
    planned: int
    advice: Advice | None = None
    """None where nothing was faster than the config as it is."""
    compile_skipped: bool = False
    """Whether compilation was not tried because the run is too short to gain from it."""
    interrupted: bool = False


class ChildFailed(TrainkitError):
    """A setting could not be measured; the message says why."""

    def __init__(self, exit_code: int, stderr: str) -> None:
        super().__init__(failure_line(exit_code, stderr))
        self.exit_code = exit_code


Measure = Callable[[Sequence[str]], Measurement]
"""Given overrides, the measurement of the config with them. Raises ChildFailed, or Interrupted after a stop."""


def compare(
    measure: Measure,
    *,
    try_compile: bool | None = None,
    begin: Callable[[Setting | None, int, int], None] = lambda setting, number, planned: None,
    end: Callable[[Trial], None] = lambda trial: None,
) -> Comparison:
    """Measure the config as it is, then the settings that may be faster, then the fastest once more.

    Args:
        try_compile: None tries it where the run is long enough to gain from it.
        begin: called with the next setting (None: the config as it is), its number, and how many there will be.
        end: called with each trial that is done.

    Raises:
        ChildFailed: the config as it is cannot be trained.
        Interrupted: a stop was asked for before anything was measured.
    """
    begin(None, 1, 0)
    base = measure(())
    worth = base.run_seconds > COMPILE_WORTH_SECONDS or base.setting.is_compiled
    compiling = worth if try_compile is None else try_compile
    threads, plain = thread_settings(base), list(plain_settings(base, base.setting.num_threads))
    planned = len({base.setting, *threads, *plain}) + compiling * len(precisions(base))
    found = Comparison(base, [Trial(base.setting, base)], planned)
    found.compile_skipped = not compiling and try_compile is None
    end(found.trials[0])

    def attempt(setting: Setting, number: int) -> Trial:
        begin(setting, number, found.planned)
        trial = measured_trial(measure, setting, base=base.setting)
        end(trial)
        return trial

    try:
        # Generators: they choose from what was measured before.
        settings = itertools.chain(threads, settings_beside(found), compiled_settings(found) if compiling else ())
        for setting in settings:
            found.trials.append(attempt(setting, len(found.trials) + 1))
        found.planned = len(found.trials)
        best = fastest_of_same_batch(found)
        if best is not None:
            found.planned += 2
            again = [attempt(one, found.planned - left) for left, one in ((1, base.setting), (0, best.setting))]
            found.advice = advise(base, best, [trial.measurement for trial in again])
    except Interrupted:
        found.interrupted = True
    return found


def measured_trial(measure: Measure, setting: Setting, *, base: Setting) -> Trial:
    """Measure a setting; it has no measurement if the config or a failed compilation changed it into another one."""
    try:
        found = measure(setting.overrides(base))
    except ChildFailed as error:
        return Trial(setting, None, str(error))
    if found.setting == setting:
        return Trial(setting, found)
    reason = next((note for note in found.notes if "training.compile" in note), "the config turned it into another")
    reason = reason.removeprefix("warning: training.compile: ").replace(", so the model runs uncompiled", "")
    return Trial(setting, None, reason)


def precisions(base: Measurement) -> tuple[str, ...]:
    return ("fp32", "bf16", "fp16") if base.machine["device"].startswith("cuda") else ("fp32", "bf16")


def thread_settings(base: Measurement) -> list[Setting]:
    """The config as it is with one thread, and with one for each core; on a GPU threads matter little."""
    if base.machine["device"] != "cpu":
        return []
    numbers = sorted({1, int(base.machine["most_threads"])} - {base.setting.num_threads})
    return [replace(base.setting, num_threads=number) for number in numbers]


def settings_beside(found: Comparison) -> Iterator[Setting]:
    """The plain settings that are not measured yet, with the number of threads that was the fastest."""
    own, fastest = found.trials[0], max(found.trials, key=lambda trial: trial.speed)
    threads = (fastest if fastest.speed > MIN_GAIN * own.speed else own).setting.num_threads
    done = [trial.setting for trial in found.trials]
    yield from (setting for setting in plain_settings(found.base, threads) if setting not in done)


def plain_settings(base: Measurement, num_threads: int) -> Iterator[Setting]:
    """Precision x layout x batch size, without ``torch.compile``. A batch larger than the split is the split."""
    own = base.setting
    plain = False if own.is_compiled else own.compile
    layouts = (True, False) if base.convolutional else (own.channels_last,)
    sizes = [size for size in (own.batch_size, LARGER_BATCH * own.batch_size) if size <= base.epoch_samples]
    for precision, layout, size in itertools.product(precisions(base), layouts, sizes or [own.batch_size]):
        yield Setting(precision, layout, plain, size, num_threads)


def compiled_settings(found: Comparison) -> Iterator[Setting]:
    """For each precision its fastest layout, compiled; without measured ones, and without precisions that are slow."""
    trials, base = found.trials, found.base.setting
    mode = base.compile if base.is_compiled else True
    plain = [t for t in trials if not t.setting.is_compiled and t.setting.batch_size == base.batch_size]
    done = [trial.setting for trial in trials]
    for precision in dict.fromkeys(trial.setting.precision for trial in plain):
        fastest = max((t for t in plain if t.setting.precision == precision), key=lambda t: t.speed)
        setting = replace(fastest.setting, compile=mode)
        if fastest.speed * TOO_SLOW >= max(t.speed for t in plain) > 0 and setting not in done:
            yield setting


def fastest_of_same_batch(found: Comparison) -> Measurement | None:
    """The fastest setting with the same batches, if its gain over the config as it is is at least ``MIN_GAIN``.

    A larger batch changes the result of training: it is shown, and never advised.
    """
    size = found.base.setting.batch_size
    same = [t.measurement for t in found.trials if t.measurement is not None and t.setting.batch_size == size]
    best = min(same, key=lambda measured: measured.run_seconds)
    return best if found.base.run_seconds > MIN_GAIN * best.run_seconds else None


def advise(base: Measurement, best: Measurement, again: Sequence[Measurement | None]) -> Advice | None:
    """The advice from two measurements of the config as it is and of the fastest setting; None where one failed."""
    base_again, best_again = again
    if base_again is None or best_again is None:
        return None
    gains = (base.run_seconds / best.run_seconds, base_again.run_seconds / best_again.run_seconds)
    return Advice(best.setting, gains)


def measure_apart(
    config: Path,
    *,
    overrides: Sequence[str],
    unset: Sequence[str],
    seconds: float,
    nproc: int | None = None,
    quiet: bool = False,
    frontend: Frontend | None = None,
) -> Measure:
    """A ``Measure`` that starts ``trainkit bench --single --json``.

    Args:
        nproc: how many processes share the batches.
    """
    command = [sys.executable, "-m", "trainkit", *plugin_options(), "bench", str(config), "--single", "--json"]
    command += ["--seconds", str(seconds)]
    command += [word for key in unset for word in ("--unset", key)]
    command += ["--quiet"] if quiet else []
    command += [] if nproc is None else ["--nproc", str(nproc)]
    stop = (frontend or Frontend()).stop

    def measure(changes: Sequence[str]) -> Measurement:
        words = [word for item in (*overrides, *changes) for word in ("--set", item)]
        # The user sees the messages about the config itself at once: its mistakes, the progress of decoding.
        done = run_child([*command, *words], show_stderr=not changes, should_stop=stop)
        if done is None or stop():
            raise Interrupted("the measurement was given up", 130)
        if done.returncode != 0:
            raise ChildFailed(done.returncode, done.stderr)
        return Measurement.from_json(json.loads(done.stdout))

    return measure


def failure_line(code: int, err: str) -> str:
    """Why a process ended: its error, its last line, or its signal."""
    if code < 0:
        killed = signal.Signals(-code).name
        return f"ended by {killed}{', perhaps for want of memory' if killed == 'SIGKILL' else ''}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    error = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    return error or (lines[-1] if lines else f"exit code {code}")
