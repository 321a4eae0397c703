"""A bounded reader of the zip files that ``torch.save`` writes; no torch, nothing is unpacked or run.

``zipfile`` reads the directory and compares the checksums, which ``torch.load`` does not do. But it takes more than
``torch.save`` writes, and in forged files it may see other records than ``torch.load`` does. So there may be one
directory only, records must be stored as they are under names that ``torch.save`` gives, and they must follow one
another without a gap from the first byte on. Bytes of headers that ``torch.load`` does not read (times, padding, a
second copy of the sizes) may differ: only the SHA-256 of the file covers them.
Layout: PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from trainkit.errors import CheckpointError

_CHUNK = 1 << 18
_MAX_RECORDS = 50_000
_MAX_DIRECTORY_BYTES = 8 << 20  # zipfile makes about 100 MB of objects of it
_HEADER_BYTES = 30
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_HAS_DESCRIPTOR = 0x0008
_UTF8 = 0x0800
_ZIP64_FIELD = b"\x01\x00"
_RECORD_NAME = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|data/\d{1,9}|\.data/serialization_id"
)
# What zipfile raises for files that make no sense to it.
_ZIP_ERRORS = (BadZipFile, EOFError, NotImplementedError, ValueError, OverflowError, struct.error)


class DamagedFile(CheckpointError):
    """The file is not what a save of PyTorch leaves behind. ``reason`` is the message without the path."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class Archive:
    """An open zip file whose directory passed every check."""

    path: Path
    zip: ZipFile
    records: dict[str, ZipInfo]
    """In the order of the file, by their name without the archive's top folder."""

    def size(self, name: str) -> int | None:
        """Bytes of a record; None where there is none."""
        return self.records[name].file_size if name in self.records else None

    def read(self, name: str) -> bytes:
        """The bytes of a record.

        Raises:
            DamagedFile: they differ from their checksum.
        """
        return b"".join(self._chunks(name))

    def check(self) -> None:
        """Read every record.

        Raises:
            DamagedFile: one differs from its checksum.
        """
        for name in self.records:
            for _ in self._chunks(name):
                pass

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            record = self.zip.open(self.records[name])
        except _ZIP_ERRORS:
            reason = f"damaged: the header of the record {name} differs from the zip directory"
            raise DamagedFile(self.path, reason) from None
        with record:
            try:
                while chunk := record.read(_CHUNK):
                    yield chunk
            except _ZIP_ERRORS:
                reason = f"damaged: the record {name} differs from its checksum"
                raise DamagedFile(self.path, reason) from None


def open_regular(path: str | Path) -> BufferedReader:
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


def open_archive(file: BufferedReader, path: str | Path) -> Archive:
    """The archive in an open file, after every check but those of the checksums. ``path`` is for messages.

    Raises:
        DamagedFile: not a zip file, not one of ``torch.save``, damaged, or cut short.
    """
    size = os.fstat(file.fileno()).st_size
    _refuse_other_formats(file, path, size)
    directory, count = _find_directory(file, path, size)
    try:
        archive = ZipFile(file)
    except _ZIP_ERRORS:
        raise DamagedFile(path, "damaged: the zip directory makes no sense") from None
    entries = archive.infolist()
    if archive.start_dir != directory or len(entries) != count:
        raise DamagedFile(path, "damaged: the zip directory does not end where the file says")
    top = entries[0].orig_filename.partition("/")[0]
    named = [(_record_name(entry, top, path), entry) for entry in entries]
    records: dict[str, ZipInfo] = {}
    position = 0
    for name, entry in sorted(named, key=lambda pair: pair[1].header_offset):
        _refuse_unusual(entry, name, path)
        if name in records:
            raise DamagedFile(path, f"damaged or forged: two records are called {name}")
        if entry.header_offset != position:
            raise DamagedFile(path, f"damaged or forged: the record {name} does not follow the one before it")
        records[name] = entry
        position = _end_of(file, path, entry, name, limit=directory)
    if position != directory:
        raise DamagedFile(path, "damaged or forged: there are bytes that belong to no record")
    if "data.pkl" not in records:
        raise DamagedFile(path, "a zip file, but not one that torch.save wrote: it has no data.pkl")
    return Archive(Path(path), archive, records)


