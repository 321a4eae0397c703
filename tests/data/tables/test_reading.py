"""Tables are read as they are written, and what is wrong in them has its file and line."""

import csv
import io
import os
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.tables import TableFormat, open_table
from trainkit.errors import DataError, ProblemsError


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def read(path, **options):
    return pl.concat([block.frame for block in open_table(path, **options).blocks()])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter):
    path = write(tmp_path / "t.csv", 'name,x,y\n"a,b",1,\n c ,2,3\n'.replace(",", delimiter))
    frame = read(path)
    assert frame.to_dict(as_series=False) == {"name": [f"a{delimiter}b", "c"], "x": ["1", "2"], "y": [None, "3"]}


def test_an_empty_name_is_called_as_pandas_calls_it(tmp_path):
    assert open_table(write(tmp_path / "t.csv", ",x\n0,1\n")).names == ("Unnamed: 0", "x")


def test_a_name_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"t\.csv:1: columns with one name: 'x' \(columns 1 and 3\)"):
        open_table(write(tmp_path / "t.csv", "x,y, x\n0,1,2\n"))


def test_rows_of_other_widths_are_named(tmp_path):
    path = write(tmp_path / "t.csv", 'a,b\n1,2\n3\n"x\n\n,",4\n5,6,7\n')
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3: 1 cell, but the header has 2",
        f"{path}:7: 3 cells, but the header has 2",
    ]


def test_an_open_quote_is_named(tmp_path):
    path = write(tmp_path / "t.csv", 'a,b\n1,2\n3,"4\n5,6\n')
    with pytest.raises(DataError, match=r"t\.csv:3: the quote that opens here is not closed"):
        read(path)


def test_columns_in_any_order_and_the_place_of_a_row(tmp_path):
    path = write(tmp_path / "t.csv", 'a,b,c\n1,2,3\n\n4,"5\n",6\n7,8,9\n')
    table = open_table(path)
    [block] = table.blocks(["c", "a"])
    assert block.frame.to_dict(as_series=False) == {"c": ["3", "6", "9"], "a": ["1", "4", "7"]}
    assert [table.place(row) for row in range(3)] == [f"{path}:2", f"{path}:4", f"{path}:6"]


def test_several_files_are_one_table(tmp_path):
    paths = [write(tmp_path / "1.csv", "a,b\n1,2\n3,4\n"), write(tmp_path / "2.csv", "b;a\n6;5\n")]
    table = open_table(paths)
    assert [(block.first_row, block.frame["a"].to_list()) for block in table.blocks()] == [(0, ["1", "3"]), (2, ["5"])]
    assert table.place(2) == f"{paths[1]}:2"


def test_files_with_other_columns_are_refused(tmp_path):
    paths = [write(tmp_path / "1.csv", "a,b\n1,2\n"), write(tmp_path / "2.csv", "a,c\n1,2\n")]
    with pytest.raises(DataError, match=r"2\.csv has no column 'b' and has also 'c'; the columns of .*1\.csv"):
        open_table(paths)


def test_typed_files_keep_their_types(tmp_path):
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", None, "z"]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ipc(tmp_path / "t.arrow")
    for name in ("t.parquet", "t.arrow"):
        table = open_table(str(tmp_path / name))
        assert read(str(tmp_path / name)).equals(frame)
        assert table.place(1) == f"{tmp_path / name}: row 2"
        [block] = table.blocks()
        assert block.places()[1] == table.place(1)


def test_a_file_that_changes_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", "a,b\n1,2\n")
    table = open_table(path)
    assert len(list(table.blocks())) == len(list(table.blocks())) == 1
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="has changed since it was opened"):
        list(table.blocks())


def test_no_such_file_names_the_key(tmp_path):
    with pytest.raises(ProblemsError, match=r"dataset\.test_path: .* does not exist; give the path of a table"):
        open_table(str(tmp_path / "no.csv"), key="dataset.test_path")


def test_a_format_is_plain_json(tmp_path):
    form = open_table(write(tmp_path / "t.csv", "a;b\n1;2\n")).format
    assert form.describe() == "delimiter semicolon, UTF-8, decimal point"
    assert TableFormat.from_json(form.to_json()) == form


def test_a_block_knows_the_line_of_each_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,b\r\n1,"x\r\ny"\r\n\r\n2,z\n3,w')
    table = open_table(str(path))
    [block] = table.blocks()
    assert block.places() == [f"{path}:{line}" for line in (2, 5, 6)]
    assert block.places() == [table.place(row) for row in range(3)]


WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


@st.composite
def written_tables(draw):
    """Cells, and the bytes in which Python's csv module writes them."""
    letters = st.one_of(
        st.sampled_from("ab1 ,;\t|\"'\r\n é\xa0"),
        st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"),
    )
    cells = draw(st.lists(st.lists(st.text(letters, max_size=6), min_size=3, max_size=3), min_size=1, max_size=8))
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    if line_end == "\n":  # the writer does not enclose a cell with "\r" then
        cells = [[cell.replace("\r", "") for cell in row] for row in cells]
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=draw(st.sampled_from(",;\t|")),
        lineterminator=line_end,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
    )
    writer.writerow(["first", "second", "third"])
    writer.writerows(cells)
    written = text.getvalue()
    if draw(st.booleans()):
        written = written.removesuffix("\n").removesuffix("\r")
    return cells, written.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))


@settings(max_examples=150, deadline=None)
@given(written_tables(), st.sampled_from([1, 2, 3, 7, 20, 10**6]), st.data())
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, written, block_bytes, data):
    cells, content = written
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(content)
    table = open_table(str(path))
    expected = [tuple(cell.strip(WHITE_SPACE) or None for cell in row) for row in cells]
    with patch("trainkit.data.tables.text.BLOCK_BYTES", block_bytes):
        blocks = list(table.blocks())
        assert table.names == ("first", "second", "third")
        assert [row for block in blocks for row in block.frame.rows()] == expected
        row = data.draw(st.integers(0, len(cells) - 1))
        assert [place for block in blocks for place in block.places()][row] == table.place(row)
    lines = io.StringIO(content.decode("utf-16" if content[:1] in b"\xff\xfe" else "utf-8-sig"), newline="")
    reader = csv.reader(lines, delimiter=table.format.delimiter)
    for _ in range(row + 1):
        next(reader)
    assert table.place(row) == f"{path}:{reader.line_num + 1}"
