"""The column of a table that its split goes by: groups, times, or the names of the splits."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Part, Split, Task
from trainkit.data.group_splits import take_groups, take_latest
from trainkit.data.splits import HeldOut, check_training_classes, split_part, strata
from trainkit.data.tables.dates import date_parts
from trainkit.data.tables.encoded import Extra
from trainkit.data.tables.encoding import as_numbers, as_texts
from trainkit.data.tables.evidence import Evidence
from trainkit.data.tables.labels import label_key
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import SPLIT_WORDS, SPLITS, counted, listed

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class SplitColumn:
    """What a config says about a split that goes by a column."""

    type: Literal["group", "time", "column"]
    column: str
    val: Sequence[Any] | None = None
    """``column``: the values of the validation split; None for both: the names of the splits."""
    test: Sequence[Any] | None = None

    @property
    def by_name(self) -> bool:
        """Whether the cells are the names of the splits."""
        return self.val is None and self.test is None

    @property
    def split_of(self) -> dict[str, str]:
        """The split of each value that is written down, in one spelling of it."""
        if self.by_name:
            return {word: split for split, words in SPLIT_WORDS.items() for word in words}
        return {
            _spelling(str(value)): split
            for split, values in (("val", self.val), ("test", self.test))
            for value in values or ()
        }

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


Form = dict[str, Any]
"""How times are read: ``{"dates": "%Y-%m-%d"}``, "" where the file has dates; ``{"numbers": style}``; {} for others."""

SPLIT_REASON = "the rows are split by it"
"""Why a column is not learned from."""


def evidence_for(by: SplitColumn, columns: Mapping[str, str], decimal: str | None) -> Evidence:
    """What the column is looked at for: the form of its times."""
    wanted = columns.get(by.column)
    if by.type != "time":
        wanted = "categorical"
    elif wanted is not None and wanted not in ("numeric", "datetime") and "%" not in wanted:
        wanted = None
    return Evidence(by.column, wanted, decimal=decimal)


def names_splits(values: Sequence[str]) -> bool:
    """Whether the values are words for the training split and for others, and for nothing else."""
    split_of = {word: split for split, words in SPLIT_WORDS.items() for word in words}
    found = {split_of.get(_spelling(value, fold=True)) for value in values}
    return "train" in found and len(found) > 1 and None not in found


def find_form(by: SplitColumn, evidence: Evidence) -> Form | Problem:
    """The form of the column's times; {} where they are none."""
    if by.type != "time" or evidence.present == 0:
        return {}
    name = evidence.name
    if evidence.ambiguous_dates:
        shown, first = " or ".join(evidence.ambiguous_dates), evidence.ambiguous_dates[0]
        message = f"the dates of {name!r} can be read as {shown}; say which, as columns: {{{name}: {first!r}}}"
        return Problem(message, key="dataset.columns")
    if evidence.date_format is not None:
        return {"dates": evidence.date_format}
    if evidence.numbers >= evidence.present / 2:
        return {"numbers": None if evidence.style is None else evidence.style.to_json()}
    shown = listed(sorted(map(str, evidence.values))[:3])
    hint = f"give the form of its dates, as columns: {{{name}: '%d.%m.%Y %H:%M'}}, or choose another column"
    return Problem(f"split by time takes numbers or dates, and {name!r} holds {shown}; {hint}", key="dataset.split")


