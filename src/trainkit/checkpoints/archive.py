"""A bounded reader of the zip files that ``torch.save`` writes; no torch, nothing is unpacked or run.

Stricter than the format: every record stored as it is, nothing beside or between the records, only names that
``torch.save`` gives, the headers before the records equal to the directory at the end. So each byte of the file is
either checked against a checksum or compared with another copy of itself, which ``torch.load`` does not do.
Layout: PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trainkit.errors import CheckpointError

_CHUNK = 1 << 18
_MAX_RECORDS = 50_000
_MAX_DIRECTORY_BYTES = 32 << 20
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_HAS_DESCRIPTOR = 0x0008
_UTF8 = 0x0800
_RECORD_NAME = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|data/\d{1,9}|\.data/serialization_id"
)


class DamagedFile(CheckpointError):
    """The file is not what a save of PyTorch leaves behind. ``reason`` is the message without the path."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class Record:
    """A stored record; ``name`` is without the archive's top folder."""

    name: str
    offset: int
    """Where its bytes begin in the file."""
    size: int
    crc: int


@dataclass(frozen=True)
class _Entry:
    raw_name: bytes
    common: tuple[int, int, int, int, int]
    """Version needed, flags, method, time, date: also in the header before the record."""
    crc: int
    size: int
    packed: int
    header_offset: int
    has_attributes: bool


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading; devices, pipes and folders are refused before they can block.

    Raises:
        DamagedFile: not a regular file, missing, a dangling link, or not readable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        if os.path.islink(path):
            raise DamagedFile(path, f"a link to {os.readlink(path)}, which does not exist") from None
        raise DamagedFile(path, "no such file") from None
    except OSError as error:
        kind = "a pipe, socket or device without its other end" if error.errno == errno.ENXIO else error.strerror
        raise DamagedFile(path, f"cannot be opened: {kind}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise DamagedFile(path, f"{kind}, not a file")
    return os.fdopen(descriptor, "rb")


def read_directory(file: BinaryIO, path: str | Path) -> dict[str, Record]:
    """The records by name, after comparing every header of the file. ``path`` is for messages.

    Raises:
        DamagedFile: not a zip file, not one of ``torch.save``, damaged, or cut short.
    """
    size = os.fstat(file.fileno()).st_size
    _refuse_other_formats(file, path, size)
    directory_offset, directory_size, count = _find_directory(file, path, size)
    entries = _read_entries(_read_at(file, path, directory_offset, directory_size), path, count)
    records: dict[str, Record] = {}
    position = 0
    top = entries[0].raw_name.partition(b"/")[0]
    named = [(_record_name(entry, top, path), entry) for entry in entries]
    for name, entry in sorted(named, key=lambda pair: pair[1].header_offset):
        _refuse_unusual(entry, name, path)
        if name in records:
            raise DamagedFile(path, f"damaged or forged: two records are called {name}")
        if entry.header_offset != position:
            raise DamagedFile(path, f"damaged or forged: the record {name} does not follow the one before it")
        records[name], position = _check_local_header(file, path, entry, name, limit=directory_offset)
    if position != directory_offset:
        raise DamagedFile(path, "damaged or forged: there are bytes that belong to no record")
    if "data.pkl" not in records:
        raise DamagedFile(path, "a zip file, but not one that torch.save wrote: it has no data.pkl")
    return records


def read_record(file: BinaryIO, path: str | Path, record: Record) -> bytes:
    """The bytes of one record, checked."""
    data = _read_at(file, path, record.offset, record.size)
    if zlib.crc32(data) != record.crc:
        raise _wrong_checksum(path, record)
    return data


def check_records(
    file: BinaryIO, path: str | Path, records: dict[str, Record], *, also: Callable[[memoryview], object] | None = None
) -> None:
    """Read the whole file once and compare each record with its CRC-32; ``also`` is given all bytes in order.

    Raises:
        DamagedFile: a record differs from its checksum.
    """
    file.seek(0)
    position = 0
    buffer = memoryview(bytearray(_CHUNK))  # one, of a size that stays in the processor's cache

    def read_up_to(end: int) -> Iterator[memoryview]:
        nonlocal position
        while position < end:
            chunk = buffer[: file.readinto(buffer[: end - position])]  # type: ignore[attr-defined]
            if not chunk:
                raise DamagedFile(path, "cut short while it was being read")
            position += len(chunk)
            if also is not None:
                also(chunk)
            yield chunk

    for record in sorted(records.values(), key=lambda record: record.offset):
        for _ in read_up_to(record.offset):
            pass
        crc = 0
        for chunk in read_up_to(record.offset + record.size):
            crc = zlib.crc32(chunk, crc)
        if crc != record.crc:
            raise _wrong_checksum(path, record)
    for _ in read_up_to(os.fstat(file.fileno()).st_size):
        pass


def _wrong_checksum(path: str | Path, record: Record) -> DamagedFile:
    return DamagedFile(path, f"damaged: the record {record.name} differs from its checksum")


def _read_at(file: BinaryIO, path: str | Path, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise DamagedFile(path, "damaged: the file is cut short")
    return data


def _refuse_other_formats(file: BinaryIO, path: str | Path, size: int) -> None:
    if size == 0:
        raise DamagedFile(path, "the file is empty")
    file.seek(0)
    start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return
    text = start.lstrip().lower()
    if not start.strip(b"\0"):
        reason = "damaged: the file begins with zeros only"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        reason = "a web page, not a checkpoint: a download that went wrong?"
    elif text.startswith(b"version https://git-lfs"):
        reason = "a Git LFS pointer, not a checkpoint; fetch the file itself with git lfs pull"
    elif start.startswith(b"\x80") and start[1:2] in b"\x00\x01\x02\x03\x04\x05":
        reason = (
            "a pickle or a checkpoint in PyTorch's format from before 1.6, which trainkit does not read because it can "
            "run code; if you trust it, load it in plain PyTorch and save its state_dict with torch.save"
        )
    elif start[257:262] == b"ustar" or (
        start[:100].strip(b"\0").isascii() and start[156:157] in b"05" and size >= 1024
    ):
        reason = "a tar archive, not a checkpoint (PyTorch's oldest format can run code and is not read)"
    elif start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")):
        reason = "a compressed archive, not a checkpoint; unpack it first"
    elif start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < size:
        reason = "a safetensors file, not a checkpoint; start from its weights with --init-from"
    else:
        reason = "not a trainkit checkpoint (not even a zip file, as torch.save writes)"
    raise DamagedFile(path, reason)


def _find_directory(file: BinaryIO, path: str | Path, size: int) -> tuple[int, int, int]:
    """Offset and size of the central directory and the number of its entries."""
    cut = DamagedFile(
        path, "damaged: the file is cut short, or something was added to it (no zip directory at its end)"
    )
    if size < _END.size + _CENTRAL.size + _LOCAL.size:
        raise cut
    magic, disk, start_disk, here, count, length, offset, comment = _END.unpack(
        _read_at(file, path, size - _END.size, _END.size)
    )
    if magic != b"PK\x05\x06" or comment != 0:
        raise cut
    end = size - _END.size
    if (disk, start_disk) != (0, 0) or here != count:
        raise DamagedFile(path, "damaged or forged: a zip file in several parts")
    if end >= _LOCATOR_64.size + _END_64.size:
        locator, part, where, parts = _LOCATOR_64.unpack(_read_at(file, path, end - _LOCATOR_64.size, _LOCATOR_64.size))
        if locator == b"PK\x06\x07":
            end -= _LOCATOR_64.size + _END_64.size
            found = _END_64.unpack(_read_at(file, path, end, _END_64.size))
            wide_count, wide_length, wide_offset = found[7:]
            expected = (b"PK\x06\x06", _END_64.size - 12, found[2], found[3], 0, 0, wide_count)
            narrow = (min(wide_count, 0xFFFF), min(wide_length, 0xFFFFFFFF), min(wide_offset, 0xFFFFFFFF))
            if found[:7] != expected or (part, where, parts) != (0, end, 1) or (count, length, offset) != narrow:
                raise DamagedFile(path, "damaged: the ends of the zip directory contradict each other")
            count, length, offset = wide_count, wide_length, wide_offset
    if offset + length != end:
        raise DamagedFile(path, "damaged: the zip directory is not where the file says")
    if not 0 < count <= _MAX_RECORDS or length > _MAX_DIRECTORY_BYTES:
        raise DamagedFile(path, f"refused: a zip file with {count:,} records and a directory of {length:,} bytes")
    return offset, length, count


def _read_entries(directory: bytes, path: str | Path, count: int) -> list[_Entry]:
    entries = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise DamagedFile(path, "damaged: the zip directory is cut short")
        fields = _CENTRAL.unpack_from(directory, position)
        magic, version, flags, method, time, date = fields[0], *fields[2:7]
        crc, packed, size, name_length, extra_length = fields[7:12]
        comment, disk, internal, external, header_offset = fields[12:]
        position += _CENTRAL.size
        name = directory[position : position + name_length]
        extra = directory[position + name_length : position + name_length + extra_length]
        position += name_length + extra_length
        if magic != b"PK\x01\x02" or comment or disk or position > len(directory):
            raise DamagedFile(path, "damaged: the zip directory makes no sense")
        size, packed, header_offset = _widen(_extra_fields(extra, path).get(1), size, packed, header_offset, path=path)
        common = (version, flags, method, time, date)
        entries.append(_Entry(name, common, crc, size, packed, header_offset, bool(internal or external)))
    if position != len(directory):
        raise DamagedFile(path, "damaged: the zip directory does not end where the file says")
    return entries


def _extra_fields(extra: bytes, path: str | Path) -> dict[int, bytes]:
    fields = {}
    position = 0
    while position < len(extra):
        if position + 4 > len(extra):
            raise DamagedFile(path, "damaged: an extra field of a record is cut short")
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind in fields or position + 4 + length > len(extra) or kind not in (0x0001, 0x4246):
            raise DamagedFile(path, "damaged: an extra field of a record that torch.save does not write")
        fields[kind] = extra[position + 4 : position + 4 + length]
        if kind == 0x4246 and fields[kind].strip(b"Z\0"):
            raise DamagedFile(path, "damaged: the padding of a record holds something")
        position += 4 + length
    return fields


def _widen(wide: bytes | None, *values: int, path: str | Path) -> list[int]:
    """Take 64-bit values from a zip64 field for those that do not fit into 32 bits."""
    numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide) if wide and len(wide) % 8 == 0 else ())
    result = [next(numbers, -1) if value == 0xFFFFFFFF else value for value in values]
    if -1 in result or next(numbers, None) is not None:
        raise DamagedFile(path, "damaged: a 64-bit size of a record makes no sense")
    return result


