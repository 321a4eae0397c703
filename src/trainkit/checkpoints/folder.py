"""The folder of a run's checkpoints: saved so that no crash can hurt them, retired when better ones are safe."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.inspection import FORMAT, KIND, inspect_checkpoint
from trainkit.checkpoints.journal import (
    INTACT,
    Entry,
    Journal,
    commit,
    in_order,
    read_journal,
    retain,
    with_uncommitted,
)
from trainkit.checkpoints.state_dicts import named_tensors, plain_state, refuse_non_finite
from trainkit.errors import TrainkitError
from trainkit.system import durable


def checkpoint_name(
    model: str, *, when: datetime, epoch: int, step: int | None = None, metric: str, value: float | None
) -> str:
    """``{model}_{timestamp}_epoch{n}_{metric}{x}.pth``; with ``step`` for a save in the middle of an epoch.

    An accuracy is given as a fraction and written in percent (``acc99.12``); without a value its part is left out.
    """
    parts = [model, f"{when:%Y%m%d-%H%M%S}", f"epoch{epoch:02d}"]
    if step is not None:
        parts.append(f"step{step:06d}")
    if value is not None and math.isfinite(value):
        parts.append(f"acc{100 * value:.2f}" if metric.endswith(("acc", "accuracy")) else f"{metric}{value:.4g}")
    return "_".join(parts) + ".pth"


class CheckpointFolder:
    """The checkpoints of a run. One process writes (it holds the run's lock); any may read.

    ``recover`` runs before the first save: it clears what dead processes left, and takes whole files that a crash kept
    out of the journal back into it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._journal: Journal | None = None
        self._undeleted: list[Entry] = []

    def entries(self) -> tuple[Entry, ...]:
        """What is committed, oldest save first."""
        return self._read().entries

    def best(self) -> Path | None:
        """The best checkpoint; None before there is one."""
        journal = self._read()
        return self.path / journal.best if journal.best else None

    def last(self) -> Path | None:
        """The newest checkpoint, good or not; None before there is one."""
        journal = self._read()
        return self.path / journal.last if journal.last else None

    def newest_good(self) -> tuple[Path | None, list[tuple[Path, str]]]:
        """The newest checkpoint that passes every check of its file, and the newer ones that do not, with the reason.

        (None, []) where nothing was saved yet.

        Raises:
            TrainkitError: there are checkpoints, and all of them are damaged.
        """
        skipped: list[tuple[Path, str]] = []
        for entry in reversed(self.entries()):
            path = self.path / entry.name
            try:
                inspect_checkpoint(path, expected_sha256=entry.sha256)
            except DamagedFile as error:
                skipped.append((path, error.reason))
            else:
                return path, skipped
        if not skipped:
            return None, []
        reasons = "".join(f"\n  {path.name}: {reason}" for path, reason in skipped)
        raise TrainkitError(f"{self.path}: every checkpoint is damaged; nothing was changed{reasons}")

    def recover(self) -> list[str]:
        """Bring the folder in order after a crash; returns what was done, in words. Deletes temporary files only."""
        with durable.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        notes = [f"{path.name}: removed, a save did not finish" for path in durable.clear_stale(self.path)]
        known = read_journal(self.path)
        journal, changes = with_uncommitted(self.path, known)
        # An empty journal is written too: it names the folder, so that no file copied here is taken for its own.
        if journal != known or not in_order(self.path, journal):
            if journal.entries:  # their names first, then the journal that relies on them
                durable.fsync_folder(self.path, intact=INTACT)
            commit(self.path, journal)
        self._journal = journal
        return notes + changes

    def save(
        self,
        state: Mapping[str, Any],
        *,
        name: str,
        step: int,
        epoch: int,
        score: float | None,
        best: bool,
        keep_last: int,
        protect: Sequence[str | Path] = (),
    ) -> Path:
        """Commit ``state`` under the file name ``name`` (``_2``, ... where it is taken); it is saved when this returns.

        ``best`` makes it the best so far. Then older ones are deleted, never the best, the last ``keep_last``, those
        in ``protect`` or a file that is not of this folder's saves.

        Raises:
            TrainkitError: a tensor of the state has NaN or infinity.
            durable.WriteError: the system refused; earlier checkpoints are as they were.
        """
        if self._journal is None:
            self.recover()
        assert self._journal is not None
        plain = plain_state(state)
        refuse_non_finite(plain)
        score = score if score is not None and math.isfinite(score) else None
        time = datetime.now().isoformat(timespec="seconds")
        entry = Entry(name, step, epoch, score, best, self._journal.next_sequence, time)
        path, entry = self._publish({"format": FORMAT, "kind": KIND, **plain}, entry)
        protected = [Path(item).name for item in protect]
        journal, retired = retain(self._journal, entry, keep_last=keep_last, protect=protected)
        self._journal = None  # until all is done, the files know more than this object
        self._commit(journal, path)
        self._journal = journal
        self._delete(retired)
        return path

    def _publish(self, state: dict[str, Any], entry: Entry) -> tuple[Path, Entry]:
        """Write, check and name the file; it is durable but not yet committed."""
        assert self._journal is not None
        needed = sum(tensor.untyped_storage().nbytes() for _, tensor in named_tensors(state)) + (1 << 16)
        stem = entry.name.removesuffix(".pth")
        for number in range(1, 10_000):
            path = self.path / (f"{stem}.pth" if number == 1 else f"{stem}_{number}.pth")
            if os.path.lexists(path):
                continue
            durable.require_space(path, needed, intact=INTACT)
            entry = replace(entry, name=path.name)
            state["saved"] = {"folder": self._journal.folder, **entry.description()}
            with durable.Draft(path, needed=needed, intact=INTACT) as draft:
                write_state(state, draft)
                sha256 = draft.finish(meanwhile=partial(_check_written, draft))
                try:
                    draft.publish(overwrite=False)
                except FileExistsError:  # somebody else's file, made in this moment
                    continue
            try:
                durable.fsync_folder(self.path, intact=INTACT)
            except BaseException:
                _remove(path)
                raise
            return path, replace(entry, sha256=sha256, size=draft.size)
        raise TrainkitError(f"{self.path / entry.name}: ten thousand files have this name already")

    def _commit(self, journal: Journal, path: Path) -> None:
        try:
            commit(self.path, journal)
        except BaseException:
            now = read_journal(self.path)
            if now is None or now.find(path.name) is None:
                _remove(path)
            raise

    def _delete(self, retired: Sequence[Entry]) -> None:
        """Unlink what left the journal, if it is still what was saved; what cannot be deleted is tried again later."""
        pending, self._undeleted = [*self._undeleted, *retired], []
        for entry in pending:
            path = self.path / entry.name
            try:
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size == entry.size:
                    durable.ops.unlink(str(path))
            except FileNotFoundError:
                continue
            except OSError:
                self._undeleted.append(entry)

    def _read(self) -> Journal:
        if self._journal is not None:
            return self._journal
        journal = read_journal(self.path)
        return journal if journal is not None else with_uncommitted(self.path, None)[0]


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside runs, in the place of an older one of this name; it is saved when this returns.

    Raises:
        as ``CheckpointFolder.save``.
    """
    plain = plain_state(state)
    refuse_non_finite(plain)
    needed = sum(tensor.untyped_storage().nbytes() for _, tensor in named_tensors(plain)) + (1 << 16)
    with durable.Draft(path, needed=needed) as draft:
        write_state({"format": FORMAT, "kind": KIND, **plain}, draft)
        draft.finish(meanwhile=partial(_check_written, draft))
        draft.publish(overwrite=True)
    durable.fsync_folder(path.parent)


def write_state(state: Mapping[str, Any], draft: durable.Draft) -> None:
    """``torch.save`` into a draft.

    Raises:
        durable.WriteError: the system refused; ``torch.save`` would report an unexpected position.
    """
    import torch

    try:
        torch.save(state, cast(IO[bytes], draft))
    except Exception:
        if draft.failure is not None:
            raise draft.failure from None
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        durable.ops.unlink(str(path))


def _check_written(draft: durable.Draft) -> str | None:
    """Open the file again and check it as a load does. Returns its SHA-256."""
    try:
        return inspect_checkpoint(draft.temporary).sha256
    except (DamagedFile, OSError) as error:
        reason = error.reason if isinstance(error, DamagedFile) else str(error)
        raise TrainkitError(
            f"cannot save {draft.path}: what was written does not read back whole ({reason}); {INTACT}, "
            "but the disk or the memory of this machine may be failing"
        ) from None
