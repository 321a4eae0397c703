"""How the rows of a table's file are written: what its first megabyte says, and the one line that tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from trainkit.data.tables.rows import Rows, scan
from trainkit.wording import counted

DELIMITERS = {"\t": "tab", ";": "semicolon", "|": "|", ",": "comma", " ": "blanks"}
"""In the order in which they are tried: a text has commas and blanks more often than tabs."""
_RARE = "^~:\x01\x1f\x1e"
_ALIKE = 0.9
"""This share of the rows is equally wide where a delimiter is right; the others are mistakes."""
_MAX_TITLE_LINES = 30
_SAMPLE_ROWS, _SAMPLE_CELLS = 500, 50_000
_DECIMAL_COMMA = re.compile(
    r"[-+−]?(?:(?:\d{1,3}(?:[. '\u00a0\u202f]\d{3})+|\d*),(?:\d{1,2}|\d{4,})|0,\d+)(?:\s*[%€])?"
)
_DECIMAL_POINT = re.compile(
    r"[-+−$£]?(?:(?:\d{1,3}(?:[, '\u00a0\u202f]\d{3})+|\d*)\.(?:\d{1,2}|\d{4,})|0\.\d+)(?:\s*%)?"
)
_NUMBER = re.compile(r"[-+−]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class TableFormat:
    """How a file is to be read. Everything but ``kind`` is about text."""

    kind: Literal["text", "parquet", "arrow"]
    delimiter: str = ","
    """One character. A blank stands for any number of blanks and tabs."""
    quote: str = '"'
    escape: str = ""
    """A backslash where ``\\"`` is a quote within a cell."""
    encoding: str = "utf-8"
    decimal: str = "."
    header: bool = True
    skip_lines: int = 0
    """Lines above the header that are no part of the table."""
    row_names: bool = False
    """The first column has no name in the header."""

    def describe(self) -> str:
        """``delimiter semicolon, UTF-8, decimal comma, 3 lines above the header skipped``."""
        if self.kind != "text":
            return {"parquet": "Parquet", "arrow": "Arrow"}[self.kind]
        parts = [f"delimiter {DELIMITERS.get(self.delimiter, repr(self.delimiter))}"]
        parts += [f"quote {self.quote}"] if self.quote != '"' else []
        parts += ['quotes within cells as \\"'] if self.escape else []
        parts.append({"cp1252": "Windows-1252", "latin-1": "Latin-1"}.get(self.encoding, self.encoding.upper()))
        parts.append("decimal comma" if self.decimal == "," else "decimal point")
        parts += [] if self.header else ["no header"]
        if self.skip_lines:
            parts.append(f"{counted(self.skip_lines, 'line')} above the {'header' if self.header else 'rows'} skipped")
        parts += ["a cell more in each row than in the header: row names"] if self.row_names else []
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> TableFormat:
        return TableFormat(**data)


@dataclass(frozen=True)
class Layout:
    """Where the rows of a text begin, and some of them."""

    format: TableFormat
    names: tuple[str, ...] | None
    """The names in the header, as they are; None without one."""
    width: int
    """How many cells a row has."""
    rows: tuple[tuple[str, ...], ...]
    """Cells of the first rows below the header."""
    offset: int
    """How many bytes of UTF-8 stand before the first row below the header."""
    line: int
    """How many lines do."""


