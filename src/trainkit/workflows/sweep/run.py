"""``trainkit sweep``: search for good settings of a config, on Optuna."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from trainkit.config import LoadedSweep, load_config
from trainkit.config.text import to_yaml
from trainkit.data.dataset import describe_changes
from trainkit.errors import Interrupted, TrainkitError, UserError
from trainkit.plugins import command
from trainkit.system import Frontend, RunDir, durable, locked
from trainkit.wording import by_key, counted
from trainkit.workflows.sweep import confirm as confirming
from trainkit.workflows.sweep import pruners, samplers
from trainkit.workflows.sweep.check import check_sweep, fingerprint_of
from trainkit.workflows.sweep.report import write_report
from trainkit.workflows.sweep.runner import Plan, Runner
from trainkit.workflows.sweep.study import Study, Trial, Watch, open_storage, storage_errors
from trainkit.workflows.sweep.trials import Slots
from trainkit.workflows.train.changes import HARMLESS, is_under

MAY_CHANGE = ("budget", "parallel", "confirm")
"""Sections that a sweep may go on with other values of."""


@dataclass(frozen=True)
class SweepResult:
    """The end of a sweep."""

    folder: Path
    objective: str
    maximize: bool
    trials: list[Trial]
    space: samplers.Space
    best: Trial
    best_config: Path
    seconds: float
    """Of all parts of the sweep on this machine."""
    start_seconds: list[float]
    """How long each trial's process took to start."""
    confirmed: list[confirming.Confirmed]
    """The best mean first; empty without ``confirm``."""
    report: Path
    """The page, ``report.html``."""

    def values(self, trial: Trial) -> dict[str, Any]:
        """The values of a trial as the config has them."""
        return samplers.to_config(self.space, trial.values)

    @property
    def verdict(self) -> str | None:
        """Which of the best trials are told apart by fresh seeds, in a sentence."""
        return confirming.sentence(self.confirmed, self.objective) if self.confirmed else None

    def ranking(self) -> list[Trial]:
        """All trials: by score, then those that have none."""
        scored = top_of(self.trials, len(self.trials), maximize=self.maximize)
        return [*scored, *(one for one in self.trials if one.score is None)]


def sweep(
    loaded: LoadedSweep,
    *,
    sweeps_dir: str | Path = "sweeps",
    storage: str | None = None,
    options: Sequence[str] = (),
    frontend: Frontend | None = None,
    on_change: Callable[[Runner], None] = lambda runner: None,
) -> SweepResult:
    """Run the trials of a sweep, or go on with it, in ``sweeps_dir/NAME``.

    Args:
        storage: the URL of a study that several machines share; None for a journal in the sweep's folder.
        options: of the command, for the message that says how to go on.
        on_change: called when something happened, and now and then.

    Raises:
        ConfigError: of a new sweep: a bound or a choice cannot be trained with; nothing was written.
        UserError: the folder or the study hold another sweep or one on other data, or another process works on it.
        Interrupted: a stop was requested; every trial has saved its state.
        TrainkitError: no trial has a score.
    """
    frontend = frontend or Frontend()
    folder = Path(sweeps_dir) / loaded.name
    spec = loaded.sweep
    slots = Slots(spec.parallel.trials, spec.parallel.devices)
    if (folder / "sweep.yaml").exists():
        data = fingerprint_of(loaded)
    else:
        slots.warm_up()
        data = check_sweep(loaded, sweeps_dir=Path(sweeps_dir), frontend=frontend).base.source.fingerprint
    with held(folder, shared=storage is not None), storage_errors(storage):
        opened = open_storage(storage, folder)
        distributions = samplers.distributions_of(loaded.space)
        study = Study(opened, loaded.name, maximize=loaded.maximize, distributions=distributions)
        check_same(study, loaded, folder)
        check_same_data(study, data, folder)
        durable.write_text(folder / "sweep.yaml", loaded.text)
        frontend.say(f"sweep: {folder}")
        clock = Clock(folder / "sweep.json")
        watch = Watch(study, shared=storage is not None)
        complete = partial(note_best, loaded, study, clock, folder)
        runner = Runner(study, search_of(loaded, clock), slots, watch, folder, frontend, on_change, complete)
        try:
            with slots:
                runner.run()
                confirmed = [] if spec.confirm is None else confirm(loaded, opened, runner)
        except Interrupted as error:
            again = f"{command()} {shlex.join(['sweep', str(loaded.path), *options])}"
            raise frontend.stop.error(f"every trial has saved its state; to go on: {again}") from error
        finally:
            clock.write()
        return result_of(loaded, runner, clock, confirmed)


