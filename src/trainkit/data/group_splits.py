"""Splits that keep samples together: whole groups, such as patients, and the latest times.

The size of a fraction is counted in samples, as near as whole groups allow. Groups have draws that depend on (seed,
split, group) alone: neither the order of the samples nor other groups change the order in which they are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.splits import Indices, whole_share
from trainkit.errors import Problem, ProblemsError
from trainkit.runtime import uniforms
from trainkit.wording import counted


def take_groups(
    labels: NDArray[Any],
    among: Indices,
    *,
    fraction: float,
    purpose: str,
    seed: int,
    groups: NDArray[np.int64],
    splits: Sequence[str],
) -> Indices:
    """Whole groups of the samples ``among`` with about ``fraction`` of them, sorted ascending.

    In the order of their draws groups are taken that bring the number of samples nearer to the fraction and the number
    of each class nearer to its share; then those that do the first alone. There is always one. None takes the last
    samples of a class.

    Args:
        groups: int64 (N,), the group of each sample: a number that is a function of its name alone.
        splits: those that are taken by fraction, in their order; a group is left for each that comes, and for training.

    Raises:
        ProblemsError: There are too few groups, or none can be taken.
    """
    total = whole_share(len(among), fraction, purpose)
    keys, positions, sizes = np.unique(groups[among], return_inverse=True, return_counts=True)
    most = _most(len(keys), "group", purpose, splits)
    draws = uniforms(seed, f"split.{purpose}.groups", 0, keys, 1)[:, 0]
    classes = np.unique(labels[among], return_inverse=True)[1]
    chosen = _choose(
        np.argsort(draws, kind="stable").tolist(), sizes.tolist(), _members(positions, classes), total, most
    )
    if not chosen:
        message = f"no group can be held out for the {purpose} split: each has all samples of a class; add groups"
        raise ProblemsError([Problem(message, key=f"dataset.{purpose}_fraction")])
    taken = np.zeros(len(keys), dtype=bool)
    taken[chosen] = True
    return among[taken[positions]]


def _members(groups: NDArray[np.int64], classes: NDArray[np.int64]) -> list[list[tuple[int, int]]]:
    """(class, number of samples) of each class in each group."""
    num_classes = int(classes.max()) + 1
    cells, counts = np.unique(groups * num_classes + classes, return_counts=True)
    members: list[list[tuple[int, int]]] = [[] for _ in range(int(groups.max()) + 1)]
    for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
        members[cell // num_classes].append((cell % num_classes, count))
    return members


def _choose(
    order: Sequence[int], sizes: Sequence[int], members: Sequence[list[tuple[int, int]]], total: int, most: int
) -> list[int]:
    """The groups to take: at most ``most``, with about ``total`` samples."""
    left: dict[int, int] = {}
    for pairs in members:
        for label, count in pairs:
            left[label] = left.get(label, 0) + count
    short = {label: total * count / sum(sizes) for label, count in left.items()}
    chosen: dict[int, None] = {}
    rows = 0

    def take(group: int) -> None:
        nonlocal rows
        chosen[group] = None
        rows += sizes[group]
        for label, count in members[group]:
            left[label] -= count
            short[label] -= count

    def may_go(group: int) -> bool:
        return group not in chosen and all(left[label] > count for label, count in members[group])

    for with_classes in (True, False):
        for group in order:
            if rows >= total or len(chosen) == most:
                break
            if abs(rows + sizes[group] - total) >= total - rows or not may_go(group):
                continue
            moved = sum(abs(short[label] - count) - abs(short[label]) for label, count in members[group])
            if moved < 0 or not with_classes:
                take(group)
    if not chosen and (possible := [group for group in order if may_go(group)]):
        take(min(possible, key=lambda group: abs(sizes[group] - total)))
    return list(chosen)


def take_latest(
    labels: NDArray[Any],
    among: Indices,
    *,
    fraction: float,
    purpose: str,
    seed: int,
    times: NDArray[np.float64],
    splits: Sequence[str],
) -> Indices:
    """The latest of the samples ``among``, about ``fraction`` of them, sorted ascending; equal times stay together.

    Args:
        times: float64 (N,), the time of each sample.
        splits: those that are taken by fraction, in their order; a time is left for each that comes, and for training.

    Raises:
        ProblemsError: There are too few different times.
    """
    total = whole_share(len(among), fraction, purpose)
    different, counts = np.unique(times[among], return_counts=True)
    most = _most(len(different), "different time", purpose, splits)
    sizes = np.cumsum(counts[::-1])[:most]
    earliest = different[-1 - int(np.argmin(np.abs(sizes - total)))]
    taken: Indices = among[times[among] >= earliest]
    return taken


def _most(count: int, noun: str, purpose: str, splits: Sequence[str]) -> int:
    """How many may be taken, so that there is one for each split that comes, and for training."""
    later = [*splits[splits.index(purpose) + 1 :], "training"]
    if count > len(later):
        return count - len(later)
    have = f"{counted(count, noun)} {'is' if count == 1 else 'are'} too few for the {purpose} split"
    message = f"{have} and for {' and '.join(later)}, which take one each; take random, or 0 for no {purpose} split"
    raise ProblemsError([Problem(message, key="dataset.split")])
