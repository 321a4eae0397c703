"""Running the trials of a study: those that were left behind first, then promoted ones, then new ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner

from trainkit.config import LoadedConfig
from trainkit.errors import ConfigError
from trainkit.plugins import active
from trainkit.recorders import read_json_lines
from trainkit.system import Frontend, RunDir, list_runs
from trainkit.wording import counted, duration, enumerated
from trainkit.workflows.sweep import pruners
from trainkit.workflows.sweep.study import Study, Trial, Watch
from trainkit.workflows.sweep.trials import Event, Slots
from trainkit.workflows.sweep.worker import job_of

_POLL = 0.5
"""Seconds between two looks at the study while nothing happens here."""


@dataclass(frozen=True)
class Plan:
    """What the trials of a study are."""

    count: int | None
    """How many there are at most; None: as many as there is time for."""
    objective: str
    maximize: bool
    propose: Callable[[int, Sequence[Trial]], tuple[Mapping[str, Any], Mapping[str, Any]]]
    """The values of a trial by its number and the trials before it, and what the sampler notes."""
    config: Callable[[Trial], LoadedConfig]
    name: Callable[[Trial], str]
    """Of the run."""
    rungs: Sequence[int] = ()
    reduction: int = 1
    pruner: BasePruner | None = None
    deadline: float = math.inf
    """On the monotonic clock; no trial starts after it."""


@dataclass
class Runner:
    """The trials that this process runs now."""

    study: Study
    plan: Plan
    slots: Slots
    watch: Watch
    folder: Path
    """Of the sweep."""
    frontend: Frontend
    on_change: Callable[[Runner], None] = lambda runner: None
    """Called when something happened, and now and then."""
    on_complete: Callable[[], None] = lambda: None
    mine: dict[int, Trial] = field(default_factory=dict)
    """By slot."""
    reasons: dict[int, str] = field(default_factory=dict)
    """By slot: why a trial is to fail."""
    pruned: set[int] = field(default_factory=set)
    start_seconds: list[float] = field(default_factory=list)
    """How long each process took to start."""

    @property
    def runs_dir(self) -> Path:
        return self.folder / "runs"

    def run(self) -> None:
        """Run trials until none is left.

        Raises:
            Interrupted: a stop was requested; every trial has saved its state.
        """
        while not self.frontend.stop():
            self._fill()
            if not self.mine and not self._others_work():
                return
            self._look(_POLL)
        self.slots.stop()
        while self.mine:
            self._look(1.0)
        raise self.frontend.stop.error("every trial has saved its state")

    def _look(self, seconds: float) -> None:
        for event in self.slots.events(seconds):
            self._handle(event)
        self.watch.beat(self.mine.values())
        self.on_change(self)

    def _others_work(self) -> bool:
        return self.watch.shared and any(one.state == "running" for one in self.study.trials())

    # --- what is next ----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        while self.slots.free and not self.frontend.stop():
            trial = self._next()
            if trial is None:
                return
            self._start(trial)
            self.on_change(self)

    def _next(self) -> Trial | None:
        trials, mine = self.study.trials(), {one.number for one in self.mine.values()}
        for one in trials:
            left = one.state == "running" and one.number not in mine and self.watch.is_dead(one)
            if (one.state == "stopped" or left) and (found := self.study.claim(one)) is not None:
                if left and self.watch.shared and one.host != found.host:
                    self._say(found, f"taken over from {one.host}, which has given no sign of life")
                return found
        if time.monotonic() > self.plan.deadline:
            return self._last(trials)
        more = self.plan.count is None or len(trials) < self.plan.count
        settled = not more and all(one.state not in ("running", "stopped") for one in trials)
        promotion = pruners.next_promotion(
            trials, self.plan.rungs, reduction=self.plan.reduction, maximize=self.plan.maximize, settled=settled
        )
        if promotion is not None:
            return self._promote(*promotion)
        if not more:
            return None
        new = self.study.add()
        if self.plan.count is not None and new.number >= self.plan.count:
            self.study.fail(new, "one more than there are to be: another machine was faster")
            return None
        return new

    def _promote(self, trial: Trial, goal: int | None) -> Trial | None:
        self.study.write(trial.id, target=goal)  # first: from here on it is a trial to go on with
        return self.study.claim(trial)

    def _last(self, trials: Sequence[Trial]) -> Trial | None:
        """After the time of the budget: the best of those that came farthest, where none was trained to its end."""
        if any(one.state in ("complete", "running", "stopped") for one in trials):
            return None
        best = pruners.farthest(trials, maximize=self.plan.maximize)
        return None if best is None else self._promote(best, None)

    def _start(self, trial: Trial) -> None:
        if trial.values.keys() != self.study.distributions.keys():
            if self.plan.rungs:
                self.study.write(trial.id, target=self.plan.rungs[0])
            values, attrs = self.plan.propose(trial.number, self.study.trials()[: trial.number])
            trial = self.study.set_values(trial, values, attrs)
        try:
            loaded = self.plan.config(trial)
        except ConfigError as error:
            problems = "; ".join(f"{one.key}: {one.message}" for one in error.problems)
            self._fail(trial, f"these values do not go together: {problems}")
            return
        name = self.plan.name(trial)
        run = self._run_of(trial)
        if run is not None and run.status() == "finished":
            self._complete(trial)
            return
        slot = self.slots.free[0]
        if run is not None:
            self._say(trial, f"goes on after {counted(trial.epochs, 'epoch')}")
        elif trial.curve:
            self._say(trial, f"starts anew: the run folder that it had on {trial.host} is not here")
        else:
            self._say(trial, "starts")
        job = job_of(
            loaded,
            name=name,
            plugins=tuple(plugin.module for plugin in active()),
            objective=self.plan.objective,
            runs_dir=self.runs_dir,
            run=None if run is None else run.path,
            log=self.folder / "logs" / f"{name}.log",
            trials=self.slots.size,
            device=self.slots.device_of(slot),
        )
        self.slots.start(slot, job)
        self.mine[slot] = trial

    def _run_of(self, trial: Trial) -> RunDir | None:
        name = self.plan.name(trial)
        return next((run for run in list_runs(self.runs_dir) if run.name == name), None)

    # --- what happened ---------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        trial = self.mine[event.slot]
        match event.kind:
            case "started":
                self.start_seconds.append(event.seconds)
            case "epoch":
                self.slots.answer(event.slot, go_on=self._goes_on(event, trial))
            case _:
                del self.mine[event.slot]
                reason, pruned = self.reasons.pop(event.slot, None), event.slot in self.pruned
                self.pruned.discard(event.slot)
                if self.watch.shared and not self.study.owns(trial):
                    self._say(trial, "was taken over by another machine, since this one did not answer in time")
                else:
                    self._end(event, trial, reason, pruned=pruned)

    def _goes_on(self, event: Event, trial: Trial) -> bool:
        """Whether a trial trains after the epoch that it tells of."""
        if self.watch.shared and not self.study.owns(trial):
            return False
        if event.value is None:
            known = enumerated(sorted(event.known))
            self.reasons[event.slot] = f"its epochs have no {self.plan.objective}; they have {known}"
            return False
        trial = self.mine[event.slot] = self.study.report(trial, event.epoch, event.value)
        if self.plan.pruner is not None and pruners.is_pruned(self.study, self.plan.pruner, trial):
            self.pruned.add(event.slot)
            return False
        return trial.target is None or event.epoch < trial.target

    def _end(self, event: Event, trial: Trial, reason: str | None, *, pruned: bool) -> None:
        run = self._run_of(trial)
        if run is not None:
            self.study.write(trial.id, run=run.path.name, seconds=run.seconds)
        if reason is not None:
            self._fail(trial, reason)
        elif event.kind == "complete":
            self._complete(trial)
        elif event.kind == "failed" and not (self.frontend.stop() and event.reason.startswith("killed by")):
            self._fail(trial, event.reason)
        elif pruned:
            self.study.prune(trial)
            self._say(trial, f"pruned after {counted(trial.epochs, 'epoch')}")
        else:
            self.study.release(trial)
            reached = trial.target is not None and trial.epochs >= trial.target
            self._say(trial, f"{'paused' if reached else 'stopped'} after {counted(trial.epochs, 'epoch')}")

    def _complete(self, trial: Trial) -> None:
        run = self._run_of(trial)
        assert run is not None, "a trial that is complete has its run"
        score = score_of(run, self.plan.objective)
        if score is None or not math.isfinite(score):
            self._fail(trial, f"{self.plan.objective} is {'missing' if score is None else score} in {run.path.name}")
            return
        info = run.read_info()
        threads = info.get("choices", {}).get("threads", {}).get("value")
        self.study.write(trial.id, run=run.path.name, seconds=run.seconds, threads=threads)
        self.study.complete(trial, score)
        self.on_complete()
        self._say(trial, f"{self.plan.objective} {score:.6g} in {duration(run.seconds)}")

    def _fail(self, trial: Trial, reason: str) -> None:
        self.study.fail(trial, reason)
        self._say(trial, f"failed: {reason}")

    def _say(self, trial: Trial, message: str) -> None:
        self.frontend.say(f"{self.plan.name(trial)}: {message}")


def score_of(run: RunDir, objective: str) -> float | None:
    """The objective of a run's best checkpoint: as it was scored at the end, or as its epoch had it."""
    info = run.read_info()
    split, _, metric = objective.partition("_")
    scored = info.get("metrics", {}).get(split, {}).get(metric)
    if scored is None:
        records = read_json_lines(run.metrics)
        best = [one for one in records if one.get("type") == "epoch" and one.get("epoch") == info.get("best_epoch")]
        scored = best[-1].get(objective) if best else None
    return None if scored is None else float(scored)
