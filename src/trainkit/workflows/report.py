"""``report.html`` and the findings of a run: at the end of training, and again for any run at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trainkit import durable
from trainkit.build.data import build_front
from trainkit.build.model import build_loss_for
from trainkit.checkpoints.state_dicts import check_fits
from trainkit.data.batches import Batches
from trainkit.data.workers import WorkerBatches
from trainkit.errors import TrainkitError, UserError
from trainkit.json_lines import read_json_lines
from trainkit.models.shapes import layer_table
from trainkit.reports.curves import write_learning_curves
from trainkit.reports.evaluation import ClassificationReport, build_report
from trainkit.reports.evidence import Evidence, Finding, evidence_from_records
from trainkit.reports.facts import DeadUnits, facts_before_training, watching_units
from trainkit.reports.findings import find
from trainkit.reports.history import History, history_of
from trainkit.reports.page import Evaluated, PageData, build_page
from trainkit.rundir import RunDir, list_runs
from trainkit.signals import StopRequest
from trainkit.workflows.evaluate import PREFERRED_SPLITS, look_up, restore_experiment
from trainkit.workflows.experiment import Experiment
from trainkit.workflows.locate import best_of
from trainkit.workflows.scoring import score_and_keep, scored_weights

_SAMPLE_BATCH = 256
_WAKING_SAMPLES = 1024


@dataclass(frozen=True)
class RunReport:
    """What was written about a run, and what stands out."""

    path: Path
    """``report.html``."""
    findings: list[Finding]
    history: History


@dataclass(frozen=True)
class Examined:
    """The best checkpoint on a split, and how its units fared."""

    evaluated: Evaluated
    dead_units: tuple[DeadUnits, ...]


def measure_facts(experiment: Experiment) -> dict[str, Any]:
    """What findings need to know of the data, measured before the first step; plain values for run.json."""
    data = experiment.data
    return facts_before_training(
        _sample_batches(experiment).epoch(0),
        loss=build_loss_for(experiment.config, data, device=torch.device("cpu")),
        targets=torch.from_numpy(data.split_targets("train")),
        num_classes=data.num_classes,
        num_samples={name: len(split) for name, split in data.splits.items()},
        feature_names=data.feature_names,
        decoded_while_training=data.parts[data.splits["train"].part].is_files,
    )


def report_training(
    run: RunDir, experiment: Experiment, *, stop: StopRequest, say: Callable[[str], None]
) -> RunReport | None:
    """Plots and report of a run that has just been scored; ``experiment`` holds the best weights.

    What fails here is said in one line and changes nothing about the run.
    """
    try:
        examined = examine(experiment, _preferred_split(experiment), stop=stop)
        return write_report(run, examined=examined, layers=_layers(experiment))
    except Exception as error:  # noqa: BLE001  (the run is done and saved: no picture may make it a failure)
        say(f"warning: no report ({type(error).__name__}: {error}); to try again: trainkit report {run.path}")
        return None


def report_failure(run: RunDir, *, say: Callable[[str], None]) -> RunReport | None:
    """The report of a run that has ended before its time, from its records alone; None where that fails too."""
    try:
        return write_report(run, missing="The run did not come to its end, so nothing was scored.")
    except Exception as error:  # noqa: BLE001  (the reason that the run ended is what the user must see)
        say(f"warning: no report ({type(error).__name__}: {error})")
        return None


def make_report(
    given: Path | None = None,
    *,
    runs_dir: Path = Path("runs"),
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] | None = None,
    stop: StopRequest | None = None,
) -> RunReport:
    """Write ``report.html`` and the curves of a run again, its best checkpoint scored anew where there is one.

    Raises:
        UserError: there is no such run.
    """
    stop = StopRequest() if stop is None else stop
    run = find_run(given, runs_dir=runs_dir)
    checkpoint = best_of(run.checkpoints)
    if checkpoint is None:
        return write_report(run, missing="The run has no checkpoint, so nothing was scored.")
    try:
        experiment, saved = restore_experiment(checkpoint, progress=progress, stop=stop)
        check_fits(scored_weights(saved), experiment.model)
        experiment.model.load_state_dict(scored_weights(saved))
        examined = examine(experiment, _preferred_split(experiment), stop=stop)
    except TrainkitError as error:
        if stop():
            raise
        say(f"warning: the best checkpoint cannot be scored, so the report goes without: {error}")
        return write_report(run, missing=f"The best checkpoint could not be scored: {error}")
    return write_report(run, examined=examined, layers=_layers(experiment))


def find_run(given: Path | None, *, runs_dir: Path) -> RunDir:
    """The run of a folder, or of its name under ``runs_dir``; the newest where none is given.

    Raises:
        UserError: there is none.
    """
    if given is None:
        runs = list_runs(runs_dir)
        if not runs:
            raise UserError(f"{runs_dir}: no runs in this folder; train first, or give a run folder")
        return runs[-1]
    for path in (given, runs_dir / given):
        if (path / "run.json").is_file():
            return RunDir(path)
    raise UserError(f"{given}: not a run folder (it has no run.json); `trainkit runs list` shows the runs")


def examine(experiment: Experiment, split: str, *, stop: StopRequest) -> Examined:
    """Score the model as it is on a split, and look at its mistakes and its units.

    Raises:
        TrainkitError: stopped on the way.
    """

    def check() -> None:
        if stop():
            raise stop.error("the report was not written")

    with watching_units(experiment.model) as dead_units:
        scored = score_and_keep(experiment, experiment.model, split, should_stop=stop)
        if scored is not None:
            _wake(experiment)
    check()
    assert scored is not None, "not stopped, so scored"
    metrics, outputs = scored
    report = build_report(
        outputs,
        experiment.data.split_targets(split),
        loss=build_loss_for(experiment.config, experiment.data, device=outputs.device),
        class_names=experiment.data.class_names,
        target_names=experiment.data.target_names,
        metrics=metrics,
        seed=experiment.config.seed,
        check=check,
    )
    names, images = look_up(experiment, split, report)
    return Examined(Evaluated(split, report, names, images), dead_units())


@torch.inference_mode()
def _wake(experiment: Experiment) -> None:
    """Run training samples through the model: a unit that none of a small split wakes may have its use."""
    experiment.model.eval()
    seen = 0
    for batch in _sample_batches(experiment).epoch(0):
        experiment.model(batch.inputs.to(experiment.device))
        seen += len(batch.targets)
        if seen >= _WAKING_SAMPLES:
            break


def _sample_batches(experiment: Experiment) -> Batches | WorkerBatches:
    """Training samples as the model sees them, without the random transforms; decoded in this process."""
    data = experiment.data
    chosen = data.splits["train"]
    part = data.parts[chosen.part]
    common: dict[str, Any] = {
        "steps": experiment.steps,
        "batch_size": _SAMPLE_BATCH,
        "shuffle": True,
        "seed": experiment.config.seed,
        "random": False,
    }
    if not part.is_files:
        return Batches(part, chosen.indices, residency="host", **common)
    assert data.channels is not None, "images have channels"
    front = build_front(experiment.config)
    return WorkerBatches(part, chosen.indices, channels=data.channels, front=front, **common)


def _preferred_split(experiment: Experiment) -> str:
    return next(name for name in PREFERRED_SPLITS if name in experiment.data.splits)


def write_report(
    run: RunDir,
    *,
    examined: Examined | None = None,
    layers: list[dict[str, Any]] | None = None,
    missing: str | None = None,
) -> RunReport:
    """Write ``report.html``, and ``plots/learning_curves.png`` where the config wants plots, from what is known.

    Raises:
        durable.WriteError: a file cannot be written.
    """
    info = run.read_info()
    records = read_json_lines(run.metrics)
    history = history_of(records)
    status = run.status()
    findings = find(evidence_of(info, history, status=status, examined=examined))
    if info.get("config", {}).get("logging", {}).get("plots", True):
        write_learning_curves(run.plots / "learning_curves.png", records, title=run.path.name)
    page = build_page(
        PageData(
            folder=str(run.path),
            info=info,
            status=status,
            history=history,
            findings=findings,
            layers=layers or (),
            evaluated=None if examined is None else examined.evaluated,
            missing=missing,
        )
    )
    path = run.path / "report.html"
    durable.write_text(path, page)
    return RunReport(path, findings, history)


def evidence_of(info: Mapping[str, Any], history: History, *, status: str, examined: Examined | None) -> Evidence:
    """What the findings look at, gathered."""
    evidence = evidence_from_records(info, history, status=status)
    if examined is None:
        return evidence
    evidence = replace(evidence, split=examined.evaluated.split, dead_units=examined.dead_units)
    report = examined.evaluated.report
    if not isinstance(report, ClassificationReport):
        return evidence
    return replace(evidence, class_names=report.class_names, confusion=report.confusion.tolist())


def _layers(experiment: Experiment) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "type": row.type,
            "output": " × ".join(map(str, row.output_shape)),
            "parameters": row.parameters,
            "multiply_adds": row.multiply_adds,
        }
        for row in layer_table(experiment.model, experiment.input_shape)
    ]
