"""The commands and options, as they are promised: a change is made on purpose, by writing surface.txt anew.

python tests/cli/test_surface.py > tests/cli/surface.txt
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from trainkit.cli.app import app

SURFACE = Path(__file__).with_name("surface.txt")


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child_name, child in sorted(getattr(command, "commands", {}).items()):
        yield from walk(child, f"{name} {child_name}")


def describe(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        word = (parameter.metavar or parameter.name).rstrip(".").upper()
        word = word[1:-1] if word.startswith("[") and word.endswith("]") else word
        return f"{word}{'...' if parameter.nargs == -1 else ''}" if parameter.required else f"[{word}]"
    names = "|".join((*parameter.opts, *parameter.secondary_opts))
    if parameter.is_flag:
        return names
    return f"{names} VALUE{'...' if parameter.multiple else ''}"


def surface() -> str:
    lines = []
    for name, command in walk(typer.main.get_command(app), "trainkit"):
        own = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
        words = [describe(p) for p in own if p.param_type_name == "argument"]
        options = sorted(describe(p) for p in own if p.param_type_name != "argument")
        lines.append(" ".join([name, *words]))
        lines += [f"    {option}" for option in options]
    return "\n".join(lines) + "\n"


def commands() -> list[tuple[str, Any]]:
    return list(walk(typer.main.get_command(app), "trainkit"))


def test_the_surface_is_frozen() -> None:
    assert surface() == SURFACE.read_text(), __doc__


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_option_says_what_it_does(name: str) -> None:
    command = dict(commands())[name]
    assert command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_has_a_short_option_and_its_lines_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    short, long = (CliRunner().invoke(app, [*name.split()[1:], option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout
    assert "..." not in short.stdout.partition("Commands:")[2]


def test_the_version_has_a_short_option() -> None:
    assert CliRunner().invoke(app, ["-V"]).stdout == CliRunner().invoke(app, ["--version"]).stdout != ""


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("chek", "check"), ("inspct", "inspect"), ("predct", "predict")]
)
def test_a_misspelled_command_suggests(typed: str, meant: str) -> None:
    done = CliRunner().invoke(app, [typed, "x.yaml"])
    assert done.exit_code == 2
    assert f"'{typed}'" in done.stderr
    assert f"'{meant}'" in done.stderr
    assert done.stdout == ""


def test_a_misspelled_option_suggests() -> None:
    done = CliRunner().invoke(app, ["train", "x.yaml", "--dry-rnu"])
    assert done.exit_code == 2
    assert "--dry-run" in done.stderr


if __name__ == "__main__":
    print(surface(), end="")
