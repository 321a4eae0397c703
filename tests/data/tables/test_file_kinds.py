"""Packed files are read; what is no table is named for what it is, with what to do."""

import bz2
import gzip
import lzma
import os
import pickle
import sqlite3
import zipfile

import numpy as np
import polars as pl
import pytest
import zstandard

from trainkit.data.tables import open_table
from trainkit.errors import DataError

PLAIN = b"a,b,c\n1,x,2.5\n2,y,3.5\n"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_packed_text_is_read_whatever_its_name(tmp_path, pack):
    (tmp_path / "t.csv").write_bytes(pack(PLAIN))
    table = open_table(str(tmp_path / "t.csv"))
    [block] = table.blocks()
    assert block.frame.rows() == [("1", "x", "2.5"), ("2", "y", "3.5")]
    assert table.place(1).endswith("t.csv:3")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_cut_off_download_is_named(tmp_path, pack, share):
    numbers = np.random.default_rng(0).random((40_000, 2))
    packed = pack(b"a,b\n" + b"".join(b"%f,%f\n" % tuple(row) for row in numbers))
    (tmp_path / "t.csv").write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(DataError, match=r"t\.csv cannot be unpacked .* it may be cut off: get it again"):
        list(open_table(str(tmp_path / "t.csv")).blocks())


def test_frames_of_zstd_one_after_the_other(tmp_path):
    (tmp_path / "t.csv").write_bytes(zstandard.compress(b"a,b\n1,") + zstandard.compress(b"2\n3,4\n"))
    [block] = open_table(str(tmp_path / "t.csv")).blocks()
    assert block.frame.rows() == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "t is empty; expected a header line and rows"),
        (b"\n \r\n", "t holds nothing but blanks"),
        (bytes(100), "t holds zeros only"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", r"is a web page \(HTML\)"),
        (b"\xef\xbb\xbf<html>", r"is a web page \(HTML\)"),
        (b"<?xml version='1.0'?><a/>", "is an XML file"),
        (b'[{"a": 1}]', "is a JSON file"),
        (b'{"a": 1}\n{"a": 2}\n', "is a JSON file"),
        (b"% c\n@RELATION iris\n", "is an ARFF file"),
        (b"1 1:0.5 3:2\n-1 2:1 4:5\n", "is a LIBSVM file"),
        (b"-- MySQL dump\nDROP TABLE IF EXISTS a;\n", "is an SQL script"),
        (b"| a | b |\n|---|---|\n| 1 | 2 |\n", "is a Markdown table"),
        (b" a | b \n---+---\n 1 | 2\n(1 row)\n", "is what a database client prints"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), r"is an Excel file \(\.xls\)"),
        (pickle.dumps({"a": 1}), "is a pickle, which could run code"),
        (np.random.default_rng(0).bytes(5000), "is no text but binary data"),
        (b"a,b\n1,x\0\n2,y\n", r"t:2: a zero byte"),
        (b"a,b\n", r"t has columns \('a', 'b'\) but no rows"),
        (gzip.compress(os.urandom(3000).hex().encode())[:1000], "it may be cut off: get it again"),
        (b"PAR1" + bytes(200), "it may be cut off: get or write it again"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(open_table(str(tmp_path / "t")).blocks())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xl/workbook.xml", "is an Excel workbook; save the sheet as CSV UTF-8"),
        ("content.xml", "is an OpenDocument file"),
        ("a.npy", "holds NumPy arrays"),
        ("x/data.pkl", "is a file of torch.save"),
        ("train.csv", "is a zip archive; unpack it: it holds 'train.csv'"),
    ],
)
def test_zip_archives_are_named_by_what_they_hold(tmp_path, name, message):
    with zipfile.ZipFile(tmp_path / "t.csv", "w") as archive:
        archive.writestr(name, "")
    with pytest.raises(DataError, match=message):
        open_table(str(tmp_path / "t.csv"))


def test_a_database_and_a_packed_parquet_file(tmp_path):
    connection = sqlite3.connect(tmp_path / "t.db")
    connection.execute("create table t(a)")
    connection.close()
    with pytest.raises(DataError, match="is an SQLite database"):
        open_table(str(tmp_path / "t.db"))
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress((tmp_path / "t.parquet").read_bytes()))
    with pytest.raises(DataError, match="is a packed Parquet file; unpack it"):
        open_table(str(tmp_path / "t.parquet.gz"))