def _record_name(entry: _Entry, top: bytes, path: str | Path) -> str:
    folder, _, rest = entry.raw_name.partition(b"/")
    name = rest.decode("ascii", "replace")
    if folder == top and top and _RECORD_NAME.fullmatch(name):
        return name
    shown = entry.raw_name[:80].decode("utf-8", "replace")
    if name.startswith("code/") or name == "constants.pkl":
        raise DamagedFile(path, "a TorchScript program, not a checkpoint: it holds code, which trainkit never loads")
    if name in ("archive_format", "model.json") or name.startswith("models/"):
        raise DamagedFile(path, "an exported program (.pt2), not a checkpoint")
    raise DamagedFile(
        path, f"not a trainkit checkpoint: a zip file with a record {shown!r}, which torch.save never writes"
    )


def _refuse_unusual(entry: _Entry, name: str, path: str | Path) -> None:
    _, flags, method, _, _ = entry.common
    if method != 0:
        raise DamagedFile(path, "a zip file with compressed records, which torch.save does not write")
    # One attribute says "a folder": for such a record torch.load returns memory that nobody has written to.
    if entry.packed != entry.size or flags & ~(_HAS_DESCRIPTOR | _UTF8) or entry.has_attributes:
        raise DamagedFile(path, f"damaged or forged: the record {name} is not stored as torch.save stores it")


