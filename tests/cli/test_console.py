"""Tables where stdout is no terminal: a row is a line. What a command proposes at its end."""

import shlex
from pathlib import Path

from typer.testing import CliRunner

from trainkit.cli import console
from trainkit.cli.app import app


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


def test_next_is_what_is_not_done_yet(tmp_path: Path) -> None:
    """The commands work as they are printed, and the second time the first of them is gone."""
    config = tmp_path / "c.yaml"
    config.write_text("dataset: digits\nmodel: mlp\ntraining: {epochs: 1}\n")
    first = CliRunner().invoke(app, ["train", str(config), "--run-dir", str(tmp_path / "my runs")])
    assert first.exit_code == 0, first.output
    assert "finished after 1 epoch in" in first.stdout
    commands = next_commands(first.stdout)
    assert [command[1] for command in commands] == ["resume", "export", "predict"]
    assert "eval" not in str(commands)
    second = CliRunner().invoke(app, commands[0][1:])
    assert second.exit_code == 0, second.output
    assert "export" in [command[1] for command in next_commands(second.stdout)]


def next_commands(stdout: str) -> list[list[str]]:
    lines = stdout[stdout.index("  next  ") :].splitlines()
    return [shlex.split(line.removeprefix("  next")) for line in lines]
