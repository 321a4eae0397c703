"""Files are whole or absent; temporary files of the dead are cleared, those of the living never."""

import errno
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from file_layers import REAL, Failing, installed

from trainkit.system import durable
from trainkit.system.processes import Process, is_alive, this_process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_and_replace(tmp_path):
    path = tmp_path / "a.json"
    durable.write_json(path, {"x": 1.5, "bad": float("nan"), "list": [float("inf"), "ä"]})
    assert path.read_text() == '{\n  "x": 1.5,\n  "bad": null,\n  "list": [\n    null,\n    "ä"\n  ]\n}\n'
    durable.write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_nothing_is_overwritten_where_that_is_asked_for(tmp_path):
    path = tmp_path / "a"
    durable.write_text(path, "old")
    with pytest.raises(FileExistsError):
        durable.write_text(path, "new", overwrite=False)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_order_of_the_calls(tmp_path):
    calls = []

    def noting(name):
        def call(*arguments):
            calls.append(name)
            return getattr(REAL, name)(*arguments)

        return call

    with installed(durable.FileOps(**{name: noting(name) for name in REAL.__dataclass_fields__})):
        durable.write_text(tmp_path / "a", "x")
    assert calls == ["open", "write", "fsync", "close", "replace", "fsync_folder"]


def test_pieces_of_all_sizes_are_written(tmp_path):

    data = os.urandom(9_000_001)
    with durable.open_for_replace(tmp_path / "a") as draft:
        for begin, end in (
            (0, 5),
            (5, 2_000_000),
            (2_000_000, 2_000_001),
            (2_000_001, 8_999_999),
            (8_999_999, 9_000_001),
        ):
            draft.write(memoryview(data)[begin:end])
    assert draft.size == len(data)
    assert (tmp_path / "a").read_bytes() == data


def test_short_writes_are_continued(tmp_path):
    with installed(replace(REAL, write=lambda descriptor, data: os.write(descriptor, data[:7]))):
        durable.write_bytes(tmp_path / "a", bytes(range(100)))
    assert (tmp_path / "a").read_bytes() == bytes(range(100))


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace", "fsync_folder"])
def test_an_error_leaves_the_old_file_and_no_litter(tmp_path, operation):
    path = tmp_path / "a"
    durable.write_text(path, "old")
    with installed(Failing(operation, 0, code=errno.EIO)), pytest.raises(durable.WriteError, match="I/O error"):
        durable.write_text(path, "new")
    assert path.read_text() == ("new" if operation == "fsync_folder" else "old")
    assert names(tmp_path) == ["a"]


def test_a_failed_fsync_is_not_tried_again(tmp_path):
    layer = Failing("fsync", 0)
    draft = durable.Draft(tmp_path / "a")
    with installed(layer):
        draft.write(b"x")
        with pytest.raises(durable.WriteError):
            draft.finish()
        for again in (draft.finish, lambda: draft.publish(overwrite=True), lambda: draft.write(b"y")):
            with pytest.raises(durable.WriteError):
                again()
    assert layer.count == 1
    assert names(tmp_path) == []


def test_any_other_error_in_the_block_removes_the_draft(tmp_path):
    def stop(signal: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), durable.open_for_replace(tmp_path / "a") as draft:
        stop(draft.write(b"x"))
    assert names(tmp_path) == []


def test_messages(tmp_path):
    with pytest.raises(
        durable.WriteError, match=r"cannot write .*/no/a: the folder does not exist .*what was there before"
    ):
        durable.write_text(tmp_path / "no" / "a", "x")
    with installed(Failing("write", 0, code=errno.ENOSPC)), pytest.raises(durable.WriteError) as caught:
        durable.write_bytes(tmp_path / "a", bytes(5000))
    assert re.fullmatch(
        rf"cannot write {tmp_path}/a: the disk is full \(needs 5,000 bytes, [\d,]+ bytes free\); "
        "what was there before is unchanged",
        str(caught.value),
    )
    with pytest.raises(durable.WriteError, match="the disk is full"):
        durable.require_space(tmp_path / "a", 1 << 60)


@pytest.mark.skipif(os.geteuid() == 0 or os.name == "nt", reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(durable.WriteError, match="permission denied"):
        durable.write_text(tmp_path / "a", "x")


LEAVE_A_DRAFT = """
import os, sys
from trainkit.system import durable
draft = durable.Draft(sys.argv[1])
draft.write(b"half")
print("ready", flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_temporary_files_of_the_living_stay_and_of_the_dead_go(tmp_path):
    command = [sys.executable, "-c", LEAVE_A_DRAFT, str(tmp_path / "a")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    mine = durable.Draft(tmp_path / "b")
    assert process.stdout.readline() == "ready\n"
    (tmp_path / ".somebody.tmp").write_text("no temporary file of trainkit")
    assert durable.clear_stale(tmp_path) == []
    process.communicate()
    (cleared,) = durable.clear_stale(tmp_path)
    assert cleared.name.startswith(".a.")
    mine.discard()
    assert names(tmp_path) == [".somebody.tmp"]


def test_temporary_folders_of_the_living_stay_and_of_the_dead_go(tmp_path):
    mine = durable.temporary(tmp_path / "x.1")
    assert durable.is_temporary(mine)
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-4000000-"))
    for folder in (mine, dead, tmp_path / ".unrelated.tmp"):
        folder.mkdir()
        (folder / "file").write_text("")
    assert durable.clear_stale(tmp_path) == [dead]
    assert names(tmp_path) == sorted([mine.name, ".unrelated.tmp"])
    assert not durable.is_temporary(".unrelated.tmp")


def test_who_is_alive():
    me = this_process()
    assert Process.from_token(me.token) == me
    assert is_alive(me)
    assert is_alive(replace(me, started="1")) is False, "an earlier process with this number"
    assert is_alive(replace(me, boot="00000000")) is False, "before the machine was started"
    assert is_alive(replace(me, machine="00000000")) is None, "another machine"
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(replace(me, pid=child.pid)) is False, "a zombie"
    child.wait()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_another_machine_left_goes_after_a_day(tmp_path, make):
    path = tmp_path / f".a.{replace(this_process(), machine='0' * 8).token}-0.tmp"
    make(path)
    assert durable.clear_stale(tmp_path) == []
    day = path.stat().st_mtime - 25 * 3600
    os.utime(path, (day, day))
    assert durable.clear_stale(tmp_path) == [path]


def test_append_line(tmp_path):
    path = tmp_path / "log"
    durable.append_line(path, "one")
    durable.append_line(path, "two\n")
    with installed(Failing("write", 0)), pytest.raises(durable.WriteError):
        durable.append_line(path, "three")
    assert path.read_text() == "one\ntwo\n"
