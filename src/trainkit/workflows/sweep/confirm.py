"""``confirm:`` the best trials are trained again with fresh seeds: which are better, and which only had luck.

The best of many scores is too good on average, since it was chosen for being high. Fresh seeds draw new weights, new
orders and new validation splits; those of one seed are the same for all trials, so scores are compared seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from trainkit.config import LoadedConfig, LoadedSweep
from trainkit.evaluation import t_interval
from trainkit.wording import enumerated
from trainkit.workflows.sweep import samplers
from trainkit.workflows.sweep.runner import Plan
from trainkit.workflows.sweep.study import Trial

DISTRIBUTIONS: dict[str, BaseDistribution] = {"trial": IntDistribution(0, 2**31), "seed": IntDistribution(0, 2**62)}


@dataclass(frozen=True)
class Confirmed:
    """A trial of the search that was trained again."""

    number: int
    scores: Mapping[int, float]
    """By seed; one that failed has none."""
    mean: float
    low: float
    high: float
    """The 95 % interval of the mean; NaN with fewer than two scores."""
    difference: tuple[float, float] | None = None
    """The 95 % interval of the mean difference from the best, seed by seed; None for the best itself."""

    @property
    def is_worse(self) -> bool:
        """Whether it is told apart from the best."""
        return self.difference is not None and (self.difference[0] > 0 or self.difference[1] < 0)


def plan_of(loaded: LoadedSweep, top: Sequence[Trial], known: Sequence[Trial]) -> Plan:
    """The runs: each of the trials ``top`` with each seed.

    Args:
        known: those that the study has already.
    """
    spec = loaded.sweep.confirm
    assert spec is not None
    by_number = {one.number: one for one in top}
    seeds = [loaded.base.config.seed + 1 + index for index in range(spec.seeds)]
    wanted = [(one.number, seed) for seed in seeds for one in top]

    def missing(before: Sequence[Trial]) -> list[tuple[int, int]]:
        done = {(one.values.get("trial"), one.values.get("seed")) for one in before}
        return [pair for pair in wanted if pair not in done]

    def propose(number: int, before: Sequence[Trial]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        trial, seed = missing(before)[0]
        return {"trial": trial, "seed": seed}, {}

    def config(one: Trial) -> LoadedConfig:
        searched = by_number[one.values["trial"]]
        found = loaded.trial(samplers.to_config(loaded.space, searched.values))
        return replace(found, config=found.config.model_copy(update={"seed": one.values["seed"]}))

    return Plan(
        count=len(known) + len(missing(known)),
        objective=loaded.objective,
        maximize=loaded.maximize,
        propose=propose,
        config=config,
        name=lambda one: f"{loaded.name}-{one.values.get('trial', 0):03d}-seed{one.values.get('seed', 0)}",
    )


def compare(runs: Sequence[Trial], *, maximize: bool) -> list[Confirmed]:
    """The trials that were trained again, the best mean first."""
    scores: dict[int, dict[int, float]] = {}
    for one in runs:
        if one.score is not None:
            scores.setdefault(one.values["trial"], {})[one.values["seed"]] = one.score
    found = []
    for number, by_seed in scores.items():
        values = list(by_seed.values())
        found.append(
            Confirmed(number, dict(sorted(by_seed.items())), math.fsum(values) / len(values), *t_interval(values))
        )
    found.sort(key=lambda one: (-one.mean if maximize else one.mean, one.number))
    return [found[0], *(replace(one, difference=_difference(one, found[0])) for one in found[1:])] if found else []


def _difference(one: Confirmed, best: Confirmed) -> tuple[float, float]:
    common = [seed for seed in one.scores if seed in best.scores]
    return t_interval([one.scores[seed] - best.scores[seed] for seed in common]) if common else (math.nan, math.nan)


def sentence(found: Sequence[Confirmed], objective: str) -> str:
    """What the fresh seeds say."""
    best, *others = found
    interval = "" if math.isnan(best.low) else f" ({best.low:.4g} to {best.high:.4g})"
    text = f"trial {best.number} has the best mean {objective}, {best.mean:.4g}{interval}"
    worse = [str(one.number) for one in others if one.is_worse]
    alike = [str(one.number) for one in others if not one.is_worse]
    parts = [text]
    if worse:
        parts.append(f"worse, seed by seed: {enumerated(worse)}")
    if alike:
        parts.append(f"not to be told apart from it, so that the difference may be noise: {enumerated(alike)}")
    return "; ".join(parts)
