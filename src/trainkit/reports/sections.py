"""The sections of the report page; one that has nothing to tell is empty."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.reports.charts import Line, bars, line_chart, scatter
from trainkit.reports.history import is_rate, main_metric, number, title_of
from trainkit.reports.markup import Content, Markup, fold, join, section, table, tag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit.reports.page import Evaluated, PageData

MAX_CONFUSION = 24
MAX_CLASSES = 60
MAX_SIDE = 160
"""Pixels of an embedded picture: the page stays small."""
CHECKED = (
    "inputs out of scale, a learning rate that is too high or too low, labels that do not belong to their samples, "
    "overfitting, loss spikes, classes that are never predicted, dead units, a validation set that is too small, "
    "and waiting for data"
)


def summary(data: PageData, name: str) -> Markup:
    """Name, state, one sentence, and the numbers that matter."""
    info, history = data.info, data.history
    word, _, why = data.status.partition(":")
    tone = {"finished": "good", "failed": "bad"}.get(word, "warn")
    config = info.get("config", {})
    parts = [f"{_type(config, 'model')} on {_type(config, 'dataset')}"]
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
    metrics = _metrics(data)
    for split in ("val", "test"):
        metric = main_metric(list(f"{split}_{key}" for key in metrics.get(split, {})))
        if metric is None:
            continue
        value = metrics[split][metric]
        interval = None
        if data.evaluated is not None and data.evaluated.split == split:
            interval = data.evaluated.report.intervals.get(metric)
        note = f"95 %: {form(metric, interval.low)} to {form(metric, interval.high)}" if interval else "best checkpoint"
        cards.append((f"{_SPLITS[split]} {title_of(metric)}", form(metric, value), note))
    best = data.history.best_epoch
    if best is not None:
        cards.append(("best epoch", str(best), f"of {len(data.history)}, by {_monitor(data)}"))
    samples = data.info.get("facts", {}).get("num_samples", {})
    if samples:
        rest = ", ".join(f"{_SPLITS[split]} {count:,}" for split, count in samples.items() if split != "train")
        cards.append(("training samples", f"{samples.get('train', 0):,}", rest))
    parameters = sum(int(row.get("parameters", 0)) for row in data.layers)
    if parameters:
        cards.append(("parameters", f"{parameters:,}", f"{len(data.layers)} layers"))
    return cards


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
            f"Loss ({_type(data.info.get('config', {}), 'loss')}, mean over samples)",
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


def scores(data: PageData) -> Markup:
    metrics = _metrics(data)
    if not metrics:
        text = "The best checkpoint was not scored: the run did not come to its end."
        return section("Scores", tag("p", text), id="scores")
    evaluated = data.evaluated
    splits = list(metrics)
    extra = evaluated.report.metrics if evaluated is not None else {}
    names = list(dict.fromkeys([*extra, *(name for scores in metrics.values() for name in scores)]))
    rows: list[list[Content]] = []
    for name in names:
        row: list[Content] = [title_of(name)]
        for split in splits:
            value = metrics[split].get(name)
            if evaluated is not None and split == evaluated.split:
                value = extra.get(name, value)
            row.append("" if value is None else form(name, number(value)))
        if evaluated is not None and evaluated.split in splits:
            interval = evaluated.report.intervals.get(name)
            row.append(f"{form(name, interval.low)} to {form(name, interval.high)}" if interval else "")
        rows.append(row)
    header = ["metric", *(_SPLITS[split] for split in splits)]
    if evaluated is not None and evaluated.split in splits:
        header.append(f"95 % interval, {_SPLITS[evaluated.split]}")
    checkpoint = data.info.get("best_checkpoint", "")
    caption = "The best checkpoint" + (f" (epoch {data.history.best_epoch})" if data.history.best_epoch else "")
    note = tag("p", checkpoint, class_="soft") if checkpoint else None
    missing = tag("p", data.missing, class_="soft") if data.missing else None
    return section("Scores", table(caption, header, rows), note, missing, id="scores")


def _metrics(data: PageData) -> Mapping[str, Mapping[str, float]]:
    """By split: what the run wrote down at its end, or where it did not come to it, what was scored for this page."""
    written = data.info.get("metrics") or {}
    if written or data.evaluated is None:
        return written
    return {data.evaluated.split: data.evaluated.report.metrics}


def classes(data: PageData) -> Markup:
    """Per class and confusion; or truth against prediction for a regression."""
    if data.evaluated is None:
        return Markup("")
    report, where = data.evaluated.report, _SPLITS[data.evaluated.split]
    if not hasattr(report, "per_class"):
        points = [
            (float(true), float(said))
            for true, said in zip(report.targets[:, 0], report.predictions[:, 0], strict=True)
        ]
        name = report.target_names[0]
        chart = scatter(
            f"Predicted against true: {name} ({where})",
            points,
            describe=f"{len(points)} samples; on the dotted diagonal a prediction is exact.",
            x_label=f"true {name}",
            y_label=f"predicted {name}",
        )
        return section("Predictions", tag("div", chart, class_="charts"), id="classes")
    listed = (
        sorted(report.per_class, key=lambda row: row.f1)[:MAX_CLASSES]
        if len(report.per_class) > MAX_CLASSES
        else report.per_class
    )
    rows: list[list[Content]] = [
        [row.name, *(form("f1", value) for value in (row.precision, row.recall, row.f1)), f"{row.support:,}"]
        for row in listed
    ]
    more = f", the {MAX_CLASSES} lowest F1 of {len(report.per_class)}" if len(listed) < len(report.per_class) else ""
    per_class = table(
        f"Scores of each class on the {where} split{more}", ["class", "precision", "recall", "F1", "samples"], rows
    )
    side_by_side = tag("div", per_class, tag("div", _confusion(data.evaluated, where)), class_="pair")
    return section("Classes", side_by_side, id="classes")


def _confusion(evaluated: Evaluated, where: str) -> Markup:
    report: Any = evaluated.report
    names = report.class_names
    confused = [[f"{true} taken for {said}", f"{count:,}"] for true, said, count in report.most_confused(10)]
    pairs = (
        table(f"Most frequent mistakes on the {where} split", ["mistake", "samples"], confused) if confused else None
    )
    if len(names) > MAX_CONFUSION:
        return join(pairs)
    rows: list[list[Content]] = []
    for index, row in enumerate(report.confusion.tolist()):
        total = sum(row) or 1
        cells: list[Content] = []
        for column, count in enumerate(row):
            kind = "none" if not count else "hit-cell" if column == index else "miss"
            cells.append(tag("td", f"{count:,}", class_=kind, style=f"--s:{count / total:.2f}" if count else None))
        rows.append([names[index], *cells])
    matrix = table(
        f"Confusion matrix, {where} split: rows are the true classes, columns the predicted ones; mistakes are bold",
        [tag("span", "true \\ predicted", class_="soft"), *names],
        rows,
        class_="confusion",
    )
    return join(matrix, pairs)


def mistakes(data: PageData) -> Markup:
    evaluated = data.evaluated
    if evaluated is None:
        return Markup("")
    report: Any = evaluated.report
    where = _SPLITS[evaluated.split]
    if not hasattr(report, "mistakes"):
        rows: list[list[Content]] = [
            [
                name,
                row["target"],
                f"{row['true']:.5g}",
                f"{row['predicted']:.5g}",
                f"{row['predicted'] - row['true']:+.4g}",
            ]
            for name, row in zip(evaluated.sample_names, report.worst(), strict=False)
        ]
        grid = table(f"Largest errors on the {where} split", ["sample", "target", "true", "predicted", "error"], rows)
        return section("Largest errors", grid, id="mistakes")
    if not report.num_mistakes:
        text = f"None: all {report.num_samples:,} samples of the {where} split are right."
        return section("Mistakes", tag("p", text, class_="healthy"), id="mistakes")
    text = (
        f"{report.num_mistakes:,} of {report.num_samples:,} samples of the {where} split are wrong. "
        f"These are the {len(report.mistakes)} that the model was surest of."
    )
    if not evaluated.images:
        rows = [
            [name, mistake.true, mistake.predicted, percent(mistake.probability)]
            for name, mistake in zip(evaluated.sample_names, report.mistakes, strict=False)
        ]
        grid = table("Most confidently wrong", ["sample", "true", "predicted", "probability"], rows)
        return section("Mistakes", tag("p", text), grid, id="mistakes")
    items = []
    for name, mistake, image in zip(evaluated.sample_names, report.mistakes, evaluated.images, strict=False):
        alt = f"sample {name}, a {mistake.true} taken for {mistake.predicted}"
        caption = tag(
            "figcaption",
            tag("strong", mistake.true),
            f", taken for {mistake.predicted} ({percent(mistake.probability)})",
        )
        items.append(
            tag("li", tag("figure", tag("img", src=data_url(image), alt=alt, loading="lazy", title=name), caption))
        )
    return section("Mistakes", tag("p", text), tag("ul", items, class_="samples"), id="mistakes")


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
    values = flatten(data.info.get("config", {}))
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


_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def form(metric: str, value: float, *, short: bool = False) -> str:
    """A number as its metric is read: shares in percent."""
    if value is None or math.isnan(value):
        return "–"
    if is_rate(metric):
        return f"{100 * value:.4g} %" if short else f"{100 * value:.2f} %"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """99.96 % is not 100 %: nobody is quite sure before rounding."""
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds != seconds:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def flatten(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every value of a plain config with its key path, as ``LoadedConfig.origins`` names them."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flatten(item, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [pair for index, item in enumerate(value) for pair in flatten(item, f"{path}[{index}]")]
    return [(path, value)]


def data_url(image: NDArray[np.uint8]) -> str:
    """A picture (C, H, W) as the text of a PNG file that an ``img`` shows without a request."""
    from PIL import Image

    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _described(data: PageData, metric: str) -> str:
    told = []
    for split in ("train", "val"):
        points = data.history.series(f"{split}_{metric}")
        if points:
            first, last = form(metric, points[0][1]), form(metric, points[-1][1])
            told.append(f"{_SPLITS[split]}: {first} after the first epoch, {last} after the last")
    best = data.history.best_epoch
    return "; ".join(told) + (f"; best epoch {best}." if best is not None else ".")


def _enough(points: Sequence[tuple[float, float]], epochs: int) -> list[tuple[float, float]]:
    """Fewer than two logged batches in an epoch would draw a line that was never there."""
    return list(points) if len(points) > 2 * epochs else []


def _type(config: Mapping[str, Any], key: str) -> str:
    spec = config.get(key)
    return str(spec.get("type", key)) if isinstance(spec, Mapping) else str(spec or key)


def _monitor(data: PageData) -> str:
    monitor = data.info.get("monitor") or data.info.get("config", {}).get("checkpoint", {}).get("monitor", "")
    split, _, metric = str(monitor).partition("_")
    return f"{_SPLITS.get(split, split)} {title_of(metric)}"


def _origin(origin: str | None) -> str:
    return origin or "default"


def _short(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
