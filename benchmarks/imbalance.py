"""A planted imbalance of 20 to 1: a plain run, the balanced sampler, and balanced weights of the loss.

    TRAINKIT_TEST_DATA=... python benchmarks/imbalance.py [--seeds 0 1 2 3 4]

Images of MNIST in a folder: 1000 of each of the digits 0 to 4, and a twentieth of 5 to 9. The test split has
as many of each. The same network, steps and seeds in each run; the checkpoint with the best balanced accuracy on the
validation samples, which are as unbalanced as the training, is scored. One thread.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import trainkit

FREQUENT, RARE, TEST = 1000, 50, 100
VARIANTS = {
    "plain": {},
    "sampler, power 0.5": {"sampler": {"type": "balanced", "power": 0.5}},
    "sampler, power 1": {"sampler": "balanced"},
    "loss weights": {},
}


def read_idx(path: Path) -> np.ndarray:
    """Images or labels of MNIST's files, packed or not: uint8."""
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def write_images(raw: Path, folder: Path) -> None:
    """``folder/{train,test}/<digit>/*.png``."""
    for split, name in (("train", "train"), ("test", "t10k")):
        images, labels = read_idx(raw / f"{name}-images-idx3-ubyte"), read_idx(raw / f"{name}-labels-idx1-ubyte")
        for digit in range(10):
            count = TEST if split == "test" else FREQUENT if digit < 5 else RARE
            target = folder / split / str(digit)
            target.mkdir(parents=True)
            for number, image in enumerate(images[labels == digit][:count]):
                Image.fromarray(image).save(target / f"{number}.png")


def config(root: Path, name: str, seed: int) -> dict[str, object]:
    weight = {"weight": "balanced"} if name == "loss weights" else {}
    return {
        "seed": seed,
        "device": "cpu",
        "dataset": {"type": "image_folder", "root": str(root), "val_fraction": 0.2},
        "transforms": ["normalize"],
        "model": {"type": "cnn", "blocks": [{"channels": 8, "pool": 2}, {"channels": 16, "pool": 2}], "norm": "batch"},
        "loss": {"type": "cross_entropy", **weight},
        "optimizer": {"type": "adamw", "lr": 0.003},
        "scheduler": "cosine",
        "training": {"epochs": 8, "batch_size": 64, "num_threads": 1, "precision": "fp32", **VARIANTS[name]},
        "checkpoint": {"monitor": "val_balanced_accuracy"},
        "logging": {"plots": False},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(os.environ["TRAINKIT_TEST_DATA"]) / "MNIST" / "raw", Path(folder, "images"))
        print("| | balanced accuracy | by seed | gain over plain, by seed | seconds |\n|---|---|---|---|---|")
        plain: list[float] = []
        for name in VARIANTS:
            started, scores = time.perf_counter(), []
            for seed in seeds:
                result = trainkit.train(config(Path(folder, "images"), name, seed), runs_dir=Path(folder, "runs"))
                scores.append(100 * result.metrics["test"]["recall_macro"])
            plain = plain or scores
            gains = [score - other for score, other in zip(scores, plain, strict=True)]
            mean, spread = statistics.mean(scores), statistics.stdev(scores) if len(seeds) > 1 else 0.0
            seconds = (time.perf_counter() - started) / len(seeds)
            by_seed = (" ".join(f"{value:.1f}" for value in scores), " ".join(f"{gain:+.1f}" for gain in gains))
            print(f"| {name} | {mean:.1f} ± {spread:.1f} | {' | '.join(by_seed)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
