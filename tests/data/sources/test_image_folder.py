"""Image folders: layouts, classes by name, junk, links and FIFOs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from flat_sources import load_image_folder
from PIL import Image

from trainkit.data.dataset import Dataset
from trainkit.errors import DataError, ProblemsError, UserError


def fill(folder: Path, count: int, *, color: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new(color, (4, 4), index).save(folder / f"{index:03}.png")


def make_splits(root: Path, **classes: Sequence[str]) -> Path:
    for split, names in classes.items():
        for name in names:
            fill(root / split / name, 10)
    return root


def load(root: Path, **changes: object) -> Dataset:
    knobs = {"val_fraction": 0.1, "test_fraction": 0.2, "seed": 0} | changes
    return load_image_folder(root, **knobs)


def sizes(data: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def test_one_folder_is_split_by_fraction(tmp_path: Path) -> None:
    for name in ("zebra", "ant", "Bee"):
        fill(tmp_path / name, 10)
    data = load(tmp_path)
    assert data.class_names == ("Bee", "ant", "zebra")
    assert list(data.parts) == ["all"]
    assert sizes(data) == {"train": 21, "val": 3, "test": 6}  # 2.4 of 24 would be 2: one of each class
    part = data.parts["all"]
    assert isinstance(part.inputs, tuple)
    assert [data.class_names[label] for label in part.targets] == [path.parent.name for path in part.inputs]
    assert data.channels == 3
    assert data.notes == ()


def test_split_folders_are_matched_by_class_name(tmp_path: Path) -> None:
    make_splits(tmp_path, train=["a", "b", "c"], val=["c", "b", "a"], test=["b", "c", "a"])
    data = load(tmp_path)
    assert sizes(data) == {"train": 30, "val": 10 * 3, "test": 30}
    for part in data.parts.values():
        assert isinstance(part.inputs, tuple)
        assert [data.class_names[label] for label in part.targets] == [path.parent.name for path in part.inputs]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train"], {"train": 14, "val": 2, "test": 4}),
        (["train", "test"], {"train": 18, "val": 2, "test": 20}),
        (["train", "val"], {"train": 16, "val": 20, "test": 4}),
    ],
)
def test_splits_that_have_no_folder_are_taken_from_train(
    tmp_path: Path, folders: list[str], expected: dict[str, int]
) -> None:
    make_splits(tmp_path, **{folder: ["a", "b"] for folder in folders})
    assert sizes(load(tmp_path)) == expected


def test_a_class_missing_in_a_split_is_noted_and_nothing_is_renumbered(tmp_path: Path) -> None:
    make_splits(tmp_path, train=["a", "b", "c"], val=["c"], test=["a", "b", "c"])
    data = load(tmp_path)
    assert set(data.parts["val"].targets.tolist()) == {2}
    [note] = data.notes
    assert "val has no images of 2 of 3 classes: 'a', 'b'" in note


def test_an_extra_class_in_a_split_is_an_error_that_names_it(tmp_path: Path) -> None:
    make_splits(tmp_path, train=["a", "b"], val=["a", "b", "new"], test=["other"])
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "val has classes that" in lines[0]
    assert "'new'" in lines[0]
    assert "'other'" in lines[1]


def test_empty_classes_and_splits_are_named(tmp_path: Path) -> None:
    make_splits(tmp_path, train=["a", "b"])
    (tmp_path / "train" / "hollow").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert "hollow has no images in it" in str(caught.value)
    assert "val has no images in it: the split is empty" in str(caught.value)


def test_one_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "only", 10)
    with pytest.raises(DataError, match="one class only, 'only'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("absent", lambda path: None, "does not exist"),
        ("file", lambda path: path.write_text(""), "is not a folder"),
        ("empty", lambda path: path.mkdir(), "has no folders in it"),
        ("half", lambda path: fill(path / "val" / "a", 2), "has val but no train folder"),
        ("loop", lambda path: path.symlink_to(path), "does not exist"),
    ],
)
def test_a_root_that_cannot_be_used_is_a_problem_of_its_key(
    tmp_path: Path, name: str, make: object, message: str
) -> None:
    assert callable(make)
    make(tmp_path / name)
    with pytest.raises(ProblemsError, match=message) as caught:
        load(tmp_path / name)
    assert caught.value.problems[0].key == "dataset.root"


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        fill(tmp_path / name, 10)
    assert load(tmp_path).class_names == ("bus", "train")


def test_junk_is_ignored_and_said_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, 10)
        (tmp_path / name / ".DS_Store").write_text("")
        (tmp_path / name / "Thumbs.db").write_text("")
        (tmp_path / name / "._000.png").write_text("")
        fill(tmp_path / name / ".ipynb_checkpoints", 3)
    fill(tmp_path / "__MACOSX" / "a", 3)
    (tmp_path / "readme.txt").write_text("")
    (tmp_path / "a" / "labels.csv").write_text("")
    data = load(tmp_path)
    assert data.class_names == ("a", "b")
    assert len(data.parts["all"]) == 20
    junk, others = data.notes
    assert "ignored 9 system entries" in junk
    assert "ignored 2 entries, neither image nor class folder (labels.csv, readme.txt)" in others


def test_links_in_a_circle_end_and_fifos_are_not_opened(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "set" / name, 10)
    root = tmp_path / "set"
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "deeper").mkdir()
    (root / "a" / "deeper" / "up").symlink_to(root)
    (root / "whole").symlink_to(root)
    (root / "b" / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "b" / "pipe.txt")
    os.mkfifo(root / "b" / "999.png")  # an image by its name: unreadable, and reported as such later
    data = load(root)
    assert data.class_names == ("a", "b")
    assert len(data.parts["all"]) == 21
    assert any("3 links to folders searched already" in note for note in data.notes)


def test_folders_inside_a_class_and_linked_classes_are_searched(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", 10)
    fill(tmp_path / "set" / "a" / "day1", 5)
    fill(tmp_path / "set" / "a" / "day2", 5)
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    data = load(tmp_path / "set")
    assert np.bincount(data.parts["all"].targets).tolist() == [10, 10]


@pytest.mark.parametrize(("colors", "channels"), [(["L", "L"], 1), (["L", "RGB"], 3), (["P", "P"], 3)])
def test_color_auto_is_gray_only_where_every_image_is(tmp_path: Path, colors: list[str], channels: int) -> None:
    for index, color in enumerate(colors):
        fill(tmp_path / str(index), 10, color=color)
    assert load(tmp_path).channels == channels
    assert load(tmp_path, color="rgb").channels == 3
    assert load(tmp_path, color="gray").channels == 1


def test_the_fingerprint_is_that_of_the_data_not_of_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "one" / name, 10)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, second = load(tmp_path / "one"), load(tmp_path / "two")
    assert first.fingerprint == second.fingerprint
    Image.new("RGB", (9, 9)).save(tmp_path / "two" / "a" / "003.png")
    assert load(tmp_path / "two").fingerprint != first.fingerprint


def test_file_names_may_be_anything_but_class_names_must_be_text(tmp_path: Path) -> None:
    for name in ("ä ö", "b"):
        fill(tmp_path / name, 10)
        os.rename(tmp_path / name / "000.png", tmp_path / name / "n\udce9\n'\".PNG")
    assert len(load(tmp_path).parts["all"]) == 20
    fill(tmp_path / "c\udcff", 10)
    with pytest.raises(DataError, match="not text") as caught:
        load(tmp_path)
    assert "c\\udcff" in str(caught.value)


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    fill(tmp_path / "a", 2)
    fill(tmp_path / "b", 2)
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(UserError, match="b cannot be read"):
            load(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_real_photographs() -> None:
    folder = os.environ.get("TRAINKIT_TEST_DATA")
    if not folder:
        pytest.skip("TRAINKIT_TEST_DATA is not set: no real photographs")
    data = load(Path(folder) / "cifar10-mini")
    assert sizes(data) == {"train": 900, "val": 100, "test": 300}
    assert data.num_classes == 10
