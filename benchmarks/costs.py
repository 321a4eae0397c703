"""What the comforts cost: augmentation, checkpoints and logging, memory, rows of a table.

TRAINKIT_TEST_DATA=... python benchmarks/costs.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CNN = """
dataset: {{type: mnist, root: {data}, download: false}}
transforms: [{random}{{type: normalize, mean: [0.1307], std: [0.3081]}}]
model:
  type: cnn
  norm: batch
  blocks: [{{channels: 16, kernel_size: 5, pool: 2}}, {{channels: 32, kernel_size: 5, pool: 2}}]
optimizer: {{type: sgd, lr: 0.02, momentum: 0.9}}
training: {{epochs: 2, batch_size: 64}}
logging: {{plots: false}}
"""
RANDOM = "{type: random_crop, padding: 2}, random_horizontal_flip, {type: random_rotation, degrees: 10}, "
TABLE = """
dataset: {{type: synthetic, problem: blobs, num_samples: {rows}, val_fraction: 0.0, test_fraction: 0.0}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [32]}}
training: {{epochs: 2, batch_size: 256}}
checkpoint: {{monitor: train_loss}}
logging: {{plots: false}}
"""


def run(text: str) -> dict[str, float]:
    """Train in this process, shown as the command shows it; seconds of the second epoch by part, and memory."""
    import torch

    after_torch = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from trainkit.cli.train import make_frontend
    from trainkit.config import load_config
    from trainkit.recorders import Fanout
    from trainkit.workflows.train.run import train

    logged: list[float] = []
    log = Fanout.log

    def timed_log(self: Fanout, record: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        log(self, record)
        logged.append(time.perf_counter() - started)

    Fanout.log = timed_log  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, make_frontend(quiet=False) as frontend:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        result = train(load_config(path), runs_dir=Path(folder) / "runs", frontend=frontend)
        lines = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    first, second = (line for line in lines if line["type"] == "epoch")
    names = ("train_seconds", "data_seconds", "validation_seconds", "checkpoint_seconds")
    seconds = {name: second[name] - first[name] for name in names}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds | {
        "logging_seconds": sum(logged) / 2,
        "megabytes_above_torch": peak - after_torch,
        "torch": float(torch.__version__[:4]),
    }


def torchvision_epoch(data: str) -> dict[str, float]:
    """Seconds to make the augmented batches of an epoch with a DataLoader, without any training."""
    from torch.utils.data import DataLoader
    from torchvision import transforms as t
    from torchvision.datasets import MNIST

    steps = [t.RandomCrop(28, padding=2), t.RandomHorizontalFlip(), t.RandomRotation(10), t.ToTensor()]
    loader = DataLoader(
        MNIST(data, transform=t.Compose([*steps, t.Normalize((0.1307,), (0.3081,))])),
        batch_size=64,
        shuffle=True,
        num_workers=2,
    )
    started = time.perf_counter()
    for _ in loader:
        pass
    return {"train_seconds": time.perf_counter() - started}


def child(text: str) -> dict[str, float]:
    """What a process of its own finds; its stderr is a terminal, with the progress bar on it."""
    master, slave = pty.openpty()
    drain = threading.Thread(target=read_all, args=(master,), daemon=True)
    drain.start()
    command = [sys.executable, __file__, "--child", text]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, text=True, check=True)
    finally:
        os.close(slave)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def read_all(master: int) -> None:
    with contextlib.suppress(OSError):  # what reading from a terminal that nobody writes to any more gives
        while os.read(master, 1 << 16):
            pass


def row(name: str, values: list[float], unit: str = "s") -> None:
    print(
        f"| {name} | {statistics.median(values):.3g} {unit} | {min(values):.3g} - {max(values):.3g} | {len(values)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    data = os.environ.get("TRAINKIT_TEST_DATA", "")
    if arguments.child:
        print(json.dumps(torchvision_epoch(data) if arguments.child == "torchvision" else run(arguments.child)))
        return
    plain, augmented, loader = [], [], []
    for _ in range(arguments.repeats):
        plain.append(child(CNN.format(data=data, random="")))
        augmented.append(child(CNN.format(data=data, random=RANDOM)))
        loader.append(child("torchvision"))
    print("| what | median | least - most | n |\n|---|---|---|---|")
    row("training epoch of the CNN", [r["train_seconds"] for r in plain])
    row("the same with crop, flip and rotation", [r["train_seconds"] for r in augmented])
    ratios = [a["train_seconds"] / p["train_seconds"] for p, a in zip(plain, augmented, strict=True)]
    row("ratio of the two", ratios, "x")
    row("DataLoader with torchvision's transforms, batches alone", [r["train_seconds"] for r in loader])
    added = [a["data_seconds"] - p["data_seconds"] for p, a in zip(plain, augmented, strict=True)]
    row("what augmentation adds to an epoch here", added)
    whole = [r["train_seconds"] + r["validation_seconds"] for r in plain]
    for part in ("checkpoint", "logging"):
        row(f"{part} share", [100 * r[f"{part}_seconds"] / w for r, w in zip(plain, whole, strict=True)], "%")
    row("peak memory above import torch, CNN", [r["megabytes_above_torch"] for r in plain], "MB")
    print("\n| rows of a table | seconds an epoch | microseconds a row |\n|---|---|---|")
    for rows in (1_000, 10_000, 100_000, 1_000_000):
        seconds = statistics.median(child(TABLE.format(rows=rows))["train_seconds"] for _ in range(arguments.repeats))
        print(f"| {rows:,} | {seconds:.3f} | {1e6 * seconds / rows:.2f} |")


if __name__ == "__main__":
    main()