def find_layout(
    text: bytes,
    *,
    final: bool,
    encoding: str,
    base: TableFormat | None,
    delimiter: str | None,
    decimal: str | None,
    header: bool | None,
) -> Layout | None:
    """Delimiter, quote, decimal mark and header of the UTF-8 text that a file begins with; None where it has no rows.

    ``base`` is tried first; ``header`` None: there is one, whatever it looks like (see ``doubts``).
    """
    skipped, declared = _skip_declaration(text)
    delimiter = delimiter or declared
    start = skipped
    comment = b""
    while text[start : start + 1] == b"#" and (end := text.find(b"\n", start)) >= 0:
        comment, start = text[start:end], end + 1
    found = _find_delimiter(text[start:], delimiter, base, final=final, header=header is not False)
    if found is None:
        return None
    sign, quote, rows, first, width = found.delimiter, found.quote, found.rows, found.first, found.width
    cells = _cells(rows, sign, quote, first, max(5, min(_SAMPLE_ROWS, _SAMPLE_CELLS // width)))
    names = cells[0] if header is not False else None
    line = text[:start].count(b"\n") + rows.line(int(rows.starts[first]))
    if comment and header is not False and first == 0:
        titles = split_cells(comment.lstrip(b"# \t").rstrip(), sign, quote)
        if len(titles) == width and not any_number(titles):
            names, line = titles, text[:start].count(b"\n") - 1
            cells, first = [(), *cells], -1
    form = TableFormat("text", sign, quote, found.escape, encoding, skip_lines=line, header=names is not None)
    body = tuple(cells[1:] if names is not None else cells)
    form = replace(form, decimal=decimal or _find_decimal(body, sign, base))
    following = first + (names is not None)
    stop = int(rows.starts[following]) if following < len(rows.starts) else rows.stop
    return Layout(form, names, width, body, start + stop, text[:start].count(b"\n") + rows.line(stop))


def _skip_declaration(text: bytes) -> tuple[int, str | None]:
    """Excel's first line ``sep=;``: where it ends, and its delimiter."""
    found = re.match(rb'"?sep=(.)"?\r?\n?(?=.|\Z)', text, re.IGNORECASE | re.DOTALL)
    return (found.end(), found[1].decode()) if found else (0, None)


@dataclass(frozen=True)
class _Guess:
    """A text as one delimiter cuts it."""

    delimiter: str
    quote: str
    escape: str
    rows: Rows
    first: int
    """Which row is the first of the table."""
    width: int
    """How many cells the most rows have."""
    share: float
    """The share of the rows that have so many."""

    @property
    def fits(self) -> bool:
        """Whether the rows are alike, and the first one is as wide (or one less: row names have no header)."""
        return self.share >= _ALIKE and 2 <= self.rows.cells[self.first] >= self.width - 1

    @property
    def explains_all(self) -> bool:
        """Whether nothing stands above the header, which is as wide as the rows."""
        return self.first == 0 and int(self.rows.cells[0]) == self.width


def _find_delimiter(
    text: bytes, delimiter: str | None, base: TableFormat | None, *, final: bool, header: bool
) -> _Guess | None:
    """The first delimiter that cuts all rows alike; None where there are no rows."""
    if delimiter:
        return _guess(text, delimiter, final=final, header=header)
    signs = [*([base.delimiter] if base and base.kind == "text" else []), *DELIMITERS, *_RARE]
    guesses = [guess for sign in dict.fromkeys(signs) if (guess := _guess(text, sign, final=final, header=header))]
    if not guesses:
        return None
    if fitting := [guess for guess in guesses if guess.fits]:
        return _choose(fitting, base)
    # Rows of several widths: most of them are right under a usual delimiter, or there is one column.
    usual = [guess for guess in guesses if guess.delimiter in "\t;|," and guess.width > 1 and guess.share > 0.5]
    one = _guess(text, ",", final=final, header=header)
    return max(usual, key=lambda guess: guess.share, default=one and replace(one, first=0))


def _choose(fitting: list[_Guess], base: TableFormat | None) -> _Guess:
    """Of several delimiters that cut all rows alike, the one that explains the first line, too."""
    usual = [guess for guess in fitting if guess.delimiter in "\t;|," or (base and guess.delimiter == base.delimiter)]
    if not usual:
        return fitting[0]
    best = min(usual, key=lambda guess: (not guess.explains_all, guess.first > 0))
    blanks = next((guess for guess in fitting if guess.delimiter == " " and guess.explains_all), None)
    if blanks and best.delimiter == "\t" and blanks.width > best.width and b"  " in best.rows.text:
        return blanks
    if blanks and best.delimiter == "," and not best.explains_all:  # "1,5 2,5" below "x y"
        cells = [cell for row in _cells(blanks.rows, " ", blanks.quote, 1, 20) for cell in row]
        return blanks if all(map(_DECIMAL_COMMA.fullmatch, cells)) else best
    return best


def _guess(text: bytes, delimiter: str, *, final: bool, header: bool) -> _Guess | None:
    num_signs = text.count(delimiter.encode()) + (text.count(b"\t") if delimiter == " " else 0)
    if delimiter != "," and num_signs < text.count(b"\n") // 2:
        return None  # most rows have none
    quote, escape = '"', ""
    rows = scan(text, delimiter=delimiter, quote=quote, final=final)
    if b'"' not in text and b"'" in text:
        # Single quotes enclose cells where all of them do, and no row becomes a part of another by that.
        other = scan(text, delimiter=delimiter, quote="'", final=final)
        is_better = len(set(other.cells.tolist())) == 1 < len(set(rows.cells.tolist()))
        encloses = not other.has_odd_quotes and (not final or other.open_quote is None)
        if encloses and (is_better or np.array_equal(rows.cells, other.cells)):
            rows, quote = other, "'"
    if b'\\"' in text and (rows.has_odd_quotes or rows.open_quote is not None):
        other = scan(without_escapes(text), delimiter=delimiter, quote=quote, final=final)
        if not other.has_odd_quotes and (not final or other.open_quote is None):
            rows, escape = other, "\\"
    if not len(rows.starts):
        return None
    cells = rows.cells[min(_MAX_TITLE_LINES, len(rows.cells) // 2) :]  # title lines aside
    widths, counts = np.unique(cells, return_counts=True)
    most = int(np.argmax(counts))
    width, share = int(widths[most]), float(counts[most] / len(cells))
    return _Guess(
        delimiter, quote, escape, rows, _first_row(rows, delimiter, quote, width, header=header), width, share
    )


def without_escapes(text: bytes) -> bytes:
    """``\\"`` as two quotes, which are as long."""
    return re.sub(rb'(?<!\\)((?:\\\\)*)\\"', rb'\1""', text)


def _first_row(rows: Rows, delimiter: str, quote: str, width: int, *, header: bool) -> int:
    """The first row that is no title: as wide as the others, or one less, or nearly full.

    A title is short, or a spreadsheet has filled it up with empty cells.
    """
    for row in range(min(_MAX_TITLE_LINES, len(rows.starts))):
        cells = split_cells(rows.row(row), delimiter, quote)
        filled = sum(map(bool, cells))
        is_wide = len(cells) == width or len(cells) == width - 1 > 1
        if is_wide and (filled > 1 or width <= 2 or not header):
            return row
        if filled > max(2, width // 2):
            return row
    return 0


def _cells(rows: Rows, delimiter: str, quote: str, first: int, count: int) -> list[tuple[str, ...]]:
    """Trimmed cells of some rows, as wide as each is."""
    last = min(first + count, len(rows.starts))
    return [split_cells(rows.row(position), delimiter, quote) for position in range(first, last)]


def split_cells(row: bytes, delimiter: str, quote: str) -> tuple[str, ...]:
    """The trimmed cells of one row, whose quotes are those of RFC 4180."""
    text, cells, begin = row.decode("utf-8", "replace"), [], 0
    enclosed = re.compile(f"{quote}((?:[^{quote}]|{quote}{quote})*){quote}")
    while True:
        if match := enclosed.match(text, begin):
            cell, end = match[1].replace(quote * 2, quote), match.end()
        else:
            end = text.find(delimiter, begin)
            end = len(text) if end < 0 else end
            cell = text[begin:end]
        cells.append(cell.strip())
        if end >= len(text):
            return tuple(cells)
        begin = end + 1


def _find_decimal(rows: Sequence[Sequence[str]], delimiter: str, base: TableFormat | None) -> str:
    cells = [cell for row in rows for cell in row if cell]
    commas = sum(bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    points = sum(bool(_DECIMAL_POINT.fullmatch(cell)) for cell in cells)
    if commas == points:
        if base and base.kind == "text":
            return base.decimal
        grouped = any(re.fullmatch(r"\d{1,3},\d{3}", cell) for cell in cells)
        return "," if delimiter == ";" and grouped and not commas else "."
    return "," if commas > points else "."


def any_number(cells: Sequence[str]) -> bool:
    return any(_NUMBER.fullmatch(cell) for cell in cells)


def doubts(layout: Layout) -> str | None:
    """Why the first line may be data and no header; None where nothing says so."""
    names = layout.names or ()
    columns = list(zip(*(row for row in layout.rows if len(row) == layout.width), strict=True))
    if len(names) != layout.width or not columns or not columns[0]:
        return None
    numeric = [_is_numeric(column) for column in columns]
    if any(name and number and not _NUMBER.fullmatch(name) for name, number in zip(names, numeric, strict=True)):
        return None  # a word above numbers
    values = [name for name, number in zip(names, numeric, strict=True) if number and _NUMBER.fullmatch(name)]
    counted_from_0 = not names[0] and values == [str(number) for number in range(len(values))]  # pandas, with an index
    if values and not counted_from_0 and not _counts_up(values):
        return f"{values[0]!r} stands above numbers"
    for name, column, number in zip(names, columns, numeric, strict=True):
        if name and not number and name in column:
            return f"{name!r} is also a value of its column"
    return None


def _is_numeric(column: Sequence[str]) -> bool:
    cells = [cell for cell in column if cell]
    return bool(cells) and sum(bool(_NUMBER.fullmatch(cell)) for cell in cells) > len(cells) / 2


def _counts_up(names: Sequence[str]) -> bool:
    """``0, 1, 2`` or ``1990, 1991``: numbers that count columns."""
    if not all(name.isdecimal() for name in names):
        return False
    numbers = list(map(int, names))
    if len(numbers) < 3:
        return all(1900 <= number <= 2100 for number in numbers)
    steps = {after - before for before, after in pairwise(numbers)}
    return len(steps) == 1 and steps.pop() > 0
