"""The configs of a cross-validation: one for each fold, all checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.builders import check_rules, load_source
from trainkit.config import LoadedConfig, load_config
from trainkit.config.schema.splits import ValTestSplit
from trainkit.data.cache import cache_root
from trainkit.errors import ConfigError, Place, Problem, UserError
from trainkit.system import Frontend
from trainkit.workflows.check.problems import located
from trainkit.workflows.check.run import run_checks
from trainkit.workflows.train.failures import preparing


@dataclass(frozen=True)
class Plan:
    """The runs of a cross-validation."""

    base: LoadedConfig
    """Without a fold."""
    count: int
    """Of folds."""
    fold: Callable[[int], LoadedConfig]
    """The config of a fold's run."""
    group: str | None
    """The column that ``--group`` names."""
    data_root: str | Path | None
    """Where the data are now, in place of the config's."""
    options: Mapping[str, str]
    """The overrides that the options of the command stand for, and the options as typed."""

    @property
    def config(self) -> dict[str, Any]:
        """The base config as plain data, to tell one cross-validation from another."""
        return self.base.resolved()


def make_plan(
    config: str | Path | Mapping[str, Any],
    *,
    folds: int,
    group: str | None,
    overrides: Sequence[str],
    unset: Sequence[str] = (),
    config_dir: str | Path | None = None,
    data_root: str | Path | None,
) -> Plan:
    """Load the config, with and without a fold. The arguments are those of ``trainkit.cross_validate``.

    Raises:
        ConfigError: the config is wrong, or its data cannot be in folds.
        UserError: ``folds`` is no number.
    """
    if not isinstance(folds, int) or isinstance(folds, bool):
        raise UserError(f"folds: expected a whole number of at least 2, got {folds!r}")
    split = [] if group is None else [f"dataset.split={{type: group, column: {json.dumps(group)}}}"]
    options = {f"--set dataset.folds={{count: {folds}, fold: ": f"--folds {folds}"}
    options |= {f"--set {item}": f"--group {group}" for item in split}

    def load(*more: str) -> LoadedConfig:
        given = (*overrides, *split, *more)
        return load_config(config, config_dir=config_dir, overrides=given, unset=unset).at_data_root(data_root)

    with as_typed(options):
        base = load()
        spec = base.config.dataset
        if not isinstance(spec, ValTestSplit):
            message = (
                f"{spec.type} has a test set of its own, which its scores are compared on, so it is not put in folds; "
                "trainkit train scores on that set, and seeds (--set seed=1) show how much the score moves"
            )
            raise ConfigError([base.locate(Problem(message, "dataset.type"))])
        base = replace(base, config=base.config.model_copy(update={"dataset": spec.model_copy(update={"folds": None})}))

    def fold(index: int) -> LoadedConfig:
        with as_typed(options):
            return load(f"dataset.folds={{count: {folds}, fold: {index}}}", f"name={base.name[:56]}_fold{index}")

    fold(0)
    return Plan(base, folds, fold, group, data_root, options)


def check_plan(plan: Plan, *, runs_dir: Path, frontend: Frontend) -> None:
    """All checks of ``trainkit train`` for the first fold; for the others those that depend on the samples.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    for index in range(plan.count):  # more folds than samples are found with the first
        loaded = plan.fold(index)
        load = partial(load_source, loaded.config, cache_dir=cache_root(), should_stop=frontend.stop)
        with as_typed(plan.options), located(loaded), preparing(frontend.stop):
            if index == 0:
                run_checks(loaded, load=load, runs_dir=runs_dir, frontend=frontend)
            else:
                check_rules(loaded.config, load(), where=loaded.where)


@contextmanager
def as_typed(options: Mapping[str, str]) -> Iterator[None]:
    """Let mistakes point to the options that the user typed, not to the overrides that they stand for."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([_retold(problem, options) for problem in error.problems]) from error


def _retold(problem: Problem, options: Mapping[str, str]) -> Problem:
    """With the option for each of its overrides; without them where the mistake is in another key of the section."""
    told = {
        place: next((option for override, option in options.items() if place.file.startswith(override)), None)
        for place in (problem.place, *problem.also)
        if place is not None
    }
    about_options = (problem.key or "").startswith(("dataset.folds", "dataset.split"))
    places = [Place(option) if option else place for place, option in told.items() if about_options or not option]
    places = places or [Place(option) for option in told.values() if option]
    return replace(problem, place=next(iter(places), None), also=tuple(places[1:]))
