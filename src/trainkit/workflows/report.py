"""``report.html`` and the findings of a run: at the end of training, and again for any run at any time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trainkit.builders import Setup, build_loss_for, open_trained
from trainkit.config.schema.transforms import COSTLY
from trainkit.data.loading import ResidentBatches, WorkerBatches
from trainkit.errors import TrainkitError
from trainkit.evaluation import ClassificationReport, RegressionReport
from trainkit.findings import Evidence, Finding, evidence_from_records, find, guessing, may_fall_short
from trainkit.findings.facts import facts_before_training
from trainkit.findings.probes import DeadUnits, SilentUnits
from trainkit.findings.relation import measure_relation
from trainkit.models import layer_table
from trainkit.recorders import History, history_of, read_json_lines
from trainkit.reports import (
    Evaluated,
    PageData,
    SavedFile,
    build_run_page,
    draw_learning_curves,
    draw_predictions,
    save_figure,
    section_type,
)
from trainkit.system import Frontend, RunDir, durable
from trainkit.wording import SPLITS
from trainkit.workflows.evaluate.run import setup_on_data
from trainkit.workflows.find import best_of, find_run
from trainkit.workflows.scoring import look_up_mistakes, preferred_split, report_on, score_and_keep

_SAMPLE_BATCH = 256
_MIN_PROBED, _MAX_PROBED = 64, 1024
_SCORED = 'href="#network"'
"""In each page, and in those alone, for which a checkpoint was opened and scored."""


@dataclass(frozen=True)
class RunReport:
    """The report of a run, with its findings."""

    path: Path
    """``report.html``."""
    findings: list[Finding]
    history: History


@dataclass(frozen=True)
class Probed:
    """The scores of the best checkpoint on a split, and its dead units."""

    evaluated: Evaluated
    dead_units: tuple[DeadUnits, ...]


def measure_facts(setup: Setup) -> dict[str, Any]:
    """Numbers about the data for the findings, measured before the first step; plain values for run.json."""
    data, training = setup.data, setup.config.training
    weights = data.split_weights("train")
    return facts_before_training(
        _sample_batches(setup).epoch(0),
        model=setup.model,
        loss=build_loss_for(setup.config, data, device=torch.device("cpu")),
        targets=torch.from_numpy(data.model_targets("train")),
        num_classes=data.num_classes,
        num_samples={name: len(split) for name, split in data.splits.items()},
        piece_size=training.batch_size // training.accumulation_steps,
        quantities=setup.quantities,
        target_names=data.target_names,
        weights=None if weights is None else torch.from_numpy(weights),
        decoded_while_training=data.parts[data.splits["train"].part].is_files,
    )


def report_training(run: RunDir, setup: Setup, *, frontend: Frontend) -> RunReport | None:
    """Plots and report of a run that has just been scored; ``setup`` holds the best weights.

    A failure is a warning and changes nothing about the run.
    """
    try:
        with frontend.stage("findings"):
            probed = probe_model(setup, frontend=frontend)
        with frontend.stage("report"):
            return write_report(run, probed=probed, setup=setup)
    except Exception as error:  # noqa: BLE001  (a failed report never ends a run)
        frontend.say(f"warning: no report ({type(error).__name__}: {error}); to try again: trainkit report {run.path}")
        return None


def report_failure(run: RunDir, *, frontend: Frontend) -> RunReport | None:
    """The report of a run that ended early, from its records alone; None where that fails too."""
    try:
        return write_report(run, missing="The run did not come to its end, so nothing was scored.")
    except Exception as error:  # noqa: BLE001  (a failed report never ends a run)
        frontend.say(f"warning: no report ({type(error).__name__}: {error})")
        return None


def make_report(
    given: Path | None = None,
    *,
    data_root: str | Path | None = None,
    runs_dir: Path = Path("runs"),
    frontend: Frontend | None = None,
) -> RunReport:
    """Write ``report.html`` and the curves of a run again, its best checkpoint scored anew where there is one.

    Args:
        data_root: where the data are now, in place of the config's ``root``, or of the folder of its tables.

    Raises:
        UserError: there is no such run, or no data in ``data_root``.
    """
    frontend = frontend or Frontend()
    run = find_run(given, runs_dir=runs_dir)
    checkpoint = best_of(run.checkpoints)
    if checkpoint is None:
        return _report_without_scores(run, "The run has no checkpoint, so nothing was scored.", frontend=frontend)
    try:
        setup = setup_on_data(open_trained(checkpoint, data_root=data_root), frontend=frontend)
        probed = probe_model(setup, frontend=frontend)
    except TrainkitError as error:
        if frontend.stop() or data_root is not None:
            raise
        frontend.say(f"warning: the best checkpoint cannot be scored: {error}")
        return _report_without_scores(run, f"The best checkpoint could not be scored: {error}", frontend=frontend)
    return write_report(run, probed=probed, setup=setup, always_draw=True)


def _report_without_scores(run: RunDir, missing: str, *, frontend: Frontend) -> RunReport:
    """The report from the records alone; a page with scores is not replaced by one without."""
    page = run.path / "report.html"
    try:
        has_scores = _SCORED in page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        has_scores = False
    if has_scores:
        frontend.say(f"note: {page} stays as it is: it has scores, and a new one would have none")
    return write_report(run, missing=missing, always_draw=True, replace_page=not has_scores)


def probe_model(setup: Setup, *, frontend: Frontend) -> Probed:
    """Score the model on the preferred split, and look at its mistakes and its units.

    Raises:
        Interrupted: the frontend asked for a stop.
    """
    split, stopped = preferred_split(setup.data), "the report was not written"
    count, units = num_probed(len(setup.data.splits["train"])), SilentUnits(setup.model)
    with units.watched(most=4 * count):  # the model runs on these anyway
        metrics, outputs = score_and_keep(setup, split, frontend=frontend, stopped=stopped)
    if any(layer.is_mostly_dead for layer in units.result()):
        with units.watched():
            _run_training_samples(setup, count)
    report = report_on(setup, split, metrics, outputs, frontend=frontend, stopped=stopped)
    names, images = look_up_mistakes(setup, split, report)
    return Probed(Evaluated(split, report, names, images), units.result())


def num_probed(num_train: int) -> int:
    """How many training samples the model is run on in search of dead units, where some seem to be dead.

    A pass over the training samples without gradients takes a third to a half of an epoch, so that over a sixteenth of
    them takes less than 5 % of one, the looking included.
    """
    return min(_MAX_PROBED, max(_MIN_PROBED, num_train // 16))


@torch.inference_mode()
def _run_training_samples(setup: Setup, count: int) -> None:
    """Run training samples through the model: a unit that is silent on some of a split may be active on them."""
    setup.model.eval()
    seen = 0
    for batch in _sample_batches(setup, batch_size=min(count, _SAMPLE_BATCH)).epoch(0):
        setup.model(batch.inputs.to(setup.device))
        seen += len(batch.targets)
        if seen >= count:
            break


def _sample_batches(setup: Setup, *, batch_size: int = _SAMPLE_BATCH) -> ResidentBatches | WorkerBatches:
    """Training samples as the model sees them, shuffled, without the random transforms; on the CPU."""
    return setup.sample_batches(batch_size=batch_size, device=torch.device("cpu"), shuffle=True)


def write_report(
    run: RunDir,
    *,
    probed: Probed | None = None,
    setup: Setup | None = None,
    missing: str | None = None,
    always_draw: bool = False,
    replace_page: bool = True,
) -> RunReport:
    """Write ``report.html`` and, where the config wants plots, draw the curves: on the page and into a PNG file.

    Args:
        setup: the run with the scored weights, for its layers and, where the model guesses, a look at its samples.
        always_draw: draw the curves whatever the config wants.
        replace_page: write ``report.html``; False leaves the one that is there.

    Raises:
        durable.WriteError: a file cannot be written.
    """
    info = run.read_info()
    history = history_of(read_json_lines(run.metrics))
    status = run.status()
    evidence = evidence_of(info, history, status=status, probed=probed)
    if setup is not None and (guessing(evidence) is not None or may_fall_short(evidence)):
        evidence = _with_relation(evidence, run, setup)
    findings = find(evidence)
    data = PageData(
        folder=str(run.path),
        info=info,
        status=status,
        history=history,
        findings=findings,
        layers=() if setup is None else _layers(setup),
        files=files_of(run, info),
        evaluated=None if probed is None else probed.evaluated,
        missing=missing,
    )
    if always_draw or info.get("config", {}).get("logging", {}).get("plots", True):
        data = _with_charts(data, run)
    path = run.path / "report.html"
    if replace_page:
        durable.write_text(path, build_run_page(data))
    return RunReport(path, findings, history)


def _with_charts(data: PageData, run: RunDir) -> PageData:
    """The page with its charts; the curves are also written into a PNG file."""
    chosen = data.info.get("choices", {}).get("loss", {}).get("value")
    loss = str(chosen or section_type(data.info.get("config", {}), "loss"))
    curves = draw_learning_curves(data.history, title=run.path.name, loss=loss)
    if curves is not None:
        save_figure(curves.figure, run.plots / "learning_curves.png")
        data = replace(data, charts=curves.charts)
    evaluated = data.evaluated
    if evaluated is not None and isinstance(evaluated.report, RegressionReport):
        data = replace(data, predictions=draw_predictions(evaluated.report, where=SPLITS[evaluated.split]))
    return data


def files_of(run: RunDir, info: Mapping[str, Any]) -> list[SavedFile]:
    """The files of a run that are worth a link: checkpoints, exports, evaluations, log and config."""
    best = info.get("best_checkpoint")
    found = [("best checkpoint" if path.name == best else "checkpoint", path) for path in run.checkpoints.glob("*.pth")]
    found += [("export", _first_of(folder, "README.md")) for folder in run.exports.glob("*")]
    found += [("evaluation", _first_of(folder, "eval.json")) for folder in (run.path / "evals").glob("*")]
    found += [("log", run.metrics), ("log", run.log), ("config", run.config), ("config", run.resolved_config)]
    order = ("best checkpoint", "checkpoint", "export", "evaluation", "log", "config")
    return [
        SavedFile(kind, path.relative_to(run.path).as_posix(), _size(path, whole=kind in ("export", "evaluation")))
        for kind, path in sorted(found, key=lambda one: (order.index(one[0]), one[1]))
        if path.exists()
    ]


def _first_of(folder: Path, name: str) -> Path:
    """The file of a folder that a browser shows; the folder itself where it has none of this name."""
    return folder / name if (folder / name).exists() else folder


def _size(path: Path, *, whole: bool) -> int:
    folder = path if path.is_dir() else path.parent
    return sum(one.stat().st_size for one in (folder.rglob("*") if whole else (path,)) if one.is_file())


def evidence_of(info: Mapping[str, Any], history: History, *, status: str, probed: Probed | None) -> Evidence:
    """The evidence for the findings, from the records and the probed model."""
    evidence = evidence_from_records(info, history, status=status, costly_transforms=COSTLY)
    if probed is None:
        return evidence
    evidence = replace(evidence, split=probed.evaluated.split, dead_units=probed.dead_units)
    report = probed.evaluated.report
    if not isinstance(report, ClassificationReport):
        return replace(evidence, r2=report.metrics.get("r2"))
    return replace(evidence, class_names=report.class_names, confusion=report.confusion.tolist())


def _with_relation(evidence: Evidence, run: RunDir, setup: Setup) -> Evidence:
    """Whether the inputs say anything about the labels: half a second of work, so not done for a good model.

    run.json keeps the answer, so that the records alone lead to the same findings.
    """
    relation = measure_relation(_sample_batches(setup).epoch(0), num_classes=setup.data.num_classes)
    facts = {**evidence.facts, "relation": relation}
    run.update_info(facts=facts)
    return replace(evidence, facts=facts)


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
