"""The bytes of delimited text as pieces of whole rows in UTF-8, whatever encoding and packing the file has."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.file_kinds import open_bytes
from trainkit.data.tables.formats import TableFormat, without_escapes
from trainkit.data.tables.rows import Rows, count_regular_rows, scan
from trainkit.errors import DataError

BLOCK_BYTES = 16_000_000
"""Of text in one block: faster than more, and the memory stays small."""
_STEP_BYTES = 8_000_000
_MAX_ROW_BYTES = 1_000_000_000
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_MAX_CHECKED_BYTES = 1_000_000_000
"""So much of a file is read to know whether it is UTF-8: the first name with an accent may come late."""
_HAN = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"
_SCRIPTS = {
    "cp1251": "\u0400-\u04ff",
    "koi8-r": "\u0400-\u04ff",
    "cp866": "\u0400-\u04ff",
    "cp1253": "\u0370-\u03ff",
    "cp1255": "\u0590-\u05ff",
    "cp1256": "\u0600-\u06ff",
    "cp874": "\u0e00-\u0e7f",
    "gb18030": _HAN,
    "big5": _HAN,
    "shift_jis": f"{_HAN}\u3040-\u30ff",
    "euc_jp": f"{_HAN}\u3040-\u30ff",
    "euc_kr": f"{_HAN}\uac00-\ud7af",
}
"""Encodings that bytes do not tell apart, with the letters that their texts are written in."""
_CONTROL = [byte for byte in range(32) if byte not in b"\t\n\v\f\r\x01\x1e\x1f"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class RowBlock:
    """Whole rows of text."""

    text: bytes
    """As a reader of RFC 4180 needs them, without empty lines."""
    num_rows: int
    has_quotes: bool
    padded: bool
    """Cells may begin or end with white space."""
    rows: Rows | None
    """Where the rows lie; None where all have the right width."""
    line: int
    """How many lines of the file stand before."""

    def lines(self) -> NDArray[np.int64]:
        """How many lines of the file stand before each row, (R,)."""
        return self.line + (np.arange(self.num_rows) if self.rows is None else self.rows.lines())

    def line_of(self, row: int) -> int:
        """How many stand before one of them."""
        return self.line + (row if self.rows is None else self.rows.line(int(self.rows.starts[row])))

    def line_of_byte(self, position: int) -> int:
        """The same of a byte: of the text as it is in the file."""
        return self.line + (self.text[:position].count(b"\n") if self.rows is None else self.rows.line(position))


def find_encoding(path: Path, head: bytes) -> str:
    """UTF-8 where all bytes are, UTF-16 by its mark or its zeros, else Windows-1252 or Latin-1.

    Raises:
        DataError: UTF-8 with some damage; letters of another part of the world, with what they may be.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    sample = head[: len(head) // 2 * 2]
    zeros = np.frombuffer(sample, np.uint8).reshape(-1, 2) == 0
    even, odd = zeros.mean(axis=0) if len(zeros) else (0.0, 0.0)
    if max(even, odd) > 0.25 and min(even, odd) < 0.05:
        return "utf-16-le" if odd > even else "utf-16-be"
    control = np.bincount(np.frombuffer(head, np.uint8), minlength=256)[_CONTROL].sum()
    if control > max(10, 0.01 * len(head)):
        raise DataError(
            f"{path} is no text but binary data of an unknown kind; save the table as CSV (UTF-8) or Parquet"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, num_letters = 0, 0
    with open_bytes(path) as file:
        for _ in range(_MAX_CHECKED_BYTES // _STEP_BYTES):
            piece, held = file.read(_STEP_BYTES), len(decoder.getstate()[0])
            if held or not piece.isascii():
                try:
                    num_letters += sum(letter > "\x7f" for letter in decoder.decode(piece, not piece)[:100_000])
                except UnicodeDecodeError as error:
                    return _single_bytes(path, piece, max(0, error.start - held), num_letters, start)
            if not piece:
                break
            start += len(piece)
    return "utf-8"


def _single_bytes(path: Path, piece: bytes, bad: int, num_letters: int, start: int) -> str:
    """The encoding of a file whose byte at ``bad`` in the piece that begins at ``start`` is not UTF-8.

    ``num_letters`` beyond ASCII that are UTF-8 were seen before.
    """
    near = piece[max(0, bad - 500_000) : bad + 500_000]
    text = near.decode("utf-8", "surrogateescape")
    num_bad = sum("\udc80" <= letter <= "\udcff" for letter in text)
    num_letters += sum(letter > "\x7f" for letter in text) - num_bad
    if num_letters > num_bad:
        with open_bytes(path) as file:
            line = file.read(start + bad).count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: the byte 0x{piece[bad]:02x} is not UTF-8, as the rest of the file "
            "is; mend the line, or give the encoding"
        )
    high = np.frombuffer(near, np.uint8) >= 0x80
    if (high[1:] & high[:-1]).sum() > 0.4 * high.sum():
        readings = "; ".join(f"{name}: {text}" for name, text in _likely(near)) or "none that is known here"
        raise DataError(
            f"{path} is not UTF-8, and no West European text; give the encoding in which it reads right "
            f"({readings}), or save it as UTF-8"
        )
    return "latin-1" if any(byte in near for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)) else "cp1252"


def _likely(near: bytes) -> Iterator[tuple[str, str]]:
    """Encodings in which the text has letters of their part of the world, each with its first such line."""
    lines = near.split(b"\n")[1:-1] or [near]  # the first and the last may be cut off within a letter
    for name, letters in _SCRIPTS.items():
        try:
            text = b"\n".join(lines).decode(name)
        except UnicodeDecodeError:
            continue
        high = re.sub("[\0-\x7f]", "", text)
        if len(re.findall(f"[{letters}]", high)) > 0.8 * len(high):
            yield name, next(line for line in text.split("\n") if not line.isascii()).strip()[:30]


def read_text(path: Path, encoding: str, size: int) -> Iterator[bytes]:
    """UTF-8 without a mark, ``size`` bytes of the file at a time.

    Raises:
        DataError: Bytes that the encoding does not have.
    """
    mark = next((mark for mark, name in _MARKS.items() if name == encoding), b"")
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
    with open_bytes(path) as file:
        begin = file.read(len(mark))
        rest = b"" if begin == mark else begin
        lines = 0
        while piece := rest + file.read(max(1, size - len(rest))):
            rest = b""
            if decoder:
                try:
                    piece = decoder.decode(piece).encode()
                except UnicodeDecodeError as error:
                    line = lines + piece[: error.start].count(b"\n") + 1
                    raise DataError(f"{path}:{line}: not {encoding} ({error.reason}); give another encoding") from None
                lines += piece.count(b"\n")
            if piece:  # half a letter gives none
                yield piece
    if decoder and decoder.getstate()[0]:
        raise DataError(f"{path} ends within a letter of {encoding}; it is cut off")


def row_blocks(path: Path, form: TableFormat, *, width: int, offset: int, line: int) -> Iterator[RowBlock]:
    """The rows behind ``offset`` bytes of UTF-8, which are on ``line`` (counted from 0).

    Raises:
        DataError: A quote that is not closed, a zero byte.
    """
    # Each column costs something in each block, so wide tables have larger ones.
    pieces = read_text(path, form.encoding, BLOCK_BYTES * min(4, 1 + width // 5000))
    rest, piece = b"", b""
    while len(piece) <= offset and (following := next(pieces, b"")):
        piece += following
    piece = piece[offset:]
    while piece or rest:
        following = next(pieces, b"")
        final = not following
        if final and not piece.endswith((b"\n", b"\r")):
            piece += b"\n"
        stop = piece.rfind(b"\n") + 1
        body = b"".join([rest, memoryview(piece)[:stop]])
        if form.escape:
            body = without_escapes(body)
        if stop and (block := _regular_block(body, form, width, line)):
            yield block
            line += block.num_rows
            rest = piece[stop:]
        else:
            rows = scan(body + piece[stop:], delimiter=form.delimiter, quote=form.quote, final=final)
            _check_whole(path, rows, line, final=final)
            if len(rows.starts):
                yield RowBlock(rows.rewritten(), len(rows.starts), rows.has_quotes, rows.padded, rows, line)
            line += rows.line(rows.stop)
            rest = rows.text[rows.stop :]
        piece = following
        if final:
            return


def _regular_block(text: bytes, form: TableFormat, width: int, line: int) -> RowBlock | None:
    """All rows, where nothing about them is unusual."""
    found = count_regular_rows(text, delimiter=form.delimiter, quote=form.quote, width=width) if text else None
    return RowBlock(text, *found, None, line) if found else None


def _check_whole(path: Path, rows: Rows, line: int, *, final: bool) -> None:
    if b"\0" in rows.text:
        where = line + rows.line(rows.text.index(b"\0")) + 1
        raise DataError(f"{path}:{where}: a zero byte; the file is damaged, or is no text")
    if rows.open_quote is not None and (final or len(rows.text) - rows.stop > _MAX_ROW_BYTES):
        where = line + rows.line(rows.open_quote) + 1
        raise DataError(f"{path}:{where}: the quote that opens here is not closed; close it, or double it in a cell")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = pool.submit(next, items, None)
            yield item


def bad_byte(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(f"{path}:{line}: the byte 0x{byte:02x} is not UTF-8; give the encoding (cp1252, latin-1 ...)")
