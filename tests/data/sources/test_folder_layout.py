"""Layouts of image folders as people have them: what is read as what, what is said, and what is refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from flat_sources import load_image_folder
from PIL import Image

from trainkit.data.dataset import Dataset
from trainkit.data.sources.image_folder import load_images_to_score
from trainkit.errors import UserError


def write(root: Path, layout: dict[str, int]) -> Path:
    """``{"train/cat": 3}``: three images in a folder; 0: an empty folder, or a text file where the name says so."""
    shade = 0
    for name, count in layout.items():
        path = root / name
        if path.suffix in (".csv", ".md", ".txt"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("text\n")
            continue
        path.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shade += 1
            Image.new("RGB", (4, 4), (shade % 256, shade // 256, 7)).save(path / f"{index:03}.png")
    return root


def load(root: Path) -> Dataset:
    return load_image_folder(root, val_fraction=0.1, test_fraction=0.2, seed=0)


def counts(data: Dataset) -> dict[str, list[int]]:
    return {split: data.class_counts(split) for split in data.splits}


def of_splits(*names: str, classes: tuple[str, ...] = ("a", "b"), count: int = 10) -> dict[str, int]:
    return {f"{split}/{name}": count for split in names for name in classes}


OWN = {"train": [10, 10], "val": [10, 10], "test": [10, 10]}
VAL_CUT = {"train": [9, 9], "val": [1, 1], "test": [10, 10]}
TEST_CUT = {"train": [8, 8], "val": [10, 10], "test": [2, 2]}
CUT = {"train": [7, 7], "val": [1, 1], "test": [2, 2]}


@pytest.mark.parametrize(
    ("layout", "expected", "said"),
    [
        (of_splits("Training", "Testing"), VAL_CUT, "splits: train from Training, test from Testing"),
        (of_splits("train", "valid", "test"), OWN, "splits: train from train, val from valid, test from test"),
        (of_splits("Train", "TEST", "Val"), OWN, "splits: train from Train, val from Val, test from TEST"),
        (of_splits("trn", "dev"), TEST_CUT, "splits: train from trn, val from dev"),
        (of_splits("train", "eval"), TEST_CUT, "splits: train from train, val from eval"),
        (of_splits("train", "val", "eval"), OWN, "splits: train from train, val from val, test from eval"),
        (of_splits("train_set", "validation_set", "test_set"), OWN, "train from train_set, val from validation_set"),
        (of_splits("TrainData", "TestImages"), VAL_CUT, "splits: train from TrainData, test from TestImages"),
        (of_splits("trainset", "testset"), VAL_CUT, "splits: train from trainset, test from testset"),
        (of_splits("images/train", "images/val"), TEST_CUT, "splits: train from images/train, val from images/val"),
        (of_splits("archive/dataset/train", "archive/dataset/test"), VAL_CUT, "train from archive/dataset/train"),
        (
            of_splits("seg_train/seg_train", "seg_test/seg_test") | {"seg_pred/seg_pred": 5},
            VAL_CUT,
            "splits: train from seg_train/seg_train, test from seg_test/seg_test",
        ),
        (
            of_splits("letters_train/letters_train", "letters_test"),
            VAL_CUT,
            "splits: train from letters_train/letters_train, test from letters_test",
        ),
        (
            of_splits("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val"),
            TEST_CUT,
            "val from ILSVRC/Data/CLS-LOC/val",
        ),
        ({"a": 10, "b": 10} | of_splits("test"), VAL_CUT, "splits: train from the folders beside, test from test"),
        (
            {f"{name}/{split}": 10 for name in "ab" for split in ("train", "valid", "test")},
            OWN,
            "splits: train from */train, val from */valid, test from */test",
        ),
        (of_splits("rps", "rps-test-set"), VAL_CUT, "splits: train from rps, test from rps-test-set"),
        (of_splits("train", "validation-rps"), TEST_CUT, "splits: train from train, val from validation-rps"),
        (of_splits("archive"), CUT, "classes: from archive"),
        (of_splits("only_train/train"), CUT, "splits: train from only_train/train"),
        (of_splits("train"), CUT, None),
        (of_splits("train", "val", "test"), OWN, None),
        ({"a": 10, "b": 10}, CUT, None),
    ],
    ids=lambda value: (
        "-".join(dict.fromkeys(name.rpartition("/")[0] for name in value)) if isinstance(value, dict) else ""
    ),
)
def test_splits_and_classes_are_found(
    tmp_path: Path, layout: dict[str, int], expected: dict[str, list[int]], said: str | None
) -> None:
    data = load(write(tmp_path, layout))
    assert data.class_names == ("a", "b")
    assert counts(data) == expected
    found = [note for note in data.notes if note.startswith(("splits: ", "classes: "))]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize("below", ["test", "test/test", "test/unknown", "test/images"])
def test_a_flat_test_folder_is_for_predict(tmp_path: Path, below: str) -> None:
    data = load(write(tmp_path, of_splits("train") | {below: 10}))
    assert counts(data) == CUT
    [note] = data.notes
    assert note.startswith(f"{tmp_path}/test has 10 images and no class folders: they are unlabeled")
    assert f"trainkit predict CHECKPOINT {tmp_path}/test" in note


def test_a_labeled_test_folder_beside_a_flat_one(tmp_path: Path) -> None:
    data = load(write(tmp_path, of_splits("train", "test") | {"test1": 3}))
    assert counts(data) == VAL_CUT
    assert "test1 has 3 images and no class folders" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"train": 5, "test1": 5}, "has train and test1, which look like splits, but they have images and no class"),
        ({"train": 5, "val": 5, "train.csv": 0}, r"\(labels in a file, such as train.csv, are not read\)"),
        (
            {"train/images": 5, "valid/images": 5, "train/labels/1.txt": 0},
            "has train and valid, which look like splits",
        ),
        ({"train": 5} | of_splits("test"), "has train and test, which look like splits, but train has images"),
        ({"train": 5, "test": 5, "bus": 5}, "has train and test, which look like splits"),
        ({"val": 5, "test": 5, "bus": 5}, "has val and test, which look like splits"),
        ({"train": 5}, "train has 5 images but no class folders in it; put the images of each class"),
        ({"images": 5, "labels.csv": 0}, "images has 5 images but no class folders"),
        ({".": 5}, "has 5 images but no class folders in it; put the images of each class into a folder of its own"),
        (of_splits("train") | {"val": 5}, "val has 5 images but no class folders in it; .*, or move it out of .*, and"),
        (of_splits("fold_1", "fold_2"), "has fold_1 and fold_2, and all of them hold a and b: name one of the outer"),
        (of_splits("archive/train", "archive/test") | {".": 1}, "archive holds splits, and 000.png beside it may be"),
        (of_splits("train", "val", "valid"), "has val and valid, and each may be the val split; rename all but one"),
        (of_splits("Train", "train"), "has Train and train, and each may be the train split"),
        (of_splits("val", "test"), "has val and test but no train folder"),
        (of_splits("one/train", "one/test", "two/train", "two/test"), "one holds splits, and two beside it may be"),
        (of_splits("set/train", "set/test") | {"samples": 3}, "set holds splits, and samples beside it may be"),
        (of_splits("Set/Set/train", "Set/Set/valid") | {"test/test": 3}, "Set holds splits, and test beside it may be"),
        ({"a/train": 5, "a/test": 5, "b": 5}, "a holds splits, and b beside it may be"),
        ({"images": 5, "masks": 5}, "has images and masks, as data for segmentation or detection have"),
        ({"a": 0, "b": 0, "c.txt": 0}, "the split is empty"),
        ({"train/a": 0, "train/b": 0, "test/a": 5}, "train has folders in it, but no images in them"),
        ({"train": 0} | of_splits("test"), "train has no folders in it; put the images of each class"),
        ({".a": 5}, "has no folders in it but .a, which is ignored; put the images of each class"),
        (
            {"a": 5, "b": 0, "b/1.txt": 0, "b/2.txt": 0},
            r"b has no images in it \(2 .txt files\); fill or delete the folder",
        ),
        ({"only": 5}, "one class only, 'only'"),
        (of_splits("train") | {"val/A": 5, "val/b": 5}, "val has classes that .*train does not have: 'A'.*mean 'a'"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_read_is_refused_with_the_way_out(tmp_path: Path, layout: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, layout))


@pytest.mark.parametrize("name", ["test", "validation", "dev", "train", "test_cat"])
def test_a_split_name_among_class_names_is_a_class_and_is_said(tmp_path: Path, name: str) -> None:
    data = load(write(tmp_path, {"cat": 10, "dog": 10, f"{name}/inner" if name == "dev" else name: 10}))
    assert data.class_names == tuple(sorted(("cat", "dog", name)))
    [note] = data.notes
    assert note.startswith(f"{name} is taken for a class, as the folders beside it are")


def test_classes_inside_a_split_may_have_the_names_of_splits(tmp_path: Path) -> None:
    data = load(write(tmp_path, of_splits("train", "test", classes=("dev", "test", "train"))))
    assert data.class_names == ("dev", "test", "train")
    assert counts(data)["test"] == [10, 10, 10]


def test_a_folder_that_is_no_split_is_named(tmp_path: Path) -> None:
    layout = {"extra/a": 4, "notes": 0, "README.md": 0, "_annotations.csv": 0, ".git/x": 1}
    data = load(write(tmp_path, of_splits("train", "test") | layout))
    assert data.notes == (
        f"extra in {tmp_path} is not read: it holds images, but is no split",
        f"{tmp_path}: ignored 1 system entry (.git)",
        f"{tmp_path}: ignored 3 entries, neither image nor class folder (README.md, _annotations.csv, notes/)",
    )


def test_splits_beside_the_root_are_named(tmp_path: Path) -> None:
    write(tmp_path, of_splits("Train", "val", "test"))
    [note] = load(tmp_path / "Train").notes
    assert note == f"test and val beside {tmp_path}/Train: not read; dataset.root: {tmp_path} would read all splits"
    assert load(tmp_path / "val").notes == ()


def test_loose_images_beside_class_folders_are_named(tmp_path: Path) -> None:
    data = load(write(tmp_path, {"a": 10, "b": 10, ".": 2}))
    assert data.notes == (f"{tmp_path}: ignored 2 images in no class folder (000.png, 001.png)",)


def test_the_same_folders_in_each_class_are_pointed_out(tmp_path: Path) -> None:
    data = load(write(tmp_path, of_splits("day", "night", classes=("cat", "dog"))))
    assert data.class_names == ("day", "night")
    [note] = data.notes
    assert "day and night are taken for the classes, and all of them hold cat and dog" in note


def test_linked_splits_and_classes_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere/a": 10, "elsewhere/b": 10, "more": 10})
    root = tmp_path / "set"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "elsewhere")
    (root / "test").mkdir()
    (root / "test" / "a").symlink_to(tmp_path / "more")
    (root / "test" / "b").symlink_to(tmp_path / "more")
    assert counts(load(root)) == VAL_CUT


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(12)],
        ["n01440764", "n01443537", "n02102040"],
        ["cat ", " cat", "cat"],
        ["\u0633\u06cc\u0628\u200c\u0632\u0645\u06cc\u0646\u06cc", "\u6771\u4eac\u3000\u30bf\u30ef\u30fc", "a\u00a0b"],
        ["\U0001f431", "e\u0301", "\ue000"],
    ],
)
def test_names_are_kept_and_in_the_order_of_their_characters(tmp_path: Path, names: list[str]) -> None:
    data = load(write(tmp_path, of_splits("train", "val", classes=tuple(names))))
    assert data.class_names == tuple(sorted(names))
    assert data.class_counts("val") == [10] * len(names)


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\udcffb", "a\x7fb"])
def test_a_name_with_a_control_character_or_no_text_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="has a name that is not text; rename it") as caught:
        load(write(tmp_path, {"cat": 5, name: 5}))
    assert name not in str(caught.value)


@pytest.mark.parametrize(("training", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_two_unicode_forms_are_one_name(tmp_path: Path, training: str, other: str) -> None:
    names = [unicodedata.normalize(training, name) for name in ("caf\u00e9", "\u304c", "tea")]
    layout = {f"train/{name}": 10 for name in names}
    layout |= {f"val/{unicodedata.normalize(other, name)}": count for name, count in zip(names, (3, 4, 5), strict=True)}
    data = load(write(tmp_path, layout))
    found = dict(zip(data.class_names, data.class_counts("val"), strict=True))
    assert found == dict(zip(names, (3, 4, 5), strict=True))
    scored = load_images_to_score(tmp_path / "val", class_names=names, channels=3, max_bad_files=0, key="--data")
    assert set(scored.class_names) == set(names)


def score(root: Path, *class_names: str) -> Dataset:
    return load_images_to_score(root, class_names=class_names, channels=3, max_bad_files=0, key="--data")


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        ({"c": 10}, {"c": 10}),
        ({"c/day1": 5, "c/day2": 5}, {"c": 10}),
        ({"a": 0, "c": 10}, {"c": 10}),
        ({"set/c": 10, "set/a": 0}, {"c": 10}),
        ({"test/a": 3, "test/c": 4}, {"a": 3, "c": 4}),
        ({"a/1": 3, "a/2": 3, "c/1": 4, "c/2": 4}, {"a": 6, "c": 8}),
    ],
)
def test_images_to_score_may_lack_classes(tmp_path: Path, layout: dict[str, int], found: dict[str, int]) -> None:
    data = score(write(tmp_path, layout), "a", "b", "c")
    assert dict(zip(data.class_names, data.class_counts("train"), strict=True)) == found


def test_a_class_of_the_model_is_no_split(tmp_path: Path) -> None:
    assert score(write(tmp_path, {"train": 4, "test": 4}), "bus", "test", "train").class_names == ("test", "train")
    assert score(write(tmp_path / "one", {"test/day": 3, "test/night": 3}), "bus", "test").class_names == ("test",)


def test_images_without_class_folders_are_for_predict(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--data: .* has 4 images but no class folders in it; .*trainkit predict"):
        score(write(tmp_path, {".": 4}), "a", "b")
    with pytest.raises(UserError, match="has val and test but no train folder; name one of them"):
        score(write(tmp_path / "two", of_splits("val", "test")), "a", "b")
