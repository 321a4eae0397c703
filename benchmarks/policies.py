"""Random policies on whole batches against torchvision's, an image at a time: ``python benchmarks/policies.py``.

Both get the same uint8 images in memory and run on one thread. Each measurement is the time of the processor, so that
other programs count less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision.transforms.v2 as transforms

from trainkit.data.transforms.policies import RandAugment, TrivialAugment
from trainkit.runtime.memory import keep_freed_memory


def milliseconds(work: Callable[[], Any], count: int) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1000 / count


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=7)
    repeats = arguments.parse_args().repeats
    keep_freed_memory()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print("| images | policy | trainkit, ms an image | torchvision | times trainkit |\n|---|---|---|---|---|")
    for size, count in ((32, 512), (96, 128), (224, 64)):
        shape = (3, size, size)
        images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        stored = images.contiguous(memory_format=torch.channels_last)
        for ours, theirs in (
            (TrivialAugment(), transforms.TrivialAugmentWide()),
            (RandAugment(), transforms.RandAugment()),
        ):
            pairs = []
            for _ in range(1 + repeats):
                draws = torch.rand(count, ours.num_draws, dtype=torch.float64, generator=generator)
                batch = stored.clone(memory_format=torch.preserve_format)
                ms = milliseconds(lambda: ours.apply(batch, ours.parameters(draws, shape)), count)  # noqa: B023
                pairs.append((ms, milliseconds(lambda: torch.stack([theirs(image) for image in images]), count)))  # noqa: B023
            left, right = (statistics.median(side) for side in zip(*pairs[1:], strict=True))
            ratio = statistics.median(b / a for a, b in pairs[1:])
            print(f"| {count} x 3 x {size} x {size} | {ours.name} | {left:.3f} | {right:.3f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
