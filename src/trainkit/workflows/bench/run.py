"""``trainkit bench``: a config as it is beside other settings of precision, layout, compilation and batch size.

Each is measured in a process of its own (``speed``), so that none warms up the machine or fills the memory of another.
This module imports no torch: it starts the processes, and draws the conclusion.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainkit.config import LoadedConfig
from trainkit.config.text.reader import read_file
from trainkit.config.text.writer import flow, to_yaml
from trainkit.errors import TrainkitError
from trainkit.system.processes import run_child

MIN_GAIN = 1.05
"""What is less than 5 % faster is not worth a change, and hard to tell from chance."""
LARGER_BATCH = 4
COMPILE_WORTH_SECONDS = 300
"""A run that trains for less is not likely to win back the 15 to 60 s that compiling takes."""
HOPELESS = 1.5
"""Compiling is not tried where the plain setting is so many times slower than the fastest."""
LINE_WIDTH = 110


@dataclass(frozen=True)
class Setting:
    """What is varied."""

    precision: str
    channels_last: bool
    compile: bool | str
    batch_size: int

    def overrides(self, base: Setting) -> tuple[str, ...]:
        """What to write after ``--set`` to come from ``base`` to this."""
        return tuple(f"training.{name}={flow(value)}" for name, value in self.changes(base).items())

    def changes(self, base: Setting) -> dict[str, Any]:
        """The keys of the section ``training`` in which this differs from ``base``."""
        own, other = asdict(self), asdict(base)
        return {name: own[name] for name in own if own[name] != other[name]}


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
    """Of training, without validation and checkpoints: the middle one of several windows of time."""
    spread: tuple[float, float]
    """The slowest and the fastest window."""
    steps_measured: int
    epoch_samples: int
    epochs: int
    compile_seconds: float
    """What the first steps took longer than later ones; 0 where nothing was compiled."""
    memory: Memory
    seconds: dict[str, float]
    """Of an epoch, by phase; empty where only the speed was asked for."""
    machine: dict[str, str]
    convolutional: bool
    notes: list[str] = field(default_factory=list)

    @property
    def run_seconds(self) -> float:
        """Of all the training that the config asks for, compilation included."""
        return self.compile_seconds + self.epochs * self.epoch_samples / self.samples_per_second


@dataclass(frozen=True)
class Trial:
    """One setting, and what came of it."""

    setting: Setting
    measurement: Measurement | None
    error: str | None = None


@dataclass(frozen=True)
class Advice:
    """The fastest setting that trains the same batches, measured a second time, after the config as it is."""

    setting: Setting
    gains: tuple[float, float]
    """How many times faster the whole training is than with the config as it is, each time."""
    section: str
    """The section ``training`` to put in the place of the config's, as YAML."""

    @property
    def holds(self) -> bool:
        """Whether it was faster the second time too."""
        return min(self.gains) >= MIN_GAIN


@dataclass
class Comparison:
    """What was measured; incomplete where a stop was asked for."""

    trials: list[Trial]
    """The config as it is comes first."""
    planned: int
    advice: Advice | None = None
    """None where nothing was faster than the config as it is."""
    compile_skipped: bool = False
    """Whether compilation was not tried, because the run is too short to win back the time that it takes."""


