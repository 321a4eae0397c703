"""Tables as data sets: from files to arrays, in memory and through the cache."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from flat_sources import load_table

from trainkit.data.cache import list_entries
from trainkit.data.dataset import Dataset
from trainkit.data.tables import SplitColumn, TableOptions, first_pass, load, reading, text
from trainkit.errors import DataError, ProblemsError


def make(path, rows=300, seed=0):
    """Numbers with gaps, categories, dates, an index and a target with gaps."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "" if path.suffix == ".csv" else "index": np.arange(rows),
            "size": np.round(rng.normal(1.7e9, 100, rows), 2),
            "town": rng.choice(["Ulm", "Bonn", "Köln"], rows),
            "flag": rng.choice([True, False], rows),
            "day": (np.datetime64("2024-01-01") + rng.integers(0, 90, rows).astype("timedelta64[D]")).astype(str),
            "same": ["x"] * rows,
            "y": rng.choice(["a1", "a2", "a10"], rows),
        }
    )
    gaps = {
        name: pl.when(pl.Series(rng.random(rows) < 0.1)).then(None).otherwise(pl.col(name)) for name in frame.columns
    }
    frame = frame.with_columns(gaps["size"].alias("size"), gaps["town"].alias("town"), gaps["y"].alias("y"))
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return frame


def opened(path, *, val_fraction=0.1, test_fraction=0.2, **options):
    known = {name: options.pop(name) for name in ("cache_dir", "save", "test_path") if name in options}
    options = TableOptions(**{"target": ["y"], **options})
    return load_table(
        str(path), options=options, val_fraction=val_fraction, test_fraction=test_fraction, seed=0, **known
    )


def same(one, other):
    assert one.parts.keys() == other.parts.keys()
    for name, part in one.parts.items():
        np.testing.assert_array_equal(part.inputs, other.parts[name].inputs)
        np.testing.assert_array_equal(part.targets, other.parts[name].targets)
    assert one.table_encoding == other.table_encoding
    assert (one.notes, one.columns, one.fingerprint) == (other.notes, other.columns, other.fingerprint)


def test_the_inputs_are_the_cells(tmp_path):
    frame = make(tmp_path / "t.csv").filter(pl.col("y").is_not_null())
    data = opened(tmp_path / "t.csv")
    assert data.class_names == ("a1", "a2", "a10")
    assert data.feature_names == ("size", "flag", "day.time", "day.month", "day.day", "day.weekday", "town")
    inputs = {name: data.parts["all"].inputs[:, place] for place, name in enumerate(data.feature_names)}
    encoding = data.table_encoding
    assert encoding is not None
    offset = encoding["inputs"][0]["offset"]
    assert offset == pytest.approx(1.7e9, abs=500)
    size = frame["size"].to_numpy()
    np.testing.assert_allclose(inputs["size"].astype(np.float64) + offset, size, rtol=0, atol=1e-2)
    np.testing.assert_array_equal(inputs["flag"], frame["flag"].cast(pl.Float32))
    np.testing.assert_array_equal(inputs["day.month"], frame["day"].str.to_date().dt.month())
    codes = frame["town"].replace_strict(["Bonn", "Köln", "Ulm"], [0, 1, 2], default=3)
    np.testing.assert_array_equal(inputs["town"], codes)
    assert encoding["inputs"][-1] == {"name": "town", "column": "town", "categories": 3, "own": True}
    labels = frame["y"].replace_strict(["a1", "a2", "a10"], [0, 1, 2])
    np.testing.assert_array_equal(data.parts["all"].targets, labels)
    assert sum(len(split) for split in data.splits.values()) == len(frame)
    notes = " ".join(data.notes)
    assert f"{300 - len(frame)} rows without a target are left out" in notes
    assert (
        "left out: Unnamed: 0 (id-like: 300 different whole numbers, named 'Unnamed: 0'), same (constant: x)" in notes
    )


