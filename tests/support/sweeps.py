"""Sweeps as commands in processes of their own, which can be killed with all that they started."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from trainkit.system import RunDir, list_runs

CONFIG = """
name: tiny
dataset: digits
transforms: [normalize]
model: {type: mlp, hidden_sizes: [16]}
optimizer: {type: sgd, lr: 0.1, momentum: 0.9}
scheduler: cosine
training: {epochs: 3, batch_size: 64}
logging: {plots: false}
"""
SEARCH = """
search:
  optimizer.lr: {log_uniform: [0.003, 0.3]}
  model.hidden_sizes: {choice: [[8], [16]]}
"""


def write_sweep(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "search.yaml").write_text(f"config: tiny.yaml\nobjective: val_accuracy\n{SEARCH}{text}")
    return folder


def start(folder: Path, *arguments: str, name: str = "search.yaml") -> subprocess.Popen:
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "trainkit", "sweep", name, *arguments],
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def output(folder: Path) -> str:
    """What a sweep that was started has printed so far."""
    return (folder / "output.txt").read_text()


def run(folder: Path, *arguments: str, name: str = "search.yaml") -> dict:
    """Run a sweep to its end. Returns what it prints as JSON."""
    command = [sys.executable, "-m", "trainkit", "sweep", name, "--json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kill_all(process: subprocess.Popen) -> None:
    """``kill -9`` of a sweep and all of its processes, the sweep first."""
    found, todo = [], [process.pid]
    while todo:
        pid = todo.pop(0)
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                todo += map(int, task.read_text().split())
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def kill_at_random(folder: Path, rng: random.Random, *, kills: int, seconds: float) -> int:
    """Start a sweep and kill it again and again, within some seconds after its first trial starts or goes on.

    Returns how many kills hit it.
    """
    hits = 0
    for _ in range(kills):
        path = folder / "output.txt"
        before = path.stat().st_size if path.exists() else 0
        process = start(folder)
        while process.poll() is None and b"-00" not in path.read_bytes()[before:]:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, seconds))
        hits += process.poll() is None
        kill_all(process)
    return hits


def trial_runs(folder: Path, name: str = "search") -> dict[str, RunDir]:
    """The runs of a sweep by their names, each of which it has once."""
    runs = list_runs(folder / "sweeps" / name / "runs")
    assert len({one.name for one in runs}) == len(runs), "a trial was trained twice"
    return {one.name: one for one in runs}


def parts_of(run: RunDir) -> int:
    """How often a run was started or gone on with."""
    return sum("run: " in line for line in run.log.read_text().splitlines())
