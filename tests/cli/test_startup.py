"""What needs no torch does not import it: help, completion, wrong configs, and the commands about files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainkit

SOURCE = Path(trainkit.__file__).parents[1]
PROGRAM = """
import sys
from trainkit.__main__ import main
sys.argv = ["trainkit", *sys.argv[1:]]
try:
    main()
except SystemExit as exit:
    print("exit", exit.code or 0)
heavy = {"torch", "torch._dynamo", "torchvision", "numpy", "sklearn", "matplotlib", "rich.console", "pydantic", "yaml"}
print("imported", *sorted(heavy & set(sys.modules)))
"""
HEAVY = {"torch", "torchvision", "numpy", "sklearn", "matplotlib", "rich.console"}


def run(*arguments: str, cwd: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], int, set[str]]:
    """The process, its exit code, and which of the heavy packages were imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    *_, exit_line, imported = done.stdout.splitlines()
    assert exit_line.startswith("exit"), done.stdout
    return done, int(exit_line.split()[1]), set(imported.split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    done, code, imported = run(*arguments, cwd=tmp_path)
    assert code == 0
    assert not imported - {"pydantic"}  # typer itself may import it to read arguments
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", [["train"], ["train", "--dry-run"], ["check"], ["inspect"]])
def test_a_wrong_config_imports_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("dataset: digits\nmodel: mlp\noptmizer: adam\n")
    done, code, imported = run(*command, "c.yaml", cwd=tmp_path)
    assert code == 2
    assert not imported & HEAVY
    assert done.stderr.splitlines()[0] == "error: c.yaml:3:1: optmizer: unknown section; did you mean optimizer?"
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_a_missing_config(tmp_path: Path) -> None:
    done, code, imported = run("check", "nowhere.yaml", cwd=tmp_path)
    assert code == 2
    assert not imported & HEAVY
    assert done.stderr.startswith("error: nowhere.yaml: there is no such file")


def complete(words: str, *, cwd: Path) -> list[str]:
    environment = {
        "_TRAINKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done, _, imported = run(cwd=cwd, **environment)
    assert not imported & HEAVY
    return [line for line in done.stdout.splitlines()[:-2] if line]


def test_commands_complete(tmp_path: Path) -> None:
    assert complete("trainkit insp", cwd=tmp_path) == ["inspect"]


def test_config_files_complete(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").touch()
    (tmp_path / "other.txt").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "two.yml").touch()
    assert complete("trainkit check o", cwd=tmp_path) == ["old/", "one.yaml"]
    assert complete("trainkit train old/", cwd=tmp_path) == ["old/two.yml"]


def test_keys_complete_after_set_and_unset(tmp_path: Path) -> None:
    assert complete("trainkit train c.yaml --set training.batch", cwd=tmp_path) == ["training.batch_size="]
    assert complete("trainkit check c.yaml --unset training.batch", cwd=tmp_path) == ["training.batch_size"]


def test_a_misspelled_command_is_found_without_imports(tmp_path: Path) -> None:
    done, code, imported = run("trian", "c.yaml", cwd=tmp_path)
    assert code == 2
    assert not imported - {"pydantic"}
    assert "'train'" in done.stderr


def test_the_list_of_runs_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    _, code, imported = run("runs", "list", cwd=tmp_path)
    assert (code, imported & (HEAVY - {"rich.console"})) == (0, set())


def test_recorders_findings_and_reports_import_nothing_heavy_before_they_are_used() -> None:
    code = (
        "import sys, trainkit.findings, trainkit.recorders, trainkit.reports\n"
        "print(*{'torch', 'numpy', 'matplotlib', 'jinja2', 'scipy'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_training_on_a_warm_cache_imports_only_what_it_uses(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "dataset: {type: digits}\nmodel: {type: mlp}\ntraining: {epochs: 1}\nlogging: {plots: false}\n"
    )
    cache = {"TRAINKIT_CACHE": str(tmp_path / "cache")}
    _, code, cold = run("train", "c.yaml", cwd=tmp_path, **cache)
    assert (code, "sklearn" in cold) == (0, True)
    _, code, warm = run("train", "c.yaml", cwd=tmp_path, **cache)
    assert (code, warm & {"torchvision", "sklearn", "matplotlib", "torch._dynamo"}) == (0, set())
