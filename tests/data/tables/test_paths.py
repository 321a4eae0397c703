"""One file, a pattern, a list, a folder of Parquet."""

import polars as pl
import pytest

from trainkit.data.tables import open_table
from trainkit.errors import DataError, ProblemsError


def read(path):
    return pl.concat([block.frame for block in open_table(path).blocks()])


def test_a_pattern_is_sorted_as_people_sort(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"part-{number}.csv").write_text(f"a,b\n{number},x\n")
    assert read(str(tmp_path / "part-*.csv"))["a"].to_list() == ["1", "2", "10"]
    assert read(str(tmp_path))["a"].to_list() == ["1", "2", "10"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "t[1].csv").write_text("a,b\n1,x\n")
    assert read(str(tmp_path / "t[1].csv"))["a"].to_list() == ["1"]


def test_a_folder_of_parquet_gives_columns_by_its_names(tmp_path):
    for year, name in (("2013", "a%20b"), ("2014", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"year={year}" / f"name={name}"
        folder.mkdir(parents=True)
        pl.DataFrame({"x": [1, 2]}).write_parquet(folder / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "notes.txt").write_text("no table")
    frame = read(str(tmp_path))
    assert frame.to_dict(as_series=False) == {
        "x": [1, 2, 1, 2],
        "year": [2013, 2013, 2014, 2014],
        "name": ["a b", "a b", None, None],
    }
    assert open_table(str(tmp_path)).place(2).endswith("part-0.parquet: row 1")


def test_types_of_several_files_are_joined(tmp_path):
    pl.DataFrame({"x": [1], "y": [None]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"y": ["a"], "x": [0.5]}).write_parquet(tmp_path / "2.parquet")
    assert read(str(tmp_path)).to_dict(as_series=False) == {"x": [1.0, 0.5], "y": [None, "a"]}
    pl.DataFrame({"y": ["a"], "x": [[1]]}).write_parquet(tmp_path / "3.parquet")
    with pytest.raises(DataError, match=r"3\.parquet: the column 'x' holds List\(Int64\), but Float64 in .*1\.parquet"):
        open_table(str(tmp_path))


def test_a_folder_of_several_tables_is_a_question(tmp_path):
    for name in ("test.csv", "train.csv"):
        (tmp_path / name).write_text("a,b\n1,x\n")
    with pytest.raises(ProblemsError, match=r"is a folder of 2 tables; give one of them.*'test\.csv', 'train\.csv'"):
        open_table(str(tmp_path))


def test_a_delta_table_is_refused(tmp_path):
    (tmp_path / "_delta_log").mkdir()
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "part-0.parquet")
    with pytest.raises(ProblemsError, match="is a Delta table, which keeps old rows among its files"):
        open_table(str(tmp_path))


def test_all_paths_that_are_wrong_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,x\n")
    (tmp_path / "no").mkdir()
    paths = ["https://x.y/z.csv", "no*.csv", "no", "gone.csv", "t.csv", "t.csv"]
    with pytest.raises(ProblemsError) as caught:
        open_table([path if "/" in path else str(tmp_path / path) for path in paths], key="dataset.path")
    lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert lines == [
        "dataset.path: https://x.y/z.csv is not on this machine; download it and give its path",
        "dataset.path: no file matches no*.csv",
        "dataset.path: no is a folder without tables; give the path of a table: CSV, TSV, Parquet or Arrow",
        "dataset.path: gone.csv does not exist; give the path of a table: CSV, TSV, Parquet or Arrow",
        "dataset.path: t.csv is there twice",
    ]
