"""Rows of a table that are no samples: the header once more, between two files that were put together, and totals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from trainkit.data.tables.reading import Block, Table
from trainkit.errors import DataError
from trainkit.wording import listed

if TYPE_CHECKING:
    import polars as pl

_TOTAL = re.compile(
    r"((grand|sub)[ -]?)?totals?|sums?|average|mean|(gesamt)?summe|(ins)?gesamt|somme|suma|totale|итого|всего"
    r"|合计|总计|合計|総計|합계",
    re.IGNORECASE,
)


def look_for_stray_rows(blocks: Iterable[Block], table: Table, notes: list[str]) -> Iterator[Block]:
    """The same blocks. A last row that may be a total gets a line in ``notes``.

    Raises:
        DataError: Rows that repeat the header.
    """
    repeated: list[str] = []
    last = None
    for block in blocks:
        if table.format.kind == "text" and table.format.header:
            repeated += [block.places()[row] for row in _repeated_headers(block.frame)]
        yield block
        last = block
    if repeated:
        lines = "this line repeats the header; delete it"
        if len(repeated) > 1:
            lines = f"these {len(repeated)} lines repeat the header; delete them"
        raise DataError(f"{listed(repeated, limit=5, quoted=False)}: {lines}")
    if last is not None:
        notes += _total(last)


def _repeated_headers(frame: pl.DataFrame) -> list[int]:
    """The rows all of whose cells are the names of their columns."""
    if frame.width < 2:
        return []
    rows = (frame.to_series(0) == frame.columns[0]).fill_null(False).arg_true()
    return [row for row in rows.to_list() if frame.row(row) == tuple(frame.columns)]


def _total(block: Block) -> Iterator[str]:
    """A line where the last row has a word for a total that no other row near it has."""
    import polars as pl

    for cells in block.frame:
        if cells.dtype != pl.String or len(cells) < 2 or not (word := cells[-1]):
            continue
        if _TOTAL.fullmatch(word.strip(" :")) and (cells == word).sum() == 1:
            where = block.places()[-1]
            yield f"the last row ({where}) has {word!r} in {cells.name!r}: if it holds totals, delete it"
            return
