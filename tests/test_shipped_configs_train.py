"""Every shipped config loads, builds and takes two steps, and its checkpoint holds what it takes to go on."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit.config import load_config
from trainkit.errors import Interrupted
from trainkit.system.frontend import Frontend, StopRequest
from trainkit.workflows.train.run import train

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SLOW = ("cifar10_best", "cifar10_fast", "cifar10_resnet18", "finetune_resnet18", "finetune_efficientnet_lite0")
NUM_SAMPLES = 400


class StopAfterTwoSteps:
    """A recorder that asks for a stop, as a signal would, once two steps are logged."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def log(self, record):
        if record.get("step", 0) >= 2:
            self.stop.signum = 2

    def sync(self):
        pass

    def close(self):
        pass


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


def noise_like_mnist(root: Path, folder: str) -> None:
    """Files of MNIST's form with noise inside, in place of a download."""
    generator = np.random.default_rng(0)
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = generator.integers(0, 256, (NUM_SAMPLES, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte.gz", np.arange(NUM_SAMPLES, dtype=np.uint8) % 10)


def noise_in_folders(root: Path) -> None:
    """Ten classes of 32 x 32 pictures, in place of CIFAR-10 and of the user's own."""
    generator = np.random.default_rng(0)
    for label in range(10):
        (root / f"class{label}").mkdir(parents=True)
        for index in range(NUM_SAMPLES // 10):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class{label}" / f"{index}.png")


def noise_in_a_table(folder: Path) -> None:
    """A table of numbers with gaps, categories and dates, in place of the user's own."""
    generator = np.random.default_rng(0)
    rows = [
        f"{'' if row % 7 == 0 else generator.normal():.5},{'abc'[row % 3]},2024-01-{1 + row % 28:02},class{row % 4}"
        for row in range(NUM_SAMPLES)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text("\n".join(["number,letter,day,y", *rows]) + "\n")


def replaced(config, folder: Path) -> list[str]:
    """Overrides that put data of the same shape in the place of data that are not in this repository."""
    kind = config.dataset.type
    if kind in ("mnist", "fashion_mnist"):
        noise_like_mnist(folder, {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[kind])
        return [f"dataset.root={folder}", "dataset.download=false"]
    if kind == "cifar10":
        noise_in_folders(folder)
        dataset = f"dataset={{type: image_folder, root: {folder}}}"
        return [dataset, "transforms=[{type: resize, size: [32, 32]}, random_horizontal_flip, normalize]"]
    if kind == "image_folder":
        noise_in_folders(folder)
        published = config.model.type in ("torchvision", "timm")  # weights that would be downloaded
        return [f"dataset.root={folder}", *(["model.weights=none"] if published else [])]
    if kind == "table":
        noise_in_a_table(folder)
        return [f"dataset.path={folder / 'table.csv'}"]
    return []


def test_there_are_shipped_configs():
    assert len(CONFIGS) >= 15


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem in SLOW else path for path in CONFIGS],
    ids=[path.stem for path in CONFIGS],
)
def test_two_steps(path, tmp_path, capsys):
    overrides = replaced(load_config(path).config, tmp_path / "data")
    if overrides:
        print(f"{path.name}: trained on noise of the same shape: {overrides[0]}")
    loaded = load_config(path, overrides=[*overrides, "logging.every=1"])
    stop = StopRequest()
    frontend = Frontend(make_display=lambda setup, batches: StopAfterTwoSteps(stop), stop=stop)
    with pytest.raises(Interrupted, match=r"stopped by SIGINT: the state is saved"):
        train(loaded, runs_dir=tmp_path / "runs", frontend=frontend)
    files = (tmp_path / "runs").glob("*/checkpoints/*.pth")
    file = max(files, key=lambda file: file.stat().st_mtime_ns)  # an epoch of one step has a checkpoint of its own
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["progress"]["steps_completed"] == 2
    assert checkpoint["config"] == {**loaded.resolved()}
    assert file.name.startswith(f"{path.stem}_")
