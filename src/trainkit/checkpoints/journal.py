"""The journal of a checkpoint folder: what is committed, in the order of the saves, and which is best and last.

A checkpoint is saved once ``checkpoints.json`` names it. All that the journal holds is in the files too, so it
can be rebuilt from them. ``best`` and ``last`` are small text files with the name of a checkpoint: unlike links, they
survive Windows, zip files and copies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainkit.checkpoints.archive import DamagedFile, open_regular
from trainkit.checkpoints.inspection import JOURNAL_NAME, CheckpointSpec, inspect_checkpoint
from trainkit.system import durable
from trainkit.wording import counted

POINTERS = ("best", "last")
JOURNAL_FORMAT = 1
_SELF_HASH = "sha256_of_the_rest"
_MAX_JOURNAL_BYTES = 64 << 20
INTACT = "earlier checkpoints are intact"


@dataclass(frozen=True)
class Entry:
    """A saved checkpoint. All of this but ``sha256`` and ``size`` is in the file too, under the key ``saved``."""

    name: str
    step: int
    epoch: int
    score: float | None
    best: bool
    """Whether it was the best of its run when it was saved."""
    sequence: int
    """Counts the saves of a folder. Within a line of history it grows as the step does; where a run was taken back to
    an earlier step, what was saved after that is the newer. So neither a clock nor a name says which is newest."""
    time: str
    sha256: str = ""
    size: int = 0

    def description(self) -> dict[str, Any]:
        """The part that the file itself holds."""
        return {key: value for key, value in asdict(self).items() if key not in ("sha256", "size")}


@dataclass(frozen=True)
class Journal:
    """``folder`` is a random name that its files carry inside: files copied from elsewhere are foreign here."""

    folder: str
    entries: tuple[Entry, ...] = ()
    """In the order of the saves."""
    best: str | None = None

    @property
    def last(self) -> str | None:
        return self.entries[-1].name if self.entries else None

    @property
    def next_sequence(self) -> int:
        return self.entries[-1].sequence + 1 if self.entries else 0

    def find(self, name: str | None) -> Entry | None:
        return next((entry for entry in self.entries if entry.name == name), None)

    def pointed(self) -> dict[str, str]:
        """What ``best`` and ``last`` must name."""
        names = {"best": self.best, "last": self.last}
        return {pointer: name for pointer, name in names.items() if name is not None}


def read_journal(folder: str | Path) -> Journal | None:
    """The journal of a folder; None where there is none or it is damaged."""
    try:
        with open_regular(Path(folder) / JOURNAL_NAME) as file:
            value = json.loads(file.read(_MAX_JOURNAL_BYTES))
        if value.pop(_SELF_HASH) != _hash_of(value) or value["format"] != JOURNAL_FORMAT:
            return None
        entries = tuple(Entry(**entry) for entry in value["entries"])
        return Journal(value["folder"], tuple(sorted(entries, key=lambda entry: entry.sequence)), value["best"])
    except (DamagedFile, OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


def commit(folder: str | Path, journal: Journal) -> None:
    """Replace the journal and update ``best`` and ``last``: the entries are committed when this returns.

    The files that the journal names must be durable, names included. One flush of the folder serves all three: in
    whatever order a loss of power keeps them, each is the old or the new one, and names files that are there.
    """
    folder = Path(folder)
    value = {"format": JOURNAL_FORMAT, "folder": journal.folder, "best": journal.best, "last": journal.last}
    value["entries"] = [asdict(entry) for entry in journal.entries]
    text = json.dumps({**value, _SELF_HASH: _hash_of(value)}, indent=1, ensure_ascii=False, allow_nan=False)
    _replace(folder / JOURNAL_NAME, text)
    for pointer, name in journal.pointed().items():
        if read_pointer(folder / pointer) != folder / name:
            _replace(folder / pointer, name)
    if journal.entries:  # an empty one names the folder only: where it is lost, the next start names it again
        durable.fsync_folder(folder, intact=INTACT)


def _replace(path: Path, text: str) -> None:
    with durable.Draft(path, intact=INTACT) as draft:
        draft.write(f"{text}\n".encode())
        draft.finish()
        draft.publish(overwrite=True)


def _hash_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def known_sha256(path: Path) -> str | None:
    """The SHA-256 that the journal beside a checkpoint knows for it."""
    journal = read_journal(path.parent)
    entry = journal.find(path.name) if journal else None
    return entry.sha256 if entry else None


def entry_of(spec: CheckpointSpec) -> tuple[str, Entry] | None:
    """The folder and the entry that a file holds; None where it holds none or has another name than the entry."""
    saved = spec.value.get("saved")
    expected = {"folder": str, "name": str, "step": int, "epoch": int, "best": bool, "sequence": int, "time": str}
    if not isinstance(saved, dict) or any(type(saved.get(key)) is not kind for key, kind in expected.items()):
        return None
    if saved["name"] != spec.path.name or type(saved.get("score", "")) not in (float, type(None)):
        return None
    known = {key: saved[key] for key in (*expected, "score") if key != "folder"}
    return saved["folder"], Entry(**known, sha256=spec.sha256 or "", size=spec.size)


def with_uncommitted(folder: str | Path, journal: Journal | None) -> tuple[Journal, list[str]]:
    """The journal, or where there is none a new one, with the whole files of this folder that it does not know.

    Such files are there after a crash between publishing and committing, or between committing and deleting. Entries
    whose file is gone are left out. Foreign and damaged files are never taken in. Returns what was done in words.
    """
    folder = Path(folder)
    notes = []
    entries = {entry.name: entry for entry in journal.entries} if journal else {}
    for name in [name for name in entries if not os.path.lexists(folder / name)]:
        notes.append(f"{name} is in {JOURNAL_NAME}, but the file is gone")
        del entries[name]
    found: dict[str, list[Entry]] = {}
    for path in sorted(folder.glob("*.pth")):
        if path.name not in entries and not path.is_symlink():
            with contextlib.suppress(DamagedFile):
                owner, entry = entry_of(inspect_checkpoint(path)) or ("", None)
                if entry is not None:
                    found.setdefault(owner, []).append(entry)
    if journal is not None:
        identity = journal.folder
    elif found:
        identity = _own(folder, found)
        notes.append(f"{JOURNAL_NAME} was missing or damaged: rebuilt from {counted(len(found[identity]), 'file')}")
    else:
        identity = secrets.token_hex(8)
    for entry in found.get(identity, ()):
        entries[entry.name] = entry
        if journal is not None:
            notes.append(f"{entry.name} was saved but not yet in {JOURNAL_NAME}: added")
    ordered = tuple(sorted(entries.values(), key=lambda entry: (entry.sequence, entry.step)))
    return Journal(identity, ordered, _best(ordered, journal)), notes


def _own(folder: Path, found: Mapping[str, Sequence[Entry]]) -> str:
    """Whose files are the folder's own: those that its pointers name, else the most; others were copied here."""
    owners = {entry.name: owner for owner, entries in found.items() for entry in entries}
    for pointer in ("last", "best"):
        target = read_pointer(folder / pointer)
        if target is not None and target.name in owners:
            return owners[target.name]
    return max(found, key=lambda owner: (len(found[owner]), max(entry.sequence for entry in found[owner])))


