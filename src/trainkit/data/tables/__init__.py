"""Tables: how their files are written, their rows block by block, and numbers as people write them."""

from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.numbers import NumberStyle, find_number_style, parse_numbers
from trainkit.data.tables.reading import Block, Table, TableFile, open_table

__all__ = [
    "Block",
    "NumberStyle",
    "Table",
    "TableFile",
    "TableFormat",
    "find_number_style",
    "open_table",
    "parse_numbers",
]
