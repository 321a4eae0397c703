"""What the comforts cost: augmentation, checkpoints and logging, memory, rows of a table.

TRAINKIT_TEST_DATA=... python benchmarks/costs.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    """Train in this process; seconds of the second epoch by part, and memory."""
    import torch

    after_torch = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from trainkit.config import load_config
    from trainkit.workflows.train import train

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        result = train(load_config(path), runs_dir=Path(folder) / "runs")
        lines = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    first, second = (line for line in lines if line["type"] == "epoch")
    names = ("train_seconds", "data_seconds", "validation_seconds", "checkpoint_seconds")
    seconds = {name: second[name] - first[name] for name in names}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds | {"megabytes_above_torch": peak - after_torch, "torch": float(torch.__version__[:4])}


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
    done = subprocess.run([sys.executable, __file__, "--child", text], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


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
    row("checkpoint share", [100 * r["checkpoint_seconds"] / w for r, w in zip(plain, whole, strict=True)], "%")
    row("peak memory above import torch, CNN", [r["megabytes_above_torch"] for r in plain], "MB")
    print("\n| rows of a table | seconds an epoch | microseconds a row |\n|---|---|---|")
    for rows in (1_000, 10_000, 100_000, 1_000_000):
        seconds = statistics.median(child(TABLE.format(rows=rows))["train_seconds"] for _ in range(arguments.repeats))
        print(f"| {rows:,} | {seconds:.3f} | {1e6 * seconds / rows:.2f} |")


if __name__ == "__main__":
    main()
