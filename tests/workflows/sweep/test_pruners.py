"""Successive halving with pauses: who goes on, and who never does."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.workflows.sweep.pruners import farthest, next_promotion, rungs_of
from trainkit.workflows.sweep.study import Trial

EPOCHS = 27


def trial(number, *values, state="paused", target=1):
    return Trial(number, state, curve=dict(enumerate(values, 1)), target=target, score=max(values, default=None))


def promote(trials, *, settled=False, maximize=True, rungs=(1, 3, 9)):
    found = next_promotion(trials, rungs, reduction=3, maximize=maximize, settled=settled)
    return None if found is None else (found[0].number, found[1])


def test_rungs_stay_below_the_last_epoch():
    assert rungs_of(1, 3, epochs=27) == [1, 3, 9]
    assert rungs_of(2, 4, epochs=9) == [2, 8]
    assert rungs_of(5, 2, epochs=5) == []


def test_one_in_three_goes_on_once_enough_have_come_to_the_rung():
    first = [trial(0, 0.5), trial(1, 0.7)]
    assert promote(first) is None
    assert promote([*first, trial(2, 0.6)]) == (1, 3)
    assert promote([*first, trial(2, 0.6)], maximize=False) == (0, 3)


def test_a_trial_that_was_overtaken_before_is_promoted_later():
    """Optuna's pruner would have ended it: that is why trials pause."""
    others = [trial(0, 0.9, target=3, state="running"), trial(1, 0.8), trial(2, 0.1)]
    assert promote(others) is None
    assert promote([*others, trial(3, 0.2), trial(4, 0.2), trial(5, 0.2)]) == (1, 3)


def test_the_highest_rung_comes_first_and_the_last_one_is_trained_to_the_end():
    low = [trial(number, 0.1 * number) for number in range(6)]
    high = [trial(number, 0.01, 0.02, 0.05 * number, target=3) for number in range(6, 9)]
    assert promote([*low, *high]) == (8, 9)
    top = [trial(number, *[0.5] * 9, target=9) for number in range(9, 12)]
    assert promote([*low, *high, *top]) == (9, None)  # of equal ones the earlier


def test_too_few_for_a_place_go_on_only_when_nobody_else_can():
    high = [trial(0, 0.5, 0.5, 0.6, target=3), trial(1, 0.5, 0.5, 0.7, target=3)]
    low = [trial(number, 0.1) for number in range(2, 9)]
    assert promote([*high, *low]) == (2, 3)
    assert promote([*high, *low], settled=True) == (2, 3)
    assert promote([*high, *low[:-1]]) is None
    assert promote([*high, *low[:-1]], settled=True) == (1, 9)


def test_the_best_of_the_first_epochs_counts_and_nan_is_the_worst():
    assert promote([trial(0, 0.1, 0.9), trial(1, 0.2), trial(2, 0.15)]) == (1, 3)
    assert promote([trial(0, float("nan")), trial(1, 0.2), trial(2, 0.1)], maximize=False) == (2, 3)


def test_who_failed_at_a_later_rung_keeps_no_place():
    assert promote([trial(0, 0.9, state="failed", target=3), trial(1, 0.2), trial(2, 0.1)]) == (1, 3)


def test_when_time_is_over_the_best_of_those_that_came_farthest_is_left():
    trials = [trial(0, 0.9), trial(1, 0.1, 0.2, 0.3, target=3), trial(2, 0.1, 0.2, 0.4, target=3)]
    assert farthest(trials, maximize=True).number == 2
    assert farthest(trials, maximize=False).number == 1
    assert farthest([trial(0, 0.9, state="failed")], maximize=True) is None


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), reduction=st.integers(2, 5), first=st.integers(1, 30), seed=st.integers(0, 99))
def test_every_search_ends_with_a_trial_at_its_end_and_rungs_get_smaller(count, reduction, first, seed):
    """Trials one after the other, with values that do not change from epoch to epoch."""
    rng = random.Random(seed)
    rungs = rungs_of(first, reduction, epochs=EPOCHS)
    goods = [rng.random() for _ in range(count)]
    trials = {}

    def train(number, target):
        values = [goods[number]] * (target or EPOCHS)
        trials[number] = trial(number, *values, target=target, state="paused" if target else "complete")

    while True:
        known, more = list(trials.values()), len(trials) < count
        found = next_promotion(known, rungs, reduction=reduction, maximize=True, settled=not more)
        if found is not None:
            train(found[0].number, found[1])
        elif more:
            train(len(trials), rungs[0] if rungs else None)
        else:
            break
    ends = [one for one in trials.values() if one.state == "complete"]
    assert max(range(count), key=goods.__getitem__) in [one.number for one in ends]
    sizes = [sum(one.epochs >= rung for one in trials.values()) for rung in [*rungs, EPOCHS]]
    # Ones that were promoted early, before better ones came, are the price of not waiting for all of a rung.
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == count
