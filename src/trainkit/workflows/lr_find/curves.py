"""The learning rate in the losses of a rising one: smoothed, and where they fall. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainkit.config.text import flow
from trainkit.errors import TrainkitError

LOWEST, HIGHEST = 1e-7, 10.0
KEY = "optimizer.lr"
BETA = 0.95
"""Of the exponential mean of the losses: a memory of 20 steps, about a decade of learning rates."""
DIVERGED = 4.0
"""The search stops where the smoothed loss is this many times its best, as fastai's does."""
_WARM_UP = 10
"""Steps before the smoothed loss is compared with its best: the first ones depend on a few samples."""
_TOO_LOW = 1e-5
"""Below, next to nothing is learned: the losses there show the level from which they fall, and how batches differ."""
_WINDOW = 20
"""Steps whose mean loss says how far it has fallen."""
_CHANCE = 4.5
"""Standard errors that the loss falls by at least. Of 2,000 simulated curves of noise, one seemed to fall by more."""
_LEAST_FALL = 0.01
"""Of the level from which the loss falls."""
_DONE = 0.02
"""Share of the fall at which the valley begins: in the flat part before it, chance alone would."""


@dataclass
class Smoothed:
    """An exponential mean without a bias to 0 (Kingma and Ba, 2014, section 3), and the best that it has been."""

    total: float = 0.0
    count: int = 0
    best: float = math.inf

    def add(self, loss: float) -> float:
        self.count += 1
        self.total = BETA * self.total + (1 - BETA) * loss
        value = self.total / (1 - BETA**self.count)
        if self.count > _WARM_UP:
            self.best = min(self.best, value)
        return value

    def diverges(self, value: float) -> bool:
        """Whether the last value is far above the best one. A loss of a plug-in may be below 0."""
        return self.count > _WARM_UP and value > self.best + (DIVERGED - 1) * abs(self.best)


@dataclass(frozen=True)
class Curve:
    """The training losses of one seed, one step at each learning rate."""

    seed: int
    steps: int
    """How many there would be if the loss did not diverge."""
    losses: list[float] = field(default_factory=list)
    """Finite ones, up to where they diverge."""

    @property
    def learning_rates(self) -> list[float]:
        return learning_rates(self.steps)[: len(self.losses)]

    @property
    def smoothed(self) -> list[float]:
        mean = Smoothed()
        return [mean.add(loss) for loss in self.losses]

    @property
    def falls_to_the_end(self) -> bool:
        """Whether the loss is lowest at the highest learning rates, and has not risen again there."""
        values, lowest = self.smoothed, min(self.smoothed)
        risen = values[-1] - lowest > (values[_WINDOW] - lowest) / 10
        return len(values) == self.steps and lowest in values[-_WINDOW:] and not risen


