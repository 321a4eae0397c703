"""The rows of a file of text as Polars frames, and what is wrong in them by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
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


def text_frames(file: TableFile, wanted: list[str]) -> Iterator[tuple[pl.DataFrame, FindLines]]:
    ragged: list[str] = []
    num_ragged, width = 0, len(file.names)
    for block in ahead(file_blocks(file)):
        if block.rows is not None:
            bad = np.flatnonzero(block.rows.cells != width)
            num_ragged += len(bad)
            for row in bad[: _MAX_MESSAGES - len(ragged)].tolist():
                cells = counted(int(block.rows.cells[row]), "cell")
                ragged.append(f"{file.path}:{block.line_of(row) + 1}: {cells}, but the header has {width}")
        if not ragged:
            yield _parse(block, file, wanted), partial(_lines, block)
    if ragged:
        more = [f"and {num_ragged - len(ragged)} more rows"] if num_ragged > len(ragged) else []
        raise DataError("\n".join([*ragged, *more]))


def _lines(block: RowBlock) -> NDArray[np.int64]:
    return block.lines() + 1


def _parse(block: RowBlock, file: TableFile, wanted: list[str]) -> pl.DataFrame:
    """The cells of ``wanted`` columns, trimmed, null where they are empty."""
    import polars as pl

    form, chosen = file.format, set(wanted)
    indices = [index for index, name in enumerate(file.names) if name in chosen]
    try:
        frame = pl.read_csv(
            block.text,
            has_header=False,
            infer_schema=False,
            separator=form.delimiter,
            quote_char=form.quote if block.has_quotes else None,
            columns=indices if len(indices) < len(file.names) else None,
        )
    except pl.exceptions.PolarsError as error:
        _raise_bad_byte(block, file)
        raise DataError(f"{file.path}: lines {block.line + 1} and later cannot be read ({error})") from None
    assert frame.height == block.num_rows, f"{file.path}: {frame.height} rows, and not {block.num_rows}"
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
