"""The sections of the report page about the run as such: its head, the network, the config, the machine."""

from __future__ import annotations

from typing import Any

from trainkit.recorders.history import main_metric, number, title_of
from trainkit.reports.markup import Content, Markup, fold, join, section, table, tag
from trainkit.reports.page_data import PageData
from trainkit.reports.page_evaluation import scores_by_split
from trainkit.reports.wording import form, kind_of
from trainkit.wording import SPLITS, by_key, duration


def summary(data: PageData, name: str) -> Markup:
    """Name, state, one sentence, and the numbers that matter."""
    info, history = data.info, data.history
    word, _, why = data.status.partition(":")
    tone = {"finished": "good", "failed": "bad"}.get(word, "warn")
    config = info.get("config", {})
    parts = [f"{kind_of(config, 'model')} on {kind_of(config, 'dataset')}"]
    if history.epochs:
        parts.append(f"{len(history)} epochs, {history.epochs[-1]['step']:,} steps")
    if info.get("seconds"):
        parts.append(duration(number(info["seconds"])))
    device = info.get("choices", {}).get("device", {}).get("value")
    if device:
        parts.append(f"on {device}")
    cards = [tag("div", tag("dt", term), tag("dd", value, tag("small", note))) for term, value, note in _cards(data)]
    return join(
        tag("h1", name),
        tag("p", tag("span", word, class_=f"badge {tone}"), " ", tag("span", "; ".join(parts), class_="soft")),
        tag("p", why.strip(), class_="lead") if why else None,
        tag("dl", cards, class_="cards") if cards else None,
    )


def _cards(data: PageData) -> list[tuple[str, str, str]]:
    cards = []
    metrics = scores_by_split(data)
    for split in ("val", "test"):
        metric = main_metric(list(f"{split}_{key}" for key in metrics.get(split, {})))
        if metric is None:
            continue
        value = metrics[split][metric]
        interval = None
        if data.evaluated is not None and data.evaluated.split == split:
            interval = data.evaluated.report.intervals.get(metric)
        note = f"95 %: {form(metric, interval.low)} to {form(metric, interval.high)}" if interval else "best checkpoint"
        cards.append((f"{SPLITS[split]} {title_of(metric)}", form(metric, value), note))
    best = data.history.best_epoch
    if best is not None:
        cards.append(("best epoch", str(best), f"of {len(data.history)}, by {_monitor(data)}"))
    samples = data.info.get("facts", {}).get("num_samples", {})
    if samples:
        rest = ", ".join(f"{SPLITS[split]} {count:,}" for split, count in samples.items() if split != "train")
        cards.append(("training samples", f"{samples.get('train', 0):,}", rest))
    parameters = sum(int(row.get("parameters", 0)) for row in data.layers)
    if parameters:
        cards.append(("parameters", f"{parameters:,}", f"{len(data.layers)} layers"))
    return cards


def _monitor(data: PageData) -> str:
    monitor = data.info.get("monitor") or data.info.get("config", {}).get("checkpoint", {}).get("monitor", "")
    split, _, metric = str(monitor).partition("_")
    return f"{SPLITS.get(split, split)} {title_of(metric)}"


def network(data: PageData) -> Markup:
    if not data.layers:
        return Markup("")
    header = ["layer", "type", "output", "parameters", "multiply-adds"]
    rows: list[list[Content]] = [
        [row["name"], row["type"], row["output"], f"{row['parameters']:,}", f"{row['multiply_adds']:,}"]
        for row in data.layers
    ]
    totals = [sum(int(row[key]) for row in data.layers) for key in ("parameters", "multiply_adds")]
    caption = f"{totals[0]:,} parameters, {totals[1]:,} multiply-adds for one sample"
    return section("Network", fold(caption, table(caption, header, rows)), id="network")


def config(data: PageData) -> Markup:
    """Every value with its origin: what the user wrote first."""
    values = list(by_key(data.info.get("config", {})).items())
    origins = data.info.get("origins", {})
    rows: list[list[Content]] = [[tag("code", key), _short(value), _origin(origins.get(key))] for key, value in values]
    written = [row for row, (key, _) in zip(rows, values, strict=True) if origins.get(key, "default") != "default"]
    if not values:
        return Markup("")
    header = ["key", "value", "from"]
    shown = table("What was written", header, written, class_="text") if written else None
    rest = [row for row in rows if row not in written]
    name = f"{len(rest)} values left at their default" if written else f"All {len(rest)} values"
    return section("Config", shown, fold(name, table(name, header, rest, class_="text")), id="config")


def _origin(origin: str | None) -> str:
    return origin or "default"


def _short(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def environment(data: PageData) -> Markup:
    info = data.info
    rows: list[list[Content]] = []
    for key, term in (
        ("started", "started"),
        ("command", "command"),
        ("host", "machine"),
        ("platform", "system"),
        ("num_cpus", "CPU cores"),
        ("num_threads", "threads"),
        ("gpus", "GPUs"),
    ):
        value = info.get(key)
        if isinstance(value, list):
            value = (" " if key == "command" else ", ").join(map(str, value))
        if value not in (None, ""):
            rows.append([term, str(value)])
    for name, choice in info.get("choices", {}).items():
        rows.append([name, f"{choice.get('value')} ({choice.get('reason')})"])
    rows += [[name, str(version)] for name, version in info.get("versions", {}).items()]
    git = info.get("git")
    if git:
        changed = git.get("changed_files", 0)
        rows.append(["git commit", f"{git.get('commit')}" + (f", {changed} files changed" if changed else "")])
    if not rows:
        return Markup("")
    return section("Environment", table("Where and with what it ran", [], rows, class_="text"), id="environment")
