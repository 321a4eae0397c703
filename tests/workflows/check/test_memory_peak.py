"""The estimate of memory is within 30 % of the peak of some steps on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIGS = Path(__file__).parents[3] / "configs"
DATA = os.environ.get("TRAINKIT_TEST_DATA")
PHOTOS = """
dataset: {type: image_folder, root: photos}
transforms: [{type: resize, size: 72}, {type: center_crop, size: 64}, random_horizontal_flip, normalize]
model:
  type: cnn
  blocks: [{channels: 32, pool: 2}, {channels: 64, pool: 2}]
  norm: batch
  global_pool: avg
"""
MEASURE = """
import json, os, sys
import torch

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

before = status("VmRSS")
from trainkit.config import load_config
from trainkit.system import Frontend, StopRequest
from trainkit.workflows.train import run

class StopAfter(StopRequest):
    steps = None

    def __call__(self):
        if self.steps is not None:
            self.steps -= 1
            if self.steps == 0:
                self.signum = 2
        return super().__call__()

stop, real_checks, real_fit = StopAfter(), run.run_checks, run.fit

def checked(*args, **kwargs):
    global memory
    found = real_checks(*args, **kwargs)
    memory = found.costs.memory
    return found

def fitted(*args, **kwargs):
    stop.steps = 4
    real_fit(*args, **kwargs)
    print(json.dumps({"peak": status("VmHWM") - before, **memory.to_json()}), flush=True)
    os._exit(0)  # scores and report are another matter

run.run_checks, run.fit = checked, fitted
loaded = load_config(sys.argv[1], overrides=["training.num_threads=1", *sys.argv[2:]])
run.train(loaded, runs_dir="runs", frontend=Frontend(stop=stop))
"""


def photos() -> Path:
    rng = np.random.default_rng(0)
    for name in "ab":
        Path("photos", name).mkdir(parents=True)
        for index in range(160):
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((100 + index, 90)).save(f"photos/{name}/{index}.jpg")
    Path("photos.yaml").write_text(PHOTOS)
    return Path("photos.yaml")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("wine_mlp", []),
        ("digits_cnn", []),
        ("digits_cnn", ["training.batch_size=1024", "training.precision=fp32"]),
        ("mnist_cnn", ["training.batch_size=1024", "training.precision=fp32"]),
        ("mnist_cnn", ["training.batch_size=1024", "training.precision=bf16"]),
        ("cifar10_resnet18", ["training.batch_size=64", "training.precision=fp32", "dataset.val_fraction=0.8"]),
        ("photos", ["training.batch_size=128", "training.precision=fp32"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "as it is",
)
def test_the_estimate_is_near_the_peak(
    name: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    config = photos() if name == "photos" else CONFIGS / f"{name}.yaml"
    overrides = [*overrides, "export.torchscript=false"]
    if name in ("mnist_cnn", "cifar10_resnet18"):
        if DATA is None:
            pytest.skip("TRAINKIT_TEST_DATA is not set")
        folder = f"{{type: image_folder, root: {DATA}/cifar10-mini}}"
        overrides.insert(0, f"dataset.root={DATA}" if name == "mnist_cnn" else f"dataset={folder}")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(config), *overrides], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[0])
    ratio = (measured["total"] + measured["libraries"]) / measured["peak"]
    print(f"{name} {overrides}: {measured}, {ratio:.2f}")
    assert 0.7 <= ratio <= 1.3, (ratio, measured)
