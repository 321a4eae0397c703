"""Several processes on one machine: an exchange against torch's DDP, what two bring, what their start takes.

    TRAINKIT_TEST_DATA=... python benchmarks/distributed.py [--parts steps speedup start] [--repeats 5]

- steps: seconds of a training step of a CNN with 2.7 million parameters, in two processes of one thread each, on gloo.
  The same step each time; what differs is how gradients are added: ``reduce: exact``, ``reduce: fast``, and torch's
  DistributedDataParallel in the place of both. They take turns. Target: exact takes at most 1.1 times as long as DDP.
- speedup: seconds of an epoch of configs/mnist_cnn.yaml in two pieces, in one process and in two, one thread each; in
  turn. Target: 1.6 times.
- start: seconds of a whole run of one step by ``--nproc 1`` and without, in turn: what launcher and agent add to it.
  Target: 1 second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
DATA = os.environ.get("TRAINKIT_TEST_DATA", "data")
STEPS_EACH = 4
"""Steps before the next one's turn."""
CNN = {
    "dataset": {"type": "digits"},
    "transforms": [{"type": "resize", "size": 32}, "normalize"],
    "model": {
        "type": "cnn",
        "norm": "batch",
        "blocks": [{"channels": channels, "pool": 2} for channels in (64, 128, 256)],
        "head_sizes": [512, 512],
    },
    "optimizer": {"type": "sgd", "lr": 0.001, "momentum": 0.9},
    "training": {"batch_size": 64, "accumulation_steps": 2, "num_threads": 1, "precision": "fp32"},
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "LOGLEVEL": "ERROR"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["steps", "speedup", "start"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        steps(turns=4 * options.repeats)
        return
    for part in options.parts:
        if part == "steps":
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", __file__, "--rank"]
            subprocess.run([*command, "--repeats", str(options.repeats)], env=ENVIRONMENT, check=True)
        else:
            {"speedup": speedup, "start": start}[part](options.repeats)


def show(title: str, found: dict[str, list[float]]) -> None:
    """The median, the least and the most of each, and the median of its ratios to the last one, turn by turn."""
    print(f"\n{title}")
    last = list(found.values())[-1]
    for name, seconds in found.items():
        ratio = statistics.median(one / other for one, other in zip(seconds, last, strict=True))
        median, least, most = 1000 * statistics.median(seconds), 1000 * min(seconds), 1000 * max(seconds)
        print(f"  {name:28} {median:9,.1f} ms ({least:,.1f} - {most:,.1f})  n {len(seconds)}  {ratio:.3f} times")


def steps(*, turns: int) -> None:
    """One of the two processes."""
    import torch
    import torch.distributed as dist

    from trainkit.builders import build_setup
    from trainkit.config import load_config
    from trainkit.data.loading import Batch
    from trainkit.engine import Guard, Plan, train_step
    from trainkit.runtime import Ranks, join, leave
    from trainkit.system import own_process

    own_process()
    ranks = join("gloo", timeout=60)
    setup = replace(build_setup(load_config(CNN).config), ranks=ranks)
    state = setup.state(steps_per_epoch=100)
    state.train()
    guard, plan = Guard(state.model, state.optimizer, skip_limit=0), setup.plan()
    x, y = torch.randn(64, *setup.input_shape), torch.arange(64) % 10
    half = slice(32 * ranks.rank, 32 * ranks.rank + 32)
    own = Batch(x[half], y, torch.arange(64))
    ddp = torch.nn.parallel.DistributedDataParallel(state.model)
    with_ddp = replace(plan, forward=ddp, accumulation_steps=1, ranks=Ranks())
    alone = replace(plan, accumulation_steps=1, ranks=Ranks())

    def step(plan: Plan, batch: Batch) -> Callable[[], object]:
        return lambda: train_step(state, plan, batch, guard=guard, lr=0.001)

    mine = own._replace(targets=y[half], indices=torch.arange(32))
    ways = {
        "no exchange": step(alone, mine),
        "reduce: exact": step(plan, own),
        "exact, between machines": step(replace(plan, ranks=replace(ranks, neighbours=None)), own),
        "reduce: fast": step(replace(plan, ranks=replace(ranks, exact=False)), own),
        "DistributedDataParallel": step(with_ddp, mine),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, work in ways.items():
            work()  # the memory of the exchange is made, and its pages are touched
            dist.barrier()
            started = time.perf_counter()
            for _ in range(STEPS_EACH):
                work()
            dist.barrier()
            if turn:
                found[name].append((time.perf_counter() - started) / STEPS_EACH)
    if ranks.is_first:
        parameters = sum(parameter.numel() for parameter in state.parameters)
        show(f"a step of a CNN with {parameters:,} parameters, 2 processes x 1 thread, batch of 64", found)
    leave(ranks)


def trained(folder: str, *arguments: str) -> Path:
    """The folder of a run, in processes of their own."""
    command = [sys.executable, "-m", "trainkit", "train", *arguments, "--run-dir", folder, "--json", "-q"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return Path(folder, json.loads(done.stdout)["run"])


def speedup(repeats: int) -> None:
    found: dict[str, list[float]] = {"2 processes x 1 thread": [], "1 process x 1 thread": []}
    with tempfile.TemporaryDirectory() as folder:
        changes = {"dataset.root": Path(DATA).absolute(), "training.epochs": 1, "training.num_threads": 1}
        changes |= {"training.accumulation_steps": 2, "logging.plots": "false", "export.torchscript": "false"}
        arguments = [item for key, value in changes.items() for item in ("--set", f"{key}={value}")]
        for _ in range(repeats):
            for name, seconds in found.items():
                run = trained(folder, str(CONFIGS / "mnist_cnn.yaml"), *arguments, "--nproc", name[0])
                records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
                seconds.append(next(one["train_seconds"] for one in records if one["type"] == "epoch"))
    show("training for an epoch of configs/mnist_cnn.yaml, in two pieces", found)


def start(repeats: int) -> None:
    found: dict[str, list[float]] = {"--nproc 1": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(CONFIGS / "digits_mlp.yaml"), "--set", "training.epochs=1", "--set", "logging.plots=false"]
        for _ in range(2 * repeats):
            for name, seconds in found.items():
                started = time.perf_counter()
                trained(folder, *arguments, *(name.split() if name.startswith("--") else ()))
                seconds.append(time.perf_counter() - started)
    show("a whole run of an epoch of configs/digits_mlp.yaml", found)
    added = [one - other for one, other in zip(*found.values(), strict=True)]
    print(f"  added by the start: {statistics.median(added):.2f} s ({min(added):.2f} - {max(added):.2f})")


if __name__ == "__main__":
    main()
