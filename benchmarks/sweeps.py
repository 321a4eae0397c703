"""Successive halving against the full search on scikit-learn's digits: the score that each finds, and its epochs.

Both search the same values: random ones of the same seed. Another figure: how long a trial's process takes to start.

    PYTHONPATH=src python benchmarks/sweeps.py [--seeds 5] [--trials 18] [--epochs 9]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from trainkit.config import load_sweep
from trainkit.system import RunDir
from trainkit.workflows.sweep import SweepResult, sweep

CONFIG = """
name: digits
dataset: {type: digits, val_fraction: 0.3, test_fraction: 0.3}
transforms: [normalize]
model: {type: mlp, hidden_sizes: [64, 32], dropout: 0.1}
optimizer: {type: adamw}
scheduler: cosine
training: {epochs: EPOCHS, batch_size: 64}
logging: {plots: false}
"""
SWEEP = """
config: config.yaml
name: NAME
seed: SEED
objective: val_accuracy
search:
  optimizer.lr: {log_uniform: [0.0001, 1.0]}
  optimizer.weight_decay: {log_uniform: [0.0001, 1.0]}
  training.batch_size: {choice: [32, 64, 128]}
sampler: random
pruner: PRUNER
budget: {trials: TRIALS}
parallel: {trials: 2}
"""
PRUNERS = {"full": "none", "asha": "{type: asha, min: 1ep, reduction: 3}"}


def search(folder: Path, kind: str, *, seed: int, trials: int, epochs: int) -> SweepResult:
    (folder / "config.yaml").write_text(CONFIG.replace("EPOCHS", str(epochs)))
    values = {"NAME": f"{kind}-{seed}", "SEED": seed, "PRUNER": PRUNERS[kind], "TRIALS": trials}
    text = SWEEP
    for name, value in values.items():
        text = text.replace(name, str(value))
    (folder / "sweep.yaml").write_text(text)
    return sweep(load_sweep(folder / "sweep.yaml"), sweeps_dir=folder / "sweeps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seeds", 5), ("trials", 18), ("epochs", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    gaps, tests, shares, starts = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            found, test, epochs = {}, {}, {}
            for kind in PRUNERS:
                began = time.monotonic()
                result = search(Path(folder), kind, seed=seed, trials=given.trials, epochs=given.epochs)
                found[kind] = result.best.score or 0.0
                run = RunDir(result.folder / "runs" / str(result.best.run))
                test[kind] = run.read_info()["metrics"]["test"]["accuracy"]
                epochs[kind] = sum(one.epochs for one in result.trials)
                starts += result.start_seconds[1:]
                print(
                    f"seed {seed} {kind}: val {100 * found[kind]:.2f}, test {100 * test[kind]:.2f}, "
                    f"{epochs[kind]} epochs, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
            gaps.append(100 * (found["full"] - found["asha"]))
            tests.append(100 * (test["full"] - test["asha"]))
            shares.append(100 * epochs["asha"] / epochs["full"])
    print(f"the full search is better by {statistics.mean(gaps):.2f} points on val (at most {max(gaps):.2f}),")
    print(f"and by {statistics.mean(tests):.2f} on test; asha takes {statistics.mean(shares):.0f} % of its epochs")
    print(f"a trial's process starts in {statistics.median(starts):.2f} s (at most {max(starts):.2f}, n={len(starts)})")


if __name__ == "__main__":
    main()