def split_keys(cells: pl.Series, by: SplitColumn, form: Form) -> tuple[NDArray[Any], dict[int, str]]:
    """What each row is split by, and what is wrong with a cell, by its row.

    Returns:
        Times as float64; groups as int64, a hash of the value; else int64, 0 for a value that is not written down, or
        1 + its position in ``by.split_of``.
    """
    what = f"column {by.column!r}, by which the rows are split"
    bad = {
        int(row): f"{what}: the cell is missing; fill it in, or remove the row" for row in cells.is_null().arg_true()
    }
    if by.type == "time":
        times = date_parts(cells, form["dates"])["time"] if "dates" in form else as_numbers(cells, form.get("numbers"))
        expected = f"no date as {form['dates']}" if form.get("dates") else "no finite number"
        for row in ((~times.is_finite()).fill_null(True) & cells.is_not_null()).arg_true():
            bad[int(row)] = f"{what}: {str(cells[row])!r} is {expected}; correct it"
        return times.fill_null(0.0).to_numpy(), bad
    if cells.dtype.is_nested():
        return np.zeros(len(cells), dtype=np.int64), {0: f"{what}: expected text or numbers, got {cells.dtype}"}
    texts = as_texts(cells)
    different = texts.drop_nulls().unique().to_list()
    if by.type == "group":
        keys = {text: _hash(label_key(text, "numbers")) for text in different}
    else:
        places = {value: place for place, value in enumerate(by.split_of, start=1)}
        keys = {text: places.get(_spelling(text, fold=by.by_name), 0) for text in different}
    found = _replace(texts, keys)
    if by.by_name and by.type == "column":
        for text in (text for text in different if not keys[text]):
            hint = "name the values of dataset.split.val and dataset.split.test"
            bad[int((texts == text).arg_max() or 0)] = f"{what}: expected train, val or test, got {text!r}; {hint}"
    return found, bad


def split_extra(by: SplitColumn, form: Form, *, refuse: bool = True) -> Extra:
    """The column as an array beside the inputs. Without ``refuse`` times that are wrong are NaN, and no errors."""
    read = partial(split_keys, by=by, form=form)
    return Extra(
        by.column, np.float64 if by.type == "time" else np.int64, read if refuse else partial(_times_or_nan, read=read)
    )


def _times_or_nan(
    cells: pl.Series, *, read: Callable[[pl.Series], tuple[NDArray[Any], dict[int, str]]]
) -> tuple[NDArray[Any], dict[int, str]]:
    times, bad = read(cells)
    times = times.copy()
    times[list(bad)] = np.nan
    return times, {}


def _replace(texts: pl.Series, keys: Mapping[str, int]) -> NDArray[np.int64]:
    import polars as pl

    found = texts.replace_strict(list(keys), list(keys.values()), default=None, return_dtype=pl.Int64)
    return found.fill_null(0).to_numpy()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _spelling(text: str, *, fold: bool = False) -> str:
    """The same for ``4``, ``4.0`` and ``04``, for ``True`` and ``TRUE``; with ``fold`` for every text in any case."""
    text = unicodedata.normalize("NFC", text.strip())
    return text.lower() if fold or text.lower() in ("true", "false") else label_key(text, "numbers")


def split_table(
    part: Part,
    part_name: str,
    by: SplitColumn | None,
    *,
    keys: NDArray[Any] | None,
    form: Form,
    whole: bool,
    **rules: Any,
) -> tuple[dict[str, Split], list[str]]:
    """The splits of a part whose rows have these ``keys``, and a line about them.

    Args:
        whole: whether all rows of the file were read; where not, they may all be of one split.
        rules: ``task``, ``held`` and ``class_names``, as for ``split_part``.

    Raises:
        ProblemsError: A split would be empty, or leave a class without a training sample.
    """
    if by is None or keys is None:
        return split_part(part, part_name, **rules), []
    try:
        splits = _split_by_column(part, part_name, by, keys, **rules)
    except ProblemsError:
        if whole:
            raise
        return split_part(part, part_name, **rules), [f"the rows that were read are not split by {by.column!r}"]
    return splits, [_describe(splits, part_name, by, keys, form)]


