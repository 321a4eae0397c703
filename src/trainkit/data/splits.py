"""Train, validation and test splits: seeded, stratified by class, the same on every machine.

Sizes are exact: a fraction ``f`` of ``n`` samples is ``floor(f * n + 0.5)`` samples. They are shared out over the
classes in proportion, by largest remainder (ties: the lower label first), so each class gives ``f * n_class`` samples
give or take one. The test split is taken first, from all samples; validation then from what is left.

Where some classes would give none, each gives one if that is ``1.5 * f * n`` samples or fewer (a class never gives its
only sample); otherwise the seed breaks the ties, so that it is not always the last classes that are missing.

Each sample has one draw, a function of (seed, split, sample index) alone. Of each class, the samples with the smallest
draws are taken. ``group_splits`` has other ways to take a split: by groups and by time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Part, Split, Task
from trainkit.data.folds import Fold, assign_folds
from trainkit.errors import Problem, ProblemsError
from trainkit.runtime import uniforms
from trainkit.wording import counted

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """The samples of a part that training does not get, where the data have no such split of their own."""

    fractions: Mapping[str, float]
    """In the order in which they are taken, ``{"test": 0.2, "val": 0.1}``; 0 makes no split."""
    seed: int
    fold: Fold | None = None
    """Its samples are the test split, in the place of a fraction."""

    def beside(self, official: Container[str]) -> HeldOut:
        """Where the data have these splits."""
        fractions = {name: fraction for name, fraction in self.fractions.items() if name not in official}
        return replace(self, fractions=fractions)


def split_part(
    part: Part,
    part_name: str,
    *,
    task: Task,
    held: HeldOut,
    class_names: Sequence[str] = (),
    take: Callable[..., Indices] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Split]:
    """Split a part into ``"train"`` and the splits that are held out.

    For regression the samples are taken at random, without strata. ``take`` is called in the place of
    ``take_fraction``; ``groups`` are kept together in the folds.

    Raises:
        ProblemsError: A fraction of less than one sample, or one that leaves a class without a training sample.
    """
    labels = strata(part, task)
    rest: Indices = np.arange(len(part), dtype=np.int64)
    splits: dict[str, Split] = {}
    if held.fold is not None:
        folds = assign_folds(labels, held.fold.count, seed=held.seed, groups=groups, class_names=class_names)
        chosen = folds == held.fold.index
        rest, splits["test"] = np.flatnonzero(~chosen), Split(part_name, np.flatnonzero(chosen))
    for name, fraction in held.fractions.items():
        if fraction == 0 or name in splits:
            continue
        taken = (take or take_fraction)(labels, rest, fraction=fraction, purpose=name, seed=held.seed)
        rest = np.setdiff1d(rest, taken, assume_unique=True)
        splits[name] = Split(part_name, taken)
    fractional = [name for name in held.fractions if name in splits and not (held.fold and name == "test")]
    lower = " and ".join(f"{name}_fraction" for name in fractional)
    check_training_classes(
        labels,
        rest,
        class_names,
        advice=f"lower {lower} or add samples" if fractional else "add samples",
        key=f"dataset.{fractional[-1]}_fraction" if fractional else "dataset",
    )
    return {"train": Split(part_name, rest), **splits}


def strata(part: Part, task: Task) -> NDArray[Any]:
    """The labels of a part; for regression all samples are of one class."""
    return part.targets if task == "classification" else np.zeros(len(part), dtype=np.int64)


def take_fraction(labels: NDArray[Any], among: Indices, *, fraction: float, purpose: str, seed: int) -> Indices:
    """Stratified choice of ``floor(fraction * len(among) + 0.5)`` of the indices ``among``, sorted ascending.

    There are up to half as many more where that gives each class one.

    Raises:
        ProblemsError: The fraction is less than one sample.
    """
    total = whole_share(len(among), fraction, purpose)
    classes, positions, counts = np.unique(labels[among], return_inverse=True, return_counts=True)
    # Training needs the only sample of a class, where it can keep one of each at all.
    shared = np.where(counts == 1, 0, counts) if 0 < total <= len(among) - len(classes) else counts
    quotas = _largest_remainder(shared, total)
    if not quotas.all():
        if np.count_nonzero(shared) <= most_for_one_of_each(fraction, len(among)):
            quotas = _one_of_each(shared, quotas)
        else:
            ties = uniforms(seed, f"split.{purpose}.ties", 0, classes.astype(np.int64), 1)[:, 0]
            quotas = _largest_remainder(shared, int(quotas.sum()), ties=ties)
    draws = uniforms(seed, f"split.{purpose}", 0, among, 1)[:, 0]
    order = np.lexsort((draws, positions))  # by class, and within a class by draw
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(among)) - np.repeat(starts, counts)
    return np.sort(among[order[rank < np.repeat(quotas, counts)]])


def whole_share(num_samples: int, fraction: float, purpose: str) -> int:
    """``floor(fraction * num_samples + 0.5)``.

    Raises:
        ProblemsError: The fraction is less than one sample.
    """
    total = math.floor(fraction * num_samples + 0.5)
    if total == 0:
        raise ProblemsError(
            [
                Problem(
                    f"{fraction:g} of {counted(num_samples, 'sample')} is not one sample, so the {purpose} split would "
                    f"be empty; take at least {math.ceil(50 / max(num_samples, 1)) / 100:g}, or 0 for no {purpose} "
                    "split",
                    key=f"dataset.{purpose}_fraction",
                )
            ]
        )
    return total


def most_for_one_of_each(fraction: float, num_samples: int) -> float:
    """How large a split may become so that each class gives one sample: half as large again as was asked for."""
    return 1.5 * fraction * num_samples * (1 + 1e-12)  # 1.5 * 0.1 * 40 is 6


def _one_of_each(counts: NDArray[np.int64], quotas: NDArray[np.int64]) -> NDArray[np.int64]:
    """``quotas`` raised to 1 for each class that has samples, at the cost of the largest quotas."""
    raised = np.maximum(quotas, counts > 0)
    for _ in range(int(raised.sum() - quotas.sum())):
        largest = int(np.argmax(raised))
        if raised[largest] == 1:
            break
        raised[largest] -= 1
    return raised


def _largest_remainder(
    counts: NDArray[np.int64], total: int, *, ties: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Share ``total`` out in proportion to ``counts`` (Hamilton's method), in whole numbers.

    Args:
        ties: of equal remainders, those with the lowest values come first; None: as the classes stand.
    """
    size = int(counts.sum())
    products = counts.astype(object) * total  # Python's integers: no rounding, no overflow
    quotas = np.array([product // size for product in products], dtype=np.int64)
    remainders = np.array([product % size for product in products], dtype=np.int64)
    short = total - int(quotas.sum())
    ties = np.zeros(len(counts)) if ties is None else ties
    quotas[np.lexsort((ties, -remainders))[:short]] += 1
    return quotas


def check_training_classes(
    labels: NDArray[Any], train: Indices, class_names: Sequence[str], *, advice: str, key: str
) -> None:
    """Raises ProblemsError where no training sample is left of a class, or none at all."""
    lost = np.setdiff1d(np.unique(labels), np.unique(labels[train]))
    if len(train) and not len(lost):
        return
    if class_names and len(lost):
        names = ", ".join(f"{class_names[label]} ({np.count_nonzero(labels == label)})" for label in lost[:10])
        what = f"no training sample would be left of these classes (samples in all): {names}"
    else:
        what = f"no training sample would be left of {len(labels)}"
    raise ProblemsError([Problem(f"{what}; {advice}", key=key)])


def whole_part(part: Part, part_name: str) -> Split:
    """Every sample of a part: the split of an official test set."""
    return Split(part_name, np.arange(len(part), dtype=np.int64))
