"""``trainkit sweep`` on a sweep that another process runs."""

import pytest
import sweeps
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.errors import UserError
from trainkit.system import locked


def test_a_sweep_that_runs_is_not_run_a_second_time(tmp_path, monkeypatch):
    monkeypatch.chdir(sweeps.write_sweep(tmp_path, "budget: {trials: 1}\n"))
    folder = tmp_path / "sweeps" / "search"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").touch()  # it has begun, so that its values are not checked again
    with locked(folder / ".lock", of=folder), pytest.raises(UserError, match=r"search: process \d+ .* is working on"):
        CliRunner().invoke(app, ["sweep", "search.yaml"], catch_exceptions=False)
    assert not (folder / "study.journal").exists()
