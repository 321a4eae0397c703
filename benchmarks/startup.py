"""What a command takes besides its work: help, a wrong config to its message, an epoch of training on a warm cache.

    [TRAINKIT_TEST_DATA=...] python benchmarks/startup.py [--repeats 20]

Each run is a process of its own, from its start to its exit; the targets of the first two are 0.3 s and 0.5 s. The same
is measured for an interpreter that does nothing, and for `import torch`, which neither of the two may do. Of the
training (a small MLP on MNIST) it is told when its first step began and when its last epoch was over.
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
# Modules are compiled once, as Python does unless it is told not to.
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, "PYTHONDONTWRITEBYTECODE": ""}
WRONG = "dataset: digits\nmodel: mlp\noptmizer: adam\n"


def seconds(command: list[str], *, cwd: str, code: int) -> tuple[float, float]:
    """Wall-clock and processor time of one process that has to exit with this code."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    taken, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


NAMES = ("to the first step, less import torch", "the epoch", "after it")
TRAIN = """
dataset: {{type: mnist, root: {data}, download: false}}
transforms: [{{type: normalize, mean: [0.1307], std: [0.3081]}}]
model: {{type: mlp, hidden_sizes: [128, 64]}}
training: {{epochs: 1, batch_size: 64}}
"""
CHILD = """
import gc, sys, time
gc.set_threshold(10_000)  # as the command does
from trainkit.workflows.train import run as train
fit = train.fit
def timed(*given, **named):
    begun = time.monotonic()
    outcome = fit(*given, **named)
    print("marks", begun, time.monotonic())
    return outcome
train.fit = timed
from trainkit.__main__ import main
sys.argv = ["trainkit", "train", "config.yaml", "--run-dir", "runs"]
main()
"""


def one_epoch(cwd: str, import_torch: float) -> tuple[float, float, float]:
    """Seconds from the process's start to the first step less those of ``import torch``, of the epoch, and after it."""
    started = time.monotonic()
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    ended = time.monotonic()
    begun, over = map(float, next(line for line in done.stdout.splitlines() if line.startswith("marks")).split()[1:])
    return begun - started - import_torch, over - begun, ended - over


def show_training(repeats: int) -> None:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(TRAIN.format(data=os.environ["TRAINKIT_TEST_DATA"]))
        one_epoch(folder, 0.0)  # warms the cache
        for _ in range(repeats):
            torch_alone, _ = seconds([sys.executable, "-c", "import torch"], cwd=folder, code=0)
            found.append(one_epoch(folder, torch_alone))
    print("\none epoch of an MLP on MNIST, seconds")
    for name, values in zip(NAMES, zip(*found, strict=True), strict=True):
        spread = f"{min(values):>8.3f} {max(values):>8.3f}"
        print(f"{name:<40} {len(values):>3} {statistics.median(values):>9.3f} {spread}")


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

    if "TRAINKIT_TEST_DATA" in os.environ:
        show_training(repeats)


if __name__ == "__main__":
    main()
