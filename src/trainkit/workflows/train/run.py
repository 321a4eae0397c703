"""``trainkit train`` and ``trainkit resume``: from a config to a run folder with a trained, scored, exported model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from trainkit.builders import Setup, check_rules, load_data, load_source, located
from trainkit.checkpoints import CheckpointFolder, check_fits
from trainkit.config import LoadedConfig, load_config
from trainkit.data.cache import cache_root
from trainkit.engine import Batches, Outcome, TrainState, compiled, fit
from trainkit.errors import Interrupted, TrainkitError
from trainkit.recorders import Fanout, JsonLines, TextLog
from trainkit.system import Frontend, RunDir, StopRequest, create_run
from trainkit.workflows.check.run import run_checks
from trainkit.workflows.report import measure_facts, report_failure, report_training
from trainkit.workflows.train import resume_point as resuming
from trainkit.workflows.train.failures import explained
from trainkit.workflows.train.finish import TrainResult, finish, unfinished
from trainkit.workflows.train.run_info import (
    RunCheckpointer,
    describe_machine,
    description,
    origins_of,
    write_config_files,
)
from trainkit.workflows.train.tracking import build_trackers
from trainkit.workflows.train.warm_start import environment_changes, schedule_changes, start_from_weights


def train(
    config: LoadedConfig | str | Path,
    *,
    overrides: Sequence[str] = (),
    runs_dir: Path = Path("runs"),
    resume: Path | Literal["auto"] | None = None,
    init_from: Path | None = None,
    allow_change: Sequence[str] = (),
    frontend: Frontend | None = None,
) -> TrainResult:
    """Train what the config describes, in a new run folder under ``runs_dir``.

    Args:
        config: a config file, or one that is loaded already.
        overrides: changes to a config file: ``optimizer.lr=0.1``.
        resume: a checkpoint whose run is taken further, in a new folder that begins with its history; or ``auto``: go
            on with the newest unfinished run of this config, in its own folder, where there is one.
        init_from: weights to start from: a checkpoint, a state_dict or a safetensors file.
        allow_change: config keys that may differ from the checkpoint's although they change the result.

    Raises:
        UserError: the config, the data or the checkpoint are wrong; nothing was written.
        Interrupted: a signal asked for a stop; the state is saved.
        TrainkitError: the run failed; what was saved before is intact.
    """
    frontend = frontend or Frontend()
    loaded = config if isinstance(config, LoadedConfig) else load_config(config, overrides=overrides)
    if resume == "auto":
        run = resuming.unfinished_run(loaded, runs_dir=runs_dir)
        if run is not None:
            return continue_run(run, loaded, allow_change=allow_change, frontend=frontend)
        frontend.say(f"{runs_dir}: no unfinished run of this config, so a new one starts")
        resume = None
    point = None if resume is None else resuming.point_at(resume, say=frontend.say)
    prepared = prepare(loaded, point, runs_dir=runs_dir, allow_change=allow_change, frontend=frontend)
    if init_from is not None:
        start_from_weights(prepared.state, init_from, say=frontend.say)
    run = create_run(runs_dir, loaded.name, now=datetime.now())
    with run.locked(), recorded(run, frontend):
        if point is not None:
            resuming.copy_history(run, point, keep_last=loaded.config.checkpoint.keep_last)
            frontend.say(f"going on from {point.checkpoint}, after step {prepared.steps_completed}")
        # A run that starts from a weights file saves its first state: that file may change later.
        return run_training(run, loaded, prepared, save_first=init_from is not None, frontend=frontend)


def resume(
    given: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    unset: Sequence[str] = (),
    runs_dir: Path = Path("runs"),
    allow_change: Sequence[str] = (),
    frontend: Frontend | None = None,
) -> TrainResult | None:
    """Go on with a run in its own folder; None where it is finished and nothing is left to do.

    Args:
        given: a run folder; None for the newest unfinished run under ``runs_dir``.
        overrides: changes to the run's config, such as ``training.epochs=20`` for a finished run.
        allow_change: config keys that may differ although they change the result.

    Raises:
        as ``train``.
    """
    frontend = frontend or Frontend()
    run = resuming.find_unfinished(given, runs_dir=runs_dir)
    loaded = load_config(run.resolved_config, overrides=overrides, unset=unset)
    done = resuming.why_finished(run, loaded, allowed=allow_change)
    if done is not None:
        frontend.say(done)
        return None
    return continue_run(run, loaded, allow_change=allow_change, frontend=frontend)


def continue_run(run: RunDir, loaded: LoadedConfig, *, allow_change: Sequence[str], frontend: Frontend) -> TrainResult:
    """Go on from the newest good checkpoint of a run, in its folder."""
    with run.locked():
        point = resuming.resume_point(run, say=frontend.say)
        prepared = prepare(loaded, point, runs_dir=run.path, allow_change=allow_change, frontend=frontend)
        where = "from the start: it has no checkpoint yet"
        if point is not None:
            where = f"from {point.checkpoint.name}, after step {prepared.steps_completed}"
        frontend.say(f"going on with {run.path} {where}")
        with recorded(run, frontend):
            source = None if point is None else point.checkpoint
            return run_training(run, loaded, prepared, source=source, frontend=frontend)


@dataclass(frozen=True)
class Prepared:
    """A run with its data in memory, at its start or where a checkpoint was taken. Nothing is written yet."""

    setup: Setup
    batches: Batches
    """Of training."""
    state: TrainState

    @property
    def steps_completed(self) -> int:
        return self.state.progress.steps_completed


def prepare(
    loaded: LoadedConfig,
    point: resuming.ResumePoint | None,
    *,
    runs_dir: Path,
    allow_change: Sequence[str],
    frontend: Frontend,
) -> Prepared:
    """Check the config, put the run together, and take over the state of a checkpoint where there is one."""
    notes: list[str] = []
    saved = None if point is None else point.saved
    if point is not None:
        resuming.check_optimizer(point.saved, loaded.resolved())
        notes = resuming.check_changes(point.saved, loaded.resolved(), allowed=allow_change, accepted=point.accepted)
    load = partial(load_source, loaded.config, cache_dir=cache_root(), should_stop=frontend.stop)
    with located(loaded), preparing(frontend.stop):
        checked = run_checks(loaded, load=load, runs_dir=runs_dir, stored=saved)
        data, files = load_data(loaded.config, source=checked.source, frontend=frontend)
        check_rules(loaded.config, data, where=loaded.where, materialized=True)  # unreadable files were left out
        setup = checked.setup.on(data, files)
        batches = setup.batches("train", training=True)
        state = setup.state(steps_per_epoch=batches.batches_per_epoch)
    if point is not None and saved is not None:
        resuming.check_data(saved, setup.data.fingerprint)
        check_fits(saved["model"], setup.model)
        state.load_state_dict(saved)
        if point.best_is_lost:
            state.best.value = state.best.epoch = None
        notes += schedule_changes(saved, state, steps_per_epoch=batches.batches_per_epoch)
        notes += environment_changes(saved, setup.choices)
    for note in (*setup.data.notes, *notes):
        frontend.say(f"note: {note}")
    for name, choice in setup.choices.items():
        frontend.say(f"{name}: {choice.value} ({choice.reason})")
    frontend.say(f"data: {batches.residency} ({batches.residency_reason})")
    return Prepared(setup, batches, state)


@contextmanager
def preparing(stop: StopRequest) -> Iterator[None]:
    """A stop before the first step ends with the exit code of its signal; nothing was written but the cache."""
    try:
        yield
    except Interrupted as error:
        if not stop():
            raise
        raise stop.error(f"{str(error).removeprefix('stopped ')}; no step was taken") from error
    if stop():
        raise stop.error("before the first step; nothing was written")


@contextmanager
def recorded(run: RunDir, frontend: Frontend) -> Iterator[None]:
    """Write into run.json how the run ended, whichever way."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        with suppress(TrainkitError):
            run.update_info(status="interrupted" if interrupted else f"failed: {error}")
        if not interrupted:
            report = report_failure(run, frontend=frontend)
            for finding in () if report is None else report.findings:
                frontend.say(f"finding: {finding.title}. {finding.evidence}")
        raise


