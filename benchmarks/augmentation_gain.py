"""Five seeds of configs/image_folder_augmented.yaml with and without its random transforms and mixing.

    TRAINKIT_TEST_DATA=... python benchmarks/augmentation_gain.py [--seeds 0 1 2 3 4] [--only with|without]

1,000 pictures of CIFAR-10, 32 px, a fifth of them for validation, and 300 others for the test. Both have the same
network, epochs, learning rates and seeds; the checkpoint with the best accuracy in validation is scored. One thread,
fp32. The settings were chosen with seed 0 by the validation pictures alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import trainkit

CONFIG = Path(__file__).parent.parent / "configs" / "image_folder_augmented.yaml"
STEPS = ("device=cpu", "training.num_threads=1", "training.precision=fp32", "logging.plots=false")
VARIANTS = {"without": ("transforms=[normalize]", "training.mix=null"), "with": ()}


def accuracy(name: str, seed: int, folder: str) -> float:
    """On the test pictures, in percent."""
    root = Path(os.environ["TRAINKIT_TEST_DATA"]) / "cifar10-mini"
    own = (f"seed={seed}", f"dataset={{type: image_folder, root: {root}, val_fraction: 0.2}}")
    result = trainkit.train(CONFIG, overrides=[*own, *STEPS, *VARIANTS[name]], runs_dir=Path(folder, "runs"))
    return 100 * result.metrics["test"]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", choices=VARIANTS)
    arguments = parser.parse_args()
    print("| | test accuracy | by seed | seconds of the processor, a run |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.only] if arguments.only else VARIANTS:
            started = time.process_time()
            scores = [accuracy(name, seed, folder) for seed in arguments.seeds]
            seconds = (time.process_time() - started) / len(scores)
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            by_seed = " ".join(f"{score:.1f}" for score in scores)
            print(f"| {name} | {statistics.mean(scores):.1f} ± {spread:.1f} | {by_seed} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
