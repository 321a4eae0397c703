"""Quotes in delimited text: which enclose cells, and what to change where others stand among them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
_LF, _CR, _SPACE = b"\n\r "


def is_regular(text: NDArray[np.uint8], quotes: Positions, signs: bytes) -> bool:
    """Whether every other quote opens a cell or is the second of two, and the others close one or are the first."""
    opens, closes = quotes[::2], quotes[1::2]
    beside = np.zeros(256, bool)
    beside[list(signs)] = True
    before = beside[text[opens - 1]] | (opens == 0)
    after = beside[text[np.minimum(closes + 1, len(text) - 1)]] | (closes == len(text) - 1)
    return bool(before.all() and after.all())


@dataclass
class Quoting:
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


def walk(text: bytes, quotes: list[int], borders: bytes) -> Quoting:
    """Go from quote to quote, as a reader of single bytes would."""
    found = Quoting()
    border = re.compile(b"[" + re.escape(borders) + b"]")
    size, cell_end = len(text), 0
    index = 0
    while index < len(quotes):
        here = before = quotes[index]
        while before and text[before - 1] == _SPACE and _SPACE not in borders:
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
