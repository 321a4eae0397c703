"""The rows of a file of text as Polars frames, and what is wrong in them by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.paths import TableFile
from trainkit.data.tables.text import RowBlock, ahead, bad_byte, row_blocks
from trainkit.errors import DataError
from trainkit.wording import counted

if TYPE_CHECKING:
    import polars as pl

FindLines = Callable[[], NDArray[np.int64]]
_MAX_MESSAGES = 10


def file_blocks(file: TableFile) -> Iterator[RowBlock]:
    return row_blocks(file.path, file.format, width=len(file.names), offset=file.offset, line=file.line)


Ragged = dict[int, str]
"""How many cells each row has that has too few or too many, by its position in a block, and how many are expected."""


def text_frames(
    file: TableFile, wanted: list[str], *, skip_ragged: bool = False
) -> Iterator[tuple[pl.DataFrame, FindLines, Ragged]]:
    """The rows of the file, some at a time, with their lines.

    Args:
        skip_ragged: leave out rows with too few or too many cells and name them; otherwise they are an error.
    """
    messages: list[str] = []
    num_ragged = 0
    for block in ahead(file_blocks(file)):
        ragged = _find_ragged(block, len(file.names))
        if not skip_ragged:
            num_ragged += len(ragged)
            messages += [
                f"{file.path}:{block.line_of(row) + 1}: {what}"
                for row, what in islice(ragged.items(), _MAX_MESSAGES - len(messages))
            ]
        if not messages:
            yield _parse(block, file, wanted, ragged), partial(_lines, block), ragged
    if messages:
        more = [f"and {num_ragged - len(messages)} more rows"] if num_ragged > len(messages) else []
        raise DataError("\n".join([*messages, *more]))


def _find_ragged(block: RowBlock, width: int) -> Ragged:
    if block.rows is None:
        return {}
    return {
        row: f"{counted(int(block.rows.cells[row]), 'cell')}, but the header has {width}"
        for row in np.flatnonzero(block.rows.cells != width).tolist()
    }


def _lines(block: RowBlock) -> NDArray[np.int64]:
    return block.lines() + 1


def _parse(block: RowBlock, file: TableFile, wanted: list[str], ragged: Ragged) -> pl.DataFrame:
    """The cells of ``wanted`` columns, trimmed, null where they are empty, without the ``ragged`` rows."""
    import polars as pl

    num_rows = block.num_rows - len(ragged)
    if not num_rows:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    form, chosen = file.format, set(wanted)
    indices = [index for index, name in enumerate(file.names) if name in chosen]
    try:
        frame = pl.read_csv(
            block.rows.without(list(ragged)) if ragged and block.rows else block.text,
            has_header=False,
            infer_schema=False,
            separator=form.delimiter,
            quote_char=form.quote if block.has_quotes else None,
            columns=indices if len(indices) < len(file.names) else None,
        )
    except pl.exceptions.PolarsError as error:
        _raise_bad_byte(block, file)
        raise DataError(f"{file.path}: lines {block.line + 1} and later cannot be read ({error})") from None
    assert frame.height == num_rows, f"{file.path}: {frame.height} rows, and not {num_rows}"
    frame.columns = [file.names[index] for index in indices]
    if block.padded or block.has_quotes:  # else an empty cell is null already
        cells = pl.all().str.strip_chars() if block.padded else pl.all()
        frame = frame.select(pl.when(cells != "").then(cells))
    return frame if frame.columns == wanted else frame.select(wanted)


def _raise_bad_byte(block: RowBlock, file: TableFile) -> None:
    try:
        (block.text if block.rows is None else block.rows.text[: block.rows.stop]).decode()
    except UnicodeDecodeError as error:
        raise bad_byte(file.path, block.line_of_byte(error.start) + 1, error) from None
