"""A sweep from a program: no line of it runs again in the processes of the trials."""

import subprocess
import sys
from pathlib import Path

import pytest
import sweeps

PROGRAM = """\
import pathlib
import trainkit

with open("ran.txt", "a") as file:
    file.write("x")
result = trainkit.sweep("search.yaml", overrides=["training.epochs=1"], log=print)
assert result.report == pathlib.Path("sweeps/search/report.html")
assert [trial.state for trial in result.trials] == ["complete", "complete"]
try:
    plugin = trainkit.Plugin("mine")
    trainkit.sweep("search.yaml", plugins=[plugin])
except trainkit.UserError as error:
    print(error)
"""


pytestmark = pytest.mark.slow


def test_a_program_without_a_guard(tmp_path: Path) -> None:
    sweeps.write_sweep(tmp_path, "budget: {trials: 2}\nsampler: random\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran.txt").read_text() == "x"
    assert "the processes of trials cannot use a plug-in of this program" in done.stdout


def test_without_optuna_it_is_one_line(tmp_path: Path) -> None:
    sweeps.write_sweep(tmp_path, "budget: {trials: 2}\n")
    code = "import sys; sys.modules['optuna'] = None; import trainkit; trainkit.sweep('search.yaml')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("UserError: a sweep needs Optuna: pip install optuna cmaes")
