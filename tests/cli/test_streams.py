"""stdout and stderr that are full, and failures as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
CONFIG = "dataset: iris\nmodel: mlp\ntraining: {epochs: 1}\nlogging: {plots: false}\n"
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")


def run(*arguments: object, stdout: str | None = None, stderr: str | None = None, **more: str):
    def stream(path: str | None):
        return subprocess.PIPE if path is None else open(path, "w")

    command = [sys.executable, "-m", "trainkit", *map(str, arguments)]
    return subprocess.run(
        command, stdout=stream(stdout), stderr=stream(stderr), text=True, env={**ENVIRONMENT, **more}, check=False
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    return path


@needs_full
@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [(["--help"], "1"), (["config", "list"], ""), (["config", "list", "--json"], "1")]
)
def test_a_full_stdout_is_one_line(arguments: list[str], unbuffered: str) -> None:
    done = run(*arguments, stdout="/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: stdout cannot be written (No space left on device)")


@needs_full
def test_a_run_whose_stdout_is_full_is_saved(config: Path, tmp_path: Path) -> None:
    done = run("train", config, "--run-dir", tmp_path / "runs", "--quiet", stdout="/dev/full")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    [folder] = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert (folder / "checkpoints" / info["best_checkpoint"]).is_file()


@needs_full
@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.slow)])
def test_a_full_stderr_does_not_stop_the_training(config: Path, tmp_path: Path, unbuffered: str) -> None:
    done = run("train", config, "--run-dir", tmp_path, stderr="/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 0
    assert "finished after 1 epoch" in done.stdout


@needs_full
@pytest.mark.parametrize("arguments", [["check", "nope.yaml"], ["check", "--bogus"]], ids=str)
def test_a_full_stderr_does_not_change_the_exit_code(arguments: list[str]) -> None:
    assert run(*arguments, stderr="/dev/full").returncode == 2


def failure(done) -> dict:
    """The error of a command that printed nothing else on stdout, and something on stderr."""
    assert done.stderr
    assert "Traceback" not in done.stderr
    printed = json.loads(done.stdout)
    assert printed["error"]["exit_code"] == done.returncode != 0
    return printed["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nope.yaml", "--json"], "nope.yaml: there is no such file"),
        (["train", "--json", "--bogus"], "No such option: --bogus"),
        (["check", "--json"], "Missing argument"),
        (["runs", "show", "--json", "--run-dir", "nowhere"], "nowhere: no runs in this folder"),
    ],
    ids=str,
)
def test_a_failure_is_json_too(arguments: list[str], message: str) -> None:
    found = failure(run(*arguments))
    assert message in found["message"]
    assert found["exit_code"] == 2


def test_mistakes_in_a_config_come_one_by_one(config: Path) -> None:
    config.write_text(CONFIG.replace("epochs: 1", "epochs: 0") + "loss: nothing\n")
    problems = failure(run("check", config, "--json"))["problems"]
    assert [problem["key"] for problem in problems] == ["training.epochs", "loss"]
    assert [problem["place"] for problem in problems] == [f"{config}:3:20", f"{config}:5:7"]


def test_predictions_and_the_failure_are_one_document(tiny_run, tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.zeros((2, 8, 8), dtype=np.uint8))
    (tmp_path / "bad.png").write_bytes(b"")
    done = run("predict", tiny_run.run.path, tmp_path / "good.npy", tmp_path / "bad.png", "--json")
    assert failure(done)["message"] == "1 of 3 inputs could not be used"
    assert len(json.loads(done.stdout)["predictions"]) == 3


def test_nothing_to_do_is_json_too(tiny_run) -> None:
    done = CliRunner().invoke(app, ["resume", str(tiny_run.run.path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"run": str(tiny_run.run.path), "outcome": "nothing to do"}


CHATTY_LIBRARY = """
import logging, subprocess, sys, warnings
from trainkit.__main__ import main
sys.argv = ["trainkit", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
warnings.warn("noise")
logging.getLogger("library").warning("noise")
subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('noise')"], check=True)
"""


@pytest.mark.parametrize(
    ("words", "noises"),
    [
        ("train nope.yaml", 3),
        ("train nope.yaml -q", 0),
        ("train nope.yaml --quiet", 0),
        pytest.param("predict nope.pth x.png -qo out.csv", 0, marks=pytest.mark.slow),
        ("predict nope.pth x.png -o -q", 3),  # the name of a file
    ],
)
def test_quiet_is_quiet_for_libraries_too(words: str, noises: int) -> None:
    command = [sys.executable, "-c", CHATTY_LIBRARY, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    said = [line for line in done.stderr.splitlines() if line.endswith("noise")]
    assert len(said) == noises, done.stderr
    assert "nope" in done.stderr or "--output -q" in done.stderr  # errors are said
