"""The values of a trial depend on the sweep's seed, its number and the trials before it, and on nothing else."""

import random

import pytest

from trainkit.config.sweeps import Choice, Range
from trainkit.errors import UserError
from trainkit.workflows.sweep.samplers import grid_point, grid_size, propose, to_config
from trainkit.workflows.sweep.study import Trial

SPACE = {
    "optimizer.lr": Range(0.001, 0.3, log=True, step=None, integer=False),
    "training.batch_size": Range(32, 256, log=False, step=32, integer=True),
    "optimizer": Choice(({"type": "sgd", "momentum": 0.9}, {"type": "adamw"})),
    "training.shuffle": Choice((True, False)),
}


def grid(space):
    return [grid_point(space, number) for number in range(grid_size(space))]


def trials_of(kind, count, *, seed=0, **changes):
    """A search of some trials, one after the other."""
    found = []
    for number in range(count):
        values, attrs = propose(kind, SPACE, found, number, seed=seed, maximize=True, startup=4)
        given = {"state": "complete", "score": -abs(values["optimizer.lr"] - 0.02), **changes}
        found.append(Trial(number, values=values, attrs=attrs, curve={1: given["score"] or -1.0}, **given))
    return found


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("cmaes", "gp")]


@pytest.mark.parametrize("kind", ["random", "tpe", *SLOW])
def test_a_search_repeats_and_goes_on_where_it_was(kind):
    count = 7 if kind == "gp" else 12
    whole = trials_of(kind, count)
    assert [one.values for one in trials_of(kind, count)] == [one.values for one in whole]
    assert [one.values for one in trials_of(kind, count, seed=1)] != [one.values for one in whole]
    for number in (3, count - 1):
        random.seed(number)  # a global generator has no part in it
        values, attrs = propose(kind, SPACE, whole[:number], number, seed=0, maximize=True, startup=4)
        assert (values, attrs) == (whole[number].values, whole[number].attrs)
    assert len({str(one.values) for one in whole}) == count


def test_random_values_do_not_depend_on_other_trials():
    whole = trials_of("random", 8)
    assert propose("random", SPACE, [], 5, seed=0, maximize=True)[0] == whole[5].values


def test_tpe_learns_from_paused_trials():
    """They wait at a rung, and most of them forever: a sampler that did not see them would stay at random."""
    seen = trials_of("tpe", 12, state="paused", score=None)
    alone = propose("tpe", SPACE, [], 12, seed=0, maximize=True, startup=4)[0]
    assert propose("tpe", SPACE, seen, 12, seed=0, maximize=True, startup=4)[0] != alone


def test_values_reach_the_config_as_they_were_written():
    for one in trials_of("random", 10):
        values = to_config(SPACE, one.values)
        assert values["optimizer"] in SPACE["optimizer"].values
        assert values["training.shuffle"] in (True, False)
        assert values["training.batch_size"] % 32 == 0
        assert type(values["training.batch_size"]) is int
        assert 0.001 <= values["optimizer.lr"] <= 0.3


def test_a_grid_is_every_combination_once():
    space = {
        "a": Choice((1, 2.5)),
        "b": Range(2, 6, log=False, step=2, integer=True),
        "c": Range(0.1, 0.3, log=False, step=0.1, integer=False),
    }
    points = grid(space)
    assert len(points) == len({str(one) for one in points}) == 2 * 3 * 3
    assert points[1] == {"a": 1, "b": 2, "c": 0.2}
    assert [one["c"] for one in points[:3]] == [0.1, 0.2, 0.3]
    assert grid_size({str(key): Choice(tuple(range(10))) for key in range(30)}) == 10**30  # none of them is listed
    assert propose("grid", space, [], 1, seed=0, maximize=True)[0] == points[1]
    with pytest.raises(UserError, match=r"search.optimizer.lr: a grid needs a step, or the values themselves"):
        grid(SPACE)


def test_values_that_compare_equal_stay_apart():
    space = {"a": Choice((1, True, "1", None))}
    points = [to_config(space, one)["a"] for one in grid(space)]
    assert [(type(one), one) for one in points] == [(int, 1), (bool, True), (str, "1"), (type(None), None)]
