"""Epochs of a frozen network on pictures of 224 px: the whole network in each, against its head on cached features.

python benchmarks/cached_features.py [--network resnet18] [--pictures 2000] [--size 224] [--epochs 3]

Pictures are noise, written as PNG files; the seconds are those of training alone, by the run's own log. Each run is the
command line in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

CLASSES = 4


def write_pictures(folder: Path, count: int, size: int) -> None:
    """Noise at a quarter of the size, enlarged: a class has a mean of its own."""
    rng = np.random.default_rng(0)
    for index in range(count):
        label = index % CLASSES
        small = rng.normal(64 + 40 * label, 40, (size // 4, size // 4, 3)).clip(0, 255).astype(np.uint8)
        path = folder / f"class{label}" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((size, size)).save(path, compress_level=1)


def config(arguments: argparse.Namespace, *, cached: bool) -> str:
    return yaml.safe_dump(
        {
            "dataset": {"type": "image_folder", "root": "pictures", "val_fraction": 0.1},
            "transforms": ["normalize"],
            "model": {"type": "torchvision", "name": arguments.network, "weights": "none"},
            "optimizer": {"type": "adamw", "lr": 0.001},
            "fine_tuning": {"freeze": "backbone", "cache_features": cached},
            "training": {"epochs": arguments.epochs, "batch_size": 64},
            "logging": {"plots": False},
        }
    )


def train(folder: Path, *, cached: bool, arguments: argparse.Namespace) -> tuple[list[float], list[float], float]:
    """Seconds of each epoch's steps, its training loss, and the seconds of the run until the last of them."""
    path = folder / f"{'cached' if cached else 'whole'}.yaml"
    path.write_text(config(arguments, cached=cached), encoding="utf-8")
    environment = {**os.environ, "TRAINKIT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "trainkit", "train", path.name, "--run-dir", path.stem]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (run,) = (folder / path.stem).iterdir()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["type"] == "epoch"]
    stamps = [0.0, *(record["train_seconds"] for record in epochs)]
    seconds = [after - before for before, after in itertools.pairwise(stamps)]
    return seconds, [record["train_loss"] for record in epochs], json.loads((run / "run.json").read_text())["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures", arguments.pictures, arguments.size)
        medians = {}
        for cached in (True, False):
            seconds, losses, total = train(folder, cached=cached, arguments=arguments)
            medians[cached] = statistics.median(seconds)
            what = "head on cached features" if cached else "whole network"
            print(
                f"{what}: an epoch {medians[cached]:.3f} s ({min(seconds):.3f} - {max(seconds):.3f}), run {total:.1f} s"
            )
            print(f"  training losses {', '.join(f'{loss:.7f}' for loss in losses)}")
        print(f"{medians[False] / medians[True]:.0f} times as fast")


if __name__ == "__main__":
    main()