class ChildFailed(TrainkitError):
    """The config as it is cannot be measured; the child has said why, on stderr."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the config could not be measured (exit code {exit_code})")
        self.exit_code = exit_code


Measure = Callable[[Sequence[str], bool], Measurement | str | None]
"""Given overrides and whether it is the config as it is: its measurement, why it failed, or None after a stop."""
Begin = Callable[[Setting | None, int, int], None]
"""Given what is measured next (None: the config as it is), its number, and how many there will be."""


def compare(
    loaded: LoadedConfig,
    *,
    measure: Measure,
    try_compile: bool | None = None,
    begin: Begin = lambda setting, number, planned: None,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> Comparison | None:
    """Measure the config as it is, then whatever may be faster, then the fastest once more.

    Args:
        measure: measures one setting, in a process of its own.
        try_compile: None tries it where the run is long enough to win back the time that it takes.
        tell: given each trial that is done.

    Returns:
        None where a stop was asked for before anything was measured.

    Raises:
        ChildFailed: the config as it is cannot be trained.
    """
    begin(None, 1, 0)
    first = measure((), True)
    if first is None:
        return None
    if isinstance(first, str):
        raise TrainkitError(f"{loaded.path}: {first}")
    base = first.setting
    worth = first.run_seconds > COMPILE_WORTH_SECONDS or base.compile is not False
    compiling = worth if try_compile is None else try_compile
    settings = [setting for setting in plain_settings(first) if setting != base]
    planned = 1 + len(settings) + compiling * len(precisions(first))
    found = Comparison([Trial(base, first)], planned)
    tell(found.trials[0])

    def attempt(setting: Setting, number: int) -> Trial | None:
        begin(setting, number, found.planned)
        result = measure(setting.overrides(base), False)
        if result is None:
            return None
        trial = judged(setting, result)
        tell(trial)
        return trial

    def add(chosen: Iterator[Setting]) -> bool:
        """Whether all were measured, without a stop."""
        for setting in chosen:
            trial = attempt(setting, len(found.trials) + 1)
            if trial is None:
                return False
            found.trials.append(trial)
        return True

    if not add(iter(settings)):
        return found
    if compiling and not add(compiled_settings(found.trials)):
        return found
    found.compile_skipped = not compiling and try_compile is None
    found.planned = len(found.trials)
    best = fastest_of_same_batch(found.trials)
    if best is not None:
        found.planned += 2
        again: list[Trial] = []
        for setting in (base, best.setting):
            trial = attempt(setting, len(found.trials) + len(again) + 1)
            if trial is None:
                return found
            again.append(trial)
        found.advice = advise(loaded, (found.trials[0], best), again)
    return found


def judged(setting: Setting, result: Measurement | str) -> Trial:
    """A setting that quietly became another one was not measured."""
    if isinstance(result, str):
        return Trial(setting, None, result)
    if result.setting != setting:
        failed = next((note for note in result.notes if "torch.compile" in note), "the config turned it into another")
        failed = failed.removeprefix("warning: training.compile: ").replace(", so the model runs uncompiled", "")
        return Trial(setting, None, failed)
    return Trial(setting, result)


def precisions(base: Measurement) -> tuple[str, ...]:
    return ("fp32", "bf16", "fp16") if base.machine["device"].startswith("cuda") else ("fp32", "bf16")


def plain_settings(base: Measurement) -> Iterator[Setting]:
    """Precision x layout x batch size, uncompiled. A batch larger than the training split is the split."""
    own = base.setting
    layouts = (True, False) if base.convolutional else (own.channels_last,)
    sizes = [size for size in (own.batch_size, LARGER_BATCH * own.batch_size) if size <= base.epoch_samples]
    for precision, layout, size in itertools.product(precisions(base), layouts, sizes or [own.batch_size]):
        yield Setting(precision, layout, False, size)


def compiled_settings(trials: Sequence[Trial]) -> Iterator[Setting]:
    """For each precision its fastest layout, compiled; but not what was measured already, nor hopeless ones."""
    base = trials[0].setting
    mode = base.compile or True
    plain = [
        trial for trial in trials if trial.setting.compile is False and trial.setting.batch_size == base.batch_size
    ]
    done = [trial.setting for trial in trials]
    for precision in dict.fromkeys(trial.setting.precision for trial in plain):
        fastest = max((trial for trial in plain if trial.setting.precision == precision), key=speed)
        setting = replace(fastest.setting, compile=mode)
        if speed(fastest) * HOPELESS >= max(map(speed, plain)) > 0 and setting not in done:
            yield setting


def speed(trial: Trial) -> float:
    """Samples a second; 0 where it failed."""
    return 0.0 if trial.measurement is None else trial.measurement.samples_per_second


def fastest_of_same_batch(trials: Sequence[Trial]) -> Trial | None:
    """What trains the same batches in the least time, if that is at least ``MIN_GAIN`` less than the config as it is.

    A larger batch changes what is learned: it is shown, and never advised.
    """
    base = trials[0].measurement
    assert base is not None
    same = [t for t in trials[1:] if t.measurement is not None and t.setting.batch_size == base.setting.batch_size]
    best = min(same, key=lambda trial: run_seconds(trial), default=None)
    return best if best is not None and base.run_seconds > MIN_GAIN * run_seconds(best) else None


def run_seconds(trial: Trial) -> float:
    assert trial.measurement is not None
    return trial.measurement.run_seconds


def advise(loaded: LoadedConfig, first: tuple[Trial, Trial], again: Sequence[Trial]) -> Advice | None:
    """What to change, from the config as it is and the fastest setting, both measured twice; None where one failed."""
    base, best = first
    if any(trial.measurement is None for trial in again):
        return None
    gains = (run_seconds(base) / run_seconds(best), run_seconds(again[0]) / run_seconds(again[1]))
    return Advice(best.setting, gains, training_section(loaded, best.setting.changes(base.setting)))


def training_section(loaded: LoadedConfig, changes: dict[str, Any]) -> str:
    """The section ``training`` as the file has it, with the changes: one line where it fits."""
    tree, _, _ = read_file(loaded.path)
    written = tree.plain().get("training") or {}
    section = {"training": {**written, **changes}}
    line = f"training: {flow(section['training'])}"
    return line if len(line) <= LINE_WIDTH else to_yaml(section).rstrip("\n")


def measure_apart(
    config: Path,
    *,
    overrides: Sequence[str],
    unset: Sequence[str],
    seconds: float,
    should_stop: Callable[[], bool],
) -> Measure:
    """A ``Measure`` that starts ``trainkit bench --child``."""

    def measure(changes: Sequence[str], as_it_is: bool) -> Measurement | str | None:
        command = [sys.executable, "-m", "trainkit", "bench", str(config), "--seconds", str(seconds)]
        command += ["--child", "full" if as_it_is else "speed"]
        for name, values in (("--set", [*overrides, *changes]), ("--unset", unset)):
            command += itertools.chain.from_iterable((name, value) for value in values)
        # What the config as it is has to say goes to the user as it comes: mistakes, the progress of decoding.
        done = run_child(command, show_stderr=as_it_is, should_stop=should_stop)
        if done is None or should_stop():
            return None
        if done.returncode > 0 and as_it_is:
            raise ChildFailed(done.returncode)
        if done.returncode != 0:
            reason = failure_line(done.returncode, done.stderr)
            if as_it_is:
                raise TrainkitError(f"{config}: the measurement was {reason}")
            return reason
        answer = json.loads(done.stdout)
        return str(answer["error"]).partition("\n")[0] if "error" in answer else from_json(answer)

    return measure


def failure_line(code: int, err: str) -> str:
    """Why a process ended: its error or the last line that it said, or the signal that ended it."""
    if code < 0:
        killed = signal.Signals(-code).name
        return f"ended by {killed}{', perhaps for want of memory' if killed == 'SIGKILL' else ''}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    error = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    return error or (lines[-1] if lines else f"exit code {code}")


def from_json(answer: dict[str, Any]) -> Measurement:
    """The opposite of ``asdict``."""
    fields = {**answer, "setting": Setting(**answer["setting"]), "memory": Memory(**answer["memory"])}
    return Measurement(**{**fields, "spread": tuple(answer["spread"])})
