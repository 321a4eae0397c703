"""From the command to 99 % of MNIST's test images: configs/mnist_fast.yaml against the tutorial loop, whole processes.

    TRAINKIT_TEST_DATA=... python benchmarks/to_accuracy.py [--seeds 0 1 2] [--tutorial-epochs 15]

The tutorial loop trains the same network on all 60,000 images with two data workers and a constant learning rate, and
looks at the test images after each epoch; it ends at the first epoch that reaches 99 %. trainkit's process ends when
the report, the exports and the checkpoint are written.
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
from pathlib import Path

WANTED = 0.99
CONFIG = Path(__file__).parent.parent / "configs" / "mnist_fast.yaml"


def tutorial(data: str, seed: int, epochs: int) -> tuple[float, int]:
    """Test accuracy and epochs where it first reached what is wanted, or after the last."""
    import torch
    from contenders import BATCH, LR, MEAN, MOMENTUM, STD, network
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import MNIST

    torch.manual_seed(seed)
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    train = DataLoader(MNIST(data, train=True, transform=to_tensor), batch_size=BATCH, shuffle=True, num_workers=2)
    test = DataLoader(MNIST(data, train=False, transform=to_tensor), batch_size=1000, num_workers=2)
    model, criterion = network("cnn"), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    accuracy, epoch = 0.0, 0
    while accuracy < WANTED and epoch < epochs:
        epoch += 1
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = sum((model(x).argmax(1) == y).sum().item() for x, y in test) / 10_000
    return accuracy, epoch


def run(command: list[str]) -> tuple[float, dict[str, object]]:
    """Wall-clock seconds of a process, and the JSON document that it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.perf_counter() - started, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tutorial-epochs", type=int, default=15)
    parser.add_argument("--only", choices=["trainkit", "tutorial"])
    parser.add_argument("--child", type=int, help="train the tutorial loop here, with this seed")
    arguments = parser.parse_args()
    data = os.environ["TRAINKIT_TEST_DATA"]
    if arguments.child is not None:
        accuracy, epochs = tutorial(data, arguments.child, arguments.tutorial_epochs)
        print(json.dumps({"accuracy": accuracy, "epochs": epochs}))
        return
    print("| seed | trainkit, s | test accuracy | tutorial loop, s | test accuracy | epochs | ratio |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for seed in arguments.seeds:
        cells, seconds = [str(seed)], {}
        if arguments.only != "tutorial":
            with tempfile.TemporaryDirectory() as folder:
                overrides = [f"dataset.root={data}", "dataset.download=false", f"seed={seed}"]
                command = [sys.executable, "-m", "trainkit", "train", str(CONFIG), "--run-dir", folder, "--json"]
                seconds["trainkit"], found = run([*command, *(word for o in overrides for word in ("--set", o))])
            cells += [f"{seconds['trainkit']:.1f}", f"{100 * found['metrics']['test']['accuracy']:.2f} %"]  # type: ignore[index]
        if arguments.only != "trainkit":
            command = [sys.executable, __file__, "--child", str(seed), "--tutorial-epochs"]
            seconds["tutorial"], found = run([*command, str(arguments.tutorial_epochs)])
            cells += [f"{seconds['tutorial']:.1f}", f"{100 * found['accuracy']:.2f} %", str(found["epochs"])]  # type: ignore[operator]
        if len(seconds) == 2:
            ratios.append(seconds["tutorial"] / seconds["trainkit"])
            cells.append(f"{ratios[-1]:.1f}")
        print("| " + " | ".join(cells) + " |", flush=True)
    if ratios:
        print(f"\nmedian ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} - {max(ratios):.1f})")


if __name__ == "__main__":
    main()
