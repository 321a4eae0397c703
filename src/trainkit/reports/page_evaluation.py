"""The sections of the report page about the best checkpoint: scores, classes, mistakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.recorders.history import number, title_of
from trainkit.reports.charts import scatter
from trainkit.reports.markup import Content, Markup, join, section, table, tag
from trainkit.reports.page_data import Evaluated, PageData
from trainkit.reports.wording import form
from trainkit.wording import SPLITS, percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_CONFUSION = 24
MAX_CLASSES = 60
MAX_SIDE = 160
"""Pixels of an embedded picture: the page stays small."""


def scores(data: PageData) -> Markup:
    metrics = scores_by_split(data)
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
    header = ["metric", *(SPLITS[split] for split in splits)]
    if evaluated is not None and evaluated.split in splits:
        header.append(f"95 % interval, {SPLITS[evaluated.split]}")
    checkpoint = data.info.get("best_checkpoint", "")
    caption = "The best checkpoint" + (f" (epoch {data.history.best_epoch})" if data.history.best_epoch else "")
    note = tag("p", checkpoint, class_="soft") if checkpoint else None
    missing = tag("p", data.missing, class_="soft") if data.missing else None
    return section("Scores", table(caption, header, rows), note, missing, id="scores")


def scores_by_split(data: PageData) -> Mapping[str, Mapping[str, float]]:
    """By split: what the run wrote down at its end, or where it did not come to it, what was scored for this page."""
    written = data.info.get("metrics") or {}
    if written or data.evaluated is None:
        return written
    return {data.evaluated.split: data.evaluated.report.metrics}


def classes(data: PageData) -> Markup:
    """Per class and confusion; or truth against prediction for a regression."""
    if data.evaluated is None:
        return Markup("")
    report, where = data.evaluated.report, SPLITS[data.evaluated.split]
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
    where = SPLITS[evaluated.split]
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


def data_url(image: NDArray[np.uint8]) -> str:
    """A picture (C, H, W) as the text of a PNG file that an ``img`` shows without a request."""
    from PIL import Image

    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
