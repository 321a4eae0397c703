"""Tables in files: opened with a look at their first rows, read block by block as often as wanted."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.data.tables.file_kinds import HEAD_BYTES, find_kind, is_packed, open_bytes
from trainkit.data.tables.formats import Layout, TableFormat, any_number, doubts, find_layout
from trainkit.data.tables.frames import FindLines, Ragged, file_blocks, text_frames
from trainkit.data.tables.paths import TableFile, find_paths
from trainkit.data.tables.text import BLOCK_BYTES, bad_byte, find_encoding, read_text
from trainkit.data.tables.typed import count_rows, folder_type, folder_values, scan_typed, typed_blocks
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import counted, first_lines, listed

if TYPE_CHECKING:
    import polars as pl

_MAX_HEAD_BYTES = 256 * HEAD_BYTES


@dataclass(frozen=True)
class Block:
    """Some rows of a table."""

    frame: pl.DataFrame
    first_row: int
    """How many rows of the table stand before it."""
    path: Path
    row_in_file: int = 0
    """How many rows of this file do."""
    find_lines: FindLines | None = None
    """Gives the line of each row in a file of text, 1-based; of the ragged ones too."""
    ragged: Ragged = field(default_factory=dict)
    """What is wrong with rows that have too few or too many cells, by position; the frame does not have them."""

    @property
    def num_rows(self) -> int:
        return len(self.frame) + len(self.ragged)

    def places(self) -> list[str]:
        """``flights.csv:17`` for each row."""
        if self.find_lines is not None:
            return [f"{self.path}:{line}" for line in self.find_lines().tolist()]
        first = self.row_in_file + 1
        return [f"{self.path}: row {row}" for row in range(first, first + len(self.frame))]


@dataclass(frozen=True)
class Table:
    """A table of one or several files. Only the header and the first rows were read."""

    files: tuple[TableFile, ...]
    schema: dict[str, pl.DataType] = field(default_factory=dict)
    """The types of the columns of typed files."""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files)

    @property
    def names(self) -> tuple[str, ...]:
        return self.files[0].names

    @property
    def format(self) -> TableFormat:
        return self.files[0].format

    def blocks(self, columns: Sequence[str] | None = None, *, skip_ragged: bool = False) -> Iterator[Block]:
        """The rows of all files, some at a time. Columns of text files are ``pl.String``, null where a cell is empty.

        Args:
            skip_ragged: name the rows with too few or too many cells; otherwise they are an error.

        Raises:
            DataError: Rows with too few or too many cells, a quote that is not closed, bytes that are no text, no rows,
                a file that has changed since the table was opened.
        """
        wanted = list(self.names if columns is None else columns)
        known = set(self.names)
        if unknown := [name for name in wanted if name not in known]:
            raise KeyError(f"no column {listed(unknown)}")
        first_row = 0
        for file in self.files:
            _check_unchanged(file)
            row_in_file = 0
            for frame, find_lines, ragged in self._frames(file, wanted, skip_ragged):
                block = Block(frame, first_row, file.path, row_in_file, find_lines, ragged)
                yield block
                first_row += block.num_rows
                row_in_file += block.num_rows
            _check_unchanged(file)
        if not first_row:
            raise DataError(f"{self.paths[0]} has columns ({listed(self.names, limit=3)}) but no rows")

    def _frames(
        self, file: TableFile, wanted: list[str], skip_ragged: bool
    ) -> Iterator[tuple[pl.DataFrame, FindLines | None, Ragged]]:
        if file.kind == "text":
            return text_frames(file, wanted, skip_ragged=skip_ragged)
        frames = typed_blocks(file.path, file.kind, wanted, self.schema, file.added, BLOCK_BYTES)
        return ((frame, None, {}) for frame in frames)

    def place(self, row: int) -> str:
        """``flights.csv:17``: the file and the line of a row, 0-based over all files. It reads the file up to there."""
        for file in self.files:
            if file.kind != "text":
                num_rows = count_rows(file.path, file.kind)
                if row < num_rows:
                    return f"{file.path}: row {row + 1}"
                row -= num_rows
                continue
            for block in file_blocks(file):
                if row < block.num_rows:
                    return f"{file.path}:{block.line_of(row) + 1}"
                row -= block.num_rows
        raise IndexError(f"no row {row} behind the last one")


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

    ``path``: a file, a pattern such as ``part-*.csv``, a folder of Parquet, or a list of these. ``base`` is the format
    of a file with the same columns and is tried first. ``key`` is the place of ``path`` in the config, for messages.

    Raises:
        ProblemsError: No such file; a first line that may be a header or data.
        DataError: Files that are no table, a column twice, files whose columns differ.
    """
    section = key.rpartition(".")[0]
    if encoding is not None and not _is_known(encoding):
        message = (
            f"there is no encoding {encoding!r}; known are utf-8, utf-16, cp1252, latin-1, cp1251, gb18030 and more"
        )
        raise ProblemsError([Problem(message, key=f"{section}.encoding".lstrip("."))])
    files = []
    for folder, one in find_paths(path, key):
        with open_bytes(one) as source:
            head = source.read(HEAD_BYTES)
        kind = find_kind(one, head)
        if kind != "text" and is_packed(one):
            raise DataError(f"{one} is a packed {kind.capitalize()} file; unpack it (it is compressed inside anyway)")
        if kind == "text":
            options = {"delimiter": delimiter, "decimal": decimal, "header": header}
            file = _open_text(one, head, base, encoding, options, section)
            base = base or file.format
        else:
            form = TableFormat("parquet" if kind == "parquet" else "arrow")
            names = tuple(scan_typed(one, kind).collect_schema().names())
            added = {name: value for name, value in folder_values(folder, one).items() if name not in names}
            file = TableFile(one, kind, form, (*names, *added), _state(one), added=added)
        files.append(file)
    _check_alike(files)
    return Table(tuple(files), _common_schema(files))


