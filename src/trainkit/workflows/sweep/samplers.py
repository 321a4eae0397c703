"""The values of the next trial, a pure function of the sweep's seed, the trial's number and the trials before it.

Optuna's samplers do the work, each time on a copy of the study in memory. So a sweep that was killed goes on with the
values that it would have had, and a trial that is paused counts for the sampler as one that was stopped early.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from trainkit.config import Choice, Range
from trainkit.errors import UserError
from trainkit.runtime import derive_seed
from trainkit.workflows.sweep.study import Trial

Space = Mapping[str, Range | Choice]


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """The search space as Optuna has it."""
    return {key: _distribution(one) for key, one in space.items()}


def _distribution(one: Range | Choice) -> BaseDistribution:
    if isinstance(one, Choice):
        return CategoricalDistribution(list(labels(one)))
    if one.integer:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(float(one.low), float(one.high), log=one.log, step=one.step)


def labels(choice: Choice) -> dict[Any, Any]:
    """What the study stores for each of the values: itself where it is plain, else its JSON."""
    plain = all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in choice.values)
    if plain and len(set(choice.values)) == len(choice.values):
        return {value: value for value in choice.values}
    return {json.dumps(value, sort_keys=True): value for value in choice.values}


def to_config(space: Space, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial as the config has them, from what the study stores."""
    return {
        key: labels(one)[stored[key]] if isinstance(one, Choice) else stored[key]
        for key, one in space.items()
        if key in stored
    }


def grid_size(space: Space) -> int:
    """How many combinations of the values there are.

    Raises:
        UserError: a range has no step.
    """
    return math.prod(len(_steps(key, one)) for key, one in space.items())


def grid_point(space: Space, number: int) -> dict[str, Any]:
    """A combination of the values, as the study stores them: the last key changes first."""
    point = {}
    for key, one in reversed(list(space.items())):
        number, index = divmod(number, len(values := _steps(key, one)))
        point[key] = values[index]
    return {key: point[key] for key in space}


def _steps(key: str, one: Range | Choice) -> Sequence[Any]:
    if isinstance(one, Choice):
        return list(labels(one))
    if one.integer and not one.log:
        return range(int(one.low), int(one.high) + 1, int(one.step or 1))
    if one.step is None:
        raise UserError(f"search.{key}: a grid needs a step, or the values themselves: choice: [...]")
    count = round((one.high - one.low) / one.step) + 1
    return [float(f"{one.low + index * one.step:.12g}") for index in range(count)]  # 0.3, not 0.30000000000000004


def propose(
    kind: str,
    space: Space,
    trials: Sequence[Trial],
    number: int,
    *,
    seed: int,
    maximize: bool,
    parallel: bool = False,
    startup: int = 10,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of trial ``number``, as the study stores them, and what the sampler notes on it.

    Args:
        kind: grid, random, tpe, gp or cmaes.
        trials: those with lower numbers.
        parallel: other trials are running.
        startup: trials with random values at the beginning, of tpe and gp.
    """
    if kind == "grid":
        return grid_point(space, number), {}
    distributions = distributions_of(space)
    before = [] if kind == "random" else trials[:number]
    study = optuna.create_study(
        direction="maximize" if maximize else "minimize",
        sampler=_sampler(kind, seed=derive_seed(seed, "sweep", number) % 2**32, parallel=parallel, startup=startup),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's notes on parts that it calls experimental
        study.add_trials([_for_sampler(one, distributions) for one in before])
        trial = study.ask(distributions)
    return dict(trial.params), dict(study.trials[-1].system_attrs)


def _sampler(kind: str, *, seed: int, parallel: bool, startup: int) -> BaseSampler:
    match kind:
        case "tpe":
            # Several trials at the same time: those that run count as bad ones, so that the next is tried elsewhere.
            return TPESampler(seed=seed, constant_liar=parallel, n_startup_trials=startup)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
        case "cmaes":
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case _:
            return RandomSampler(seed=seed)


def _for_sampler(one: Trial, distributions: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    """A trial as samplers take it: with all its values, or as failed where it has not got them yet."""
    whole = one.values.keys() == distributions.keys()
    state = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(one.state, TrialState.RUNNING)
    if one.state in ("paused", "pruned"):
        state = TrialState.PRUNED
    return create_trial(
        state=state if whole else TrialState.FAIL,
        value=one.score if state == TrialState.COMPLETE else None,
        params=dict(one.values) if whole else {},
        distributions=dict(distributions) if whole else {},
        intermediate_values=dict(one.curve),
        system_attrs=dict(one.attrs),
    )
