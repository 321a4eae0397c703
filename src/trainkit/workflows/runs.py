"""``trainkit runs``: the run folders side by side. Reads their JSON only, and never imports torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import UserError
from trainkit.recorders import history_of, read_json_lines
from trainkit.system import RunDir, durable, list_runs
from trainkit.wording import better, by_key
from trainkit.workflows.find import find_run

if TYPE_CHECKING:
    from trainkit.findings import Finding
    from trainkit.reports import Comparison

_TAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class RunSummary:
    """One line of the list."""

    run: RunDir
    status: str
    """finished, running, interrupted, failed: why, or unknown: why."""
    name: str
    dataset: str
    model: str
    optimizer: str
    lr: float | None
    """``optimizer.lr`` of the config, where the schedule starts or has its highest value."""
    monitor: str
    score: float | None
    """Of the best checkpoint, by ``monitor``."""
    epochs: int
    seconds: float | None
    started: str
    """YYYY-MM-DDTHH:MM:SS"""

    def as_json(self) -> dict[str, Any]:
        described = {key: value for key, value in vars(self).items() if key != "run"}
        return {"run": str(self.run.path), **described}


def summarize(run: RunDir) -> RunSummary:
    """The summary from run.json; missing values come from the journal of checkpoints and the end of the log."""
    info = run.read_info()
    status = status_of(run, info)
    config = info.get("config", {})
    monitor = str(info.get("monitor") or _type(config, "checkpoint", "monitor") or "")
    score, epochs, seconds = _score(info, monitor), info.get("epochs_completed"), info.get("seconds")
    if status != "finished" or score is None or epochs is None:
        last = _last_epoch(run)
        score = _journal_score(run) if score is None else score
        if status != "finished" or epochs is None:
            epochs = last.get("epoch", 0)
            spent = [last.get(f"{part}_seconds") for part in ("train", "validation", "checkpoint")]
            seconds = max(run.seconds, sum(part for part in spent if isinstance(part, int | float))) or None
    return RunSummary(
        run=run,
        status=status,
        name=str(info.get("name") or run.path.name.partition("_")[2]),
        dataset=_type(config, "dataset", "type"),
        model=_type(config, "model", "type"),
        optimizer=_type(config, "optimizer", "type"),
        lr=_finite(by_key(config).get("optimizer.lr")),
        monitor=monitor,
        score=score,
        epochs=epochs if isinstance(epochs, int) else 0,
        seconds=_finite(seconds),
        started=str(info.get("started") or _time_of(run)),
    )


def status_of(run: RunDir, info: Mapping[str, Any]) -> str:
    """As ``RunDir.status``, for a run.json that was read already."""
    if "problem" in info:
        return f"unknown: {info['problem']}"
    if not info:
        return "unknown: there is no run.json"
    status = str(info.get("status", "unknown"))
    return "interrupted (killed)" if status == "running" and run.lock_owner() is None else status


def list_summaries(
    runs_dir: Path,
    *,
    name: str | None = None,
    dataset: str | None = None,
    status: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[RunSummary]:
    """The runs of a folder, oldest first.

    Args:
        name: a part of the name, or a pattern with ``*``.
        dataset: likewise, of the data set's type.
        status: finished, running, interrupted or failed.
        since: the first day, YYYY-MM-DD (or a longer prefix of the time).
        until: the last day.
    """
    found = []
    for run in list_runs(runs_dir):
        day = _time_of(run)
        if (since and day[: len(since)] < since) or (until and day[: len(until)] > until):
            continue
        if name and not (_fits(run.path.name.partition("_")[2], name) or _fits(run.path.name, name)):
            continue
        summary = summarize(run)
        if dataset and not _fits(summary.dataset, dataset):
            continue
        if status and not summary.status.startswith(status):
            continue
        found.append(summary)
    return found


def sort_summaries(summaries: Sequence[RunSummary], by: str) -> list[RunSummary]:
    """The runs in ascending order of a field, those without a value last; equal ones stay as they are.

    Scores go from the best to the worst, and those of one monitor stand together: others cannot be compared.
    """
    field = "seconds" if by == "time" else by

    def value(summary: RunSummary) -> Any:
        if by == "score" and summary.score is not None:
            return summary.monitor, summary.score if better(summary.monitor) == "min" else -summary.score
        return getattr(summary, field)

    known = [summary for summary in summaries if getattr(summary, field) not in (None, "")]
    return [*sorted(known, key=value), *(summary for summary in summaries if summary not in known)]


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not the same in all, with the value in each; None where one has no such key."""
    flat = [by_key(config) for config in configs]
    keys = dict.fromkeys(key for values in flat for key in values)
    values = {key: [one.get(key) for one in flat] for key in keys if key != "name"}
    return {key: found for key, found in values.items() if any(one != found[0] for one in found)}