def test_a_table_from_the_cache_is_the_same_and_no_file_is_read(tmp_path, monkeypatch):
    make(tmp_path / "t.csv")
    first = opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache")
    monkeypatch.setattr(load, "_read", lambda *_: pytest.fail("the file was read again"))
    same(first, opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache"))
    with pytest.raises(pytest.fail.Exception):
        opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache", unseen="refuse")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_larger_than_memory_goes_through_the_cache_block_by_block(tmp_path, monkeypatch, name):
    make(tmp_path / name, rows=3000)
    make(tmp_path / f"test_{name}", rows=100, seed=1)
    more = {"test_path": str(tmp_path / f"test_{name}")}
    whole = opened(tmp_path / name, **more)
    for module in (text, reading):
        monkeypatch.setattr(module, "BLOCK_BYTES", 10_000, raising=False)
    monkeypatch.setattr(first_pass, "KEPT_BYTES", 1000)
    streamed = opened(tmp_path / name, cache_dir=tmp_path / "cache", **more)
    same(whole, streamed)
    assert isinstance(streamed.parts["train"].inputs, np.memmap)
    assert len(list_entries(tmp_path / "cache")) == 1
    same(whole, opened(tmp_path / name, cache_dir=tmp_path / "cache", **more))


@pytest.mark.parametrize("more", [{}, {"split": SplitColumn("time", "day")}, {"test_path": "test.csv"}])
def test_what_follows_from_the_rows_of_a_large_table_is_computed_once(tmp_path, monkeypatch, more):
    make(tmp_path / "t.csv")
    make(tmp_path / "test.csv", seed=1)
    more = {name: str(tmp_path / value) if name == "test_path" else value for name, value in more.items()}
    fresh = opened(tmp_path / "t.csv", **more)
    counts = {name: fresh.class_counts(name) for name in fresh.splits}
    monkeypatch.setattr(load, "LARGE_BYTES", 0)
    for _ in range(2):
        kept = opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache", **more)
        same(fresh, kept)
        assert list(kept.splits) == list(fresh.splits)
        for name, split in fresh.splits.items():
            np.testing.assert_array_equal(kept.splits[name].indices, split.indices)
            assert kept.class_counts(name) == counts[name]
        for function in ("split_table", "fingerprint_dataset", "with_gaps"):
            monkeypatch.setattr(load, function, lambda *_, **__: pytest.fail("computed again"))
        monkeypatch.setattr(Dataset, "split_targets", lambda *_, **__: pytest.fail("counted again"))
    with pytest.raises(pytest.fail.Exception):
        opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache", val_fraction=0.2, **more)


def test_the_splits_of_a_large_table_are_those_of_its_files_now(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "LARGE_BYTES", 0)
    for rows in (300, 200):
        make(tmp_path / "t.csv", rows=rows)
        same(opened(tmp_path / "t.csv"), opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache"))


def test_check_looks_at_the_beginning_of_a_large_table_and_says_so(tmp_path, monkeypatch):
    make(tmp_path / "t.csv", rows=3000)
    monkeypatch.setattr(text, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(first_pass, "KEPT_BYTES", 1000)
    monkeypatch.setattr(load, "_MOST_BLOCKS", 2)
    data = opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache", save=False)
    assert not (tmp_path / "cache").exists()
    rows = len(data.parts["all"])
    assert 100 < rows < 1000
    assert f"looked at the first {rows:,} rows only; training reads all" in data.notes


def test_kinds_and_categories_come_from_the_training_file(tmp_path):
    make(tmp_path / "t.csv")
    (tmp_path / "test.csv").write_text("day,flag,size,town,y\n2025-02-03,TRUE,1e9,Rom,a2\n,maybe,x,Ulm,\n,,,,a1\n")
    data = opened(tmp_path / "t.csv", test_path=str(tmp_path / "test.csv"))
    inputs = data.parts["test"].inputs
    assert len(inputs) == 2
    np.testing.assert_array_equal(inputs[:, -1], [3, 3])
    np.testing.assert_array_equal(inputs[1, :-1], [np.nan] * 6)
    assert inputs[0, 1] == 1
    notes = [note for note in data.notes if note.startswith("test file: ")]
    assert "test file: column 'town': 1 cell with values that the training did not have: 'Rom'" in notes
    with pytest.raises(DataError, match=r"test.csv:2: column 'town': 'Rom' is new"):
        opened(tmp_path / "t.csv", test_path=str(tmp_path / "test.csv"), unseen="refuse")


def test_every_wrong_name_is_said(tmp_path):
    make(tmp_path / "t.csv")
    with pytest.raises(ProblemsError) as error:
        opened(tmp_path / "t.csv", target=["Y"], columns={"towm": "ignore"}, features=["sise"])
    assert [problem.key for problem in error.value.problems] == [
        "dataset.target",
        "dataset.features",
        "dataset.columns",
    ]
    assert "did you mean 'town'?" in str(error.value)


def test_missing_cells_that_are_refused_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n" + "1,u,p\n2,,q\n,v,p\n" * 20)
    with pytest.raises(DataError) as error:
        opened(tmp_path / "t.csv", missing="refuse")
    lines = str(error.value).split("\n")
    assert lines[0].endswith("t.csv:3: column 'b': the cell is missing; fill it in, or set dataset.missing to impute")
    assert lines[1].startswith(str(tmp_path / "t.csv:4: column 'a'"))
    assert (len(lines), lines[-1]) == (11, "and 30 more")


def test_rows_without_a_target_are_not_filled_in_and_nothing_in_them_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n" + ",,\n1,u,p\n2,v,q\n" * 20 + ",,\n" * 5)
    for missing in ("impute", "refuse"):
        data = opened(tmp_path / "t.csv", missing=missing)
        assert len(data.parts["all"].inputs) == 40
        assert "25 rows without a target are left out" in " ".join(data.notes)
        assert not any("filled in" in note for note in data.notes)
    (tmp_path / "t.csv").write_text("a,b,y\n" + ",,\n1,u,p\n2,v,q\n" * 20 + "3,,p\n")
    with pytest.raises(DataError, match=r"t\.csv:62: column 'b': the cell is missing"):
        opened(tmp_path / "t.csv", missing="refuse")


def test_several_targets(tmp_path):
    rows = "".join(f"{n},{n / 2},{2 * n}\n" for n in range(40))
    (tmp_path / "t.csv").write_text("x,a,b\n" + rows + "1,,2\n")
    data = opened(tmp_path / "t.csv", target=["a", "b"])
    assert (data.task, data.target_names, data.parts["all"].targets.shape) == ("regression", ("a", "b"), (40, 2))


TARGETS = [
    (["1", "1.0", "01", "2"], "classification", ("1", "2")),
    (["True", "TRUE", "false"], "classification", ("false", "true")),
    (["10", "9", "1"], "classification", ("1", "9", "10")),
    (["x", "y", "x"], "classification", ("x", "y")),
    (["1.5", "2", "3"], "regression", ()),
    ([str(3 * n) for n in range(30)], "regression", ()),
]


@pytest.mark.parametrize(("cells", "task", "classes"), TARGETS)
@pytest.mark.parametrize("times", [10, 200])
def test_the_task_does_not_depend_on_the_number_of_rows(tmp_path, cells, task, classes, times):
    rows = [f"{n % 7},{cell}\n" for n, cell in enumerate(cells * times)]
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(rows))
    data = opened(tmp_path / "t.csv")
    assert (data.task, data.class_names) == (task, classes)


BAD_TARGETS = [
    ([str(n) for n in range(40)], "say whether they are values (task: regression) or classes"),
    ([*map(str, range(0, 90, 3)), "x"], "holds numbers, but 5 cells are none: 'x'"),
    (["2024-01-01", "2024-02-01"], "holds dates"),
    (["", "NA"], "all cells of the target 'y' are missing"),
    (["7", "7"], "has one class, '7'"),
]


@pytest.mark.parametrize(("cells", "message"), BAD_TARGETS)
def test_targets_that_cannot_be_told(tmp_path, cells, message):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{n % 7},{cell}\n" for n, cell in enumerate(cells * 5)))
    with pytest.raises(ProblemsError) as error:
        opened(tmp_path / "t.csv")
    assert message in str(error.value)


def rows_of(path, *rows):
    path.write_text("shop,x,y\n" + "\n".join(rows) + "\n")
    return path


def test_the_header_once_more_between_rows_is_an_error_with_its_lines(tmp_path):
    rows = ["n,1,a", "s,2,b"] * 20
    path = rows_of(tmp_path / "t.csv", *rows, "shop,x,y", *rows, "shop , x, y", *rows)
    with pytest.raises(DataError, match=r"t.csv:42, .*t.csv:83: these 2 lines repeat the header; delete them"):
        opened(path, header=True)
    rows_of(path, *rows, "shop,x,b", *[row.replace("a", "y") for row in rows])
    with pytest.raises(ProblemsError, match="'x'"):  # a row with some of the names is none
        opened(path, header=True)


def test_a_last_row_that_may_be_a_total_is_said(tmp_path):
    rows = ["n,1,a", "s,2,b"] * 20
    [note] = [note for note in opened(rows_of(tmp_path / "t.csv", *rows, "Total:,60,a")).notes if "total" in note]
    assert note.endswith("t.csv:42) has 'Total:' in 'shop': if it holds totals, delete it")
    for last in (["average,60,a", "n,1,a"], ["sum,1,a", "sum,1,b"]):
        notes = opened(rows_of(tmp_path / "t.csv", *rows, *last)).notes
        assert not any("total" in note for note in notes), last


def test_totals_among_the_rows_and_gaps_of_merged_cells_are_said(tmp_path):
    rows = [*["n,1,a", "n,2,b"] * 10, "North Total,30,a", *["s,1,a", "s,2,b"] * 10, "Total,60,b", "w,1,a"]
    [note] = [note for note in opened(rows_of(tmp_path / "t.csv", *rows)).notes if "totals" in note]
    assert note == "'shop' has 'North Total', 'Total': if such rows hold totals of others, delete them"
    rows = ["n,1,a", *[",2,b", ",3,a"] * 10, "s,1,a", *[",2,b", ",3,a"] * 10]
    [note] = [note for note in opened(rows_of(tmp_path / "t.csv", *rows)).notes if "merged" in note]
    assert note.startswith("'shop' has a value in 2 of 42 rows, each another one")
    for other in ("n,2,b", "came back after two weeks,2,b"):  # a value that repeats; a remark
        rows[1] = other
        assert not any("merged" in note for note in opened(rows_of(tmp_path / "t.csv", *rows)).notes)


def test_what_texts_may_have_been_meant_as_is_said(tmp_path):
    path = rows_of(tmp_path / "t.csv", *["5 kg,1,Low", "7 kg,2,low", "6 kg,3,high"] * 10)
    notes = opened(path).notes
    assert "shop is taken for text: numbers with the unit kg; write them without it" in notes
    assert "the classes 'Low', 'low' differ in upper and lower case only; write them alike if they are one" in notes


ORDERED = "the rows are in the order of 'day' and are held out at random; to score on later rows"


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (list(range(40)), True),
        (list(range(40))[::-1], True),  # the newest first
        ([day // 3 for day in range(40)], True),
        ([*range(39), 0], False),
        ([*range(20), None, *range(21, 40)], False),
        ([7] * 40, False),
        (list(range(19)), False),
    ],
)
def test_rows_in_the_order_of_a_date_are_noted(tmp_path, days, said):
    dates = [None if day is None else dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in days]
    frame = pl.DataFrame({"x": [1.5 * (place % 7) for place in range(len(days))], "day": dates})
    frame = frame.with_columns(y=pl.Series([place % 2 for place in range(len(days))]))
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        assert any(note.startswith(ORDERED) for note in opened(tmp_path / name).notes) == said
    if said:
        by_time = opened(tmp_path / "t.csv", split=SplitColumn("time", "day"))
        assert not any(note.startswith(ORDERED) for note in by_time.notes)
