"""``type: table``: files to a data set. Two passes: what the columns hold, then the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import EntryDraft, cached_arrays, stamp_files, streamed_arrays
from trainkit.data.dataset import Dataset, Part, fingerprint_dataset
from trainkit.data.splits import whole_part
from trainkit.data.tables.columns import Column, decide
from trainkit.data.tables.encoded import (
    Cells,
    Count,
    Extra,
    Paths,
    concatenated,
    encode_labeled,
    encode_other,
    missing_columns,
)
from trainkit.data.tables.encoding import Encoding, input_names, make_encoding
from trainkit.data.tables.evidence import MISSING_VALUES, Evidence, add_evidence
from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.layout import with_gaps
from trainkit.data.tables.reading import Block, Table, open_table
from trainkit.data.tables.split_column import (
    SPLIT_REASON,
    Form,
    SplitColumn,
    check_apart,
    evidence_for,
    find_form,
    split_extra,
    split_table,
)
from trainkit.data.tables.target import MAX_CLASSES, Target, decide_target, target_from
from trainkit.data.tables.weights import WEIGHT_REASON, check_weights, weight_extra
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import listed

_LAYOUT = 3
"""Raise it when the same files become other arrays or names, so that old cache entries are not used."""
_KEPT_BYTES = 1 << 30
"""Files up to this size are read once: their cells stay in memory between the two passes. Larger ones go through the
cache block by block."""
_MOST_BLOCKS = 8
"""What ``check``, which writes nothing, reads of larger ones."""


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
        return MISSING_VALUES if self.missing_values is None else ["", *self.missing_values]


def load_table(
    path: Paths,
    *,
    test_path: Paths | None = None,
    options: TableOptions,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    cache_dir: Path | None = None,
    save: bool = True,
) -> Dataset:
    """A table as float32 inputs (N, C), see ``encoding``, with the kinds of its columns found or as they are asked for.

    With ``test_path`` there are two parts, ``"train"`` and ``"test"``, else one, ``"all"``, split by fraction. Kinds,
    categories and classes come from ``path`` alone. With ``cache_dir`` the arrays are kept there (not with
    ``save=False``), and later calls do not read the files.

    Raises:
        ProblemsError: A column that is not there, is not what the config says, or cannot be understood.
        DataError: Files that are missing or no tables; cells that cannot be used, each with its file and row.
    """
    table = _open(path, options)
    tests = None if test_path is None else _open(test_path, options, base=table.format, key="dataset.test_path")
    chosen = _choose_columns(table, options)
    description = {
        "kind": "table",
        "layout": _LAYOUT,
        "files": stamp_files(table.paths),
        "tests": None if tests is None else stamp_files(tests.paths),
        "options": {
            **vars(options),
            "target": list(options.target),
            "split": options.split and options.split.to_json(),
        },
    }
    name = table.paths[0].name.partition(".")[0]
    large = _is_large(table)
    if large and save and cache_dir is not None:
        write = partial(_write, table=table, tests=tests, chosen=chosen, options=options)
        arrays, info = streamed_arrays(cache_dir, name, description, write)
    else:
        read = partial(_read, table, tests, chosen, options, _MOST_BLOCKS if large else None)
        arrays, info = cached_arrays(cache_dir, name, description, read, save=save)
    target = target_from(info["target"], info["class_names"])
    main = "all" if tests is None else "train"
    parts = {
        part: Part(arrays[f"{part}_inputs"], arrays[f"{part}_targets"], arrays.get(f"{part}_weights"))
        for part in (main, "test")[: 1 + (tests is not None)]
    }
    fractions = {"test": test_fraction, "val": val_fraction} if tests is None else {"val": val_fraction}
    classes = target.class_names
    splits, split_notes = split_table(
        parts[main],
        main,
        options.split,
        keys=arrays.get(f"{main}_split"),
        form=info["split_form"],
        whole=info["whole"],
        task=target.task,
        fractions=fractions,
        seed=seed,
        class_names=classes,
    )
    if tests is not None:
        splits["test"] = whole_part(parts["test"], "test")
    check_weights(parts, splits, options.weight)
    return Dataset(
        name=name,
        kind="table",
        task=target.task,
        parts=parts,
        splits=splits,
        class_names=classes,
        feature_names=input_names(info["encoding"]),
        target_names=target.names if target.task == "regression" else (),
        fingerprint=fingerprint_dataset(f"table {table.paths[0].name}", parts, splits, class_names=classes),
        notes=(*info["notes"], *split_notes),
        table_encoding=with_gaps(info["encoding"], arrays[f"{main}_inputs"], splits["train"].indices),
        columns=tuple(info["columns"]),
    )


def _open(path: Paths, options: TableOptions, *, base: TableFormat | None = None, key: str = "dataset.path") -> Table:
    chosen = {"delimiter": options.delimiter, "decimal": options.decimal, "encoding": options.encoding}
    return open_table(path, base=base, header=options.header, key=key, **chosen)


def _choose_columns(table: Table, options: TableOptions) -> list[str]:
    """The columns to learn from, in the order of the file or of ``features``; every mistake in the names at once."""
    where = str(table.paths[0])
    wanted = options.columns or {}
    problems = [
        *missing_columns(where, table.names, options.target, "dataset.target"),
        *missing_columns(where, table.names, options.features or (), "dataset.features"),
        *missing_columns(where, table.names, wanted, "dataset.columns"),
    ]
    no_features = [*options.target, *([options.weight] if options.weight else [])]
    problems += missing_columns(where, table.names, no_features[len(options.target) :], "dataset.weight")
    if options.split is not None:
        problems += missing_columns(where, table.names, [options.split.column], "dataset.split.column")
        no_features += [options.split.column] if options.features is None else []
    chosen = [name for name in options.features or table.names if name not in no_features]
    if not chosen and not problems:
        but = f"the target {listed(options.target)}"
        but += " and those of split and weight" if len(no_features) > len(options.target) else ""
        problems.append(Problem(f"{where} has no column but {but}", key="dataset.path"))
    if problems:
        raise ProblemsError(problems)
    return chosen


Arrays = dict[str, NDArray[Any]]
Info = dict[str, Any]


@dataclass(frozen=True)
class _Found:
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


def _read(
    table: Table, tests: Table | None, chosen: Sequence[str], options: TableOptions, most: int | None
) -> tuple[Arrays, Info]:
    """The arrays of the parts in memory, and what was found, as plain JSON.

    Args:
        most: how many blocks to read; None for all.
    """
    found = _find(table, chosen, options, most)
    count = Count()
    part = concatenated(encode_labeled(found.blocks, table, found.encoding, found.target, count, found.extras))
    main = "all" if tests is None else "train"
    test_arrays, test_notes = _read_tests(tests, found, options, [part["split"]] if "split" in part else [])
    arrays = {**{f"{main}_{name}": array for name, array in part.items()}, **test_arrays}
    notes = [*_notes(table, found, options), *count.notes(), *test_notes]
    if most is not None:
        notes.append(f"looked at the first {found.rows:,} rows only; training reads all")
    return arrays, _info(found, notes, whole=most is None)


def _write(draft: EntryDraft, table: Table, tests: Table | None, chosen: Sequence[str], options: TableOptions) -> Info:
    """The same, block by block into the cache."""
    found = _find(table, chosen, options, None)
    main = "all" if tests is None else "train"
    count = Count()
    values = found.target.task == "regression"
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        "inputs": ((len(found.encoding["inputs"]),), np.float32),
        "targets": ((len(found.target.names),) if values else (), np.float64 if values else np.int64),
        **{name: ((), extra.dtype) for name, extra in found.extras.items()},
    }
    writers = {
        name: draft.add_array(f"{main}_{name}", (found.rows, *shape), dtype) for name, (shape, dtype) in kinds.items()
    }
    groups = []
    for block in encode_labeled(found.blocks, table, found.encoding, found.target, count, found.extras):
        for name, array in block.items():
            writers[name].append(array)
        if tests is not None and "split" in block:
            groups.append(np.unique(block["split"]))
    arrays, test_notes = _read_tests(tests, found, options, groups)
    for name, array in arrays.items():
        draft.add_array(name, array.shape, array.dtype).write_all(array)
    return _info(found, [*_notes(table, found, options), *count.notes(), *test_notes], whole=True)


def _read_tests(
    tests: Table | None, found: _Found, options: TableOptions, groups: Sequence[NDArray[Any]]
) -> tuple[Arrays, list[str]]:
    """The test file. None of the ``groups`` of the training file may be in it, where it has their column."""
    if tests is None:
        return {}, []
    count, by = Count(), options.split
    grouped = by is not None and by.type == "group" and by.column in tests.names
    extras = {name: extra for name, extra in found.extras.items() if name != "split" or grouped}
    part = concatenated(encode_other(tests, found.encoding, found.target, count, extras=extras))
    if by is not None and (own := part.pop("split", None)) is not None:
        check_apart(by, np.concatenate(groups), own, str(tests.paths[0]))
    return {f"test_{name}": array for name, array in part.items()}, [f"test file: {note}" for note in count.notes()]


def _info(found: _Found, notes: list[str], *, whole: bool) -> Info:
    return {
        "encoding": found.encoding,
        "target": found.target.to_json(),
        "class_names": list(found.target.class_names),
        "columns": [_row(column) for column in found.columns],
        "notes": notes,
        "split_form": found.form,
        "whole": whole,
    }


def _find(table: Table, chosen: Sequence[str], options: TableOptions, most: int | None) -> _Found:
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
    rows = _look(blocks, [*evidence.values(), *also], options.target)
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
    return _Found(blocks, columns, target, encoding, rows, form, extras)


def _is_large(table: Table) -> bool:
    return sum(path.stat().st_size for path in table.paths) > _KEPT_BYTES


def _blocks(table: Table, names: Sequence[str], missing_values: Sequence[str], most: int | None) -> Iterable[Block]:
    """The cells of these columns in blocks, as often as they are asked for; kept in memory where they are few."""
    cells = Cells(table, names, missing_values)
    return list(islice(cells, most)) if most is not None or not _is_large(table) else cells


def _look(blocks: Iterable[Block], evidence: Sequence[Evidence], targets: Sequence[str]) -> int:
    """Add what all blocks show; returns how many rows have a target."""
    rows = 0
    for block in blocks:
        rows += len(block.frame.select(list(targets)).drop_nulls())
        for one in evidence:
            add_evidence(one, block.frame[one.name], block.first_row)
    return rows


def _with_place(problem: Problem, evidence: Mapping[str, Evidence], table: Table) -> Problem:
    """The problem with the file and the row of its first bad cell, where it is about cells."""
    for one in evidence.values():
        if one.odd and repr(one.name) in problem.message:
            return replace(problem, message=f"{table.place(next(iter(one.odd.values())))}: {problem.message}")
    return problem


def load_table_to_score(path: Paths, encoding: Encoding, *, class_names: Sequence[str], key: str = "--data") -> Dataset:
    """Another table, read as the one of the training was; ``train`` is the whole of it.

    Raises:
        ProblemsError: A column is missing.
        DataError: It is no table, has classes that the training did not have, or cells that cannot be used.
    """
    base = TableFormat.from_json(encoding["format"])
    table = open_table(path, base=base, key=key)
    target = target_from(encoding["target"], class_names)
    count = Count()
    weight = encoding.get("weight")
    extras = {"weights": weight_extra(weight)} if weight and weight["name"] in table.names else {}
    parts = {"all": Part(**concatenated(encode_other(table, encoding, target, count, extras=extras, key=key)))}
    splits = {"train": whole_part(parts["all"], "all")}
    notes = count.notes()
    if weight and not extras:
        notes.append(f"no column {weight['name']!r}: the loss is not weighted, as that of the training was")
    check_weights(parts, splits, weight and weight["name"])
    name = table.paths[0].name
    return Dataset(
        name=name.partition(".")[0],
        kind="table",
        task=target.task,
        parts=parts,
        splits=splits,
        class_names=target.class_names,
        feature_names=input_names(encoding),
        target_names=target.names if target.task == "regression" else (),
        fingerprint=fingerprint_dataset(f"table {name}", parts, splits, class_names=target.class_names),
        table_encoding=encoding,
        notes=tuple(notes),
    )


def _row(column: Column) -> dict[str, Any]:
    about = {name: getattr(column, name) for name in ("name", "kind", "reason", "missing")}
    about["distinct"] = str(column.distinct) if column.distinct <= column.counted else f"more than {column.counted}"
    if column.style is not None and (written := column.style.describe()):
        about["reason"] += f" ({written})"
    return about


def _notes(table: Table, found: _Found, options: TableOptions) -> Iterator[str]:
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