def _is_known(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        return False


def _open_text(
    path: Path,
    head: bytes,
    base: TableFormat | None,
    encoding: str | None,
    options: dict[str, Any],
    section: str,
) -> TableFile:
    state = _state(path)
    encoding = encoding or find_encoding(path, head)
    if base and options["header"] is None:
        options = options | {"header": base.header}
    size, layout, final = HEAD_BYTES, None, False
    while not final and size <= _MAX_HEAD_BYTES and not (layout and layout.rows):
        pieces = read_text(path, encoding, size)
        text, final = next(pieces, b""), not next(pieces, b"")
        layout = find_layout(text, final=final, encoding=encoding, base=base, **options)
        size *= 4
    if layout is None:
        raise DataError(f"{path} has no rows; expected a header line and rows")
    try:
        text[: layout.offset].decode()
    except UnicodeDecodeError as error:
        raise bad_byte(path, text[: error.start].count(b"\n") + 1, error) from None
    if options["header"] is None and (reason := doubts(layout)):
        message = (
            f"{path}:{layout.format.skip_lines + 1}: this line may be data and no header ({reason}); say header: true "
            "or header: false, which names the columns column_1, column_2 and so on"
        )
        raise ProblemsError([Problem(message, key=f"{section}.header".lstrip("."))])
    names, row_names = _name_columns(path, layout)
    form = replace(layout.format, row_names=row_names)
    return TableFile(path, "text", form, names, state, layout.offset, layout.line)


def _name_columns(path: Path, layout: Layout) -> tuple[tuple[str, ...], bool]:
    """As pandas does: ``Unnamed: 0`` where a name is empty. And whether the first column holds row names without one.

    Raises:
        DataError: A name twice; a first line that can be no header.
    """
    if layout.names is None:
        return tuple(f"column_{position + 1}" for position in range(layout.width)), False
    names, where = list(layout.names), f"{path}:{layout.format.skip_lines + 1}"
    row_names = False
    if len(names) == layout.width - 1:
        if any_number(names):
            raise DataError(
                f"{where}: this line has {counted(len(names), 'cell')}, and the rows below have {layout.width}; "
                "if it is no header, delete it, and say header: false"
            )
        # Every row ends with a delimiter, or begins with a name of its own, as R writes them.
        row_names = any(row[-1] for row in layout.rows if len(row) == layout.width)
        names = ["", *names] if row_names else [*names, ""]
    while len(names) > layout.width and not names[-1]:
        names.pop()
    names = [name or f"Unnamed: {position}" for position, name in enumerate(names)]
    first: dict[str, int] = {}
    twice = []
    for position, name in enumerate(names):
        if first.setdefault(name, position) != position:
            twice.append(f"{name!r} (columns {first[name] + 1} and {position + 1})")
    if twice:
        hint = "give each column a name of its own, or say header: false if this line is data"
        raise DataError(f"{where}: columns with one name: {', '.join(first_lines(twice))}; {hint}")
    return tuple(names), row_names


def _check_alike(files: Sequence[TableFile]) -> None:
    """Raises DataError where a file lacks a column of the first one, or has more."""
    first, messages = files[0], []
    for file in files[1:]:
        here, expected = set(file.names), set(first.names)
        missing = [name for name in first.names if name not in here]
        more = [name for name in file.names if name not in expected]
        if (file.kind == "text") != (first.kind == "text"):
            messages.append(f"{file.path} is {file.format.describe()}, but {first.path} is {first.format.describe()}")
        elif missing or more:
            parts = [f"has no column {listed(missing)}"] if missing else []
            parts += [f"has also {listed(more)}"] if more else []
            messages.append(f"{file.path} {' and '.join(parts)}; the columns of {first.path} are expected")
    if messages:
        raise DataError("\n".join(first_lines(messages)))


def _common_schema(files: Sequence[TableFile]) -> dict[str, pl.DataType]:
    """The types that hold the values of all typed files."""
    import polars as pl

    schema: dict[str, pl.DataType] = {}
    for file in files:
        if file.kind == "text":
            continue
        for name, dtype in scan_typed(file.path, file.kind).collect_schema().items():
            if (known := schema.setdefault(name, dtype)) == dtype:
                continue
            try:
                both = [pl.DataFrame(schema={name: one}) for one in (known, dtype)]
                schema[name] = pl.concat(both, how="vertical_relaxed").schema[name]
            except pl.exceptions.PolarsError:
                raise DataError(
                    f"{file.path}: the column {name!r} holds {dtype}, but {known} in {files[0].path}"
                ) from None
    for name in files[0].added:
        schema.setdefault(name, folder_type([file.added.get(name) for file in files]))
    return schema


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _check_unchanged(file: TableFile) -> None:
    if not file.path.is_file() or _state(file.path) != file.state:
        raise DataError(f"{file.path} has changed since it was opened; start again when it is complete")
