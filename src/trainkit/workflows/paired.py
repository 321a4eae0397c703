"""Whether one run is better than another: the best checkpoints of both answer the same test samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.builders import open_trained
from trainkit.config.schema.tables import Table
from trainkit.data.dataset import describe_changes
from trainkit.data.target_scale import in_own_units
from trainkit.errors import TrainkitError
from trainkit.evaluation import CONFIDENCE, METRICS, Difference, Group, compare_sides
from trainkit.recorders import is_rate, metric_text
from trainkit.system import Frontend, RunDir
from trainkit.wording import SPLITS, by_key, counted, listed
from trainkit.workflows.evaluate.run import setup_on_data
from trainkit.workflows.find import best_of
from trainkit.workflows.scoring import score_and_keep

_OF_SEEDS = ("name", "seed", "dataset.folds.fold")
"""Keys in which the runs of one side may differ: seeds, and the folds of a cross-validation."""
_OF_CLASSES = ("accuracy", "f1_macro")


@dataclass(frozen=True)
class Side:
    """The runs of one config."""

    runs: Sequence[int]
    """By their place among the runs that are compared."""


@dataclass(frozen=True)
class Paired:
    """The sides that were compared with the first one."""

    split: str
    metric: str
    confidence: float
    """Of all intervals at once."""
    sides: Sequence[Side]
    scores: Mapping[int, float]
    """By run."""
    differences: Mapping[int, Difference] = field(default_factory=dict)
    """By the number of the side: how it compares with the first."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """By the number of the side: why it cannot be compared with the first."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """By run: why it has no answers to compare."""
    unfinished: Sequence[int] = ()
    """Runs that answer by their best checkpoint so far."""


class CannotPair(Exception):
    """Why two runs are not compared sample by sample."""


@dataclass(frozen=True)
class Answers:
    """What the best checkpoint of a run answers to its test samples."""

    tested_on: Mapping[str, Any]
    """The same for the same samples: what the fingerprint of the data says of them."""
    samples: NDArray[np.int64]
    """Places in the part (N,)."""
    targets: NDArray[Any]
    predictions: NDArray[Any]
    """Classes int64 (N,), or values (N, T) in their own units."""

    @property
    def is_classification(self) -> bool:
        return bool(self.tested_on["class_names"])


def compare_paired(
    runs: Sequence[RunDir],
    infos: Sequence[Mapping[str, Any]],
    *,
    metric: str | None = None,
    data_root: Path | None = None,
    frontend: Frontend,
) -> Paired:
    """Compare the sides of these runs with the first one, on the test samples, or on those of validation without any.

    Args:
        infos: the ``run.json`` of each.
        metric: one of ``METRICS``; another one, or None, takes accuracy or rmse.
        data_root: where the data are now, in place of the config's ``root``, or of the folder of its tables.

    Raises:
        Interrupted: the frontend asked for a stop.
    """
    sides = find_sides(infos)
    split = "test" if any("test" in splits_of(info) for info in infos) else "val"
    answers: dict[int, Answers] = {}
    failed: dict[int, str] = {}
    for index, run in enumerate(runs):
        try:
            answers[index] = answers_of(run, split, data_root=data_root, frontend=frontend)
        except (CannotPair, TrainkitError) as error:
            frontend.check("nothing was compared")
            failed[index] = str(error)
    is_regression = any(not one.is_classification for one in answers.values())
    known = tuple(name for name in METRICS if (name in _OF_CLASSES) != is_regression)
    metric = metric if metric in known else known[0]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(sides) - 1)
    differences: dict[int, Difference] = {}
    reasons: dict[int, str] = {}
    for number, side in enumerate(sides):
        if number == 0 or failed.keys() & {*sides[0].runs, *side.runs}:
            continue
        try:
            groups = pair([answers[run] for run in sides[0].runs], [answers[run] for run in side.runs])
        except CannotPair as error:
            reasons[number] = str(error)
        else:
            differences[number] = compare_sides(groups, metric, confidence=confidence)
    scores = {
        run: METRICS[metric](one.predictions, one.targets, np.ones(len(one.targets)))
        for run, one in answers.items()
        if one.is_classification == (metric in _OF_CLASSES)
    }
    unfinished = [run for run in answers if infos[run].get("status") != "finished"]
    return Paired(split, metric, confidence, sides, scores, differences, reasons, failed, unfinished)


def splits_of(info: Mapping[str, Any]) -> Mapping[str, Any]:
    fingerprint = info.get("data_fingerprint")
    found = fingerprint.get("splits") if isinstance(fingerprint, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def find_sides(infos: Sequence[Mapping[str, Any]]) -> list[Side]:
    """Runs whose configs differ in their seeds alone are one side."""
    found: dict[str, list[int]] = {}
    for index, info in enumerate(infos):
        config = {key: value for key, value in by_key(info.get("config") or {}).items() if key not in _OF_SEEDS}
        found.setdefault(json.dumps(config, sort_keys=True, default=str) if config else f"run {index}", []).append(
            index
        )
    return [Side(runs) for runs in found.values()]


def answers_of(run: RunDir, split: str, *, data_root: Path | None = None, frontend: Frontend) -> Answers:
    """What the best checkpoint answers to the samples of a split.

    Raises:
        CannotPair: it has no checkpoint, no such split, or other data than in its training.
        TrainkitError: the checkpoint is damaged, or the data are gone.
    """
    checkpoint = best_of(run.checkpoints)
    if checkpoint is None:
        raise CannotPair("the run has no checkpoint")
    trained = open_trained(checkpoint, data_root=data_root)
    setup = setup_on_data(trained, frontend=frontend)
    data, fingerprint = setup.data, trained.saved["data_fingerprint"]
    if split not in data.splits:
        raise CannotPair(f"the run has no {SPLITS[split]} split")
    if changes := describe_changes(fingerprint, data.fingerprint):
        raise CannotPair(f"the data are not those of the training any more: {'; '.join(changes)}")
    _, outputs = score_and_keep(setup, split, frontend=frontend, stopped="nothing was compared")
    if not outputs.isfinite().all():
        raise CannotPair("the model answers with NaN or infinity")
    if setup.loss.is_classification:
        predictions = setup.loss.predictions(outputs).argmax(dim=1).numpy()
    else:
        predictions = in_own_units(outputs.numpy(), data.target_scale)
    spec, part = setup.config.dataset, data.splits[split].part
    about = dict(fingerprint["parts"][part])
    if isinstance(spec, Table):  # the same rows, also where another config reads other columns of them
        about = {key: value for key, value in about.items() if key not in ("inputs", "shape", "weights")}
    return Answers(
        tested_on={
            "source": fingerprint["source"],
            "class_names": list(data.class_names),
            "target_names": list(data.target_names),
            "part": about,
            "split": fingerprint["splits"][split],
        },
        samples=data.splits[split].indices,
        targets=data.split_targets(split),
        predictions=predictions,
    )


def pair(first: Sequence[Answers], second: Sequence[Answers]) -> list[Group]:
    """The runs of two sides, grouped by the samples that they were tested on.

    Raises:
        CannotPair: a run has no partner on the other side.
    """
    groups: dict[str, tuple[list[Answers], list[Answers]]] = {}
    for place, side in enumerate((first, second)):
        for answers in side:
            groups.setdefault(json.dumps(answers.tested_on, sort_keys=True), ([], []))[place].append(answers)
    for one, other in groups.values():
        if not one or not other:
            raise CannotPair(why_apart((one or first)[0].tested_on, (other or second)[0].tested_on))
    return [
        Group(
            samples=one[0].samples,
            targets=one[0].targets,
            first=[answers.predictions for answers in one],
            second=[answers.predictions for answers in other],
        )
        for one, other in groups.values()
    ]


def why_apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Why samples of two runs cannot be paired."""
    names = [one["class_names"] or one["target_names"] for one in (first, second)]
    if names[0] != names[1]:
        return f"they answer different questions: {listed(names[0], limit=3)}, and {listed(names[1], limit=3)}"
    if first["source"] != second["source"]:
        return f"they were tested on different data: {first['source']}, and {second['source']}"
    if first["part"] != second["part"]:
        keys = sorted(
            key for key in {*first["part"], *second["part"]} if first["part"].get(key) != second["part"].get(key)
        )
        return f"the data that they were tested on differ ({', '.join(keys)})"
    return (
        "their test splits hold different samples of the same data (another seed, fraction or way to split); runs with "
        "the same seeds can be compared"
    )


