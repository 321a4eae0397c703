"""Batches of JPEGs of 224 px that worker processes decode, without a network, from one installed trainkit.

    python benchmarks/workers.py [--images 1024] [--workers 2] [--epochs 5]

The first epoch, which starts the workers, is not counted. The seconds are those of an epoch; the milliseconds are the
processor time of the main process for a batch of 64: receiving, flips, normalizing. To compare two versions, run them
in turn with PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from images import make_pictures

from trainkit.data.dataset import Part
from trainkit.data.loading import Decoding, Sampler, make_batches
from trainkit.data.transforms import Normalize
from trainkit.data.transforms.geometry import RandomHorizontalFlip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), args.images)
        paths = tuple(sorted(Path(folder).rglob("*.jpg")))
        part = Part(paths, np.zeros(len(paths), dtype=np.int64))
        batches = make_batches(
            part,
            Sampler(part, np.arange(len(paths)), batch_size=64, shuffle=True, seed=0),
            (RandomHorizontalFlip(), Normalize((0.5,) * 3, (0.25,) * 3)),
            random=True,
            channels_last=True,
            decoding=Decoding(3, num_workers=args.workers),
        )
        seconds, milliseconds = [], []
        for epoch in range(args.epochs + 1):
            started, worked = time.perf_counter(), time.process_time()
            for _ in batches.epoch(epoch):
                pass
            seconds.append(time.perf_counter() - started)
            milliseconds.append((time.process_time() - worked) / batches.batches_per_epoch * 1000)
    result = {"seconds": seconds[1:], "main process, ms a batch": milliseconds[1:]}
    print(json.dumps({name: [statistics.median(v), min(v), max(v)] for name, v in result.items()}))


if __name__ == "__main__":
    main()