def _best(entries: Sequence[Entry], journal: Journal | None) -> str | None:
    """The newest that was the best when it was saved; what the journal retired since does not come back as best."""
    known = next((entry for entry in entries if journal and entry.name == journal.best), None)
    newest = journal.entries[-1].sequence if journal and journal.entries else -1
    for entry in reversed(entries):
        if entry.best and (known is None or entry.name == known.name or entry.sequence > newest):
            return entry.name
    return None


def retain(
    journal: Journal, new: Entry, *, keep_last: int, protect: Sequence[str] = ()
) -> tuple[Journal, tuple[Entry, ...]]:
    """The journal with ``new`` and without what may go, and what may go: neither best, last nor protected."""
    best = new.name if new.best else journal.best
    entries = (*journal.entries, new)
    safe = {best, *protect, *(entry.name for entry in entries[-max(keep_last, 1) :])}
    kept = tuple(entry for entry in entries if entry.name in safe)
    return replace(journal, entries=kept, best=best), tuple(entry for entry in entries if entry.name not in safe)


def in_order(folder: str | Path, journal: Journal) -> bool:
    """Whether ``best`` and ``last`` name the checkpoints of the journal."""
    pointed = journal.pointed()
    return all(read_pointer(Path(folder) / pointer) == Path(folder) / name for pointer, name in pointed.items())


def read_pointer(path: Path) -> Path | None:
    """The file beside it that a pointer names, there or not; None where the pointer is missing or damaged."""
    with contextlib.suppress(OSError, DamagedFile, UnicodeDecodeError), open_regular(path) as file:
        text = file.read(512).decode()
        name = text.removesuffix("\n")
        if text.endswith("\n") and name.endswith(".pth") and Path(name).name == name:
            return path.with_name(name)
    return None


def follow_pointer(path: str | Path) -> Path:
    """``checkpoints/best`` and ``checkpoints/last`` stand for the file that they name; other paths for themselves.

    Raises:
        DamagedFile: the pointer is damaged or names a file that is not there.
    """
    path = Path(path)
    if path.name not in POINTERS or not path.is_file():
        return path
    target = read_pointer(path)
    if target is None:
        raise DamagedFile(path, "damaged: it should hold the name of a checkpoint beside it")
    if not target.exists():
        raise DamagedFile(path, f"names {target.name}, which is not there")
    return target
