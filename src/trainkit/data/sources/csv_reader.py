"""Reading CSV files: named columns of numbers or of text, and the line number of each row."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import first_lines

_CHUNK_ROWS = 500
"""Few enough that their cells stay in the processor's cache: 2,000 take half as long again."""

Row = tuple[int, list[str]]
"""The line of the file on which a row ends (1-based), as an editor shows it, and the row's cells."""
Chooser = Callable[[Path, Sequence[str]], tuple[Collection[str], Collection[str]]]


@dataclass
class Table:
    """Some columns of some or all rows of a CSV file; blanks around a cell are removed."""

    path: Path
    lines: NDArray[np.int64]
    """The line of the file on which each row ends, (N,)."""
    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Columns of numbers, each float64 (N,)."""
    odd_cells: dict[str, dict[int, str]] = field(default_factory=dict)
    """Cells of those columns that are not finite numbers: row index to text (the value is NaN)."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Columns of text."""

    def __len__(self) -> int:
        return len(self.lines)


class RowReader:
    """The header and the rows of an open CSV file with RFC 4180 quotes; empty lines are skipped."""

    def __init__(self, file: TextIO, *, delimiter: str) -> None:
        self._reader = csv.reader(file, delimiter=delimiter, strict=True)

    @property
    def line(self) -> int:
        """The last line that was read."""
        return self._reader.line_num

    def header(self) -> list[str]:
        """The names in the first line. Call it first; an empty file has none."""
        return [name.strip() for name in next(self._reader, [])]

    def chunks(self, num_rows: int) -> Iterator[list[Row]]:
        rows = ((self._reader.line_num, row) for row in self._reader if row)
        while chunk := list(islice(rows, num_rows)):
            yield chunk


def read_table(path: Path, choose: Chooser, *, delimiter: str, key: str = "dataset.path") -> Table:
    """Read a CSV file (UTF-8, a BOM is fine) with a header line.

    ``choose(path, header)`` returns the names of the columns to read as numbers and of those to read as text, and
    raises where one is not in the header.

    Raises:
        ProblemsError: No such file.
        DataError: Not UTF-8, no header or no rows, a column twice, rows with too few or too many cells.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ProblemsError([Problem(f"{path} {what}; give the path of a CSV file with a header line", key=key)])
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = RowReader(file, delimiter=delimiter)
            try:
                return _read_all(reader, path, choose, delimiter)
            finally:
                line = reader.line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}, near line {line + 1}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}:{line}: not a CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _read_all(reader: RowReader, path: Path, choose: Chooser, delimiter: str) -> Table:
    header = reader.header()
    _check_header(path, header, delimiter)
    as_numbers, as_texts = choose(path, header)
    ragged: list[str] = []
    tables: list[Table] = []
    for rows in reader.chunks(_CHUNK_ROWS):
        bad = ragged_rows(rows, header)
        ragged += [f"{path}:{rows[position][0]}: {message}" for position, message in bad.items()]
        if not ragged:
            tables.append(parse_rows(path, header, rows, as_numbers, as_texts))
    if ragged:
        raise bad_rows(ragged)
    if not tables:
        raise DataError(f"{path} has a header but no rows")
    starts = np.cumsum([0, *map(len, tables)]).tolist()
    return Table(
        path,
        np.concatenate([table.lines for table in tables]),
        {name: np.concatenate([table.numbers[name] for table in tables]) for name in as_numbers},
        {
            name: {
                start + row: cell
                for start, table in zip(starts, tables, strict=False)
                for row, cell in table.odd_cells[name].items()
            }
            for name in as_numbers
        },
        {name: [cell for table in tables for cell in table.texts[name]] for name in as_texts},
    )


def ragged_rows(rows: Sequence[Row], header: Sequence[str]) -> dict[int, str]:
    """What is wrong with the rows that have too few or too many cells, by position."""
    width = len(header)
    return {
        position: f"{len(cells)} cells, but the header has {width}"
        for position, (_, cells) in enumerate(rows)
        if len(cells) != width
    }


def parse_rows(
    path: Path, header: list[str], rows: Sequence[Row], as_numbers: Collection[str], as_texts: Collection[str]
) -> Table:
    """Columns of rows that are as wide as the header."""
    columns = list(zip(*(cells for _, cells in rows), strict=True)) or [()] * len(header)
    table = Table(path, np.array([line for line, _ in rows], dtype=np.int64))
    for name in as_numbers:
        table.numbers[name], table.odd_cells[name] = parse_numbers(columns[header.index(name)])
    for name in as_texts:
        words: dict[str, str] = {}  # one object for each text: a million labels are a few strings
        table.texts[name] = [words.setdefault(cell, cell) for cell in map(str.strip, columns[header.index(name)])]
    return table


def _check_header(path: Path, header: list[str], delimiter: str) -> None:
    if not header:
        raise DataError(f"{path} is empty; expected a header line and rows")
    for column, name in enumerate(header):
        if not name:
            raise DataError(f"{path}:1: column {column + 1} has no name")
        if name in header[:column]:
            first = header.index(name) + 1
            raise DataError(f"{path}:1: the column {name!r} is there twice (columns {first} and {column + 1})")
    other = next((sign for sign in (";", "\t", ",", "|") if sign != delimiter and sign in header[0]), None)
    if len(header) == 1 and other:
        raise ProblemsError(
            [Problem(f"{path} has one column, {header[0]!r}; is it separated by {other!r}?", key="dataset.delimiter")]
        )


def bad_rows(messages: Sequence[str]) -> DataError:
    """An error with a line for each message, ten of them and the count of the rest."""
    return DataError("\n".join(first_lines(messages)))


def as_number(cell: str) -> float | None:
    """A finite number, or None. Python's ``1_000`` is not one: no other program writes that."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def parse_numbers(cells: Sequence[str]) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Values, NaN where a cell is not a finite number, and those cells by position."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
        if "_" not in "".join(cells) and np.isfinite(values).all():
            return values, {}
    except ValueError:
        pass  # some cells are no numbers: cell by cell, to know which
    parsed = [as_number(cell) for cell in cells]
    odd = {row: cells[row].strip() for row, value in enumerate(parsed) if value is None}
    return np.array([math.nan if value is None else value for value in parsed], dtype=np.float64), odd
