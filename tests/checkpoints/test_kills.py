"""``kill -9`` in the middle of real saves, at named points and at random times: nothing that was saved is lost."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import file_layers
import pytest
from checkpoint_checks import problems_after_crash

from trainkit.checkpoints.verification import verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SUPPORT = Path(file_layers.__file__).parent


class Loop:
    """A process that saves in forked children, so that torch is imported once."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "saving_loop.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, folder: Path, **order) -> list[str]:
        """Save until killed; the marks of the child until then."""
        self.process.stdin.write(json.dumps({"folder": str(folder), "first": 0, "kind": "trainkit", **order}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["killed"], f"{order} was never reached"
        return Path(f"{folder}.marks").read_text().splitlines()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    one = Loop()
    yield one
    one.process.stdin.close()
    assert one.process.wait(timeout=30) == 0


def problems_of(folder: Path, marks: list[str]) -> list[str]:
    problems = problems_after_crash(folder, marks)
    problems += [f"{path.name} was not cleared" for path in folder.glob(".*.tmp")]
    return problems + [str(verdict) for verdict in verify(folder) if verdict.word != "OK"]


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("point", file_layers.CRASH_POINTS)
def test_killed_at_a_named_point(loop, tmp_path, point, number):
    folder = tmp_path / "checkpoints"
    marks = loop.run(folder, crash=f"{point}#{number}")
    assert problems_of(folder, marks) == []


def test_killed_again_and_again(loop, tmp_path):
    """One folder through 25 kills, half at named points: each time the next process goes on."""
    rng = random.Random(0)
    folder = tmp_path / "checkpoints"
    first = 0
    for number in range(25):
        if number % 2:
            marks = loop.run(folder, first=first, crash=f"{rng.choice(file_layers.CRASH_POINTS)}#{rng.randint(1, 5)}")
        else:
            marks = loop.run(folder, first=first, seconds=rng.uniform(0.0, 0.1))
        assert problems_of(folder, marks) == []
        first = 1 + max((int(line.split()[1]) for line in marks), default=0)
    assert first > 25


def test_a_naive_writer_is_caught(loop, tmp_path):
    found = []
    for point in file_layers.CRASH_POINTS:
        if not point.startswith(("before-open", "during-write", "after-write")):
            continue
        folder = tmp_path / point
        marks = loop.run(folder, crash=f"{point}#3", kind="naive")
        found += problems_of(folder, marks)
    assert any("lost" in problem or "was saved, and" in problem or "found" in problem for problem in found)
