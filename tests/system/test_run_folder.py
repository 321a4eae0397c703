"""Run folders: claimed once, locked by one process, listed whatever state they are in."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from trainkit.system.durable import WriteError
from trainkit.system.processes import this_process
from trainkit.system.run_folder import RunDir, RunLocked, create_run, list_runs, newest_run

NOW = datetime(2026, 11, 20, 15, 30, 12)


def test_the_name_says_when_and_what(tmp_path):
    first, second = create_run(tmp_path / "runs", "mnist", now=NOW), create_run(tmp_path / "runs", "mnist", now=NOW)
    assert first.path.name == "20261120-153012_mnist"
    assert second.path.name == "20261120-153012_mnist_2"
    assert first.checkpoints.is_dir()


def test_the_root_cannot_be_made(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(WriteError, match="cannot write"):
        create_run(tmp_path / "runs", "mnist", now=NOW)


def claim(root: str, barrier, results) -> None:
    barrier.wait()
    results.put(str(create_run(root, "mnist", now=NOW).path))


def claim_at_once(root: Path) -> list[str]:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    processes = [context.Process(target=claim, args=(str(root), barrier, results)) for _ in range(8)]
    for process in processes:
        process.start()
    paths = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    return paths


@pytest.mark.parametrize("rounds", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_eight_starts_in_the_same_second(tmp_path, rounds):
    for number in range(rounds):
        paths = claim_at_once(tmp_path / str(number))
        assert len(set(paths)) == 8
        assert {Path(path).name for path in paths} == {
            "20261120-153012_mnist" + (f"_{suffix}" if suffix > 1 else "") for suffix in range(1, 9)
        }


def test_run_json(tmp_path):
    run = create_run(tmp_path, "mnist", now=NOW)
    assert run.read_info() == {}
    run.write_info({"status": "running", "loss": float("nan")})
    run.update_info(status="finished")
    assert run.read_info() == {"status": "finished", "loss": None}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_run_json_is_told_and_replaced(tmp_path, content):
    run = create_run(tmp_path, "mnist", now=NOW)
    run.info.write_bytes(content)
    assert str(run.info) in run.read_info()["problem"]
    assert list_runs(tmp_path) == [run]
    assert newest_run(tmp_path, config_hash="x") is None
    run.update_info(status="failed: x")
    assert run.read_info() == {"status": "failed: x"}


def test_values_of_a_wrong_kind_are_left_out_and_named(tmp_path):
    run = RunDir(tmp_path / "renamed")
    run.path.mkdir()
    run.write_info({"name": "a", "config": [], "metrics": {"val": 3}, "seconds": "long", "started": 7})
    problem = f"{run.info}: 'config' is not an object, 'started' is not text, 'seconds' is not a number, "
    assert run.read_info() == {"name": "a", "problem": problem + "'metrics' is not an object for each split"}
    assert list_runs(tmp_path) == [run], "nobody knows when, and it is a run"
    run.update_info(status="failed: x")
    assert run.read_info() == {"name": "a", "status": "failed: x"}


def test_a_renamed_run_is_listed_by_its_time(tmp_path):
    first, second, third = (create_run(tmp_path, "a", now=NOW.replace(second=second)) for second in (1, 2, 3))
    second.update_info(started=NOW.replace(second=2).isoformat())
    renamed = RunDir(second.path.rename(tmp_path / "baseline"))
    assert list_runs(tmp_path) == [first, renamed, third]
    assert (renamed.made, renamed.name) == ("20261120-153002", "baseline")
    assert first.made == "20261120-153001"


def test_listing(tmp_path):
    assert list_runs(tmp_path / "none") == []
    (tmp_path / "20261120-153012_file").write_text("no folder")
    (tmp_path / "notes").mkdir()
    runs = [create_run(tmp_path, "mnist", now=NOW.replace(second=second)) for second in (3, 1, 2, 3, 3)]
    runs += [create_run(tmp_path, "mnist", now=NOW.replace(second=3)) for _ in range(8)]
    listed = [run.path.name for run in list_runs(tmp_path)]
    assert listed[:3] == ["20261120-153001_mnist", "20261120-153002_mnist", "20261120-153003_mnist"]
    assert listed[-1] == "20261120-153003_mnist_11"
    runs[0].write_info({"status": "interrupted", "config_hash": "a"})
    runs[1].write_info({"status": "finished", "config_hash": "b"})
    assert newest_run(tmp_path) == RunDir(tmp_path / listed[-1])
    assert newest_run(tmp_path, unfinished=True) == runs[0]
    assert newest_run(tmp_path, config_hash="b") == runs[1]
    assert newest_run(tmp_path, unfinished=True, config_hash="b") is None


def start_holder(run: RunDir, code: str = "time.sleep(60)") -> subprocess.Popen:
    program = f"""
import os, time, sys
from pathlib import Path
from trainkit.system.run_folder import RunDir
run = RunDir(Path({str(run.path)!r}))
with run.locked():
    run.write_info({{"status": "running"}})
    print(os.getpid(), flush=True)
    {code}
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == str(process.pid)
    return process


def test_a_live_run_is_refused_with_pid_and_host(tmp_path):
    run = create_run(tmp_path, "mnist", now=NOW)
    process = start_holder(run)
    try:
        with pytest.raises(RunLocked) as caught, run.locked():
            pass
        host = os.uname().nodename
        assert f"process {process.pid} on {host} is working in this run since " in str(caught.value)
        assert caught.value.exit_code == 2
        assert run.status() == "running"
    finally:
        process.kill()
        process.wait()
    assert run.status() == "interrupted (killed)"
    with run.locked():
        assert run.lock_owner()["pid"] == os.getpid()
        with pytest.raises(RunLocked), run.locked():
            pass
    assert run.lock_owner() is None


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    run = create_run(tmp_path, "mnist", now=NOW)
    process = start_holder(run, "worker = os.fork() or time.sleep(60); print(worker, flush=True); time.sleep(60)")
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        wait_until_free(run)  # the worker may not yet have come to letting go of it
    finally:
        os.kill(worker, signal.SIGKILL)


def wait_until_free(run: RunDir) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with run.locked():
                return
        except RunLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_a_lock_file_with_nonsense_is_no_lock(tmp_path):
    run = create_run(tmp_path, "mnist", now=NOW)
    for content in ("", "{", "[]", json.dumps({"process": "x"}), json.dumps({"process": this_process().token})):
        run.lock_file.write_text(content)
        with run.locked():
            pass


def test_without_flock_the_process_inside_decides(tmp_path, monkeypatch):
    monkeypatch.setattr("trainkit.system.run_folder.fcntl", None)
    run = create_run(tmp_path, "mnist", now=NOW)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from trainkit.system.processes import _started

    token = this_process().token.rsplit("-", 2)[0] + f"-{process.pid}-{_started(process.pid)}"
    run.lock_file.write_text(json.dumps({"pid": process.pid, "host": "here", "process": token}))
    with pytest.raises(RunLocked, match=f"process {process.pid} on here"), run.locked():
        pass
    process.kill()
    process.wait()
    with run.locked():
        assert run.lock_owner()["pid"] == os.getpid()
