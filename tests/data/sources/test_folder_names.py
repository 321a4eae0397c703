"""What the names of folders say."""

from __future__ import annotations

import unicodedata

import pytest

from trainkit.data.dataset import name_key
from trainkit.data.sources.folder_names import (
    are_images_and_annotations,
    is_holder,
    is_text,
    split_names,
)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            ["train", "Train", "TRAINING", "trn", "train_set", "TrainSet", "seg_train", "training-data", "train1"],
        ),
        ("val", ["val", "Valid", "VALIDATION", "dev", "Dev_Set", "val.images", "validate", "eval", "images_val"]),
        (
            "test",
            ["test", "TEST", "Testing", "tst", "test_set", "testset", "test1", "seg_test", "Test Images", "test(1)"],
        ),
    ],
)
def test_the_usual_names_of_splits(split: str, names: list[str]) -> None:
    for name in names:
        assert split_names([name]) == {name: split}


def test_other_names_are_no_splits() -> None:
    names = (
        "trains contest invalid valley tester test_tube train_station devil traintest train_test cat 10 dev1ce devices"
    )
    for name in names.split():
        assert split_names([name]) == {}


def test_further_words_count_where_another_split_has_them() -> None:
    assert split_names(["letters_train", "letters_test", "test_tube"]) == {
        "letters_train": "train",
        "letters_test": "test",
    }


def test_further_words_may_be_the_name_of_the_training_folder() -> None:
    assert split_names(["rps", "rps-test-set", "data"]) == {"rps": "train", "rps-test-set": "test"}
    assert split_names(["train", "validation-rps"]) == {"train": "train", "validation-rps": "val"}
    assert split_names(["train", "val", "val_old"]) == {"train": "train", "val": "val"}
    assert split_names(["tubes", "test_tube"]) == {}


def test_eval_is_a_validation_set_unless_there_is_one() -> None:
    assert split_names(["train", "eval"]) == {"train": "train", "eval": "val"}
    assert split_names(["train", "val", "Eval"]) == {"train": "train", "val": "val", "Eval": "test"}
    assert split_names(["train", "test", "eval"]) == {"train": "train", "test": "test", "eval": "val"}


def test_folders_that_only_hold_images() -> None:
    assert all(map(is_holder, ["images", "Test", "unknown", "all images", "images_2"]))
    assert not any(map(is_holder, ["cat", "test_tube", "image of cats", "10", ""]))


def test_images_beside_masks_are_no_classes() -> None:
    assert are_images_and_annotations(["Images", "masks"])
    assert not are_images_and_annotations(["images", "drawings"])
    assert not are_images_and_annotations(["masks", "labels"])  # masks that people wear, and stickers


def test_text_and_its_forms() -> None:
    assert all(map(is_text, ["\u200d", "a\u00a0b", "\u3000", "\u2028", "\ue000", "\U0001f431"]))
    assert not any(map(is_text, ["\n", "\x7f", "\x85", "\udcff"]))
    assert name_key(unicodedata.normalize("NFD", "\u00e9")) == name_key("\u00e9") != name_key("e")
