"""``report.html`` and the findings of a run: at the end of training, and again for any run at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trainkit.builders.data import build_static_transforms
from trainkit.builders.model import build_loss_for
from trainkit.builders.setup import Setup
from trainkit.checkpoints.state_dicts import check_fits
from trainkit.data.loading.resident import Batches
from trainkit.data.loading.workers import WorkerBatches
from trainkit.errors import TrainkitError, UserError
from trainkit.evaluation.report import ClassificationReport, build_report
from trainkit.findings.evidence import Evidence, Finding, evidence_from_records
from trainkit.findings.probes import DeadUnits, count_silent_units, facts_before_training
from trainkit.findings.rules import find
from trainkit.models.summary import layer_table
from trainkit.recorders.history import History, history_of
from trainkit.recorders.jsonl import read_json_lines
from trainkit.reports.curves import write_learning_curves
from trainkit.reports.page import build_page
from trainkit.reports.page_data import Evaluated, PageData
from trainkit.system import durable
from trainkit.system.run_folder import RunDir, list_runs
from trainkit.system.signals import StopRequest
from trainkit.workflows.evaluate.run import PREFERRED_SPLITS, look_up, restore_setup
from trainkit.workflows.find import best_of
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
class Probed:
    """The best checkpoint on a split, and how its units fared."""

    evaluated: Evaluated
    dead_units: tuple[DeadUnits, ...]


def measure_facts(setup: Setup) -> dict[str, Any]:
    """What findings need to know of the data, measured before the first step; plain values for run.json."""
    data = setup.data
    return facts_before_training(
        _sample_batches(setup).epoch(0),
        loss=build_loss_for(setup.config, data, device=torch.device("cpu")),
        targets=torch.from_numpy(data.split_targets("train")),
        num_classes=data.num_classes,
        num_samples={name: len(split) for name, split in data.splits.items()},
        feature_names=data.feature_names,
        decoded_while_training=data.parts[data.splits["train"].part].is_files,
    )


def report_training(run: RunDir, setup: Setup, *, stop: StopRequest, say: Callable[[str], None]) -> RunReport | None:
    """Plots and report of a run that has just been scored; ``setup`` holds the best weights.

    What fails here is said in one line and changes nothing about the run.
    """
    try:
        probed = probe_model(setup, _preferred_split(setup), stop=stop)
        return write_report(run, probed=probed, layers=_layers(setup))
    except Exception as error:  # noqa: BLE001  (a tracker never stops training)
        say(f"warning: no report ({type(error).__name__}: {error}); to try again: trainkit report {run.path}")
        return None


def report_failure(run: RunDir, *, say: Callable[[str], None]) -> RunReport | None:
    """The report of a run that has ended before its time, from its records alone; None where that fails too."""
    try:
        return write_report(run, missing="The run did not come to its end, so nothing was scored.")
    except Exception as error:  # noqa: BLE001  (a tracker never stops training)
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
        setup, saved = restore_setup(checkpoint, progress=progress, stop=stop)
        check_fits(scored_weights(saved), setup.model)
        setup.model.load_state_dict(scored_weights(saved))
        probed = probe_model(setup, _preferred_split(setup), stop=stop)
    except TrainkitError as error:
        if stop():
            raise
        say(f"warning: the best checkpoint cannot be scored, so the report goes without: {error}")
        return write_report(run, missing=f"The best checkpoint could not be scored: {error}")
    return write_report(run, probed=probed, layers=_layers(setup))


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


def probe_model(setup: Setup, split: str, *, stop: StopRequest) -> Probed:
    """Score the model as it is on a split, and look at its mistakes and its units.

    Raises:
        TrainkitError: stopped on the way.
    """

    def check() -> None:
        if stop():
            raise stop.error("the report was not written")

    with count_silent_units(setup.model) as dead_units:
        scored = score_and_keep(setup, setup.model, split, should_stop=stop)
        if scored is not None:
            _wake(setup)
    check()
    assert scored is not None, "not stopped, so scored"
    metrics, outputs = scored
    report = build_report(
        outputs,
        setup.data.split_targets(split),
        loss=build_loss_for(setup.config, setup.data, device=outputs.device),
        class_names=setup.data.class_names,
        target_names=setup.data.target_names,
        metrics=metrics,
        seed=setup.config.seed,
        check=check,
    )
    names, images = look_up(setup, split, report)
    return Probed(Evaluated(split, report, names, images), dead_units())


@torch.inference_mode()
def _wake(setup: Setup) -> None:
    """Run training samples through the model: a unit that none of a small split wakes may have its use."""
    setup.model.eval()
    seen = 0
    for batch in _sample_batches(setup).epoch(0):
        setup.model(batch.inputs.to(setup.device))
        seen += len(batch.targets)
        if seen >= _WAKING_SAMPLES:
            break


def _sample_batches(setup: Setup) -> Batches | WorkerBatches:
    """Training samples as the model sees them, without the random transforms; decoded in this process."""
    data = setup.data
    chosen = data.splits["train"]
    part = data.parts[chosen.part]
    common: dict[str, Any] = {
        "steps": setup.steps,
        "batch_size": _SAMPLE_BATCH,
        "shuffle": True,
        "seed": setup.config.seed,
        "random": False,
    }
    if not part.is_files:
        return Batches(part, chosen.indices, residency="host", **common)
    assert data.channels is not None, "images have channels"
    front = build_static_transforms(setup.config)
    return WorkerBatches(part, chosen.indices, channels=data.channels, front=front, **common)


def _preferred_split(setup: Setup) -> str:
    return next(name for name in PREFERRED_SPLITS if name in setup.data.splits)


def write_report(
    run: RunDir,
    *,
    probed: Probed | None = None,
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
    findings = find(evidence_of(info, history, status=status, probed=probed))
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
            evaluated=None if probed is None else probed.evaluated,
            missing=missing,
        )
    )
    path = run.path / "report.html"
    durable.write_text(path, page)
    return RunReport(path, findings, history)


def evidence_of(info: Mapping[str, Any], history: History, *, status: str, probed: Probed | None) -> Evidence:
    """What the findings look at, gathered."""
    evidence = evidence_from_records(info, history, status=status)
    if probed is None:
        return evidence
    evidence = replace(evidence, split=probed.evaluated.split, dead_units=probed.dead_units)
    report = probed.evaluated.report
    if not isinstance(report, ClassificationReport):
        return evidence
    return replace(evidence, class_names=report.class_names, confusion=report.confusion.tolist())


def _layers(setup: Setup) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "type": row.type,
            "output": " × ".join(map(str, row.output_shape)),
            "parameters": row.parameters,
            "multiply_adds": row.multiply_adds,
        }
        for row in layer_table(setup.model, setup.input_shape)
    ]
