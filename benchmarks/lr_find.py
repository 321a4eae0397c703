"""How far what ``trainkit lr-find`` finds is from the best of seven learning rates, on shipped configs.

OMP_NUM_THREADS=1 python benchmarks/lr_find.py [CONFIG ...]

Each learning rate trains the config to its end with three seeds. The best has the lowest mean of their last validation
losses.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from pathlib import Path

import trainkit
from trainkit.config import load_config
from trainkit.recorders import history_of, read_json_lines

CONFIGS = ("digits_mlp", "wine_mlp", "iris_mlp", "breast_cancer_mlp", "diabetes_mlp", "synthetic_regression")
SEEDS = range(3)
QUICK = ["logging.plots=false", "export={}", "checkpoint.keep_last=1"]


def last_loss(config: Path, lr: float, seed: int) -> float:
    """The validation loss after the last epoch; infinity where the training diverged."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*QUICK, f"optimizer.lr={lr!r}", f"seed={seed}"]
        try:
            result = trainkit.train(config, overrides=overrides, runs_dir=folder)
        except trainkit.TrainkitError as error:
            print(f"{config.stem}, {lr:g}, seed {seed}: {str(error)[:60]}", file=sys.stderr)
            return math.inf
        return history_of(read_json_lines(result.run.metrics)).series("val_loss")[-1][1]


def main() -> None:
    print("| config | found (seeds) | best of the grid | apart | last validation losses |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or CONFIGS:
        config = Path(__file__).parents[1] / "configs" / f"{name}.yaml"
        found = trainkit.lr_find(config)
        lowest = 1e-3 if load_config(config).config.optimizer.type == "sgd" else 1e-4
        grid = [float(f"{lowest * 10 ** (step / 2):.3g}") for step in range(7)]
        losses = [statistics.fmean(last_loss(config, lr, seed) for seed in SEEDS) for lr in grid]
        best = grid[losses.index(min(losses))]
        low, high = found.spread
        rest = ", ".join(f"{lr:g}: {loss:.4g}" for lr, loss in zip(grid, losses, strict=True))
        apart = max(found.lr / best, best / found.lr)
        print(f"| {name} | {found.lr:g} ({low:.2g} - {high:.2g}) | {best:g} | {apart:.1f} x | {rest} |", flush=True)


if __name__ == "__main__":
    main()
