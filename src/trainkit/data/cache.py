"""A cache of arrays on disk: an entry is complete and checked, or absent.

An entry is a folder ``LABEL-KEY`` that holds ``.npy`` files and ``manifest.json``. It is built under a temporary name
and published by renaming the folder, so a half-built one is never found. The key is a hash of everything that
the arrays depend on. Sizes and checksums (CRC-32 by block) are compared when an entry is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache_arrays import ArrayWriter, DamagedEntryError, check_array
from trainkit.system import durable

try:
    import fcntl
except ImportError:  # Windows: two processes may build the same entry, and the first one wins
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A published entry."""

    path: Path
    key: str
    label: str
    created: float
    """Seconds since 1970."""
    num_bytes: int
    info: dict[str, Any] = field(default_factory=dict)
    """Plain JSON that the builder stored beside the arrays."""
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)


def cache_root() -> Path:
    """``$TRAINKIT_CACHE``, or the folder ``trainkit`` in the cache folder of the platform."""
    if chosen := os.environ.get("TRAINKIT_CACHE"):
        return Path(chosen).expanduser()
    try:
        home = Path.home()
    except RuntimeError:  # no home: some containers
        return Path(tempfile.gettempdir()) / "trainkit-cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "trainkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "trainkit" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "trainkit"


