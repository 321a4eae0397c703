"""``trainkit eval``: a checkpoint, scored on a split of its data or on other data of the same kind."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.builders import (
    Setup,
    TrainedModel,
    choose_scoring_precision,
    load_data,
    open_trained,
    with_tta,
)
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset, describe_changes
from trainkit.errors import TrainkitError, UserError
from trainkit.evaluation import ClassificationReport, RegressionReport, Report
from trainkit.reports import plot_confusion, plot_reliability, plot_residuals, plot_wrong_samples
from trainkit.runtime import Ranks, resolve_device
from trainkit.system import Frontend, durable
from trainkit.wording import listed
from trainkit.workflows.evaluate.other_data import align_classes, load_other_data
from trainkit.workflows.ranks import check_devices
from trainkit.workflows.scoring import look_up_mistakes, preferred_split, report_on, score, score_and_keep


@dataclass(frozen=True)
class EvalResult:
    """The scores of a checkpoint on a split."""

    checkpoint: Path
    split: str
    """train, val or test; ``data`` for the whole of other data."""
    num_samples: int
    metrics: dict[str, float]
    report: Report
    epoch: int
    """How many epochs the checkpoint was trained for."""
    data: str
    """The name of the data set, or the path of other data."""
    precision: str
    """What the model computed in."""
    tta: str = "none"
    """``flip`` or ``flip_shift``: the scores are of the mean over views of each image."""
    is_other_data: bool = False
    data_changes: list[str] = field(default_factory=list)
    """Differences from the data that the checkpoint was trained on."""
    sample_names: list[str] = field(default_factory=list)
    """By mistake (largest error): its file, or its index in the data, such as ``test[17]``."""
    wrong_images: list[NDArray[np.uint8]] = field(default_factory=list)
    """By mistake: uint8 (C, H, W); empty for tables."""

    def as_json(self) -> dict[str, Any]:
        described = self.report.as_json()
        rows = described["mistakes" if isinstance(self.report, ClassificationReport) else "largest_errors"]
        for row, name in zip(rows, self.sample_names, strict=True):
            row["sample"] = name
        return {
            "checkpoint": str(self.checkpoint),
            "epoch": self.epoch,
            "data": self.data,
            "split": self.split,
            "computed_in": self.precision,
            **({} if self.tta == "none" else {"tta": self.tta}),
            "data_changes": self.data_changes,
            **described,
        }


def evaluate(
    trained: TrainedModel,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    tta: str = "none",
    ranks: Ranks | None = None,
    frontend: Frontend | None = None,
) -> EvalResult | None:
    """Score a checkpoint: the same numbers as at the end of its training. None in all processes but the first.

    The arguments are those of ``trainkit.evaluate``; ``ranks`` are the processes that share the work.

    Raises:
        UserError: the data have no such split, or are of another kind or with other classes.
    """
    frontend, ranks = frontend or Frontend(), ranks or Ranks()
    data = None if data is None else Path(data)
    setup, chosen = prepare(trained, split=split, data=data, tta=tta, frontend=frontend)
    setup, stopped = replace(setup, ranks=ranks), "nothing was written"
    if not ranks.is_first:
        score(setup, chosen, frontend=frontend, stopped=stopped)
        return None
    for note in setup.data.notes:
        frontend.say(f"note: {note}")
    if data is not None and chosen == "train" and _is_of_training(data, trained.config):
        frontend.say(
            f"warning: the model has learned from --data {data}, so the scores are too good; "
            "without --data those samples are scored that were held out"
        )
    counts = setup.data.class_counts(chosen)
    if absent := [name for name, count in zip(trained.class_names, counts, strict=True) if not count]:
        frontend.say(f"note: no samples of {listed(absent)}; labels go by name")
    changes = [] if data else describe_changes(trained.saved["data_fingerprint"], setup.data.fingerprint)
    for change in changes:
        frontend.say(f"warning: the data are not those of the training: {change}")
    metrics, outputs = score_and_keep(setup, chosen, frontend=frontend, stopped=stopped)
    _check_numbers(setup, outputs, trained.path)
    report = report_on(setup, chosen, metrics, outputs, frontend=frontend, stopped=stopped)
    names, images = look_up_mistakes(setup, chosen, report)
    return EvalResult(
        checkpoint=trained.path,
        split="data" if data and "all" in setup.data.parts else chosen,
        num_samples=len(setup.data.splits[chosen]),
        metrics=report.metrics,
        report=report,
        epoch=int(trained.saved["progress"]["epochs_completed"]),
        data=str(data) if data else setup.data.name,
        precision=setup.precision,
        tta=tta,
        is_other_data=data is not None,
        data_changes=changes,
        sample_names=names,
        wrong_images=images,
    )


def prepare(
    trained: TrainedModel, *, split: str | None, data: Path | None, tta: str, frontend: Frontend
) -> tuple[Setup, str]:
    """The model on its data, and the split that is scored."""
    setup = setup_on_data(trained, data, frontend=frontend)
    if trained.num_members and data is None:
        _check_unseen(setup.data, split, trained.path)
    is_image = setup.data.kind == "image"
    setup = replace(setup, model=with_tta(setup.model, setup.loss, tta=tta, is_image=is_image))
    return setup, _choose_split(setup.data, split, data)


def check_evaluation(
    trained: TrainedModel,
    *,
    split: str | None,
    data: str | Path | None,
    tta: str,
    device: str | None,
    precision: str | None,
    size: int,
    frontend: Frontend,
) -> None:
    """See that ``size`` processes can score the checkpoint, with the arguments of ``evaluate``; fill its data's cache.

    So what is wrong is said once, before any process is started.

    Args:
        trained: on the CPU: a GPU is for these processes.
        device: where they compute.
        precision: what they compute in.

    Raises:
        as ``evaluate``.
    """
    quiet = replace(frontend, say=lambda message: None)
    where = resolve_device(device or trained.saved["config"].get("device", "auto")).value
    check_devices(where, size=size)
    choose_scoring_precision(torch.device(where), precision)
    prepare(trained, split=split, data=None if data is None else Path(data), tta=tta, frontend=quiet)


def same_in_all(trained: TrainedModel, ranks: Ranks, *, data_root: str | Path | None) -> TrainedModel:
    """The checkpoint that rank 0 has opened, in all processes: a run may have got a better one meanwhile."""
    told = ranks.tell({"checkpoint": str(trained.path.resolve())} if ranks.is_first else None)
    path, device = Path(told["checkpoint"]), trained.config.device
    if ranks.is_first or path == trained.path.resolve():
        return trained
    return open_trained(path, device=device, precision=trained.precision.value, data_root=data_root)


def setup_on_data(trained: TrainedModel, data: Path | None = None, *, frontend: Frontend) -> Setup:
    """The model on the data of its training as they are now, or on other data.

    Raises:
        DataError: the data are gone, broken, or have other classes.
    """
    if data is not None:
        found, files = load_other_data(data, trained.config, trained.saved, frontend=frontend)
    else:
        found, files = load_data(trained.config, stored=trained.preprocessing, frontend=frontend)
        found = align_classes(found, trained.class_names, where=found.name)
    return trained.setup(found, files)


def _check_numbers(setup: Setup, outputs: Tensor, path: Path) -> None:
    loss = setup.loss
    answers = loss.probabilities(outputs) if loss.is_classification else outputs
    bad = (~answers.isfinite()).reshape(len(answers), -1).any(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        advice = "look at these inputs" + (", or score in fp32" if setup.precision == "fp16" else "")
        raise TrainkitError(
            f"{path}: the model answers with NaN or infinity to {int(bad.sum()):,} of {len(bad):,} samples, first to "
            f"number {first}; {advice}"
        )


def _check_unseen(data: Dataset, split: str | None, path: Path) -> None:
    """Raise UserError where the networks of an ensemble have trained on the split."""
    own_test = "test" in data.splits and data.splits["test"].part != data.splits["train"].part
    if not own_test or split not in (None, "test"):
        which = f"its {split} split" if own_test else "its data"
        raise UserError(
            f"{path}: the networks of the ensemble have trained on {which}; out_of_fold.csv and results.json beside it "
            "have the scores of samples that each had not seen, and --data scores other data"
        )


def _is_of_training(data: Path, config: Config) -> bool:
    """Whether other data are the files of the training."""
    paths = [getattr(config.dataset, key) for key in config.dataset.location_keys if key in ("root", "path")]
    own = [path for value in paths for path in (value if isinstance(value, list) else [value]) if isinstance(path, str)]
    whole = [os.path.realpath(file) for path in own for file in (path, *glob.glob(path), os.path.join(path, "train"))]
    return os.path.realpath(data) in whole


def _choose_split(data: Dataset, split: str | None, path: Path | None) -> str:
    if path is not None and "all" in data.parts:
        if split is not None:
            raise UserError(f"--split {split}: --data {path} has no splits; leave --split out to score all of it")
        return "train"  # all samples: nothing is held out
    if split is None:
        return preferred_split(data)
    if split not in data.splits:
        where = data.name if path is None else path
        raise UserError(f"--split {split}: {where} has the splits {', '.join(data.split_names)}; take one of these")
    return split


def evaluation_folder(result: EvalResult) -> Path | None:
    """The folder of the result in the checkpoint's run; None where the checkpoint is in no run."""
    run = result.checkpoint.parent.parent
    if result.checkpoint.parent.name != "checkpoints" or not (run / "run.json").is_file():
        return None
    label = result.split
    if result.is_other_data:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(result.data).resolve().stem)[:64]
        label = f"data-{name}" if result.split == "data" else f"data-{name}-{result.split}"
    return run / "evals" / f"{label}{'' if result.tta == 'none' else f'-tta-{result.tta}'}-{result.checkpoint.stem}"


