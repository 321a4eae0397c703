"""A verdict on each file of a checkpoint folder, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.inspection import JOURNAL_NAME, inspect_checkpoint
from trainkit.checkpoints.journal import JOURNAL_FORMAT, POINTERS, Journal, entry_of, follow_pointer, read_journal


@dataclass(frozen=True)
class Verdict:
    path: Path
    word: Literal["OK", "BAD", "UNCOMMITTED"]
    reason: str = ""
    step: int | None = None
    epoch: int | None = None
    score: float | None = None


def checkpoint_folder(path: Path) -> Path:
    """The folder of a run's checkpoints, given the run or that folder."""
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def verify(path: str | Path) -> Iterator[Verdict]:
    """Judge one checkpoint, or all files of a run or of its checkpoint folder. Reads every byte; changes nothing.

    OK: whole, and committed where there is a journal. UNCOMMITTED: what a crash in the middle of a save left; the next
    start of the run takes it in or clears it. BAD: damaged, missing, or not a trainkit checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        yield from _verify_folder(checkpoint_folder(path))
        return
    try:
        target = follow_pointer(path)
    except DamagedFile as error:
        yield Verdict(path, "BAD", error.reason)
    else:
        yield _verify_file(target, read_journal(target.parent))


def _verify_folder(folder: Path) -> Iterator[Verdict]:
    journal = read_journal(folder)
    if journal is None and (folder / JOURNAL_NAME).exists():
        yield _verify_journal(folder)
    committed = [entry.name for entry in journal.entries] if journal else []
    others = sorted(path.name for path in folder.glob("*.pth") if path.name not in committed)
    for name in (*committed, *others):
        yield _verify_file(folder / name, journal)
    for path in sorted(folder.glob(".*.tmp")):
        yield Verdict(path, "UNCOMMITTED", "a save that did not finish")
    for pointer in POINTERS:
        try:
            follow_pointer(folder / pointer)
        except DamagedFile as error:
            yield Verdict(folder / pointer, "BAD", error.reason)


def _verify_journal(folder: Path) -> Verdict:
    try:
        version = json.loads((folder / JOURNAL_NAME).read_bytes())["format"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        version = None
    newer = isinstance(version, int) and version > JOURNAL_FORMAT
    reason = f"format {version}, from a newer trainkit" if newer else "damaged; the next start of the run rebuilds it"
    return Verdict(folder / JOURNAL_NAME, "BAD", reason)


def _verify_file(path: Path, journal: Journal | None) -> Verdict:
    entry = journal.find(path.name) if journal else None
    try:
        spec = inspect_checkpoint(path, expected_sha256=entry.sha256 if entry else None)
    except DamagedFile as error:
        reason = f"in {JOURNAL_NAME}, but {error.reason}" if entry and not path.exists() else error.reason
        return Verdict(path, "BAD", reason)
    owner, saved = entry_of(spec) or ("", None)
    known = (saved.step, saved.epoch, saved.score) if saved else (None, None, None)
    if journal is None or entry is not None:
        return Verdict(path, "OK", "", *known)
    if saved is not None and owner == journal.folder:
        return Verdict(path, "UNCOMMITTED", f"whole, but not yet in {JOURNAL_NAME}", *known)
    return Verdict(path, "OK", "from another folder", *known)
