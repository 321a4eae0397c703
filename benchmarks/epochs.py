"""Seconds an epoch: trainkit, a loop written by hand, and the peers that are installed, alternating in one sitting.

    pip install '.[bench]'
    TRAINKIT_TEST_DATA=... python benchmarks/epochs.py [--repeats 3] [--models mlp cnn] [--only NAME ...]

Each repeat runs every contender once, in a process of its own, for some epochs; the first epoch warms up and does not
count. Ratios are taken within a repeat: the machine may be slower in the next one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from contenders import CONTENDERS

HERE = Path(__file__).parent
NEEDS = {"lightning": "lightning", "lightning barebones": "lightning", "ignite": "ignite", "skorch": "skorch"}
NEEDS |= {"keras": "keras"}


def run(name: str, model: str, epochs: int, data: str) -> float | None:
    """Median seconds of the counted epochs; None, with the reason on stderr, where the contender failed."""
    command = [sys.executable, str(HERE / "contenders.py"), name, model, str(epochs), data]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return statistics.median(json.loads(done.stdout.strip().splitlines()[-1])[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn"])
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS))
    arguments = parser.parse_args()
    data = os.environ["TRAINKIT_TEST_DATA"]
    names = [name for name in arguments.only if name not in NEEDS or find_spec(NEEDS[name])]
    import torch

    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )
    for model in arguments.models:
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for repeat in range(arguments.repeats):
            for name in names if repeat % 2 == 0 else reversed(names):
                found = run(name, model, arguments.epochs, data)
                seconds[name].append(float("nan") if found is None else found)
                print(f"  {model} {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
        report(model, seconds)


def report(model: str, seconds: dict[str, list[float]]) -> None:
    print(f"\n{model}: seconds an epoch (n = {len(next(iter(seconds.values())))})\n")
    print("| | median | least - most | times trainkit auto | times hand-written |\n|---|---|---|---|---|")
    for name, values in seconds.items():
        ratios = []
        for base in ("trainkit auto", "hand-written"):
            pairs = zip(values, seconds.get(base, []), strict=False)
            found = [mine / theirs for mine, theirs in pairs]
            ratios.append(f"{statistics.median(found):.2f}" if found else "-")
        spread = f"{min(values):.2f} - {max(values):.2f}"
        print(f"| {name} | {statistics.median(values):.2f} | {spread} | {ratios[0]} | {ratios[1]} |")


if __name__ == "__main__":
    main()