def run_training(
    run: RunDir,
    loaded: LoadedConfig,
    prepared: Prepared,
    *,
    source: Path | None = None,
    save_first: bool = False,
    frontend: Frontend,
) -> TrainResult:
    """Train from the prepared state on, then score, export and report: everything that writes into the run folder.

    Args:
        source: the checkpoint of this folder that the run goes on from; it is not deleted.
        save_first: save the state before the first step too.
    """
    started = time.monotonic()
    setup, state = prepared.setup, prepared.state
    log = TextLog(run.log)
    frontend = replace(frontend, say=log.tee(frontend.say))
    frontend.say(f"run: {run.path}")
    write_config_files(run, loaded)
    described = description(loaded, setup)
    run.update_info(
        **describe_machine(),
        **described,
        status="running",
        monitor=setup.monitor,
        facts=measure_facts(setup),
        origins=origins_of(loaded, known=run.read_info().get("origins", {})),
        config_hash=resuming.config_hash(loaded.resolved()),
        resumed_at_step=prepared.steps_completed,
    )
    checkpointer = RunCheckpointer(
        CheckpointFolder(run.checkpoints),
        described,
        monitor=setup.monitor,
        keep_last=loaded.config.checkpoint.keep_last,
        protect=[] if source is None else [source],
    )
    if save_first:
        checkpointer.save(state.state_dict(), metrics={}, best=False)
    outcome = run_loop(run, prepared, checkpointer, frontend, log)
    result = finish(run, setup, state, checkpointer.folder, outcome=outcome, started=started, frontend=frontend)
    report = report_training(run, setup, frontend=frontend)
    if report is None:
        frontend.check(unfinished(run))
    return replace(result, report=report)


def run_loop(
    run: RunDir, prepared: Prepared, checkpointer: RunCheckpointer, frontend: Frontend, log: TextLog
) -> Outcome:
    """The engine with its collaborators. Raises Interrupted after a stop, the state saved."""
    setup, state, batches = prepared.setup, prepared.state, prepared.batches
    progress, spec = state.progress, setup.config.training
    lines = JsonLines(run.metrics)
    lines.truncate_after(progress.steps_completed, epochs=progress.epochs_completed)
    display = [] if frontend.make_display is None else [frontend.make_display(setup, batches.batches_per_epoch)]
    trackers = build_trackers(run, setup, batches, step=progress.steps_completed, say=frontend.say)
    recorder = Fanout(lines, [log, *display, *trackers], warn=frontend.say)
    try:
        with explained(batch_size=spec.batch_size):
            outcome = fit(
                state,
                setup.plan(compiled(setup.model, spec.compile, say=frontend.say)),
                train=batches,
                val=setup.batches("val") if "val" in setup.data.splits else None,
                recorder=recorder,
                checkpointer=checkpointer,
                should_stop=frontend.stop,
            )
    finally:
        recorder.close()
    if outcome == "interrupted":
        raise frontend.stop.error(
            f"the state is saved; to go on: trainkit resume {run.path}; for a report so far: trainkit report {run.path}"
        )
    return outcome
