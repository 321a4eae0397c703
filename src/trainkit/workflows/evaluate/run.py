"""``trainkit eval``: a checkpoint, scored on a split of its data or on other data of the same kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainkit.builders.model import build_loss_for
from trainkit.builders.setup import Setup, build_setup, load_data
from trainkit.checkpoints.journal import follow_pointer
from trainkit.checkpoints.serialization import load_checkpoint
from trainkit.checkpoints.state_dicts import check_fits
from trainkit.config import config_from_dict
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.fingerprints import describe_changes
from trainkit.data.images.decode import decode_image
from trainkit.data.transforms.static import apply_static_transforms, static_transforms_from_json
from trainkit.engine.losses import balanced_pos_weight, balanced_weight
from trainkit.errors import CheckpointError, TrainkitError, UserError
from trainkit.evaluation.report import ClassificationReport, RegressionReport, Report, build_report
from trainkit.reports.evaluation_plots import (
    WrongSample,
    plot_confusion,
    plot_reliability,
    plot_residuals,
    plot_wrong_samples,
)
from trainkit.system import durable
from trainkit.system.signals import StopRequest
from trainkit.workflows.evaluate.other_data import align_classes, load_other_data
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.scoring import score_and_keep, scored_weights

PREFERRED_SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class EvalResult:
    """What a checkpoint reaches on a split."""

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
    is_other_data: bool = False
    data_changes: list[str] = field(default_factory=list)
    """What is different from the data that the checkpoint was trained on."""
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
            "data_changes": self.data_changes,
            **described,
        }


def evaluate(
    checkpoint: str | Path | None = None,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    runs_dir: str | Path = Path("runs"),
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] | None = None,
    stop: StopRequest | None = None,
) -> EvalResult:
    """Score a checkpoint: the same numbers as at the end of its training.

    Args:
        checkpoint: a file or a run folder; None for the best of the newest run under ``runs_dir``.
        split: train, val or test; None takes test where there is one, else val, else train.
        data: another folder of images or another CSV file; classes are matched by name.
        device: where to compute; None for the config's.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: the data have no such split, or are of another kind or with other classes.
    """
    stop = StopRequest() if stop is None else stop

    def check() -> None:
        if stop():
            raise stop.error("nothing was written")

    checkpoint = None if checkpoint is None else Path(checkpoint)
    data = None if data is None else Path(data)
    path = follow_pointer(find_checkpoint(checkpoint, runs_dir=Path(runs_dir), say=say))
    setup, saved = restore_setup(path, data=data, device=device, progress=progress, stop=stop)
    for note in setup.data.notes:
        say(f"note: {note}")
    chosen = _choose_split(setup.data, split, data)
    changes = [] if data else describe_changes(saved["data_fingerprint"], setup.data.fingerprint)
    for change in changes:
        say(f"warning: the data are not those of the training: {change}")
    weights = scored_weights(saved)
    check_fits(weights, setup.model)
    setup.model.load_state_dict(weights)
    scored = score_and_keep(setup, setup.model, chosen, should_stop=stop)
    if scored is None:
        raise stop.error("nothing was written")
    metrics, outputs = scored
    _check_numbers(setup, outputs, path)
    report = build_report(
        outputs,
        setup.data.split_targets(chosen),
        loss=build_loss_for(setup.config, setup.data, device=outputs.device),
        class_names=setup.data.class_names,
        target_names=setup.data.target_names,
        metrics=metrics,
        seed=setup.config.seed,
        check=check,
    )
    names, images = look_up(setup, chosen, report)
    return EvalResult(
        checkpoint=path,
        split="data" if data and "all" in setup.data.parts else chosen,
        num_samples=len(setup.data.splits[chosen]),
        metrics=report.metrics,
        report=report,
        epoch=int(saved["progress"]["epochs_completed"]),
        data=str(data) if data else setup.data.name,
        is_other_data=data is not None,
        data_changes=changes,
        sample_names=names,
        wrong_images=images,
    )


def _check_numbers(setup: Setup, outputs: Tensor, path: Path) -> None:
    loss = setup.loss
    answers = loss.probabilities(outputs) if loss.is_classification else outputs
    bad = (~answers.isfinite()).reshape(len(answers), -1).any(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise TrainkitError(
            f"{path}: the model answers with NaN or infinity to {int(bad.sum()):,} of {len(bad):,} samples, first to "
            f"number {first}; look at these inputs, or score in float32 (training.precision)"
        )


def restore_setup(
    path: Path,
    *,
    data: Path | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: StopRequest | None = None,
) -> tuple[Setup, dict[str, Any]]:
    """The setup that a checkpoint came from, with its data loaded anew, or others, and what the checkpoint holds.

    Raises:
        DataError: the data are gone, broken, or have other classes.
    """
    saved = load_checkpoint(path)
    config = config_from_dict(saved["config"], where=str(path))
    if device is not None:
        config = config.model_copy(update={"device": device})
    config = _with_weights_of_training(config, saved, where=path)
    if data is not None:
        found, files = load_other_data(data, config, saved, progress=progress, should_stop=stop)
    else:
        found, files = load_data(config, progress=progress, should_stop=stop)
        found = align_classes(found, saved["class_names"], where=found.name)
    setup = build_setup(config, stored=saved, data=found)
    return replace(setup, files=files), saved


def _with_weights_of_training(config: Config, saved: Mapping[str, Any], *, where: Path) -> Config:
    """Balanced weights count the samples that the checkpoint was trained on, whatever is scored now."""
    balanced = {"weight": balanced_weight, "pos_weight": balanced_pos_weight}
    knobs = [name for name in balanced if getattr(config.loss, name, None) == "balanced"]
    counts = saved.get("class_counts", [])
    if knobs and not counts:
        raise CheckpointError(
            f"{where}: does not say how many training samples each class had, which loss.{knobs[0]}: balanced is made "
            "of; it was written by an earlier version: train again"
        )
    weights = {name: balanced[name](counts) for name in knobs}
    return config.model_copy(update={"loss": config.loss.model_copy(update=weights)})


def _choose_split(data: Dataset, split: str | None, path: Path | None) -> str:
    if path is not None and "all" in data.parts:
        if split is not None:
            raise UserError(f"--split {split}: --data {path} has no splits; leave --split out to score all of it")
        return "train"  # the whole, where nothing is held out
    if split is None:
        return next(name for name in PREFERRED_SPLITS if name in data.splits)
    if split not in data.splits:
        where = data.name if path is None else path
        raise UserError(f"--split {split}: {where} has the splits {', '.join(data.splits)}; take one of these")
    return split


def look_up(setup: Setup, split: str, report: Report) -> tuple[list[str], list[NDArray[np.uint8]]]:
    """Where the samples of the report's mistakes are, and their pictures."""
    chosen = setup.data.splits[split]
    if isinstance(report, RegressionReport):
        positions = [row["position"] for row in report.worst()]
    else:
        positions = [mistake.position for mistake in report.mistakes]
    indices = [int(chosen.indices[position]) for position in positions]
    files = setup.files.get(chosen.part)
    names = [f"{chosen.part}[{index}]" if files is None else str(files[index]) for index in indices]
    if setup.data.kind != "image" or isinstance(report, RegressionReport):
        return names, []
    inputs = setup.data.parts[chosen.part].inputs
    if not isinstance(inputs, tuple):
        return names, [np.array(inputs[index]) for index in indices]
    front = static_transforms_from_json(setup.preprocessing["front"])
    channels = setup.preprocessing["channels"]
    return names, [apply_static_transforms(decode_image(inputs[index], channels=channels), front) for index in indices]


