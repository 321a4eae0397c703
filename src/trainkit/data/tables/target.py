"""What is predicted: classes or values, decided from the cells alone, never from the number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Task
from trainkit.data.tables.columns import beyond_float32
from trainkit.data.tables.encoding import as_numbers, label_codes
from trainkit.data.tables.evidence import NAME_AS_MISSING, Evidence
from trainkit.data.tables.labels import is_boolean_text, labels_of
from trainkit.errors import Problem, ProblemsError
from trainkit.wording import counted, listed

if TYPE_CHECKING:
    import polars as pl

MAX_CLASSES = 1000
"""More different values than this are no classes: an id, a date, a free text."""
_FEW = 20
"""Up to this many different whole numbers are classes where the config does not say."""


@dataclass(frozen=True)
class Target:
    """The columns that are predicted."""

    names: tuple[str, ...]
    task: Task
    reason: str
    class_names: tuple[str, ...] = ()
    styles: tuple[dict[str, Any] | None, ...] = ()
    """How the numbers of each column are written; for values only."""

    def to_json(self) -> dict[str, Any]:
        return {"names": list(self.names), "task": self.task, "styles": list(self.styles)}


def target_from(stored: dict[str, Any], class_names: Sequence[str]) -> Target:
    """The target that a checkpoint or the cache holds."""
    return Target(
        names=tuple(stored["names"]),
        task=stored["task"],
        reason="as stored",
        class_names=tuple(class_names),
        styles=tuple(stored["styles"]),
    )


def decide_target(evidence: Sequence[Evidence], task: str) -> Target:
    """Classes for text, for true and false, and for at most 20 different whole numbers; else values.

    Whole numbers from 0 or 1 on without a gap, more than 20, may be labels: only the user knows.

    Raises:
        ProblemsError: It cannot be told, or the cells do not fit the task.
    """
    names = tuple(one.name for one in evidence)
    if len(evidence) > 1:
        if task == "classification":
            raise _problem(f"classification takes one target, got {listed(names)}", "dataset.target")
        return _values(evidence, "several columns")
    [one] = evidence
    if one.present == 0:
        raise _problem(f"all cells of the target {one.name!r} are missing", "dataset.target")
    if one.other:
        raise _problem(f"the cells of the target {one.name!r} are of type {one.other}", "dataset.target")
    if one.date_format is not None or one.parts:
        hint = "choose another target, or write it as a number"
        raise _problem(f"the target {one.name!r} holds dates; {hint}", "dataset.target")
    if task == "regression":
        return _values(evidence, "as asked for")
    if task == "classification":
        return _classes(one, "as asked for")
    if one.looks_like and one.distinct > _FEW:
        hint = "or set dataset.task to classification, or choose another target"
        raise _problem(f"the target {one.name!r} seems to hold {one.looks_like}; {hint}", "dataset.task")
    if is_boolean_text(map(str, one.values)) or one.numbers < one.present / 2:
        return _classes(one, "it holds text" if one.is_text else "it holds true and false")
    if one.odd_count:
        raise _problem(_text_among_numbers(one), "dataset.target")
    if not one.whole:
        return _values(evidence, "it holds numbers with fractions")
    if one.distinct <= _FEW:
        return _classes(one, f"it holds {counted(one.distinct, 'different whole number')}")
    if one.low in (0, 1) and one.high - one.low + 1 == one.distinct <= MAX_CLASSES:
        message = (
            f"the target {one.name!r} holds all whole numbers from {one.low:g} to {one.high:g}; say whether they are "
            "values (task: regression) or classes (task: classification)"
        )
        raise _problem(message, "dataset.task")
    return _values(evidence, f"it holds more than {_FEW} different whole numbers")


def _problem(message: str, key: str) -> ProblemsError:
    return ProblemsError([Problem(message, key=key)])


def _text_among_numbers(one: Evidence) -> str:
    shown = listed(list(one.odd), limit=5)
    cells = f"{counted(one.odd_count, 'cell')} {'is' if one.odd_count == 1 else 'are'}"
    hint = f"correct them, {NAME_AS_MISSING}, or set dataset.task to classification"
    return f"the target {one.name!r} holds numbers, but {cells} none: {shown}; {hint}"


def _values(evidence: Sequence[Evidence], reason: str) -> Target:
    for one in evidence:
        if one.odd_count or not one.numbers:
            if one.numbers >= one.present / 2:
                raise _problem(_text_among_numbers(one), "dataset.target")
            shown = listed(sorted(map(str, one.values))[:5])
            raise _problem(f"regression needs numbers, and the target {one.name!r} holds {shown}", "dataset.target")
        if message := beyond_float32(one):
            raise _problem(f"the target {one.name!r}: {message}; write it in another unit", "dataset.target")
        if one.low == one.high:
            raise _problem(
                f"the target {one.name!r} is {one.low:g} in all rows; nothing can be learned", "dataset.target"
            )
    styles = tuple(None if one.style is None else one.style.to_json() for one in evidence)
    return Target(tuple(one.name for one in evidence), "regression", reason, styles=styles)


def _classes(one: Evidence, reason: str) -> Target:
    if one.numbers == one.present and not one.whole:
        fractional = next(value for value in one.values if float(value) % 1)
        hint = "labels are names or whole numbers, or dataset.task is regression"
        raise _problem(f"the target {one.name!r}: the label {fractional} has a fraction; {hint}", "dataset.target")
    if one.distinct > MAX_CLASSES:
        message = (
            f"the target {one.name!r} has more than {MAX_CLASSES} different values, too many for classes; choose "
            "another target" + ("" if one.numbers < one.present else ", or set dataset.task to regression")
        )
        raise _problem(message, "dataset.target")
    names = labels_of(map(str, one.values))
    if len(names) < 2:
        raise _problem(f"the target {one.name!r} has one class, {names[0]!r}; at least 2 are needed", "dataset.target")
    return Target((one.name,), "classification", reason, class_names=names)


def encode_target(cells: pl.DataFrame, target: Target) -> tuple[NDArray[Any], NDArray[np.bool_], list[tuple[int, str]]]:
    """int64 labels (n,) or float64 values (n, T); the rows that have them; and cells that cannot be used.

    Returns:
        Targets of the rows that have one, which rows these are (n,), and (row, message) of each bad cell.
    """
    bad: list[tuple[int, str]] = []
    if target.task == "classification":
        column = cells[target.names[0]]
        codes = label_codes(column, target.class_names)
        for row in (codes.is_null() & column.is_not_null()).arg_true():
            known = listed(target.class_names)
            bad.append((int(row), f"the label {str(column[row])!r} is not one of the training's ({known})"))
        kept = codes.is_not_null().to_numpy()
        return codes.drop_nulls().to_numpy(), kept, bad
    values = np.empty((len(cells), len(target.names)))
    missing = np.zeros(len(cells), dtype=bool)
    for place, (name, style) in enumerate(zip(target.names, target.styles, strict=True)):
        numbers = as_numbers(cells[name], style)
        values[:, place] = numbers.to_numpy()
        missing |= cells[name].is_null().to_numpy()
        for row in ((~numbers.is_finite()).fill_null(True) & cells[name].is_not_null()).arg_true():
            bad.append((int(row), f"column {name!r}: {str(cells[name][row])!r} is not a finite number"))
    return values[~missing], ~missing, bad
