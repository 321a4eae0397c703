"""``report.html``: a run in one file that loads nothing and runs no script.

The templates hold the HTML; this file makes their values from the records of a run and its evaluation, numbers as text.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.recorders import main_metric, metric_text, number, title_of
from trainkit.reports.page_data import PageData
from trainkit.reports.page_run import config_section, environment_section, files_section
from trainkit.reports.page_scores import classes_section, ends, mistakes_section, scores_section
from trainkit.wording import SPLITS, counted, duration, enumerated, percent, stage_times

if TYPE_CHECKING:
    import jinja2

    from trainkit.findings import Finding

TEMPLATES = Path(__file__).with_name("templates")


def build_run_page(data: PageData) -> str:
    """The whole file as text."""
    name = str(data.info.get("name") or data.folder)
    shown = {
        "findings": [_finding(finding, data.folder) for finding in data.findings],
        "curves": _curves(data),
        "scores": scores_section(data),
        "predictions": data.predictions,
        "classes": classes_section(data.evaluated),
        "mistakes": mistakes_section(data.evaluated),
        "time": _time(data),
        "network": _network(data.layers),
        "files": files_section(data.files),
        "config": config_section(data.info),
        "environment": environment_section(data.info),
    }
    regression = data.info.get("task") == "regression"
    titles = {"curves": "Learning curves", "mistakes": "Largest errors" if regression else "Mistakes"}
    always = ("findings", "scores")
    return render(
        "run.html.j2",
        title=f"{name}: run report",
        name=name,
        folder=data.folder,
        head=_head(data),
        titles={id: titles.get(id, id.capitalize()) for id in shown if id in always or shown[id]},
        has_epochs=bool(data.history.epochs),
        where=SPLITS[data.evaluated.split] if data.evaluated else "",
        missing=data.missing,
        **shown,
    )


def render(template: str, **values: Any) -> str:
    """A page by its template; values are escaped, and a value that is missing is an error."""
    return _jinja_environment().get_template(template).render(values)


@functools.cache
def _jinja_environment() -> jinja2.Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def section_type(config: Mapping[str, Any], section: str) -> str:
    """The type that a section of a plain config names; the section's own name where it names none."""
    spec = config.get(section)
    return str(spec.get("type", section)) if isinstance(spec, Mapping) else str(spec or section)


def _head(data: PageData) -> dict[str, Any]:
    """Status, one sentence, and the numbers that matter."""
    info, history = data.info, data.history
    status, _, reason = data.status.partition(":")
    config = info.get("config", {})
    parts = [f"{section_type(config, 'model')} on {section_type(config, 'dataset')}"]
    if history.epochs:
        parts.append(f"{counted(len(history), 'epoch')}, {counted(history.epochs[-1]['step'], 'step')}")
    if info.get("seconds"):
        parts.append(duration(number(info["seconds"])))
    device = info.get("choices", {}).get("device", {}).get("value")
    if device:
        parts.append(f"on {device}")
    return {
        "status": status,
        "tone": {"finished": "good", "failed": "bad"}.get(status, "warn"),
        "reason": reason.strip(),
        "summary": "; ".join(parts),
        "cards": _cards(data),
    }


def _cards(data: PageData) -> list[tuple[str, str, str]]:
    """(term, value, note)"""
    cards = []
    for split in ("val", "test"):
        metrics = data.metrics.get(split, {})
        metric = main_metric([f"{split}_{name}" for name in metrics])
        if metric is None:
            continue
        interval = None
        if data.evaluated is not None and data.evaluated.split == split:
            interval = data.evaluated.report.intervals.get(metric)
        note = f"95 %: {ends(metric, interval)}" if interval else "best checkpoint"
        cards.append((f"{SPLITS[split]} {title_of(metric)}", metric_text(metric, metrics[metric]), note))
    best = data.history.best_epoch
    if best is not None:
        cards.append(("best epoch", str(best), f"of {len(data.history)}, by {_monitor(data.info)}"))
    samples = data.info.get("facts", {}).get("num_samples", {})
    if samples:
        rest = ", ".join(f"{SPLITS[split]} {count:,}" for split, count in samples.items() if split != "train")
        cards.append(("training samples", f"{samples.get('train', 0):,}", rest))
    parameters = sum(int(row.get("parameters", 0)) for row in data.layers)
    if parameters:
        cards.append(("parameters", f"{parameters:,}", f"{counted(len(data.layers), 'layer')}"))
    return cards


