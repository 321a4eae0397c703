"""What the pages of ``trainkit ui`` are made of: the table of runs, a run, its log as it grows."""

import json
import os

import pytest
from written_runs import make_run

from trainkit.system import RunDir
from trainkit.web.watch import Tail, Watched, change, details, file_of, thinned


class TestWatched:
    def test_runs_of_sweeps_and_folds_are_found_with_their_pages(self, tmp_path):
        make_run(tmp_path / "runs" / "20260101-000000_a")
        make_run(tmp_path / "sweeps" / "lr" / "runs" / "20260101-000001_trial0")
        make_run(tmp_path / "cv" / "five" / "runs" / "20260101-000002_fold0")
        (tmp_path / "sweeps" / "lr" / "report.html").write_text("<p>page")
        rows = Watched(tmp_path).look().values()
        assert [(row["group"], row["page"]) for row in rows] == [
            ("", ""),
            ("lr", "sweeps/lr/report.html"),
            ("five", ""),
        ]
        assert {row["dataset"] for row in rows} == {"digits"}

    def test_only_what_changed_is_told_again(self, tmp_path):
        first, second = (make_run(tmp_path / f"2026010{day}-000000_a") for day in (1, 2))
        watched = Watched(tmp_path)
        before = watched.look()
        assert len(change({}, before)["rows"]) == 2
        assert change(before, watched.look()) is None
        info = json.loads(first.info.read_text())
        first.info.write_text(json.dumps({**info, "status": "failed: no memory"}))
        os.utime(first.info, (1, 1))
        watched.find("nothing")  # a look of somebody else takes nothing away from the others
        now = watched.look()
        assert [row["status"] for row in change(before, now)["rows"]] == ["failed: no memory"]
        for path in (second.info, second.metrics):
            path.unlink()
        second.path.rmdir()
        assert watched.find(second.path.name) is None, "it is known, and is not there any more"
        assert change(now, watched.look()) == {"rows": [], "gone": [second.path.name]}

    @pytest.mark.parametrize("run_id", ["", "..", "../other/20260101-000000_a", "runs/../..", "/etc", "nothing"])
    def test_other_folders_are_no_runs(self, tmp_path, run_id):
        make_run(tmp_path / "other" / "20260101-000000_a")
        (tmp_path / "mine" / "runs").mkdir(parents=True)
        assert Watched(tmp_path / "mine").find(run_id) is None


def test_a_run_in_detail(tmp_path):
    run = make_run(tmp_path / "20260101-000000_a", origins={"optimizer.lr": "a.yaml:3"})
    run.plots.mkdir()
    (run.plots / "learning_curves.png").write_bytes(b"png")
    found = details(run)
    assert ["optimizer.lr", "0.01", "a.yaml:3"] in found["config"]
    assert found["pictures"] == ["plots/learning_curves.png"]
    assert "metrics.jsonl" in found["files"]


def test_a_run_that_has_written_nothing_yet(tmp_path):
    (tmp_path / "20260101-000000_a").mkdir()
    found = details(RunDir(tmp_path / "20260101-000000_a"))
    assert found["config"] == found["findings"] == found["files"] == []


WRONG = [
    ("run.json", b"", "cannot read"),
    ("run.json", b"\xff\x00\x01", "cannot read"),
    ("run.json", b"[" * 100_000, "cannot read"),
    ("run.json", None, "cannot read"),
    ("run.json", b"[1]", "is not a JSON object"),
    ("run.json", b'{"config": [1], "origins": 3}', "'config' is not an object, 'origins' is not an object"),
    ("run.json", b'{"metrics": null}', "'metrics' is not an object"),
    ("run.json", b'{"monitor": "val_loss", "metrics": {"val": "x"}}', "'metrics' is not an object for each split"),
    ("run.json", b'{"seconds": "x", "epochs_completed": []}', "'seconds' is not a number"),
    ("run.json", b'{"config": {"a": 1}, "facts": {"num_samples": 3}}', "no findings can be made of"),
    ("metrics.jsonl", None, "cannot read"),
    ("metrics.jsonl", b"\xff\n[1]\n" + b"[" * 100_000 + b'\n{"type": "epoch", "epoch": []}\n', "3 lines cannot be"),
]
"""A file, what it holds (None: it is a folder), and what is said."""


@pytest.mark.parametrize(("name", "content", "says"), WRONG)
def test_a_damaged_run_is_listed_with_what_is_wrong_beside_the_others(tmp_path, name, content, says):
    make_run(tmp_path / "20260101-000000_a")
    run = make_run(tmp_path / "20260101-000001_b")
    (run.path / name).unlink()
    (run.path / name).write_bytes(content) if content is not None else (run.path / name).mkdir()
    rows = Watched(tmp_path).look()
    assert rows["20260101-000000_a"]["status"] == "finished"
    assert any(says in one for one in (rows[run.path.name]["status"], *details(run)["problems"]))


@pytest.mark.parametrize("value", ["1e400", "1" + "0" * 400, "NaN", '"x"', "[]", "{}", "null", "true"])
def test_numbers_that_are_none_are_shown_as_unknown(tmp_path, value):
    run = make_run(tmp_path / "20260101-000000_a")
    info = {
        "monitor": "val_loss",
        "seconds": "V",
        "metrics": {"val": {"loss": "V"}},
        "config": {"optimizer": {"lr": "V"}},
    }
    run.info.write_text(json.dumps({"status": "finished", "epochs_completed": "V", **info}).replace('"V"', value))
    line = {"type": "epoch", "step": 1, "epoch": 1, "val_loss": "V", "lr": "V"}
    run.metrics.write_text(json.dumps(line).replace('"V"', value) + "\n")
    row = Watched(tmp_path).look()[run.path.name]
    json.dumps([row, details(run), Tail(run.metrics).read()], allow_nan=False)
    assert row["lr"] in (None, 1.0)
    assert row["seconds"] in (None, 1.0)


def test_only_named_files_are_given_out(tmp_path):
    run = make_run(tmp_path / "20260101-000000_a")
    (run.path / "secret.txt").write_text("x")
    (run.path / "report.html").symlink_to("/etc/hostname")
    (run.path / "plots").mkdir()
    assert file_of(run, "metrics.jsonl") == run.metrics
    for name in ("secret.txt", "report.html", "../run.json", "plots/../secret.txt", "plots", "plots/none.png", ""):
        assert file_of(run, name) is None, name


def test_a_log_is_read_by_whole_lines_and_from_its_start_when_it_was_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == (False, [])
    path.write_text('{"step": 1}\n{"step": 2, "loss": NaN}\n{"ste')
    assert tail.read() == (False, [{"step": 1}, {"step": 2}])
    with path.open("a") as file:
        file.write('p": 3}\nno record\n')
    assert tail.read() == (False, [{"step": 3}])
    path.write_text('{"step": 1}\n')
    assert tail.read() == (True, [{"step": 1}])


@pytest.mark.parametrize("count", [0, 1, 1999, 2000, 2001, 7919])
def test_of_many_steps_some_are_shown_and_of_epochs_all(count):
    records = [{"type": "step", "step": step} for step in range(count)] + [{"type": "epoch", "step": count}] * 3
    shown = thinned(records)
    assert sum(record["type"] == "epoch" for record in shown) == 3
    assert min(count, 1000) <= len(shown) - 3 <= 2000