def evaluation_folder(result: EvalResult) -> Path | None:
    """Where the result belongs: in the checkpoint's run; None where the checkpoint is in no run."""
    run = result.checkpoint.parent.parent
    if result.checkpoint.parent.name != "checkpoints" or not (run / "run.json").is_file():
        return None
    label = result.split
    if result.is_other_data:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(result.data).resolve().stem)[:64]
        label = f"data-{name}" if result.split == "data" else f"data-{name}-{result.split}"
    return run / "evals" / f"{label}-{result.checkpoint.stem}"


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
        return [
            plot_residuals(
                folder / "residuals.png",
                report.predictions,
                report.targets,
                report.target_names,
                title=f"Residuals on {where}",
            )
        ]
    drawn = [
        plot_confusion(folder / "confusion.png", report.confusion, report.class_names, title=f"Confusion on {where}"),
        plot_reliability(
            folder / "reliability.png",
            report.reliability.confidence,
            report.reliability.accuracy,
            report.reliability.counts,
            error=report.metrics["expected_calibration_error"],
            title=f"Reliability on {where}",
        ),
    ]
    if result.wrong_images:
        samples = [
            WrongSample(image, mistake.true, mistake.predicted, mistake.probability, Path(name).name)
            for image, mistake, name in zip(result.wrong_images, report.mistakes, result.sample_names, strict=True)
        ]
        drawn.append(plot_wrong_samples(folder / "wrong_samples.png", samples, num_wrong=report.num_mistakes))
    return drawn
