"""Where the checks work: a folder with small data sets, configs in it, and runs of trainkit on them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.checkpoints import load_checkpoint
from trainkit.config import load_config
from trainkit.system import Frontend, StopRequest
from trainkit.workflows.train import train

Section = Mapping[str, Any]

MLP: Section = {"type": "mlp", "hidden_sizes": [64, 32]}
MLP_NORM: Section = {**MLP, "norm": "batch", "dropout": 0.2}
POOLED = [{"channels": 16, "pool": 2}, {"channels": 32, "pool": 2}]
CNN: Section = {"type": "cnn", "blocks": POOLED, "norm": "batch", "dropout": 0.1}
RESIDUAL_BLOCKS = [
    {"channels": 16},
    {"channels": 16, "residual": True},
    {"channels": 32, "stride": 2, "padding": 1, "residual": True},
]
RESIDUAL: Section = {"type": "cnn", "norm": "batch", "global_pool": "avg", "blocks": RESIDUAL_BLOCKS}
# The backward passes of these two pools add into one cell from several threads.
POOLS: Section = {
    "type": "sequential",
    "layers": [
        {"type": "Conv2d", "out_channels": 32, "kernel_size": 3},
        "ReLU",
        {"type": "MaxPool2d", "kernel_size": 3, "stride": 2},
        {"type": "Conv2d", "out_channels": 64, "kernel_size": 3},
        "ReLU",
        {"type": "AdaptiveAvgPool2d", "output_size": 2},
        "Flatten",
        {"type": "Linear"},
    ],
}
SGD: Section = {"type": "sgd", "lr": 0.02, "momentum": 0.9}
ADAMW: Section = {"type": "adamw", "lr": 0.003}
GEOMETRY: list[Any] = [
    {"type": "random_crop", "padding": 4},
    "random_horizontal_flip",
    {"type": "random_affine", "degrees": 15, "translate": [0.1, 0.1], "interpolation": "bilinear"},
]
JITTER: Section = {"type": "color_jitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}
AUGMENT: list[Any] = [*GEOMETRY, JITTER, "normalize", "random_erasing"]
PICTURES = {"rgb32": ((32, 32, 3), 100), "gray28": ((28, 28), 60), "rgb224": ((224, 224, 3), 16)}
"""Folders of PNGs: shape of a picture, pictures of each of three classes."""


def blobs(samples: int = 310, features: int = 13, **more: Any) -> dict[str, Any]:
    """A table; with the usual 13 columns and batches of 10, a batch is no multiple of 16 bytes."""
    problem = {"type": "blobs", "num_features": features, "num_classes": 3}
    return {"type": "synthetic", "problem": problem, "num_samples": samples, **more}


@dataclass(frozen=True)
class Run:
    """A run folder, and what was said while it was trained."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def epochs(self) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [row for row in rows if row.get("type") == "epoch"]

    def states(self) -> dict[tuple[int, int], Path]:
        """The checkpoints by completed (steps, epochs)."""
        found = {}
        for path in sorted((self.folder / "checkpoints").glob("*.pth")):
            progress = load_checkpoint(path)["progress"]
            found[progress["steps_completed"], progress["epochs_completed"]] = path
        return found

    def state(self, step: int | None = None) -> dict[str, Any]:
        """The newest checkpoint, or the first one after ``step``."""
        states = self.states()
        return load_checkpoint(states[max(states) if step is None else min(key for key in states if key[0] == step)])

    def line(self, start: str) -> str:
        """What was said after ``start``."""
        return next((text.removeprefix(start) for text in self.said if text.startswith(start)), "not said")


class EveryStep(StopRequest):
    """A stop request that never stops: the loop asks it after every step, which makes it a clock of steps."""

    def __init__(self, do: Callable[[int], None]) -> None:
        super().__init__()
        self.calls, self.do, self.on = 0, do, False

    def __call__(self) -> bool:
        if self.on:
            self.calls += 1
            self.do(self.calls)
        return False

    def listen(self, text: str) -> None:
        """The data and the model are there with the line that names the run; from here on it is the loop that asks."""
        self.on = self.on or text.startswith("run: ")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int | str
    out: str
    err: str

    def __str__(self) -> str:
        text = (self.err.strip() or self.out.strip())[-350:]
        return f"exit {self.code}" if self.code == 0 or not text else f"exit {self.code}: {text}"


