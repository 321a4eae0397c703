"""Tables in files: opened with a look at their first rows, read block by block as often as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.formats import TableFormat, find_delimiter, scan_text
from trainkit.data.tables.rows import Rows
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import counted, first_lines, listed

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 64_000_000
_HEAD_BYTES = 1_000_000
_TYPED = {b"PAR1": "parquet", b"ARROW1": "arrow"}


@dataclass(frozen=True)
class Block:
    """Some rows of a table."""

    frame: pl.DataFrame
    first_row: int
    """How many rows of the table stand before it."""
    path: Path
    find_lines: Callable[[], NDArray[np.int64]] | None = None
    """Gives the line of each row in a file of text, 1-based."""

    def places(self) -> list[str]:
        """``flights.csv:17`` for each row."""
        if self.find_lines is not None:
            return [f"{self.path}:{line}" for line in self.find_lines().tolist()]
        return [f"{self.path}: row {row}" for row in range(self.first_row + 1, self.first_row + len(self.frame) + 1)]


@dataclass(frozen=True)
class TableFile:
    """One file, and what it was when it was opened."""

    path: Path
    format: TableFormat
    names: tuple[str, ...]
    """Its columns in its own order."""
    state: tuple[int, int]
    """Size and time of the last change."""


@dataclass(frozen=True)
class Table:
    """A table of one or several files. Only the header and the first rows were read."""

    files: tuple[TableFile, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files)

    @property
    def names(self) -> tuple[str, ...]:
        return self.files[0].names

    @property
    def format(self) -> TableFormat:
        return self.files[0].format

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[Block]:
        """The rows of all files, some at a time. Columns of text files are ``pl.String``, null where a cell is empty.

        Raises:
            DataError: Rows with too few or too many cells, a quote that is not closed, a file that has changed.
        """
        wanted = list(self.names if columns is None else columns)
        first_row = 0
        for file in self.files:
            _check_unchanged(file)
            for frame, find_lines in _read_file(file, wanted):
                yield Block(frame, first_row, file.path, find_lines)
                first_row += len(frame)
            _check_unchanged(file)

    def place(self, row: int) -> str:
        """``flights.csv:17``: the file and the line of a row, 0-based over all files."""
        for file in self.files:
            if file.format.kind == "text":
                for rows, line, skip in _text_rows(file):
                    if row < len(rows.starts) - skip:
                        return f"{file.path}:{line + rows.line(int(rows.starts[row + skip])) + 1}"
                    row -= len(rows.starts) - skip
            else:
                count = _count_typed(file)
                if row < count:
                    return f"{file.path}: row {row + 1}"
                row -= count
        raise IndexError(row)


def open_table(
    path: str | Sequence[str],
    *,
    base: TableFormat | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    key: str = "dataset.path",
) -> Table:
    """Find out how a table is written.

    Raises:
        ProblemsError: No such file, with ``key`` as its place in the config.
        DataError: A file that is no table, a column twice, files whose columns differ.
    """
    files = [
        _open_file(Path(one).expanduser(), base, delimiter, decimal, encoding, header, key)
        for one in ([path] if isinstance(path, str) else path)
    ]
    names = set(files[0].names)
    for file in files[1:]:
        if missing := [name for name in files[0].names if name not in file.names]:
            raise DataError(f"{file.path} has no column {listed(missing)}, but {files[0].path} has")
        if more := [name for name in file.names if name not in names]:
            raise DataError(f"{file.path} has a column {listed(more)}, but {files[0].path} has not")
    return Table(tuple(files))


def _open_file(
    path: Path,
    base: TableFormat | None,
    delimiter: str | None,
    decimal: str | None,
    encoding: str | None,
    header: bool | None,
    key: str,
) -> TableFile:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ProblemsError([Problem(f"{path} {what}; give the path of a table (CSV, TSV, Parquet, Arrow)", key=key)])
    state = _state(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for magic, kind in _TYPED.items():
        if head.startswith(magic):
            form = TableFormat("parquet" if kind == "parquet" else "arrow")
            return TableFile(path, form, tuple(_scan_typed(path, form).collect_schema().names()), state)
    form = base if base and base.kind == "text" else TableFormat("text")
    text = head.removeprefix(b"\xef\xbb\xbf")
    final = len(head) < _HEAD_BYTES
    form = replace(form, delimiter=delimiter or find_delimiter(text, quote=form.quote, final=final))
    form = replace(form, decimal=decimal or form.decimal, header=form.header if header is None else header)
    rows = scan_text(text, form, final=final)
    if not len(rows.starts):
        raise DataError(f"{path} is empty; expected a header line and rows")
    cells = _parse(rows, form, 0, 1)[0]
    names = [cell or "" for cell in cells] if form.header else [f"column_{i + 1}" for i in range(len(cells))]
    names = [name or f"Unnamed: {position}" for position, name in enumerate(names)]
    for column, name in enumerate(names):
        if name in names[:column]:
            first = names.index(name) + 1
            raise DataError(f"{path}:1: the column {name!r} is there twice (columns {first} and {column + 1})")
    return TableFile(path, form, tuple(names), state)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _check_unchanged(file: TableFile) -> None:
    if _state(file.path) != file.state:
        raise DataError(f"{file.path} has changed since it was opened; start again")


def _read_file(
    file: TableFile, wanted: list[str]
) -> Iterator[tuple[pl.DataFrame, Callable[[], NDArray[np.int64]] | None]]:
    if file.format.kind != "text":
        yield from ((frame, None) for frame in _typed_blocks(file, wanted))
        return
    ragged: list[str] = []
    width, total = len(file.names), 0
    indices = sorted(file.names.index(name) for name in set(wanted))
    for rows, line, skip in _text_rows(file):
        for position in np.flatnonzero(rows.cells != width):
            where = f"{file.path}:{line + rows.line(int(rows.starts[position])) + 1}"
            ragged.append(f"{where}: {counted(int(rows.cells[position]), 'cell')}, but the header has {width}")
        total += len(rows.starts) - skip
        if not ragged and len(rows.starts) > skip:
            yield _frame(rows, file, skip, indices).select(wanted), partial(_lines, rows, line, skip)
    if ragged:
        raise DataError("\n".join(first_lines(ragged)))
    if not total:
        raise DataError(f"{file.path} has a header but no rows")


def _lines(rows: Rows, line: int, skip: int) -> NDArray[np.int64]:
    return rows.lines()[skip:] + line + 1


def _text_rows(file: TableFile) -> Iterator[tuple[Rows, int, int]]:
    """Rows, the number of lines before them, and how many of them are the header."""
    rest, line, skip = b"", 0, int(file.format.header)
    with file.path.open("rb") as source:
        piece = source.read(BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf")
        while piece:
            following = source.read(BLOCK_BYTES)
            rows = scan_text(rest + piece, file.format, final=not following)
            if not following and rows.open_quote is not None:
                where = f"{file.path}:{line + rows.line(rows.open_quote) + 1}"
                raise DataError(f"{where}: a quote opens here that is not closed")
            if len(rows.starts):
                yield rows, line, skip
                skip = 0
            line += rows.line(rows.stop)
            rest, piece = rows.text[rows.stop :].tobytes(), following


def _parse(rows: Rows, form: TableFormat, first: int, count: int) -> list[tuple[str | None, ...]]:
    start, stop = int(rows.starts[first]), int(rows.ends[first + count - 1])
    text = rows.edits.apply(rows.text, start, stop)
    return [tuple(cell and cell.strip() for cell in row) for row in _read_csv(text, form, rows, None).rows()]


def _read_csv(text: bytes, form: TableFormat, rows: Rows, indices: list[int] | None) -> pl.DataFrame:
    import polars as pl

    return pl.read_csv(
        text,
        has_header=False,
        infer_schema=False,
        separator=form.delimiter,
        quote_char=form.quote if rows.has_quotes else None,
        columns=indices,
    )


def _frame(rows: Rows, file: TableFile, skip: int, indices: list[int]) -> pl.DataFrame:
    import polars as pl

    frame = _read_csv(rows.rewritten(skip), file.format, rows, indices)
    frame.columns = [file.names[index] for index in indices]
    trimmed = pl.all().str.strip_chars()
    return frame.select(pl.when(trimmed != "").then(trimmed))


def _scan_typed(path: Path, form: TableFormat) -> pl.LazyFrame:
    import polars as pl

    return pl.scan_parquet(path) if form.kind == "parquet" else pl.scan_ipc(path)


def _count_typed(file: TableFile) -> int:
    import polars as pl

    return int(_scan_typed(file.path, file.format).select(pl.len()).collect().item())


def _typed_blocks(file: TableFile, wanted: list[str]) -> Iterator[pl.DataFrame]:
    count, size = _count_typed(file), max(1, BLOCK_BYTES // (16 * len(wanted)))
    for start in range(0, count, size):
        yield _scan_typed(file.path, file.format).select(wanted).slice(start, size).collect()