@dataclass(frozen=True)
class LrFindResult:
    """The learning rate that the curves of all seeds lead to."""

    lr: float
    """The median of the seeds, with two digits."""
    of_seeds: Sequence[float | None]
    """By curve; None where it leads to none."""
    curves: Sequence[Curve]

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest of the seeds."""
        known = [lr for lr in self.of_seeds if lr is not None]
        return min(known), max(known)

    @property
    def override(self) -> str:
        """What ``--set`` takes: ``optimizer.lr=0.003``."""
        return f"{KEY}={flow(self.lr)}"

    def as_json(self) -> dict[str, Any]:
        described = zip(self.curves, self.of_seeds, strict=True)
        return {
            "lr": self.lr,
            "spread": list(self.spread),
            "override": self.override,
            "seeds": [
                {
                    "seed": curve.seed,
                    "lr": lr,
                    "learning_rates": curve.learning_rates,
                    "losses": curve.losses,
                    "smoothed": curve.smoothed,
                }
                for curve, lr in described
            ],
        }


class NoLearningRate(TrainkitError):
    """The curves lead to no learning rate; the message says why."""


def learning_rates(steps: int) -> list[float]:
    """From 1e-7 to 10, each by the same factor above the one before."""
    ratio = math.log(HIGHEST / LOWEST) / (steps - 1)
    return [LOWEST * math.exp(ratio * step) for step in range(steps)]


def find(curves: Sequence[Curve]) -> LrFindResult:
    """The learning rate from the losses of several seeds.

    Raises:
        NoLearningRate: the loss of most of them does not fall, or is not finite.
    """
    read = [up_to_jump(curve) for curve in curves]
    reasons = [why_none(curve) for curve in read]
    of_seeds = [None if why else valley(curve) for curve, why in zip(read, reasons, strict=True)]
    known = [lr for lr in of_seeds if lr is not None]
    if 2 * len(known) <= len(curves):
        raise NoLearningRate(next(why for why in reasons if why))
    return LrFindResult(float(f"{statistics.median(known):.2g}"), of_seeds, curves)


def up_to_jump(curve: Curve) -> Curve:
    """The curve up to where its loss rises as far above its first level as it has fallen below, and above all chance.

    Behind that it may fall for long again, to the loss of a guess: that of a network with dead units does.
    """
    values = curve.smoothed
    level = [loss for rate, loss in zip(curve.learning_rates, curve.losses, strict=True) if rate < _TOO_LOW]
    if len(level) < 2:
        return curve
    start, spread = statistics.fmean(level), statistics.stdev(level)
    lowest = start
    for step in range(len(level), len(values)):
        lowest = min(lowest, values[step])
        if values[step] - start > max(start - lowest, spread, _LEAST_FALL * abs(start)):
            return replace(curve, losses=curve.losses[:step])
    return curve


def why_none(curve: Curve) -> str | None:
    """Why a curve leads to no learning rate: it is flat, or not finite; None where the loss falls."""
    rates, losses = learning_rates(curve.steps), curve.losses
    level = [loss for rate, loss in zip(rates, losses, strict=False) if rate < _TOO_LOW]
    if len(losses) < len(level) + _WINDOW:
        low = rates[min(len(losses), len(rates) - 1)]
        return (
            f"the loss diverges before it falls: at a learning rate of {low:.2g} it is NaN, infinite or far above "
            "where it began; look at the inputs (transforms: [normalize] or [standardize]) and at the first weights "
            "(model.init)"
        )
    start, spread = statistics.fmean(level), statistics.stdev(level)
    ends = range(len(level) + _WINDOW, len(losses) + 1)
    fall = start - min(statistics.fmean(losses[end - _WINDOW : end]) for end in ends)
    chance = spread * math.sqrt(1 / len(level) + 1 / _WINDOW)
    if fall > _CHANCE * chance and fall > _LEAST_FALL * abs(start):
        return None
    best, moved = start - fall, max(_CHANCE * chance, _LEAST_FALL * abs(start))
    return (
        f"the curve is flat: the mean loss of {_WINDOW} steps is {start:.4g} at first and {best:.4g} at best, and "
        f"chance alone moves it by {moved:.2g}; more --steps, or larger batches, show smaller falls"
    )


def valley(curve: Curve) -> float:
    """The learning rate in the middle of the longest stretch in which the smoothed loss falls.

    This is ``valley`` of fastai (``fastai/callback/schedule.py``), with the flat part in front cut off where the loss
    begins to fall, in place of a tenth of the steps; on the logarithm of the learning rate, as the steps are.
    """
    rates, values = curve.learning_rates, curve.smoothed
    start = statistics.fmean(loss for rate, loss in zip(rates, curve.losses, strict=True) if rate < _TOO_LOW)
    lowest = min(range(_WARM_UP, len(values)), key=values.__getitem__)
    high = start - _DONE * (start - values[lowest])
    first = max((step for step in range(lowest) if values[step] > high), default=0)
    length, end = longest_fall(values[first:])
    begin = first + end - length
    return rates[max(0, begin + length // 2)]


def longest_fall(values: Sequence[float]) -> tuple[int, int]:
    """The number of values in the longest falling subsequence, and the index of its last one."""
    lengths = [1] * len(values)
    for end, value in enumerate(values):
        lengths[end] += max((lengths[before] for before in range(end) if values[before] > value), default=0)
    longest = max(lengths)
    return longest, lengths.index(longest)
