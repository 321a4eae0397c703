"""The entries of folders: what is junk, what is an image, and links in a circle."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.data.images.decode import printable
from trainkit.data.images.formats import is_image_file, is_junk
from trainkit.errors import DataError
from trainkit.wording import counted


@dataclass
class Scan:
    """The entries of the folders that are no images of a class."""

    junk: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    """Images beside class folders."""
    loops: list[str] = field(default_factory=list)

    def notes(self, root: Path) -> list[str]:
        """A sentence for each kind that there is."""
        notes = []
        if self.junk:
            names = printable(", ".join(name for name, _ in self.junk.most_common(5)))
            notes.append(f"{root}: ignored {counted(self.junk.total(), 'system entry')} ({names})")
        if self.others:
            names = printable(", ".join(sorted(set(self.others))[:5]))
            ignored = counted(len(self.others), "entry")
            notes.append(f"{root}: ignored {ignored}, neither image nor class folder ({names})")
        if self.loose:
            names = printable(", ".join(sorted(set(self.loose))[:5]))
            notes.append(f"{root}: ignored {counted(len(self.loose), 'image')} in no class folder ({names})")
        if self.loops:
            links = counted(len(self.loops), "link")
            notes.append(f"{root}: ignored {links} to folders searched already ({printable(self.loops[0])})")
        return notes


@dataclass(frozen=True)
class Level:
    """What lies directly in a folder, by name."""

    path: Path
    folders: list[str] = field(default_factory=list)
    """Those with an image somewhere in them."""
    hollow: list[str] = field(default_factory=list)
    """Those without."""
    images: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def at(self, name: str) -> Path:
        return self.path / name


def list_entries(folder: Path, scan: Scan) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder by name, without junk.

    Raises:
        DataError: The folder cannot be read.
    """
    for entry in sorted(_scandir(folder), key=lambda entry: entry.name):
        if is_junk(entry.name):
            scan.junk[entry.name] += 1
        else:
            yield entry


def _scandir(folder: Path) -> Iterator[os.DirEntry[str]]:
    """As they come, so that a reader may stop early."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"{printable(folder)} cannot be read ({error.strerror})") from None


def describe_files(folder: Path) -> str:
    """`` (12 .cr2 files)`` in a folder without images: what there is instead; "" where there is nothing."""
    suffixes = Counter(
        Path(entry.name).suffix.lower() for entry in list_entries(folder, Scan()) if not is_folder(entry)
    )
    counted = [
        f"{count} {suffix or 'other'} file{'s' if count > 1 else ''}" for suffix, count in suffixes.most_common(3)
    ]
    return f" ({printable(', '.join(counted))})" if counted else ""


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def is_image(entry: os.DirEntry[str]) -> bool:
    return is_image_file(entry.path)


def identity(path: str | Path) -> tuple[int, int]:
    """Of a folder, whatever links lead to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def parents(folder: Path) -> set[tuple[int, int]]:
    """The identities of a folder and of those above it: a link to one of them leads in a circle."""
    resolved = folder.resolve()
    return {identity(parent) for parent in (resolved, *resolved.parents)}


def find_images(folder: Path, scan: Scan, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Image files under a folder; each real folder is searched once, so that links in a circle end."""
    seen.add(identity(folder))
    for entry in list_entries(folder, scan):
        if is_folder(entry):
            if identity(entry.path) in seen:
                scan.loops.append(entry.path)
            else:
                yield from find_images(Path(entry.path), scan, seen)
        elif is_image(entry):
            yield Path(entry.path)
        else:
            scan.others.append(entry.name)


def has_images(folder: Path) -> bool:
    """Whether an image lies somewhere under a folder: files first, so that most folders are not listed to the end."""
    return _has_images(folder, parents(folder.parent))


def _has_images(folder: Path, seen: set[tuple[int, int]]) -> bool:
    if (here := identity(folder)) in seen:
        return False
    seen.add(here)
    inner = folders_without_images(folder)
    return inner is None or any(_has_images(folder / name, seen) for name in inner)


def folders_without_images(folder: Path) -> list[str] | None:
    """The names of the folders in a folder; None where images lie beside them."""
    names = []
    for entry in _scandir(folder):
        if is_junk(entry.name):
            continue
        if is_folder(entry):
            names.append(entry.name)
        elif is_image(entry):
            return None
    return sorted(names)


def look(folder: Path) -> Level:
    """What lies directly in a folder, without junk."""
    level = Level(folder)
    for entry in list_entries(folder, Scan()):
        if not is_folder(entry):
            (level.images if is_image(entry) else level.files).append(entry.name)
        else:  # a link to a folder above has no images that are not found without it
            (level.folders if has_images(Path(entry.path)) else level.hollow).append(entry.name)
    return level
