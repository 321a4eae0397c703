"""Before a sweep starts, each bound and each choice is tried as ``trainkit check`` tries a config."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.config import load_sweep
from trainkit.errors import ConfigError
from trainkit.system import Frontend
from trainkit.workflows.sweep import check_sweep, describe

BASE = """\
dataset: digits
model:
  type: cnn
  blocks: [{channels: 4}, {channels: 8, pool: 2}]
training: {epochs: 2}
"""
SWEEP = """\
config: base.yaml
objective: val_accuracy
budget: {trials: 4}
"""


def mistakes(tmp_path: Path, search: str, base: str = BASE) -> list[str]:
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "sweep.yaml").write_text(SWEEP + search)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ConfigError) as caught:
        check_sweep(load_sweep("sweep.yaml"), frontend=Frontend())
    assert sorted(os.listdir(tmp_path)) == before
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_value_is_tried(tmp_path: Path) -> None:
    """Shapes, devices and the opened data, all in one go, at the values that are to blame."""
    found = mistakes(
        tmp_path,
        """\
search:
  model.blocks[1].pool: {choice: [2, 5, 9]}
  training.batch_size: {int: [16, 256]}
  optimizer: {choice: [{type: sgd}, {type: muon}]}
parallel: {trials: 2, devices: [cpu, cuda:77]}
""",
    )
    places = [text.partition(": ")[0] for text in found]
    assert places == ["sweep.yaml:5:41", "sweep.yaml:7:44", "sweep.yaml:8:38"], found
    assert "there is no device 'cuda:77'" in found[2]


def test_a_config_that_cannot_be_trained_is_to_blame_itself(tmp_path: Path) -> None:
    base = BASE.replace("pool: 2", "pool: 9")
    found = mistakes(tmp_path, "search: {training.batch_size: {int: [16, 32]}}\n", base)
    assert len(found) == 1
    assert found[0].startswith("base.yaml:4:")


def combined(tmp_path: Path, search: str) -> list[str]:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sweep.yaml").write_text(SWEEP + search)
    said: list[str] = []
    check_sweep(load_sweep("sweep.yaml"), frontend=Frontend(say=said.append))
    return said


def test_values_are_looked_at_together(tmp_path: Path) -> None:
    """Each of them alone goes with the config; the opened data say that two do not go with each other."""
    search = "search: {training.batch_size: {int: [16, 1500]}, training.drop_last: {choice: [false, true]}}"
    [note] = combined(tmp_path, search)
    start = "note: 1 of 4 combinations of the values cannot be trained, and such trials fail, as "
    values = "training.batch_size: 1500, training.drop_last: true: training.batch_size: no batch is left"
    assert note.startswith(start + values)
    assert not combined(tmp_path, search.replace("1500", "150"))


@pytest.mark.slow
def test_of_many_combinations_some_are_looked_at(tmp_path: Path) -> None:
    paths = ["optimizer.lr", "optimizer.weight_decay", "optimizer.eps", "training.clip_grad_norm"]
    spaces = [f"{path}: {{uniform: [0.1, 0.2]}}" for path in paths]
    spaces += ["training.batch_size: {int: [16, 1500]}", "training.drop_last: {choice: [false, true]}"]
    [note] = combined(tmp_path, f"search: {{{', '.join(spaces)}, training.epochs: {{int: [2, 9]}}}}")
    assert " of 64 combinations of the values cannot be trained" in note


def test_what_would_be_searched(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sweep.yaml").write_text(
        SWEEP
        + """\
search:
  optimizer: {choice: [sgd, {type: adamw}]}
  optimizer.lr: {log_uniform: [0.001, 0.1]}
  training.batch_size: {int: [16, 64], step: 16}
"""
    )
    report = check_sweep(load_sweep("sweep.yaml"), frontend=Frontend())
    assert report.checked == 1 + 2 + 2 * 2 + 2
    assert dict(describe(report.loaded)) == {
        "optimizer": "sgd or {type: adamw}",
        "optimizer.lr": "0.001 to 0.1, logarithmic",
        "training.batch_size": "16 to 64, in steps of 16",
        "objective": "val_accuracy, highest is best",
        "trials": "4 trials, chosen by tpe",
    }
    assert sorted(os.listdir(tmp_path)) == ["base.yaml", "sweep.yaml"]


def test_the_command(tmp_path: Path) -> None:
    """What is wrong ends it before anything is written; else it says what would be searched."""
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sweep.yaml").write_text(SWEEP + "search: {training.batch_size: {int: [16, 32]}}\n")
    command, runner = ["sweep", "sweep.yaml", "--dry-run"], CliRunner()
    done = runner.invoke(app, [*command, "--set", "training.epochs=1"], catch_exceptions=False)
    assert done.stdout.splitlines()[0] == "ok: sweep.yaml can be run; 3 configs checked"
    assert "16 to 32 (whole numbers)" in done.stdout
    plan = json.loads(runner.invoke(app, [*command, "--json"]).stdout)
    assert (plan["configs_checked"], plan["plan"]["trials"]) == (3, "4 trials of 17 combinations, chosen by tpe")
    with pytest.raises(ConfigError, match=r"model.blocks\[1\].pool: MaxPool2d has a window of 9 x 9"):
        runner.invoke(app, [*command, "--set", "model.blocks[1].pool=9"], catch_exceptions=False)
    assert sorted(os.listdir(tmp_path)) == ["base.yaml", "sweep.yaml"]