def confirm(loaded: LoadedSweep, storage: BaseStorage, search: Runner) -> list[confirming.Confirmed]:
    """Train the best trials of a search again, with fresh seeds."""
    spec = loaded.sweep.confirm
    assert spec is not None
    top = top_of(search.study.trials(), spec.top, maximize=loaded.maximize)
    study = Study(storage, f"{loaded.name} confirmed", maximize=loaded.maximize, distributions=confirming.DISTRIBUTIONS)
    plan = confirming.plan_of(loaded, top, study.trials())
    watch = Watch(study, shared=search.watch.shared)
    Runner(study, plan, search.slots, watch, search.folder, search.frontend, search.on_change).run()
    return confirming.compare(study.trials(), maximize=loaded.maximize)


@contextmanager
def held(folder: Path, *, shared: bool) -> Iterator[None]:
    """The folder of a sweep, for this process alone unless several machines share the study.

    Raises:
        RunLocked: another process works on it.
    """
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise durable.WriteError(folder, error) from error
    if shared:  # each trial belongs to one process, and so does its run
        yield
        return
    with locked(folder / ".lock", of=folder, what="on this sweep"):
        yield


def check_same(study: Study, loaded: LoadedSweep, folder: Path) -> None:
    """See that the study is of this sweep.

    Raises:
        UserError: it is of another one.
    """
    mine = {
        "sweep": loaded.sweep.model_dump(mode="json", exclude={*MAY_CHANGE, "config", "name"}),
        "config": {key: value for key, value in by_key(loaded.base.resolved()).items() if not is_under(key, HARMLESS)},
    }
    theirs = json.loads(study.note("sweep", json.dumps(mine)))
    before, now = (by_key(one["sweep"]) | one["config"] for one in (theirs, json.loads(json.dumps(mine))))
    changed = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    if changed:
        # What stands in the sweep's file first: another objective is another checkpoint.monitor too.
        key = min(changed, key=lambda one: (one in mine["config"] or one in theirs["config"], one))
        raise UserError(
            f"{folder}: this sweep began with other settings: {key} was {before.get(key)!r}, and is "
            f"{now.get(key)!r} now; give the new one a name of its own (`name:` in its file), or delete the folder"
        )


def check_same_data(study: Study, fingerprint: Mapping[str, Any], folder: Path) -> None:
    """See that the data are those of the trials before, on whichever machine: their scores are compared.

    Raises:
        UserError: they are others.
    """
    if not fingerprint:  # to be downloaded by the first trial
        return
    if changes := describe_changes(json.loads(study.note("data", json.dumps(fingerprint))), dict(fingerprint)):
        raise UserError(
            f"{folder}: the data are not those that this sweep began with: {'; '.join(changes[:5])}; put them back as "
            "they were, or give the new sweep a name of its own (`name:` in its file)"
        )


