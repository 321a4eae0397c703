"""The first pass over a table: what its columns hold, and what is predicted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from trainkit.data.tables.columns import Column, decide
from trainkit.data.tables.encoded import Cells, Extra
from trainkit.data.tables.encoding import Encoding, make_encoding
from trainkit.data.tables.evidence import MISSING_VALUES, Evidence, add_evidence
from trainkit.data.tables.labels import mixed_truths
from trainkit.data.tables.reading import Block, Table
from trainkit.data.tables.sentinels import describe_counters, describe_names, describe_sentinels
from trainkit.data.tables.split_column import (
    SPLIT_REASON,
    Form,
    SplitColumn,
    evidence_for,
    find_form,
    names_splits,
    split_extra,
)
from trainkit.data.tables.stray_rows import describe_text_of_sheets, look_for_stray_rows
from trainkit.data.tables.target import MAX_CLASSES, Target, decide_target
from trainkit.data.tables.weights import WEIGHT_REASON, weight_extra
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import listed

KEPT_BYTES = 1 << 30
"""Files up to this size are read once: their cells stay in memory between the two passes. Larger ones go through the
cache block by block."""

_SHOWN = 5
"""So many groups of names of a column are shown."""
_GROUP_NAME = re.compile(
    r"(?i:.+[_ .-]id|(.+[_ .-])?(patient|subject|participant|person|speaker|customer|client|user|session|household))"
    r"|.*[a-z]I[dD]"
)
_ORDERED_ROWS = 20
"""So many rows at least are in order by more than chance."""


@dataclass(frozen=True)
class TableOptions:
    """What a config says about its table, beyond where it is."""

    target: Sequence[str]
    features: Sequence[str] | None = None
    columns: Mapping[str, str] | None = None
    task: Literal["auto", "classification", "regression"] = "auto"
    missing: Literal["impute", "refuse"] = "impute"
    missing_values: Sequence[str] | None = None
    unseen: Literal["own", "refuse"] = "own"
    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    split: SplitColumn | None = None
    """The column by which the rows are split; None: at random."""
    weight: str | None = None
    """The column of their weights in the loss."""

    @property
    def spelled_missing(self) -> Sequence[str]:
        if self.missing_values is None:
            return MISSING_VALUES
        floats = [
            f"{text}.0" for text in self.missing_values if re.fullmatch("-?[0-9]+", text)
        ]  # as pandas writes them
        return list(dict.fromkeys(["", *self.missing_values, *floats]))


@dataclass(frozen=True)
class Found:
    """What the first pass has found."""

    blocks: Iterable[Block]
    columns: list[Column]
    target: Target
    encoding: Encoding
    rows: int
    """Rows that have a target."""
    form: Form
    """Of the column of the split."""
    extras: dict[str, Extra]
    notes: list[str]
    """About single rows."""


def look_through(table: Table, chosen: Sequence[str], options: TableOptions, most: int | None) -> Found:
    """Look at all rows: the kinds of the columns, and the target.

    Raises:
        ProblemsError: Everything that cannot be understood.
        DataError: No rows, or nothing to learn from.
    """
    by, wanted = options.split, options.columns or {}
    decimal = table.format.decimal if options.decimal or table.format.decimal != "." else None
    of_split = None if by is None else evidence_for(by, wanted, decimal)
    of_weight = None if options.weight is None else Evidence(options.weight, "numeric", decimal=decimal)
    also = [one for one in (of_split, of_weight) if one is not None]
    names = list(dict.fromkeys([*chosen, *options.target, *(one.name for one in also)]))
    blocks = _blocks(table, names, options.spelled_missing, most)
    evidence = {name: Evidence(name, wanted.get(name), decimal=decimal) for name in chosen}
    evidence |= {name: Evidence(name, decimal=decimal, limit=MAX_CLASSES) for name in options.target}
    notes: list[str] = []
    looked = look_for_stray_rows(blocks, table, notes) if most is None else blocks
    rows = _look(looked, [*evidence.values(), *also], options.target)
    form: Form | Problem = find_form(by, of_split) if by and of_split else {}
    decided = [decide(evidence[name]) for name in chosen]
    problems = [one for one in [*decided, form] if isinstance(one, Problem)]
    try:
        target = decide_target([evidence[name] for name in options.target], options.task)
    except ProblemsError as error:
        problems += error.problems
    if problems:
        raise ProblemsError([_with_place(problem, evidence, table) for problem in problems])
    columns = [one for one in decided if isinstance(one, Column)]
    if not notes:  # no total in the last row
        notes += describe_text_of_sheets(evidence[one.name] for one in columns if one.kind == "categorical")
    of_numbers = [name for name, one in zip(chosen, columns, strict=True) if one.kind == "numeric"]
    of_numbers += target.names if target.task == "regression" else ()
    if by is None:
        notes += _in_order(columns, evidence)
        notes += [
            f"{one.name!r} has several rows for each value; to score on values that the training has not, write split: "
            f"{{type: group, column: {one.name!r}}}"
            for one in columns
            if one.kind in ("numeric", "categorical") and _names_groups(evidence[one.name])
        ]
        notes += [
            f"{one.name!r} says which rows are held out, and is a feature here; to split by it, write split: "
            f"{{type: column, column: {one.name!r}}}"
            for one in columns
            if names_splits(one.categories)
        ]
    features = [evidence[one.name] for one in columns if one.kind == "numeric"]
    notes += describe_names(features, weighted=options.weight is not None)
    notes += describe_counters(features, blocks)
    notes += describe_sentinels([evidence[name] for name in of_numbers], blocks)
    encoding = make_encoding(
        columns, missing=options.missing, unseen=options.unseen, missing_values=options.spelled_missing
    )
    if not encoding["inputs"]:
        reasons = "; ".join(f"{one.name} ({one.reason})" for one in columns[:10])
        message = f"{table.paths[0]}: no column is left to learn from: {reasons}; dataset.columns overrules this"
        raise DataError(message)
    encoding |= {"target": target.to_json(), "format": table.format.to_json()}
    assert not isinstance(form, Problem)
    for one, reason in ((of_split, SPLIT_REASON), (of_weight, WEIGHT_REASON)):
        if one is not None and one.name not in chosen:
            columns.append(Column(one.name, "ignore", reason, one.missing, one.distinct, one.limit))
    extras = {"split": split_extra(by, form)} if by else {}
    if of_weight is not None:
        style = None if of_weight.style is None else of_weight.style.to_json()
        encoding["weight"] = {"name": of_weight.name, "style": style}
        extras["weights"] = weight_extra(encoding["weight"])
    return Found(blocks, columns, target, encoding, rows, form, extras, notes)


def _in_order(columns: Sequence[Column], evidence: Mapping[str, Evidence]) -> list[str]:
    """A line where the rows are in the order of a date, and are split at random."""
    dates = [evidence[one.name] for one in columns if one.kind == "datetime" and one.missing == 0]
    for one in dates:
        low, high = one.parts.get("time", (0.0, 0.0))
        if one.rising != one.falling and low < high and one.rows >= _ORDERED_ROWS:
            return [
                f"the rows are in the order of {one.name!r} and are held out at random; to score on later rows than "
                f"those of the training, write split: {{type: time, column: {one.name!r}}}"
            ]
    return []


def _names_groups(evidence: Evidence) -> bool:
    """Whether a column names who or what several rows are of: by its name, and by values that repeat."""
    several = 10 <= evidence.distinct <= evidence.present / 2
    return several and evidence.whole and bool(_GROUP_NAME.fullmatch(evidence.name))


def is_large(table: Table) -> bool:
    """Whether the cells do not stay in memory between the two passes."""
    return sum(path.stat().st_size for path in table.paths) > KEPT_BYTES


def _blocks(table: Table, names: Sequence[str], missing_values: Sequence[str], most: int | None) -> Iterable[Block]:
    """The cells of these columns in blocks, as often as they are asked for; kept in memory where they are few."""
    cells = Cells(table, names, missing_values)
    return list(islice(cells, most)) if most is not None or not is_large(table) else cells


def _look(blocks: Iterable[Block], evidence: Sequence[Evidence], targets: Sequence[str]) -> int:
    """Add what all blocks show; returns how many rows have a target."""
    rows = 0
    for block in blocks:
        rows += len(block.frame.select(list(targets)).drop_nulls())
        series_of = {series.name: series for series in block.frame}
        for one in evidence:
            add_evidence(one, series_of[one.name], block.first_row)
    return rows


def _with_place(problem: Problem, evidence: Mapping[str, Evidence], table: Table) -> Problem:
    """The problem with the file and the row of its first bad cell, where it is about cells."""
    for one in evidence.values():
        if one.odd and repr(one.name) in problem.message:
            return replace(problem, message=f"{table.place(next(iter(one.odd.values())))}: {problem.message}")
    return problem


def describe_column(column: Column) -> dict[str, Any]:
    """A row of the table of columns, as plain JSON."""
    about = {name: getattr(column, name) for name in ("name", "kind", "reason", "missing")}
    about["distinct"] = str(column.distinct) if column.distinct <= column.counted else f"more than {column.counted}"
    if column.style is not None and (written := column.style.describe()):
        about["reason"] += f" ({written})"
    return about


def describe_found(table: Table, found: Found, options: TableOptions) -> Iterator[str]:
    """A line for each thing that was found out."""
    target = found.target
    yield table.format.describe() if len(table.paths) > 1 else f"{table.paths[0].name}: {table.format.describe()}"
    ignored = [
        f"{one.name} ({one.reason})"
        for one in found.columns
        if one.kind == "ignore" and one.reason not in ("as asked for", SPLIT_REASON, WEIGHT_REASON)
    ]
    if ignored:
        yield f"left out: {listed(ignored, quoted=False)}; dataset.columns overrules this"
    if options.split is not None and options.split.column in (options.features or ()):
        yield f"{options.split.column!r}, by which the rows are split, is a feature too, as dataset.features says"
    if options.weight is not None:
        yield f"the loss is weighted by {options.weight!r}; accuracies and other scores count each row once"
    if options.task == "auto":
        verb = "is" if len(target.names) == 1 else "are"
        yield f"{listed(target.names, quoted=False)} {verb} taken for {target.task}: {target.reason}"
    yield from found.notes
    yield from (
        f"{one.name} is taken for text: {one.hint}" for one in found.columns if one.hint and one.kind != "ignore"
    )
    yield from _spelled_alike("the classes {}", target.class_names)
    for one in found.columns:
        yield from _spelled_alike(f"the values {{}} of {one.name}", one.categories)


def _spelled_alike(what: str, names: Sequence[str]) -> Iterator[str]:
    """A line for names that differ in their case and white space only; a no-break space looks like another one."""
    if truths := mixed_truths(names):
        yield f"{what.format(listed(truths[0]))} seem to mean true, and {listed(truths[1])} false; write them alike"
        return
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    groups = [group for group in alike.values() if len(group) > 1]
    for group in groups[:_SHOWN]:
        different = "white space" if len({name.casefold() for name in group}) > 1 else "upper and lower case"
        verb = f"differ in {different} only; write them alike if they are one"
        yield f"{what.format(listed(group))} {verb}"
