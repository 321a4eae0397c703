"""An image folder of 10,000 JPEGs of 224 px, made on the spot: first epoch and later epochs against ImageFolder.

    python benchmarks/images.py [--images 10000] [--repeats 2]

Both train the same network, one convolution with a stride of 8, so that the way of the pictures is most of what is
measured; after that, both make the batches of two more epochs and train nothing. The first epoch is the time from the
call of train() to the record of that epoch: listing and decoding the files into a cache that is new each time,
everything that happens before training, and the epoch. The DataLoader decodes in every epoch, with 2 workers; its first
epoch begins with the listing of the files. Both have imported torch and torchvision before. The contenders take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = """
dataset: {{type: image_folder, root: {root}, val_fraction: 0.0, test_fraction: 0.0}}
transforms:
  - {{type: resize, size: [224, 224]}}
  - random_horizontal_flip
  - {{type: normalize, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}
model:
  type: cnn
  blocks: [{{channels: 8, kernel_size: 3, stride: 8, padding: 1}}]
  global_pool: avg
optimizer: {{type: sgd, lr: 0.01}}
training: {{epochs: {epochs}, batch_size: 64, precision: fp32}}
checkpoint: {{monitor: train_loss}}
logging: {{plots: false}}
"""


def make_pictures(root: Path, count: int, *, sides: tuple[int, int] = (224, 224)) -> None:
    """Smooth colored noise, which takes as long to decode as a photograph, in the folders of ten classes.

    Args:
        sides: the least and the most pixels of height and width.
    """
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in range(10):
        (root / f"class{label}").mkdir()
    for index in range(count):
        height, width = (int(side) for side in generator.integers(sides[0], sides[1] + 1, 2))
        small = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(root / f"class{index % 10}" / f"{index}.jpg", quality=90)


class EpochTimes:
    """When the record of each epoch came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def log(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "epoch":
            self.times.append(time.perf_counter())

    def sync(self) -> None: ...

    def close(self) -> None: ...


EPOCHS = 3
BATCHES_ALONE = 2


def seconds_of(batches: Callable[[int], Iterable[object]]) -> list[float]:
    """What it takes to go through each of some further epochs, and do nothing with the batches."""
    taken = []
    for epoch in range(EPOCHS, EPOCHS + BATCHES_ALONE):
        started = time.perf_counter()
        for _ in batches(epoch):
            pass
        taken.append(time.perf_counter() - started)
    return taken


def trainkit(root: Path, work: Path) -> tuple[list[float], list[float]]:
    import torchvision  # noqa: F401

    from trainkit.builders.data import load_source
    from trainkit.builders.setup import build_setup
    from trainkit.config import load_config
    from trainkit.data.cache import cache_root
    from trainkit.system.frontend import Frontend
    from trainkit.workflows.train.run import train

    os.environ["TRAINKIT_CACHE"] = str(work / "cache")
    config = work / "config.yaml"
    config.write_text(CONFIG.format(root=root, epochs=EPOCHS))
    epochs = EpochTimes()
    started = time.perf_counter()
    loaded = load_config(config)
    train(loaded, runs_dir=work / "runs", frontend=Frontend(make_display=lambda *_: epochs))
    # From record to record: validation there is none, and the checkpoints count for trainkit.
    seconds = [after - before for before, after in itertools.pairwise([started, *epochs.times])]
    source = load_source(loaded.config, cache_dir=cache_root())
    return seconds, seconds_of(build_setup(loaded.config, source=source).batches("train", training=True).epoch)


def image_folder(root: Path, work: Path) -> tuple[list[float], list[float]]:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    seconds = []
    started = time.perf_counter()
    steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    data = ImageFolder(str(root), transforms.Compose([transforms.Resize((224, 224)), *steps]))
    loader = DataLoader(data, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    convolution = nn.Conv2d(3, 8, 3, stride=8, padding=1)
    model = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return seconds, seconds_of(lambda epoch: loader)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--child", choices=["trainkit", "image_folder"])
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        contender = {"trainkit": trainkit, "image_folder": image_folder}[arguments.child]
        with tempfile.TemporaryDirectory() as work:
            print(json.dumps(contender(arguments.root, Path(work))))
        return
    found: dict[str, list[tuple[list[float], list[float]]]] = {"trainkit": [], "image_folder": []}
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), arguments.images)
        for _ in range(arguments.repeats):
            for name, runs in found.items():
                command = [sys.executable, __file__, "--child", name, "--root", folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(f"  {name}: {done.stdout.strip()}", file=sys.stderr, flush=True)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{arguments.images} JPEGs of 224 px, seconds an epoch (n = {arguments.repeats})")
    print("\n| | first epoch | later epochs | batches alone |\n|---|---|---|---|")
    for name, runs in found.items():
        first = [trained[0] for trained, _ in runs]
        later = [value for trained, _ in runs for value in trained[1:]]
        alone = [value for _, batches in runs for value in batches]
        print(f"| {name} | {spread(first)} | {spread(later)} | {spread(alone)} |")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


if __name__ == "__main__":
    main()
