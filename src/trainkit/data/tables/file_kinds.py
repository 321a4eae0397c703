"""What a file is by its first bytes, and what to do with one that is no table."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

import zstandard

from trainkit.errors import DataError
from trainkit.wording import listed

Kind = Literal["text", "parquet", "arrow", "stream"]
HEAD_BYTES = 1_000_000
_TYPED: dict[bytes, Kind] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "stream"}
_PACKED = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_AS_CSV = "save the table as CSV (UTF-8)"
_BY_PANDAS = "write its table with pandas: to_parquet or to_csv"
_OTHERS = {
    b"version https://git-lfs": ("a git-lfs pointer and not the data", "fetch the file with: git lfs pull"),
    b"\xd0\xcf\x11\xe0": ("an Excel file (.xls)", f"open it and {_AS_CSV}"),
    b"SQLite format 3": (
        "an SQLite database",
        "write the table to CSV: sqlite3 -header -csv FILE 'select * from TABLE'",
    ),
    b"\x89HDF": ("an HDF5 file", _BY_PANDAS),
    b"\x93NUMPY": (
        "a NumPy array (.npy)",
        "write it with column names: numpy.savetxt or polars.DataFrame(...).write_parquet",
    ),
    b"FEA1": ("a Feather file of version 1", "write it again: pyarrow.feather.write_feather(table, path, version=2)"),
    b"PARE": ("an encrypted Parquet file", "decrypt it"),
    b"ORC": ("an ORC file", _BY_PANDAS),
    b"Obj\x01": ("an Avro file", _BY_PANDAS),
    b"RDX": ("an R data file", "write the table in R: write.csv(x, file, row.names = FALSE)"),
    b"MATLAB 5.0": ("a MATLAB file", "write the table in MATLAB: writetable(T, file)"),
    b"$FL2": ("an SPSS file (.sav)", _BY_PANDAS),
    b"<stata_dta>": ("a Stata file (.dta)", _BY_PANDAS),
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc2\xea\x81\x60": ("a SAS file (.sas7bdat)", _BY_PANDAS),
    b"\x00\x05\x16\x07": ("what macOS keeps beside a file", "give the path without '._'"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"Rar!": ("a rar archive", "unpack it"),
    b"%PDF": ("a PDF", "get the table as CSV"),
    b"{\\rtf": ("an RTF document", _AS_CSV),
    b"\x89PNG": ("a picture (PNG)", "for pictures: type: image_folder"),
    b"\xff\xd8\xff": ("a picture (JPEG)", "for pictures: type: image_folder"),
}
"""First bytes: what it is, and what to do."""
_WORDS = {
    rb"<!doctype html|<html": (
        "a web page (HTML)",
        "the download went wrong, or the page shows the table: get the file itself",
    ),
    rb"<\?xml|<[a-z]+[^>]*xmlns": ("an XML file", "get the table as CSV"),
    rb'\{\s*"|\[\s*[\[{]|\[\s*\]': (
        "a JSON file",
        "write it as a table: polars.read_json or read_ndjson, then write_parquet",
    ),
    rb"(?:%[^\n]*\s+)*@relation": ("an ARFF file", "write its table as CSV: scipy.io.arff.loadarff"),
    rb"(?:--[^\n]*\s+|/\*[^\n]*\s+)*(?:create|insert|drop|set|begin)\s[^\n,;\t]*[(;]": (
        "an SQL script",
        "load it and write the table as CSV",
    ),
    rb"[-+]?[\d.]+(?: \d+:[-+.\deE]+){2,} *\r?\n": (
        "a LIBSVM file",
        "write it as a table: sklearn.datasets.load_svmlight_file",
    ),
    rb"(?:[^\n]*\n)?\+?-{2,}(?:\+-{2,})+\+?\s*\n": (
        "what a database client prints",
        "write the table as CSV: \\copy ... csv header (psql), --batch for tabs (mysql)",
    ),
    rb"\|[^\n]*\|\s*\n\s*\|[-:| ]+\|": ("a Markdown table", _AS_CSV),
}
"""Regular expressions of how a text begins, blanks and the case of letters aside."""


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith(tuple(_PACKED))


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it is packed with gzip, zstd, bzip2 or xz, whatever its name is.

    Raises:
        DataError: It cannot be read, or is cut off.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            match next((packing for sign, packing in _PACKED.items() if magic.startswith(sign)), None):
                case "gz":
                    yield cast(IO[bytes], gzip.GzipFile(fileobj=file))
                case "zst":
                    yield io.BufferedReader(_Zstd(file), 1 << 20)
                case "bz2":
                    yield bz2.BZ2File(file)
                case "xz":
                    yield lzma.LZMAFile(file)  # noqa: SIM115
                case _:
                    yield file
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); it may be cut off: get it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


class _Zstd(io.RawIOBase):
    """Unpacks zstd as ``zstandard`` does, but takes no cut-off file for a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame: Any = None
        self._unpacked = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            packed = self._file.read(1 << 17)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return 0
            while packed:
                self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
                self._unpacked += self._frame.decompress(packed)
                packed = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
        size = min(len(buffer), len(self._unpacked))
        buffer[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size


def find_kind(path: Path, head: bytes) -> Kind:
    """What a file is that begins with ``head`` (unpacked).

    Raises:
        DataError: It is no table that can be read, with what it is and what to do.
    """
    if not head.strip(b"\x00\t\r\n \xef\xbb\xbf\xff\xfe"):
        what = "is empty" if not head else "holds nothing but blanks" if head.strip(b"\x00") else "holds zeros only"
        raise DataError(f"{path} {what}; expected a header line and rows")
    for magic, kind in _TYPED.items():
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        raise DataError(_describe_zip(path))
    for magic, (what, advice) in _OTHERS.items():
        if head.startswith(magic):
            raise DataError(f"{path} is {what}; {advice}")
    if head[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive; unpack it")
    if re.match(rb"\x80[\x02-\x05][\x80-\xff\x00-\x7f]", head) and b"\x00" in head[:20]:
        raise DataError(f"{path} is a pickle, which could run code when it is read; {_BY_PANDAS}")
    text = head[:20_000].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, (what, advice) in _WORDS.items():
        if re.match(pattern, text, re.IGNORECASE):
            raise DataError(f"{path} is {what}; {advice}")
    return "text"


def _describe_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return f"{path} is a damaged zip archive; get it again"
    if any(name.startswith("xl/") for name in names):
        return f"{path} is an Excel workbook; save the sheet as CSV UTF-8"
    if "content.xml" in names:
        return f"{path} is an OpenDocument file; save the sheet as CSV (UTF-8)"
    if any(name.startswith(("word/", "Index/")) for name in names):
        return f"{path} is a document of an office program; {_AS_CSV}"
    if all(name.endswith(".npy") for name in names):
        return f"{path} holds NumPy arrays (.npz); write them with column names as CSV or Parquet"
    if any(name.endswith("data.pkl") for name in names):
        return f"{path} is a file of torch.save; write its table as CSV or Parquet"
    return (
        f"{path} is a zip archive; unpack it: it holds {listed([name for name in names if name[-1:] != '/'], limit=3)}"
    )
