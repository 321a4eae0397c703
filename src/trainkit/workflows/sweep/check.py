"""The checks with which a sweep begins: every bound and every choice is tried as ``trainkit check`` would try it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from trainkit.builders import check_rules
from trainkit.config import Choice, LoadedConfig, LoadedSweep, Space
from trainkit.config.schema import Config
from trainkit.config.schema.sweep import Grid
from trainkit.config.text import flow
from trainkit.data.dataset import Dataset
from trainkit.errors import ConfigError, Problem, ProblemsError
from trainkit.runtime import resolve_device
from trainkit.system import Frontend
from trainkit.wording import counted
from trainkit.workflows.check.probe_data import load_read_only
from trainkit.workflows.check.problems import located
from trainkit.workflows.check.run import CheckReport, run_checks

_COMBINATIONS = 64
"""So many combinations of bounds and choices are looked at."""


@dataclass(frozen=True)
class SweepReport:
    """A sweep that can be run."""

    loaded: LoadedSweep
    base: CheckReport
    """Of the config with what all trials have in common."""
    checked: int
    """Configs that were tried."""


def check_sweep(loaded: LoadedSweep, *, sweeps_dir: Path = Path("sweeps"), frontend: Frontend) -> SweepReport:
    """Check the config, and each bound and choice in it, one at a time. Nothing is written.

    Raises:
        ConfigError: every mistake that was found, at its place in the sweep's file or in the config.
    """
    problems = _missing_devices(loaded)
    tried = _Tries(sweeps_dir / loaded.name / "runs", frontend)
    report = None
    try:
        report = tried.check(loaded.base)
    except ConfigError as error:
        problems += loaded.locate(error.problems)
    candidates = [] if report is None else loaded.candidates()
    for number, candidate in enumerate(candidates, 1):
        try:
            tried.check(loaded.load(candidate))
        except ConfigError as error:
            problems += loaded.locate(error.problems, candidate)
        if frontend.progress is not None:
            frontend.progress(number, len(candidates))
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what the checks took is for the trials
    if problems or report is None:
        raise loaded.error(problems)
    if len(loaded.space) > 1 and (note := _combined(loaded, report)):
        frontend.say(f"note: {note}")
    return SweepReport(loaded, report, 1 + len(candidates))


def fingerprint_of(loaded: LoadedSweep) -> Mapping[str, Any]:
    """Of the data that the trials have in common; empty where they are not downloaded yet.

    Raises:
        ConfigError: they cannot be used.
    """
    try:
        with located(loaded.base):
            return load_read_only(loaded.base.config).fingerprint
    except ConfigError as error:
        raise loaded.error(loaded.locate(error.problems)) from error


def _combined(loaded: LoadedSweep, base: CheckReport) -> str:
    """What the rules about configs say of the bounds and choices together, or "".

    Trials with values that do not go together fail, and the search goes on; so this is a note, and no error.
    """
    drawn = list(_draw(loaded))
    broken: list[tuple[dict[str, object], Problem]] = []
    for values in drawn:
        try:
            config = loaded.trial(values).config
            if config.dataset == base.loaded.config.dataset:
                check_rules(config, base.source)
        except ProblemsError as error:
            broken.append((values, error.problems[0]))
    if not broken:
        return ""
    values, problem = broken[0]
    shown = ", ".join(f"{key}: {flow(value)}" for key, value in values.items())
    share = f"{len(broken)} of {counted(len(drawn), 'combination')} of the values cannot be trained"
    return f"{share}, and such trials fail, as {shown}: {problem.key}: {problem.message}"


def _draw(loaded: LoadedSweep) -> Iterator[dict[str, object]]:
    """Bounds and choices together: all combinations, or some that the seed of the sweep draws."""
    spaces = loaded.space.items()
    ends = {key: list(one.values if isinstance(one, Choice) else (one.low, one.high)) for key, one in spaces}
    if math.prod(map(len, ends.values())) <= _COMBINATIONS:
        yield from (dict(zip(ends, values, strict=True)) for values in product(*ends.values()))
        return
    draw = random.Random(loaded.sweep.seed)
    for _ in range(_COMBINATIONS):
        yield {key: draw.choice(values) for key, values in ends.items()}


def _missing_devices(loaded: LoadedSweep) -> list[Problem]:
    problems = []
    for index, device in enumerate(loaded.sweep.parallel.devices or ()):
        try:
            resolve_device(device)
        except ProblemsError as error:
            problems.append(loaded.problem(("parallel", "devices", index), error.problems[0].message))
    return problems


@dataclass
class _Tries:
    """Checks of configs that have most in common: the data are opened once as long as they are the same."""

    runs_dir: Path
    frontend: Frontend
    opened: tuple[tuple[object, ...], Dataset] | None = None

    def check(self, loaded: LoadedConfig) -> CheckReport:
        load = partial(self.load, loaded.config)
        silent = Frontend(stop=self.frontend.stop)
        return run_checks(loaded, load=load, runs_dir=self.runs_dir, everything=True, frontend=silent)

    def load(self, config: Config) -> Dataset:
        key = (config.dataset, config.seed, config.loss, config.transforms, config.model)
        if self.opened is None or self.opened[0] != key:
            self.opened = key, load_read_only(config)
        return self.opened[1]


def describe(loaded: LoadedSweep) -> list[tuple[str, str]]:
    """What is searched, and how long: lines of a name and a text."""
    sweep, lines = loaded.sweep, [(key, describe_space(space)) for key, space in loaded.space.items()]
    size = math.prod(space.size for space in loaded.space.values())
    end = [] if sweep.budget.trials is None else [counted(sweep.budget.trials, "trial")]
    end += [] if sweep.budget.minutes is None else [f"{sweep.budget.minutes:g} minutes"]
    end = [counted(int(size), "trial"), *end[1:]] if isinstance(sweep.sampler, Grid) else end
    lines.append(("objective", f"{loaded.objective}, {'highest' if loaded.maximize else 'lowest'} is best"))
    pruner = "" if sweep.pruner.type == "none" else f", pruned by {sweep.pruner.type}"
    combinations = "" if math.isinf(size) else f" of {counted(int(size), 'combination')}"
    lines.append(("trials", f"{' or '.join(end)}{combinations}, chosen by {sweep.sampler.type}{pruner}"))
    if sweep.confirm is not None:
        lines.append(("confirm", f"the best {sweep.confirm.top}, with {counted(sweep.confirm.seeds, 'seed')} each"))
    return lines


def describe_space(space: Space) -> str:
    """``0.001 to 0.3, logarithmic``; ``64, 128 or 256``."""
    if isinstance(space, Choice):
        *first, last = (flow(value) for value in space.values)
        return f"{', '.join(first)} or {last}"
    step = f", in steps of {space.step:g}" if space.step is not None and (not space.integer or space.step > 1) else ""
    kind = " (whole numbers)" if space.integer and not step else ""
    return f"{space.low:g} to {space.high:g}{kind}{step}{', logarithmic' if space.log else ''}"
