"""Where the rows and cells of delimited text lie: quotes, line ends and delimiters, found with whole arrays.

Cells are those of Python's ``csv`` module with ``skipinitialspace``: a quote opens a cell where a cell begins and
stands for itself elsewhere; two quotes inside are one; what follows a closing quote belongs to the cell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.quotes import Positions, Quoting, is_regular, walk

_LF, _CR, _SPACE, _TAB = b"\n\r \t"
_STEP = 1 << 17
_NONE: Positions = np.zeros(0, np.int64)
_ZERO: Positions = np.zeros(1, np.int64)


@dataclass(frozen=True)
class Rows:
    """The rows of a piece of text that begins where a row begins. An empty line is no row."""

    text: bytes
    """UTF-8."""
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
    has_odd_quotes: bool
    """Some quotes do more than to enclose a cell."""
    padded: bool
    """Cells may begin or end with white space."""
    edits: _Edits

    def line(self, position: int) -> int:
        """How many lines end before this position. ``\\r\\n``, ``\\n`` and ``\\r`` end a line, in a quoted cell too."""
        data = np.frombuffer(self.text, np.uint8)
        before, after = data[:position], data[1 : position + 1]
        return int(np.count_nonzero(before == _LF) + np.count_nonzero((before[: len(after)] == _CR) & (after != _LF)))

    def lines(self) -> Positions:
        """How many lines end before each row, (R,)."""
        data = np.frombuffer(self.text, np.uint8)
        ends = np.flatnonzero((data[:-1] == _LF) | ((data[:-1] == _CR) & (data[1:] != _LF)))
        return np.searchsorted(ends, self.starts)

    def rewritten(self) -> bytes:
        """All rows, as a reader of RFC 4180 needs them."""
        return self.edits.apply(self.text, 0, self.stop)

    def without(self, rows: Sequence[int]) -> bytes:
        """All rows but these (positions, ascending), written so."""
        begins, ends = [0, *(row + 1 for row in rows)], [*rows, len(self.starts)]
        spans = [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]
        return b"".join(
            self.edits.apply(self.text, int(self.starts[begin]), int(self.ends[end - 1])) + b"\n"
            for begin, end in spans
        )

    def row(self, position: int) -> bytes:
        """One row without its line end, written so."""
        return self.edits.apply(self.text, int(self.starts[position]), int(self.ends[position]))


@dataclass(frozen=True)
class _Edits:
    """What has to change in a text so that every reader sees the same cells."""

    newlines: Positions
    """Where a byte becomes a line feed."""
    blanks: Positions
    """Where a tab becomes a blank."""
    deleted: Positions
    inserted: Positions
    """Before which bytes a quote is inserted, in order."""
    quote: int

    def apply(self, text: bytes, start: int, stop: int) -> bytes:
        newlines, blanks, deleted = (
            where[(where >= start) & (where < stop)] - start for where in (self.newlines, self.blanks, self.deleted)
        )
        inserted = self.inserted[(self.inserted >= start) & (self.inserted <= stop)] - start
        text = text[start:stop]
        if len(newlines) or len(blanks):
            data = np.frombuffer(text, np.uint8).copy()
            data[newlines], data[blanks] = _LF, _SPACE
            text = data.tobytes()
        if len(inserted):
            return self._rebuilt(text, deleted, inserted)
        if len(deleted):
            keep = np.ones(len(text), bool)
            keep[deleted] = False
            text = np.frombuffer(text, np.uint8)[keep].tobytes()
        return text

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


def scan(text: bytes, *, delimiter: str, quote: str, final: bool) -> Rows:
    """Find the rows of ``text``, which begins where a row begins. ``final``: the file ends with it.

    The delimiter ``" "`` stands for any number of blanks and tabs, and those around a row mean nothing.
    """
    data = np.frombuffer(text, np.uint8)
    separators, mark = b" \t" if delimiter == " " else delimiter.encode(), ord(quote) if quote else -1
    has_quotes = bool(quote) and quote.encode() in text
    signs = separators + b"\n" + (b"\r" if (has_returns := b"\r" in text) else b"")
    everything = signs + quote.encode() if has_quotes else signs
    at, padded = _find(data, everything), _has_padding(text, data, everything, _NONE)
    quoting = Quoting()
    if has_quotes:
        is_quote = data[at] == mark
        quotes = at[is_quote]
        if is_regular(data, quotes, everything):
            inside = np.cumsum(is_quote, dtype=np.uint8) & 1 == 1
            quoting = Quoting(unclosed=int(quotes[-1]) if len(quotes) % 2 else None)
        else:
            quoting = walk(text, quotes.tolist(), signs)
            inside = np.searchsorted(quoting.opens, at, "right") > np.searchsorted(quoting.closes, at, "right")
        # A line end in a cell may stand at an end of it.
        padded = padded or bool(_is_one_of(data[at[inside]], b"\n\r").any())
        at = at[~(inside | is_quote)]
    kind = data[at]
    is_separator = kind == separators[0] if len(separators) == 1 else (kind == _SPACE) | (kind == _TAB)
    borders = _Borders(data, at, is_separator, delimiter)
    if has_returns:
        borders = borders.with_returns(final=final)
    if delimiter == " ":
        borders = borders.without_runs()
    return _build_rows(text, borders, quoting, mark, has_quotes=has_quotes, padded=padded, final=final)


def count_regular_rows(text: bytes, *, delimiter: str, quote: str, width: int) -> tuple[int, bool, bool] | None:
    """How many rows there are, whether there are quotes, and whether cells may have white space around them.

    None where the text (which ends with a line end) must be scanned to know: rows of another width, empty lines,
    delimiters or line ends within quotes. It takes a third of the time of a scan.
    """
    if delimiter == " " or width == 1 or b"\0" in text:
        return None
    data = np.frombuffer(text, np.uint8)
    signs = delimiter.encode() + b"\n"
    if b"\r" in text:
        returns = _find(data, b"\r")
        if (data[np.minimum(returns + 1, len(data) - 1)] != _LF).any():
            return None
        signs += b"\r"
    quotes = _NONE
    if has_quotes := bool(quote) and quote.encode() in text:
        signs += quote.encode()
        quotes = _find(data, quote.encode())
        if len(quotes) % 2 or not is_regular(data, quotes, signs):
            return None
    kinds = text.translate(None, bytes(set(range(256)) - set(signs) | {_CR}))
    if has_quotes:
        num_lines = kinds.count(b"\n")
        kinds = re.sub(b"%s[^%s]*%s" % ((quote.encode(),) * 3), b"", kinds.replace(2 * quote.encode(), b""))
        if kinds.count(b"\n") != num_lines:  # a line end within quotes
            return None
    row = (width - 1) * delimiter.encode() + b"\n"
    num_rows = len(kinds) // width
    if kinds != num_rows * row:
        return None
    return num_rows, has_quotes, _has_padding(text, data, signs, quotes)


def _find(data: NDArray[np.uint8], signs: bytes) -> Positions:
    """Where one of the signs stands. The steps are so short that what is between stays in the processor's cache."""
    found = [_NONE]
    for start in range(0, len(data), _STEP):
        found.append(np.flatnonzero(_is_one_of(data[start : start + _STEP], signs)) + start)
    return np.concatenate(found)