def sentences(paired: Paired, *, sides: Sequence[str], runs: Sequence[str]) -> list[str]:
    """What came out of it.

    Args:
        sides, runs: their names.
    """
    of = SPLITS[paired.split]
    found = [_sentence(one, paired, sides[number], sides[0]) for number, one in paired.differences.items()]
    for number, why in paired.reasons.items():
        found.append(f"{sides[number]} and {sides[0]} are not compared sample by sample: {why}.")
    found += [
        f"{runs[run]} is not compared sample by sample: {why.removesuffix('.')}." for run, why in paired.failed.items()
    ]
    if len(paired.sides) == 1 and paired.scores:
        values = [metric_text(paired.metric, value) for value in sorted(paired.scores.values())]
        found.append(
            f"All are one config, with different seeds: {of} {paired.metric} from {values[0]} to {values[-1]}."
        )
    found += [f"{runs[run]} is not finished: its best checkpoint so far answers." for run in paired.unfinished]
    if paired.differences and not any(one.with_seeds for one in paired.differences.values()):
        found.append("That is about these runs: what other seeds would give, two or more runs of each config show.")
    if paired.differences and paired.split == "val":
        found.append("The validation split chose the checkpoints too, so that all of them look better than they are.")
    return found


def _sentence(one: Difference, paired: Paired, second: str, first: str) -> str:
    """Better, worse, or not to be told apart; with the difference and its interval."""
    if one.verdict == "not told apart":
        said = f"{second} and {first} cannot be told apart"
    else:
        said = f"{second} is {one.verdict} than {first}"
    size, unit = (100, " points") if is_rate(one.metric) else (1, "")
    change, low, high = (f"{size * value:+.3g}" for value in (one.difference, one.low, one.high))
    values = f"{metric_text(one.metric, one.second)} to {metric_text(one.metric, one.first)}"
    how = "paired bootstrap" + (" with the spread of the runs" if one.with_seeds else "")
    if one.discordant is not None:
        gained, lost = (counted(number, "sample") for number in one.discordant)
        letters = [name.partition(" ")[0] for name in (second, first)]
        right = f"{gained} that {letters[0]} alone has right, {lost} that {letters[1]} alone has"
        how = f"McNemar's exact test, p = {one.p_value:.2g}; {right}"
    level = f"{100 * paired.confidence:.3g} % interval {low} to {high}"
    where = counted(one.num_samples, f"{SPLITS[paired.split]} sample")
    return f"{said} on {where}: {one.metric} {values}, {change}{unit} ({level}; {how})."


def as_json(paired: Paired) -> dict[str, Any]:
    """As plain data; runs and sides by their numbers."""
    return {
        "split": paired.split,
        "metric": paired.metric,
        "confidence": paired.confidence,
        "sides": [list(side.runs) for side in paired.sides],
        "scores": {str(run): value for run, value in paired.scores.items()},
        "differences": [
            {"side": number, "verdict": one.verdict, "difference": one.difference, **asdict(one)}
            for number, one in paired.differences.items()
        ],
        "not_compared": [
            *({"side": number, "why": why} for number, why in paired.reasons.items()),
            *({"run": run, "why": why} for run, why in paired.failed.items()),
        ],
    }
