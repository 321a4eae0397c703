"""Tables where stdout is no terminal: a row is a line."""

from trainkit.cli import console


def test_a_row_is_one_line_however_wide(capsys):
    name = "/a/very/long/path/" + "x" * 200 + "/image [red] 7.png"
    console.table("wrong", ["sample", "true", "probability"], [[name, "cat", 0.5], ["b", "dog", float("nan")]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "wrong"
    assert lines[1].split() == ["sample", "true", "probability"]
    assert lines[2] == f"  {name}   cat       0.5000"
    assert lines[3].split() == ["b", "dog", "-"]
    assert [line for line in lines if name in line] == [lines[2]]


def test_columns_stand_below_each_other(capsys):
    console.table(None, ["metric", "val"], [["loss", 12.5], ["accuracy", 0.25]])
    assert capsys.readouterr().out == "  metric        val\n  loss      12.5000\n  accuracy   0.2500\n\n"


def test_a_name_with_a_line_break_stays_one_row(capsys):
    console.table(None, ["file", "x"], [["two\nlines", "b"], ["c"]])
    assert capsys.readouterr().out == "  file       x\n  two lines  b\n  c\n\n"
