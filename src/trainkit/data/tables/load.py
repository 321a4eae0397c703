"""``type: table``: files to a data set. Two passes: what the columns hold, then the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import cached_arrays, stamp_files
from trainkit.data.dataset import Dataset, Part, fingerprint_dataset
from trainkit.data.splits import split_part, whole_part
from trainkit.data.tables.columns import Column, decide
from trainkit.data.tables.encoding import Encoding, Filled, encode_inputs, input_names, make_encoding
from trainkit.data.tables.evidence import MISSING_VALUES, Evidence, add_evidence, as_cells
from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.layout import with_gaps
from trainkit.data.tables.reading import Block, Table, open_table
from trainkit.data.tables.target import MAX_CLASSES, Target, decide_target, encode_target, target_from
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import closest, counted, first_lines, listed

if TYPE_CHECKING:
    pass

Paths = str | Sequence[str]

_LAYOUT = 1
"""Raise it when the same files become other arrays or names, so that old cache entries are not used."""
_KEPT_BYTES = 1 << 30
"""Files up to this size are read once: their cells stay in memory between the two passes."""


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
        "options": {**vars(options), "target": list(options.target)},
    }
    name = table.paths[0].name.partition(".")[0]
    arrays, info = cached_arrays(
        cache_dir, name, description, lambda: _read(table, tests, chosen, options), save=save and cache_dir is not None
    )
    target = target_from(info["target"], info["class_names"])
    main = "all" if tests is None else "train"
    parts = {
        part: Part(arrays[f"{part}_inputs"], arrays[f"{part}_targets"])
        for part in (main, "test")[: 1 + (tests is not None)]
    }
    fractions = {"test": test_fraction, "val": val_fraction} if tests is None else {"val": val_fraction}
    classes = target.class_names
    splits = split_part(parts[main], main, task=target.task, fractions=fractions, seed=seed, class_names=classes)
    if tests is not None:
        splits["test"] = whole_part(parts["test"], "test")
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
        notes=tuple(info["notes"]),
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
    chosen = [name for name in options.features or table.names if name not in options.target]
    if not chosen and not problems:
        problems.append(Problem(f"{where} has no column but the target {listed(options.target)}", key="dataset.path"))
    if problems:
        raise ProblemsError(problems)
    return chosen


def missing_columns(where: str, names: Sequence[str], wanted: Iterable[str], key: str) -> list[Problem]:
    """A problem for each wanted column that is not there, with the closest that is."""
    problems = []
    for name in wanted:
        if name in names:
            continue
        close = closest(name, names)
        hint = f"did you mean {close!r}?" if close else "the columns are " + listed(names)
        problems.append(Problem(f"{where} has no column {name!r}; {hint}", key=key))
    return problems


Read = tuple[dict[str, NDArray[Any]], dict[str, Any]]


def _read(table: Table, tests: Table | None, chosen: Sequence[str], options: TableOptions) -> Read:
    """The arrays of the parts, and what was found, as plain JSON."""
    names = [*chosen, *options.target]
    blocks = _blocks(table, names, options.spelled_missing)
    evidence = _look(blocks, table, chosen, options)
    decided = [decide(evidence[name]) for name in chosen]
    problems = [one for one in decided if isinstance(one, Problem)]
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
    read = encode_blocks(blocks, table, encoding, target)
    main = "all" if tests is None else "train"
    arrays = {f"{main}_inputs": read.inputs, f"{main}_targets": read.targets}
    notes = [*_notes(table, columns, target, options), *read.notes()]
    if tests is not None:
        test = read_labeled(tests, encoding, target)
        arrays |= {"test_inputs": test.inputs, "test_targets": test.targets}
        notes += [f"test file: {note}" for note in test.notes()]
    info = {
        "encoding": encoding,
        "target": target.to_json(),
        "class_names": list(target.class_names),
        "columns": [_row(column) for column in columns],
        "notes": notes,
    }
    return arrays, info


def _blocks(table: Table, names: Sequence[str], missing_values: Sequence[str]) -> Iterable[Block]:
    """The cells of these columns in blocks, as often as they are asked for; kept in memory where they are few."""
    blocks = _Blocks(table, names, missing_values)
    size = sum(path.stat().st_size for path in table.paths)
    return list(blocks) if size <= _KEPT_BYTES else blocks


@dataclass(frozen=True)
class _Blocks:
    table: Table
    names: Sequence[str]
    missing_values: Sequence[str]

    def __iter__(self) -> Iterator[Block]:
        for block in self.table.blocks(self.names):
            yield replace(block, frame=as_cells(block.frame, self.missing_values))


def _look(blocks: Iterable[Block], table: Table, chosen: Sequence[str], options: TableOptions) -> dict[str, Evidence]:
    wanted = options.columns or {}
    decimal = table.format.decimal if options.decimal or table.format.decimal != "." else None
    evidence = {name: Evidence(name, wanted.get(name), decimal=decimal) for name in chosen}
    evidence |= {name: Evidence(name, decimal=decimal, limit=MAX_CLASSES) for name in options.target}
    for block in blocks:
        for name, one in evidence.items():
            add_evidence(one, block.frame[name], block.first_row)
    if not any(one.rows for one in evidence.values()):
        raise DataError(f"{table.paths[0]} has a header but no rows")
    return evidence


def _with_place(problem: Problem, evidence: Mapping[str, Evidence], table: Table) -> Problem:
    """The problem with the file and the row of its first bad cell, where it is about cells."""
    for one in evidence.values():
        if one.odd and repr(one.name) in problem.message:
            return replace(problem, message=f"{table.place(next(iter(one.odd.values())))}: {problem.message}")
    return problem


@dataclass
class Encoded:
    """A part of a table as arrays."""

    inputs: NDArray[np.float32]
    targets: NDArray[Any]
    filled: Filled
    dropped: int
    """Rows without a target."""

    def notes(self) -> list[str]:
        notes = []
        if self.dropped:
            notes.append(
                f"{counted(self.dropped, 'row')} without a target {'is' if self.dropped == 1 else 'are'} left out"
            )
        return [*notes, *self.filled.describe()]


def encode_blocks(blocks: Iterable[Block], table: Table, encoding: Encoding, target: Target) -> Encoded:
    """All rows that have a target.

    Raises:
        DataError: Cells that cannot be used, each with its file, row and column (the first ten and the count).
    """
    inputs, targets, filled, dropped = [], [], Filled(), 0
    bad: list[tuple[int, str]] = []
    for block in blocks:
        labels, kept, wrong = encode_target(block.frame, target)
        bad += [(block.first_row + row, message) for row, message in wrong]
        frame = block.frame
        array = encode_inputs(frame, encoding, filled, first_row=block.first_row)
        if not kept.all():
            array = array[kept]
        dropped += int((~kept).sum())
        inputs.append(array)
        targets.append(labels)
    bad = sorted(bad + filled.refused)
    if bad:
        raise DataError("\n".join(first_lines([f"{table.place(row)}: {message}" for row, message in bad[:10]])))
    arrays = np.concatenate(inputs), np.concatenate(targets)
    if len(arrays[1]) == 0:
        raise DataError(f"{table.paths[0]}: no row has a target")
    return Encoded(*arrays, filled, dropped)


def load_table_to_score(path: Paths, encoding: Encoding, *, class_names: Sequence[str], key: str = "--data") -> Dataset:
    """Another table, read as the one of the training was; ``train`` is the whole of it.

    Raises:
        ProblemsError: A column is missing.
        DataError: It is no table, has classes that the training did not have, or cells that cannot be used.
    """
    base = TableFormat.from_json(encoding["format"])
    table = open_table(path, base=base, key=key)
    target = target_from(encoding["target"], class_names)
    read = read_labeled(table, encoding, target, key=key)
    parts = {"all": Part(read.inputs, read.targets)}
    splits = {"train": whole_part(parts["all"], "all")}
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
        notes=tuple(read.notes()),
    )


@dataclass(frozen=True)
class EncodedRows:
    """A block of a table whose target is not known."""

    names: list[str]
    """The file and the line of each row."""
    inputs: NDArray[np.float32]
    filled: Filled
    bad: dict[int, str]
    """Why a row cannot be used, by its position in the block."""


def encode_table(path: Paths, encoding: Encoding, *, key: str | None = None) -> Iterator[EncodedRows]:
    """The rows of another table, block by block, read as the table of the training was.

    Raises:
        UserError: It is no table, or a column is missing.
    """
    base = TableFormat.from_json(encoding["format"]) if "format" in encoding else None
    table = open_table(path, base=base, key=key or "")
    names = [column["name"] for column in encoding["columns"]]
    missing = [name for name in names if name not in table.names]
    if missing:
        has = listed(table.names)
        raise DataError(f"no column {listed(missing)}, which the model takes; the file has {has}")
    for block in _Blocks(table, names, encoding["missing_values"]):
        filled = Filled()
        inputs = encode_inputs(block.frame, encoding, filled)
        yield EncodedRows(block.places(), inputs, filled, dict(reversed(filled.refused)))


def encode_columns(columns: Mapping[str, Sequence[Any]], encoding: Encoding) -> EncodedRows:
    """Rows from memory: values of Python by column, of one length; None is a missing one."""
    import polars as pl

    frame = pl.DataFrame([pl.Series(name, values, strict=False) for name, values in columns.items()])
    filled = Filled()
    inputs = encode_inputs(as_cells(frame, encoding["missing_values"]), encoding, filled)
    return EncodedRows([f"[{row}]" for row in range(len(frame))], inputs, filled, dict(reversed(filled.refused)))


def read_labeled(table: Table, encoding: Encoding, target: Target, *, key: str = "dataset.test_path") -> Encoded:
    """Another table with the columns of ``encoding`` and the target, read in the same way.

    Raises:
        ProblemsError: A column is missing.
        DataError: Cells that cannot be used.
    """
    names = [*(column["name"] for column in encoding["columns"]), *target.names]
    if problems := missing_columns(str(table.paths[0]), table.names, names, key):
        raise ProblemsError(problems)
    return encode_blocks(_Blocks(table, names, encoding["missing_values"]), table, encoding, target)


def _row(column: Column) -> dict[str, Any]:
    about = {name: getattr(column, name) for name in ("name", "kind", "reason", "missing")}
    about["distinct"] = str(column.distinct) if column.distinct <= column.counted else f"more than {column.counted}"
    if column.style is not None and (written := column.style.describe()):
        about["reason"] += f" ({written})"
    return about


def _notes(table: Table, columns: Sequence[Column], target: Target, options: TableOptions) -> Iterator[str]:
    yield table.format.describe() if len(table.paths) > 1 else f"{table.paths[0].name}: {table.format.describe()}"
    ignored = [f"{one.name} ({one.reason})" for one in columns if one.kind == "ignore" and one.reason != "as asked for"]
    if ignored:
        yield f"left out: {listed(ignored, quoted=False)}; dataset.columns overrules this"
    if options.task == "auto":
        yield f"{listed(target.names, quoted=False)} is taken for {target.task}: {target.reason}"
