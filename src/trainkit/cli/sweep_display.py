"""The table of a sweep that runs, on a terminal: the best so far, what runs, how much is left."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainkit.cli import console
from trainkit.wording import counted, duration

if TYPE_CHECKING:
    from rich.live import Live

    from trainkit.config import LoadedSweep
    from trainkit.workflows.sweep import Runner, Trial

EVERY = 0.5
"""Seconds between two looks at the study."""
_ENDED = ("complete", "pruned", "failed")
_STATES = ("complete", "running", "paused", "stopped", "pruned", "failed")


@dataclass
class SweepDisplay:
    """Use it as a context manager, and call it when something happened. It shows nothing where there is no terminal."""

    loaded: LoadedSweep
    quiet: bool = False
    live: Live | None = None
    shown: float = -math.inf
    begun: dict[str, float] = field(default_factory=dict)
    """When each study was seen first."""

    def __enter__(self) -> SweepDisplay:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True, highlight=False), transient=True, auto_refresh=False)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            with suppress(OSError):  # the terminal is gone
                self.live.stop()

    def __call__(self, runner: Runner) -> None:
        now = time.monotonic()
        if self.live is None or now - self.shown < EVERY:
            return
        self.shown = now
        trials, epochs = runner.study.trials(), self.loaded.base.config.training.epochs
        begun = self.begun.setdefault(runner.study.name, now)
        state = standing(
            trials,
            count=runner.plan.count,
            maximize=runner.plan.maximize,
            seconds=min(
                time_left(trials, runner.plan.count, epochs=epochs, at_once=runner.slots.size),
                runner.plan.deadline - now,
            ),
        )
        with suppress(OSError):
            self.live.update(self.table(state, trials, epochs=epochs, elapsed=now - begun), refresh=True)

    def table(self, state: str, trials: Sequence[Trial], *, epochs: int, elapsed: float) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        objective = self.loaded.objective
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("trial", "epoch", objective):
            grid.add_column(name, justify="right", min_width=len(name))
        grid.add_column("values", no_wrap=True, overflow="ellipsis")
        for one in trials:
            if one.state == "running":
                value = one.curve.get(one.epochs)
                goal = epochs if one.target is None else one.target
                shown = "-" if value is None else console.number(value)
                grid.add_row(str(one.number), f"{one.epochs}/{goal}", shown, Text(self.values_of(one)))
        return Group(Text(f"{state}; {duration(elapsed)} so far", style="bold"), grid)

    def values_of(self, trial: Trial) -> str:
        """``optimizer sgd, lr 0.0123``; of a trial that is trained again, its number and the seed."""
        from trainkit.workflows.sweep import texts_of

        texts = texts_of(self.loaded.space, trial.values) or {key: str(value) for key, value in trial.values.items()}
        return ", ".join(f"{key.rpartition('.')[2]} {text}" for key, text in texts.items())


def standing(trials: Sequence[Trial], *, count: int | None, maximize: bool, seconds: float) -> str:
    """``12 of 40 trials: 9 complete, 2 running, 1 failed; best 0.972 (trial 3); about 3 min 5 s left``."""
    states = Counter[str](one.state for one in trials)
    ended = sum(states[state] for state in _ENDED)
    total = counted(ended, "trial") if count is None else f"{ended} of {counted(count, 'trial')}"
    parts = [f"{states[state]} {state}" for state in _STATES if states[state]]
    scored = [(one.score, one.number) for one in trials if one.score is not None]
    best = ""
    if scored:
        score, number = min(scored, key=lambda pair: (-pair[0] if maximize else pair[0], pair[1]))
        best = f"; best {console.number(score)} (trial {number})"
    left = f"; about {duration(seconds)} left" if 0 < seconds < math.inf else ""
    return f"{total}{': ' if parts else ''}{', '.join(parts)}{best}{left}"


def time_left(trials: Sequence[Trial], count: int | None, *, epochs: int, at_once: int) -> float:
    """Seconds until the last trial ends, if the others take as long as those that have ended; infinity: unknown."""
    spent = [one.seconds for one in trials if one.state in _ENDED and one.seconds > 0]
    if not spent or count is None:
        return math.inf
    done = sum(1.0 if one.state in _ENDED else min(1.0, one.epochs / epochs) for one in trials)
    return (count - done) * sum(spent) / len(spent) / at_once