def write_evaluation(result: EvalResult, folder: Path, *, plots: bool = True) -> list[Path]:
    """Write ``eval.json`` and the pictures; returns the files.

    Raises:
        WriteError: the disk is full or not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise durable.WriteError(folder, error) from error
    pictures = _draw(result, folder) if plots else []
    path = folder / "eval.json"
    durable.write_json(path, {**result.as_json(), "plots": [picture.name for picture in pictures]})
    return [path, *pictures]


def _draw(result: EvalResult, folder: Path) -> list[Path]:
    report = result.report
    where = result.data if result.split == "data" else f"{result.data}, {result.split}"
    if isinstance(report, RegressionReport):
        return [plot_residuals(folder / "residuals.png", report, title=f"Residuals on {where}")]
    drawn = [
        plot_confusion(folder / "confusion.png", report.confusion, report.class_names, title=f"Confusion on {where}"),
        plot_reliability(
            folder / "reliability.png",
            report.reliability,
            error=report.metrics["expected_calibration_error"],
            title=f"Reliability on {where}",
        ),
    ]
    if result.wrong_images:
        path, names = folder / "wrong_samples.png", [Path(name).name for name in result.sample_names]
        drawn.append(
            plot_wrong_samples(path, report.mistakes, result.wrong_images, names, num_wrong=report.num_mistakes)
        )
    return drawn