def _check_local_header(
    file: BinaryIO, path: str | Path, entry: _Entry, name: str, *, limit: int
) -> tuple[Record, int]:
    """Compare the header before the record with the directory; returns the record and where the next one begins."""

    def differs() -> DamagedFile:
        return DamagedFile(path, f"damaged: the header of the record {name} differs from the zip directory")

    start = entry.header_offset
    if start + _LOCAL.size > limit:
        raise differs()
    fields = _LOCAL.unpack(_read_at(file, path, start, _LOCAL.size))
    magic, crc, packed, size, name_length, extra_length = fields[0], *fields[6:]
    after = _read_at(file, path, start + _LOCAL.size, name_length + extra_length)
    if magic != b"PK\x03\x04" or fields[1:6] != entry.common:
        raise differs()
    if after[:name_length] != entry.raw_name:
        raise differs()
    wide = _extra_fields(after[name_length:], path).get(1)
    begin = start + _LOCAL.size + name_length + extra_length
    end = begin + entry.size
    if entry.common[1] & _HAS_DESCRIPTOR:
        # miniz writes zeros here and the numbers behind the record, 64 bits wide where the header has a zip64 field.
        layout = struct.Struct("<4sI2I" if wide is None else "<4sI2Q")
        if (crc, packed, size) not in ((0, 0, 0), (0, 0xFFFFFFFF, 0xFFFFFFFF)) or end + layout.size > limit:
            raise differs()
        if layout.unpack(_read_at(file, path, end, layout.size)) != (b"PK\x07\x08", entry.crc, entry.size, entry.size):
            raise differs()
        end += layout.size
    else:
        if wide is not None:
            size, packed = _widen(wide[:16], size, packed, path=path)
        if (crc, packed, size) != (entry.crc, entry.size, entry.size) or end > limit:
            raise differs()
    return Record(name, begin, entry.size, entry.crc), end
