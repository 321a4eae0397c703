"""``trainkit train`` and ``trainkit resume``: from a config to a run folder with a trained, scored, exported model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from trainkit.builders import (
    Setup,
    check_rules,
    describe_ema,
    describe_frozen,
    describe_muon,
    describe_others,
    freezes_random_weights,
    frozen_epochs,
    load_data,
    load_source,
    on_features,
)
from trainkit.checkpoints import CheckpointFolder
from trainkit.config import LoadedConfig, load_config
from trainkit.data.cache import cache_root
from trainkit.engine import Batches, Checkpointer, Outcome, Recorder, TrainState, fit
from trainkit.plugins import command
from trainkit.recorders import TextLog
from trainkit.runtime import Ranks, noting_nondeterminism
from trainkit.system import CpuTime, Frontend, RunDir, create_run, launched, newest_run
from trainkit.workflows.check.problems import located, problems_of
from trainkit.workflows.check.run import run_checks, training_notes
from trainkit.workflows.ranks import stop_together
from trainkit.workflows.report import measure_facts
from trainkit.workflows.samples import samples_to_keep
from trainkit.workflows.train import changes
from trainkit.workflows.train import resume_point as resuming
from trainkit.workflows.train.failures import explained, preparing, recorded
from trainkit.workflows.train.finish import TrainResult, finish
from trainkit.workflows.train.ranks import Nothing, hear, tell
from trainkit.workflows.train.recording import (
    RunCheckpointer,
    describe_machine,
    describe_plugins,
    description,
    open_recorder,
    origins_of,
    shown_by,
    write_config_files,
)


def train(
    config: LoadedConfig | str | Path,
    *,
    overrides: Sequence[str] = (),
    runs_dir: str | Path = "runs",
    resume: str | Path | Literal["auto"] | None = None,
    init_from: str | Path | None = None,
    allow_change: Sequence[str] = (),
    ranks: Ranks | None = None,
    frontend: Frontend | None = None,
) -> TrainResult | None:
    """Train the model of a config, in a new run folder under ``runs_dir``; None in all processes but the first.

    The other arguments are those of ``trainkit.train``; ``ranks`` are the processes that share the run.

    Raises:
        UserError: the config, the data or the checkpoint are wrong; nothing was written.
        Interrupted: a signal asked for a stop; the state is saved.
        TrainkitError: the run failed; its checkpoints are intact.
    """
    frontend, ranks = frontend or Frontend(), ranks or Ranks()
    if not ranks.is_first:
        follow(ranks, frontend=frontend)
        return None
    runs_dir = Path(runs_dir)
    loaded = config if isinstance(config, LoadedConfig) else load_config(config, overrides=overrides)
    alone: AbstractContextManager[None] = nullcontext()
    if resume == "auto":
        newest = newest_run(runs_dir, config_hash=changes.config_hash(loaded.resolved()))
        run = resuming.unfinished_run(loaded, runs_dir=runs_dir)
        if run is not None:
            return continue_run(run, loaded, allow_change=allow_change, ranks=ranks, frontend=frontend)
        frontend.say(f"{runs_dir}: no unfinished run of this config, so a new one starts")
        alone, resume = resuming.only_one(loaded, runs_dir=runs_dir, newest=newest), None
    epochs = loaded.config.training.epochs
    point, weights = resuming.find_start(resume, init_from, epochs=epochs, runs_dir=runs_dir, frontend=frontend)
    tell(ranks, loaded, point, weights=weights, allow_change=allow_change)
    prepared = prepare(loaded, point, runs_dir=runs_dir, allow_change=allow_change, ranks=ranks, frontend=frontend)
    setup = prepared.setup
    if point is None and weights is None and freezes_random_weights(setup.config, setup.model, setup.frozen):
        frontend.say("note: the frozen weights are random; --init-from FILE begins with trained ones")
    if weights is not None:
        resuming.start_from_weights(prepared.state, weights, frontend=frontend)
    with alone:
        run = create_run(runs_dir, loaded.name, now=datetime.now())
        with run.locked(), recorded(run, frontend):
            if point is not None:
                resuming.copy_history(run, point, keep_last=loaded.config.checkpoint.keep_last)
                frontend.say(f"going on from {point.checkpoint}, after step {prepared.steps_completed}")
            # A run that starts from a weights file saves its first state: that file may change later.
            return run_training(run, loaded, prepared, save_first=init_from is not None, frontend=frontend)


def resume(
    given: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    unset: Sequence[str] = (),
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    allow_change: Sequence[str] = (),
    ranks: Ranks | None = None,
    frontend: Frontend | None = None,
) -> TrainResult | None:
    """Go on with a run in its own folder; None where it is finished and nothing is left to do.

    None in all processes but the first too. The arguments are those of ``trainkit.resume``, and ``ranks``.

    Raises:
        as ``train``.
    """
    frontend, ranks = frontend or Frontend(), ranks or Ranks()
    if not ranks.is_first:
        follow(ranks, frontend=frontend)
        return None
    run = resuming.find_unfinished(given, runs_dir=Path(runs_dir))
    loaded = load_config(run.resolved_config, overrides=overrides, unset=unset)
    loaded = loaded.at_data_root(data_root)
    done = resuming.why_finished(run, loaded, allowed=allow_change)
    if done is not None:
        frontend.say(done)
        return None
    return continue_run(run, loaded, allow_change=allow_change, ranks=ranks, frontend=frontend)


def continue_run(
    run: RunDir, loaded: LoadedConfig, *, allow_change: Sequence[str], ranks: Ranks, frontend: Frontend
) -> TrainResult:
    """Go on from the newest good checkpoint of a run, in its folder."""
    with run.locked():
        point = resuming.resume_point(run, frontend=frontend)
        tell(ranks, loaded, point, allow_change=allow_change)
        prepared = prepare(loaded, point, runs_dir=run.path, allow_change=allow_change, ranks=ranks, frontend=frontend)
        source, where = None, "from the start: it has no checkpoint yet"
        if point is not None:
            source = point.checkpoint
            where = f"from {source.name}, after step {prepared.steps_completed}"
        frontend.say(f"going on with {run.path} {where}")
        with recorded(run, frontend):
            return run_training(run, loaded, prepared, source=source, frontend=frontend)


def follow(ranks: Ranks, *, frontend: Frontend) -> None:
    """Take part in the run that rank 0 tells of, and write nothing.

    Raises:
        as ``train``.
    """
    loaded, point, start = hear(ranks)
    prepared = prepare(loaded, point, runs_dir=Path(), allow_change=start.allow_change, ranks=ranks, frontend=frontend)
    if start.weights is not None:
        resuming.start_from_weights(prepared.state, Path(start.weights), frontend=frontend)
    if run_loop(prepared, Nothing(), Nothing(), display=None, frontend=frontend) == "interrupted":
        raise frontend.stop.error("rank 0 has saved the state")


@dataclass(frozen=True)
class Prepared:
    """A run with its data in memory, at its start or at a checkpoint. Nothing is written yet."""

    setup: Setup
    batches: Batches
    """Of training."""
    state: TrainState
    samples: dict[str, Any] | None
    """For the checkpoints, so that an export needs no data."""

    @property
    def steps_completed(self) -> int:
        return self.state.progress.steps_completed


def prepare(
    loaded: LoadedConfig,
    point: resuming.ResumePoint | None,
    *,
    runs_dir: Path,
    allow_change: Sequence[str],
    ranks: Ranks,
    frontend: Frontend,
) -> Prepared:
    """Check the config, put the run together, and load the state of a checkpoint where there is one."""
    notes: list[str] = []
    saved = None if point is None else point.saved
    if point is not None:
        changes.check_optimizer(point.saved, loaded.resolved())
        notes = changes.check_changes(point.saved, loaded.resolved(), allowed=allow_change, accepted=point.accepted)
    since = CpuTime.now()
    preprocessing = None if saved is None else saved["preprocessing"]
    load = partial(load_source, loaded.config, cache_dir=cache_root(), should_stop=frontend.stop, stored=preprocessing)
    with located(loaded), preparing(frontend.stop):
        checked = run_checks(loaded, load=load, runs_dir=runs_dir, stored=saved, frontend=frontend)
        with problems_of("dataset"):
            data, files = load_data(loaded.config, source=checked.source, stored=preprocessing, frontend=frontend)
        check_rules(loaded.config, data, where=loaded.where, materialized=True)  # unreadable files are left out now
        setup = replace(checked.setup.on(data, files), ranks=ranks)
        if point is None:
            setup.suit_weights()
        batches = setup.batches("train", training=True)
        state = setup.state(steps_per_epoch=batches.batches_per_epoch)
    if point is not None:
        resuming.load_state(state, point, data=setup.data)
        notes += changes.schedule_changes(point.saved, state, steps_per_epoch=batches.batches_per_epoch)
        notes += changes.plugin_changes(point.saved, describe_plugins(loaded))
        notes += changes.environment_changes(point.saved, setup.choices, loaded.resolved()["training"])
    if classes := setup.data.describe_classes():
        frontend.say(f"classes: {classes}")
    notes += training_notes(loaded.config, setup.model, checked.sizes)
    for note in (*setup.data.notes, *notes):
        frontend.say(f"note: {note}")
    for plugin in describe_plugins(loaded):
        frontend.say(f"plug-in: {plugin['name']} {plugin['version']}".rstrip() + f" (SHA-256 {plugin['sha256'][:12]})")
    for name, choice in setup.choices.items():
        frontend.say(f"{name}: {choice.value} ({choice.reason})")
    if frozen := describe_frozen(loaded.config, setup.model, setup.frozen):
        frontend.say(f"fine_tuning: {frozen}")
    for line in (describe_ema(loaded.config, state.ema), describe_muon(loaded.config, setup.model)):
        if line is not None:
            frontend.say(line)
    if busy := describe_others(since, setup.choices):
        frontend.say(f"note: {busy}")
    if not ranks.exact:
        frontend.say("distributed.reduce: fast: close to the result of one process, and not the same bits")
    frontend.say(f"data: {setup.residency.value} ({setup.residency.reason})")
    return Prepared(setup, batches, state, samples_to_keep(setup, checked.source))


def run_training(
    run: RunDir,
    loaded: LoadedConfig,
    prepared: Prepared,
    *,
    source: Path | None = None,
    save_first: bool = False,
    frontend: Frontend,
) -> TrainResult:
    """Train, then score, export and report: all that writes into the run folder.

    Args:
        source: the checkpoint of this folder that the run resumes from; it is not deleted.
        save_first: save the state before the first step too.
    """
    setup, state = prepared.setup, prepared.state
    # A part that was killed left no time in run.json, but some in its checkpoints.
    before = max(run.seconds, state.progress.seconds)
    started = time.monotonic() - before
    log = TextLog(run.log)
    frontend = replace(frontend, say=log.tee(frontend.say))
    frontend.say(f"run: {run.path}")
    if setup.config.training.mix is not None and setup.config.training.mix.p > 0:
        frontend.say("mix: training accuracy is against the class with the larger share of a mixed sample")
    launched.say_run(run.path)
    write_config_files(run, loaded, setup)
    described = description(loaded, setup)
    run.update_info(
        **describe_machine(),
        **described,
        status="running",
        monitor=setup.monitor,
        lr_scales=sorted({group.get("lr_scale", 1.0) for group in state.optimizer.param_groups}),
        facts=measure_facts(setup),
        origins=origins_of(loaded, known=run.read_info().get("origins", {})),
        config_hash=changes.config_hash(loaded.resolved()),
        resumed_at_step=prepared.steps_completed,
        seconds=round(before, 2),
    )
    checkpointer = RunCheckpointer(
        CheckpointFolder(run.checkpoints),
        {**described, "samples": prepared.samples},
        monitor=setup.monitor,
        keep_last=loaded.config.checkpoint.keep_last,
        protect=[] if source is None else [source],
    )
    # What a run begins with from a file of weights needs that file no more once it is saved.
    if save_first or (setup.pin is not None and prepared.steps_completed == 0):
        checkpointer.save(state.state_dict(), metrics={}, best=False)
    display = (
        None if frontend.make_display is None else frontend.make_display(setup, prepared.batches.batches_per_epoch)
    )
    recorder = open_recorder(run, setup, prepared.batches, state.progress, log, display=display, frontend=frontend)
    try:
        outcome = run_loop(prepared, recorder, checkpointer, display=display, frontend=frontend)
    finally:
        recorder.close()
    if outcome == "interrupted":
        raise frontend.stop.error(
            f"the state is saved; to go on: {command()} resume {run.path}{launched.as_option()}; "
            f"for a report so far: {command()} report {run.path}"
        )
    setup = replace(setup, ranks=Ranks())  # the others have done their part
    return finish(run, setup, state, checkpointer.folder, outcome=outcome, started=started, frontend=frontend)


def run_loop(
    prepared: Prepared, recorder: Recorder, checkpointer: Checkpointer, *, display: Any, frontend: Frontend
) -> Outcome:
    """Run the training loop. The state is saved when it ends."""
    setup, state = prepared.setup, prepared.state
    on_device = setup.device.type != "cpu" and setup.residency.value == "device"
    size = setup.config.training.batch_size
    with explained(batch_size=size, data_on_device=on_device), noting_nondeterminism(frontend.say):
        for part, train, epochs in stretches(prepared, frontend):
            val = part.batches("val") if "val" in part.data.splits else None
            outcome = fit(
                state,
                replace(part.plan(say=frontend.say), epochs=epochs),
                train=shown_by(display, "train", train, state.progress),
                val=None if val is None else shown_by(display, "val", val, state.progress),
                recorder=recorder,
                checkpointer=checkpointer,
                should_stop=stop_together(setup.ranks, frontend),
            )
            if outcome != "finished":
                break
    return outcome


def stretches(prepared: Prepared, frontend: Frontend) -> Iterator[tuple[Setup, Batches, int]]:
    """What the loop runs on, and up to which epoch: the features of a frozen backbone, then the samples themselves."""
    setup, state, batches = prepared.setup, prepared.state, prepared.batches
    features = setup.choices.get("cache_features")
    if features is not None and features.value == "true" and state.freezing is not None:
        epochs = frozen_epochs(setup, state.freezing, steps_per_epoch=batches.batches_per_epoch)
        if state.progress.epochs_completed < epochs:
            part = on_features(setup, cache_dir=cache_root(), frontend=frontend)
            yield part, part.batches("train", training=True), epochs
    yield setup, batches, setup.config.training.epochs