def _refuse_other_formats(file: BufferedReader, path: str | Path, size: int) -> None:
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
    elif start.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"):
        reason = "a file in PyTorch's format from before 1.6, not a checkpoint; start from its weights with --init-from"
    elif start.startswith(b"\x80") and start[1:2] in b"\x00\x01\x02\x03\x04\x05":
        reason = (
            "a plain pickle, which trainkit does not read because it can run code; if you trust it, load it in plain "
            "PyTorch and save its state_dict with torch.save"
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


def _find_directory(file: BufferedReader, path: str | Path, size: int) -> tuple[int, int]:
    """Where the central directory begins and the number of its entries; it must reach to the end records.

    ``zipfile`` would search for an end record before a comment, and ``torch.load`` would follow the offset in the
    locator to another one.
    """
    cut = DamagedFile(
        path, "damaged: the file is cut short, or something was added to it (no zip directory at its end)"
    )
    if size < _END.size + _HEADER_BYTES:
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
    return offset, count


def _record_name(entry: ZipInfo, top: str, path: str | Path) -> str:
    folder, _, name = entry.orig_filename.partition("/")
    if folder == top and top and _RECORD_NAME.fullmatch(name):
        return name
    if name.startswith("code/") or name == "constants.pkl":
        raise DamagedFile(path, "a TorchScript program, not a checkpoint: it holds code, which trainkit never loads")
    if name in ("archive_format", "model.json") or name.startswith("models/"):
        raise DamagedFile(path, "an exported program (.pt2), not a checkpoint")
    shown = entry.orig_filename[:80]
    raise DamagedFile(
        path,
        f"not a trainkit checkpoint: a zip file with a record {shown!r}, which torch.save never writes",
    )


def _refuse_unusual(entry: ZipInfo, name: str, path: str | Path) -> None:
    if entry.compress_type != ZIP_STORED:
        raise DamagedFile(path, "a zip file with compressed records, which torch.save does not write")
    # One attribute says "a folder": for such a record torch.load returns memory that nobody has written to.
    attributes = entry.internal_attr or entry.external_attr or entry.volume or entry.comment
    flags = entry.flag_bits & ~(_HAS_DESCRIPTOR | _UTF8)
    extra = entry.extra
    wide = extra[:2] == _ZIP64_FIELD and int.from_bytes(extra[2:4], "little") + 4 == len(extra)
    if entry.compress_size != entry.file_size or flags or attributes or (extra and not wide):
        raise DamagedFile(path, f"damaged or forged: the record {name} is not stored as torch.save stores it")


def _end_of(file: BufferedReader, path: str | Path, entry: ZipInfo, name: str, *, limit: int) -> int:
    """Where the record ends and the next one must begin."""
    differs = DamagedFile(path, f"damaged: the header of the record {name} differs from the zip directory")
    header = _read_at(file, path, entry.header_offset, _HEADER_BYTES)
    name_length, extra_length = struct.unpack_from("<2H", header, 26)
    end: int = entry.header_offset + _HEADER_BYTES + name_length + extra_length + entry.file_size
    if end > limit:
        raise differs
    if not entry.flag_bits & _HAS_DESCRIPTOR:
        return end
    # miniz writes checksum and sizes behind the record too, 64 bits wide where the header has a zip64 field.
    wide = struct.pack("<4sI2Q", b"PK\x07\x08", entry.CRC, entry.file_size, entry.file_size)
    narrow = wide[:12] + wide[16:20]
    file.seek(end)
    after = file.read(len(wide))
    for descriptor in (wide, narrow):
        if after.startswith(descriptor):
            return end + len(descriptor)
    raise differs


def _read_at(file: BufferedReader, path: str | Path, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise DamagedFile(path, "damaged: the file is cut short")
    return data
