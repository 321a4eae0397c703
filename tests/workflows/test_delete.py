"""``trainkit runs delete``: whole runs, never an export that nobody gave up, and only after a yes."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.errors import TrainkitError, UserError
from trainkit.system import RunDir
from trainkit.workflows.delete import delete_run, plan_deletion
from trainkit.workflows.runs import list_summaries

SOURCE = Path(__file__).parents[2] / "src"


def write_run(root, folder, *, export=False):
    path = root / folder
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "a.pth").write_bytes(b"x" * 1000)
    (path / "checkpoints" / "best").symlink_to("a.pth")
    (path / "run.json").write_text(json.dumps({"status": "finished", "config": {}}))
    if export:
        (path / "exports" / "bundle").mkdir(parents=True)
        (path / "exports" / "bundle" / "model.pt").write_bytes(b"y")
    return path


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    write_run(root, "20260101-120000_first")
    write_run(root, "20260102-120000_second", export=True)
    write_run(root, "20260103-120000_third")
    return root


def command(runs, *arguments):
    return CliRunner().invoke(app, ["runs", "delete", *arguments, "--run-dir", str(runs)])


def names(runs):
    return [summary.run.path.name.partition("_")[2] for summary in list_summaries(runs)]


def test_runs_are_deleted_by_a_part_of_their_name(runs):
    done = command(runs, "first", "third", "first", "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert [Path(row["run"]).name for row in json.loads(done.stdout)] == [
        "20260101-120000_first",
        "20260103-120000_third",
    ]
    assert sorted(path.name for path in runs.iterdir()) == ["20260102-120000_second"]


def test_an_export_is_deleted_only_where_that_was_asked_for(runs):
    done = command(runs, "first", "second", "--yes")
    assert isinstance(done.exception, UserError)
    assert "exports/ holds bundle, of which no other copy is known" in str(done.exception)
    assert "--with-exports" in str(done.exception)
    assert names(runs) == ["first", "second", "third"], "nothing was touched, the run without exports neither"
    assert command(runs, "second", "--yes", "--with-exports").exit_code == 0
    assert names(runs) == ["first", "third"]


def test_an_export_that_was_written_since_the_question_stays(runs):
    (planned,) = plan_deletion(["first"], runs_dir=runs)
    (planned.run.exports / "new").mkdir(parents=True)
    with pytest.raises(UserError, match="written into it just now"):
        delete_run(planned)
    assert (planned.run.checkpoints / "a.pth").exists()


def test_all_mistakes_are_told_at_once(runs):
    with pytest.raises(UserError) as caught:
        plan_deletion(["second", "nothing", "ir"], runs_dir=runs)
    message = str(caught.value)
    assert "holds bundle" in message
    assert "\nnothing: " in message
    assert "fits 2 runs" in message


def test_a_run_in_use_stays(runs):
    run = RunDir(runs / "20260101-120000_first")
    with run.locked(), pytest.raises(UserError, match=f"process {os.getpid()} on .* works in it"):
        plan_deletion(["first"], runs_dir=runs)
    assert names(runs)[0] == "first"


def test_a_link_and_a_folder_that_is_no_run_stay(runs, tmp_path):
    (tmp_path / "link").symlink_to(runs / "20260101-120000_first")
    with pytest.raises(UserError, match="a link to"):
        plan_deletion([str(tmp_path / "link")], runs_dir=runs)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="no run of trainkit"):
        plan_deletion([str(tmp_path / "project")], runs_dir=runs)


def test_a_damaged_run_can_go(runs):
    (runs / "20260101-120000_first" / "run.json").write_text("{")
    assert command(runs, "first", "--yes").exit_code == 0
    assert names(runs) == ["second", "third"]


def test_a_deletion_that_was_cut_off_is_seen_and_can_be_done_again(runs, monkeypatch):
    (planned,) = plan_deletion(["first"], runs_dir=runs)

    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        with pytest.raises(TrainkitError, match=r"not all of it could be deleted: .*checkpoints: Permission denied"):
            delete_run(planned)
    assert list_summaries(runs)[0].status == "failed: it was being deleted"
    assert command(runs, "first", "--yes").exit_code == 0
    assert names(runs) == ["second", "third"]


def test_without_a_terminal_nobody_can_say_yes(runs):
    done = command(runs, "first")
    assert isinstance(done.exception, UserError)
    assert "--yes deletes without asking" in str(done.exception)
    assert names(runs)[0] == "first"


def test_a_run_must_be_named(runs):
    assert command(runs, "--yes").exit_code == 2
    assert "an empty name" in str(command(runs, "", "--yes").exception)
    assert len(names(runs)) == 3


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 2), ("n", 2, 3), ("", 2, 3)])
def test_it_asks_on_a_terminal_and_imports_no_torch(runs, answer, code, left):
    program = (
        "import sys\n"
        "from trainkit.__main__ import main\n"
        "sys.argv = ['trainkit', 'runs', 'delete', 'first', '--run-dir', sys.argv[1]]\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    (runs / "20260101-120000_first" / "notes.txt").write_text("mine")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(runs)],
        stdin=theirs,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "; 1 checkpoint; not written by trainkit: notes.txt" in done.stderr
    assert "Delete 1 run? [y/N]" in done.stderr
    assert len(names(runs)) == left
