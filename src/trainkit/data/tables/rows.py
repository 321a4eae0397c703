"""Where the rows and cells of delimited text lie: quotes, line ends and delimiters, found with whole arrays.

Cells are those of Python's ``csv`` module with ``skipinitialspace``: a quote opens a cell where a cell begins and
stands for itself elsewhere; two quotes inside are one; what follows a closing quote belongs to the cell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
_LF, _CR, _SPACE = b"\n\r "
_NONE: Positions = np.zeros(0, np.int64)
_ZERO: Positions = np.zeros(1, np.int64)


@dataclass(frozen=True)
class Rows:
    """The rows of a piece of text that begins where a row begins. An empty line is no row."""

    text: NDArray[np.uint8]
    """UTF-8, (B,)."""
    starts: Positions
    """Where each row begins, (R,)."""
    ends: Positions
    """Where the line end of each row begins, (R,)."""
    cells: Positions
    """How many cells each row has, (R,)."""
    stop: int
    """Where the first row begins that this piece does not hold whole."""
    open_quote: int | None
    """Where the quote stands that is not closed in this piece."""
    has_quotes: bool
    edits: _Edits

    def line(self, position: int) -> int:
        """How many lines end before this position. ``\\r\\n``, ``\\n`` and ``\\r`` end a line, in a quoted cell too."""
        before, after = self.text[:position], self.text[1 : position + 1]
        return int(np.count_nonzero(before == _LF) + np.count_nonzero((before[: len(after)] == _CR) & (after != _LF)))

    def lines(self) -> Positions:
        """How many lines end before each row, (R,)."""
        ends = np.flatnonzero((self.text[:-1] == _LF) | ((self.text[:-1] == _CR) & (self.text[1:] != _LF)))
        return np.searchsorted(ends, self.starts)

    def rewritten(self, first: int = 0) -> bytes:
        """The rows from the ``first`` on, as a reader of RFC 4180 needs them."""
        start = int(self.starts[first]) if first < len(self.starts) else self.stop
        return self.edits.apply(self.text, start, self.stop)


@dataclass(frozen=True)
class _Edits:
    """What has to change in a text so that every reader sees the same cells."""

    newlines: Positions
    """Where a byte becomes a line feed."""
    deleted: Positions
    inserted: Positions
    """Before which bytes a quote is inserted, in order."""
    quote: int

    def apply(self, text: NDArray[np.uint8], start: int, stop: int) -> bytes:
        text = text[start:stop]
        newlines, deleted = (w[(w >= start) & (w < stop)] - start for w in (self.newlines, self.deleted))
        inserted = self.inserted[(self.inserted >= start) & (self.inserted <= stop)] - start
        if len(newlines):
            text = text.copy()
            text[newlines] = _LF
        if len(inserted):
            return self._rebuilt(text.tobytes(), deleted, inserted)
        if len(deleted):
            keep = np.ones(len(text), bool)
            keep[deleted] = False
            text = text[keep]
        return text.tobytes()

    def _rebuilt(self, text: bytes, deleted: Positions, inserted: Positions) -> bytes:
        where = np.concatenate([inserted, deleted])
        order = np.argsort(where, kind="stable")
        quote, pieces, begin = bytes([self.quote]), [], 0
        for position, is_quote in zip(where[order].tolist(), (order < len(inserted)).tolist(), strict=True):
            pieces.append(text[begin:position])
            begin = position if is_quote else position + 1
            if is_quote:
                pieces.append(quote)
        return b"".join([*pieces, text[begin:]])


def scan(text: NDArray[np.uint8], *, delimiter: str, quote: str, final: bool) -> Rows:
    """Find the rows of ``text``, which begins where a row begins. ``final``: the file ends with it."""
    separator, mark = ord(delimiter), ord(quote) if quote else -1
    hits = (text == separator) | (text == _LF)
    if has_returns := bool((text == _CR).any()):
        hits |= text == _CR
    if has_quotes := bool(quote) and bool((text == mark).any()):
        hits |= text == mark
    at = np.flatnonzero(hits)
    quoting = _Quoting()
    if has_quotes:
        is_quote = text[at] == mark
        quotes = at[is_quote]
        if _is_regular(text, quotes, separator, mark, final=final):
            inside = np.cumsum(is_quote) % 2 == 1
            quoting = _Quoting(unclosed=int(quotes[-1]) if len(quotes) % 2 else None)
        else:
            quoting = _walk(text.tobytes(), quotes.tolist(), separator)
            inside = np.searchsorted(quoting.opens, at, "right") > np.searchsorted(quoting.closes, at, "right")
        at = at[~(inside | is_quote)]
    kind = text[at]
    newlines = _NONE
    if has_returns:
        # The line feed of \r\n goes with its \r, which may be the last byte of a piece that is not the last one.
        after = text[np.minimum(at + 1, len(text) - 1)]
        paired = np.zeros(len(at), bool)
        paired[1:] = (kind[1:] == _LF) & (kind[:-1] == _CR) & (at[1:] == at[:-1] + 1)
        cut = (kind == _CR) & (at == len(text) - 1) & (not final)
        newlines = at[(kind == _CR) & ((after != _LF) | (at == len(text) - 1))]
        at, kind = at[~(paired | cut)], kind[~(paired | cut)]
    return _build_rows(text, at, kind != separator, quoting, newlines, mark, final=final, has_quotes=has_quotes)


def _build_rows(
    text: NDArray[np.uint8],
    at: Positions,
    is_end: NDArray[np.bool_],
    quoting: _Quoting,
    newlines: Positions,
    mark: int,
    *,
    final: bool,
    has_quotes: bool,
) -> Rows:
    """``at``: where delimiters and line ends stand outside of quotes."""
    last = np.flatnonzero(is_end)
    ends = at[last]
    lengths = np.ones(len(ends), np.int64)
    if len(newlines) or (len(ends) and (text[ends] == _CR).any()):
        lengths += (text[ends] == _CR) & (text[np.minimum(ends + 1, len(text) - 1)] == _LF)
    cells = np.diff(last, prepend=-1)
    stops = ends + lengths
    stop = int(stops[-1]) if len(stops) else 0
    if final and quoting.unclosed is None and stop < len(text):  # the last line has no end
        ends, stops = np.append(ends, len(text)), np.append(stops, len(text))
        cells = np.append(cells, len(at) - (last[-1] + 1 if len(last) else 0) + 1)
        stop = len(text)
    starts = np.concatenate([_ZERO, stops[:-1]]) if len(stops) else _NONE
    deleted, inserted = quoting.edits(at, starts, ends, stop) if quoting.is_odd else (_NONE, _NONE)
    empty = starts == ends
    if empty.any():
        first, after = starts[empty], stops[empty]
        deleted = np.union1d(deleted, np.concatenate([first, after - 1]))
        starts, ends, cells = starts[~empty], ends[~empty], cells[~empty]
    edits = _Edits(newlines, deleted, inserted, mark)
    return Rows(text, starts, ends, cells, stop, quoting.unclosed, has_quotes, edits)


def _is_regular(text: NDArray[np.uint8], quotes: Positions, separator: int, mark: int, *, final: bool) -> bool:
    """Whether every other quote opens a cell or is the second of two, and the others close one or are the first."""
    opens, closes = quotes[::2], quotes[1::2]
    beside = np.zeros(256, bool)
    beside[[separator, _LF, _CR, mark]] = True
    before = beside[text[opens - 1]] | (opens == 0)
    after = beside[text[np.minimum(closes + 1, len(text) - 1)]] | (closes == len(text) - 1)
    return bool(before.all() and after.all())


@dataclass
class _Quoting:
    """Which quotes enclose cells, and what is odd about the others."""

    opens: list[int] = field(default_factory=list)
    closes: list[int] = field(default_factory=list)
    blanks: list[tuple[int, int]] = field(default_factory=list)
    """From where to where there are blanks before an opening quote."""
    early: list[int] = field(default_factory=list)
    """Closing quotes behind which the cell goes on."""
    literal: list[int] = field(default_factory=list)
    """Quotes that stand for themselves, in cells that no quotes enclose."""
    doubled: list[int] = field(default_factory=list)
    """Those and the ones behind a closing quote."""
    unclosed: int | None = None

    @property
    def is_odd(self) -> bool:
        return bool(self.blanks or self.early or self.doubled)

    def edits(self, at: Positions, starts: Positions, ends: Positions, stop: int) -> tuple[Positions, Positions]:
        """What to delete and to insert: cells with a quote that stands for itself get quotes, closing quotes move."""
        borders = np.union1d(at, ends)
        early, literal, doubled = (
            found[found < stop] for found in (np.array(w, np.int64) for w in (self.early, self.literal, self.doubled))
        )
        enclosed = np.unique(np.searchsorted(borders, literal))
        behind = borders[enclosed]
        row = np.searchsorted(starts, behind, "right") - 1
        ahead = np.maximum(np.where(enclosed > 0, borders[enclosed - 1] + 1, 0), starts[row])
        moved = borders[np.searchsorted(borders, early)]
        blanks = [np.arange(first, last) for first, last in self.blanks]
        deleted = np.unique(np.concatenate([early, *blanks]))
        return deleted, np.sort(np.concatenate([doubled, behind, ahead, moved]))


def _walk(text: bytes, quotes: list[int], separator: int) -> _Quoting:
    """Go from quote to quote, as a reader of single bytes would."""
    found = _Quoting()
    borders = bytes((separator, _LF, _CR))
    border = re.compile(b"[" + re.escape(borders) + b"]")
    size, cell_end = len(text), 0
    index = 0
    while index < len(quotes):
        here = before = quotes[index]
        while before and text[before - 1] == _SPACE:
            before -= 1
        index += 1
        if before and text[before - 1] not in borders:
            found.doubled.append(here)
            if here >= cell_end:
                found.literal.append(here)
            continue
        while index + 1 < len(quotes) and quotes[index + 1] == quotes[index] + 1:
            index += 2
        found.opens.append(here)
        if index == len(quotes):
            found.unclosed = here
            break
        close = quotes[index]
        found.closes.append(close)
        if before < here:
            found.blanks.append((before, here))
        index += 1
        if close + 1 < size and text[close + 1] not in borders:
            found.early.append(close)
            match = border.search(text, close)
            cell_end = match.start() if match else size
    return found
