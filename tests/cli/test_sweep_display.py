"""How a sweep that runs is told in one line."""

import io
import math
from pathlib import Path

from rich.console import Console

from trainkit.cli.sweep_display import SweepDisplay, standing, time_left
from trainkit.config import load_sweep
from trainkit.workflows.sweep import Trial

TRIALS = [
    Trial(0, "complete", score=0.5, seconds=10.0),
    Trial(1, "complete", score=0.75, seconds=20.0),
    Trial(2, "failed", seconds=0.0),
    Trial(3, "running", curve={1: 0.1, 2: 0.2}),
]


def test_the_line_of_a_sweep() -> None:
    assert standing(TRIALS, count=40, maximize=True, seconds=185.0) == (
        "3 of 40 trials: 2 complete, 1 running, 1 failed; best 0.7500 (trial 1); about 3 min 5 s left"
    )
    assert standing(TRIALS, count=None, maximize=False, seconds=math.inf) == (
        "3 trials: 2 complete, 1 running, 1 failed; best 0.5000 (trial 0)"
    )
    assert standing([], count=4, maximize=True, seconds=math.inf) == "0 of 4 trials"


def test_the_time_that_is_left() -> None:
    assert time_left(TRIALS, 6, epochs=4, at_once=2) == 2.5 * 15 / 2
    assert time_left(TRIALS, None, epochs=4, at_once=2) == math.inf
    assert time_left([], 6, epochs=4, at_once=2) == math.inf


def test_the_table_shows_what_runs(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        """\
config: digits_mlp
objective: val_accuracy
search:
  optimizer: {choice: [{type: sgd, momentum: 0.9}, {type: adamw}]}
  optimizer.lr: {log_uniform: [0.001, 0.1]}
budget: {trials: 20}
"""
    )
    loaded = load_sweep(tmp_path / "sweep.yaml")
    values = {"optimizer": '{"momentum": 0.9, "type": "sgd"}', "optimizer.lr": 0.0123456}
    trials = [
        *TRIALS,
        Trial(4, "running", values=values, curve={1: 0.5}, target=2),
        Trial(5, "running", values={"trial": 3, "seed": 7}),
    ]
    screen = Console(file=io.StringIO(), width=72)
    screen.print(SweepDisplay(loaded).table("6 of 20 trials", trials, epochs=30, elapsed=61.0))
    assert [line.rstrip() for line in screen.file.getvalue().splitlines()] == [
        "6 of 20 trials; 1 min 1 s so far",
        "trial  epoch  val_accuracy  values",
        "    3   2/30        0.2000",
        "    4    1/2        0.5000  optimizer sgd, lr 0.01235",
        "    5   0/30             -  trial 3, seed 7",
    ]
