"""Folds of a cross-validation: each sample is in one of them, and each fold is the test split of one run.

The folds are a function of (seed, labels, groups) alone, so each run finds them again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.errors import Problem, ProblemsError
from trainkit.runtime import uniforms
from trainkit.wording import counted, first_lines

Groups = NDArray[np.int64]
_KEY = "dataset.folds.count"


@dataclass(frozen=True)
class Fold:
    """One fold of ``count``, from 0."""

    count: int
    index: int


def assign_folds(
    labels: NDArray[Any], count: int, *, seed: int, groups: Groups | None = None, class_names: Sequence[str] = ()
) -> NDArray[np.int64]:
    """The fold of each sample, 0 to ``count - 1``: int64 (N,).

    Without groups, the numbers of samples differ by at most one between folds, in all and for each class. With them,
    each group is in one fold; large groups are placed first, each where samples and classes are then most even.

    Args:
        labels: the class of each sample; all the same for regression.
        groups: the group of each sample, a number that is a function of its name alone.
        class_names: by label, for messages; () for regression.

    Raises:
        ProblemsError: There are too few samples, samples of a class, or groups.
    """
    if count > len(labels):
        raise _too_few(f"{count} folds need {count} samples, got {len(labels)}; take fewer folds, or add samples")
    classes = np.unique(labels, return_inverse=True)[1]
    if groups is None:
        _check_classes(labels, np.bincount(classes), count, class_names)
        draws = uniforms(seed, "split.folds", 0, np.arange(len(labels), dtype=np.int64), 1)[:, 0]
        folds = np.empty(len(labels), dtype=np.int64)
        folds[np.lexsort((draws, classes))] = np.arange(len(labels)) % count
        return folds
    folds = _place_groups(classes, groups, count, seed)
    _check_spread(labels, folds, class_names)
    return folds


def _place_groups(classes: NDArray[np.int64], groups: Groups, count: int, seed: int) -> NDArray[np.int64]:
    keys, positions, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if count > len(keys):
        have = f"{counted(len(keys), 'group')} {'is' if len(keys) == 1 else 'are'}"
        raise _too_few(f"{have} too few for {count} folds, which take one each; take fewer folds, or another column")
    num_classes = int(classes.max()) + 1
    cells, cell_counts = np.unique(positions * num_classes + classes, return_counts=True)
    starts = np.searchsorted(cells, np.arange(len(keys) + 1) * num_classes)
    draws = uniforms(seed, "split.folds.groups", 0, keys, 1)[:, 0]
    totals = np.bincount(classes).astype(np.float64)
    of_class, of_fold = np.zeros((count, num_classes)), np.zeros(count)
    fold_of_group = np.empty(len(keys), dtype=np.int64)
    for group in np.lexsort((draws, -sizes)):
        own = slice(starts[group], starts[group + 1])
        labels, numbers = cells[own] % num_classes, cell_counts[own]
        # By how much the sum of squared shares grows: least where the group's classes, and samples, are fewest.
        growth = (of_class[:, labels] / totals[labels]) @ (numbers / totals[labels])
        growth += of_fold / len(classes) * (sizes[group] / len(classes))
        best = int(np.argmin(growth))
        fold_of_group[group] = best
        of_class[best, labels] += numbers
        of_fold[best] += sizes[group]
    return fold_of_group[positions]


def _check_classes(labels: NDArray[Any], counts: NDArray[np.int64], count: int, class_names: Sequence[str]) -> None:
    small = [(label, number) for label, number in zip(np.unique(labels), counts, strict=True) if number < count]
    if small and class_names:
        shown = ", ".join(first_lines([f"{class_names[label]} ({number})" for label, number in small]))
        raise _too_few(
            f"{count} folds need {count} samples of each class, got fewer of {shown}; take fewer folds, add samples, "
            "or leave the class out"
        )


def _check_spread(labels: NDArray[Any], folds: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Each class is in two folds: or the run that tests it would not have trained on it."""
    alone = [label for label in np.unique(labels) if len(np.unique(folds[labels == label])) == 1]
    if alone and class_names:
        lines = first_lines([f"{class_names[label]} (fold {folds[labels == label][0]})" for label in alone])
        raise _too_few(
            "the run that tests a fold would not have trained on a class whose groups are all in it: "
            f"{', '.join(lines)}; take fewer folds, or give its samples more groups"
        )


def _too_few(message: str) -> ProblemsError:
    return ProblemsError([Problem(message, key=_KEY)])