def _monitor(info: Mapping[str, Any]) -> str:
    monitor = info.get("monitor") or info.get("config", {}).get("checkpoint", {}).get("monitor", "")
    split, _, metric = str(monitor).partition("_")
    return f"{SPLITS.get(split, split)} {title_of(metric)}"


def _finding(finding: Finding, folder: str) -> dict[str, Any]:
    lines = [
        f"{change.key}: {change.value}" + (f"   # was {change.was}" if change.was else "") for change in finding.changes
    ]
    overrides = " ".join(change.override for change in finding.changes)
    command = f"trainkit train {folder}/config.resolved.yaml {overrides}"
    return {
        "title": finding.title,
        "evidence": finding.evidence,
        "suggestion": finding.suggestion,
        "lines": lines,
        "command": command if lines and "..." not in command else "",
    }


def _curves(data: PageData) -> dict[str, Any] | None:
    """The charts, and the numbers behind them."""
    history = data.history
    if not history.epochs:
        return None
    names = [*history.metric_names(), "lr"]
    rows = [
        [
            f"{record['epoch']}{' (best)' if record['epoch'] == history.best_epoch else ''}",
            *(metric_text(name, number(record.get(name))) for name in names),
        ]
        for record in history.epochs
    ]
    factors = [f"{factor:g}" for factor in data.info.get("lr_scales") or [] if factor != 1]
    note = "The learning rate is that of the schedule; some parameters have it times {}."
    return {
        "charts": data.charts,
        "note": note.format(enumerated(factors)) if factors else "",
        "header": ["epoch", *(name.replace("_", " ") for name in names)],
        "rows": rows,
    }


def _time(data: PageData) -> dict[str, Any] | None:
    """Where the seconds of the run went."""
    history = data.history
    waiting = history.lasting("data_seconds")
    parts = [
        ("computing", history.lasting("train_seconds") - waiting),
        ("waiting for data", waiting),
        ("validation", history.lasting("validation_seconds")),
        ("checkpoints", history.lasting("checkpoint_seconds")),
    ]
    known = sum(seconds for _, seconds in parts)
    if known <= 0:
        return None
    rest = number(data.info.get("seconds")) - known
    if rest > 0:
        parts.append(("scoring, reports and the rest", rest))
    total = sum(seconds for _, seconds in parts)
    written = data.info.get("stage_seconds")
    named = written if isinstance(written, Mapping) else {}
    stages = stage_times({str(name): number(value) for name, value in named.items()})
    seen, seconds = number(history.epochs[-1].get("samples_seen")), history.lasting("train_seconds")
    return {
        "total": duration(total),
        "summary": ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts),
        "parts": [
            {
                "name": name,
                "width": round(100 * seconds / total, 2),
                "time": duration(seconds),
                "share": percent(seconds / total),
            }
            for name, seconds in parts
        ],
        "rate": f"Training went through {seen / seconds:,.0f} samples a second." if seen > 0 and seconds > 0 else "",
        "stages": f"After the last epoch: {stages}." if stages else "",
    }


def _network(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not layers:
        return None
    parameters, operations = (sum(int(row[key]) for row in layers) for key in ("parameters", "multiply_adds"))
    return {
        "caption": f"{parameters:,} parameters, {operations:,} multiply-adds for one sample",
        "rows": [
            [row["name"], row["type"], row["output"], f"{row['parameters']:,}", f"{row['multiply_adds']:,}"]
            for row in layers
        ],
    }
