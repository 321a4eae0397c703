"""Durable files: each is whole or absent, whatever happens while it is written.

A file is written under a temporary name in the folder where it will live, flushed to the device, renamed, and the
folder is flushed too. Only then is the old file deleted. After a crash or a loss of power the folder holds the old
file or the new one, never a part of one.

Every call to the operating system goes through ``ops``, so that tests can record, fail or stop at each of them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trainkit.errors import TrainkitError
from trainkit.system.processes import Process, is_alive, this_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Buffer = bytes | bytearray | memoryview

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the device reported an I/O error",
    errno.EFBIG: "the file is larger than the file system or a limit allows",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "a file with this name is already there",
}
# A file system without hard links (FAT, some network shares) answers with one of these.
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# A process of another machine cannot be looked up; after this long without a change its temporary file is stale.
_FOREIGN_TEMP_SECONDS = 24 * 3600.0
_TEMP_NAME = re.compile(r"\..+\.(?P<owner>[0-9a-f]{8}-[0-9a-f]{8}-\d+-\w+)-\d+\.tmp")
_temp_numbers = itertools.count()


def _fsync(descriptor: int) -> None:
    if fcntl is not None and hasattr(fcntl, "F_FULLFSYNC"):
        # On macOS fsync leaves the data in the drive's own cache; not every file system there knows the full one.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def _fsync_folder(folder: str) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and NTFS keeps its own journal
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the file system has no such operation
            raise
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class FileOps:
    """The calls that change files. Tests put another set in ``durable.ops``."""

    open: Callable[[str, int], int] = lambda path, flags: os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    write: Callable[[int, Buffer], int] = os.write
    truncate: Callable[[int, int], None] = os.ftruncate
    fsync: Callable[[int], None] = _fsync
    close: Callable[[int], None] = os.close
    replace: Callable[[str, str], None] = os.replace
    link: Callable[[str, str], None] = os.link
    unlink: Callable[[str], None] = os.unlink
    fsync_folder: Callable[[str], None] = _fsync_folder


ops = FileOps()


class WriteError(TrainkitError):
    """A file could not be written. The old file is unchanged, and no part of the new one is left."""

    def __init__(
        self, path: str | Path, error: OSError, *, needed: int | None = None, intact: str | None = None
    ) -> None:
        self.path = Path(path)
        self.errno = error.errno
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        free = free_bytes(self.path.parent)
        space = [f"needs {needed:,} bytes" if needed else "", f"{free:,} bytes free" if free is not None else ""]
        numbers = ", ".join(part for part in space if part)
        kept = intact or "what was there before is unchanged"
        super().__init__(f"cannot write {path}: {reason}{f' ({numbers})' if numbers else ''}; {kept}")


@contextlib.contextmanager
def writing(path: str | Path, *, needed: int | None = None, intact: str | None = None) -> Iterator[None]:
    """Raise an OSError of the block as WriteError of ``path``."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, error, needed=needed, intact=intact) from error


def free_bytes(folder: str | Path) -> int | None:
    """Bytes that this user may still write in ``folder``; None: unknown."""
    for place in (Path(folder), *Path(folder).parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def require_space(path: str | Path, needed: int, *, intact: str | None = None) -> None:
    """Raise WriteError before the first byte where ``path`` cannot get ``needed`` bytes."""
    free = free_bytes(Path(path).parent)
    if free is not None and free < needed:
        raise WriteError(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), needed=needed, intact=intact)


def temporary(path: str | Path) -> Path:
    """A name beside ``path`` for a file or folder that will be renamed to it; it holds the token of this process."""
    path = Path(path)
    return path.with_name(f".{path.name}.{this_process().token}-{next(_temp_numbers)}.tmp")


def is_temporary(path: str | Path) -> bool:
    """Whether ``temporary`` made this name, in whatever process."""
    return _TEMP_NAME.fullmatch(Path(path).name) is not None


