"""Every sample is in one fold, groups stay together, and a fold's run validates on none of its test samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flat_sources import split_part
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainkit.builders import load_source
from trainkit.config import load_config
from trainkit.data.dataset import Dataset, Part
from trainkit.data.folds import Fold, assign_folds
from trainkit.errors import ProblemsError


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    count=st.integers(2, 12),
    seed=st.integers(0, 2**32),
)
def test_folds_are_as_even_as_they_can_be_in_all_and_for_each_class(counts, count, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = [str(label) for label in range(len(counts))]
    if min(counts) < count:
        with pytest.raises(ProblemsError, match="take fewer folds"):
            assign_folds(labels, count, seed=seed, class_names=names)
        return
    folds = assign_folds(labels, count, seed=seed, class_names=names)
    for own in (folds, *(folds[labels == label] for label in range(len(counts)))):
        sizes = np.bincount(own, minlength=count)
        assert len(sizes) == count
        assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(folds, assign_folds(labels, count, seed=seed, class_names=names))


@settings(deadline=None, max_examples=60)
@given(
    groups=st.lists(st.integers(-30, 30), min_size=2, max_size=200),
    count=st.integers(2, 9),
    num_classes=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_no_group_is_in_two_folds_and_the_order_of_the_rows_does_not_matter(groups, count, num_classes, seed):
    groups = np.array(groups)
    labels = np.random.default_rng(seed).integers(0, num_classes, len(groups))
    try:
        folds = assign_folds(labels, count, seed=seed, groups=groups)
    except ProblemsError as error:
        assert len(np.unique(groups)) < count or "take fewer folds" in str(error)  # noqa: PT017
        return
    assert len(np.unique(folds)) == count
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    order = np.random.default_rng(seed).permutation(len(groups))
    assert np.array_equal(assign_folds(labels[order], count, seed=seed, groups=groups[order]), folds[order])


def test_equal_groups_are_shared_out_evenly_with_their_classes():
    groups = np.repeat(np.arange(60), 5)
    labels = np.where(groups < 20, 1, 0)
    folds = assign_folds(labels, 5, seed=3, groups=groups)
    assert np.bincount(folds).tolist() == [60] * 5
    assert np.bincount(folds, weights=labels).tolist() == [20] * 5


def test_the_folds_of_all_runs_are_the_samples_and_validation_is_apart():
    labels = np.arange(100) % 3
    seen = []
    for index in range(4):
        splits = split_part(
            Part(np.zeros((100, 1), np.float32), labels),
            "all",
            task="classification",
            fractions={"test": 0.5, "val": 0.2},
            seed=7,
            class_names=["a", "b", "c"],
            fold=Fold(4, index),
        )
        parts = [splits[name].indices for name in ("train", "val", "test")]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(100))
        assert [len(part) for part in parts] == [60, 15, 25]
        seen += splits["test"].indices.tolist()
    assert sorted(seen) == list(range(100))


def test_a_class_whose_groups_are_all_in_one_fold_is_named():
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    labels = np.array([0, 0, 0, 1, 0, 1, 2, 2])
    with pytest.raises(ProblemsError, match=r"would not have trained on a class .*: c \(fold \d\); take fewer folds"):
        assign_folds(labels, 2, seed=0, groups=groups, class_names=["a", "b", "c"])


def test_more_folds_than_groups():
    with pytest.raises(ProblemsError, match="3 groups are too few for 4 folds, which take one each"):
        assign_folds(np.zeros(9, np.int64), 4, seed=0, groups=np.repeat([1, 2, 3], 3))


def load(folder: Path, dataset: dict) -> Dataset:
    loaded = load_config({"dataset": dataset, "model": "mlp"}, config_dir=folder)
    return load_source(loaded.config)


def test_a_test_file_stays_out_of_the_folds_and_groups_stay_together(tmp_path):
    rows = [f"{row % 7},{row},{row % 2}" for row in range(60)]
    (tmp_path / "a.csv").write_text("p,x,y\n" + "\n".join(rows))
    (tmp_path / "b.csv").write_text("p,x,y\n8,1,0\n9,2,1\n")
    about = {"type": "table", "path": "a.csv", "target": "y", "split": {"type": "group", "column": "p"}}
    data = load(tmp_path, {**about, "test_path": "b.csv", "folds": {"count": 3, "fold": 2}})
    assert list(data.parts) == ["all"]
    groups = [set((split.indices % 7).tolist()) for split in data.splits.values()]
    assert set.union(*groups) == set(range(7))
    assert sum(map(len, groups)) == 7
    assert "test_path stays out of the folds" in data.notes
    assert any(note.startswith("fold 2 (of 3, from 0) is the test split: ") for note in data.notes)


def test_a_test_folder_stays_out_and_a_validation_folder_is_kept(tmp_path):
    for split, number in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.new("L", (4, 4), index).save(folder / f"{index}.png")
    data = load(tmp_path, {"type": "image_folder", "root": ".", "folds": {"count": 3, "fold": 0}})
    assert list(data.parts) == ["train", "val"]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4, "test": 4}
    assert f"{tmp_path / 'test'} is a test set of its own, which stays out of the folds" in data.notes
    assert "fold 0 (of 3, from 0) is the test split: 4 of 12 samples; 4 of its own are the validation split" in (
        data.notes
    )
