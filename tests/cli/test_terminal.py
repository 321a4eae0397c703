"""What a training prints at its end, and that it is plain where it should be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "iris_mlp.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose learning rate is far too high, through a pipe."""
    folder = tmp_path_factory.mktemp("terminal")
    command = [sys.executable, "-m", "trainkit", "train", CONFIG, "--set", "optimizer.lr=2", "--set"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "FORCE_COLOR": "", "NO_COLOR": "1"}
    return subprocess.run(
        [*command, "training.epochs=12"], cwd=folder, capture_output=True, text=True, env=environment, check=True
    )


def test_a_pipe_gets_one_clean_line_for_each_epoch(trained):
    lines = [line for line in trained.stderr.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == [f"{epoch}/12" for epoch in range(1, 13)]
    assert "\x1b" not in trained.stderr + trained.stdout
    assert "\r" not in trained.stderr + trained.stdout


def test_the_end_shows_curves_findings_and_what_to_do_next(trained):
    text = trained.stdout
    assert "best checkpoint" in text
    assert "val_accuracy" in text
    assert "▁" in text
    assert "finding: The learning rate is too high" in text
    assert "try: --set optimizer.lr=0.2" in text
    for part in ("report.html", "trainkit predict runs/", "trainkit export runs/"):
        assert part in text


def test_quiet_prints_the_result_only(tmp_path):
    arguments = ["train", CONFIG, "--quiet", "--json", "--set", "training.epochs=2", "--run-dir", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert Path(result["report"]).is_file()
    assert isinstance(result["findings"], list)


def test_the_report_command_prints_findings_again(tiny_run):
    done = CliRunner().invoke(app, ["report", str(tiny_run.run.path), "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["report"] == str(tiny_run.run.path / "report.html")
    assert [finding["name"] for finding in told["findings"]] == ["training-too-short"], "two epochs are too few"
