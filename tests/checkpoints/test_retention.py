"""What is kept, under any sequence of saves, kills, resumes, damage, foreign files and wrong clocks."""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from checkpoint_checks import NaiveFolder, save, tiny_state
from file_layers import SYNC_FREE, Failing, Killed, installed
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.errors import TrainkitError

KEEP = 2


@dataclass
class Saved:
    path: Path
    step: int
    damaged: bool = False


class Retention(RuleBasedStateMachine):
    kind = CheckpointFolder

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="retention-"))
        self.path = self.root / "checkpoints"
        self.layer = installed(SYNC_FREE)
        self.layer.__enter__()
        self.folder = self.kind(self.path)
        self.folder.recover()
        self.step = 0
        self.clock = 1_000_000
        self.saves: list[Saved] = []
        self.best: Saved | None = None
        self.source: Saved | None = None
        self.foreign: dict[Path, bytes] = {}
        self.changed: set[Path] = set()
        self.leftovers: set[Path] = set()
        """Retired, and perhaps not yet deleted because of a kill: gone after the next whole save."""

    def teardown(self) -> None:
        self.layer.__exit__(None, None, None)
        shutil.rmtree(self.root)

    def arguments(self, best: bool) -> dict:
        self.step += 1
        return {
            "state": tiny_state(self.step),
            "name": f"net_{self.clock}_step{self.step}.pth",
            "step": self.step,
            "epoch": 0,
            "score": 0.0,
            "best": best,
            "keep_last": KEEP,
            "protect": [self.source.path] if self.source else [],
        }

    @rule(best=st.booleans())
    def save(self, best: bool) -> None:
        arguments = self.arguments(best)
        path = self.folder.save(arguments.pop("state"), **arguments)
        self.committed(Saved(path, self.step), best)
        self.leftovers = set()

    def committed(self, saved: Saved, best: bool) -> None:
        self.saves.append(saved)
        self.best = saved if best else self.best
        safe = [*self.saves[-KEEP:], self.best, self.source]
        self.leftovers |= {one.path for one in self.saves if one not in safe}
        self.saves = [one for one in self.saves if one in safe]

    @rule(best=st.booleans(), at=st.integers(0, 80))
    def killed_while_saving(self, best: bool, at: int) -> None:
        arguments = self.arguments(best)
        state = arguments.pop("state")
        before = max((entry.sequence for entry in self.folder.entries()), default=-1)
        killed = False
        try:
            with installed(Failing("any", at, kill=True, real=SYNC_FREE)):
                self.folder.save(state, **arguments)
        except Killed:
            killed = True
        self.of_a_dead_process()
        self.restart()
        new = [entry.name for entry in self.folder.entries() if entry.sequence > before]
        if new:
            self.committed(Saved(self.path / new[0], self.step), best)
        else:
            assert killed, "a save that returned is lost"
            self.step -= 1

    def of_a_dead_process(self) -> None:
        """What the killed process left, under the name of one that is really dead."""
        for temporary in self.path.glob(".*.tmp"):
            name = re.sub(r"-\d+-\w+-(\d+)\.tmp$", r"-4194304-1-\1.tmp", temporary.name)
            temporary.rename(self.path / name)

    def restart(self) -> None:
        self.folder = self.kind(self.path)
        self.folder.recover()
        assert not list(self.path.glob(".*.tmp"))

    @rule()
    def resume_from_the_newest(self) -> None:
        self.restart()
        if any(not one.damaged for one in self.saves):
            newest, _ = self.folder.newest_good()
            self.source = next((one for one in self.saves if one.path == newest), self.source)
            self.step = self.source.step if self.source else self.step

    @precondition(lambda self: any(not one.damaged for one in self.saves))
    @rule(data=st.data())
    def resume_from_an_older_one(self, data: st.DataObject) -> None:
        self.restart()
        self.source = data.draw(st.sampled_from([one for one in self.saves if not one.damaged]))
        self.step = self.source.step

    @precondition(lambda self: any(not one.damaged for one in self.saves))
    @rule(data=st.data(), cut=st.booleans())
    def damage(self, data: st.DataObject, cut: bool) -> None:
        saved = data.draw(st.sampled_from([one for one in self.saves if not one.damaged]))
        content = bytearray(saved.path.read_bytes())
        content[len(content) // 2] ^= 4
        saved.path.write_bytes(content[:-10] if cut else content)
        saved.damaged = True
        self.changed.add(saved.path)

    @rule(kind=st.sampled_from(["text", "weights", "other run", "renamed copy"]), number=st.integers(0, 3))
    def foreign_file(self, kind: str, number: int) -> None:
        path = self.path / f"net_{self.clock}_foreign_{kind}{number}.pth"
        if kind == "other run" and not path.exists():
            other = save(CheckpointFolder(self.root / f"other{len(self.foreign)}"), 10**6)
            path = path.with_name(other.name)
            shutil.copy(other, path)
        elif kind == "renamed copy" and self.saves:
            shutil.copy(self.saves[-1].path, path)
        elif kind == "weights":
            torch.save({"w": torch.ones(2)}, path)
        else:
            path.write_text("mine")
        self.foreign[path] = path.read_bytes()

    @rule(jump=st.integers(-1000, 1000))
    def clock_jump(self, jump: int) -> None:
        self.clock += jump
        for number, path in enumerate(sorted(self.path.glob("*.pth"))):
            os.utime(path, (self.clock - number, self.clock - number))

    # A folder that lost its journal is known by what its pointers name; damage to that is not followed here.
    @precondition(lambda self: self.saves and not any(one.damaged for one in self.saves))
    @rule(torn=st.booleans())
    def journal_is_lost(self, torn: bool) -> None:
        journal = self.path / "checkpoints.json"
        if torn:
            journal.write_bytes(journal.read_bytes()[:-20])
        else:
            journal.unlink()
        found = {self.path / entry.name for entry in CheckpointFolder(self.path).entries()}
        assert found - self.leftovers == {one.path for one in self.saves}
        self.restart()

    @rule(pointer=st.sampled_from(["best", "last"]))
    def pointer_is_lost(self, pointer: str) -> None:
        (self.path / pointer).unlink(missing_ok=True)
        self.restart()

    @invariant()
    def foreign_files_are_untouched(self) -> None:
        for path, content in self.foreign.items():
            assert path.read_bytes() == content

    @invariant()
    def what_must_be_kept_is_kept(self) -> None:
        for saved in self.saves:
            assert saved.path.exists(), f"{saved.path.name} is gone"
            if not saved.damaged:
                assert load_checkpoint(saved.path)["progress"]["step"] == saved.step

    @invariant()
    def nothing_else_is_kept(self) -> None:
        """But damaged files may stay where a kill or their size kept them: nobody can tell whose they are."""
        kept = {one.path for one in self.saves} | self.leftovers | self.changed | set(self.foreign)
        assert set(self.path.glob("*.pth")) <= kept

    @invariant()
    def pointers_and_answers_are_right(self) -> None:
        assert self.folder.best() == (self.best.path if self.best else None)
        assert self.folder.last() == (self.saves[-1].path if self.saves else None)
        good = [one for one in self.saves if not one.damaged]
        if good:
            newest, skipped = CheckpointFolder(self.path).newest_good()
            assert newest == good[-1].path
            assert [path for path, _ in skipped] == [one.path for one in self.saves[self.saves.index(good[-1]) + 1 :]][
                ::-1
            ]
        elif self.saves:
            with pytest.raises(TrainkitError, match="every checkpoint is damaged; nothing was changed"):
                CheckpointFolder(self.path).newest_good()


TestRetention = Retention.TestCase
TestRetention.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    report_multiple_bugs=False,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def test_a_naive_writer_is_caught():
    class Naive(Retention):
        kind = NaiveFolder

    quick = settings(TestRetention.settings, print_blob=False, report_multiple_bugs=False, phases=[Phase.generate])
    with pytest.raises(Exception, match=r"."):
        run_state_machine_as_test(Naive, settings=quick)
