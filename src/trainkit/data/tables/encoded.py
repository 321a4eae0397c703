"""The rows of tables as arrays: with targets for training and scoring, without them for predicting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.encoding import Encoding, Filled, encode_inputs
from trainkit.data.tables.evidence import as_cells
from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.reading import Block, Table, open_table
from trainkit.data.tables.target import Target, encode_target
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import closest, counted, first_lines, listed

if TYPE_CHECKING:
    import polars as pl

Paths = str | Sequence[str]


@dataclass(frozen=True)
class Cells:
    """The cells of some columns in blocks, as often as they are asked for."""

    table: Table
    names: Sequence[str]
    missing_values: Sequence[str]
    skip_ragged: bool = False

    def __iter__(self) -> Iterator[Block]:
        for block in self.table.blocks(self.names, skip_ragged=self.skip_ragged):
            yield replace(block, frame=as_cells(block.frame, self.missing_values))


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


@dataclass
class Count:
    """What was met on the way through the rows of a table."""

    filled: Filled = field(default_factory=Filled)
    dropped: int = 0
    """Rows without a target."""
    rows: int = 0
    """Rows with one."""

    def notes(self) -> list[str]:
        """A line for each kind of thing."""
        notes = []
        if self.dropped:
            are = "is" if self.dropped == 1 else "are"
            note = f"{counted(self.dropped, 'row')} without a target {are} left out"
            if self.dropped > 0.05 * (self.dropped + self.rows):  # a class may be called None
                note += "; if NA, None or the like is a class, dataset.missing_values says what is missing instead"
            notes.append(note)
        return [*notes, *self.filled.describe()]


@dataclass(frozen=True)
class Extra:
    """A column that is kept beside inputs and targets."""

    column: str
    dtype: type[np.generic]
    read: Callable[[pl.Series], tuple[NDArray[Any], Mapping[int, str]]]
    """From cells to an array (n,), and what is wrong with a cell, by its row."""


Extras = Mapping[str, Extra]
Labeled = dict[str, NDArray[Any]]
"""``inputs`` float32 (n, C), ``targets`` int64 (n,) or float64 (n, T), and the extras by name."""


def encode_labeled(
    blocks: Iterable[Block], table: Table, encoding: Encoding, target: Target, count: Count, extras: Extras
) -> Iterator[Labeled]:
    """All rows that have a target, block by block.

    Raises:
        DataError: Cells that cannot be used, each with its file, row and column (the first ten and the count); no row
            has a target.
    """
    bad: list[tuple[int, str]] = []
    for block in blocks:
        labels, kept, wrong = encode_target(block.frame, target)
        bad += [(block.first_row + row, message) for row, message in wrong]
        rows, before = np.flatnonzero(kept), len(count.filled.refused)
        array = encode_inputs(block.frame if kept.all() else block.frame[rows], encoding, count.filled)
        count.filled.refused[before:] = [
            (block.first_row + int(rows[row]), message) for row, message in count.filled.refused[before:]
        ]
        count.rows += len(labels)
        count.dropped += len(kept) - len(rows)
        arrays = {"inputs": array, "targets": labels}
        for name, extra in extras.items():
            values, errors = extra.read(block.frame[extra.column])
            arrays[name] = values[kept].astype(extra.dtype, copy=False)
            bad += [(block.first_row + row, message) for row, message in errors.items() if kept[row]]
        yield arrays
    if bad := sorted(bad + count.filled.refused):
        lines = first_lines([f"{table.place(row)}: {message}" for row, message in bad[:10]])
        more = [f"and {len(bad) - 10} more"] if len(bad) > 10 else []
        raise DataError("\n".join([*lines, *more]))
    if not count.rows:
        raise DataError(f"{table.paths[0]}: no row has a target")


def encode_other(
    table: Table,
    encoding: Encoding,
    target: Target,
    count: Count,
    *,
    extras: Extras | None = None,
    key: str = "dataset.test_path",
) -> Iterator[Labeled]:
    """Another table with the columns of ``encoding`` and the target, read in the same way.

    Raises:
        ProblemsError: A column is missing.
        DataError: Cells that cannot be used.
    """
    extras = extras or {}
    names = [*(column["name"] for column in encoding["columns"]), *target.names]
    names = list(dict.fromkeys([*names, *(extra.column for extra in extras.values())]))
    if problems := missing_columns(str(table.paths[0]), table.names, names, key):
        raise ProblemsError(problems)
    cells = Cells(table, names, encoding["missing_values"])
    yield from encode_labeled(cells, table, encoding, target, count, extras)


def concatenated(parts: Iterable[Labeled]) -> Labeled:
    """All blocks in memory."""
    blocks = list(parts)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def labeled_places(path: Paths, encoding: Encoding, target: Target) -> list[str]:
    """``flights.csv:17`` for each row that has a target: the rows that training read, in their order.

    Raises:
        UserError: The files are gone, or no tables.
    """
    table = open_table(path, base=TableFormat.from_json(encoding["format"]), key="dataset.path")
    places: list[str] = []
    for block in Cells(table, target.names, encoding["missing_values"]):
        _, kept, _ = encode_target(block.frame, target)
        places += [place for place, keep in zip(block.places(), kept.tolist(), strict=True) if keep]
    return places


@dataclass(frozen=True)
class EncodedRows:
    """A block of a table whose target is not known."""

    names: list[str]
    """The file and the line of each row."""
    inputs: NDArray[np.float32]
    filled: Filled
    bad: dict[int, str]
    """Why a row cannot be used, by its position in the block."""


def encode_table(path: Paths, encoding: Encoding) -> Iterator[EncodedRows]:
    """The rows of another table, block by block, read as the table of the training was.

    A row with too few or too many cells is one that cannot be used.

    Raises:
        UserError: It is no table, or a column is missing.
    """
    base = TableFormat.from_json(encoding["format"]) if "format" in encoding else None
    table = open_table(path, base=base, key="")
    names = [column["name"] for column in encoding["columns"]]
    missing = [name for name in names if name not in table.names]
    if missing:
        has = listed(table.names)
        raise DataError(f"no column {listed(missing)}, which the model takes; the file has {has}")
    for block in Cells(table, names, encoding["missing_values"], skip_ragged=True):
        filled = Filled()
        whole = np.delete(np.arange(block.num_rows), list(block.ragged))
        inputs = np.zeros((block.num_rows, len(encoding["inputs"])), dtype=np.float32)
        inputs[whole] = encode_inputs(block.frame, encoding, filled)
        refused = {int(whole[row]): message for row, message in reversed(filled.refused)}
        yield EncodedRows(block.places(), inputs, filled, refused | block.ragged)


def encode_columns(columns: Mapping[str, Sequence[Any]], encoding: Encoding) -> EncodedRows:
    """Rows from memory: values of Python by column, of one length; None is a missing one.

    A number among texts stays a number: rows are read together where each column has texts, or none.
    """
    import polars as pl

    num_rows = len(next(iter(columns.values())))
    mixed = [
        values for values in columns.values() if len({isinstance(one, str) for one in values if one is not None}) > 1
    ]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for row in range(num_rows) if mixed else ():
        groups.setdefault(tuple(isinstance(values[row], str) for values in mixed), []).append(row)
    inputs = np.zeros((num_rows, len(encoding["inputs"])), dtype=np.float32)
    filled, bad = Filled(), dict[int, str]()
    for rows in groups.values() if mixed else [list(range(num_rows))]:
        parts = [pl.Series(name, [values[row] for row in rows], strict=False) for name, values in columns.items()]
        frame = pl.DataFrame([part.cast(pl.String) if part.dtype == pl.Null else part for part in parts])
        found = Filled()
        inputs[rows] = encode_inputs(as_cells(frame, encoding["missing_values"]), encoding, found)
        bad |= {rows[place]: message for place, message in reversed(found.refused)}
        filled.add(found)
    return EncodedRows([f"[{row}]" for row in range(num_rows)], inputs, filled, bad)