def make_key(description: dict[str, Any]) -> str:
    """24 hex digits of a hash of the description (plain JSON; the order of keys does not matter)."""
    text = json.dumps([FORMAT, description], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def stamp_files(paths: Sequence[Path]) -> list[list[Any]]:
    """For a description: path, size and time of the last change (of bytes and of name) of each file."""
    stats = [(path, path.stat()) for path in paths]
    return [[str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in stats]


def open_entry(cache_dir: Path, key: str) -> Entry | None:
    """The entry, after its sizes and checksums are compared; None where there is none.

    Raises:
        DamagedEntryError: A size or a checksum is not that of the manifest.
    """
    path = _find(cache_dir, key)
    if path is None:
        return None
    entry = _read_manifest(path)
    if entry.key != key:
        raise DamagedEntryError(f"the manifest is that of {entry.key}")
    for record in entry.arrays.values():
        check_array(path / record["file"], record)
    return entry


def _find(cache_dir: Path, key: str) -> Path | None:
    return next(iter(sorted(cache_dir.glob(f"*-{key}"))), None)


def _read_manifest(path: Path) -> Entry:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        body = manifest["body"]
        if manifest["sha256"] != _digest(body):
            raise DamagedEntryError("the checksum of the manifest is wrong")
        arrays = body["arrays"]
        num_bytes = sum(record["bytes"] for record in arrays.values())
        return Entry(path, body["key"], body["label"], body["created"], num_bytes, body["info"], arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedEntryError(f"the manifest cannot be read ({error})") from error


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load_arrays(entry: Entry) -> dict[str, NDArray[Any]]:
    """The arrays as maps of their files. Copy on write: a write to one stays in this process."""
    arrays = {}
    for name, record in entry.arrays.items():
        mode: Any = "c" if record["bytes"] > record["offset"] else None  # nothing cannot be mapped
        arrays[name] = np.load(entry.path / record["file"], mmap_mode=mode, allow_pickle=False)
    return arrays


class EntryDraft:
    """An entry under its temporary name: add arrays, then ``publish``. Leaving the block early removes it."""

    def __init__(self, cache_dir: Path, key: str, label: str) -> None:
        self.key = key
        self.label = label
        safe_label = re.sub(r"[^A-Za-z0-9_]+", "_", label).strip("_")[:40] or "data"
        self._name = f"{safe_label}-{key}"
        self._cache_dir = cache_dir
        self._writers: dict[str, ArrayWriter] = {}
        self.path = durable.temporary(cache_dir / self._name)
        with durable.writing(self.path):
            self.path.mkdir()

    def add_array(self, name: str, shape: Sequence[int], dtype: Any) -> ArrayWriter:
        path = self.path / f"{name}.npy"
        with durable.writing(path):
            self._writers[name] = ArrayWriter(path, shape, dtype)
        return self._writers[name]

    def publish(self, description: dict[str, Any], info: dict[str, Any]) -> Entry:
        """Make the entry durable and give it its name; if another process was first, use that entry."""
        body = {
            "format": FORMAT,
            "key": self.key,
            "label": self.label,
            "created": time.time(),
            "description": description,
            "info": info,
            "arrays": {name: writer.finish() for name, writer in self._writers.items()},
        }
        durable.write_json(self.path / _MANIFEST, {"body": body, "sha256": _digest(body)})
        target = self._cache_dir / self._name
        try:
            os.rename(self.path, target)
        except OSError as error:
            other = _find(self._cache_dir, self.key)
            if other is None:
                raise durable.WriteError(target, error) from error
            return _read_manifest(other)
        durable.fsync_folder(self._cache_dir)
        return _read_manifest(target)

    def __enter__(self) -> EntryDraft:
        return self

    def __exit__(self, *exception: object) -> None:
        for writer in self._writers.values():
            writer.close()
        shutil.rmtree(self.path, ignore_errors=True)  # absent after publish


@contextlib.contextmanager
def building(cache_dir: Path, key: str, *, should_stop: Callable[[], bool] | None = None) -> Iterator[None]:
    """A lock on the key: other processes that build it wait here, then find the entry published.

    The lock is the kernel's, so it ends with its process. Leftovers of dead processes are cleared on the way.

    Raises:
        durable.WriteError: The cache folder cannot be written.
        InterruptedError: ``should_stop`` returned true while waiting.
    """
    with durable.writing(cache_dir):
        (cache_dir / ".locks").mkdir(parents=True, exist_ok=True)
        durable.clear_stale(cache_dir)
        lock = (cache_dir / ".locks" / key).open("ab")
    with lock:
        while fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if should_stop is not None and should_stop():
                    raise InterruptedError from None
                time.sleep(0.05)
            except OSError:  # a file system without locks: as on Windows
                break
        yield


def remove_entry(path: Path) -> None:
    """Delete an entry. It is renamed first, so a half-deleted one is never found; open memory maps of it stay valid."""
    renamed = durable.temporary(path)
    with durable.writing(path), contextlib.suppress(FileNotFoundError):
        os.rename(path, renamed)
        shutil.rmtree(renamed, ignore_errors=True)


@contextlib.contextmanager
def draft_entry(
    cache_dir: Path, key: str, label: str, *, should_stop: Callable[[], bool] | None = None
) -> Iterator[EntryDraft | None]:
    """A draft that replaces a missing or damaged entry; None where another process has published it meanwhile.

    Raises:
        durable.WriteError: The cache folder cannot be written.
        InterruptedError: ``should_stop`` returned true while waiting for another process.
    """
    with building(cache_dir, key, should_stop=should_stop):
        published = None
        with contextlib.suppress(DamagedEntryError):
            published = open_entry(cache_dir, key)
        if published is not None:
            yield None
            return
        if path := _find(cache_dir, key):
            remove_entry(path)
        with EntryDraft(cache_dir, key, label) as draft:
            yield draft


def list_entries(cache_dir: Path) -> list[Entry]:
    """All entries, the newest first, from their manifests alone; a damaged one has the label ``(damaged)``."""
    entries = []
    for path in sorted(cache_dir.glob("*-" + "[0-9a-f]" * 24)):
        try:
            entries.append(_read_manifest(path))
        except DamagedEntryError:
            size = sum(file.stat().st_size for file in path.glob("*") if file.is_file())
            entries.append(Entry(path, path.name[-24:], "(damaged)", path.stat().st_mtime, size))
    return sorted(entries, key=lambda entry: -entry.created)


def clear_entries(cache_dir: Path, keys: Sequence[str] | None = None) -> list[Entry]:
    """Remove the entries with these keys (or their first digits), or all; leftovers too. Returns what was removed."""
    entries = list_entries(cache_dir)
    chosen = [entry for entry in entries if keys is None or any(entry.key.startswith(key) for key in keys)]
    for entry in chosen:
        remove_entry(entry.path)
    durable.clear_stale(cache_dir)
    return chosen


def cached_arrays(
    cache_dir: Path | None,
    label: str,
    description: dict[str, Any],
    build: Callable[[], tuple[dict[str, NDArray[Any]], dict[str, Any]]],
    *,
    save: bool = True,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Small arrays and plain JSON from the cache, or built and put there. A cache that cannot be written is no error.

    ``build`` returns (arrays, info); with ``cache_dir=None`` its result is used as it is, and with ``save=False`` it is
    not put into the cache.
    """
    if cache_dir is None:
        return build()
    key = make_key(description)
    with contextlib.suppress(DamagedEntryError):
        if entry := open_entry(cache_dir, key):
            return load_arrays(entry), entry.info
    arrays, info = build()
    if not save:
        return arrays, info
    with contextlib.suppress(durable.WriteError), draft_entry(cache_dir, key, label) as draft:
        if draft is not None:
            for name, array in arrays.items():
                draft.add_array(name, array.shape, array.dtype).write_all(array)
            draft.publish(description, info)
    return arrays, info


def streamed_arrays(
    cache_dir: Path, label: str, description: dict[str, Any], write: Callable[[EntryDraft], dict[str, Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays that are larger than memory, from the cache, or written there block by block.

    Args:
        write: adds arrays to the draft; returns plain JSON that is kept beside them.

    Raises:
        durable.WriteError: The cache folder cannot be written.
    """
    key = make_key(description)
    entry = None
    with contextlib.suppress(DamagedEntryError):
        entry = open_entry(cache_dir, key)
    if entry is None:
        with draft_entry(cache_dir, key, label) as draft:
            if draft is not None:
                draft.publish(description, write(draft))
        entry = open_entry(cache_dir, key)
    assert entry is not None, "just published"
    return load_arrays(entry), entry.info