def _is_one_of(data: NDArray[np.uint8], signs: bytes) -> NDArray[np.bool_]:
    hit: NDArray[np.bool_] = data == signs[0]
    for sign in signs[1:]:
        hit |= data == sign
    return hit


def _has_padding(text: bytes, data: NDArray[np.uint8], signs: bytes, quotes: Positions) -> bool:
    """Whether white space may stand beside a delimiter, a line end or an enclosing quote, or at an end of the text."""
    if b"\v" in text or b"\f" in text or text[:1].isspace() or text[-1:] in b"\t " or not text[-1:].isascii():
        return True
    blanks = b" \t" if b"\t" in text and (b"\t" not in signs or len(signs) > 2) else b" "
    ascii_only = text.isascii()
    for start in range(0, len(data), _STEP):
        piece = data[max(0, start - 1) : start + _STEP + 3]  # the longest white space has three bytes
        hit = _is_one_of(piece, signs)
        beside = (hit[2:] | hit[:-2]) & _is_one_of(piece, blanks)[1:-1]
        if beside.any():
            found = np.flatnonzero(beside) + max(0, start - 1) + 1
            if not len(quotes) or _is_outer(data, found, signs, quotes):
                return True
        if not ascii_only and _beside_wide_blank(piece, hit):
            return True
    return not text[:1].isascii()


def _is_outer(data: NDArray[np.uint8], blanks: Positions, signs: bytes, quotes: Positions) -> bool:
    """Whether one of the blanks, each beside a sign, is outside of quotes or beside a quote that encloses a cell."""
    following = np.searchsorted(quotes, blanks)
    if ((following % 2 == 0) & ~_is_one_of(data[blanks], signs)).any():
        return True
    # Within quotes: a single quote before the blank opens the cell, a single one behind it closes the cell.
    mark, last = data[quotes[0]], len(data) - 1
    before, after = data[blanks - 1] == mark, data[np.minimum(blanks + 1, last)] == mark
    opens = before & ((following < 2) | (quotes[following - 2] != blanks - 2))
    closes = after & ((following + 1 >= len(quotes)) | (data[np.minimum(blanks + 2, last)] != mark))
    return bool((opens | closes).any())


