"""Numbers that may stand for a missing value are said, and are missing where the config names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flat_sources import load_table

from trainkit.data.dataset import Dataset
from trainkit.data.tables import SplitColumn, TableOptions

X = np.linspace(5, 35, 61).round(1).tolist()


def load(path: Path, **options: object) -> Dataset:
    return load_table(
        str(path),
        options=TableOptions(target=["y"], **options),  # type: ignore[arg-type]
        val_fraction=0.1,
        test_fraction=0.1,
        seed=0,
    )


def write(folder: Path, column: list[object], kind: str = "csv", target: list[object] | None = None) -> Path:
    path = folder / f"t.{kind}"
    y = target or [0.5 + index for index in range(len(column))]
    frame = pl.DataFrame({"x": column, "k": [1, 2] * (len(column) // 2) + [1] * (len(column) % 2), "y": y})
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    return path


def said(data: Dataset) -> list[str]:
    return [note for note in data.notes if "may mean that the value is missing" in note]


FOUND: list[tuple[list[object], str]] = [
    ([*X, -999, -999], "-999.0"),
    ([*X, -9999, -9999, -9999], "-9999.0"),
    ([*X, 9999.9, 9999.9], "9999.9"),
    ([*map(int, X), 99, 99], "99"),
    ([1, 2, 3, 4] * 10 + [-9, -9], "-9"),
    ([value * 1000 for value in map(int, X)] + [-999, -999], "-999"),  # no negative one beside it
    ([*X, -200, -200, -200], "-200.0"),
    ([*range(18, 79), -1, -1, -1], "-1"),  # ages
    ([str(value).replace(".", ",") for value in X] + ["-999,0"] * 2, "-999,0"),
]
USUAL: list[list[object]] = [
    X,
    [*X, -999],  # once
    [value - 20 for value in X],
    [0, 1] * 20 + [-1, -1],
    [1, 2, 3, 4, 5, 99, 99, 150] * 5,
    [9, 19, 49, 99, 99, 199, 299] * 5,  # prices
    [-999, -998, -997, -996] * 5,
    [5, -999] * 10,
    [*map(int, X), -1, -1, -1],
    [*range(1000), -1, -1, -1],
]


@pytest.mark.parametrize(("column", "spelled"), FOUND)
def test_a_number_far_from_the_others_may_mean_missing(tmp_path: Path, column: list[object], spelled: str) -> None:
    path = write(tmp_path, column)
    [note] = said(load(path))
    assert f"in x ({column.count(column[-1])} cells; all others from " in note
    assert note.endswith(f"if so, write missing_values: ['NA', '{spelled}'], which holds for all columns")
    data = load(path, missing_values=["NA", spelled])
    assert not said(data)
    assert any(f"missing cells are filled in: x {column.count(column[-1])}" in note for note in data.notes)


@pytest.mark.parametrize("column", USUAL)
def test_usual_numbers_are_not_named(tmp_path: Path, column: list[object]) -> None:
    assert said(load(write(tmp_path, column))) == []


def test_targets_and_numbers_of_parquet_are_looked_at_too(tmp_path: Path) -> None:
    path = write(tmp_path, [*X, 1], target=[*X, -999])
    assert said(load(path)) == []
    path = write(tmp_path, [*X, -999, -999], "parquet", target=[*X, -99, -99])
    [note] = said(load(path))
    assert note.startswith("-999 in x (2 cells; all others from 5 to 35), -99 in y (2 cells; all others from 5 to 35)")
    data = load(path, missing_values=["-999", "-99"])
    assert "2 rows without a target are left out" in " ".join(data.notes)


def test_a_whole_number_is_missing_as_a_float_too(tmp_path: Path) -> None:
    path = write(tmp_path, [*map(str, X), "-999", "-999.0"])
    assert any("x 2" in note for note in load(path, missing_values=["-999"]).notes)


def test_a_column_that_counts_the_rows_is_named(tmp_path: Path) -> None:
    def counters(column: list[object], kind: str = "csv") -> list[str]:
        return [note for note in load(write(tmp_path, column, kind)).notes if "goes up by one" in note]

    rows = list(range(10001, 10061))
    for kind in ("csv", "parquet"):
        [note] = counters([*rows], kind)
        assert note == "x goes up by one from row to row (10001, 10002 ...); if it is an id, write columns: {x: ignore}"
    assert not counters(rows[::-1])
    assert not counters([*rows[:30], *rows[31:], rows[30]])
    assert not counters([*rows[:-1], rows[-1] + 1])
    assert not counters([*rows[:-1], None])
    assert not counters([*range(19)])


def test_names_that_look_alike_are_told(tmp_path: Path) -> None:
    names = ["red apple", "red\u00a0apple", "pear", "Pear", "plum"]
    lines = [f"{index % 7},{names[index % 5]},{names[(index * 2) % 5]}" for index in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,city,y", *lines]), encoding="utf-8")
    notes = " ".join(load(tmp_path / "t.csv").notes)
    for what in ("the classes {}", "the values {} of city"):
        spaces, cases = what.format(r"'red apple', 'red\xa0apple'"), what.format("'Pear', 'pear'")
        assert f"{spaces} differ in white space only; write them alike if they are one" in notes
        assert f"{cases} differ in upper and lower case only; write them alike if they are one" in notes


def test_words_for_true_of_several_pairs_are_told(tmp_path: Path) -> None:
    def mixed(words: list[str]) -> list[str]:
        rows = [f"{words[index % len(words)]},{index % 7},{words[(index * 5) % len(words)]}" for index in range(60)]
        (tmp_path / "t.csv").write_text("\n".join(["smokes,x,y", *rows]))
        return [note for note in load(tmp_path / "t.csv").notes if "seem to mean true" in note]

    label, value = mixed(["Yes", "no", "TRUE", "N"])
    assert label == "the classes 'TRUE', 'Yes' seem to mean true, and 'N', 'no' false; write them alike"
    assert value == "the values 'TRUE', 'Yes' of smokes seem to mean true, and 'N', 'no' false; write them alike"
    assert not mixed(["Yes", "no", "y", "1"]), "one pair is read as true and false"
    assert not mixed(["T", "F", "Y"])
    assert not mixed(["yes", "no", "maybe"])


def test_rows_of_the_training_in_other_splits_are_counted(tmp_path: Path) -> None:
    def repeated(rows: list[str]) -> list[str]:
        (tmp_path / "t.csv").write_text("\n".join(["x,k,y", *rows]))
        return [note for note in load(tmp_path / "t.csv").notes if "in the training split too" in note]

    rows = [f"{index * 0.37:.2f},{'abc'[index % 3]},{index * 1.5}" for index in range(100)]
    assert not repeated(rows)
    test, val = repeated(rows * 3)
    assert test.startswith("30 of 30 rows of the test split are in the training split too, in all cells")
    assert val.startswith("27 of 27 rows of the val split are")
    assert not repeated([*rows, *(row.replace(",", ",other ", 1) for row in rows)]), "others in one cell"
    assert not repeated([f"{index % 5},{'abc'[index % 3]},{index % 2}.5" for index in range(300)]), "by chance"


def test_targets_far_from_all_others_are_told(tmp_path: Path) -> None:
    def far(target: list[object]) -> list[str]:
        return [note for note in load(write(tmp_path, [*X], target=target)).notes if "far from the others" in note]

    usual: list[object] = [*X]
    assert not far(usual)
    [note] = far([1e7 if index in range(5, 60, 6) else value for index, value in enumerate(usual)])
    assert note.startswith("y: ")
    assert "such as 1e+07 (half of the others are from " in note


def test_a_column_that_names_groups_is_told(tmp_path: Path) -> None:
    def groups(name: str, values: list[object], **options: object) -> list[str]:
        rows = [f"{value},{index % 7},{index / 3:.2f}" for index, value in enumerate(values)]
        (tmp_path / "t.csv").write_text("\n".join([f"{name},x,y", *rows]))
        return [note for note in load(tmp_path / "t.csv", **options).notes if "type: group" in note]

    words: list[object] = [f"P{index // 4}" for index in range(80)]
    [note] = groups("patient", words)
    assert note.endswith("write split: {type: group, column: 'patient'}")
    assert groups("customer_id", [index // 4 for index in range(80)])
    assert not groups("color", words)
    assert not groups("customer_id", [index // 40 for index in range(80)])
    assert not groups("patient", words, split=SplitColumn(type="group", column="patient"))


def test_a_column_that_says_the_splits_is_told(tmp_path: Path) -> None:
    def told(words: list[str], **options: object) -> list[str]:
        rows = [f"{words[index % len(words)]},{index % 7},{index / 3:.2f}" for index in range(80)]
        (tmp_path / "t.csv").write_text("\n".join(["part,x,y", *rows]))
        return [note for note in load(tmp_path / "t.csv", **options).notes if "type: column" in note]

    [note] = told(["Train", "train", "valid", "test"])
    assert note.endswith("is a feature here; to split by it, write split: {type: column, column: 'part'}")
    assert not told(["train", "bus", "test"])
    assert not told(["train", "test"], split=SplitColumn(type="column", column="part"))


NAMED: list[tuple[str, list[object], str]] = [
    ("sample_weight", [50.5, 20.0], "is a feature; if it says how much each row counts, write weight: 'sample_weight'"),
    ("Weight", [0.5, 2.0], "is a feature; if it says how much each row counts, write weight: 'Weight'"),
    ("weight", [50.5, 90.0], ""),  # of a person
    ("weight", [-0.5, 1.0], ""),
    ("weight_kg", [0.5, 1.0], ""),
    ("order date", [44927, 45320], "is read as numbers (44927 to 45320), which may be days as spreadsheets count them"),
    ("datum", [45000.5, 45001.25], "is read as numbers (45000.5 to 45001.25), which may be days"),
    ("update", [44927, 45320], ""),
    ("date", [3, 17], ""),
    ("order_id", ["1E+05", "1.2E+11"], "has cells such as 1"),
    ("price", ["1E+05", "1.2E+11"], ""),
]


@pytest.mark.parametrize(("name", "values", "expected"), NAMED)
def test_names_that_say_what_numbers_may_mean_are_told(tmp_path, name, values, expected):
    path = tmp_path / "t.csv"
    rows = [f"{values[row % 2]},{row * 7 % 40 + 0.5},{row * 3 % 50 + 0.5}" for row in range(40)]
    path.write_text("\n".join([f"{name},x,y", *rows]))
    found = [note for note in load(path).notes if note.startswith(f"{name} ")]
    assert [note for note in found if "is taken for" not in note and f"{name} {expected}" not in note] == []
    assert bool(found) == bool(expected)
