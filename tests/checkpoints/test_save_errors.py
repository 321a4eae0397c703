"""An error at every single operation of a save: no litter, nothing lost, and "saved" only where it is true."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_checks import problems_after_crash, save, tiny_state
from file_layers import REAL, SYNC_FREE, Failing, Watched, installed

from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.checkpoints.journal import read_journal
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.errors import TrainkitError
from trainkit.system import durable

OPERATIONS = ["open", "write", "fsync", "link", "replace", "unlink", "fsync_folder"]


@pytest.fixture
def prepared(tmp_path) -> Path:
    """A folder with three saves, of which the next one retires one and moves both pointers."""
    folder = CheckpointFolder(tmp_path / "prepared")
    with installed(SYNC_FREE):
        for step in (1, 2, 3):
            save(folder, step, best=step == 1)
    return folder.path


class Counting(Watched):
    def __init__(self) -> None:
        super().__init__(SYNC_FREE)
        self.calls: list[str] = []

    def before(self, name, path, arguments):
        self.calls.append(name)


def count_calls(prepared: Path, work: Path, operation: str) -> int:
    shutil.copytree(prepared, work)
    layer = Counting()
    with installed(layer):
        save(CheckpointFolder(work), 4, best=True)
    shutil.rmtree(work)
    return layer.calls.count(operation)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_error_at_every_call_of_an_operation(prepared, tmp_path, operation, forever):
    work = tmp_path / "work"
    number = count_calls(prepared, work, operation)
    assert number >= 1
    before = names(prepared)
    for at in range(0, number, 4 if forever and operation == "write" else 1):
        shutil.copytree(prepared, work)
        folder = CheckpointFolder(work)
        folder.recover()
        layer = Failing(operation, at, code=errno.EIO, forever=forever, real=SYNC_FREE)
        message = ""
        with installed(layer):
            try:
                save(folder, 4, best=True)
            except TrainkitError as error:
                message = str(error)
        reported_saved = not message
        assert reported_saved or ("I/O error" in message and "intact" in message and "\n" not in message)
        assert layer.failed, f"{operation} {at} did not fail"
        where = f"{layer.failed} (call {at})"
        left = {name for name in names(work) if name.endswith(".tmp")}
        assert not left or operation == "unlink", f"{where}: litter {left}"
        if operation != "unlink":
            assert names(work) >= before - {"net_step2.pth"}, f"{where}: something is gone"
            committed = {entry.name for entry in read_journal(work).entries}
            assert names(work) <= before | (committed & {"net_step4.pth"}), f"{where}: litter"
        marks = ["saving 1 best", "saved 1 best", "saving 2", "saved 2", "saving 3", "saved 3", "saving 4 best"]
        assert problems_after_crash(work, [*marks, *(["saved 4 best"] if reported_saved else [])]) == [], where
        # The disk works again: the same object goes on.
        with installed(SYNC_FREE):
            save(folder, 5, keep_last=1)
        assert load_checkpoint(folder.last())["progress"]["step"] == 5
        assert problems_after_crash(work, [*marks, "saved 4", "saving 5", "saved 5"][-2:]) == [], where
        shutil.rmtree(work)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the device reported an I/O error"),
    ],
)
def test_the_message_names_path_reason_and_bytes(prepared, code, words):
    with installed(Failing("write", 30, code=code, real=SYNC_FREE)), pytest.raises(durable.WriteError) as caught:
        save(CheckpointFolder(prepared), 4)
    message = str(caught.value)
    assert message.startswith(f"cannot write {prepared / 'net_step4.pth'}: {words} (needs ")
    assert message.endswith("bytes free); earlier checkpoints are intact")
    assert caught.value.exit_code == 1


def test_a_full_disk_is_seen_before_the_first_byte(prepared, monkeypatch):
    monkeypatch.setattr(durable, "free_bytes", lambda folder: 1000)
    layer = Counting()
    with (
        installed(layer),
        pytest.raises(durable.WriteError, match=r"disk is full \(needs [\d,]+ bytes, 1,000 bytes free\)"),
    ):
        save(CheckpointFolder(prepared), 4)
    assert "open" not in layer.calls


def test_what_does_not_read_back_is_not_published(prepared):
    def flipping(descriptor, data):
        data = bytearray(data)
        if len(data) > 200:
            data[100] ^= 1
        return REAL.write(descriptor, bytes(data))

    before = names(prepared)
    with (
        installed(durable.FileOps(**{**SYNC_FREE.__dict__, "write": flipping})),
        pytest.raises(TrainkitError) as caught,
    ):
        save(CheckpointFolder(prepared), 4)
    assert "does not read back whole" in str(caught.value)
    assert names(prepared) == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", ["model", "ema", "optimizer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_nan_and_infinity_are_not_saved(prepared, part, bad, dtype):
    state = tiny_state(4)
    state[part] = {"a": torch.ones(3), "b": {"c": torch.tensor([1.0, bad], dtype=dtype)}}
    before = names(prepared)
    with pytest.raises(
        TrainkitError, match=rf"not saved: NaN or infinity in {part}\.b\.c; earlier checkpoints are intact"
    ) as caught:
        CheckpointFolder(prepared).save(state, name="x.pth", step=4, epoch=1, score=0.0, best=True, keep_last=1)
    assert caught.value.exit_code == 1, "failed while working"
    assert names(prepared) == before


def test_plain_infinities_are_saved(tmp_path):
    state = {**tiny_state(1), "best": {"value": float("inf")}}
    folder = CheckpointFolder(tmp_path)
    path = folder.save(state, name="x.pth", step=1, epoch=1, score=float("nan"), best=False, keep_last=1)
    assert load_checkpoint(path)["best"]["value"] == float("inf")
    assert CheckpointFolder(tmp_path).entries()[0].score is None


def test_no_name_is_overwritten(tmp_path):
    folder = CheckpointFolder(tmp_path)
    (tmp_path / "net_step1.pth").write_text("somebody's")
    with installed(SYNC_FREE):
        assert [save(folder, 1).name, save(folder, 1).name] == ["net_step1_2.pth", "net_step1_3.pth"]
    assert (tmp_path / "net_step1.pth").read_text() == "somebody's"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_file_systems_without_hard_links(tmp_path, code):
    def no_link(source, target):
        raise OSError(code, "no links here")

    folder = CheckpointFolder(tmp_path)
    with installed(replace(SYNC_FREE, link=no_link)):
        save(folder, 1)
        (tmp_path / "net_step2.pth").write_text("somebody's")
        assert save(folder, 2).name == "net_step2_2.pth"
    assert {entry.step for entry in folder.entries()} == {1, 2}
    assert not list(tmp_path.glob(".*.tmp"))
