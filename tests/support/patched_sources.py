"""Tests on a changed copy of the sources, each in a fork of a process that has imported PyTorch, but not trainkit."""

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", "pydantic", "pytest"])


def run_tests(source: Path, arguments: list[str], *, output: Path) -> int:
    """pytest's exit code; what it printed is in ``output``."""
    process = FORKS.Process(target=_run, args=(source, arguments, output))
    process.start()
    process.join()
    return process.exitcode


def _run(source: Path, arguments: list[str], output: Path) -> None:
    assert "torch" in sys.modules
    assert "trainkit" not in sys.modules
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)  # of the processes that the tests start
    os.chdir(REPOSITORY)
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(int(pytest.main(arguments)))
