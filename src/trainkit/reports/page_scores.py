"""The sections of the report page about the best checkpoint: scores, classes, mistakes."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from trainkit.recorders import metric_text, number, title_of
from trainkit.reports.page_data import Evaluated, PageData
from trainkit.wording import SPLITS, computed_in, counted, percent, told_apart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit.evaluation import Interval

MAX_CONFUSION = 24
MAX_CLASSES = 60
MAX_SIDE = 160
"""Pixels of an embedded picture: the page stays small."""


def scores_section(data: PageData) -> dict[str, Any] | None:
    """Metrics by split, with the intervals of the split that was evaluated for the page."""
    metrics = data.metrics
    if not metrics:
        return None
    evaluated = data.evaluated if data.evaluated is not None and data.evaluated.split in metrics else None
    found = {split: dict(values) for split, values in metrics.items()}
    if evaluated is not None:
        found[evaluated.split] |= evaluated.report.metrics
    of_report = [] if data.evaluated is None else data.evaluated.report.metrics
    names = dict.fromkeys([*of_report, *(name for values in metrics.values() for name in values)])
    header = ["metric", *(SPLITS[split] for split in metrics)]
    rows = [
        [title_of(name), *(metric_text(name, number(at[name])) if name in at else "" for at in found.values())]
        for name in names
    ]
    if evaluated is not None:
        header.append(f"95 % interval, {SPLITS[evaluated.split]}")
        for name, row in zip(names, rows, strict=True):
            interval = evaluated.report.intervals.get(name)
            row.append(ends(name, interval) if interval else "")
    best, info = data.history.best_epoch, data.info
    precision = info.get("computed_in")  # runs of earlier versions do not say it
    trained_in = info.get("choices", {}).get("precision", {}).get("value", precision)
    return {
        "caption": "The best checkpoint" + (f" (epoch {best})" if best else ""),
        "header": header,
        "rows": rows,
        "checkpoint": info.get("best_checkpoint", ""),
        "precision": precision and computed_in(precision, trained_in=trained_in),
    }


def classes_section(evaluated: Evaluated | None) -> dict[str, Any] | None:
    """Scores of each class, the confusion matrix where it is small, and the most frequent mistakes."""
    if evaluated is None:
        return None
    from trainkit.evaluation import ClassificationReport

    if not isinstance(evaluated.report, ClassificationReport):
        return None
    report, where = evaluated.report, SPLITS[evaluated.split]
    rows = list(report.per_class)
    more = ""
    if len(rows) > MAX_CLASSES:
        rows = sorted(rows, key=lambda row: row.f1)[:MAX_CLASSES]
        more = f", the {MAX_CLASSES} lowest F1 of {len(report.per_class)}"
    matrix = []
    if len(report.class_names) <= MAX_CONFUSION:
        for true, (name, counts) in enumerate(zip(report.class_names, report.confusion.tolist(), strict=True)):
            total = sum(counts) or 1
            cells = [
                {
                    "kind": "none" if not count else "hit-cell" if predicted == true else "miss",
                    "share": f"{count / total:.2f}",
                    "count": f"{count:,}",
                }
                for predicted, count in enumerate(counts)
            ]
            matrix.append((name, cells))
    return {
        "caption": f"Scores of each class on the {where} split{more}",
        "rows": [
            [row.name, *(percent(rate, decimals=2) for rate in (row.precision, row.recall, row.f1)), f"{row.support:,}"]
            for row in rows
        ],
        "names": list(report.class_names),
        "matrix": matrix,
        "confused": [[f"{true} taken for {other}", f"{count:,}"] for true, other, count in report.most_confused()],
    }


def mistakes_section(evaluated: Evaluated | None) -> dict[str, Any] | None:
    """The most confident mistakes; of a regression, the largest errors."""
    if evaluated is None:
        return None
    from trainkit.evaluation import ClassificationReport

    report, where, names = evaluated.report, SPLITS[evaluated.split], evaluated.sample_names
    section: dict[str, Any] = {"text": "", "images": [], "caption": "", "header": [], "rows": []}
    if not isinstance(report, ClassificationReport):
        return section | {
            "caption": f"Largest errors on the {where} split",
            "header": ["sample", "target", "true", "predicted", "error"],
            "rows": [
                [name, row["target"], *told_apart(true, predicted), f"{predicted - true:+.4g}"]
                for name, row in zip(names, report.worst(), strict=False)
                for true, predicted in [(row["true"], row["predicted"])]
            ],
        }
    if not report.num_mistakes:
        return section | {"text": f"None in {counted(report.num_samples, 'sample')} of the {where} split."}
    section["text"] = (
        f"{report.num_mistakes:,} of {counted(report.num_samples, 'sample')} of the {where} split. "
        f"Shown: the {len(report.mistakes)} that the model was surest of."
    )
    samples: list[dict[str, Any]] = [
        {"name": name, "true": one.true, "predicted": one.predicted, "probability": percent(one.probability)}
        for name, one in zip(names, report.mistakes, strict=False)
    ]
    if evaluated.images:
        pairs = zip(samples, evaluated.images, strict=False)
        return section | {"images": [sample | picture(image) for sample, image in pairs]}
    return section | {
        "caption": "Most confidently wrong",
        "header": ["sample", "true", "predicted", "probability"],
        "rows": [list(sample.values()) for sample in samples],
    }


def picture(image: NDArray[np.uint8]) -> dict[str, Any]:
    """A picture (C, H, W) as the text of a PNG file that an ``img`` shows without a request, and its size in pixels."""
    from PIL import Image

    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    small = Image.fromarray(pixels)
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"url": url, "width": small.width, "height": small.height}


def ends(metric: str, interval: Interval) -> str:
    return f"{metric_text(metric, interval.low)} to {metric_text(metric, interval.high)}"
