"""Sweeps are read with places: every entry of bad_sweeps.yaml, and what a good file becomes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.config.test_bad_configs import without_marks

from trainkit.config import load_config
from trainkit.config.sweeps import Choice, Range, load_sweep
from trainkit.errors import ConfigError, Problem

CASES = yaml.load((Path(__file__).parent / "bad_sweeps.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
REST = {
    "config:": "config: base.yaml\n",
    "objective:": "objective: val_accuracy\n",
    "search:": "search: {optimizer.lr: {log_uniform: [0.001, 0.1]}}\n",
    "budget:": "budget: {trials: 40}\n",
}
BASE = {
    "dataset:": "dataset: digits\n",
    "model:": "model: {type: mlp, hidden_sizes: [32, 16]}\n",
    "optimizer:": "optimizer: {type: sgd, lr: 0.1}\n",
}


def completed(text: str, rest: dict[str, str]) -> str:
    lines = text.replace("‸", "").splitlines()
    return text + "".join(more for key, more in rest.items() if not any(line.startswith(key) for line in lines))


def shown(problem: Problem) -> str:
    elsewhere = problem.place is not None and not problem.place.file.startswith("bad.yaml")
    text = f"{problem.key}: {problem.message}" if problem.key else problem.message
    return f"{problem.place}: {text}" if elsewhere else text


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_message_and_place(case: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, marks = without_marks(case["sweep"] if case.get("alone") else completed(case["sweep"], REST))
    Path("bad.yaml").write_text(text, encoding="utf-8")
    Path("base.yaml").write_text(completed(case.get("base", ""), BASE), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load_sweep("bad.yaml")

    problems = caught.value.problems
    assert sorted(map(shown, problems)) == sorted(case["errors"])
    own = [str(problem.place) for problem in problems if problem.place.line and problem.place.file == "bad.yaml"]
    assert own == [f"bad.yaml:{line}:{column}" for line, column in marks]
    assert caught.value.exit_code == 2
    assert sorted(os.listdir()) == ["bad.yaml", "base.yaml"]


def test_a_good_sweep(tmp_path: Path) -> None:
    """The space in order, the direction from the metric, and a trial's config as overrides of the config."""
    (tmp_path / "base.yaml").write_text(completed("checkpoint: {monitor: val_loss, mode: min}\n", BASE))
    (tmp_path / "my sweep.yaml").write_text(
        """\
config: base.yaml
set: {training: {epochs: 4, drop_last: true}, scheduler: cosine}
objective: val_accuracy
search:
  optimizer.lr: {log_uniform: [0.001, 0.3]}
  training: {choice: [{batch_size: 16, clip_grad_norm: 1}, {batch_size: 32, clip_grad_norm: 5}]}
  optimizer: {choice: [{type: sgd, momentum: 0.9}, adamw]}
  model.hidden_sizes[1]: {int: [8, 24], step: 8}
budget: {trials: 10}
"""
    )
    loaded = load_sweep(tmp_path / "my sweep.yaml", overrides=["training.num_threads=1"])

    assert loaded.space == {
        "training": Choice(({"batch_size": 16, "clip_grad_norm": 1}, {"batch_size": 32, "clip_grad_norm": 5})),
        "optimizer": Choice(({"type": "sgd", "momentum": 0.9}, "adamw")),
        "optimizer.lr": Range(0.001, 0.3, log=True),
        "model.hidden_sizes[1]": Range(8, 24, step=8, integer=True),
    }
    assert (loaded.name, loaded.objective, loaded.maximize) == ("my_sweep", "val_accuracy", True)
    assert "this is a random search" in " ".join(loaded.notes)
    trial = loaded.trial(
        {
            "optimizer.lr": 0.1 + 0.2,
            "optimizer": {"type": "sgd", "momentum": 0.9},
            "training": {"batch_size": 16, "clip_grad_norm": 1},
        }
    ).config
    assert (trial.optimizer.type, trial.optimizer.lr, trial.optimizer.momentum) == ("sgd", 0.1 + 0.2, 0.9)
    assert (trial.training.epochs, trial.training.batch_size, trial.training.clip_grad_norm) == (4, 16, 1)
    assert (trial.training.num_threads, trial.scheduler.type, trial.model.hidden_sizes) == (1, "cosine", [32, 16])
    assert (trial.checkpoint.monitor, trial.checkpoint.mode) == ("val_accuracy", "auto")
    assert len(loaded.candidates()) == 2 + 2 + 2 * 2 + 2
    with pytest.raises(ConfigError, match=r"optimizer.momentum: the sweep does not search it"):
        loaded.trial({"optimizer.momentum": 0.5})


def test_overrides_and_search_cannot_have_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(completed("", BASE))
    Path("bad.yaml").write_text(completed("", REST))
    with pytest.raises(ConfigError, match=r"cannot be set too, got --set optimizer.lr=1; leave one out"):
        load_sweep("bad.yaml", overrides=["optimizer.lr=1"])
    with pytest.raises(ConfigError, match=r"^--set training.epoch=1: training.epoch: unknown key"):
        load_sweep("bad.yaml", overrides=["training.epoch=1"])


def test_sweeps_need_no_torch() -> None:
    code = "import sys, trainkit.config.sweeps; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CASES) >= 50
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_a_sweep_in_place_of_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(completed("", REST))
    message = "this is a sweep, which names the config in `config`; `trainkit sweep bad.yaml` runs it"
    with pytest.raises(ConfigError, match=rf"^bad\.yaml:3:1: search: {re.escape(message)}$"):
        load_config("bad.yaml")
