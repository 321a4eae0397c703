"""How a sweep that runs is told in one line."""

import math

from trainkit.cli.sweep_display import standing, time_left
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
