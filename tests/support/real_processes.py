"""A process that runs ``trainkit`` in forked children, each a real process that can be killed or signalled."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import file_layers

SUPPORT = Path(file_layers.__file__).parent


@dataclass
class Ended:
    code: int
    """Negative: the signal that ended it."""
    output: str


class ForkServer:
    """Imports torch once; a child costs a fork in place of seconds of imports."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "training_loop.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def trainkit(self, *arguments: object, cwd: Path, **order: object) -> Ended:
        """Run a command; the saves that it finished are in ``cwd/said.txt``, one step a line."""
        order = {"arguments": [str(a) for a in arguments], "cwd": str(cwd), "said": str(cwd / "said.txt"), **order}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())["code"]
        return Ended(code, (cwd / order.get("output", "output.txt")).read_text())

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0
