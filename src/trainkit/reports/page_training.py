"""The sections of the report page about the training: what stands out, the curves, where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from trainkit.recorders.history import main_metric, number, title_of
from trainkit.reports.charts import Line, bars, line_chart
from trainkit.reports.markup import Content, Markup, fold, join, section, table, tag
from trainkit.reports.page_data import PageData
from trainkit.reports.wording import form, kind_of
from trainkit.wording import SPLITS, duration, percent

CHECKED = (
    "inputs out of scale, a learning rate that is too high or too low, labels that do not belong to their samples, "
    "overfitting, loss spikes, classes that are never predicted, dead units, a validation set that is too small, "
    "and waiting for data"
)


def findings(data: PageData) -> Markup:
    if not data.history.epochs and not data.findings:
        return section("Findings", tag("p", "No epoch was completed, so there is nothing to judge yet."), id="findings")
    if not data.findings:
        text = f"Nothing stands out. Looked for: {CHECKED}."
        return section("Findings", tag("p", text, class_="healthy"), id="findings")
    articles = []
    for finding in data.findings:
        lines = [
            f"{change.key}: {change.value}" + (f"   # was {change.was}" if change.was else "")
            for change in finding.changes
        ]
        command = " ".join(
            [f"trainkit train {data.folder}/config.resolved.yaml", *(change.override for change in finding.changes)]
        )
        articles.append(
            tag(
                "article",
                tag("h3", finding.title),
                tag("p", finding.evidence),
                tag("p", finding.suggestion),
                tag("pre", "\n".join(lines), tabindex=0, aria_label="Config lines to change") if lines else None,
                fold("as a command", tag("pre", command, tabindex=0)) if lines and "..." not in command else None,
                class_="finding",
            )
        )
    return section("Findings", articles, id="findings")


def curves(data: PageData) -> Markup:
    history = data.history
    if not history.epochs:
        return Markup("")
    best = history.best_epoch
    mark = None if best is None else (float(best), f"best, epoch {best}")
    charts = [
        line_chart(
            f"Loss ({kind_of(data.info.get('config', {}), 'loss')}, mean over samples)",
            [
                Line("batches", _enough(history.step_series("loss"), len(history)), faint=True),
                Line("training", history.series("train_loss"), style=0),
                Line("validation", history.series("val_loss"), style=1, best=best),
            ],
            describe=_described(data, "loss"),
            log=True,
            mark=mark,
        )
    ]
    names = history.metric_names()
    metric = main_metric(names)
    shown = [metric] if metric else []
    shown += [extra for extra in ("mae",) if metric == "r2" and f"val_{extra}" in names]
    for name in shown:
        charts.append(
            line_chart(
                title_of(name).capitalize() + (" (share of samples)" if name == "accuracy" else ""),
                [
                    Line("training", history.series(f"train_{name}"), style=0),
                    Line("validation", history.series(f"val_{name}"), style=1, best=best),
                ],
                describe=_described(data, name),
                form=lambda value, name=name: form(name, value, short=True),  # type: ignore[misc]
                mark=mark,
            )
        )
    rates = sorted([*history.step_series("lr"), *history.series("lr")])
    charts.append(
        line_chart(
            "Learning rate",
            [Line("learning rate", rates, label="")],
            describe=f"From {rates[0][1]:.3g} to {rates[-1][1]:.3g}; at most {max(y for _, y in rates):.3g}."
            if rates
            else "",
            form=lambda value: f"{value:.3g}",
            zero=True,
        )
    )
    return section("Learning curves", tag("div", charts, class_="charts"), _epoch_table(data), id="curves")


def _epoch_table(data: PageData) -> Markup:
    names = [*data.history.metric_names(), "lr"]
    rows: list[list[Content]] = []
    for record in data.history.epochs:
        star = " (best)" if record["epoch"] == data.history.best_epoch else ""
        rows.append([f"{record['epoch']}{star}", *(form(name, number(record.get(name))) for name in names)])
    header = ["epoch", *(name.replace("_", " ") for name in names)]
    return fold(
        f"All {len(rows)} epochs as a table", table("Numbers behind the curves, one row for each epoch", header, rows)
    )


def _described(data: PageData, metric: str) -> str:
    told = []
    for split in ("train", "val"):
        points = data.history.series(f"{split}_{metric}")
        if points:
            first, last = form(metric, points[0][1]), form(metric, points[-1][1])
            told.append(f"{SPLITS[split]}: {first} after the first epoch, {last} after the last")
    best = data.history.best_epoch
    return "; ".join(told) + (f"; best epoch {best}." if best is not None else ".")


def _enough(points: Sequence[tuple[float, float]], epochs: int) -> list[tuple[float, float]]:
    """Fewer than two logged batches in an epoch would draw a line that was never there."""
    return list(points) if len(points) > 2 * epochs else []


def time_spent(data: PageData) -> Markup:
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
        return Markup("")
    rest = number(data.info.get("seconds")) - known
    if rest > 0 and not data.info.get("resumed_at_step"):
        parts.append(("scoring, reports and the rest", rest))
    total = sum(seconds for _, seconds in parts)
    told = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts)
    rows: list[list[Content]] = [
        [
            join(tag("span", class_=f"key key{index}", aria_hidden="true"), name),
            duration(seconds),
            percent(seconds / total),
        ]
        for index, (name, seconds) in enumerate(parts)
    ]
    seen = number(history.epochs[-1].get("samples_seen"))
    seconds = history.lasting("train_seconds")
    rate = f" Training went through {seen / seconds:,.0f} samples a second." if seen > 0 and seconds > 0 else ""
    grid = table(f"Where {duration(total)} went", ["part", "time", "share"], rows, label="Where the time went")
    return section(
        "Time", bars(parts, describe=f"Shares of the time: {told}."), grid, tag("p", rate.strip()), id="time"
    )
