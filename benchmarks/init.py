"""What ``trainkit init`` writes, beside the shipped config for that kind of data: 8 tables and 4 folders of pictures.

    TRAINKIT_TEST_DATA=... python benchmarks/init.py [--only NAME] [--seeds 3] [--results FILE]

Both are trained on the same splits; the score is that of the test split (accuracy, or RMSE). Tables of scikit-learn are
written as CSV, pictures as PNG, in a folder that is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from sklearn import datasets as bundled

CONFIGS = Path(__file__).parents[1] / "configs"
DATA = Path(os.environ["TRAINKIT_TEST_DATA"])


def bundled_table(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        found = getattr(bundled, f"load_{name}")()
        names = list(getattr(found, "feature_names", range(found.data.shape[1])))
        labels = found.target if name == "diabetes" else [f"class {label}" for label in found.target]
        rows = [",".join(map(str, (*values, label))) for values, label in zip(found.data, labels, strict=True)]
        path = folder / f"{name}.csv"
        path.write_text("\n".join([",".join([*(str(one).replace(",", " ") for one in names), "target"]), *rows]))
        return path

    return make


def made_table(name: str, rows: int) -> Callable[[Path], Path]:
    """Tables that scikit-learn makes: friedman (values), moons with noise (classes)."""

    def make(folder: Path) -> Path:
        inputs, targets = (
            bundled.make_friedman1(rows, noise=1.0, random_state=0)
            if name == "friedman"
            else bundled.make_moons(rows, noise=0.25, random_state=0)
        )
        labels = targets if name == "friedman" else [("up", "down")[label] for label in targets]
        lines = [",".join(map(str, (*values, label))) for values, label in zip(inputs, labels, strict=True)]
        path = folder / f"{name}.csv"
        path.write_text("\n".join([",".join([*(f"x{i}" for i in range(inputs.shape[1])), "target"]), *lines]))
        return path

    return make


def pictures(images: Any, labels: Any, root: Path) -> Path:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    return root


def digits(folder: Path) -> Path:
    found = bundled.load_digits()
    return pictures((found.images * 15.9).astype(np.uint8), found.target, folder / "digits")


def mnist(folder: Path) -> Path:
    raw = DATA / "MNIST" / "raw"
    images = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer((raw / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return pictures(images[:3000], labels[:3000], folder / "mnist")


def cifar(folder: Path) -> Path:
    return DATA / "cifar10-mini"


def skewed(folder: Path) -> Path:
    """Of the ten classes, half have a tenth of their pictures."""
    root = folder / "skewed"
    for place, source in enumerate(sorted((DATA / "cifar10-mini" / "train").iterdir())):
        (root / source.name).mkdir(parents=True)
        for file in sorted(source.iterdir())[: 100 if place % 2 else 15]:
            (root / source.name / file.name).symlink_to(file)
    return root


SETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    **{name: (bundled_table(name), "table") for name in ("iris", "wine", "breast_cancer", "diabetes", "digits")},
    "penguins": (lambda folder: DATA / "tables" / "penguins.csv", "table"),
    "friedman": (made_table("friedman", 2000), "table"),
    "moons": (made_table("moons", 2000), "table"),
    "digit pictures": (digits, "image_folder_cnn"),
    "3,000 of MNIST": (mnist, "image_folder_cnn"),
    "cifar10-mini": (cifar, "image_folder_cnn"),
    "cifar10-mini, skewed": (skewed, "image_folder_cnn"),
}
"""The data and the shipped config."""


def run(*words: str, cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "trainkit", *words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"trainkit {' '.join(words)}\n{done.stderr}")


def test_score(config: Path, seed: int, folder: Path) -> tuple[str, float]:
    runs = folder / f"runs-{config.stem}-{seed}"
    run(
        "train",
        str(config),
        "--run-dir",
        str(runs),
        "--set",
        f"seed={seed}",
        "--set",
        "export.torchscript=false",
        cwd=folder,
    )
    scores = json.loads(next(runs.glob("*/run.json")).read_text())["metrics"]["test"]
    if "accuracy" not in scores:
        return "RMSE", scores["rmse"]
    # of skewed classes the recall over classes, which is balanced accuracy
    return (
        ("recall over classes", scores["recall_macro"])
        if "balanced" in config.with_name("own.yaml").read_text()
        else ("accuracy", scores["accuracy"])
    )


def compare(name: str, seeds: int) -> dict[str, Any]:
    make, shipped = SETS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make(folder)
        own = folder / "own.yaml"
        run(
            "init",
            str(data),
            "-o",
            str(own),
            *(["--target", "target"] if data.suffix == ".csv" and name != "penguins" else []),
            cwd=folder,
        )
        config = yaml.safe_load(own.read_text())
        other = {**yaml.safe_load((CONFIGS / f"{shipped}.yaml").read_text()), "dataset": config["dataset"]}
        (folder / "shipped.yaml").write_text(yaml.safe_dump(other))
        found: dict[str, Any] = {"name": name, "config": shipped}
        for which in (own, folder / "shipped.yaml"):
            scores = [test_score(which, seed, folder) for seed in range(seeds)]
            found["metric"], found[which.stem] = scores[0][0], [score for _, score in scores]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, help="a file of JSON lines to add to")
    arguments = parser.parse_args()
    print("| data | score | init | shipped config | |\n|---|---|---|---|---|")
    for name in SETS:
        if arguments.only not in name:
            continue
        found = compare(name, arguments.seeds)
        if arguments.results:
            with arguments.results.open("a") as file:
                file.write(json.dumps(found) + "\n")
        cells = [
            f"{statistics.mean(found[which]):.4f} ({min(found[which]):.4f} - {max(found[which]):.4f})"
            for which in ("own", "shipped")
        ]
        print(f"| {name} | {found['metric']} | {' | '.join(cells)} | {found['config']} |", flush=True)


if __name__ == "__main__":
    main()
