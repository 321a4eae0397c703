"""Rows and cells are those of Python's csv module, whatever the text."""

import csv
import io

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.tables.rows import scan


def cells_of(text: str, delimiter: str = ",") -> list[list[str]] | list[int] | None:
    """The cells as Polars reads them from the rewritten rows, or the widths where they differ; None: open quote."""
    rows = scan(text.encode(), delimiter=delimiter, quote='"', final=True)
    if rows.open_quote is not None:
        return None
    if len(set(rows.cells.tolist())) != 1:
        return rows.cells.tolist()
    frame = pl.read_csv(
        rows.rewritten(),
        has_header=False,
        infer_schema=False,
        separator=delimiter,
        quote_char='"' if rows.has_quotes else None,
    )
    return [[(cell or "").strip() for cell in row] for row in frame.rows()]


def reference(text: str, delimiter: str = ",") -> list[list[str]] | list[int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [row for row in reader if row]
    if len({len(row) for row in rows}) != 1:
        return [len(row) for row in rows]
    return [[cell.strip() for cell in row] for row in rows]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "é", ",", ",", "\n", '"', '"', '""', "\r\n", "\r", " "]), max_size=20))
def test_any_text_has_the_cells_of_the_csv_module(parts):
    text = "".join(parts)
    found = cells_of(text)
    if found is not None:
        assert found == reference(text)


def test_quotes_within_cells():
    assert cells_of('5" pipe,"a ""b"" c"\n"x"y, "z, z"\n') == [['5" pipe', 'a "b" c'], ["xy", "z, z"]]


def test_a_quote_that_is_not_closed_has_its_place():
    rows = scan(b'a,b\r\n1,2\r3,"4\n5,6\n', delimiter=",", quote='"', final=True)
    assert rows.line(rows.open_quote) == 2
    assert rows.cells.tolist() == [2, 2]
