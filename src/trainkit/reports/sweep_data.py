"""What a sweep has found, as plain values for its page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainkit.recorders import metric_text


@dataclass(frozen=True)
class Searched:
    """A config path that a sweep searches."""

    key: str
    logarithmic: bool = False
    names: Sequence[str] = ()
    """Of the values of a choice; empty for numbers."""

    def at(self, value: Any) -> float:
        """Where a value of a trial lies: itself, its logarithm, or its place among the choices."""
        return math.log10(value) if self.logarithmic else float(value)

    def text(self, value: Any) -> str:
        return self.names[value] if self.names else f"{value:.4g}"


@dataclass(frozen=True)
class SweptTrial:
    """A trial. ``values`` are numbers; of a choice, the place of the value among the choices."""

    number: int
    state: str
    values: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    """The objective by epoch."""
    seconds: float = 0.0
    reason: str = ""
    """Why it failed."""
    page: str | None = None
    """Its report, relative to the sweep's."""


@dataclass(frozen=True)
class Confirmed:
    """A trial that was trained again with other seeds."""

    number: int
    scores: Sequence[float]
    mean: float
    low: float
    """Of the 95 % interval of the mean."""
    high: float
    verdict: str
    """``best``, ``not to be told apart``, ``worse``."""


@dataclass(frozen=True)
class SweepData:
    """What a sweep has found, as plain values."""

    name: str
    objective: str
    maximize: bool
    searched: Sequence[Searched]
    trials: Sequence[SweptTrial]
    best: int
    """The number of the best trial."""
    best_config: str
    seconds: float
    importance: Mapping[str, float] = field(default_factory=dict)
    """Of each path, as shares; empty where there are too few trials to say."""
    confirmed: Sequence[Confirmed] = ()
    epochs: int = 0
    """Of a trial that is trained to its end."""

    @property
    def scored(self) -> list[SweptTrial]:
        """The trials with a score, the best first."""
        known = [trial for trial in self.trials if trial.score is not None]
        return sorted(known, key=lambda one: (-self.sign * (one.score or 0.0), one.number))

    @property
    def reached(self) -> dict[int, float]:
        """By the number of a trial: its score, or the best that it had when it paused or stopped; the best first."""
        found = {}
        for one in self.trials:
            values = [one.score] if one.score is not None else [y for y in one.curve.values() if math.isfinite(y)]
            if values:
                found[one.number] = max(values) if self.maximize else min(values)
        return dict(sorted(found.items(), key=lambda pair: (-self.sign * pair[1], pair[0])))

    @property
    def known(self) -> list[SweptTrial]:
        """The trials that have reached something, the best first."""
        by_number = {one.number: one for one in self.trials}
        return [by_number[number] for number in self.reached]

    @property
    def sign(self) -> int:
        return 1 if self.maximize else -1

    def text(self, score: float | None) -> str:
        return metric_text(self.objective, score)
