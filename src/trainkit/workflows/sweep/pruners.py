"""Which trials stop early, as pure functions of what the study knows of them.

Successive halving is our own: Optuna's decides at a rung whether a trial goes on or ends, since it "does not support
suspending or resuming ongoing trials". Here a trial pauses at a rung, and goes on from its checkpoint when enough
others have come to the rung and it is among the best of them (Li et al., 2020, "A System for Massively Parallel
Hyperparameter Tuning", algorithm 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner

from trainkit.config.schema.base import parse_duration
from trainkit.config.schema.sweep import Asha, Hyperband, Median, Sweep
from trainkit.workflows.sweep.study import Study, Trial


def rungs_of(first: int, reduction: int, *, epochs: int) -> list[int]:
    """The epochs at which trials pause: ``first``, and ``reduction`` times as many at each next one."""
    rungs = []
    while first < epochs:
        rungs.append(first)
        first *= reduction
    return rungs


def next_promotion(
    trials: Sequence[Trial], rungs: Sequence[int], *, reduction: int, maximize: bool, settled: bool
) -> tuple[Trial, int | None] | None:
    """The paused trial to go on with, and where it pauses next (None: it is trained to its end); None: there is none.

    One in ``reduction`` of the trials that have come to a rung goes on, the highest rung first.

    Args:
        settled: no other trial runs or is to come, so that the best of the highest rung goes on, however few there are.
    """
    goals = [*rungs[1:], None]
    for fewest in (0, 1) if settled else (0,):
        for rung, goal in reversed(list(zip(rungs, goals, strict=False))):
            there = [one for one in trials if one.state == "complete" or one.epochs >= rung]
            places = max(len(there) // reduction, fewest)
            for one in ranked(there, rung, maximize=maximize)[:places]:
                if one.state == "paused" and one.target == rung:
                    return one, goal
    return None


def farthest(trials: Sequence[Trial], *, maximize: bool) -> Trial | None:
    """The best of the paused trials at the highest rung."""
    paused = [one for one in trials if one.state == "paused"]
    rung = max((one.target or 0 for one in paused), default=0)
    return ranked([one for one in paused if one.target == rung], rung, maximize=maximize)[0] if paused else None


def ranked(trials: Sequence[Trial], rung: int, *, maximize: bool) -> list[Trial]:
    """The trials of a rung, the best first, without those that failed since; of equal ones the earlier."""

    def order(one: Trial) -> tuple[float, int]:
        value = one.best_until(rung, maximize=maximize)
        return (math.inf if math.isnan(value) else -value if maximize else value), one.number

    return sorted((one for one in trials if one.state != "failed"), key=order)


def build_pruner(sweep: Sweep, *, epochs: int) -> BasePruner | None:
    """Optuna's pruner, which ends trials for good; None where there is none, or trials pause."""
    match sweep.pruner:
        case Median(min=first, startup=startup):
            return MedianPruner(n_startup_trials=startup, n_warmup_steps=parse_duration(first).value - 1)
        case Hyperband(min=first, reduction=reduction):
            return HyperbandPruner(
                min_resource=parse_duration(first).value, max_resource=epochs, reduction_factor=reduction
            )
        case _:
            return None


def rungs_in(sweep: Sweep, *, epochs: int) -> list[int]:
    """Where the trials of a sweep pause."""
    spec = sweep.pruner
    return rungs_of(parse_duration(spec.min).value, spec.reduction, epochs=epochs) if isinstance(spec, Asha) else []


def is_pruned(study: Study, pruner: BasePruner, trial: Trial) -> bool:
    """Whether a trial ends after the epoch that was reported last."""
    known = optuna.load_study(study_name=study.name, storage=study.storage)
    return pruner.prune(known, study.storage.get_trial(trial.id))
