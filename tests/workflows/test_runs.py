"""``trainkit runs``: read from files that were written here, and from a real run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.errors import UserError
from trainkit.reports import metric_rows
from trainkit.workflows.find import find_run
from trainkit.workflows.runs import compare, config_differences, list_summaries, sort_summaries, write_comparison

SOURCE = Path(__file__).parents[2] / "src"


def epoch(number, accuracy, *, seconds=1.0, best=True):
    return {
        "type": "epoch",
        "step": 10 * number,
        "epoch": number,
        "train_loss": 1 / number,
        "val_loss": 1.1 / number,
        "val_accuracy": accuracy,
        "best": best,
        "lr": 0.1,
        "train_seconds": seconds * number,
        "validation_seconds": 0.0,
    }


def write_run(root, folder, accuracies, *, status="finished", seconds=1.0, **config):
    path = root / folder
    (path / "checkpoints").mkdir(parents=True)
    info = {
        "status": status,
        "name": folder[16:],
        "monitor": "val_accuracy",
        "started": f"{folder[:4]}-{folder[4:6]}-{folder[6:8]}T12:00:00",
        "config": {"dataset": {"type": "digits"}, "model": {"type": "mlp"}, "optimizer": {"type": "sgd"}, **config},
        "facts": {"num_samples": {"train": 1000, "val": 100}},
    }
    if status == "finished":
        metrics = {"val": {"accuracy": max(accuracies)}, "test": {"accuracy": max(accuracies) - 0.01}}
        info |= {"metrics": metrics, "epochs_completed": len(accuracies), "seconds": 12.5}
    (path / "run.json").write_text(json.dumps(info))
    lines = [json.dumps(epoch(at, value, seconds=seconds)) for at, value in enumerate(accuracies, start=1)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    write_run(root, "20260101-120000_first", [0.5, 0.7, 0.9], seconds=2.0)
    write_run(root, "20260203-120000_second", [0.8, 0.85, 0.89], optimizer={"type": "adam", "lr": 0.001})
    write_run(root, "20260301-120000_third", [0.4], status="failed: step 12: the loss is nan", dataset={"type": "iris"})
    write_run(root, "20260302-120000_fourth", [0.6, 0.65], status="running")
    (root / "notes").mkdir()
    return root


def test_the_list_tells_status_score_epochs_and_time(runs):
    rows = {summary.name: summary for summary in list_summaries(runs)}
    assert list(rows) == ["first", "second", "third", "fourth"]
    assert (rows["first"].status, rows["first"].score, rows["first"].epochs) == ("finished", 0.9, 3)
    assert rows["third"].status == "failed: step 12: the loss is nan"
    assert rows["fourth"].status == "interrupted (killed)", "nobody holds its lock"
    assert (rows["fourth"].epochs, rows["fourth"].seconds) == (2, 2.0), "from the end of its log"


def test_filters(runs):
    def names(**filters):
        return [summary.name for summary in list_summaries(runs, **filters)]

    assert names(name="ir") == ["first", "third"]
    assert names(name="*th") == ["fourth"]
    assert names(dataset="iris") == ["third"]
    assert names(status="failed") == ["third"]
    assert names(since="2026-02-03", until="2026-03-01") == ["second", "third"]


def test_the_list_tells_optimizer_and_learning_rate(runs):
    rows = {summary.name: (summary.optimizer, summary.lr) for summary in list_summaries(runs)}
    assert rows["first"] == ("sgd", None)
    assert rows["second"] == ("adam", 0.001)


def test_the_list_in_the_order_of_a_column(runs):
    write_run(runs, "20260401-120000_loss", [0.1, 0.3], optimizer={"type": "adam", "lr": 0.1})
    write_run(runs, "20260402-120000_better", [0.1, 0.2], optimizer={"type": "adam", "lr": 0.03})
    for folder, loss in (("20260401-120000_loss", 0.5), ("20260402-120000_better", 0.2)):
        path = runs / folder / "run.json"
        info = json.loads(path.read_text()) | {"monitor": "val_loss", "metrics": {"val": {"loss": loss}}}
        path.write_text(json.dumps(info))

    def names(key):
        return [summary.name for summary in sort_summaries(list_summaries(runs), key)]

    assert names("score") == ["first", "second", "better", "loss", "third", "fourth"], "best first, none last"
    assert names("lr") == ["second", "better", "loss", "first", "third", "fourth"]
    assert names("optimizer")[:3] == ["second", "loss", "better"]
    assert names("started") == ["first", "second", "third", "fourth", "loss", "better"]
    done = CliRunner().invoke(app, ["runs", "list", "--run-dir", str(runs), "--sort", "score", "--limit", "2"])
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "20260101-120000_first",
        "20260203-120000_second",
    ]
    assert "the first 2 of 6" in done.stderr


def test_a_column_that_is_none_is_refused(runs):
    done = CliRunner().invoke(app, ["runs", "list", "--sort", "speed", "--run-dir", str(runs)])
    assert done.exit_code == 2
    assert "'score'" in done.stderr


def test_an_unfinished_run_has_the_score_of_its_best_checkpoint(runs):
    journal = {"best": "b.pth", "entries": [{"name": "a.pth", "score": 0.6}, {"name": "b.pth", "score": 0.65}]}
    (runs / "20260302-120000_fourth" / "checkpoints" / "checkpoints.json").write_text(json.dumps(journal))
    assert list_summaries(runs, name="fourth")[0].score == 0.65


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": 3, "config": [], "metrics": 7}', "\x00\x00"])
def test_a_damaged_run_is_listed_and_harms_nobody(runs, content):
    (runs / "20260101-120000_first" / "run.json").write_text(content)
    (runs / "20260101-120000_first" / "metrics.jsonl").write_text('{"type": "epoch", "st')
    rows = list_summaries(runs)
    assert len(rows) == 4
    assert rows[0].status.startswith(("unknown", "3"))


def test_a_run_is_found_by_a_part_of_its_name(runs):
    assert find_run("second", runs_dir=runs).path.name == "20260203-120000_second"
    with pytest.raises(UserError, match="fits 2 runs"):
        find_run("ir", runs_dir=runs)
    with pytest.raises(UserError, match="trainkit runs list"):
        find_run("fifth", runs_dir=runs)


def test_compare_tells_differences_and_who_converges_fastest(runs):
    comparison = compare(["first", "second"], runs_dir=runs)
    assert comparison.metric == "val_accuracy"
    assert comparison.differences == {"optimizer.type": ["sgd", "adam"], "optimizer.lr": [None, 0.001]}
    assert comparison.names == ["A (sgd)", "B (adam, lr 0.001)"]
    assert comparison.order() == [0, 1]
    assert comparison.target == 0.89, "both have reached what the lower one reached at its best"
    assert [comparison.reached(index) for index in (0, 1)] == [(3, 6.0), (3, 3.0)]
    assert "too few samples" in comparison.verdict()[-1]
    assert "Best validation accuracy: A (sgd) with 90.00" in comparison.verdict()[0]


def test_compare_by_a_loss_prefers_the_lowest(runs):
    comparison = compare(["first", "third"], runs_dir=runs, metric="val_loss")
    assert comparison.order() == [0, 1]
    assert comparison.target == 1.1
    assert comparison.reached(0) == (1, 2.0)


def test_the_best_of_a_row_is_marked_and_a_tie_is_called_one(runs, tmp_path):
    write_run(runs, "20260501-120000_equal", [0.5, 0.9], optimizer={"type": "nadam"})
    comparison = compare(["first", "second", "equal"], runs_dir=runs)
    rows = {row.name: row for row in metric_rows(comparison)}
    assert rows["best val_accuracy"].best == {0, 2}
    assert rows["epochs to 89.00 %"].best == {2}
    assert rows["time to 89.00 %"].best == {2}, "2 s, the others 3 and 6"
    assert rows["status"].best == frozenset()
    assert comparison.verdict()[0] == (
        "A tie for the best validation accuracy: C (nadam) and A (sgd), each with 90.00 %."
    )
    assert not any("too few samples" in sentence for sentence in comparison.verdict())
    page = write_comparison(comparison, tmp_path)[0].read_text()
    assert page.count("★ 90.00 %") >= 2
    assert ">B adam</text>" in page
    same = compare(["first", "equal"], runs_dir=runs)
    assert {row.name: row for row in metric_rows(same)}["best val_accuracy"].best == frozenset(), "all are equal"


def test_the_overlay_is_a_closed_page_and_a_picture(runs, tmp_path):
    page, picture = write_comparison(compare(["first", "second"], runs_dir=runs), tmp_path)
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 3
    assert "A (sgd)" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_runs_without_epochs_compare_too(runs, tmp_path):
    (runs / "20260101-120000_first" / "metrics.jsonl").unlink()
    (runs / "20260203-120000_second" / "metrics.jsonl").unlink()
    comparison = compare(["first", "second"], runs_dir=runs)
    assert comparison.verdict() == ["None of the runs has a value of train_loss."]
    assert [path.name for path in write_comparison(comparison, tmp_path)] == ["compare.html"]


def test_compare_needs_two_runs_and_a_metric_that_exists(runs):
    with pytest.raises(UserError, match="at least two different runs"):
        compare(["first", "first"], runs_dir=runs)
    with pytest.raises(UserError, match="--metric speed: these runs have train_loss, val_loss"):
        compare(["first", "second"], runs_dir=runs, metric="speed")


def test_differences_of_lists_and_missing_sections():
    a, b = {"model": {"blocks": [{"channels": 1}], "name": 1}}, {"model": {"blocks": [{"channels": 2}]}, "name": "x"}
    assert config_differences([a, b]) == {"model.blocks[0].channels": [1, 2], "model.name": [1, None]}


def test_commands_print_json(runs, tmp_path):
    def run(*arguments):
        done = CliRunner().invoke(app, ["runs", *arguments, "--run-dir", str(runs), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert [row["name"] for row in run("list", "--limit", "2")] == ["third", "fourth"]
    assert run("show", "first")["score"] == 0.9
    compared = run("compare", "first", "second", "--output", str(tmp_path / "out"))
    assert compared["order"][0].endswith("first")
    assert len(compared["files"]) == 2


def test_commands_print_text(runs, tiny_run):
    done = CliRunner().invoke(app, ["runs", "list", "--run-dir", str(runs)])
    assert "val_accuracy 0.9000" in done.stdout
    assert "failed: step 12: the loss is nan" in done.stdout
    done = CliRunner().invoke(app, ["runs", "show", str(tiny_run.run.path)])
    assert done.exit_code == 0, done.output
    for text in ("mlp on digits", "report.html", "f1_macro"):
        assert text in done.stdout


def test_a_day_that_is_none_is_refused(runs):
    done = CliRunner().invoke(app, ["runs", "list", "--since", "yesterday", "--run-dir", str(runs)])
    assert isinstance(done.exception, UserError)
    assert "--since yesterday: not a day" in str(done.exception)


@pytest.mark.parametrize("arguments", [["list", "--sort", "score"], ["show", "first"], ["compare", "first", "second"]])
def test_no_command_imports_torch(runs, arguments):
    code = (
        "import sys; sys.argv = ['trainkit', 'runs', *sys.argv[1:]]\n"
        "from trainkit.cli.app import app\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, *arguments, "--run-dir", str(runs)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
