"""The arrays of a cache entry: ``.npy`` files that are written in blocks, and checked by the blocks' checksums."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainkit.system import durable

BLOCK_BYTES = 1 << 20
"""Arrays are written and checked in blocks of whole rows of about this size."""
FULL_CHECK_BYTES = 256 << 20
"""Of larger files that are unchanged by their time stamp, only blocks of about this many bytes in all are checked."""


class DamagedEntryError(Exception):
    """An entry exists but must not be used; the message says why."""


class ArrayWriter:
    """A ``.npy`` file whose blocks of rows are written in any order, from any thread."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: Any) -> None:
        self.path = path
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        self.rows_per_block = max(1, BLOCK_BYTES // max(1, row_bytes))
        self._block_bytes = self.rows_per_block * row_bytes
        self._checksums = [0] * -(-self.shape[0] // self.rows_per_block)
        self._waiting = np.empty((0, *self.shape[1:]), self.dtype)
        self._appended = 0
        self._lock = threading.Lock()
        self._needed = self.shape[0] * row_bytes
        self._file: BinaryIO = path.open("x+b", buffering=0)
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._offset = self._file.tell()
        self._file.seek(0)
        self._header_crc = zlib.crc32(_read_all(self._file, self._offset))

    def write_block(self, block: int, rows: NDArray[Any]) -> None:
        """Rows ``block * rows_per_block`` and following, a whole block of them (fewer in the last one only).

        Raises:
            durable.WriteError: The disk is full, or another error of the system.
        """
        data = memoryview(np.ascontiguousarray(rows, dtype=self.dtype).data).cast("B")
        self._checksums[block] = zlib.crc32(data)
        with durable.writing(self.path, needed=self._needed), self._lock:
            self._file.seek(self._offset + block * self._block_bytes)
            done = 0
            while done < len(data):
                done += self._file.write(data[done:])

    def write_all(self, array: NDArray[Any]) -> None:
        """The whole array at once."""
        for block, start in enumerate(range(0, len(array), self.rows_per_block)):
            self.write_block(block, array[start : start + self.rows_per_block])

    def append(self, rows: NDArray[Any]) -> None:
        """The rows that follow those that were appended before, any number of them."""
        self._waiting = np.concatenate([self._waiting, rows])
        whole = len(self._waiting) // self.rows_per_block * self.rows_per_block
        self._flush(whole)

    def _flush(self, count: int) -> None:
        for start in range(0, count, self.rows_per_block):
            block = self._waiting[start : min(start + self.rows_per_block, count)]
            self.write_block(self._appended // self.rows_per_block, block)
            self._appended += len(block)
        self._waiting = self._waiting[count:].copy()

    def finish(self) -> dict[str, Any]:
        """Write the file through to the disk; returns its record for the manifest."""
        self._flush(len(self._waiting))
        with durable.writing(self.path, needed=self._needed):
            durable.ops.fsync(self._file.fileno())
            status = os.fstat(self._file.fileno())
            self._file.close()
        return {
            "file": self.path.name,
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "offset": self._offset,
            "header_crc32": self._header_crc,
            "block_bytes": self._block_bytes,
            "crc32": self._checksums,
        }

    def close(self) -> None:
        """Close the file without a record."""
        self._file.close()


def check_array(path: Path, record: dict[str, Any]) -> None:
    """Compare a file with its record of ``ArrayWriter.finish``.

    Raises:
        DamagedEntryError: The size or a checksum is another one.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DamagedEntryError(f"{path.name}: {error.strerror}") from error
    if status.st_size != record["bytes"]:
        raise DamagedEntryError(f"{path.name} has {status.st_size} bytes, expected {record['bytes']}")
    checksums = record["crc32"]
    untouched = status.st_mtime_ns == record["mtime_ns"]
    step = 1
    if untouched and status.st_size > FULL_CHECK_BYTES:
        step = -(-status.st_size // FULL_CHECK_BYTES)
    with path.open("rb", buffering=0) as file:
        header = file.read(record["offset"])
        if zlib.crc32(header) != record["header_crc32"]:
            raise DamagedEntryError(f"{path.name}: the header is damaged")
        for block in range(0, len(checksums), step):
            file.seek(record["offset"] + block * record["block_bytes"])
            if zlib.crc32(_read_all(file, record["block_bytes"])) != checksums[block]:
                raise DamagedEntryError(f"{path.name}: block {block} is damaged")


def _read_all(file: Any, size: int) -> bytes:
    """Up to ``size`` bytes: one call may give fewer, and the last block has fewer."""
    data: bytes = file.read(size)
    while 0 < len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
