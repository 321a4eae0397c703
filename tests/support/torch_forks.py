"""Processes that need PyTorch, but not trainkit: forks of one that has imported it, so that each start takes tenths."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "torch.export", "sklearn.datasets", "pydantic", "pytest"])


def run_tests(source: Path, arguments: list[str], *, output: Path) -> int:
    """pytest, on a changed copy of the sources. Returns its exit code; what it printed is in ``output``."""
    return _run(_tests, source, arguments, cwd=REPOSITORY, stdout=output, stderr=output)


def run_script(script: object, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script that stands alone: trainkit cannot be imported there."""
    words = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = _run(_script, words, cwd=Path.cwd(), stdout=out, stderr=err)
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


def run_child(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """In the place of ``trainkit.system.run_child``, for the check of an export; it cannot be stopped."""
    python, option, *script = command
    assert (python, option) == (sys.executable, "-P")
    return run_script(*script)


def _run(function, *arguments: object, **place: Path) -> int:
    process = FORKS.Process(target=_child, args=(function, arguments, dict(os.environ), place))
    process.start()
    process.join()
    return process.exitcode


def _child(function, arguments: tuple, environment: dict[str, str], place: dict[str, Path]) -> None:
    assert "torch" in sys.modules
    assert "trainkit" not in sys.modules
    os.environ.update(environment)
    os.chdir(place["cwd"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place[name], os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    function(*arguments)


def _tests(source: Path, arguments: list[str]) -> None:
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)  # of the processes that the tests start
    sys.exit(int(pytest.main(arguments)))


def _script(words: list[str]) -> None:
    sys.modules["trainkit"] = None  # any import of it fails
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
