"""A reader that goes away (``| head -1``) ends a command as it ends ``cat``: at once, without a word."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
@pytest.mark.parametrize(
    ("arguments", "lines"), [(["config", "schema"], 1), (["--version"], 0)], ids=["more than a pipe holds", "buffered"]
)
def test_a_reader_that_goes_away_ends_it_without_a_word(arguments, lines):
    ends_without_a_word(arguments, lines)


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
def test_predictions_whose_reader_goes_away(tiny_run, tmp_path):
    np.save(tmp_path / "digits.npy", np.zeros((5000, 8, 8), dtype=np.uint8))
    ends_without_a_word(["predict", str(tiny_run.best_checkpoint), str(tmp_path / "digits.npy")], lines=1)


def ends_without_a_word(arguments, lines):
    command = [sys.executable, "-m", "trainkit", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    for _ in range(lines):
        assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert said == ""


@pytest.mark.skipif(os.name == "nt", reason="a shell closes them")
@pytest.mark.parametrize(
    ("closed", "shown"),
    [("2>&-", True), pytest.param(">&-", False, marks=pytest.mark.slow), (">&- 2>&-", False)],
)
def test_a_stream_that_is_closed_at_the_start(tiny_run, tmp_path, closed, shown):
    """Nothing is said there, the work is done, and no file gets the number of the stream."""
    np.save(tmp_path / "digits.npy", np.zeros((3, 8, 8), dtype=np.uint8))
    arguments = ["predict", str(tiny_run.best_checkpoint), str(tmp_path / "digits.npy")]
    shell = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "trainkit", *arguments]
    done = subprocess.run(shell, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == (4 if shown else 0)
    assert "Error" not in done.stderr
