"""Learning rates as pure functions of the optimizer steps completed; equal to ``torch.optim.lr_scheduler``'s.

Weight decay and dropout may follow a schedule too: a factor on what the config says.

All lengths are in optimizer steps: ``duration_to_steps`` is where epochs become steps.

A warm-up is PyTorch's ``SequentialLR([LinearLR, main])``: the learning rate rises linearly to the first value of the
main schedule, and the main schedule's own clock (step_size, milestones, T_max) starts when the warm-up
ends. ``cosine`` without T_max, ``one_cycle`` and ``coslog`` take the rest of the run.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainkit.wording import counted

ScheduleType = Literal[
    "constant", "step", "multi_step", "exponential", "cosine", "one_cycle", "coslog", "reduce_on_plateau"
]
FactorType = Literal["constant", "flat_cos"]


@dataclass(frozen=True)
class Schedule:
    """``lr_at(step)`` and ``momentum_at(step)`` are for the step that follows ``step`` completed ones."""

    main_lr: Callable[[int], float]
    main_momentum: Callable[[int], float] | None = None
    warmup_steps: int = 0
    warmup_start_factor: float = 0.01
    weight_decay_factor: Callable[[int], float] | None = None
    """Of the steps completed, on the weight decay of each group; None where nothing moves it."""
    dropout_factor: Callable[[int], float] | None = None
    """Of the steps completed, on the share that each dropout layer drops."""

    def lr_at(self, step: int) -> float:
        """The learning rate after ``step`` completed optimizer steps."""
        if step >= self.warmup_steps:
            return self.main_lr(step - self.warmup_steps)
        start = self.warmup_start_factor
        return self.main_lr(0) * (start + (1 - start) * step / self.warmup_steps)

    def momentum_at(self, step: int) -> float | None:
        """The momentum (or first beta) after ``step`` completed steps; None where the schedule does not move it."""
        if self.main_momentum is None:
            return None
        return self.main_momentum(max(0, step - self.warmup_steps))


def build_schedule(
    type: ScheduleType,
    *,
    base_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    warmup_start_factor: float = 0.01,
    **knobs: Any,
) -> Schedule:
    """The schedule of a run of ``total_steps`` optimizer steps, with PyTorch's names and defaults for its ``knobs``.

    step: step_size (steps), gamma. multi_step: milestones (steps), gamma. exponential: gamma (an epoch).
    cosine: T_max (steps or None), eta_min. one_cycle: pct_start, anneal_strategy, div_factor, final_div_factor,
    cycle_momentum, base_momentum, max_momentum. coslog: cycles. reduce_on_plateau and constant: none;
    ``Plateau`` reduces.

    Raises:
        ValueError: lengths that go beyond the run, milestones that do not rise.
    """
    if warmup_steps >= total_steps:
        raise ValueError(f"the warm-up has {counted(warmup_steps, 'step')}, the run only {total_steps}")
    rest = total_steps - warmup_steps
    momentum = None
    match type:
        case "constant" | "reduce_on_plateau":
            lr = _constant(base_lr, **knobs)
        case "step":
            lr = _step(base_lr, rest, **knobs)
        case "multi_step":
            lr = _multi_step(base_lr, rest, **knobs)
        case "exponential":
            lr = _exponential(base_lr, steps_per_epoch, **knobs)
        case "cosine":
            lr = _cosine(base_lr, rest, **knobs)
        case "one_cycle":
            lr, momentum = _one_cycle(base_lr, rest, **knobs)
        case "coslog":
            lr = _coslog(base_lr, rest, **knobs)
    return Schedule(lr, momentum, warmup_steps, warmup_start_factor)


def build_factor(type: FactorType | None, *, total_steps: int) -> Callable[[int], float] | None:
    """The factor on weight decay or dropout after some completed steps of the run; None where it stays 1.

    flat_cos (RealMLP: Holzmueller et al., 2024): 1 for the first half of the run, then half a cosine wave to 0.
    """
    match type:
        case None | "constant":
            return None
        case "flat_cos":
            return lambda step: (1 + math.cos(math.pi * (max(1.0, 2 * step / total_steps) - 1))) / 2


def duration_to_steps(value: int, unit: str, *, steps_per_epoch: int) -> int:
    """Optimizer steps in a duration of ``epochs`` or ``steps``."""
    match unit:
        case "epochs":
            return value * steps_per_epoch
        case "steps":
            return value
        case _:
            raise ValueError(f"a duration in {unit} has no fixed number of steps")


def _constant(base_lr: float) -> Callable[[int], float]:
    return lambda step: base_lr


def _step(base_lr: float, rest: int, *, step_size: int, gamma: float = 0.1) -> Callable[[int], float]:
    _need_within(step_size, rest, "step_size")
    return lambda step: base_lr * gamma ** (step // step_size)


def _multi_step(base_lr: float, rest: int, *, milestones: Sequence[int], gamma: float = 0.1) -> Callable[[int], float]:
    if any(after <= before for before, after in itertools.pairwise(milestones)):
        raise ValueError(f"milestones must go up, got {list(milestones)}")
    _need_within(milestones[-1], rest, "the last milestone")
    return lambda step: base_lr * gamma ** bisect.bisect_right(milestones, step)


def _exponential(base_lr: float, steps_per_epoch: int, *, gamma: float = 0.95) -> Callable[[int], float]:
    return lambda step: base_lr * gamma ** (step // steps_per_epoch)


def _cosine(base_lr: float, rest: int, *, T_max: int | None = None, eta_min: float = 0.0) -> Callable[[int], float]:
    """Loshchilov and Hutter, 2016. As in PyTorch, the learning rate rises again after T_max steps."""
    length = rest if T_max is None else T_max
    _need_within(length, rest, "T_max")
    return lambda step: eta_min + (base_lr - eta_min) * (1 + math.cos(math.pi * step / length)) / 2


def _coslog(base_lr: float, rest: int, *, cycles: int = 4) -> Callable[[int], float]:
    """Holzmueller et al., 2024 (RealMLP): cosine waves between 0 and ``base_lr``, each twice as long as the one before.

    It begins at 0, and would end there one step after the last.
    """
    return lambda step: base_lr * (1 - math.cos(2 * math.pi * math.log2(1 + (2**cycles - 1) * step / rest))) / 2


def _one_cycle(
    base_lr: float,
    rest: int,
    *,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
) -> tuple[Callable[[int], float], Callable[[int], float] | None]:
    """Smith and Topin, 2017: up to ``base_lr`` (PyTorch's ``max_lr``), then down below where it started."""
    first_lr = base_lr / div_factor
    last_lr = first_lr / final_div_factor
    peak, end = pct_start * rest - 1, rest - 1
    anneal = _anneal_cosine if anneal_strategy == "cos" else _anneal_linear

    def move(step: int, first: float, middle: float, last: float) -> float:
        if step <= peak:
            return anneal(first, middle, step / peak if peak > 0 else 1.0)
        return anneal(middle, last, min(1.0, (step - peak) / (end - peak)))

    def lr(step: int) -> float:
        return move(step, first_lr, base_lr, last_lr)

    def momentum(step: int) -> float:
        return move(step, max_momentum, base_momentum, max_momentum)

    return lr, momentum if cycle_momentum else None


def _anneal_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _anneal_linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


def _need_within(length: int, rest: int, what: str) -> None:
    if length > rest:
        left = counted(rest, "step")
        raise ValueError(f"{what} is {counted(length, 'step')}, longer than the {left} of the run (less its warm-up)")
