"""``trainkit lr-find`` as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.errors import UserError

SOURCE = Path(__file__).parents[2] / "src"
CONFIG = """\
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}   # data
model: {type: mlp, hidden_sizes: [16]}
optimizer:
  # found by hand
  type: adam
  lr: 0.5   # too high
"""


def lr_find(folder, *arguments, **environment):
    """Exit code, stdout, stderr."""
    command = [sys.executable, "-m", "trainkit", "lr-find", *arguments]
    env = {**os.environ, "PYTHONPATH": str(SOURCE), **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_learning_rate_is_printed_drawn_and_written(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    options = ("--write", "--plot", "curve.png", "--steps", "100", "--seeds", "1")
    code, out, err = lr_find(tmp_path, "c.yaml", *options, PYTHONIOENCODING="ascii")
    assert code == 0, err
    assert out.isascii()
    assert "config  c.yaml has 0.5, " in out
    assert "*" in out
    found = out.split("found   ")[1].split(",")[0]
    assert (tmp_path / "c.yaml").read_text() == CONFIG.replace("0.5 ", f"{found} ")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "curve.png"]


@pytest.mark.slow
def test_json_and_nothing_written(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    code, out, err = lr_find(tmp_path, "c.yaml", "--json", "--steps", "100", "--seeds", "2", "--set", "seed=3")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"config", "now", "lr", "spread", "override", "seeds", "written"}
    assert [curve["seed"] for curve in found["seeds"]] == [3, 4]
    assert found["now"] == 0.5
    assert found["written"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.slow
def test_a_flat_curve_is_shown_and_gives_no_number(tmp_path):
    shipped = Path(__file__).parents[2] / "configs" / "synthetic_binary.yaml"
    code, out, err = lr_find(tmp_path, str(shipped), "--steps", "100", "--seeds", "1")
    assert code == 1
    assert "found" not in out
    assert "1e-07" in out
    assert "no learning rate found: the curve is flat" in err


@pytest.mark.slow
def test_a_mistake_in_the_data_comes_once_with_its_place_and_exit_code(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG.replace("digits", "table, path: none.csv, target: y"))
    code, out, err = lr_find(tmp_path, "c.yaml")
    assert code == 2
    assert out == ""
    assert err.count("error: ") == 1
    assert "c.yaml:1:" in err


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (CONFIG.replace("adam", "lbfgs"), [], "lbfgs finds the length of its steps itself"),
        (CONFIG, ["--plot", "x.jpg"], "--plot x.jpg: expected the name of a .png file"),
        (CONFIG, ["--plot", "no/x.png"], "--plot no/x.png: expected the name of a .png file in a folder that there is"),
        (CONFIG, ["--write", "--set", "seed=1"], "the file has other values"),
        (
            CONFIG.replace("lr: 0.5", "lr: &a 0.5\nseed: *a").replace("0.5", "5"),
            ["--write"],
            "--write: optimizer.lr is used",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_the_search(text, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    done = CliRunner().invoke(app, ["lr-find", "c.yaml", *options])
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)


def test_a_shipped_config_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["lr-find", "digits_mlp", "--write"])
    assert "trainkit init --from digits_mlp makes a copy" in str(done.exception)