def clear_stale(folder: str | Path) -> list[Path]:
    """Remove temporary files and folders in ``folder`` whose process is dead; returns what was removed.

    Those of living processes stay, and so do those of other machines until nobody has touched them for a day.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*.tmp")):
        match = _TEMP_NAME.fullmatch(path.name)
        owner = Process.from_token(match["owner"]) if match else None
        if owner is None:
            continue
        with contextlib.suppress(OSError):
            status = path.lstat()
            alive = is_alive(owner)
            if alive is None:
                alive = time.time() - status.st_mtime < _FOREIGN_TEMP_SECONDS
            if not alive:
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(path)
                else:
                    ops.unlink(str(path))
                removed.append(path)
    return removed


class Draft:
    """A file under its temporary name: write it, ``finish`` it, ``publish`` it; leaving the block early removes it.

    ``size`` is what has been written so far.
    """

    def __init__(self, path: str | Path, *, needed: int | None = None, intact: str | None = None) -> None:
        self.path = Path(path)
        self.size = 0
        self.failure: WriteError | None = None
        self._needed = needed
        self._intact = intact
        self.temporary = temporary(path)
        self._descriptor: int | None = None
        self._exists = False
        with self._reporting():
            self._descriptor = ops.open(str(self.temporary), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            self._exists = True

    def write(self, data: Buffer) -> int:
        """Append all of ``data``. After a failure every further call raises the same error and writes nothing."""
        if self.failure is not None:
            raise self.failure
        assert self._descriptor is not None, "written after finish()"
        view = memoryview(data).cast("B")
        with self._reporting(len(view)):
            done = 0
            while done < len(view):
                done += ops.write(self._descriptor, view[done:])
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered here; part of the protocol of binary files."""

    def finish(self, *, meanwhile: Callable[[], Any] | None = None) -> Any:
        """Flush the bytes to the device and close. A failed fsync may have dropped them: it is never repeated.

        ``meanwhile`` runs during the fsync; its result is returned, its exceptions are raised after the fsync.
        """
        if self.failure is not None:
            raise self.failure
        assert self._descriptor is not None, "finished twice"
        with self._reporting():
            result = None
            if meanwhile is None:
                ops.fsync(self._descriptor)
            else:
                with ThreadPoolExecutor(1) as pool:
                    synced = pool.submit(ops.fsync, self._descriptor)
                    try:
                        result = meanwhile()
                    finally:
                        synced.result()
            descriptor, self._descriptor = self._descriptor, None
            ops.close(descriptor)
        return result

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its name. The caller flushes the folder.

        Raises:
            FileExistsError: the name is taken and ``overwrite`` is false; the draft can be published elsewhere.
        """
        assert self._descriptor is None, "published before finish()"
        if self.failure is not None:
            raise self.failure
        try:
            if overwrite:
                ops.replace(str(self.temporary), str(self.path))
            else:
                _rename_without_overwriting(str(self.temporary), str(self.path))
            self._exists = False
        except FileExistsError:
            raise
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Close and remove what is left of the draft; nothing where it was published."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                ops.close(descriptor)
        if self._exists:
            self._exists = False
            with contextlib.suppress(OSError):
                ops.unlink(str(self.temporary))

    @contextlib.contextmanager
    def _reporting(self, more_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(error, more_bytes) from error
        except BaseException:
            self.discard()
            raise

    def _failed(self, error: OSError, more_bytes: int = 0) -> WriteError:
        self.discard()  # before the free bytes are counted for the message
        needed = max(self._needed or 0, self.size + more_bytes)
        self.failure = WriteError(self.path, error, needed=needed or None, intact=self._intact)
        return self.failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()


def _rename_without_overwriting(source: str, target: str) -> None:
    try:
        ops.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Create an empty file, then replace it: readers reject the empty one that a crash in between leaves.
        ops.close(ops.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            ops.replace(source, target)
        except BaseException:
            with contextlib.suppress(OSError):
                ops.unlink(target)
            raise
        return
    with contextlib.suppress(OSError):
        ops.unlink(source)  # a second name of the published file; the next start removes it where this fails


def fsync_folder(folder: str | Path, *, intact: str | None = None) -> None:
    """Make the names in ``folder`` durable."""
    try:
        ops.fsync_folder(str(folder))
    except OSError as error:
        raise WriteError(folder, error, intact=intact) from error


@contextlib.contextmanager
def open_for_replace(path: str | Path, *, overwrite: bool = True, needed: int | None = None) -> Iterator[Draft]:
    """A binary file that replaces ``path`` when the block ends without an error, and is removed otherwise.

    Raises:
        WriteError: the system refused (disk full, read-only, I/O error, ...).
        FileExistsError: the name is taken and ``overwrite`` is false.
    """
    with Draft(path, needed=needed) as draft:
        yield draft
        draft.finish()
        draft.publish(overwrite=overwrite)
    fsync_folder(Path(path).parent)


def write_bytes(path: str | Path, data: Buffer, *, overwrite: bool = True) -> None:
    """Write ``data`` to ``path``, durable when this returns."""
    with open_for_replace(path, overwrite=overwrite, needed=len(data)) as draft:
        draft.write(data)


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write ``text`` as UTF-8 to ``path``, durable when this returns."""
    write_bytes(path, utf8(text), overwrite=overwrite)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, durable when this returns; NaN and infinity become null."""
    write_text(path, json.dumps(finite_or_none(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def utf8(text: str) -> bytes:
    """UTF-8 in which the bytes of a file's name that are no UTF-8 are escaped (``\\udce9``, which is valid in JSON)."""
    return text.encode(errors="backslashreplace")


def finite_or_none(value: Any) -> Any:
    """``value`` with None in place of NaN and infinity, which JSON does not have."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: finite_or_none(item) for key, item in value.items()}
        case list() | tuple():
            return [finite_or_none(item) for item in value]
        case _:
            return value


def append_line(path: str | Path, text: str) -> None:
    """Add one line to a text file in a single write; durable only after a later fsync (logs are not worth one each)."""
    try:
        descriptor = ops.open(str(path), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        try:
            append_whole(descriptor, utf8(text.rstrip("\n") + "\n"))
        finally:
            ops.close(descriptor)
    except OSError as error:
        raise WriteError(path, error) from error


def append_whole(descriptor: int, line: bytes) -> None:
    """Write all of ``line`` at the end of an open file, or nothing of it."""
    start = os.fstat(descriptor).st_size
    done = 0
    try:
        while done < len(line):
            done += ops.write(descriptor, line[done:])
    except OSError:
        with contextlib.suppress(OSError):
            ops.truncate(descriptor, start)
        raise
