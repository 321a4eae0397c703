"""Parquet and Arrow files: columns with types of their own, some rows at a time, and columns from folder names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from trainkit.data.tables.file_kinds import Kind
from trainkit.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_CELL_BYTES = 16
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"


def scan_typed(path: Path, kind: Kind) -> pl.LazyFrame:
    """The file as a query.

    Raises:
        DataError: It is damaged.
    """
    import polars as pl

    try:
        if kind == "stream":
            frame = pl.read_ipc_stream(path).lazy()
        else:
            frame = pl.scan_parquet(path, hive_partitioning=False) if kind == "parquet" else pl.scan_ipc(path)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read ({reason}); it may be cut off: get or write it again") from None
    return frame


def count_rows(path: Path, kind: Kind) -> int:
    import polars as pl

    return int(scan_typed(path, kind).select(pl.len()).collect().item())


def typed_blocks(
    path: Path,
    kind: Kind,
    columns: Sequence[str],
    schema: dict[str, pl.DataType],
    added: dict[str, str | None],
    size: int,
) -> Iterator[pl.DataFrame]:
    """``columns`` in the types of ``schema``, in blocks of about ``size`` bytes; ``added``: those of folder names."""
    import polars as pl

    query = scan_typed(path, kind)
    cells = [
        pl.lit(added[name], pl.String).cast(schema[name]).alias(name)
        if name in added
        else pl.col(name).cast(schema[name])
        for name in columns
    ]
    num_rows = count_rows(path, kind)
    step = max(1, size // (_CELL_BYTES * max(1, len(columns))))
    for start in range(0, num_rows, step):
        try:
            yield query.slice(start, step).select(cells).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{path} cannot be read from row {start + 1} on ({reason}); get or write it again"
            ) from None


def folder_values(folder: Path, path: Path) -> dict[str, str | None]:
    """``year=2013/month=1/part.parquet``: the columns that the names of subfolders give."""
    parts = [part.partition("=") for part in path.relative_to(folder).parts[:-1] if "=" in part]
    return {unquote(name): None if value == _NULL_FOLDER else unquote(value) for name, _, value in parts}


def folder_type(values: Sequence[str | None]) -> pl.DataType:
    """Whole numbers where all values are, else text."""
    import polars as pl

    numbers = [value for value in values if value is not None]
    whole = bool(numbers) and all(value.isdecimal() and str(int(value)) == value for value in numbers)
    return pl.Int64() if whole else pl.String()