def compare(given: Sequence[str], *, runs_dir: Path, metric: str | None = None) -> Comparison:
    """Put runs side by side.

    Args:
        given: run folders or names, at least two; none for the newest two.
        metric: of the epochs, such as ``val_loss``; None chooses one.

    Raises:
        UserError: fewer than two, no such run, or a metric that none of them has.
    """
    from trainkit.reports import Compared, Comparison, pick_metric

    found = [find_run(one, runs_dir=runs_dir) for one in given] if given else list_runs(runs_dir)[-2:]
    if len({run.path.resolve() for run in found}) < 2:
        raise UserError("nothing to compare: give at least two different runs; `trainkit runs list` shows them")
    runs = []
    for run in found:
        info = run.read_info()
        history = history_of(read_json_lines(run.metrics))
        runs.append(Compared(str(run.path), status_of(run, info), info, history))
    known = list(dict.fromkeys(name for run in runs for name in run.history.metric_names()))
    if metric is not None and metric not in known:
        raise UserError(f"--metric {metric}: these runs have {', '.join(known) or 'no epochs'}; take one of these")
    differences = config_differences([run.info.get("config", {}) for run in runs])
    return Comparison(runs, differences, metric or pick_metric(runs))


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the overlay as ``compare.html`` and ``compare.png``; returns the files.

    Raises:
        durable.WriteError: the folder is not writable.
    """
    from trainkit.reports import build_comparison_page, draw_overlay, save_figure

    page, picture = folder / "compare.html", folder / "compare.png"
    histories = {name: run.history for name, run in zip(comparison.tags, comparison.runs, strict=True)}
    drawn = draw_overlay(histories, metric=comparison.metric)
    if drawn is not None:
        save_figure(drawn.figure, picture)
    durable.write_text(page, build_comparison_page(comparison, [] if drawn is None else drawn.charts))
    return [page] if drawn is None else [page, picture]


def findings_of(run: RunDir, info: Mapping[str, Any], status: str) -> list[Finding]:
    """The findings on a run, from its records."""
    from trainkit.config.schema.transforms import COSTLY
    from trainkit.findings import evidence_from_records, find

    history = history_of(read_json_lines(run.metrics))
    return find(evidence_from_records(info, history, status=status, costly_transforms=COSTLY))


def _score(info: Mapping[str, Any], monitor: str) -> float | None:
    split, _, metric = monitor.partition("_")
    return _finite(info.get("metrics", {}).get(split, {}).get(metric))


def _journal_score(run: RunDir) -> float | None:
    try:
        journal = json.loads((run.checkpoints / "checkpoints.json").read_bytes())
        scores = {entry["name"]: entry["score"] for entry in journal["entries"]}
        score = scores.get(journal["best"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return _finite(score)


def _last_epoch(run: RunDir) -> dict[str, Any]:
    """The last epoch's record, found from the end of the log; {} where there is none."""
    try:
        with open(run.metrics, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        if b'"epoch", ' in line[:40]:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and record.get("type") == "epoch":
                return record
    return {}


def _time_of(run: RunDir) -> str:
    """When the folder was made."""
    text = run.made
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[9:11]}:{text[11:13]}:{text[13:15]}" if text else ""


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None


def _type(config: Any, *keys: str) -> str:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return "" if config is None else str(config)


def _fits(text: str, pattern: str) -> bool:
    text, pattern = text.lower(), pattern.lower()
    return fnmatch(text, pattern) if set(pattern) & set("*?[") else pattern in text
