"""CSV tables: features by name, categories, classes, and every bad cell by file and row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.dataset import Dataset
from trainkit.data.sources import csv_reader
from trainkit.data.sources.tables import load_csv
from trainkit.errors import DataError, ProblemsError

HEADER = "age,color,label"
GOOD = "\n".join(
    [HEADER, *(f"{index / 4},{('red', 'blue')[index % 2]},{('no', 'yes')[index % 3 == 0]}" for index in range(60))]
)


def load(path: Path, text: str | None = None, **changes: Any) -> Dataset:
    if text is not None:
        path.write_text(text)
    knobs = {"target": "label", "categorical": ["color"], "val_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
    return load_csv(path, **(knobs | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def arrays(data: Dataset, part: str = "all") -> tuple[np.ndarray, np.ndarray]:
    inputs = data.parts[part].inputs
    assert isinstance(inputs, np.ndarray)
    return inputs, data.parts[part].targets


def test_numbers_stay_and_categories_are_one_hot(path: Path) -> None:
    data = load(path, GOOD)
    inputs, targets = arrays(data)
    assert data.feature_names == ("age", "color=blue", "color=red")
    assert data.class_names == ("no", "yes")
    assert (data.kind, data.task, data.input_shape) == ("table", "classification", (3,))
    assert inputs.dtype == np.float32
    assert inputs[:3].tolist() == [[0, 0, 1], [0.25, 1, 0], [0.5, 0, 1]]
    assert targets[:4].tolist() == [1, 0, 0, 1]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 43, "test": 12, "val": 5}
    assert data.notes == (
        "label is taken for classification: it holds 2 different values, and no numbers with fractions",
    )


def test_quoted_and_plain_files_are_read_alike(path: Path) -> None:
    quoted = "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in GOOD.splitlines())
    assert load(path, quoted).fingerprint == load(path, GOOD).fingerprint


@pytest.mark.parametrize(
    "dressed",
    ["﻿" + GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace(",", " , "), GOOD.replace("\n", "\n\n"), GOOD + "\n\n"],
)
def test_boms_line_ends_blanks_and_empty_lines_do_not_matter(path: Path, dressed: str) -> None:
    path.write_bytes(dressed.encode())
    assert load(path).fingerprint == load(path, GOOD).fingerprint


def test_chosen_columns_in_the_chosen_order_and_another_delimiter(path: Path) -> None:
    text = "id;b;a;label\n" + "\n".join(f"x{index};{index};{-index};{index % 2}" for index in range(40))
    data = load(path, text, features=["a", "b"], categorical=[], delimiter=";")
    assert data.feature_names == ("a", "b")
    assert arrays(data)[0][3].tolist() == [-3, 3]


def test_classes_that_are_numbers_are_ordered_as_numbers(path: Path) -> None:
    text = "a,label\n" + "\n".join(f"{index},{(10, 9, 2)[index % 3]}" for index in range(60))
    assert load(path, text, categorical=[]).class_names == ("2", "9", "10")


def test_regression(path: Path) -> None:
    text = "a,label\n" + "\n".join(f"{index},{index / 3:.3f}" for index in range(60))
    data = load(path, text, categorical=[])
    assert (data.task, data.target_names, data.class_names) == ("regression", ("label",), ())
    assert arrays(data)[1].shape == (60, 1)
    assert arrays(data)[1][2, 0] == 0.667, "in float64: the model sees it centered"


def test_many_whole_numbers_are_not_guessed(path: Path) -> None:
    text = "a,label\n" + "\n".join(f"{index},{index}" for index in range(60))
    with pytest.raises(ProblemsError, match="60 different whole numbers in 60 rows") as caught:
        load(path, text, categorical=[])
    assert caught.value.problems[0].key == "dataset.task"
    assert load(path, text, categorical=[], task="regression").target_names == ("label",)


def test_a_test_file_has_a_part_of_its_own(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "test.csv"
    other.write_text("label,age,color,more\nyes,1,blue,x\nno,2,red,y\n")
    data = load(path, GOOD, test_path=other)
    assert list(data.parts) == ["train", "test"]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 54, "val": 6, "test": 2}
    assert arrays(data, "test")[0].tolist() == [[1, 1, 0], [2, 0, 1]]
    assert arrays(data, "test")[1].tolist() == [1, 0]


def test_what_only_the_test_file_has_is_an_error(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "test.csv"
    other.write_text("age,color,label\n1,green,yes\n2,red,maybe\n")
    with pytest.raises(DataError) as caught:
        load(path, GOOD, test_path=other)
    assert str(caught.value).splitlines() == [
        f"{other}:2: column 'color': 'green' is not one of the training table's values ('blue', 'red')",
        f"{other}:3: column 'label': the label 'maybe' is not one of the training table's ('no', 'yes')",
    ]
    other.write_text("age,label\n1,yes\n")
    with pytest.raises(ProblemsError, match="no column 'color'") as problem:
        load(path, GOOD, test_path=other)
    assert problem.value.problems[0].key == "dataset.test_path"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,red,", "column 'label': the label is blank"),
        (",red,yes", "column 'age': the cell is empty"),
        ("1,,yes", "column 'color': the cell is empty"),
        (
            "x,red,yes",
            "column 'age': 'x' is not a number; if the column holds categories, name it in dataset.categorical",
        ),
        ("nan,red,yes", "column 'age': nan is not a finite number"),
        ("-inf,red,yes", "column 'age': -inf is not a finite number"),
        ("1e39,red,yes", "column 'age': 1e+39 does not fit into 32-bit"),
        ("1_000,red,yes", "column 'age': '1_000' is not a number"),
        ("1,red", "2 cells, but the header has 3"),
        ("1,red,yes,4", "4 cells, but the header has 3"),
        ('"1\n2",red,yes', "column 'age': '1\\n2' is not a number"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_bad_cell_is_named_with_file_and_line(path: Path, row: str, message: str, quoted: bool) -> None:
    first = '"0",red,no' if quoted else "0,red,no"
    line = 65 + row.count("\n")
    with pytest.raises(DataError) as caught:
        load(path, f"{GOOD}\n{first}\n\n\n{row}\n1,blue,no\n")
    assert str(caught.value).startswith(f"{path}:{line}: {message}")


def test_ten_bad_rows_and_the_count_in_the_order_of_the_file(path: Path) -> None:
    rows = [("x,red,yes", "1,red,", ",blue,no")[index % 3] for index in range(25)]
    with pytest.raises(DataError) as caught:
        load(path, "\n".join([GOOD, *rows]))
    lines = str(caught.value).splitlines()
    assert [int(line.split(":")[1]) for line in lines[:10]] == list(range(62, 72))
    assert lines[10:] == ["and 15 more"]


def test_bad_cells_far_down_have_the_right_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "_CHUNK_ROWS", 7)
    with pytest.raises(DataError, match=r"table.csv:62: .*'x' is not a number"):
        load(path, GOOD + "\nx,red,yes")
    assert len(load(path, GOOD + '\n"1",red,yes').parts["all"]) == 61


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a header line"),
        (HEADER, "has a header but no rows"),
        (HEADER + "\n\n\n", "has a header but no rows"),
        ("age,age,label\n1,2,3", r":1: the column 'age' is there twice \(columns 1 and 2\)"),
        ("age,,label\n1,2,3", ":1: column 2 has no name"),
        (GOOD + '\n1,"red,no', ":62: not a CSV file"),
        ("age,color,label\n1,red,a\n2,blue,a", "the target 'label' has one class, 'a'"),
        (
            "age,color,label\n" + "\n".join(f"1,red,name{index}" for index in range(1001)),
            "1001 different values in 1001",
        ),
        (
            "age,color,label\n" + "\n".join(f"1,c{index},{index % 2}" for index in range(1001)),
            "'color' has 1001 different",
        ),
    ],
)
def test_tables_that_cannot_be_used(path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(path, text)


def test_labels_with_a_fraction_are_no_classes(path: Path) -> None:
    with pytest.raises(DataError, match=r"table.csv:3: column 'label': the label 1.5 has a fraction"):
        load(path, "a,label\n1,1\n2,1.5\n3,2", categorical=[], task="classification")


def test_bytes_that_are_not_utf8(path: Path) -> None:
    path.write_bytes(GOOD.encode() + b"\n1,r\xff,no")
    with pytest.raises(DataError, match=r"not UTF-8 .*near line"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"target": "lable"}, "dataset.target", "no column 'lable'; did you mean 'label'?"),
        ({"target": "zzz"}, "dataset.target", "no column 'zzz'; the columns are 'age', 'color', 'label'"),
        ({"features": ["age", "colour"], "categorical": []}, "dataset.features", "did you mean 'color'?"),
        ({"categorical": ["Color"]}, "dataset.categorical", "did you mean 'color'?"),
    ],
)
def test_mistakes_in_column_names_are_problems_of_their_key(
    path: Path, changes: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ProblemsError) as caught:
        load(path, GOOD, **changes)
    [problem] = [problem for problem in caught.value.problems if problem.key == key]
    assert message in problem.message


@pytest.mark.parametrize(
    "changes",
    [
        {"features": ["age", "age"], "categorical": []},
        {"features": ["age", "label"], "categorical": []},
        {"features": ["age"]},
    ],
)
def test_names_that_contradict_each_other_are_refused(path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="columns that are the target, named twice or no features"):
        load(path, GOOD, **changes)


def test_all_mistakes_in_names_come_together(path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        load(path, GOOD, target="lable", features=["agee"], categorical=["colr"])
    assert [problem.key for problem in caught.value.problems][:3] == [
        "dataset.target",
        "dataset.features",
        "dataset.categorical",
    ]


def test_a_wrong_delimiter_is_guessed(path: Path) -> None:
    with pytest.raises(ProblemsError, match="is it separated by ';'") as caught:
        load(path, GOOD.replace(",", ";"))
    assert caught.value.problems[0].key == "dataset.delimiter"


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_missing_file_is_a_problem_of_its_key(path: Path, make: Any) -> None:
    make(path)
    with pytest.raises(ProblemsError, match=r"table.csv (does not exist|is not a file)") as caught:
        load(path)
    assert caught.value.problems[0].key == "dataset.path"


cells = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(["", "x", "nan", "1_0", " 3 ", "inf", "0x10", "1e5", "+2", "１"]),
)


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.tuples(cells, cells, st.sampled_from(["a", "b", "", " a"])), min_size=1, max_size=8))
def test_every_cell_is_a_number_or_named_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    path.write_text("\n".join(["x,y,z", *(",".join(row) for row in rows)]) + "\n")

    def read(chunk_rows: int) -> csv_reader.Table:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_reader, "_CHUNK_ROWS", chunk_rows)
            return csv_reader.read_table(path, lambda *_: (["x", "y"], ["z"]), delimiter=",")

    whole, pieces = read(100), read(3)
    for column, name in enumerate(("x", "y")):
        values = [csv_reader.as_number(row[column]) for row in rows]
        assert np.array_equal(whole.numbers[name], np.array(values, dtype=float), equal_nan=True)
        assert whole.odd_cells[name] == {at: rows[at][column].strip() for at, it in enumerate(values) if it is None}
        assert np.array_equal(whole.numbers[name], pieces.numbers[name], equal_nan=True)
    assert whole.texts == pieces.texts == {"z": [row[2].strip() for row in rows]}
    assert whole.odd_cells == pieces.odd_cells
    assert whole.lines.tolist() == pieces.lines.tolist() == list(range(2, 2 + len(rows)))
