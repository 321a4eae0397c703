"""trainkit: a config and a command."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import torch
import yaml
from common import silent

CONFIG: dict[str, Any] = {
    "dataset": "digits",
    "model": {"type": "mlp", "hidden_sizes": [32], "dropout": 0.2},
    "optimizer": {"type": "adam", "lr": 0.01},
    "training": {"epochs": 3, "batch_size": 64},
}


def command(*words: str) -> str:
    """Run a command. Its messages are returned, or printed where it fails, which ends the try."""
    done = subprocess.run([sys.executable, "-m", "trainkit", *words], capture_output=True, text=True)
    if re.search(r"^epoch 1/|^error: step", done.stderr, re.MULTILINE):
        common.first_batch()
    if done.returncode:
        sys.exit(done.stderr)
    return done.stderr


def train(**changes: Any) -> str:
    """Train the config with changed sections."""
    Path("config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    return command("train", "config.yaml")


def table(rows: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """A table of 200 rows with changed cells."""
    with Path("t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("a", "b", "y"))
        writer.writeheader()
        for index in range(200):
            writer.writerow({"a": index, "b": index * index % 7, "y": 2 * index, **rows.get(index, {})})
    return {"type": "table", "path": "t.csv", "target": "y"}


def scores(split: str) -> dict[str, float]:
    return json.loads(next(Path("runs").glob("*/run.json")).read_text())["metrics"][split]


def newest() -> Path:
    return sorted(Path("runs").glob("*/checkpoints/*.pth"))[-1]


def misspelt_key() -> None:
    train(optimizer={"type": "adam", "wieght_decay": 0.1})


def misspelt_metric() -> None:
    train(checkpoint={"monitor": "val_acuracy"})


def wrong_shape() -> None:
    layers = ["Flatten", {"type": "Linear", "in_features": 63, "out_features": 10}]
    train(model={"type": "sequential", "layers": layers})


def softmax_twice() -> None:
    train(model={**CONFIG["model"], "output": "softmax"}, loss="cross_entropy")


def label_out_of_range() -> None:
    train(dataset={**table({7: {"y": "bad"}}), "task": "regression"})


def nan_target() -> None:
    said = train(dataset=table({30: {"y": "nan"}}))
    lines = [line for line in said.splitlines() if "left out" in line or "without a target" in line]
    silent(f"trained without that row ({'it is said' if lines else 'not a word'}); R2 {scores('test')['r2']:.2f}")


def nan_input() -> None:
    train(dataset=table({30: {"b": "inf"}}))


def high_learning_rate() -> None:
    train(optimizer={"type": "sgd", "lr": 1e20})


def class_missing_from_val() -> None:
    common.make_folders()
    train(dataset={"type": "image_folder", "root": "pictures"}, training={"epochs": 200, "batch_size": 64})
    silent(f"labels go by the folder's name; val accuracy {scores('val')['accuracy']:.2f}")


def flipped_bit() -> None:
    train()
    weights = torch.load(newest(), weights_only=True)["model"]
    common.flip_a_bit(newest(), next(iter(weights.values())).numpy())
    command("eval", str(newest()), "--split", "val")
    silent("the wrong weights were loaded")


def payload() -> None:
    train()
    common.poison(newest())
    command("eval", str(newest()), "--split", "val")
    common.say_whether_it_ran()


def killed_and_resumed() -> None:
    train(training={"epochs": 4, "batch_size": 64})
    whole = torch.load(newest(), weights_only=True)["model"]
    arguments = [sys.executable, "-m", "trainkit", "train", "config.yaml", "--run-dir", "killed"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("epoch 2/"):
                break
        child.kill()
    command("resume", "--run-dir", "killed")
    last = sorted(Path("killed").glob("*/checkpoints/*epoch04*.pth"))[-1]
    silent(common.whether_the_same(whole, torch.load(last, weights_only=True)["model"]))


common.run(globals())