class Clock:
    """How long a sweep has run on this machine, over all of its parts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            before = float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            before = 0.0
        self.begun = time.monotonic() - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def write(self) -> None:
        durable.write_json(self.path, {"seconds": round(self.seconds, 2)})


def search_of(loaded: LoadedSweep, clock: Clock) -> Plan:
    """The trials of the search."""
    spec, space = loaded.sweep, loaded.space
    epochs = loaded.base.config.training.epochs
    kind = spec.sampler.type
    count = spec.budget.trials
    if kind == "grid":
        size = samplers.grid_size(space)
        count = size if count is None else min(size, count)

    def propose(number: int, before: Sequence[Trial]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return samplers.propose(
            kind,
            space,
            before,
            number,
            seed=spec.seed,
            maximize=loaded.maximize,
            parallel=any(one.state in ("running", "stopped") for one in before),
            startup=getattr(spec.sampler, "startup", 10),
        )

    return Plan(
        count=count,
        objective=loaded.objective,
        maximize=loaded.maximize,
        propose=propose,
        config=lambda trial: loaded.trial(samplers.to_config(space, trial.values)),
        name=lambda trial: f"{loaded.name}-{trial.number:03d}",
        rungs=pruners.rungs_in(spec, epochs=epochs),
        reduction=getattr(spec.pruner, "reduction", 1),
        pruner=pruners.build_pruner(spec, epochs=epochs),
        deadline=math.inf if spec.budget.minutes is None else clock.begun + 60 * spec.budget.minutes,
    )


def best_of(trials: Sequence[Trial], *, maximize: bool) -> Trial | None:
    """The complete trial with the best score; of equal ones the earlier."""
    return top_of(trials, 1, maximize=maximize)[0] if any(one.score is not None for one in trials) else None


def top_of(trials: Sequence[Trial], count: int, *, maximize: bool) -> list[Trial]:
    """The complete trials with the best scores, the best first."""
    scored = [(one.score, one) for one in trials if one.score is not None]
    return [one for _, one in sorted(scored, key=lambda pair: (-pair[0] if maximize else pair[0], pair[1].number))][
        :count
    ]


def note_best(loaded: LoadedSweep, study: Study, clock: Clock, folder: Path) -> None:
    """Keep best.yaml and the time up to date while the sweep runs."""
    clock.write()
    best = best_of(study.trials(), maximize=loaded.maximize)
    if best is not None:
        write_best(loaded, best, folder)


def write_best(loaded: LoadedSweep, best: Trial, folder: Path) -> Path:
    """The config of the best trial: training on it repeats its score, also where the cores are not shared any more."""
    path, run = folder / "best.yaml", RunDir(folder / "runs" / str(best.run))
    header = (
        f"# Trial {best.number} of the sweep {loaded.name}: {loaded.objective} {best.score:.6g}. To train it again:\n"
        f"#   trainkit train {path}\n"
    )
    if path.exists() and path.read_text(encoding="utf-8").startswith(header):
        return path
    if run.resolved_config.is_file():
        resolved = load_config(run.resolved_config).resolved()
    else:
        resolved = loaded.trial(samplers.to_config(loaded.space, best.values)).resolved()
    resolved["name"] = f"{loaded.name}-best"
    if best.threads is not None:
        resolved["training"]["num_threads"] = best.threads
    durable.write_text(path, header + to_yaml(resolved))
    return path


def result_of(
    loaded: LoadedSweep, runner: Runner, clock: Clock, confirmed: Sequence[confirming.Confirmed]
) -> SweepResult:
    """What a sweep has found. The best trial is the one with the best mean over fresh seeds, where there are such.

    Raises:
        TrainkitError: no trial has a score.
    """
    trials = runner.study.trials()
    best = best_of(trials, maximize=loaded.maximize)
    if best is None:
        failed = [one for one in trials if one.state == "failed"]
        why = f"; {counted(len(failed), 'trial')} failed, the first one: {failed[0].reason}" if failed else ""
        if any(one.state in ("paused", "stopped") for one in trials):
            why += "; raise budget.minutes, and the same command goes on"
        raise TrainkitError(f"{runner.folder}: no trial was trained to its end{why}")
    if confirmed:
        best = trials[confirmed[0].number]
    return SweepResult(
        folder=runner.folder,
        objective=loaded.objective,
        maximize=loaded.maximize,
        trials=trials,
        space=loaded.space,
        best=best,
        best_config=write_best(loaded, best, runner.folder),
        seconds=clock.seconds,
        start_seconds=runner.start_seconds,
        confirmed=list(confirmed),
        report=write_report(
            runner.folder,
            objective=loaded.objective,
            maximize=loaded.maximize,
            space=loaded.space,
            trials=trials,
            confirmed=confirmed,
            best=best,
            epochs=loaded.base.config.training.epochs,
            seconds=clock.seconds,
        ),
    )
