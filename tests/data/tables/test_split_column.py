"""Splits by a column of a table, from files."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from flat_sources import load_table

from trainkit.data.tables import SplitColumn, TableOptions, first_pass, load, reading, text
from trainkit.errors import DataError, ProblemsError


def make(path, rows=240, seed=0, **columns):
    rng = np.random.default_rng(seed)
    days = np.datetime64("2024-01-01") + rng.integers(0, 60, rows).astype("timedelta64[D]")
    frame = pl.DataFrame(
        {
            "row": np.arange(rows) % 7 + np.arange(rows) / 1000,
            "patient": [f"p{number}" for number in rng.integers(0, 24, rows)],
            "day": days.astype(str),
            "fold": np.arange(rows) % 5,
            "part": np.array(["Train", "train", "TRAINING", "valid", "test"])[np.arange(rows) % 5],
            "y": np.array(["a", "b"])[rng.integers(0, 2, rows)],
        }
    ).with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return frame


def opened(path, split, *, seed=0, val_fraction=0.1, test_fraction=0.2, cache_dir=None, save=True, **more):
    known = {"test_path": more.pop("test_path")} if "test_path" in more else {}
    options = TableOptions(target=["y"], split=SplitColumn(**split), **more)
    return load_table(
        str(path),
        options=options,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        cache_dir=cache_dir,
        save=save,
        **known,
    )


def owned(data, values):
    """The values of each split."""
    return {name: set(np.asarray(values)[split.indices].tolist()) for name, split in data.splits.items()}


GROUP, TIME = {"type": "group", "column": "patient"}, {"type": "time", "column": "day"}
FOLD = {"type": "column", "column": "fold", "val": [3], "test": [4]}
NAMES = {"type": "column", "column": "part"}
ALL = [GROUP, TIME, FOLD, NAMES]


@pytest.mark.parametrize("split", ALL)
def test_files_of_any_kind_from_the_cache_and_in_blocks_have_the_same_splits(tmp_path, monkeypatch, split):
    frame = make(tmp_path / "t.csv", rows=2000)
    make(tmp_path / "t.parquet", rows=2000)
    data = opened(tmp_path / "t.csv", split, cache_dir=tmp_path / "cache")
    again = opened(tmp_path / "t.csv", split, cache_dir=tmp_path / "cache")
    typed = opened(tmp_path / "t.parquet", split)
    monkeypatch.setattr(text, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 10_000, raising=False)
    monkeypatch.setattr(first_pass, "KEPT_BYTES", 1000)
    streamed = opened(tmp_path / "t.csv", split, cache_dir=tmp_path / "other")
    assert split["column"] not in {name.partition(".")[0] for name in data.feature_names}
    assert data.notes == again.notes == streamed.notes
    assert data.fingerprint == again.fingerprint == streamed.fingerprint
    for other in (again, typed, streamed):
        for name, own in data.splits.items():
            np.testing.assert_array_equal(own.indices, other.splits[name].indices)
    assert sum(map(len, data.splits.values())) == len(frame)
    row = next(one for one in data.columns if one["name"] == split["column"])
    assert (row["kind"], row["reason"]) == ("ignore", "the rows are split by it")


def test_groups(tmp_path):
    frame = make(tmp_path / "t.csv")
    data = opened(tmp_path / "t.csv", GROUP)
    patients = owned(data, frame["patient"])
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == 24
    assert abs(len(data.splits["test"]) - 48) <= 5
    sizes = ", ".join(f"{name} {len(data.splits[name])} rows of {len(patients[name])} groups" for name in data.splits)
    assert sorted(sizes.split(", ")) == sorted(data.notes[-1].partition(": ")[2].split(", "))
    frame.sample(fraction=1, shuffle=True, seed=3).write_csv(tmp_path / "s.csv")
    shuffled = opened(tmp_path / "s.csv", GROUP)
    assert owned(shuffled, pl.read_csv(tmp_path / "s.csv")["patient"]) == patients
    assert owned(opened(tmp_path / "t.csv", GROUP, seed=1), frame["patient"]) != patients


def test_spellings_of_a_number_are_one_group(tmp_path):
    make(tmp_path / "t.csv", patient=[f"{n % 12}" if n % 2 else f"0{n % 12}.0" for n in range(240)])
    data = opened(tmp_path / "t.csv", GROUP)
    owners = [{int(n) % 12 for n in split.indices} for split in data.splits.values()]
    assert sum(map(len, owners)) == 12


def test_times(tmp_path):
    frame = make(tmp_path / "t.csv", day=[f"{1 + n % 28:02d}.{1 + n % 3:02d}.2024" for n in range(240)])
    data = opened(tmp_path / "t.csv", TIME)
    days = {name: frame["day"].str.to_date("%d.%m.%Y").gather(split.indices) for name, split in data.splits.items()}
    assert days["train"].max() < days["val"].min() <= days["val"].max() < days["test"].min()
    assert data.notes[-1] == (
        "the rows are split by the time in 'day': "
        + ", ".join(
            f"{name} {len(days[name])} rows from {days[name].min()} to {days[name].max()}"
            for name in ("train", "val", "test")
        )
    )


def test_numbers_are_times_too(tmp_path):
    frame = make(tmp_path / "t.csv", day=[1_700_000_000 + n // 4 for n in range(240)])
    data = opened(tmp_path / "t.csv", TIME)
    numbers = owned(data, frame["day"])
    assert max(numbers["train"]) < min(numbers["val"]) <= max(numbers["val"]) < min(numbers["test"])
    assert "from 1700000000 to" in data.notes[-1]


def test_the_form_of_dates_may_be_given(tmp_path):
    make(tmp_path / "t.csv", day=[f"0{1 + n % 9}/0{1 + n % 3}/2024" for n in range(240)])
    with pytest.raises(ProblemsError, match=r"can be read as %d/%m/%Y or %m/%d/%Y; say which"):
        opened(tmp_path / "t.csv", TIME)
    data = opened(tmp_path / "t.csv", TIME, columns={"day": "%d/%m/%Y"})
    assert "to 2024-03-09" in data.notes[-1]


def test_folds_and_names(tmp_path):
    frame = make(tmp_path / "t.csv")
    data = opened(tmp_path / "t.csv", FOLD)
    assert owned(data, frame["fold"]) == {"train": {0, 1, 2}, "val": {3}, "test": {4}}
    data = opened(tmp_path / "t.csv", NAMES)
    assert owned(data, frame["fold"]) == {"train": {0, 1, 2}, "val": {3}, "test": {4}}
    assert data.notes[-1] == "the rows are split by the values of 'part': train 144 rows, val 48 rows, test 48 rows"
    data = opened(tmp_path / "t.csv", {"type": "column", "column": "part", "val": ["TRAINING"]})
    assert owned(data, frame["part"]) == {"train": {"Train", "train", "valid", "test"}, "val": {"TRAINING"}}


@pytest.mark.parametrize("cells", [["TRUE", "false"], ["True", "False"], [True, False]])
def test_true_and_false_of_any_spelling(tmp_path, cells):
    for name in ("t.csv", "t.parquet"):
        frame = make(tmp_path / name, fold=[cells[n % 4 > 0] for n in range(240)])
        data = opened(tmp_path / name, {"type": "column", "column": "fold", "test": [True]})
        assert set(np.asarray(frame["fold"])[data.splits["test"].indices].tolist()) == {cells[0]}
        assert len(data.splits["test"]) == 60


def test_a_feature_only_where_it_is_named(tmp_path):
    make(tmp_path / "t.csv")
    data = opened(tmp_path / "t.csv", TIME, features=["row", "day"], columns={"day": "datetime"})
    assert "day.time" in data.feature_names
    assert "'day', by which the rows are split, is a feature too, as dataset.features says" in data.notes


def spoiled(make_cells, rows=240):
    return [make_cells(n) for n in range(rows)]


BAD = [
    (GROUP, "patient", spoiled(lambda n: None if n == 7 else "p"), "t.csv:9: column 'patient', by which the rows are "),
    (
        GROUP,
        "patient",
        spoiled(lambda n: "NA" if n == 7 else "p"),
        "the cell is missing; fill it in, or remove the row",
    ),
    (
        TIME,
        "day",
        spoiled(lambda n: "x" if n == 7 else n),
        "t.csv:9: column 'day', by which the rows are split: 'x' is ",
    ),
    (
        TIME,
        "day",
        spoiled(lambda n: f"w{n}"),
        "split by time takes numbers or dates, and 'day' holds 'w0', 'w1', 'w10'",
    ),
    (TIME, "day", spoiled(lambda n: 3), "1 different time is too few for the test split and for val and training"),
    (
        NAMES,
        "part",
        spoiled(lambda n: ["train", "old"][n % 2]),
        "expected train, val or test, got 'old'; name the values",
    ),
    (NAMES, "part", spoiled(lambda n: "test"), "no training sample would be left"),
    (FOLD, "fold", spoiled(lambda n: n % 4), "no row has the value '4' in the column 'fold'; write it as in the file"),
]


@pytest.mark.parametrize(("split", "column", "cells", "message"), BAD)
def test_columns_that_cannot_split(tmp_path, split, column, cells, message):
    frame = make(tmp_path / "t.csv")
    frame.with_columns(pl.Series(column, list(map(lambda cell: None if cell is None else str(cell), cells)))).write_csv(
        tmp_path / "t.csv"
    )
    with pytest.raises((ProblemsError, DataError)) as error:
        opened(tmp_path / "t.csv", split)
    assert message in str(error.value)


def test_rows_without_a_target_need_no_split(tmp_path):
    gap = np.arange(240) == 7
    labels = pl.Series(np.array(["a", "b"])[np.arange(240) % 2])
    make(tmp_path / "t.csv", patient=[None if n == 7 else f"p{n % 9}" for n in range(240)])
    frame = pl.read_csv(tmp_path / "t.csv")
    frame.with_columns(y=pl.when(pl.Series(gap)).then(None).otherwise(labels)).write_csv(tmp_path / "t.csv")
    assert len(opened(tmp_path / "t.csv", GROUP).parts["all"]) == 239


def test_a_test_file(tmp_path):
    frame = make(tmp_path / "t.csv")
    test_path = str(tmp_path / "test.csv")
    frame.write_csv(test_path)
    with pytest.raises(DataError, match=r"test.csv: 24 groups of 'patient' are in the training file too"):
        opened(tmp_path / "t.csv", GROUP, test_path=test_path)
    with pytest.raises(ProblemsError, match=r"48 rows of 'part' say test, and test_path is the test split"):
        opened(tmp_path / "t.csv", NAMES, test_path=test_path)
    for other in (frame.with_columns(patient=pl.lit("new")), frame.drop("patient")):
        other.write_csv(test_path)
        data = opened(tmp_path / "t.csv", GROUP, test_path=test_path)
        assert (data.splits["test"].part, len(data.splits["test"])) == ("test", 240)
        assert not any("in the training file too" in note for note in data.notes)
    features = {"features": ["row"], "test_path": test_path}
    assert opened(tmp_path / "t.csv", TIME, **features).splits.keys() == {"train", "val", "test"}


@pytest.mark.parametrize("large", [False, True])
def test_a_test_file_that_is_not_later_is_said(tmp_path, monkeypatch, large):
    make(tmp_path / "t.csv", day=["2024-02-29"] + ["2024-01-05"] * 100 + ["2024-01-06"] * 139)
    if large:
        monkeypatch.setattr(first_pass, "KEPT_BYTES", 1000)

    def noted(frame):
        frame.write_csv(tmp_path / "test.csv")
        more = {"test_path": str(tmp_path / "test.csv"), "cache_dir": tmp_path / "cache"}
        return [note for note in opened(tmp_path / "t.csv", TIME, **more).notes if note.startswith("test file")]

    later = make(tmp_path / "test.csv", day=["2024-03-01"] * 240)
    assert noted(later) == []
    days = pl.Series(["2024-02-29", "2024-02-01", "soon", None] + ["2024-03-01"] * 236)
    assert noted(later.with_columns(day=days)) == [
        "test file: of 240 rows 2 are not later in 'day' than the last of the training file (2024-02-29)",
        "test file: 2 rows without a time in 'day', so that nothing says whether they are later",
    ]
    assert noted(later.drop("day")) == [
        "test file: it has no column 'day', so that nothing says whether it is apart from the training file"
    ]


def test_the_beginning_of_a_large_table_need_not_show_its_splits(tmp_path, monkeypatch):
    make(tmp_path / "t.csv", rows=3000, fold=[n // 600 for n in range(3000)])
    monkeypatch.setattr(text, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(first_pass, "KEPT_BYTES", 1000)
    monkeypatch.setattr(load, "_MOST_BLOCKS", 2)
    data = opened(tmp_path / "t.csv", FOLD, cache_dir=tmp_path / "cache", save=False)
    assert "the rows that were read are not split by 'fold'" in data.notes
    data = opened(tmp_path / "t.csv", FOLD, cache_dir=tmp_path / "cache")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [1800, 600, 600]
