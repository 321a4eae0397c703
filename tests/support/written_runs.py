"""Folders of runs as training leaves them, without training."""

import json
from pathlib import Path

from trainkit.system import RunDir


def make_run(folder: Path, *, epochs: int = 3, status: str = "finished", **info: object) -> RunDir:
    folder.mkdir(parents=True)
    config = {"dataset": {"type": "digits"}, "model": {"type": "mlp"}, "optimizer": {"type": "adam", "lr": 0.01}}
    described = {"name": "a", "status": status, "config": config, "monitor": "val_accuracy", **info}
    (folder / "run.json").write_text(json.dumps(described))
    lines = [{"type": "epoch", "step": 10 * n, "epoch": n, "val_accuracy": n / 10} for n in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunDir(folder)