def _beside_wide_blank(piece: NDArray[np.uint8], hit: NDArray[np.bool_]) -> bool:
    """Whether U+00A0, U+2003, U+202F, U+3000 or one like them may stand beside a sign."""
    two, three = piece == 0xC2, (piece >= 0xE1) & (piece <= 0xE3)
    ahead = (two | three)[1:] & hit[:-1]
    return bool(ahead.any() or (two[:-2] & hit[2:]).any() or (three[:-3] & hit[3:]).any())


@dataclass(frozen=True)
class _Borders:
    """Delimiters and line ends outside of quotes."""

    data: NDArray[np.uint8]
    at: Positions
    is_separator: NDArray[np.bool_]
    delimiter: str
    newlines: Positions = field(default_factory=lambda: _NONE)
    """Where a ``\r`` ends a line alone."""
    needless: Positions = field(default_factory=lambda: _NONE)
    """Blanks that delimit nothing."""

    def with_returns(self, *, final: bool) -> _Borders:
        """The ``\n`` of ``\r\n`` goes with its ``\r``, which may be the last byte of a piece that is not the last."""
        kind, last = self.data[self.at], len(self.data) - 1
        paired = np.zeros(len(self.at), bool)
        paired[1:] = (kind[1:] == _LF) & (kind[:-1] == _CR) & (self.at[1:] == self.at[:-1] + 1)
        is_return = kind == _CR
        alone = is_return & ((self.at == last) | (self.data[np.minimum(self.at + 1, last)] != _LF))
        keep = ~(paired | (is_return & (self.at == last) & (not final)))
        return replace(self, at=self.at[keep], is_separator=self.is_separator[keep], newlines=self.at[alone])

    def without_runs(self) -> _Borders:
        """The last of several blanks stays, those at the begin and the end of a row go."""
        at, blank = self.at, self.is_separator
        beside = np.zeros(len(at), bool)
        beside[1:] = at[1:] == at[:-1] + 1
        begins = blank.copy()
        begins[1:] &= ~(blank[:-1] & beside[1:])
        run = np.maximum.accumulate(np.where(begins, np.arange(len(at)), 0))
        before = self.data[at[run] - 1]
        leading = blank & ((at[run] == 0) | (before == _LF) | (before == _CR))
        inner = np.zeros(len(at), bool)
        inner[:-1] = blank[:-1] & beside[1:]
        inner |= blank & (at == len(self.data) - 1)
        go = leading | inner
        return replace(self, at=at[~go], is_separator=blank[~go], needless=at[go])


def _build_rows(
    text: bytes, borders: _Borders, quoting: Quoting, mark: int, *, has_quotes: bool, padded: bool, final: bool
) -> Rows:
    data, at = borders.data, borders.at
    last = np.flatnonzero(~borders.is_separator)
    ends = at[last]
    cells = np.diff(last, prepend=-1)
    stops = ends + 1
    if b"\r" in text:
        stops += (data[ends] == _CR) & (data[np.minimum(ends + 1, len(data) - 1)] == _LF)
    stop = int(stops[-1]) if len(stops) else 0
    if final and quoting.unclosed is None and stop < len(data):  # the last line has no end
        ends, stops = np.append(ends, len(data)), np.append(stops, len(data))
        cells = np.append(cells, len(at) - (last[-1] + 1 if len(last) else 0) + 1)
        stop = len(data)
    starts = np.concatenate([_ZERO, stops[:-1]]) if len(stops) else _NONE
    deleted, inserted = quoting.edits(at, starts, ends, stop) if quoting.is_odd else (_NONE, _NONE)
    deleted = np.union1d(deleted, borders.needless) if len(borders.needless) else deleted
    blank = starts == ends
    if len(borders.needless):
        blank |= (cells == 1) & np.isin(starts, borders.needless) & np.isin(ends - 1, borders.needless)
    if blank.any():
        deleted = np.union1d(deleted, np.concatenate([ends[blank], stops[blank] - 1]))
        starts, ends, cells = starts[~blank], ends[~blank], cells[~blank]
    blanks = at[data[at] == _TAB] if borders.delimiter == " " else _NONE
    edits = _Edits(borders.newlines, blanks, deleted, inserted, mark)
    return Rows(text, starts, ends, cells, stop, quoting.unclosed, has_quotes, quoting.is_odd, padded, edits)
