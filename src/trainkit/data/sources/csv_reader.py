"""Reading CSV files: named columns of numbers or of text, and the line of the file that each row stands on."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.errors import DataError, Problem, ProblemsError

MAX_SHOWN = 10
_CHUNK_ROWS = 2_000
_MAX_WORDS = 10_000


@dataclass
class Table:
    """The wanted columns of a CSV file; blanks around a cell are removed."""

    path: Path
    delimiter: str
    num_rows: int
    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Columns of numbers, each float64 (N,)."""
    odd_cells: dict[str, dict[int, str]] = field(default_factory=dict)
    """Cells of those columns that are not finite numbers: row index to text (the value is NaN)."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Columns of text."""

    def __len__(self) -> int:
        return self.num_rows

    @cached_property
    def lines(self) -> list[int]:
        """The line of the file on which each row ends (1-based), as an editor shows it. Read only for a message."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            return [reader.line_num for row in reader if row][1:]


Chooser = Callable[[Path, Sequence[str]], tuple[Collection[str], Collection[str]]]


def read_table(path: Path, choose: Chooser, *, delimiter: str, key: str = "dataset.path") -> Table:
    """Read a CSV file (UTF-8, a BOM is fine, RFC 4180 quotes) with a header line; empty lines are skipped.

    ``choose(path, header)`` returns the names of the columns to read as numbers and of those to read as text, and
    raises where it wants a column that is not there.

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
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                header = [name.strip() for name in next(reader, [])]
                _check_header(path, header, delimiter)
                wanted = choose(path, header)
                fast = _read_fast(path, header, *wanted, delimiter=delimiter)
                return fast or _read_rows(reader, path, header, *wanted, delimiter=delimiter)
            finally:
                line = reader.line_num
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}, near line {line + 1}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}:{line}: not a CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _read_fast(
    path: Path, header: list[str], as_numbers: Collection[str], as_texts: Collection[str], *, delimiter: str
) -> Table | None:
    """With NumPy's parser, five times as fast as Python's; None where anything is odd: then every cell is looked at.

    NumPy reads numbers only, so each different text becomes the number of its first row.
    """
    with path.open("rb") as file:
        if any(b'"' in chunk for chunk in iter(lambda: file.read(1 << 20), b"")):
            return None  # quoted cells
    words: dict[str, int] = {}

    def number_of(cell: str) -> int:
        return words.setdefault(cell.strip(), len(words))

    converters: dict[int | str, Callable[[str], Any]] = {}
    for column, name in enumerate(header):
        if name in as_texts:
            converters[column] = number_of
        elif name not in as_numbers:
            converters[column] = lambda _: 0.0
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="loadtxt: input contained no data")
            cells = np.loadtxt(
                path,
                delimiter=delimiter,
                comments=None,
                skiprows=1,
                converters=converters,
                encoding="utf-8-sig",
                ndmin=2,
            )
    except (ValueError, UserWarning):  # UnicodeDecodeError is a ValueError
        return None
    if cells.shape[1] != len(header) or "" in words or not np.isfinite(cells).all():
        return None
    table = Table(path, delimiter, len(cells), odd_cells={name: {} for name in as_numbers})
    names = list(words)
    for column, name in enumerate(header):
        if name in as_texts:
            table.texts[name] = [names[number] for number in cells[:, column].astype(np.int64).tolist()]
        elif name in as_numbers:
            table.numbers[name] = np.ascontiguousarray(cells[:, column])
    return table


def _read_rows(
    reader: Any,
    path: Path,
    header: list[str],
    as_numbers: Collection[str],
    as_texts: Collection[str],
    *,
    delimiter: str,
) -> Table:
    """With Python's parser; every odd cell is kept, every ragged row is named."""
    positions = {name: position for position, name in enumerate(header)}
    table = Table(path, delimiter, 0, odd_cells={name: {} for name in as_numbers}, texts={n: [] for n in as_texts})
    pieces: dict[str, list[NDArray[np.float64]]] = {name: [] for name in as_numbers}
    ragged: list[str] = []
    words: dict[str, str] = {}  # one object for each text: a million labels are a few strings
    while rows := _next_rows(reader, len(header), path, ragged):
        columns = list(zip(*rows, strict=True))
        for name in as_numbers:
            values, odd = parse_numbers(columns[positions[name]])
            pieces[name].append(values)
            table.odd_cells[name] |= {table.num_rows + row: cell for row, cell in odd.items()}
        for name in as_texts:
            cells = columns[positions[name]]
            remember = words.setdefault if len(words) < _MAX_WORDS else words.get
            table.texts[name] += [remember(cell, cell) for cell in map(str.strip, cells)]
        table.num_rows += len(rows)
    if ragged:
        raise bad_rows(ragged)
    if not table.num_rows:
        raise DataError(f"{path} has a header but no rows")
    table.numbers = {name: np.concatenate(values) for name, values in pieces.items()}
    return table


def _next_rows(reader: Any, width: int, path: Path, ragged: list[str]) -> list[list[str]]:
    """The next rows that have cells; those of another width go to ``ragged``."""
    rows: list[list[str]] = []
    for row in reader:
        if not row:
            continue
        if len(row) != width:
            ragged.append(f"{path}:{reader.line_num}: {len(row)} cells, but the header has {width}")
            row = [*row, *[""] * width][:width]
        rows.append(row)
        if len(rows) == _CHUNK_ROWS:
            break
    return rows


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
    """An error a line, ten of them and the count of the rest."""
    shown = list(messages[:MAX_SHOWN])
    if len(messages) > MAX_SHOWN:
        shown.append(f"and {len(messages) - MAX_SHOWN} more")
    return DataError("\n".join(shown))


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
        values = np.array(list(map(float, cells)), dtype=np.float64)
        if "_" not in "".join(cells) and np.isfinite(values).all():
            return values, {}
    except ValueError:
        pass  # some cells are no numbers: cell by cell, to know which
    parsed = [as_number(cell) for cell in cells]
    odd = {row: cells[row].strip() for row, value in enumerate(parsed) if value is None}
    return np.array([math.nan if value is None else value for value in parsed], dtype=np.float64), odd
