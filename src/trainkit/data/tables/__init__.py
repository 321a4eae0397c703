"""Tables: how their files are written, their rows block by block, numbers as people write them, the stored columns."""

from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.layout import (
    TableLayout,
    flagged,
    model_layout,
    numeric_names,
    offsets,
    stored_layout,
    with_gaps,
)
from trainkit.data.tables.numbers import NumberStyle, find_number_style, parse_numbers
from trainkit.data.tables.reading import Block, Table, TableFile, open_table

__all__ = [
    "Block",
    "NumberStyle",
    "Table",
    "TableFile",
    "TableFormat",
    "TableLayout",
    "find_number_style",
    "flagged",
    "model_layout",
    "numeric_names",
    "offsets",
    "open_table",
    "parse_numbers",
    "stored_layout",
    "with_gaps",
]
