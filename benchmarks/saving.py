"""A durable, checked checkpoint of 100 MB against a bare ``torch.save`` with fsync, alternating.

python benchmarks/saving.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from trainkit.checkpoints.folder import CheckpointFolder


def bare(path: Path, state: dict[str, object]) -> float:
    started = time.perf_counter()
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    state: dict[str, object] = {
        "model": {f"layer{index}.weight": torch.randn(1_000, 1_000) for index in range(25)},
        "ema": None,
        "progress": {},
    }
    ours, plain = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        checkpoints = CheckpointFolder(Path(folder) / "checkpoints")
        for step in range(arguments.repeats):
            plain.append(bare(Path(folder) / "bare.pth", state))
            started = time.perf_counter()
            checkpoints.save(
                state, name=f"run_epoch{step}.pth", step=step, epoch=step, score=None, best=False, keep_last=1
            )
            ours.append(time.perf_counter() - started)
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    print("| 100 MB | median s | least - most |\n|---|---|---|")
    for name, values in (("torch.save and fsync", plain), ("trainkit", ours), ("ratio", ratios)):
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} - {max(values):.2f} |")


if __name__ == "__main__":
    main()
