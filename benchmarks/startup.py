"""How long the command line takes to answer where nothing has to be trained: help, and a wrong config to its message.

    python benchmarks/startup.py [--repeats 20]

Each run is a process of its own, from its start to its exit; the targets are 0.3 s and 0.5 s. The same is measured for
an interpreter that does nothing, and for `import torch`, which neither of the two may do.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Processes start in another folder: a relative path to the sources would be lost.
PATHS = os.pathsep.join(map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS}
WRONG = "dataset: digits\nmodel: mlp\noptmizer: adam\n"


def seconds(command: list[str], *, cwd: str, code: int) -> tuple[float, float]:
    """Wall-clock and processor time of one process that has to exit with this code."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    taken, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    trainkit = [sys.executable, "-m", "trainkit"]
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], 0),
        "trainkit --help": ([*trainkit, "--help"], 0),
        "trainkit train wrong.yaml": ([*trainkit, "train", "wrong.yaml"], 2),
        "trainkit check wrong.yaml": ([*trainkit, "check", "wrong.yaml"], 2),
        "python -c 'import torch'": ([sys.executable, "-c", "import torch"], 0),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "wrong.yaml").write_text(WRONG)
        for command, code in commands.values():
            seconds(command, cwd=folder, code=code)  # once for the disk cache and the .pyc files
        for _ in range(repeats):  # in turns, so that what else the machine does hits all alike
            for name, (command, code) in commands.items():
                taken[name].append(seconds(command, cwd=folder, code=code))
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    print(f"{'command':<28} {'n':>3} {'median s':>9} {'fastest':>8} {'slowest':>8} {'processor s':>12}")
    for name, runs in taken.items():
        wall, processor = zip(*runs, strict=True)
        line = (
            f"{statistics.median(wall):>9.3f} {min(wall):>8.3f} {max(wall):>8.3f} {statistics.median(processor):>12.3f}"
        )
        print(f"{name:<28} {len(runs):>3} {line}")


if __name__ == "__main__":
    main()
