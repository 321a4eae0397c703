"""Runs side by side: what differs, which is best and fastest, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainkit.findings import chance_reach
from trainkit.recorders import History, main_metric, metric_text, number, title_of
from trainkit.reports.run_page import render
from trainkit.wording import SPLITS, better, duration, enumerated

if TYPE_CHECKING:
    from trainkit.reports.figures import Chart

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    folder: str
    status: str
    info: Mapping[str, Any]
    history: History


@dataclass(frozen=True)
class Comparison:
    """Several runs, and the keys in which they differ."""

    runs: Sequence[Compared]
    differences: Mapping[str, Sequence[Any]]
    """By config key, the value of each run."""
    metric: str
    """The metric of the epochs by which they are compared, such as ``val_accuracy``."""
    paired: Sequence[str] = ()
    """What the comparison sample by sample says, a sentence each; () where there was none."""

    @property
    def labels(self) -> list[str]:
        return [LETTERS[index % 26] + (str(index // 26) if index >= 26 else "") for index in range(len(self.runs))]

    @property
    def names(self) -> list[str]:
        """The letter with what sets the run apart: the first keys that differ."""
        apart = (self._apart(index) or [run.folder.rpartition("/")[2]] for index, run in enumerate(self.runs))
        return [f"{label} ({', '.join(texts)})" for label, texts in zip(self.labels, apart, strict=True)]

    def name_of(self, indices: Sequence[int]) -> str:
        """The letters of runs that differ in their seeds alone, with what sets them apart from the others."""
        apart = [text for text in self._apart(indices[0]) if text.partition(" ")[0] not in ("seed", "fold")]
        label = "+".join(self.labels[index] for index in indices)
        return f"{label} ({', '.join(apart)})" if apart else label

    @property
    def tags(self) -> list[str]:
        """The letter with the first difference, short enough for the end of a line."""
        texts = [(self._apart(index) or [""])[0] for index in range(len(self.runs))]
        return [f"{label} {text[:12]}".strip() for label, text in zip(self.labels, texts, strict=True)]

    def _apart(self, index: int) -> list[str]:
        """Up to two texts that set a run apart."""
        keys = list(self.differences)[:2]
        return [text for text in (_short(key, self.differences[key][index]) for key in keys) if text]

    @property
    def sign(self) -> int:
        """1 where a higher value of the metric is better, else -1."""
        return 1 if better(self.metric) == "max" else -1

    @property
    def target(self) -> float:
        """The value that every run has reached at some epoch: the worst of their best values."""
        bests = [value for value in map(self.best, range(len(self.runs))) if not math.isnan(value)]
        return min(bests, key=lambda value: self.sign * value, default=math.nan)

    def best(self, index: int) -> float:
        """The best value of the metric over the epochs of a run."""
        values = [value for _, value in self.runs[index].history.series(self.metric)]
        return max(values, key=lambda value: self.sign * value, default=math.nan)

    def reached(self, index: int) -> tuple[int, float] | None:
        """The epoch at which a run reached the target, and its seconds of training and validation until then."""
        for record in self.runs[index].history.epochs:
            value = number(record.get(self.metric))
            if not math.isnan(value) and self.sign * value >= self.sign * self.target:
                spent = (number(record.get(f"{part}_seconds")) for part in ("train", "validation"))
                return int(record["epoch"]), sum(seconds for seconds in spent if not math.isnan(seconds))
        return None

    def order(self) -> list[int]:
        """The runs from the best to the worst by the metric, the sooner first among equals."""

        def rank(index: int) -> tuple[bool, float, int]:
            best, reached = self.best(index), self.reached(index)
            return (math.isnan(best), 0.0 if math.isnan(best) else -self.sign * best, reached[0] if reached else 10**9)

        return sorted(range(len(self.runs)), key=rank)

    def verdict(self) -> list[str]:
        """A sentence each on the best run, the fastest run, and whether the difference may be chance."""
        order = self.order()
        if not order or math.isnan(self.best(order[0])):
            return ["None of the runs has a value of " + self.metric + ".", *self.paired]
        first = order[0]
        title = f"{SPLITS.get(self.metric.split('_')[0], '')} {title_of(self.metric)}".strip()
        shown = metric_text(self.metric, self.best(first))
        tied = [index for index in order if metric_text(self.metric, self.best(index)) == shown]
        if len(tied) > 1:
            sentences = [f"A tie for the best {title}: {enumerated(self.names[i] for i in tied)}, each with {shown}."]
        else:
            sentences = [f"Best {title}: {self.names[first]} with {shown}."]
        times = {index: self.reached(index) for index in order}
        fast = [(found[0], index) for index, found in times.items() if found is not None]
        if len(fast) > 1:
            soonest = min(fast)[0]
            fastest = [self.names[index] for epoch, index in fast if epoch == soonest]
            sentences.append(
                f"First at {metric_text(self.metric, self.target)}, which all reached: {enumerated(fastest)}, "
                f"{'a tie ' if len(fastest) > 1 else ''}in epoch {soonest}."
            )
        return [*sentences, *(self.paired or ([] if len(tied) > 1 else self._doubt(order)))]

    def _doubt(self, order: Sequence[int]) -> list[str]:
        if len(order) < 2 or not self.metric.endswith("accuracy"):
            return []
        best, second = self.best(order[0]), self.best(order[1])
        split = self.metric.split("_")[0]
        samples = int(self.runs[order[0]].info.get("facts", {}).get("num_samples", {}).get(split, 0))
        if not samples or math.isnan(second):
            return []
        reach = chance_reach(best, samples)
        if best - second > reach:
            return []
        return [
            f"The best two differ by {100 * (best - second):.2f} points; with {samples:,} {SPLITS[split]} samples "
            f"chance alone moves a score by ± {100 * reach:.2f} points: too few samples to tell the two apart."
        ]


def _short(key: str, value: Any) -> str:
    """``sgd`` for ``optimizer.type: sgd``, ``lr 0.05`` for ``optimizer.lr: 0.05``."""
    last = key.rpartition(".")[2]
    return "" if value is None else f"{value}" if last == "type" else f"{last} {value}"


def pick_metric(runs: Sequence[Compared]) -> str:
    """The main metric of the epochs among those that all runs have."""
    shared = [name for name in runs[0].history.metric_names() if all(run.history.series(name) for run in runs)]
    for names in ([name for name in shared if name.startswith("val_")], shared):
        metric = main_metric(names)
        if metric is not None:
            return next(name for name in names if name.endswith(f"_{metric}"))
    return "val_loss" if "val_loss" in shared else "train_loss"


def build_comparison_page(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """One HTML file that needs nothing from outside."""
    differences = [
        [key, *("–" if value is None else str(value) for value in values)]
        for key, values in comparison.differences.items()
    ]
    return render(
        "compare.html.j2",
        title="Runs compared",
        verdict=" ".join(comparison.verdict()),
        runs=[(name, run.folder) for name, run in zip(comparison.names, comparison.runs, strict=True)],
        labels=comparison.labels,
        drawn=charts,
        numbers=metric_rows(comparison),
        differences=differences,
    )


@dataclass(frozen=True)
class Row:
    """A number of each run, as text."""

    name: str
    cells: Sequence[str]
    best: frozenset[int] = frozenset()
    """The runs with the best value as it is shown, several where they tie; none where all are equal."""


def metric_rows(comparison: Comparison) -> list[Row]:
    """A row for each number, a column for each run."""
    runs, metric = comparison.runs, comparison.metric
    reached = [comparison.reached(index) for index in range(len(runs))]
    target = metric_text(metric, comparison.target)
    epochs, seconds = ([number(found[at]) if found else math.nan for found in reached] for at in (0, 1))
    rows = [
        Row("status", [run.status.partition(":")[0] for run in runs]),
        Row("epochs", [str(len(run.history)) for run in runs]),
        Row("best epoch", [str(run.history.best_epoch or "–") for run in runs]),
        _ranked(f"best {metric}", metric, [comparison.best(index) for index in range(len(runs))]),
        _marked(f"epochs to {target}", epochs, ["–" if math.isnan(value) else f"{value:.0f}" for value in epochs]),
        _marked(f"time to {target}", seconds, [duration(value) for value in seconds]),
    ]
    for split in ("val", "test"):
        scores = [(run.info.get("metrics") or {}).get(split, {}) for run in runs]
        for name in dict.fromkeys(name for score in scores for name in score):
            rows.append(_ranked(f"{split} {name}", name, [number(score.get(name)) for score in scores]))
    rows.append(Row("total time", [duration(number(run.info.get("seconds"))) for run in runs]))
    return rows


def _ranked(name: str, metric: str, values: Sequence[float]) -> Row:
    sign = -1 if better(metric) == "max" else 1
    return _marked(name, [sign * value for value in values], [metric_text(metric, value) for value in values])


def _marked(name: str, costs: Sequence[float], cells: Sequence[str]) -> Row:
    """The row with its lowest costs marked: those that show alike are a tie."""
    known = [index for index, cost in enumerate(costs) if not math.isnan(cost)]
    first = min(known, key=costs.__getitem__, default=None)
    best = frozenset() if first is None else frozenset(index for index in known if cells[index] == cells[first])
    return Row(name, cells, frozenset() if len(best) == len(cells) else best)
