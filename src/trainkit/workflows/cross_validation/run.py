"""``trainkit cv``: a run for each fold, in one folder, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.dataset import describe_changes
from trainkit.errors import Interrupted, TrainkitError, UserError
from trainkit.evaluation import CONFIDENCE, Report
from trainkit.system import Frontend, RunDir, durable, list_runs, locked
from trainkit.wording import first_lines
from trainkit.workflows.check.probe_data import load_read_only
from trainkit.workflows.check.problems import located
from trainkit.workflows.cross_validation.ensemble import write_ensemble
from trainkit.workflows.cross_validation.out_of_fold import OutOfFold, predict_out_of_fold, write_out_of_fold
from trainkit.workflows.cross_validation.plan import Plan, as_typed, check_plan
from trainkit.workflows.cross_validation.scores import Mean, means_of, pooled_report
from trainkit.workflows.find import ENSEMBLE, best_of
from trainkit.workflows.runs import config_differences
from trainkit.workflows.train.changes import config_hash
from trainkit.workflows.train.recording import with_overrides
from trainkit.workflows.train.run import train

RESULTS, OUT_OF_FOLD = "results.json", "out_of_fold.csv"


@dataclass(frozen=True)
class FoldResult:
    """The run that tested on a fold."""

    fold: int
    run: RunDir
    checkpoint: Path
    """The best one."""
    num_samples: int
    """Of the fold."""
    metrics: dict[str, float]
    """On the fold."""


@dataclass(frozen=True)
class CvResult:
    """A finished cross-validation."""

    folder: Path
    folds: tuple[FoldResult, ...]
    means: dict[str, Mean]
    """Over the folds, by metric."""
    pooled: Report
    """On all samples, each predicted by the run that did not train on it."""
    out_of_fold: Path
    """These predictions, as CSV."""
    ensemble: Path | None
    """A checkpoint that answers with the mean of the networks; None where they do not read their samples alike."""

    def as_json(self) -> dict[str, Any]:
        folds = [
            {
                "fold": one.fold,
                "run": str(one.run.path.relative_to(self.folder)),
                "checkpoint": one.checkpoint.name,
                "num_samples": one.num_samples,
                "metrics": one.metrics,
            }
            for one in self.folds
        ]
        means = {name: {**asdict(mean), "method": "t"} for name, mean in self.means.items()}
        return {
            "folds": folds,
            "mean": means,
            "confidence": CONFIDENCE,
            "pooled": self.pooled.as_json(),
            "out_of_fold": self.out_of_fold.name,
            "ensemble": self.ensemble and self.ensemble.name,
        }


def cross_validate(plan: Plan, *, cv_dir: str | Path, frontend: Frontend) -> CvResult:
    """Train on all folds but one, for each of them, in the folder of this name under ``cv_dir``.

    Where the folder holds this cross-validation already, it goes on: finished runs stay, a stopped one is resumed.

    Raises:
        UserError: the data or the folder are wrong; nothing was written.
        Interrupted: a signal asked for a stop; the state is saved.
        TrainkitError: a run failed.
    """
    for note in plan.base.notes:
        frontend.say(f"note: {note}")
    root = Path(cv_dir) / plan.base.name
    if not claimed(root, plan):
        check_plan(plan, runs_dir=root / "runs", frontend=frontend)
        _make(root)
    with locked(root / ".lock", of=root, what="in this cross-validation"):
        durable.clear_stale(root)
        if not claimed(root, plan):
            durable.write_json(root / RESULTS, _head(plan, "running"))
        if not (root / "config.yaml").exists():
            durable.write_text(root / "config.yaml", with_overrides(plan.base.text, plan.base.overrides))
        _check_same_data(root, plan)
        checkpoints = _train_all(root, plan, frontend=frontend)
        with as_typed(plan.options):
            found, scores = predict_out_of_fold(checkpoints, data_root=plan.data_root, frontend=frontend)
        write_out_of_fold(root / OUT_OF_FOLD, found)
        counts = [int((found.folds == index).sum()) for index in range(plan.count)]
        result = CvResult(
            folder=root,
            folds=tuple(
                FoldResult(index, RunDir(path.parent.parent), path, counts[index], scores[index])
                for index, path in enumerate(checkpoints)
            ),
            means=means_of(scores),
            pooled=pooled_report(found, plan.base.config, frontend=frontend),
            out_of_fold=root / OUT_OF_FOLD,
            ensemble=_ensemble(root, plan, checkpoints, found, frontend=frontend),
        )
        durable.write_json(root / RESULTS, {**_head(plan, "finished"), **result.as_json()})
    return result


def claimed(root: Path, plan: Plan) -> bool:
    """Whether the folder holds this cross-validation; False where there is nothing.

    Raises:
        UserError: it holds something else.
    """
    other = "take another name (--set name=...), or another --cv-dir"
    if not root.exists():
        return False
    try:
        found = json.loads((root / RESULTS).read_bytes())
    except (OSError, ValueError):
        if root.is_dir() and all(path.name.startswith(".") for path in root.iterdir()):
            return False  # killed before its first file was whole
        raise UserError(f"{root}: is there, and is no cross-validation; {other}") from None
    count = found.get("count")
    if count != plan.count:
        raise UserError(f"{root}: holds a cross-validation with {count} folds, not {plan.count}; {other}")
    if found.get("config_hash") != config_hash(plan.config):
        differences = config_differences([found.get("config", {}), plan.config])
        lines = [f"{key}: {before!r} there, {after!r} now" for key, (before, after) in differences.items()]
        shown = "\n  ".join(first_lines(lines))
        raise UserError(f"{root}: holds the cross-validation of another config; {other}\n  {shown}")
    return True


def _check_same_data(root: Path, plan: Plan) -> None:
    """See, before anything is trained, that the data are those of the folds before: the scores stand side by side.

    Raises:
        UserError: they are others.
    """
    infos = [run.read_info() for run in list_runs(root / "runs")]
    trained = {info.get("config_hash"): info["data_fingerprint"] for info in infos if info.get("data_fingerprint")}
    for index in range(plan.count if trained else 0):
        loaded = plan.fold(index)
        before = trained.get(config_hash(loaded.resolved()))
        if before is None:
            continue
        with as_typed(plan.options), located(loaded):
            data = load_read_only(loaded.config).fingerprint
        if changes := describe_changes(before, dict(data)):
            raise UserError(
                f"{root}: the data ({data['source']}) are not those that fold {index} was trained on: "
                f"{'; '.join(changes[:5])}; put them back as they were, or train all folds on those of now under "
                "another name (--set name=...)"
            )
        return  # the folds have their data in common, and the scoring compares each


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise durable.WriteError(root, error) from error


def _head(plan: Plan, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "name": plan.base.name,
        "count": plan.count,
        "group": plan.group,
        "config": plan.config,
        "config_hash": config_hash(plan.config),
    }


def _train_all(root: Path, plan: Plan, *, frontend: Frontend) -> list[Path]:
    """The best checkpoint of each fold's run, trained where there is none that is finished."""
    frontend = replace(frontend, say=_once(frontend.say))
    checkpoints = []
    for index in range(plan.count):
        loaded, title = plan.fold(index), f"fold {index} ({index + 1} of {plan.count})"
        run = finished_run(root, config_hash(loaded.resolved()))
        if run is not None:
            frontend.say(f"{title}: finished in {run.path}")
        else:
            frontend.say(f"{title}: training")
            try:
                result = train(loaded, runs_dir=root / "runs", resume="auto", frontend=frontend)
            except Interrupted as error:
                raise frontend.stop.error(f"the same command goes on with {title}") from error
            except UserError:
                raise
            except TrainkitError as error:
                raise TrainkitError(f"{title}: {error}") from error
            assert result is not None, "one process"
            run = result.run
        best = best_of(run.checkpoints)
        if best is None:
            raise UserError(f"{run.path}: its checkpoints are gone; delete this folder, and the fold is trained again")
        checkpoints.append(best)
    return checkpoints


def _ensemble(
    root: Path, plan: Plan, checkpoints: Sequence[Path], found: OutOfFold, *, frontend: Frontend
) -> Path | None:
    path, counts = root / ENSEMBLE, np.bincount(found.targets).tolist() if found.class_names else []
    try:
        write_ensemble(path, checkpoints, plan.base.config, name=plan.base.name, class_counts=counts)
    except UserError as error:
        frontend.say(f"warning: no ensemble: {error}")
        return None
    return path


def finished_run(root: Path, digest: str) -> RunDir | None:
    """The newest finished run of a config."""
    for run in reversed(list_runs(root / "runs")):
        info = run.read_info()
        if info.get("status") == "finished" and info.get("config_hash") == digest:
            return run
    return None


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Say nothing twice: the runs of a cross-validation have most of their notes in common."""
    said: set[str] = set()

    def once(message: str) -> None:
        if message not in said:
            said.add(message)
            say(message)

    return once