def _split_by_column(part: Part, part_name: str, by: SplitColumn, keys: NDArray[Any], **rules: Any) -> dict[str, Split]:
    if by.type == "column":
        return _split_by_value(part, part_name, by, keys, **rules)
    held: HeldOut = rules["held"]
    asked = [name for name, fraction in held.fractions.items() if fraction and not (held.fold and name == "test")]
    if by.type == "group":
        return split_part(part, part_name, **rules, take=partial(take_groups, groups=keys, splits=asked), groups=keys)
    return split_part(part, part_name, **rules, take=partial(take_latest, times=keys, splits=asked))


def _split_by_value(
    part: Part,
    part_name: str,
    by: SplitColumn,
    keys: NDArray[np.int64],
    *,
    task: Task,
    held: HeldOut,
    class_names: Sequence[str],
) -> dict[str, Split]:
    splits_of = list(by.split_of.items())
    counts = np.bincount(keys, minlength=len(splits_of) + 1)
    lost = [value for place, (value, _) in enumerate(splits_of, start=1) if not counts[place]]
    if lost and not by.by_name:
        message = (
            f"no row has the value {listed(lost)} in the column {by.column!r}; write it as in the file, or leave it out"
        )
        raise ProblemsError([Problem(message, key="dataset.split")])
    names = np.array(["train", *(split for _, split in splits_of)])[keys]
    splits = {name: Split(part_name, np.flatnonzero(names == name)) for name in SPLITS}
    if len(splits["test"]) and "test" not in held.fractions:
        count = counted(len(splits["test"]), "row")
        message = (
            f"{count} of {by.column!r} say test, and test_path is the test split; remove them, or leave out test_path"
        )
        raise ProblemsError([Problem(message, key="dataset.test_path")])
    labels = strata(part, task)
    advice = f"give rows of them to training in the column {by.column!r}"
    check_training_classes(labels, splits["train"].indices, class_names, advice=advice, key="dataset.split")
    return {name: split for name, split in splits.items() if len(split)}


def compare_tests(
    by: SplitColumn, keys: NDArray[Any], tests: NDArray[Any], form: Form, test_path: str
) -> Iterator[str]:
    """A line about the rows of the test file that are not later than the training file.

    Raises:
        DataError: A group is in the test file too.
    """
    if by.type == "group":
        if shared := len(np.intersect1d(keys, tests)):
            which = (
                f"{counted(shared, 'group')} of {by.column!r} {'is' if shared == 1 else 'are'} in the training file too"
            )
            raise DataError(f"{test_path}: {which}; take their rows out of one of the two, or choose another split")
        return
    last = keys.max()
    early, unknown = int((tests <= last).sum()), int(np.isnan(tests).sum())
    if early:
        what = f"of {len(tests):,} rows {early:,} {'is' if early == 1 else 'are'} not later"
        yield f"{what} in {by.column!r} than the last of the training file ({_time(last, form)})"
    if unknown:
        yield f"{counted(unknown, 'row')} without a time in {by.column!r}, so that nothing says whether they are later"


def _describe(splits: Mapping[str, Split], part_name: str, by: SplitColumn, keys: NDArray[Any], form: Form) -> str:
    """One line: rows, and groups or times, of each split."""
    shown = []
    for name in SPLITS:
        if name not in splits or splits[name].part != part_name:
            continue
        own = keys[splits[name].indices]
        text = f"{name} {counted(len(own), 'row')}"
        if by.type == "group":
            text += f" of {counted(len(np.unique(own)), 'group')}"
        elif by.type == "time":
            text += f" from {_time(own.min(), form)} to {_time(own.max(), form)}"
        shown.append(text)
    how = {"group": "by whole groups of", "time": "by the time in", "column": "by the values of"}[by.type]
    return f"the rows are split {how} {by.column!r}: {', '.join(shown)}"


def _time(value: float, form: Form) -> str:
    if "dates" not in form:
        return f"{value:.15g}"
    text = str(np.datetime64(round(value * 1e6), "us"))
    return text.partition("T")[0] if text.endswith("T00:00:00.000000") else text.partition(".")[0].replace("T", " ")
