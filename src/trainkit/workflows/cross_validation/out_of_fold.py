"""The predictions out of fold: for each sample those of the one run that tested on it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.builders import Setup, open_trained
from trainkit.config.schema.tables import Table
from trainkit.data.tables import labeled_places, target_from
from trainkit.data.target_scale import in_own_units
from trainkit.errors import DataError
from trainkit.system import Frontend, durable
from trainkit.workflows.evaluate.run import setup_on_data
from trainkit.workflows.scoring import score_and_keep
from trainkit.workflows.train.changes import check_data

STOPPED = "the runs are saved; the same command goes on"


@dataclass(frozen=True)
class OutOfFold:
    """One row for each sample, in the order of the data."""

    sources: list[str]
    """A path, ``file.csv:line``, or ``all[index]``."""
    folds: NDArray[np.int64]
    """(N,)."""
    targets: NDArray[Any]
    """int64 (N,), or values (N, T) in their own units."""
    answers: NDArray[np.float64]
    """Probabilities (N, K), or values (N, T) in their own units."""
    class_names: tuple[str, ...]
    target_names: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The most probable class of each sample (N,); of equal ones the first."""
        labels: NDArray[np.int64] = self.answers.argmax(axis=1)
        return labels


def predict_out_of_fold(
    checkpoints: Sequence[Path], *, data_root: str | Path | None, frontend: Frontend
) -> tuple[OutOfFold, list[dict[str, float]]]:
    """Score the checkpoint of each fold on its test split, and keep what it answers; also the scores of each.

    Raises:
        UserError: the data are gone, or are not those of the training.
    """
    indices, folds, targets, answers, scores = [], [], [], [], []
    sources: list[str] = []
    for fold, checkpoint in enumerate(checkpoints):
        trained = open_trained(checkpoint, data_root=data_root)
        setup = setup_on_data(trained, frontend=frontend)
        check_data(trained.saved, setup.data.fingerprint)
        metrics, outputs = score_and_keep(setup, "test", frontend=frontend, stopped=STOPPED)
        if setup.loss.is_classification:
            found = setup.loss.probabilities(outputs).numpy()
        else:
            found = in_own_units(outputs.numpy(), setup.data.target_scale)
        scores.append(metrics)
        indices.append(setup.data.splits["test"].indices)
        folds.append(np.full(len(found), fold, dtype=np.int64))
        targets.append(setup.data.split_targets("test"))
        answers.append(found.astype(np.float64))
        sources = sources or _sources_of(setup)
    order = np.argsort(np.concatenate(indices))
    places = np.concatenate(indices)[order]
    found_all = OutOfFold(
        sources=[sources[place] for place in places],
        folds=np.concatenate(folds)[order],
        targets=np.concatenate(targets)[order],
        answers=np.concatenate(answers)[order],
        class_names=setup.data.class_names,
        target_names=setup.data.target_names,
    )
    return found_all, scores


def _sources_of(setup: Setup) -> list[str]:
    """What each sample of the part that is in folds is called."""
    data, spec = setup.data, setup.config.dataset
    part = data.splits["test"].part
    if (files := setup.files.get(part)) is not None:
        return [str(file) for file in files]
    if isinstance(spec, Table):
        assert data.table_encoding is not None
        target = target_from(data.table_encoding["target"], data.class_names)
        places = labeled_places(spec.path, data.table_encoding, target)
        if len(places) != len(data.parts[part]):
            raise DataError(f"{places[0]}: the table has changed while it was read; start again")
        return places
    return [f"{part}[{index}]" for index in range(len(data.parts[part]))]


def write_out_of_fold(path: Path, found: OutOfFold) -> None:
    """A CSV file: the source as ``trainkit predict`` names it, fold, truth and prediction of each sample.

    For classes ``true``, ``label``, ``probability`` and the probability of each class as ``p_NAME``; else each target
    as ``true_NAME`` and ``NAME``.
    """
    rows: list[list[object]] = []
    if found.class_names:
        names = ["true", "label", "probability", *(f"p_{name}" for name in found.class_names)]
        for true, label, chances in zip(found.targets, found.labels, found.answers.tolist(), strict=True):
            rows.append([found.class_names[true], found.class_names[label], chances[label], *chances])
    else:
        names = [text for name in found.target_names for text in (f"true_{name}", name)]
        for true, values in zip(found.targets.tolist(), found.answers.tolist(), strict=True):
            rows.append([value for pair in zip(true, values, strict=True) for value in pair])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["source", "fold", *names])
    for source, fold, row in zip(found.sources, found.folds.tolist(), rows, strict=True):
        writer.writerow([source, fold, *row])
    durable.write_text(path, buffer.getvalue())
