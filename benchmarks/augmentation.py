"""An image folder of 10,000 JPEGs from 200 to 800 px, made on the spot: random crops and flips against torchvision.

    python benchmarks/augmentation.py [--images 10000] [--repeats 2] [--also trivial_augment]

Batches alone: later epochs that make the batches of 64 x 3 x 224 x 224 and train nothing. trainkit crops out of its
cache, which the first epoch fills; torchvision's transforms v2 decode in every epoch, in a DataLoader with 2 workers,
and work on tensors or on Pillow's images. Training: epochs of a small CNN, with the random transforms and with a resize
and a center crop in their place. Each contender is a process of its own, and they take turns. Memory is that after the
last epoch, without pages of files, with that of the workers (Linux only).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images import EpochTimes, make_pictures, seconds_of

SCALE = (0.35, 1.0)
CONFIG = """
dataset: {{type: image_folder, root: {root}, val_fraction: 0.0, test_fraction: 0.0}}
transforms: [{transforms}, {{type: normalize, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}]
model:
  type: cnn
  blocks:
    - {{channels: 32, kernel_size: 7, stride: 4, padding: 3, pool: 2}}
    - {{channels: 64}}
    - {{channels: 64, pool: 2}}
  norm: batch
  global_pool: avg
optimizer: {{type: sgd, lr: 0.01}}
training: {{epochs: {epochs}, batch_size: 64}}
checkpoint: {{monitor: train_loss}}
logging: {{plots: false}}
export: {{torchscript: false}}
"""
CROP = "{type: random_resized_crop, size: 224, scale: [0.35, 1.0]}, random_horizontal_flip"
PLAIN = "{type: resize, size: 256}, {type: center_crop, size: 224}"
EPOCHS = 3


def trainkit(root: Path, work: Path, transforms: str) -> dict[str, Any]:
    from trainkit.system import own_process

    own_process()  # as the command does: freed memory is kept, and threads that wait give up their core
    from trainkit.builders import build_setup
    from trainkit.config import load_config

    os.environ["TRAINKIT_CACHE"] = str(work / "cache")
    config = work / "config.yaml"
    config.write_text(CONFIG.format(root=root, transforms=transforms, epochs=1))
    started = time.perf_counter()
    batches = build_setup(load_config(config).config).batches("train", training=True)
    for _ in batches.epoch(0):
        pass
    first = time.perf_counter() - started
    cached = sum(file.stat().st_size for file in (work / "cache").rglob("*.npy"))
    return {"first": [first], "later": seconds_of(batches.epoch), "cache": cached / 1e9, "memory": memory()}


def training(root: Path, work: Path, transforms: str) -> dict[str, Any]:
    from trainkit.config import load_config
    from trainkit.system import Frontend, own_process

    own_process()
    from trainkit.workflows.train.run import train

    os.environ["TRAINKIT_CACHE"] = str(work / "cache")
    config = work / "config.yaml"
    config.write_text(CONFIG.format(root=root, transforms=transforms, epochs=EPOCHS))
    epochs = EpochTimes()
    train(load_config(config), runs_dir=work / "runs", frontend=Frontend(make_display=lambda *_: epochs))
    return {"later": [after - before for before, after in itertools.pairwise(epochs.times)]}


def torchvision(root: Path, also: str, *, on_tensors: bool) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    more = [v2.TrivialAugmentWide()] if also == "trivial_augment" else []
    data = ImageFolder(
        str(root),
        v2.Compose(
            [
                *([v2.ToImage()] if on_tensors else []),
                v2.RandomResizedCrop(224, scale=SCALE, antialias=True),
                v2.RandomHorizontalFlip(),
                *more,
                *([] if on_tensors else [v2.ToImage()]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        ),
    )
    loader = DataLoader(data, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    started = time.perf_counter()
    for _ in loader:
        pass
    first = time.perf_counter() - started
    return {"first": [first], "later": seconds_of(lambda _: loader), "memory": memory()}


def memory() -> float:
    """GB of this process and of its workers, without the pages of files, which the system may drop."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    lines = [line for pid in processes for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e6


def run_child(name: str, root: Path, also: str) -> dict[str, Any]:
    random = f"{CROP}, {also}" if also else CROP
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        work = Path(folder)
        match name:
            case "trainkit":
                return trainkit(root, work, random)
            case "torchvision v2, tensors":
                return torchvision(root, also, on_tensors=True)
            case "torchvision v2, Pillow":
                return torchvision(root, also, on_tensors=False)
            case "training, augmented":
                return training(root, work, random)
            case _:
                return training(root, work, PLAIN)


ALONE = ("trainkit", "torchvision v2, tensors", "torchvision v2, Pillow")
TRAINED = ("training, augmented", "training, plain")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--also", default="", help="a further transform of both, such as trivial_augment")
    parser.add_argument("--child")
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_child(arguments.child, arguments.root, arguments.also)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*ALONE, *TRAINED)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pictures"
        root.mkdir()
        make_pictures(root, arguments.images, sides=(200, 800))
        files = sum(file.stat().st_size for file in root.rglob("*.jpg")) / 1e9
        for _ in range(arguments.repeats):
            for name, runs in found.items():
                command = [sys.executable, __file__, "--child", name, "--root", str(root), "--also", arguments.also]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(f"  {name}: {runs[-1]}", file=sys.stderr, flush=True)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{arguments.images} JPEGs of 200 to 800 px, {files:.2f} GB; seconds an epoch (n = {arguments.repeats})")
    report(found)


def report(found: Mapping[str, list[dict[str, Any]]]) -> None:
    own = statistics.median(value for run in found["trainkit"] for value in run["later"])
    print(
        "\n| batches alone | first epoch | later epochs | times trainkit | memory, GB | cache, GB |\n"
        "|---|---|---|---|---|---|"
    )
    for name in ALONE:
        first, later = ([value for run in found[name] for value in run[key]] for key in ("first", "later"))
        memory, cached = (max(run.get(key, 0.0) for run in found[name]) for key in ("memory", "cache"))
        times = statistics.median(later) / own
        print(f"| {name} | {spread(first)} | {spread(later)} | {times:.2f} | {memory:.2f} | {cached:.2f} |")
    augmented, plain = ([value for run in found[name] for value in run["later"]] for name in TRAINED)
    ratio = statistics.median(augmented) / statistics.median(plain)
    print(
        f"\nTraining a small CNN, later epochs: augmented {spread(augmented)}, plain {spread(plain)}, {ratio:.2f} times"
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


if __name__ == "__main__":
    main()
