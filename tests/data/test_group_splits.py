"""Groups and times stay together, sizes are near the fraction, and the order of the samples does not matter."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from flat_sources import split_part
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.dataset import Part
from trainkit.data.group_splits import take_groups, take_latest
from trainkit.errors import ProblemsError

SPLITS = ["test", "val"]


def part_of(labels: np.ndarray) -> Part:
    return Part(np.zeros((len(labels), 1), dtype=np.float32), labels)


def by_group(labels, groups, *, seed=0, test=0.2, val=0.1):
    take = partial(take_groups, groups=groups, splits=SPLITS)
    classes = [str(label) for label in range(int(labels.max()) + 1)]
    fractions = {"test": test, "val": val}
    return split_part(
        part_of(labels),
        "all",
        task="classification",
        fractions=fractions,
        seed=seed,
        class_names=classes,
        take=take,
    )


def by_time(times, *, test=0.2, val=0.1):
    take = partial(take_latest, times=times, splits=SPLITS)
    labels = np.zeros((len(times), 1), dtype=np.float64)
    fractions = {"test": test, "val": val}
    return split_part(part_of(labels), "all", task="regression", fractions=fractions, seed=0, take=take)


@settings(deadline=None, max_examples=100)
@given(
    groups=st.lists(st.integers(-30, 30), min_size=8, max_size=300),
    num_classes=st.integers(1, 3),
    test=st.floats(0.05, 0.6),
    val=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**32),
)
def test_no_group_is_in_two_splits_and_sizes_are_near_the_fraction(groups, num_classes, test, val, seed):
    groups = np.array(groups, dtype=np.int64)
    labels = np.random.default_rng(0).integers(0, num_classes, len(groups))
    labels = np.unique(labels, return_inverse=True)[1]
    try:
        splits = by_group(labels, groups, seed=seed, test=test, val=val)
    except ProblemsError as error:
        known = any(text in str(error) for text in ("is not one sample", "has all samples of a class"))
        if len(np.unique(groups)) >= 3 and not known:
            raise
        return
    owned = {name: set(groups[split.indices].tolist()) for name, split in splits.items()}
    assert sum(map(len, owned.values())) == len(set(groups.tolist()))
    assert sum(map(len, splits.values())) == len(groups)
    largest = np.unique(groups, return_counts=True)[1].max()
    if num_classes == 1:
        wanted = np.floor(test * len(groups) + 0.5)
        left_for_others = len(owned["train"]) + len(owned["val"])
        assert abs(len(splits["test"]) - wanted) <= largest / 2 or len(owned["test"]) == 1 or left_for_others == 2
    assert set(labels[splits["train"].indices]) == set(labels)


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(60)), st.integers(0, 1000))
def test_the_order_of_rows_does_not_change_who_is_held_out(order, seed):
    rng = np.random.default_rng(1)
    groups, labels = rng.integers(0, 15, 60), rng.integers(0, 2, 60)
    before = by_group(labels, groups, seed=seed)
    after = by_group(labels[list(order)], groups[list(order)], seed=seed)
    for name in before:
        assert set(groups[before[name].indices]) == set(groups[list(order)][after[name].indices])


def test_groups_of_one_class_are_held_out_in_proportion():
    groups = np.repeat(np.arange(100), 5)
    labels = (groups % 10 == 0).astype(np.int64)  # one group in ten
    splits = by_group(labels, groups)
    assert (len(splits["test"]), len(splits["val"])) == (100, 40)
    assert labels[splits["test"].indices].sum() == 10
    other = by_group(labels, groups, seed=1)
    assert set(groups[splits["test"].indices]) != set(groups[other["test"].indices])


@pytest.mark.parametrize("sizes", [[300, 10, 10, 10, 10, 10], [100, 100, 100]])
def test_groups_too_large_for_the_fraction(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    splits = by_group(np.zeros(len(groups), dtype=np.int64), groups, test=0.05, val=0.05)
    held = [len(np.unique(groups[splits[name].indices])) for name in SPLITS]
    assert 0 in groups[splits["train"].indices] or sizes[0] == sizes[1]
    assert all(held)


@settings(deadline=None, max_examples=100)
@given(
    times=st.lists(st.integers(0, 40) | st.floats(0, 40), min_size=8, max_size=300),
    test=st.floats(0.05, 0.6),
    val=st.floats(0.05, 0.6),
)
def test_the_latest_are_held_out_and_equal_times_stay_together(times, test, val):
    times = np.array(times, dtype=np.float64)
    try:
        splits = by_time(times, test=test, val=val)
    except ProblemsError as error:
        if len(np.unique(times)) >= 3 and "is not one sample" not in str(error):
            raise
        return
    assert times[splits["train"].indices].max() < times[splits["val"].indices].min()
    assert times[splits["val"].indices].max() < times[splits["test"].indices].min()
    largest = np.unique(times, return_counts=True)[1].max()
    kept = len(np.unique(times[np.concatenate([splits["train"].indices, splits["val"].indices])]))
    near = abs(len(splits["test"]) - np.floor(test * len(times) + 0.5)) <= largest / 2
    one = len(np.unique(times[splits["test"].indices])) == 1
    assert near or one or kept == 2


def test_too_few_groups_and_times():
    labels = np.zeros(10, dtype=np.int64)
    with pytest.raises(ProblemsError, match="2 groups are too few for the test split and for val and training"):
        by_group(labels, np.arange(10) % 2)
    with pytest.raises(ProblemsError, match="1 different time is too few for the test split"):
        by_time(np.ones(10))
    with pytest.raises(ProblemsError, match="no group can be held out for the test split: each has all samples of a"):
        by_group(np.arange(12) // 3, np.arange(12) // 3)
