"""Small states to save, a naive writer to compare with, and what must hold after any crash."""

from pathlib import Path

import torch

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.folder import CheckpointFolder, write_state
from trainkit.checkpoints.inspection import inspect_checkpoint
from trainkit.checkpoints.journal import POINTERS, Entry, Journal, commit, follow_pointer, read_journal
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.checkpoints.state_dicts import plain_state
from trainkit.errors import TrainkitError
from trainkit.system import durable


def tiny_state(step: int) -> dict:
    """A state whose every tensor holds the step."""
    weights = {"layer.weight": torch.full((2, 3), float(step)), "layer.bias": torch.full((2,), float(step))}
    return {
        "model": weights,
        "optimizer": {"state": {0: {"step": torch.tensor(float(step))}}},
        "progress": {"step": step},
    }


def save(folder: CheckpointFolder, step: int, *, best: bool = False, keep_last: int = 2, protect=()) -> Path:
    return folder.save(
        tiny_state(step),
        name=f"net_step{step}.pth",
        step=step,
        epoch=step // 3,
        score=step / 100,
        best=best,
        keep_last=keep_last,
        protect=protect,
    )


class NaiveFolder(CheckpointFolder):
    """What most trainers do: delete the old one, write to the final name, no fsync, write the journal in place."""

    def save(self, state, *, name, step, epoch, score, best, keep_last, protect=()) -> Path:
        journal = read_journal(self.path) or Journal("0123456789abcdef")
        path = self.path / name
        for entry in journal.entries[: max(0, len(journal.entries) + 1 - keep_last)]:
            if entry.name != journal.best:
                durable.ops.unlink(str(self.path / entry.name))
        entry = Entry(name, step, epoch, score, best, journal.next_sequence, "2026-01-01T00:00:00")
        plain = {"format": 1, "kind": "trainkit-checkpoint", **plain_state(state)}
        plain["saved"] = {"folder": journal.folder, **entry.description()}
        in_place(path, lambda draft: write_state(plain, draft))
        kept = [e for e in journal.entries if (self.path / e.name).exists()]
        outline = inspect_checkpoint(path)
        entry = Entry(**{**entry.__dict__, "sha256": outline.sha256, "size": outline.size})
        journal = Journal(journal.folder, (*kept, entry), name if best else journal.best)
        old, durable.Draft = durable.Draft, InPlace
        try:
            commit(self.path, journal)
        finally:
            durable.Draft = old
        return path


class InPlace(durable.Draft):
    """Writes to the final name at once and syncs nothing."""

    def __init__(self, path, **rest) -> None:
        self.path, self.size, self.failure, self._hash = Path(path), 0, None, None
        self._descriptor = durable.ops.open(str(path), 0o1 | 0o100 | 0o1000)

    def write(self, data) -> int:
        return durable.ops.write(self._descriptor, memoryview(data).cast("B"))

    def finish(self) -> None:
        durable.ops.close(self._descriptor)

    def publish(self, *, overwrite) -> None: ...

    def discard(self) -> None: ...


def in_place(path: Path, write) -> None:
    draft = InPlace(path)
    write(draft)
    draft.finish()


def problems_after_crash(folder: Path, marks: list[str]) -> list[str]:
    """What is wrong in a folder where a crash happened after ``marks`` (``saving 3``, ``saved 3 best``, ...).

    First as it is found: each file with a final name is whole, and journal and pointers name files that are there.
    Then after the repair that the next start makes: nothing whose save returned is lost.
    """
    problems = []
    for path in sorted(folder.glob("*.pth")):
        try:
            inspect_checkpoint(path)
        except DamagedFile as error:
            problems.append(f"found {path.name}: {error.reason}")
    journal = read_journal(folder)
    if journal is None and (folder / "checkpoints.json").exists():
        problems.append("found a broken journal")
    problems += [
        f"the journal names {e.name}" for e in (journal.entries if journal else ()) if not (folder / e.name).exists()
    ]
    for pointer in POINTERS:
        try:
            follow_pointer(folder / pointer)
        except DamagedFile as error:
            problems.append(str(error))
    try:
        checkpoints = CheckpointFolder(folder)
        checkpoints.recover()
        return problems + _lost(checkpoints, marks)
    except TrainkitError as error:
        return [*problems, f"no recovery: {error}"]


def _lost(folder: CheckpointFolder, marks: list[str]) -> list[str]:
    saved = [mark.split() for mark in marks if mark.startswith("saved")]
    started = [mark.split() for mark in marks if mark.startswith("saving")]
    newest, skipped = folder.newest_good()
    problems = [f"skipped {path.name}: {reason}" for path, reason in skipped]
    if not saved:
        return problems
    if newest is None:
        return [*problems, "everything is lost"]
    state = load_checkpoint(newest)
    step = state["progress"]["step"]
    if step < int(saved[-1][1]):
        problems.append(f"step {saved[-1][1]} was saved, and {step} is the newest")
    if not all(torch.equal(tensor, torch.full_like(tensor, float(step))) for tensor in state["model"].values()):
        problems.append(f"{newest.name} holds other numbers")
    allowed = [mark[1] for mark in saved if "best" in mark][-1:]
    allowed += [mark[1] for mark in started[len(saved) :] if "best" in mark]
    best = folder.best()
    if best is not None and best != newest:
        step = load_checkpoint(best)["progress"]["step"]
    if allowed and (best is None or str(step) not in allowed):
        problems.append(f"best is {best}, not step {' or '.join(allowed)}")
    return problems