@dataclass(frozen=True)
class Workplace:
    """A folder with data, for one device."""

    folder: Path
    device: str
    """cuda or cpu."""
    quick: bool
    """Fewer and smaller cases, to try the program itself."""

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    def images(self, name: str = "rgb32", **more: Any) -> dict[str, Any]:
        return {
            "type": "image_folder",
            "root": str(self.folder / name),
            "val_fraction": 0.1,
            "test_fraction": 0.1,
        } | more

    def mnist(self, **more: Any) -> dict[str, Any]:
        """The real MNIST where TRAINKIT_TEST_DATA names it, and noise of its shape elsewhere."""
        given = os.environ.get("TRAINKIT_TEST_DATA", "")
        root = given if given and (Path(given) / "MNIST").is_dir() and not self.quick else str(self.folder / "mnist")
        return {"type": "mnist", "root": root, "download": False, **more}

    def config(self, name: str, **given: Any) -> Path:
        """Write a config. What is not given: the small MLP on a table, SGD, two epochs in batches of 10.

        Sections are given by name; every other keyword is a key of ``training``.
        """
        sections = (
            "loss",
            "scheduler",
            "checkpoint",
            "logging",
            "export",
            "dataset",
            "transforms",
            "model",
            "optimizer",
        )
        top = {key: given.pop(key) for key in sections if key in given}
        dataset = top.setdefault("dataset", blobs())
        table = dataset["type"] in ("synthetic", "table")
        top = {"transforms": ["standardize" if table else "normalize"], "model": MLP, "optimizer": SGD} | top
        top["logging"] = {"plots": False, **top.get("logging", {})}
        training = {"epochs": 2, "batch_size": 10, **given}
        path = self.folder / "configs" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": name, "seed": 0, "device": self.device, **top, "training": training}))
        return path

    def train(
        self, config: Path, *sets: str, resume: Path | None = None, each_step: Callable[[int], None] | None = None
    ) -> Run:
        """Train in this process.

        Args:
            each_step: called with 1, 2, ... after each step (and between the batches of validation).

        Raises:
            Exception: what training raised; its run is ``newest_run``.
        """
        said: list[str] = []
        stop = StopRequest() if each_step is None else EveryStep(each_step)

        def say(text: str) -> None:
            said.append(text)
            if isinstance(stop, EveryStep):
                stop.listen(text)

        runs = self.folder / "runs" / f"{config.stem}-{time.monotonic_ns()}"
        loaded = load_config(config, overrides=sets)
        train(loaded, runs_dir=runs, resume=resume, frontend=Frontend(say=say, stop=stop))
        return Run(next(runs.iterdir()), said)

    def newest_run(self, config: Path) -> Run:
        """The last run of a config, finished or not."""
        parents = (self.folder / "runs").glob(f"{config.stem}-*")
        return Run(next(max(parents, key=lambda path: int(path.name.rsplit("-", 1)[1])).iterdir()))

    def command(self, *words: Any, limit: float = 90, env: Mapping[str, str] | None = None) -> Done:
        """``trainkit`` in a process of its own, from this folder; ``env`` is added to its environment."""
        return self.python("-m", "trainkit", *words, limit=limit, env=env)

    def python(
        self, *words: Any, limit: float = 90, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Done:
        command = [sys.executable, *map(str, words)]
        try:
            done = subprocess.run(
                command,
                cwd=cwd or self.folder,
                env={**os.environ, **(env or {})},
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired as error:
            return Done(f"none after {limit} s", str(error.stdout or "")[-200:], str(error.stderr or "")[-200:])
        return Done(done.returncode, done.stdout, done.stderr)


def make_data(place: Workplace) -> None:
    """Pictures of three sizes, a table in a CSV file, and images in MNIST's files."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, (shape, count) in PICTURES.items():
        for label in range(3):
            folder = place.folder / name / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count // 3 if place.quick else count):
                pixels = rng.integers(0, 128, shape, dtype=np.uint8) + np.uint8(40 * label)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    with (place.folder / "table.csv").open("w") as file:
        file.writelines(f"{line}\n" for line in table_lines(rng, rows=300))
    raw = place.folder / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    train, test = (600, 200) if place.quick else (60_000, 10_000)
    for part, count in (("train", train), ("t10k", test)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8) + 15 * labels[:, None, None]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())


def table_lines(rng: np.random.Generator, *, rows: int) -> Iterator[str]:
    """CSV of 13 columns and a class."""
    yield ",".join([*(f"f{number}" for number in range(13)), "kind"])
    for number in range(rows):
        values = rng.normal(size=13) + number % 3
        yield ",".join([*(f"{value:.6g}" for value in values), "abc"[number % 3]])
