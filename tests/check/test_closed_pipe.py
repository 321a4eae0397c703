"""A reader that goes away (``| head -1``) ends a command as it ends ``cat``: at once, without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
@pytest.mark.parametrize(
    ("arguments", "lines"), [(["config", "schema"], 1), (["--version"], 0)], ids=["more than a pipe holds", "buffered"]
)
def test_a_reader_that_goes_away_ends_it_without_a_word(arguments, lines):
    command = [sys.executable, "-m", "trainkit", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    for _ in range(lines):
        assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert said == ""
