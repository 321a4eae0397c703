"""How the rows of a table's file are written: what is found in its first megabyte, and how it is said in one line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from trainkit.data.tables.rows import Rows, scan

DELIMITERS = {"\t": "tab", ";": "semicolon", "|": "|", ",": "comma"}
"""In the order in which they are tried: text has commas more often than tabs."""
_ALIKE = 0.9
"""This share of the rows is as wide as the header where a delimiter is right; the others are mistakes."""


@dataclass(frozen=True)
class TableFormat:
    """How a file is to be read. Everything but ``kind`` is about text."""

    kind: Literal["text", "parquet", "arrow"]
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    decimal: str = "."
    header: bool = True
    skip_lines: int = 0
    """Lines above the header that are no part of the table."""

    def describe(self) -> str:
        """``delimiter comma, UTF-8, decimal point``."""
        if self.kind != "text":
            return {"parquet": "Parquet", "arrow": "Arrow"}[self.kind]
        parts = [f"delimiter {DELIMITERS.get(self.delimiter, repr(self.delimiter))}", self.encoding.upper()]
        parts.append("decimal comma" if self.decimal == "," else "decimal point")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> TableFormat:
        return TableFormat(**data)


def find_delimiter(text: bytes, *, quote: str, final: bool) -> str:
    """The delimiter that makes the rows as wide as the first one; a comma where there is one column."""
    for delimiter in DELIMITERS:
        widths = scan(np.frombuffer(text, np.uint8), delimiter=delimiter, quote=quote, final=final).cells
        if len(widths) and widths[0] > 1 and np.mean(widths == widths[0]) >= _ALIKE:
            return delimiter
    return max(DELIMITERS, key=lambda delimiter: text.split(b"\n", 1)[0].count(delimiter.encode()))


def scan_text(text: bytes, form: TableFormat, *, final: bool) -> Rows:
    return scan(np.frombuffer(text, np.uint8), delimiter=form.delimiter, quote=form.quote, final=final)
